//! Why a record was not taken.
//!
//! Neighbours: every decoder makes these; `quarantine` stores them; metrics count them by code.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Reasons, a closed list: they are metric dimensions and the words of `silt quarantine list`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RejectCode {
    /// Not UTF-8.
    NotUtf8,
    /// Not JSON, or not a JSON object.
    NotJson,
    /// Nested deeper than the limit.
    TooDeep,
    /// Larger than the limit, also after decompression.
    TooLarge,
    /// A gzip or zstd payload that does not decompress.
    BadCompression,
    /// A KPL aggregate that is damaged.
    BadAggregate,
    /// A primary key column is missing or null.
    MissingKey,
    /// A column that must not be null is missing or null.
    MissingColumn,
    /// A value of another type than the column.
    WrongType,
    /// A number, decimal, text or time that does not fit the column.
    OutOfRange,
    /// A field that a column reads stands twice in its object.
    DuplicateField,
    /// A column that the table does not have, under the policy `quarantine`.
    UnknownColumn,
    /// An op that is not known.
    UnknownOperation,
    /// Debezium left a value out (`__debezium_unavailable_value`) and the old row does not carry it.
    UnavailableValue,
    /// A delete or update without the old row where it is needed.
    MissingBefore,
    /// A partition implausibly far from the arrival time, or too many partitions in one batch.
    ImplausiblePartition,
}

impl fmt::Display for RejectCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotUtf8 => "not-utf8",
            Self::NotJson => "not-json",
            Self::TooDeep => "too-deep",
            Self::TooLarge => "too-large",
            Self::BadCompression => "bad-compression",
            Self::BadAggregate => "bad-aggregate",
            Self::MissingKey => "missing-key",
            Self::MissingColumn => "missing-column",
            Self::WrongType => "wrong-type",
            Self::OutOfRange => "out-of-range",
            Self::DuplicateField => "duplicate-field",
            Self::UnknownColumn => "unknown-column",
            Self::UnknownOperation => "unknown-operation",
            Self::UnavailableValue => "unavailable-value",
            Self::MissingBefore => "missing-before",
            Self::ImplausiblePartition => "implausible-partition",
        })
    }
}

/// A record that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    /// Reason.
    pub code: RejectCode,
    /// Column, where one is to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// In words, without contents of the record.
    pub detail: String,
}

impl Reject {
    pub(crate) fn new(code: RejectCode, detail: impl Into<String>) -> Self {
        Self { code, column: None, detail: detail.into() }
    }

    pub(crate) fn at(mut self, column: &str) -> Self {
        self.column = Some(match self.column {
            Some(inner) => format!("{column}.{inner}"),
            None => column.to_owned(),
        });
        self
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.column {
            Some(column) => write!(f, "{} (column {column}): {}", self.code, self.detail),
            None => write!(f, "{}: {}", self.code, self.detail),
        }
    }
}
