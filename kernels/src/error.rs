//! Every way an operation can refuse its input.

/// What went wrong in an operation, with the values that show it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Two shapes that an operation needs to agree do not.
    #[error("{op}: {what}: expected {expected}, got {got}")]
    Shape {
        /// The operation, by its function name.
        op: &'static str,
        /// Which argument or relation is wrong.
        what: &'static str,
        /// The shape that would fit, or a description of it.
        expected: String,
        /// The shape that came.
        got: String,
    },
    /// An option has a value with which the operation has no meaning.
    #[error("{op}: {what}")]
    Argument {
        /// The operation, by its function name.
        op: &'static str,
        /// What is wrong, with the value, and what would be right.
        what: String,
    },
    /// A loss or gradient is NaN or infinite.
    #[error("{op}: {what} is not finite; lower the learning rate or look for a broken sample")]
    NotFinite {
        /// The operation or step that found it.
        op: &'static str,
        /// Which value.
        what: String,
    },
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A shape disagreement, with anything printable on both sides.
    pub fn shape(
        op: &'static str,
        what: &'static str,
        expected: impl std::fmt::Debug,
        got: impl std::fmt::Debug,
    ) -> Self {
        Self::Shape {
            op,
            what,
            expected: format!("{expected:?}"),
            got: format!("{got:?}"),
        }
    }

    /// A meaningless option.
    pub fn argument(op: &'static str, what: impl Into<String>) -> Self {
        Self::Argument {
            op,
            what: what.into(),
        }
    }
}
