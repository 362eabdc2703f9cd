//! What can go wrong in a use-case, sorted by what the caller does next.
//!
//! Neighbours: wraps the errors of `format`, `lsm`, `commit`, `store`; functions map [`ErrorKind`] to "retry" or "alarm", `silt` to
//! exit codes. Invariant: 1. messages say what happened, where, and what to do; record contents never appear in them.

use siltstone_commit::error::CommitError;
use siltstone_format::error::FormatError;
use siltstone_lsm::error::LsmError;
use siltstone_store::{
    item::ItemError,
    object::{ObjectError, ObjectErrorKind},
};

/// What the caller does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Someone else was faster: read again and retry.
    Conflict,
    /// A service did not answer or asked to slow down: retry later; nothing is lost.
    Unavailable,
    /// The request, the settings or the table's options are not acceptable: change them.
    Invalid,
    /// There is no such table, snapshot or object.
    NotFound,
    /// An object is damaged or objects contradict each other: `silt check` says more.
    Corrupt,
    /// Another writer replaced a snapshot: no commit until `silt repair`.
    Forked,
    /// A bug of Siltstone.
    Bug,
}

/// Errors of the use-cases.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// A settings, options or usage fault, in words for its author.
    #[error("{0}")]
    Invalid(String),
    /// Something that was named is not there.
    #[error("{0}")]
    NotFound(String),
    /// Stored objects contradict each other.
    #[error("{0}")]
    Corrupt(String),
    /// A lost race that bounded retries did not win.
    #[error("{0}")]
    Conflict(String),
    /// The time or the service was not there; retrying is safe.
    #[error("{0}")]
    Unavailable(String),
    /// Reading or writing a table object.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Reading, merging or writing rows.
    #[error(transparent)]
    Lsm(#[from] LsmError),
    /// The commit protocol.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The object store.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The item store.
    #[error(transparent)]
    Item(#[from] ItemError),
    /// Cannot happen unless Siltstone is wrong.
    #[error("internal error: {0}; please report it")]
    Bug(String),
}

/// Result of a use-case.
pub type Result<T, E = TableError> = std::result::Result<T, E>;

impl TableError {
    /// An [`TableError::Invalid`] from words.
    #[must_use]
    pub fn invalid(words: String) -> Self {
        Self::Invalid(words)
    }

    /// What the caller does next.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Corrupt(_) => ErrorKind::Corrupt,
            Self::Conflict(_) => ErrorKind::Conflict,
            Self::Unavailable(_) => ErrorKind::Unavailable,
            Self::Bug(_) => ErrorKind::Bug,
            Self::Format(error) => match error.kind() {
                siltstone_format::ErrorKind::Corrupt => ErrorKind::Corrupt,
                siltstone_format::ErrorKind::Unsupported | siltstone_format::ErrorKind::Invalid => ErrorKind::Invalid,
            },
            Self::Lsm(error) => match error.kind() {
                siltstone_lsm::error::ErrorKind::Corrupt => ErrorKind::Corrupt,
                siltstone_lsm::error::ErrorKind::Unavailable => ErrorKind::Unavailable,
                siltstone_lsm::error::ErrorKind::Bug => ErrorKind::Bug,
                _ => ErrorKind::Invalid,
            },
            Self::Commit(error) => match error.kind() {
                siltstone_commit::ErrorKind::Unavailable => ErrorKind::Unavailable,
                siltstone_commit::ErrorKind::NotFound => ErrorKind::NotFound,
                siltstone_commit::ErrorKind::Corrupt => ErrorKind::Corrupt,
                siltstone_commit::ErrorKind::Forked => ErrorKind::Forked,
                siltstone_commit::ErrorKind::Bug => ErrorKind::Bug,
                _ => ErrorKind::Invalid,
            },
            Self::Object(error) => match error.kind() {
                ObjectErrorKind::NotFound => ErrorKind::NotFound,
                ObjectErrorKind::Damaged => ErrorKind::Corrupt,
                ObjectErrorKind::PreconditionFailed | ObjectErrorKind::Conflict => ErrorKind::Conflict,
                ObjectErrorKind::Denied | ObjectErrorKind::Invalid => ErrorKind::Invalid,
                _ => ErrorKind::Unavailable,
            },
            Self::Item(error) => match error {
                ItemError::ConditionFailed { .. } => ErrorKind::Conflict,
                ItemError::Denied(_) | ItemError::TooLarge(_) | ItemError::Invalid(_) => ErrorKind::Invalid,
                _ => ErrorKind::Unavailable,
            },
        }
    }
}
