//! BinaryRow bytes to values, for bytes that nobody vouches for.
//!
//! Below: `layout`. Invariants: 1. no offset, length or count leads outside the bytes; 2. values made are bounded by the row's
//! length, although a damaged row may point many slots at the same bytes.

use std::cmp::Ordering;

use super::layout::{
    INLINE_LENGTH, ROW_HEADER_BITS, array_header, element_size, is_wide_decimal, is_wide_timestamp, row_header,
};
use crate::{
    data_file::StoredRow,
    error::{FormatError, Result},
    types::{DataType, TypeKind},
    value::Value,
};

/// Reads a row of these types. `object` names where the row came from.
///
/// # Errors
/// Corrupt when the arity differs or the bytes do not hold such a row.
pub fn decode_row(object: &str, row: &StoredRow, types: &[DataType]) -> Result<Vec<Value>> {
    if usize::try_from(row.arity) != Ok(types.len()) {
        return Err(FormatError::corrupt(
            object,
            format!("a row has {} columns where {} are expected", row.arity, types.len()),
        ));
    }
    let mut budget = row.bytes.len().saturating_mul(2).saturating_add(types.len());
    read_row(&row.bytes, types.iter(), types.len(), &mut budget)
        .map_err(|detail| FormatError::corrupt(object, format!("a row: {detail}")))
}

/// The order of two rows of leaf types, column by column, as [`crate::value::compare_rows`] of the decoded rows; nothing is copied.
/// `None` when a row does not hold such columns.
pub(crate) fn compare_stored(a: &StoredRow, b: &StoredRow, types: &[DataType]) -> Option<Ordering> {
    let container =
        |row: &'_ StoredRow| (usize::try_from(row.arity) == Ok(types.len())).then_some(row_header(types.len()));
    let slots = container(a).and(container(b))?;
    let [a, b] = [a, b].map(|row| Container { bytes: &row.bytes, slots, slot_size: 8, null_bits: ROW_HEADER_BITS });
    // Leaf values need no budget beyond their own length: they are only looked at.
    for (i, data_type) in types.iter().enumerate() {
        let order = match data_type.kind {
            TypeKind::Char(_) | TypeKind::VarChar(_) | TypeKind::Binary(_) | TypeKind::VarBinary(_) => {
                a.look(i)?.cmp(&b.look(i)?)
            }
            _ => a
                .read(i, &data_type.kind, &mut unlimited())
                .ok()?
                .compare(&b.read(i, &data_type.kind, &mut unlimited()).ok()?),
        };
        if order.is_ne() {
            return Some(order);
        }
    }
    Some(Ordering::Equal)
}

type Fault = &'static str;
const SHORT: Fault = "a slot or value reaches beyond the end";
const INT: TypeKind = TypeKind::Int;

/// The bytes of one row or array with the place of its slots.
struct Container<'a> {
    bytes: &'a [u8],
    slots: usize,
    slot_size: usize,
    null_bits: usize,
}

fn read_row<'t>(
    bytes: &[u8],
    types: impl Iterator<Item = &'t DataType>,
    arity: usize,
    budget: &mut usize,
) -> std::result::Result<Vec<Value>, Fault> {
    let row = Container { bytes, slots: row_header(arity), slot_size: 8, null_bits: ROW_HEADER_BITS };
    if bytes.len() < row.slots + arity * 8 {
        return Err(SHORT);
    }
    types.enumerate().map(|(i, data_type)| row.read(i, &data_type.kind, budget)).collect()
}

fn read_array(bytes: &[u8], kind: &TypeKind, budget: &mut usize) -> std::result::Result<Vec<Value>, Fault> {
    let count = usize::try_from(i32::from_le_bytes(chunk(bytes, 0)?)).map_err(|_| "an array has a negative size")?;
    let array = Container { bytes, slots: array_header(count), slot_size: element_size(kind), null_bits: 32 };
    if bytes.len() < array.slots.saturating_add(count.saturating_mul(array.slot_size)) {
        return Err(SHORT);
    }
    (0..count).map(|i| array.read(i, kind, budget)).collect()
}

fn read_map(bytes: &[u8], key: &TypeKind, value: &TypeKind, budget: &mut usize) -> std::result::Result<Value, Fault> {
    let key_bytes =
        usize::try_from(i32::from_le_bytes(chunk(bytes, 0)?)).map_err(|_| "a map has a negative key length")?;
    let (keys, values) = bytes.get(4..).unwrap_or_default().split_at_checked(key_bytes).ok_or(SHORT)?;
    let keys = read_array(keys, key, budget)?;
    let values = read_array(values, value, budget)?;
    if keys.len() != values.len() {
        return Err("a map has other than as many values as keys");
    }
    Ok(Value::Map(keys.into_iter().zip(values).collect()))
}

impl<'a> Container<'a> {
    /// The bytes of a string or byte value in place; inside: `None` for null, which sorts first.
    fn look(&self, i: usize) -> Option<Option<&'a [u8]>> {
        if self.is_null(i).ok()? {
            return Some(None);
        }
        self.bytes_at(self.slots + i * self.slot_size, &mut unlimited()).ok().map(Some)
    }

    fn is_null(&self, i: usize) -> std::result::Result<bool, Fault> {
        let bit = self.null_bits + i;
        Ok(self.bytes.get(bit / 8).ok_or(SHORT)? >> (bit % 8) & 1 == 1)
    }

    fn read(&self, i: usize, kind: &TypeKind, budget: &mut usize) -> std::result::Result<Value, Fault> {
        spend(budget, 1)?;
        if self.is_null(i)? {
            return Ok(Value::Null);
        }
        let at = self.slots + i * self.slot_size;
        Ok(match kind {
            TypeKind::Boolean => Value::Boolean(chunk::<1>(self.bytes, at)? != [0]),
            TypeKind::TinyInt => Value::TinyInt(i8::from_le_bytes(chunk(self.bytes, at)?)),
            TypeKind::SmallInt => Value::SmallInt(i16::from_le_bytes(chunk(self.bytes, at)?)),
            TypeKind::Int => Value::Int(i32::from_le_bytes(chunk(self.bytes, at)?)),
            TypeKind::Date => Value::Date(i32::from_le_bytes(chunk(self.bytes, at)?)),
            TypeKind::Time(_) => Value::Time(i32::from_le_bytes(chunk(self.bytes, at)?)),
            TypeKind::BigInt => Value::BigInt(i64::from_le_bytes(chunk(self.bytes, at)?)),
            TypeKind::Float => Value::Float(f32::from_le_bytes(chunk(self.bytes, at)?)),
            TypeKind::Double => Value::Double(f64::from_le_bytes(chunk(self.bytes, at)?)),
            TypeKind::Decimal { precision, .. } => Value::Decimal(self.decimal(at, *precision)?),
            TypeKind::Timestamp(p) | TypeKind::LocalTimestamp(p) => self.timestamp(at, *p)?,
            TypeKind::Char(_) | TypeKind::VarChar(_) => {
                let text = std::str::from_utf8(self.bytes_at(at, budget)?).map_err(|_| "a string is not UTF-8")?;
                Value::String(text.to_owned())
            }
            TypeKind::Binary(_) | TypeKind::VarBinary(_) => Value::Bytes(self.bytes_at(at, budget)?.to_vec()),
            TypeKind::Array(element) => Value::Array(read_array(self.variable(at)?, &element.kind, budget)?),
            TypeKind::Map(k, v) => read_map(self.variable(at)?, &k.kind, &v.kind, budget)?,
            TypeKind::Multiset(k) => read_map(self.variable(at)?, &k.kind, &INT, budget)?,
            TypeKind::Row(fields) => {
                Value::Row(read_row(self.variable(at)?, fields.iter().map(|f| &f.data_type), fields.len(), budget)?)
            }
        })
    }

    fn decimal(&self, at: usize, precision: u8) -> std::result::Result<i128, Fault> {
        let unscaled = if is_wide_decimal(precision) {
            sign_extended(self.variable(at)?)?
        } else {
            i128::from(i64::from_le_bytes(chunk(self.bytes, at)?))
        };
        if unscaled.unsigned_abs() >= 10_u128.saturating_pow(u32::from(precision)) {
            return Err("a decimal has more digits than its type");
        }
        Ok(unscaled)
    }

    fn timestamp(&self, at: usize, precision: u8) -> std::result::Result<Value, Fault> {
        if !is_wide_timestamp(precision) {
            return Ok(Value::Timestamp { millis: i64::from_le_bytes(chunk(self.bytes, at)?), nanos: 0 });
        }
        let nanos = u32::from_le_bytes(chunk(self.bytes, at)?);
        let offset = u32::from_le_bytes(chunk(self.bytes, at + 4)?) as usize;
        if nanos > 999_999 {
            return Err("a timestamp has more than 999999 nanoseconds in a millisecond");
        }
        Ok(Value::Timestamp { millis: i64::from_le_bytes(chunk(self.bytes, offset)?), nanos })
    }

    /// A string's or byte value's bytes: inside the slot, or in the variable part.
    fn bytes_at(&self, at: usize, budget: &mut usize) -> std::result::Result<&'a [u8], Fault> {
        let mark = chunk::<1>(self.bytes, at + 7)?[0];
        if mark & 0x80 == 0 {
            let bytes = self.variable(at)?;
            spend(budget, bytes.len())?;
            return Ok(bytes);
        }
        let length = usize::from(mark & 0x7f);
        if length > INLINE_LENGTH {
            return Err("an inline value is longer than its slot");
        }
        self.bytes.get(at..at + length).ok_or(SHORT)
    }

    fn variable(&self, at: usize) -> std::result::Result<&'a [u8], Fault> {
        let length = u32::from_le_bytes(chunk(self.bytes, at)?) as usize;
        let offset = u32::from_le_bytes(chunk(self.bytes, at + 4)?) as usize;
        self.bytes.get(offset..offset.checked_add(length).ok_or(SHORT)?).ok_or(SHORT)
    }
}

fn sign_extended(bytes: &[u8]) -> std::result::Result<i128, Fault> {
    let (Some(first), true) = (bytes.first(), bytes.len() <= 16) else {
        return Err("a decimal has 0 or more than 16 bytes");
    };
    let start = if *first >= 0x80 { -1 } else { 0 };
    Ok(bytes.iter().fold(start, |value: i128, byte| value << 8 | i128::from(*byte)))
}

/// A budget for values that are looked at and dropped.
const fn unlimited() -> usize {
    usize::MAX
}

fn spend(budget: &mut usize, cost: usize) -> std::result::Result<(), Fault> {
    *budget = budget.checked_sub(cost).ok_or("values overlap: the row holds more than its bytes can")?;
    Ok(())
}

fn chunk<const N: usize>(bytes: &[u8], at: usize) -> std::result::Result<[u8; N], Fault> {
    bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()).copied().ok_or(SHORT)
}
