//! Addresses on object storage, names of objects as names of files, and the order of uploads.

use super::StorageError;
use std::path::Path;

/// Longest part of a name that file systems take, bytes.
const LONGEST_NAME: usize = 255;

/// Which kind of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Amazon S3, and what speaks like it.
    S3,
    /// Google Cloud Storage.
    Gs,
    /// Azure Blob Storage.
    Az,
    /// A folder of this machine.
    File,
}

/// Where something is on object storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The whole address.
    pub url: String,
    /// The kind of store.
    pub scheme: Scheme,
    /// Bucket or container; empty for files.
    pub bucket: String,
    /// Name of an object, or what its name begins with; no slash at either end.
    pub prefix: String,
}

/// Whether a path is a URL.
pub fn is_url(path: &Path) -> bool {
    let scheme = path.to_str().and_then(|text| text.split_once("://"));
    scheme.is_some_and(|(scheme, _)| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(plain)
    })
}

impl Address {
    /// Of a path that is a URL; nothing of others.
    ///
    /// # Errors
    /// [`StorageError::Address`].
    pub fn of(path: &Path) -> Result<Option<Self>, StorageError> {
        let Some(text) = path.to_str().filter(|_| is_url(path)) else {
            return Ok(None);
        };
        // What stands behind a question mark, or before an @, may be a secret.
        let told = text.split(['?', '#']).next().unwrap_or_default();
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        let wrong = |what: &str| StorageError::Address {
            url: match told.split_once('@') {
                Some((_, host)) => format!("{scheme}://...@{host}"),
                None => told.into(),
            },
            what: what.into(),
        };
        if told.len() != text.len() {
            return Err(wrong(
                "an address has no ? or #, credentials are given in the environment",
            ));
        }
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "s3" => Scheme::S3,
            "gs" => Scheme::Gs,
            "az" => Scheme::Az,
            "file" => Scheme::File,
            _ => return Err(wrong("no such kind of store is known")),
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if scheme == Scheme::File && !bucket.is_empty() {
            return Err(wrong("a file's address begins with three slashes"));
        }
        if scheme != Scheme::File {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            if bucket.contains('@') {
                return Err(wrong(
                    "an address has no @, accounts and credentials are given in the environment",
                ));
            }
            if bucket.is_empty() || !bucket.chars().all(plain) {
                return Err(wrong("no bucket is named"));
            }
        }
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        if prefix.is_empty() && scheme == Scheme::File {
            return Err(wrong("no folder is named"));
        }
        if !prefix.is_empty()
            && let Err(what) = safe_name(prefix)
        {
            return Err(wrong(&format!("its prefix {what}")));
        }
        Ok(Some(Self {
            url: text.trim_end_matches('/').into(),
            scheme,
            bucket: bucket.into(),
            prefix: prefix.into(),
        }))
    }

    /// The last part of its name, which the local file or folder gets too.
    pub fn name(&self) -> &str {
        match self.prefix.rsplit('/').next() {
            Some(name) if !name.is_empty() => name,
            _ => &self.bucket,
        }
    }
}

/// Whether an object's name, seen from the prefix, is that of a file below a folder.
///
/// # Errors
/// What is wrong with it.
pub fn safe_name(name: &str) -> Result<(), &'static str> {
    if name.starts_with('/') {
        return Err("begins with a slash");
    }
    for part in name.split('/') {
        match part {
            "" => return Err("has an empty part"),
            "." | ".." => return Err("leads out of its folder (. or ..)"),
            _ => {}
        }
        if part.len() > LONGEST_NAME {
            return Err("has a part of more than 255 bytes");
        }
        if part.chars().any(|c| c.is_control() || c == '\\') {
            return Err("has a control character or a backslash");
        }
    }
    Ok(())
}

/// When a file of an output is uploaded: all of one stage are there before the next begins. Lists of files come after the
/// files, and what says that a dataset or run is complete comes last; curves come before the checkpoint that goes on from them.
pub fn stage(name: &str) -> usize {
    match name.rsplit('/').next().unwrap_or(name) {
        "dataset.toml" | "run.json" | "refused.json" | "ablations.json" | "summary.json" => 3,
        "pairs.jsonl" | "truth.jsonl" | "metadata.jsonl" | "tiles.toml" | "ingest.json" => 2,
        name if name.ends_with(".curve.jsonl") => 0,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Option<Address>, String> {
        Address::of(Path::new(text)).map_err(|error| error.to_string())
    }

    #[test]
    fn addresses_have_a_store_a_bucket_and_a_prefix() {
        for local in ["pairs", "/data/pairs", "a:/b", "C://x y/://", "./s3:/b"] {
            let found = Address::of(Path::new(local));
            assert!(found.is_ok() || local.starts_with("C:"), "{local}");
            assert!(
                !is_url(Path::new(local)) || local.starts_with("C:"),
                "{local}"
            );
        }
        let found = of("s3://my-bucket/areas/delft north/").unwrap().unwrap();
        assert_eq!(found.scheme, Scheme::S3);
        assert_eq!(
            (found.bucket.as_str(), found.name()),
            ("my-bucket", "delft north")
        );
        assert_eq!(found.prefix, "areas/delft north");
        assert_eq!(of("gs://b").unwrap().unwrap().name(), "b");
        assert_eq!(of("az://c/x").unwrap().unwrap().scheme, Scheme::Az);
        assert_eq!(of("file:///tmp/x").unwrap().unwrap().prefix, "tmp/x");
    }

    #[test]
    fn addresses_that_cannot_be_or_tell_secrets_are_refused() {
        for (text, part) in [
            ("http://host/x", "no such kind of store"),
            ("s3:///x", "no bucket"),
            ("s3://b/../x", ". or .."),
            ("s3://b//x", "begins with a slash"),
            ("s3://b/x//y", "an empty part"),
            ("file://host/x", "three slashes"),
            ("file:///", "no folder"),
        ] {
            let message = of(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
        for text in ["az://c/x?sig=hush", "s3://key:hush@bucket/x"] {
            let message = of(text).unwrap_err();
            assert!(
                message.contains("environment") && !message.contains("hush"),
                "{message}"
            );
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["a", "images/1.jpg", "a b/ü.png", "...", ".hidden"] {
            assert_eq!(safe_name(name), Ok(()), "{name}");
        }
        let long = "x".repeat(256);
        for name in [
            "", "/a", "a/", "a//b", "..", "../a", "a/../b", "a/.", "a\\b", "a\0", "a\nb", &long,
        ] {
            assert!(safe_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn what_says_that_all_is_there_comes_last() {
        let mut names = [
            "run.json",
            "dataset.toml",
            "pairs.jsonl",
            "student.safetensors",
            "student.curve.jsonl",
            "images/1.jpg",
            "round-1/student.checkpoint.safetensors",
        ];
        names.sort_by_key(|name| stage(name));
        assert_eq!(names[0], "student.curve.jsonl");
        assert_eq!(names[4], "pairs.jsonl");
        assert_eq!(names[5..], ["run.json", "dataset.toml"]);
    }
}
