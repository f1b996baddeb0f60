//! Every `.cu` file of this crate, for the compiler of the tests and the emulator.

use crate::cuda::Source;
use crate::{cuda, ops, optim};

/// All `.cu` files with their kernels.
pub fn kernel_sources() -> Vec<&'static Source> {
    let mut sources = ops::sources();
    sources.push(&cuda::FILL_SOURCE);
    sources.extend(optim::SOURCES);
    sources
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn kernels_have_names_of_their_own() {
        let mut seen = HashSet::new();
        for source in kernel_sources() {
            let entries: Vec<&str> = source.entries().collect();
            assert!(!entries.is_empty(), "{} has no kernel", source.name);
            for entry in &entries {
                assert!(
                    seen.insert(entry.to_string()),
                    "two kernels are called {entry}"
                );
            }
            for hot in source.hot {
                assert!(entries.contains(hot), "{}: no kernel {hot}", source.name);
            }
        }
    }

    #[test]
    fn every_file_is_listed() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
        let mut folders = vec![std::path::PathBuf::from(root)];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|e| e == "cu") {
                    let name = path.strip_prefix(root).unwrap();
                    files.push(name.to_str().unwrap().to_string());
                }
            }
        }
        let mut listed: Vec<String> = kernel_sources()
            .iter()
            .map(|s| s.name.to_string())
            .collect();
        files.sort();
        listed.sort();
        assert_eq!(listed, files);
    }
}
