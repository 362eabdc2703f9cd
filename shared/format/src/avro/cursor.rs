//! Avro values out of a block and into one.
//!
//! Above: `container` (frames), `manifest` (fields). Invariants: 1. every read is inside the block; 2. `skip` ends for every schema
//! and every input, since items that take no bytes are not counted through.

use super::schema::Schema;

/// What is wrong with a value; the caller adds object and field.
pub(crate) type Fault = &'static str;
type Result<T> = std::result::Result<T, Fault>;

const SHORT: Fault = "a value reaches beyond the end of its block";

/// Reads values off the front of a slice.
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What is still to be read.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) const fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn long(&mut self) -> Result<i64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(SHORT)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        Err("a number takes more than 10 bytes")
    }

    pub(crate) fn int(&mut self) -> Result<i32> {
        i32::try_from(self.long()?).map_err(|_| "a number does not fit 32 bits")
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = usize::try_from(self.long()?).map_err(|_| "a length is negative")?;
        self.take(length)
    }

    pub(crate) fn string(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| "a string is not UTF-8")
    }

    /// The branch of `["null", T]`: true for a value.
    pub(crate) fn present(&mut self) -> Result<bool> {
        match self.long()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err("a union has no such branch"),
        }
    }

    /// Reads an array, item by item; items take at least one byte each.
    pub(crate) fn array(&mut self, mut item: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        loop {
            let count = self.block_count()?;
            if count == 0 {
                return Ok(());
            }
            for _ in 0..count {
                item(self)?;
            }
        }
    }

    /// Items in the next block of an array or map; 0 at its end.
    fn block_count(&mut self) -> Result<u64> {
        let count = self.long()?;
        if count < 0 {
            // A negative count is followed by the block's bytes, which only help to skip.
            let bytes = usize::try_from(self.long()?).map_err(|_| "an array block has a negative size")?;
            if bytes > self.remaining() {
                return Err(SHORT);
            }
        }
        Ok(count.unsigned_abs())
    }

    pub(crate) fn skip(&mut self, schema: &Schema) -> Result<()> {
        match schema {
            Schema::Null => Ok(()),
            Schema::Boolean => self.take(1).map(drop),
            Schema::Number => self.long().map(drop),
            Schema::Float => self.take(4).map(drop),
            Schema::Double => self.take(8).map(drop),
            Schema::Bytes => self.bytes().map(drop),
            Schema::Fixed(size) => self.take(*size).map(drop),
            Schema::Array(items) => self.skip_items(|cursor| cursor.skip(items)),
            Schema::Map(values) => self.skip_items(|cursor| {
                cursor.bytes()?;
                cursor.skip(values)
            }),
            Schema::Union(branches) => {
                let branch = usize::try_from(self.long()?).ok().and_then(|i| branches.get(i));
                self.skip(branch.ok_or("a union has no such branch")?)
            }
            Schema::Record(fields) => fields.iter().try_for_each(|(_, schema)| self.skip(schema)),
        }
    }

    fn skip_items(&mut self, mut item: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        loop {
            let count = self.block_count()?;
            if count == 0 {
                return Ok(());
            }
            for _ in 0..count {
                let before = self.remaining();
                item(self)?;
                if self.remaining() == before {
                    break;
                }
            }
        }
    }
}

/// Appends a number.
pub(crate) fn put_long(out: &mut Vec<u8>, value: i64) {
    let mut rest = (value << 1 ^ value >> 63).cast_unsigned();
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Appends a length and the bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    // A slice has at most isize::MAX bytes.
    put_long(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}

/// Appends the value of `["null", T]`.
pub(crate) fn put_optional<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    match value {
        None => out.push(0),
        Some(value) => {
            out.push(2);
            put(out, value);
        }
    }
}

/// Appends an array as one block.
pub(crate) fn put_array<T>(out: &mut Vec<u8>, items: &[T], mut put: impl FnMut(&mut Vec<u8>, &T)) {
    if !items.is_empty() {
        put_long(out, items.len() as i64);
        for item in items {
            put(out, item);
        }
    }
    out.push(0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_survive_a_round_trip(value in any::<i64>(), small in -70_i64..70) {
            for value in [value, small, i64::MIN, i64::MAX] {
                let mut out = Vec::new();
                put_long(&mut out, value);
                prop_assert_eq!(Cursor::new(&out).long(), Ok(value));
                prop_assert!(Cursor::new(&out[..out.len() - 1]).long().is_err());
            }
        }
    }

    #[test]
    fn endless_arrays_of_nothing_end() {
        let mut bytes = Vec::new();
        put_long(&mut bytes, i64::MAX);
        bytes.push(0);
        let mut cursor = Cursor::new(&bytes);
        cursor.skip(&Schema::Array(Box::new(Schema::Null))).unwrap();
        assert!(cursor.is_empty());
    }

    #[test]
    fn a_block_that_states_its_size_ends_inside_the_bytes() {
        let nulls = Schema::Array(Box::new(Schema::Null));
        // Two items in one byte, in two, and the end.
        assert!(Cursor::new(&[3, 2, 0]).skip(&nulls).is_ok());
        assert!(Cursor::new(&[3, 4, 0]).skip(&nulls).is_err());
    }

    #[test]
    fn damaged_values_are_refused() {
        assert!(Cursor::new(&[0xff; 11]).long().is_err());
        assert!(Cursor::new(&[0x01]).bytes().is_err(), "negative length");
        assert!(Cursor::new(&[0xfe, 0xff, 0xff, 0xff, 0x0f]).bytes().is_err(), "length beyond the end");
        assert!(Cursor::new(&[4]).present().is_err());
        assert!(Cursor::new(&[4]).skip(&Schema::Union(vec![Schema::Null, Schema::Number])).is_err());
        assert!(Cursor::new(&[0xfe, 0xff, 0xff, 0xff, 0x1f]).int().is_err());
    }
}
