//! Why a dataset is refused.

/// Why a dataset is refused.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// A file cannot be opened or read.
    #[error("{path}: {error}; {fix}")]
    Read {
        /// The file.
        path: String,
        /// The operating system's reason.
        error: std::io::Error,
        /// What to do.
        fix: &'static str,
    },
    /// `dataset.toml` says something else than it must.
    #[error("{path}: {what}")]
    Manifest {
        /// The file.
        path: String,
        /// What is wrong, and the fix.
        what: String,
    },
    /// A line is wrong.
    #[error("{path}, line {line}: {what}")]
    Line {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and the fix.
        what: String,
    },
    /// A picture or a tile cannot be used.
    #[error("pair {id}: {what}")]
    Pair {
        /// The pair.
        id: String,
        /// What is wrong, and the fix.
        what: String,
    },
}
