//! Files that are used only when they are the right ones: by their SHA-256, and by a minisign signature.

use std::io::Read;
use std::path::{Path, PathBuf};

use minisign_verify::{PublicKey, Signature};
use sha2::{Digest, Sha256};
use tracing::info;

use super::setup::SetupError;
use crate::transport::file;

/// A signature has four short lines.
const SIGNATURE_LIMIT_BYTES: u64 = 16 << 10;
/// Bytes that are read at a time.
const READ_BYTES: usize = 1 << 16;

/// What the config says of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pin<'a> {
    /// `model` or `tiles`.
    pub(super) part: &'static str,
    /// The file.
    pub(super) path: &'a Path,
    /// Its SHA-256 in hex.
    pub(super) sha256: Option<&'a str>,
    /// The public key, in the form that minisign prints, of whoever signs such files.
    pub(super) minisign: Option<&'a str>,
}

impl Pin<'_> {
    /// Whether the file has to be read to know.
    pub(super) fn asks(&self) -> bool {
        self.sha256.is_some() || self.minisign.is_some()
    }

    /// The SHA-256 of the content, if it is the right one.
    ///
    /// # Errors
    /// [`SetupError::Hash`], [`SetupError::Signature`], or [`SetupError::Read`].
    pub(super) fn verify(&self, mut content: impl Read) -> Result<String, SetupError> {
        let signed = self.minisign.map(|key| self.signature(key)).transpose()?;
        let mut stream = match &signed {
            Some((key, signature)) => Some(
                key.verify_stream(signature)
                    .map_err(|error| self.refused(&error.to_string()))?,
            ),
            None => None,
        };
        let mut hash = Sha256::new();
        let mut bytes = vec![0; READ_BYTES];
        loop {
            let count = match content.read(&mut bytes) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    let path = self.path.to_owned();
                    return Err(SetupError::Read { path, source });
                }
            };
            hash.update(&bytes[..count]);
            if let Some(stream) = &mut stream {
                stream.update(&bytes[..count]);
            }
        }
        let found: String = hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        if let Some(expected) = self.sha256
            && !found.eq_ignore_ascii_case(expected)
        {
            return Err(SetupError::Hash {
                part: self.part,
                path: self.path.to_owned(),
                expected: expected.to_owned(),
                found,
            });
        }
        if let (Some(stream), Some((_, signature))) = (&mut stream, &signed) {
            stream
                .finalize()
                .map_err(|error| self.refused(&error.to_string()))?;
            let comment = signature.trusted_comment();
            info!(part = self.part, path = ?self.path, comment, "the signature is right");
        }
        Ok(found)
    }

    /// The key, and the signature beside the file.
    fn signature(&self, key: &str) -> Result<(PublicKey, Signature), SetupError> {
        let key = PublicKey::from_base64(key.trim())
            .map_err(|error| self.refused(&format!("the key in the config: {error}")))?;
        let path = signature_path(self.path);
        let text = file::read_text(&path, SIGNATURE_LIMIT_BYTES)
            .map_err(|error| self.refused(&format!("{path:?}: {error}")))?;
        let signature = Signature::decode(&text)
            .map_err(|error| self.refused(&format!("{path:?}: {error}")))?;
        Ok((key, signature))
    }

    fn refused(&self, reason: &str) -> SetupError {
        SetupError::Signature {
            part: self.part,
            path: self.path.to_owned(),
            reason: reason.to_owned(),
        }
    }
}

/// Where minisign puts the signature of a file.
fn signature_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".minisig");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Signed by Debian's minisign.
    const KEY: &str = "RWQ0hl/sv1MNOPGoObG1KDad1uA32BE96WwxBAkMDR6UD0Hp9K6vgMS4";
    const OTHER_KEY: &str = "RWRsjfw9imvr61tIBCPwLjL28G9Exf18WIxT8jlmNWBNaBQk4pRoLZu3";

    fn verified(
        file: &[u8],
        signature: Option<&[u8]>,
        key: &str,
        sha256: Option<&str>,
    ) -> Result<String, SetupError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.bin");
        std::fs::write(&path, file).unwrap();
        if let Some(signature) = signature {
            std::fs::write(signature_path(&path), signature).unwrap();
        }
        let pin = Pin {
            part: "model",
            path: &path,
            sha256,
            minisign: Some(key),
        };
        pin.verify(file)
    }

    #[test]
    fn only_the_file_that_was_signed_by_the_key_is_used() {
        let file = include_bytes!("../../tests/data/signed/file.bin");
        let signature = include_bytes!("../../tests/data/signed/file.bin.minisig");
        let found = verified(file, Some(signature), KEY, None).unwrap();
        assert_eq!(found.len(), 64);
        assert!(verified(file, Some(signature), KEY, Some(&found)).is_ok());
        let reason = |result: Result<String, SetupError>| result.unwrap_err().to_string();
        let other = [file.as_slice(), b" "].concat();
        for (result, words) in [
            (verified(&other, Some(signature), KEY, None), "signature"),
            (verified(file, Some(signature), OTHER_KEY, None), "key"),
            (verified(file, None, KEY, None), "minisig"),
            (verified(file, Some(b"no signature"), KEY, None), "minisig"),
            (
                verified(file, Some(signature), "RWQ", None),
                "the key in the config",
            ),
            (
                verified(file, Some(signature), KEY, Some(&"0".repeat(64))),
                "sha256",
            ),
        ] {
            let text = reason(result);
            assert!(text.to_lowercase().contains(words), "{words}: {text}");
        }
        // The comment is signed too.
        let forged = String::from_utf8_lossy(signature).replace("student 7", "student 8");
        assert!(verified(file, Some(forged.as_bytes()), KEY, None).is_err());
    }
}
