//! Sizes and places that the writer and the reader share.
//!
//! Above: `writer`, `reader`. Everything is little-endian; offsets count from the first byte of the row or array they stand in.

use crate::types::TypeKind;

/// Null bits of a row start behind one byte of row kind.
pub(super) const ROW_HEADER_BITS: usize = 8;
/// Longest string or byte value that is kept inside its slot.
pub(super) const INLINE_LENGTH: usize = 7;
/// Bytes reserved for a decimal that does not fit 64 bits.
pub(super) const WIDE_DECIMAL: usize = 16;

/// Bytes of a row's header and null bits: whole 8-byte words.
pub(super) const fn row_header(arity: usize) -> usize {
    (arity + 63 + ROW_HEADER_BITS) / 64 * 8
}

/// Bytes of a row before its variable part.
pub(super) const fn fixed_length(arity: usize) -> usize {
    row_header(arity) + arity * 8
}

/// Bytes of an array's size and null bits: whole 4-byte words.
pub(super) const fn array_header(elements: usize) -> usize {
    4 + elements.div_ceil(32) * 4
}

/// Bytes of one element's slot in an array.
pub(super) const fn element_size(kind: &TypeKind) -> usize {
    match kind {
        TypeKind::Boolean | TypeKind::TinyInt => 1,
        TypeKind::SmallInt => 2,
        TypeKind::Int | TypeKind::Float | TypeKind::Date | TypeKind::Time(_) => 4,
        _ => 8,
    }
}

/// True for decimals kept in the variable part.
pub(super) const fn is_wide_decimal(precision: u8) -> bool {
    precision > 18
}

/// True for timestamps whose milliseconds are kept in the variable part.
pub(super) const fn is_wide_timestamp(precision: u8) -> bool {
    precision > 3
}
