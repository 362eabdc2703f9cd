//! BinaryRow, BinaryArray and BinaryMap: the byte form of rows in manifests, keys, partitions and bucket hashes (paimon-format.md section 6).
//!
//! Below: `writer` and `reader`, and `layout` with the facts both share. Above: `manifest`, `stats`, `bucket`, `compare`.
//! Invariants: 1. bytes equal Java's, the reserved zeros of a null decimal or timestamp included: partitions are compared and
//! buckets hashed by bytes; 2. decoding checks every offset, and what it allocates is bounded by the bytes it was given.

mod layout;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use self::reader::compare_stored;
pub use self::{
    reader::decode_row,
    writer::{encode_fields, encode_row},
};
use crate::{
    data_file::StoredRow,
    error::{FormatError, Result},
};

/// Most fields a row of this format has here: far above any table, far below what a damaged arity says.
pub const MAX_ARITY: i32 = 100_000;

/// Whether the bytes can hold the header and slots of so many columns.
pub(crate) fn is_long_enough(row: &[u8], arity: i32) -> bool {
    usize::try_from(arity).is_ok_and(|arity| row.len() >= layout::fixed_length(arity))
}

impl StoredRow {
    /// The row of no columns: partition of an unpartitioned table, statistics of no columns.
    #[must_use]
    pub fn empty() -> Self {
        Self { arity: 0, bytes: vec![0; 8] }
    }

    /// The bytes of an Avro field: big-endian arity, then the row.
    #[must_use]
    pub fn to_prefixed(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + self.bytes.len());
        out.extend_from_slice(&self.arity.to_be_bytes());
        out.extend_from_slice(&self.bytes);
        out
    }

    /// Reads the bytes of an Avro field. The row's inside is checked when it is decoded.
    ///
    /// # Errors
    /// Corrupt when the bytes cannot hold the arity they claim.
    pub fn from_prefixed(object: &str, bytes: &[u8]) -> Result<Self> {
        let fault =
            || FormatError::corrupt(object, format!("a row of {} bytes is too short for its columns", bytes.len()));
        let (prefix, row) = bytes.split_first_chunk::<4>().ok_or_else(fault)?;
        let arity = i32::from_be_bytes(*prefix);
        if !(0..=MAX_ARITY).contains(&arity) {
            return Err(FormatError::corrupt(object, format!("a row claims {arity} columns")));
        }
        if !is_long_enough(row, arity) {
            return Err(fault());
        }
        Ok(Self { arity, bytes: row.to_vec() })
    }
}
