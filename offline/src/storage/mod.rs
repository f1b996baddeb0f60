//! Datasets, models and runs on object storage, which the rest of the program sees as folders.
//!
//! A command says which of its paths are read and which are written ([`Files`]). [`Storage::open`] puts a local folder or
//! file in the place of every URL (`s3://bucket/prefix`, `gs://`, `az://container/`, `file:///`): what is read is mirrored
//! into a cache, what is written goes to a staging folder first and is uploaded by [`share`] (after each checkpoint) and
//! by [`Storage::finish`]. `address` holds what needs no network; `mirror`, `upload` and `remote` are behind the cargo
//! feature `object-store`.

mod address;
#[cfg(feature = "object-store")]
mod mirror;
#[cfg(feature = "object-store")]
mod remote;
#[cfg(feature = "object-store")]
mod upload;

pub use address::{Address, Scheme, is_url, stage};
#[cfg(feature = "object-store")]
pub use remote::Remote;

use std::path::{Path, PathBuf};

/// What a path of a command is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A file or folder that is read.
    Input,
    /// A folder that is written, and read where a run goes on.
    Folder,
    /// A file that is written.
    File,
    /// A file that is written where none is, with another beside it that ends in `.toml`.
    New,
}

/// Paths of a command, each with what it is for.
pub type Paths<'a> = Vec<(Role, &'a mut PathBuf)>;

/// A command's arguments that may name object storage.
pub trait Files {
    /// Every path among them.
    fn paths(&mut self) -> Paths<'_>;
}

/// Why something on object storage cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// No address that is understood.
    #[error(
        "{url}: {what}; write s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///FOLDER"
    )]
    Address {
        /// As it was given, without a query.
        url: String,
        /// What is wrong.
        what: String,
    },
    /// The program cannot reach object storage.
    #[error(
        "{url}: this program was built without object storage; build it with `cargo build --release -p crossfix-offline --features object-store`, or copy the files to a folder and name that"
    )]
    Feature {
        /// The address.
        url: String,
    },
    /// There is nothing.
    #[error(
        "{url}: nothing is there; look at bucket and prefix, and whether the credentials may list it"
    )]
    NotThere {
        /// The address.
        url: String,
    },
    /// The store refuses who asks.
    #[error(
        "{url}: the store refuses ({what}); {variables} say who asks, and must be allowed to list, read and, for --out, write and delete there"
    )]
    Refused {
        /// The address.
        url: String,
        /// The store's reason.
        what: String,
        /// Environment variables that decide.
        variables: &'static str,
    },
    /// A name that must not become a file's.
    #[error("{url}: the object {name:?} {what}; rename or remove it")]
    Name {
        /// The address.
        url: String,
        /// The object's name.
        name: String,
        /// Why not.
        what: &'static str,
    },
    /// An object changed between listing and reading.
    #[error("{url}: {name} changed while it was read; run again when nobody writes there")]
    Changed {
        /// The address.
        url: String,
        /// The object's name.
        name: String,
    },
    /// The cache's disk is full.
    #[error(
        "{url}: the disk of the cache {folder} is full, {bytes} bytes are still to come; make room, or name a folder on another disk with --object-cache or CROSSFIX_CACHE"
    )]
    Full {
        /// The address.
        url: String,
        /// Where.
        folder: String,
        /// Bytes that are missing.
        bytes: u64,
    },
    /// A local file.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: String,
        /// The operating system's reason.
        error: std::io::Error,
    },
    /// Anything else that a store says.
    #[error("{url}: {what}")]
    Store {
        /// The address.
        url: String,
        /// Its words, without secrets.
        what: String,
    },
    /// Results that are not uploaded.
    #[error("{error}; what was written is kept in {folder}, copy it from there")]
    Kept {
        /// Why.
        error: Box<StorageError>,
        /// Where it is.
        folder: String,
    },
}

/// The folder for what is fetched: as given, `CROSSFIX_CACHE`, or `crossfix` below the user's cache folder.
///
/// # Errors
/// [`StorageError::Address`] when none of them is known.
pub fn cache_folder(given: Option<&Path>, url: &str) -> Result<PathBuf, StorageError> {
    let variable = |name: &str| {
        let value = std::env::var_os(name).filter(|value| !value.is_empty());
        value.map(PathBuf::from)
    };
    let below = |folder: PathBuf| folder.join("crossfix");
    given
        .map(Path::to_path_buf)
        .or_else(|| variable("CROSSFIX_CACHE"))
        .or_else(|| variable("XDG_CACHE_HOME").map(below))
        .or_else(|| variable("HOME").map(|home| below(home.join(".cache"))))
        .ok_or_else(|| StorageError::Address {
            url: url.into(),
            what: "no folder for fetched files is known, name one with --object-cache".into(),
        })
}

/// The object storage that one command uses.
#[derive(Debug, Default)]
pub struct Storage {
    #[cfg(feature = "object-store")]
    outputs: Vec<std::sync::Arc<upload::Output>>,
}

impl Storage {
    /// Puts local folders and files in the place of all URLs among `paths`: fetches inputs, and what outputs hold already.
    ///
    /// # Errors
    /// [`StorageError`] naming the address.
    pub fn open(paths: Paths, cache: Option<&Path>) -> Result<Self, StorageError> {
        #[allow(unused_mut, reason = "outputs are there with the feature only")]
        let mut storage = Self::default();
        for (role, path) in paths {
            let Some(address) = Address::of(path)? else {
                continue;
            };
            #[cfg(not(feature = "object-store"))]
            {
                let _ = (role, cache);
                return Err(StorageError::Feature { url: address.url });
            }
            #[cfg(feature = "object-store")]
            {
                let cache = cache_folder(cache, &address.url)?;
                let remote = Remote::open(address)?;
                *path = match role {
                    Role::Input => mirror::fetch(&remote, &cache)?,
                    Role::Folder | Role::File | Role::New => {
                        let output = upload::Output::open(remote, &cache, role)?;
                        let local = output.local().to_path_buf();
                        storage.outputs.push(upload::register(output));
                        local
                    }
                };
            }
        }
        Ok(storage)
    }

    /// Uploads what was written and not uploaded yet, also of a command that failed, and removes the staging folders.
    ///
    /// # Errors
    /// [`StorageError::Kept`] with where the results are.
    pub fn finish(self) -> Result<(), StorageError> {
        #[cfg(feature = "object-store")]
        {
            upload::finish(&self.outputs)
        }
        #[cfg(not(feature = "object-store"))]
        {
            let Self {} = self;
            Ok(())
        }
    }
}

/// Uploads what changed in a folder that stands for a URL; does nothing for others. A store that cannot be reached now is
/// told and tried again at the next checkpoint and at the end.
pub fn share(folder: &Path) {
    #[cfg(feature = "object-store")]
    upload::share(folder);
    #[cfg(not(feature = "object-store"))]
    let _ = folder;
}

#[cfg(all(test, not(feature = "object-store")))]
mod tests {
    use super::*;

    #[test]
    fn a_program_without_object_storage_says_how_to_build_it() {
        let (mut local, mut url) = (PathBuf::from("pairs"), PathBuf::from("s3://bucket/pairs"));
        let paths = vec![(Role::Input, &mut local), (Role::Folder, &mut url)];
        let message = Storage::open(paths, None).unwrap_err().to_string();
        assert!(
            message.contains("s3://bucket/pairs") && message.contains("--features object-store"),
            "{message}"
        );
        assert!(Storage::open(vec![(Role::Input, &mut local)], None).is_ok());
        assert_eq!(local, PathBuf::from("pairs"));
    }
}
