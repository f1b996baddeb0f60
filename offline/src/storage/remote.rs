//! A store that was opened: what it lists, and its errors without secrets.

use super::{Address, Scheme, StorageError};
use futures_util::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ClientOptions, Error, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig};
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::Runtime;

/// Retries after errors of the network and of overloaded stores.
const RETRIES: usize = 4;
/// No answer is waited for longer, retries included.
const RETRY_SECONDS: u64 = 40;
const CONNECT_SECONDS: u64 = 5;
/// A transfer that stands still so long is given up.
const READ_SECONDS: u64 = 30;
/// Longest message of a store that is passed on, characters.
const LONGEST_MESSAGE: usize = 400;

/// A place on a store that was opened.
#[derive(Debug, Clone)]
pub struct Remote {
    pub(super) address: Address,
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) prefix: ObjectPath,
}

/// An object below a place.
#[derive(Debug, Clone)]
pub(super) struct Object {
    /// Its name seen from the prefix; the prefix's last part where it is the object itself.
    pub(super) name: String,
    pub(super) meta: ObjectMeta,
}

impl Remote {
    /// Opens the store that an address names, with credentials from the environment.
    ///
    /// # Errors
    /// [`StorageError`] when the environment makes no sense.
    pub fn open(address: Address) -> Result<Self, StorageError> {
        // Where there is a provider already, that is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let retry = RetryConfig {
            max_retries: RETRIES,
            retry_timeout: Duration::from_secs(RETRY_SECONDS),
            ..RetryConfig::default()
        };
        let allowed = |name: &str| {
            let value = std::env::var(name).unwrap_or_default();
            matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes")
        };
        // Options given as a whole replace those that `from_env` reads, of which these are the ones people need.
        let options = |variable: &str| {
            ClientOptions::new()
                .with_allow_http(allowed(variable))
                .with_connect_timeout(Duration::from_secs(CONNECT_SECONDS))
                .with_read_timeout(Duration::from_secs(READ_SECONDS))
                .with_timeout_disabled()
        };
        let bucket = address.bucket.clone();
        let store: Result<Arc<dyn ObjectStore>, Error> = match address.scheme {
            Scheme::S3 => AmazonS3Builder::from_env()
                .with_bucket_name(bucket)
                .with_client_options(options("AWS_ALLOW_HTTP"))
                .with_retry(retry)
                .build()
                .map(|store| Arc::new(store) as _),
            Scheme::Gs => GoogleCloudStorageBuilder::from_env()
                .with_bucket_name(bucket)
                .with_client_options(options("GOOGLE_ALLOW_HTTP"))
                .with_retry(retry)
                .build()
                .map(|store| Arc::new(store) as _),
            Scheme::Az => MicrosoftAzureBuilder::from_env()
                .with_container_name(bucket)
                .with_client_options(options("AZURE_ALLOW_HTTP"))
                .with_retry(retry)
                .build()
                .map(|store| Arc::new(store) as _),
            Scheme::File => Ok(Arc::new(LocalFileSystem::new()) as _),
        };
        let store = store.map_err(|error| told(&address, &error))?;
        Self::with_store(address, store)
    }

    /// An address on a store that is open.
    ///
    /// # Errors
    /// [`StorageError::Address`] when the store takes no such name.
    pub fn with_store(address: Address, store: Arc<dyn ObjectStore>) -> Result<Self, StorageError> {
        let prefix = ObjectPath::parse(&address.prefix).map_err(|error| StorageError::Address {
            url: address.url.clone(),
            what: error.to_string(),
        })?;
        Ok(Self {
            address,
            store,
            prefix,
        })
    }

    /// Everything below the prefix, by name, with names that are safe as files; or the one object of that very name.
    /// Empty where there is nothing.
    pub(super) fn list(&self) -> Result<Vec<Object>, StorageError> {
        let told = |error: Error| told(&self.address, &error);
        let prefix = self.prefix.as_ref().to_owned();
        if !prefix.is_empty() {
            match wait(self.store.head(&self.prefix)) {
                // A folder that a console made is an empty object, and its files come below.
                Ok(meta) if meta.size > 0 => {
                    let name = self.address.name().to_owned();
                    return Ok(vec![Object { name, meta }]);
                }
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(told(error)),
            }
        }
        let all = wait(self.store.list(Some(&self.prefix)).try_collect::<Vec<_>>());
        let all = all.map_err(told)?;
        let mut objects = Vec::new();
        for meta in all {
            let whole = meta.location.as_ref();
            let name = whole.strip_prefix(&prefix).unwrap_or(whole);
            let name = name.strip_prefix('/').unwrap_or(name).to_owned();
            if !name.is_empty() {
                objects.push(Object { name, meta });
            }
        }
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        self.without_folders(objects)
    }

    /// Leaves empty objects away that stand for folders, and refuses names that are no file's.
    fn without_folders(&self, objects: Vec<Object>) -> Result<Vec<Object>, StorageError> {
        let wrong = |name: &str, what| StorageError::Name {
            url: self.address.url.clone(),
            name: name.into(),
            what,
        };
        let mut folders = std::collections::HashSet::new();
        for object in &objects {
            super::address::safe_name(&object.name).map_err(|what| wrong(&object.name, what))?;
            let slashes = object.name.match_indices('/');
            folders.extend(slashes.map(|(at, _)| object.name[..at].to_owned()));
        }
        let mut kept = Vec::new();
        for object in objects {
            match (folders.contains(&object.name), object.meta.size) {
                (true, 0) => {}
                (true, _) => {
                    return Err(wrong(&object.name, "is a file and a folder at once"));
                }
                (false, _) => kept.push(object),
            }
        }
        Ok(kept)
    }

    pub(super) fn told(&self, error: &Error) -> StorageError {
        told(&self.address, error)
    }
}

/// Runs something that waits for a network. Not from within itself.
pub(super) fn wait<T>(work: impl Future<Output = T>) -> T {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("the operating system gives two threads")
    });
    runtime.block_on(work)
}

/// An error of a store, by what people do about it.
fn told(address: &Address, error: &Error) -> StorageError {
    let url = address.url.clone();
    let variables = match address.scheme {
        Scheme::S3 => {
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION and AWS_ENDPOINT_URL"
        }
        Scheme::Gs => "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT",
        Scheme::Az => {
            "AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN"
        }
        Scheme::File => "the permissions of files",
    };
    let text = chain(error);
    let what = without_secrets(&text);
    let absent = [
        "NoSuchBucket",
        "ContainerNotFound",
        "The specified bucket does not exist",
    ];
    match error {
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => StorageError::Refused {
            url,
            what,
            variables,
        },
        _ if absent.iter().any(|name| text.contains(name)) => StorageError::Store {
            what: format!("there is no bucket {:?}", address.bucket),
            url,
        },
        Error::NotFound { .. } => StorageError::NotThere { url },
        Error::InvalidPath { .. } => StorageError::Store {
            what: format!(
                "an object there has a name that is no file's: {what}; rename or remove it"
            ),
            url,
        },
        // Nobody said who asks, so the store's crate asked the machine's own service, which is not there.
        _ if text.contains("169.254.169.254") || text.contains("metadata.google") => {
            StorageError::Refused {
                url,
                what: "no credentials are given".into(),
                variables,
            }
        }
        _ => StorageError::Store { url, what },
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut inner = error.source();
    while let Some(cause) = inner {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        inner = cause.source();
    }
    text
}

/// A store's message without queries of addresses and without the values of variables that hold secrets; of an XML answer
/// its code and message.
fn without_secrets(text: &str) -> String {
    let inside = |tag: &str| {
        let (_, rest) = text.split_once(&format!("<{tag}>"))?;
        Some(rest.split_once("</")?.0.to_owned())
    };
    let mut told = match (inside("Code"), inside("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        _ => text.split_whitespace().collect::<Vec<_>>().join(" "),
    };
    while let Some(begin) = told.find('?') {
        let rest = &told[begin + 1..];
        let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ')' | '>' | ',');
        let length = rest.find(ends).unwrap_or(rest.len());
        told.replace_range(begin..begin + 1 + length, "");
    }
    let secret = |name: &str| {
        let parts = ["KEY", "SECRET", "TOKEN", "SAS", "PASSWORD", "CREDENTIAL"];
        ["AWS_", "AZURE_", "GOOGLE_"]
            .iter()
            .any(|store| name.starts_with(store))
            && parts.iter().any(|part| name.contains(part))
    };
    for (name, value) in std::env::vars() {
        if secret(&name) && value.len() >= 4 {
            told = told.replace(&value, &format!("({name})"));
        }
    }
    told.chars().take(LONGEST_MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_the_code_and_lose_queries() {
        let xml = "Client error: <?xml version=\"1.0\"?><Error><Code>InvalidAccessKeyId</Code><Message>No such id.</Message><AWSAccessKeyId>AKIA</AWSAccessKeyId></Error>";
        assert_eq!(without_secrets(xml), "InvalidAccessKeyId: No such id.");
        let url = "error sending request for url (https://a.example/b?sv=1&sig=hush)  now";
        assert_eq!(
            without_secrets(url),
            "error sending request for url (https://a.example/b) now"
        );
    }
}
