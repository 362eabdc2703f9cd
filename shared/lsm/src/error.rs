//! What can go wrong in the engine, sorted by what the caller does next.
//!
//! Neighbours: every module of this crate. Invariant: 1. messages name the object and never show row contents.

use arrow::error::ArrowError;
use parquet::errors::ParquetError;
use siltstone_format::error::FormatError;

use crate::run::Overlap;

/// What the caller does about an [`LsmError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// An object is damaged or contradicts its metadata.
    Corrupt,
    /// The table uses something that this engine does not implement.
    Unsupported,
    /// The rows or settings given do not fit.
    Invalid,
    /// Bytes could not be fetched: retry.
    Unavailable,
    /// A bug of Siltstone.
    Bug,
}

/// Errors of the engine.
#[derive(Debug, thiserror::Error)]
pub enum LsmError {
    /// A data file is damaged or is not what its manifest entry says.
    #[error("data file {object}: {detail}; restore it from a backup, or roll the table back to a snapshot without it")]
    Corrupt {
        /// The file.
        object: String,
        /// What is wrong.
        detail: String,
    },
    /// Bytes of a data file could not be fetched.
    #[error("data file {object} could not be read: {detail}; the operation can be repeated")]
    Unavailable {
        /// The file.
        object: String,
        /// The source's words.
        detail: String,
    },
    /// The table schema cannot be laid out.
    #[error("{detail}")]
    Schema {
        /// What is wrong.
        detail: String,
    },
    /// Something that is not implemented is asked for.
    #[error("{what} is not supported: {remedy}")]
    Unsupported {
        /// What.
        what: String,
        /// What to do instead.
        remedy: String,
    },
    /// Files of one level overlap.
    #[error(transparent)]
    Overlap(#[from] Overlap),
    /// A value or metadata codec refused something.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Rows given by the caller do not fit the table.
    #[error("rows do not fit the table: {0}")]
    Rows(String),
    /// Encoding of columns failed.
    #[error("internal error while encoding: {0}; please report it")]
    Encode(String),
}

impl LsmError {
    /// What the caller does next.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Corrupt { .. } | Self::Overlap(_) => ErrorKind::Corrupt,
            Self::Unavailable { .. } => ErrorKind::Unavailable,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Schema { .. } | Self::Rows(_) | Self::Format(_) => ErrorKind::Invalid,
            Self::Encode(_) => ErrorKind::Bug,
        }
    }

    /// The same error of a file by its whole key; the engine itself knows names only.
    #[must_use]
    pub fn found_in(self, key: &str) -> Self {
        match self {
            Self::Corrupt { detail, .. } => Self::Corrupt { object: key.to_owned(), detail },
            Self::Unavailable { detail, .. } => Self::Unavailable { object: key.to_owned(), detail },
            other => other,
        }
    }

    pub(crate) fn corrupt(object: &str, detail: impl Into<String>) -> Self {
        Self::Corrupt { object: object.to_owned(), detail: detail.into() }
    }

    /// A failed read: an I/O error under the decoder is the source's, everything else is the file's.
    pub(crate) fn read(object: &str, error: &ParquetError) -> Self {
        match error {
            ParquetError::External(source) if source.is::<std::io::Error>() => {
                Self::Unavailable { object: object.to_owned(), detail: source.to_string() }
            }
            other => Self::corrupt(object, other.to_string()),
        }
    }

    pub(crate) fn decode(object: &str, error: &ArrowError) -> Self {
        match error {
            ArrowError::ExternalError(source) => match source.downcast_ref::<ParquetError>() {
                Some(parquet) => Self::read(object, parquet),
                None => Self::corrupt(object, source.to_string()),
            },
            other => Self::corrupt(object, other.to_string()),
        }
    }

    pub(crate) fn encode(error: impl std::fmt::Display) -> Self {
        Self::Encode(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_source_that_fails_is_worth_another_try() {
        let of_source = ParquetError::External(Box::new(std::io::Error::other("reset")));
        let of_file = ParquetError::External("bad page".into());
        assert_eq!(LsmError::read("f", &of_source).kind(), ErrorKind::Unavailable);
        assert_eq!(LsmError::read("f", &of_file).kind(), ErrorKind::Corrupt);
        assert_eq!(LsmError::read("f", &ParquetError::General("bad footer".into())).kind(), ErrorKind::Corrupt);
        let wrapped = |error| LsmError::decode("f", &ArrowError::ExternalError(Box::new(error))).kind();
        assert_eq!((wrapped(of_source), wrapped(of_file)), (ErrorKind::Unavailable, ErrorKind::Corrupt));
    }
}
