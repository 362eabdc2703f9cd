//! The one error of this crate: what happened, in which object, and what to do.
//!
//! Neighbours: every module returns it; crates above wrap it and decide by [`FormatError::kind`].
//! Invariants: 1. a damaged object is named by its key; 2. a refused option or type is named and comes with a remedy.

use thiserror::Error;

/// What a caller does about a [`FormatError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The table uses something this version does not do: leave the table alone and tell its owner the remedy.
    Unsupported,
    /// An object's bytes are not what the format says: stop, name the object, change nothing.
    Corrupt,
    /// The caller (or the user) passed something that breaks a rule of the format: correct it and call again.
    Invalid,
}

/// An error of the table format.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FormatError {
    /// The table asks for something that is not done here.
    #[error("{what} is not supported; {remedy}")]
    Unsupported {
        /// The option, type or layout, by name.
        what: String,
        /// What the user can do.
        remedy: String,
    },
    /// Bytes that were read are damaged or were never of this format.
    #[error("{object} is damaged: {detail}")]
    Corrupt {
        /// Key of the object.
        object: String,
        /// What is wrong, where.
        detail: String,
    },
    /// A value given to this crate breaks a rule.
    #[error("{what} is not valid: {detail}")]
    Invalid {
        /// What was given.
        what: String,
        /// Which rule it breaks.
        detail: String,
    },
}

impl FormatError {
    /// What a caller does about it.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Invalid { .. } => ErrorKind::Invalid,
        }
    }

    pub(crate) fn unsupported(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into(), remedy: remedy.into() }
    }

    pub(crate) fn corrupt(object: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Corrupt { object: object.into(), detail: detail.into() }
    }

    pub(crate) fn invalid(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), detail: detail.into() }
    }

    /// The same fault found in an object that was read: rules broken by bytes are damage, not misuse.
    pub(crate) fn found_in(self, object: &str) -> Self {
        match self {
            Self::Invalid { what, detail } => {
                Self::Corrupt { object: object.to_owned(), detail: format!("{what}: {detail}") }
            }
            other => other,
        }
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, FormatError>;
