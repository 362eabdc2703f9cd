//! Values to BinaryRow bytes, as Java's `BinaryRowWriter` and `BinaryArrayWriter` lay them out.
//!
//! Below: `layout`. Invariants: 1. the variable part is filled in field order and padded to 8 with zeros; 2. a null wide decimal
//! or timestamp of a row reserves its bytes and keeps its offset, as Java does (pypaimon does not).

use super::layout::{
    INLINE_LENGTH, ROW_HEADER_BITS, WIDE_DECIMAL, array_header, element_size, fixed_length, is_wide_decimal,
    is_wide_timestamp, row_header,
};
use crate::{
    data_file::StoredRow,
    error::{FormatError, Result},
    types::{DataType, TypeKind},
    value::Value,
};

const INT: TypeKind = TypeKind::Int;

/// The row of `values`, one per type, as it is stored and hashed.
///
/// # Errors
/// Invalid when the counts differ, a value is not of its type, or the row passes 2 GiB.
pub fn encode_row(values: &[Value], types: &[DataType]) -> Result<StoredRow> {
    if values.len() != types.len() {
        return Err(FormatError::invalid("row", format!("{} values for {} columns", values.len(), types.len())));
    }
    encode_fields(values.iter().zip(types))
}

/// The row of these (value, type) pairs; saves callers that pick columns from copying them together.
///
/// # Errors
/// Invalid when a value is not of its type or the row passes 2 GiB.
pub fn encode_fields<'a>(fields: impl ExactSizeIterator<Item = (&'a Value, &'a DataType)>) -> Result<StoredRow> {
    let arity = i32::try_from(fields.len()).map_err(|e| FormatError::invalid("row", e.to_string()))?;
    let mut bytes = Vec::with_capacity(fixed_length(fields.len()) + 32);
    write_row(&mut bytes, fields)?;
    Ok(StoredRow { arity, bytes })
}

/// A row or array under construction at the end of `buffer`.
struct Container<'b> {
    buffer: &'b mut Vec<u8>,
    /// Where it starts in the buffer: offsets count from here.
    base: usize,
    /// Where its slots start, from `base`.
    slots: usize,
    slot_size: usize,
    /// First null bit, from `base`.
    null_bits: usize,
}

fn write_row<'a>(buffer: &mut Vec<u8>, fields: impl ExactSizeIterator<Item = (&'a Value, &'a DataType)>) -> Result<()> {
    let (base, arity) = (buffer.len(), fields.len());
    buffer.resize(base + fixed_length(arity), 0);
    let mut row = Container { buffer, base, slots: row_header(arity), slot_size: 8, null_bits: ROW_HEADER_BITS };
    for (i, (value, data_type)) in fields.enumerate() {
        if value.is_null() {
            row.set_null(i);
            row.reserve_for_null(i, &data_type.kind)?;
        } else {
            row.write(i, value, &data_type.kind)?;
        }
    }
    Ok(())
}

fn write_array<'a>(
    buffer: &mut Vec<u8>,
    values: impl ExactSizeIterator<Item = &'a Value>,
    kind: &TypeKind,
) -> Result<()> {
    let (base, count, slot_size) = (buffer.len(), values.len(), element_size(kind));
    let slots = array_header(count);
    buffer.resize(base + (slots + count * slot_size).next_multiple_of(8), 0);
    let size = i32::try_from(count).map_err(|_| FormatError::invalid("array", "more than 2147483647 elements"))?;
    put(buffer, base, &size.to_le_bytes());
    let mut array = Container { buffer, base, slots, slot_size, null_bits: 32 };
    for (i, value) in values.enumerate() {
        if value.is_null() {
            array.set_null(i);
        } else {
            array.write(i, value, kind)?;
        }
    }
    Ok(())
}

fn write_map(buffer: &mut Vec<u8>, entries: &[(Value, Value)], key: &TypeKind, value: &TypeKind) -> Result<()> {
    let base = buffer.len();
    buffer.extend_from_slice(&[0; 4]);
    write_array(buffer, entries.iter().map(|(k, _)| k), key)?;
    let key_bytes = length_of(buffer.len() - base - 4)?;
    put(buffer, base, &key_bytes.to_le_bytes());
    write_array(buffer, entries.iter().map(|(_, v)| v), value)
}

impl Container<'_> {
    fn set_null(&mut self, i: usize) {
        let bit = self.null_bits + i;
        if let Some(byte) = self.buffer.get_mut(self.base + bit / 8) {
            *byte |= 1 << (bit % 8);
        }
    }

    fn reserve_for_null(&mut self, i: usize, kind: &TypeKind) -> Result<()> {
        match kind {
            TypeKind::Decimal { precision, .. } if is_wide_decimal(*precision) => {
                self.variable(i, &[0; WIDE_DECIMAL], 0)
            }
            TypeKind::Timestamp(p) | TypeKind::LocalTimestamp(p) if is_wide_timestamp(*p) => {
                self.variable(i, &[0; 8], 0)
            }
            _ => Ok(()),
        }
    }

    fn slot(&mut self, i: usize, bytes: &[u8]) {
        put(self.buffer, self.base + self.slots + i * self.slot_size, bytes);
    }

    fn write(&mut self, i: usize, value: &Value, kind: &TypeKind) -> Result<()> {
        match (value, kind) {
            (Value::Boolean(v), TypeKind::Boolean) => self.slot(i, &[u8::from(*v)]),
            (Value::TinyInt(v), TypeKind::TinyInt) => self.slot(i, &v.to_le_bytes()),
            (Value::SmallInt(v), TypeKind::SmallInt) => self.slot(i, &v.to_le_bytes()),
            (Value::Int(v), TypeKind::Int) | (Value::Date(v), TypeKind::Date) | (Value::Time(v), TypeKind::Time(_)) => {
                self.slot(i, &v.to_le_bytes());
            }
            (Value::BigInt(v), TypeKind::BigInt) => self.slot(i, &v.to_le_bytes()),
            (Value::Float(v), TypeKind::Float) => self.slot(i, &v.to_le_bytes()),
            (Value::Double(v), TypeKind::Double) => self.slot(i, &v.to_le_bytes()),
            (Value::Decimal(v), TypeKind::Decimal { precision, .. }) => return self.decimal(i, *v, *precision),
            (Value::Timestamp { millis, nanos }, TypeKind::Timestamp(p) | TypeKind::LocalTimestamp(p)) => {
                return self.timestamp(i, *millis, *nanos, *p);
            }
            (Value::String(v), TypeKind::Char(_) | TypeKind::VarChar(_)) => return self.bytes(i, v.as_bytes()),
            (Value::Bytes(v), TypeKind::Binary(_) | TypeKind::VarBinary(_)) => return self.bytes(i, v),
            (Value::Array(values), TypeKind::Array(element)) => {
                return self.nested(i, |buffer| write_array(buffer, values.iter(), &element.kind));
            }
            (Value::Map(entries), TypeKind::Map(k, v)) => {
                return self.nested(i, |buffer| write_map(buffer, entries, &k.kind, &v.kind));
            }
            (Value::Map(entries), TypeKind::Multiset(k)) => {
                return self.nested(i, |buffer| write_map(buffer, entries, &k.kind, &INT));
            }
            (Value::Row(values), TypeKind::Row(fields)) if values.len() == fields.len() => {
                return self
                    .nested(i, |buffer| write_row(buffer, values.iter().zip(fields.iter().map(|f| &f.data_type))));
            }
            _ => return Err(FormatError::invalid(format!("value {value:.40?}"), format!("is not of type {kind}"))),
        }
        Ok(())
    }

    fn decimal(&mut self, i: usize, unscaled: i128, precision: u8) -> Result<()> {
        if unscaled.unsigned_abs() >= 10_u128.saturating_pow(u32::from(precision)) {
            return Err(FormatError::invalid(
                format!("decimal {unscaled}"),
                format!("has more than {precision} digits"),
            ));
        }
        if !is_wide_decimal(precision) {
            // At most 18 digits fit 64 bits.
            let narrow = i64::try_from(unscaled).map_err(|e| FormatError::invalid("decimal", e.to_string()))?;
            self.slot(i, &narrow.to_le_bytes());
            return Ok(());
        }
        let bytes = unscaled.to_be_bytes();
        let minimal = minimal_twos_complement(&bytes);
        let mut reserved = [0; WIDE_DECIMAL];
        put(&mut reserved, 0, minimal);
        self.variable(i, &reserved, minimal.len())
    }

    fn timestamp(&mut self, i: usize, millis: i64, nanos: u32, precision: u8) -> Result<()> {
        if nanos > 999_999 {
            return Err(FormatError::invalid("timestamp", format!("{nanos} nanoseconds do not fit a millisecond")));
        }
        if is_wide_timestamp(precision) {
            return self.variable(i, &millis.to_le_bytes(), nanos as usize);
        }
        self.slot(i, &millis.to_le_bytes());
        Ok(())
    }

    fn bytes(&mut self, i: usize, data: &[u8]) -> Result<()> {
        if data.len() > INLINE_LENGTH {
            return self.variable(i, data, data.len());
        }
        let mut slot = [0; 8];
        put(&mut slot, 0, data);
        slot[7] = 0x80 | data.len() as u8;
        self.slot(i, &slot);
        Ok(())
    }

    /// Appends `data` to the variable part and points slot `i` to it; the slot's low half is `low` (a length, or a timestamp's nanoseconds).
    fn variable(&mut self, i: usize, data: &[u8], low: usize) -> Result<()> {
        let offset = self.buffer.len() - self.base;
        self.buffer.extend_from_slice(data);
        self.pad();
        self.point(i, offset, low)
    }

    fn nested(&mut self, i: usize, write: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
        let start = self.buffer.len();
        write(self.buffer)?;
        let length = self.buffer.len() - start;
        self.pad();
        self.point(i, start - self.base, length)
    }

    fn point(&mut self, i: usize, offset: usize, low: usize) -> Result<()> {
        let slot = i64::from(length_of(offset)?) << 32 | i64::from(length_of(low)?);
        self.slot(i, &slot.to_le_bytes());
        Ok(())
    }

    fn pad(&mut self) {
        let length = self.buffer.len() - self.base;
        self.buffer.resize(self.base + length.next_multiple_of(8), 0);
    }
}

/// The shortest two's-complement form of a big-endian number: Java's `BigInteger.toByteArray`.
fn minimal_twos_complement(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let [first, second, ..] = rest {
        let redundant = (*first == 0 && *second < 0x80) || (*first == 0xff && *second >= 0x80);
        if !redundant {
            break;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    rest
}

fn length_of(length: usize) -> Result<i32> {
    i32::try_from(length).map_err(|_| FormatError::invalid("row", "more than 2147483647 bytes"))
}

/// Copies `bytes` to `at`; the room was made by the caller.
fn put(buffer: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(room) = buffer.get_mut(at..at + bytes.len()) {
        room.copy_from_slice(bytes);
    }
}
