//! The footer of a Parquet file, looked through before the decoder sees it.
//!
//! Above: `reader`. The decoder believes how many children a group of the schema claims and follows them by recursion: a damaged footer of some
//! bytes would end the process (memory, or stack), and not in a panic that could be caught. Thrift's compact form, parquet.thrift's `FileMetaData`.
//! Invariants: 1. a schema that passes has no group with more children than there are elements behind it, and is at most [`DEPTH_MAX`] deep; 2. nothing is
//! allocated but one number for each open group; 3. the decoder goes by the numbers of fields and not by their types, so that a field of another type would be
//! read as other bytes than here: such a footer is refused. Only what stands before the end of the schema is looked at: one schema is read, the first.

/// Deepest schema: 32 levels of nested types, each of up to three groups.
const DEPTH_MAX: usize = 128;
/// Deepest value that is skipped: Parquet's own structures have five.
const SKIP_DEPTH_MAX: usize = 32;
const VERSION: i16 = 1;
const SCHEMA: i16 = 2;
const NUM_CHILDREN: i16 = 5;
const LOGICAL_TYPE: i16 = 10;

/// Why a footer must not be decoded.
type Fault = &'static str;
const OTHER_TYPE: Fault = "its schema has a field of another type than Parquet's";
const SHORT: Fault = "its footer ends early";

/// Looks through the bytes between the data and the length of the footer.
///
/// # Errors
/// What is wrong with it, of "it".
pub(crate) fn check(footer: &[u8]) -> Result<(), Fault> {
    let mut cursor = Cursor { rest: footer };
    let mut last = 0;
    while let Some((id, kind)) = cursor.field(last)? {
        last = id;
        match (id, kind) {
            (VERSION, kinds::I32) => cursor.skip(kind, 0)?,
            (SCHEMA, kinds::LIST) => return check_schema(&mut cursor),
            _ => break,
        }
    }
    Err("its footer does not begin with version and schema")
}

fn check_schema(cursor: &mut Cursor<'_>) -> Result<(), Fault> {
    let (elements, kind) = cursor.list()?;
    // Children that each open group still waits for.
    let mut open: Vec<u64> = Vec::new();
    for element in 0..elements {
        if kind != kinds::STRUCT {
            return Err("its schema is no list of elements");
        }
        let children = num_children(cursor)?;
        while open.last() == Some(&0) {
            open.pop();
        }
        if let Some(waiting) = open.last_mut() {
            *waiting -= 1;
        }
        let behind = elements - element - 1;
        if children > behind {
            return Err("its schema has a group of more children than there are elements");
        }
        if children > 0 {
            if open.len() >= DEPTH_MAX {
                return Err("its schema is nested too deep");
            }
            open.push(children);
        }
    }
    Ok(())
}

/// Reads one element of the schema; 0 for a leaf.
fn num_children(cursor: &mut Cursor<'_>) -> Result<u64, Fault> {
    let (mut last, mut children) = (0, 0);
    while let Some((id, kind)) = cursor.field(last)? {
        last = id;
        match (id, kind) {
            (NUM_CHILDREN, kinds::I32) => {
                let zigzag = cursor.varint()?;
                if zigzag & 1 == 1 {
                    return Err("its schema has a group of a negative number of children");
                }
                children = zigzag >> 1;
            }
            (LOGICAL_TYPE, kinds::STRUCT) => skip_logical_type(cursor)?,
            // type, type_length, repetition_type, converted_type, scale, precision, field_id
            (1..=3 | 6..=9, kinds::I32) | (4, kinds::BINARY) | (11.., _) => cursor.skip(kind, 0)?,
            _ => return Err(OTHER_TYPE),
        }
    }
    Ok(children)
}

/// A union of structures, none of which has another one inside but for the unit of times.
fn skip_logical_type(cursor: &mut Cursor<'_>) -> Result<(), Fault> {
    let mut last = 0;
    while let Some((of, kind)) = cursor.field(last)? {
        last = of;
        if kind != kinds::STRUCT {
            return Err(OTHER_TYPE);
        }
        let mut last = 0;
        while let Some((id, kind)) = cursor.field(last)? {
            last = id;
            let right = match (of, id) {
                // DECIMAL: scale, precision; INTEGER: bits, signed; VARIANT: version; GEOMETRY, GEOGRAPHY: system, algorithm.
                (5, 1 | 2) | (18, 2) => kind == kinds::I32,
                (7 | 8, 1) | (10, 2) => kind == kinds::TRUE || kind == kinds::FALSE,
                (10, 1) | (16, 1) => kind == kinds::I8,
                (17 | 18, 1) => kind == kinds::BINARY,
                (7 | 8, 2) => {
                    skip_unit(cursor)?;
                    continue;
                }
                _ => false,
            };
            if !right {
                return Err(OTHER_TYPE);
            }
            cursor.skip(kind, 0)?;
        }
    }
    Ok(())
}

/// TIME and TIMESTAMP: a union of empty structures.
fn skip_unit(cursor: &mut Cursor<'_>) -> Result<(), Fault> {
    let mut last = 0;
    while let Some((id, kind)) = cursor.field(last)? {
        last = id;
        if kind != kinds::STRUCT || cursor.field(0)?.is_some() {
            return Err(OTHER_TYPE);
        }
    }
    Ok(())
}

/// Types of Thrift's compact form.
mod kinds {
    pub(super) const TRUE: u8 = 1;
    pub(super) const FALSE: u8 = 2;
    pub(super) const I8: u8 = 3;
    pub(super) const I16: u8 = 4;
    pub(super) const I32: u8 = 5;
    pub(super) const I64: u8 = 6;
    pub(super) const DOUBLE: u8 = 7;
    pub(super) const BINARY: u8 = 8;
    pub(super) const LIST: u8 = 9;
    pub(super) const SET: u8 = 10;
    pub(super) const MAP: u8 = 11;
    pub(super) const STRUCT: u8 = 12;
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl Cursor<'_> {
    fn byte(&mut self) -> Result<u8, Fault> {
        let (first, rest) = self.rest.split_first().ok_or(SHORT)?;
        self.rest = rest;
        Ok(*first)
    }

    fn varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("its footer has a number of more than 64 bits")
    }

    fn advance(&mut self, bytes: u64) -> Result<(), Fault> {
        let bytes = usize::try_from(bytes).map_err(|_| SHORT)?;
        self.rest = self.rest.get(bytes..).ok_or(SHORT)?;
        Ok(())
    }

    /// Id and type of the next field; `None` at the end of the structure.
    fn field(&mut self, last: i16) -> Result<Option<(i16, u8)>, Fault> {
        let header = self.byte()?;
        let (delta, kind) = (header >> 4, header & 0x0f);
        if kind == 0 {
            return Ok(None);
        }
        if delta > 0 {
            return Ok(Some((last.wrapping_add(i16::from(delta)), kind)));
        }
        let zigzag = self.varint()?;
        let id = i64::try_from(zigzag >> 1).unwrap_or(i64::MAX) ^ -i64::from(zigzag & 1 == 1);
        Ok(Some((i16::try_from(id).map_err(|_| "its footer has a field of an impossible number")?, kind)))
    }

    /// Length and type of the elements of a list. A list that claims more elements than bytes is left to the decoder, which refuses it.
    fn list(&mut self) -> Result<(u64, u8), Fault> {
        let header = self.byte()?;
        let short = u64::from(header >> 4);
        let length = if short == 15 { self.varint()? } else { short };
        if length > self.rest.len() as u64 {
            return Err(SHORT);
        }
        Ok((length, header & 0x0f))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Result<(), Fault> {
        if depth > SKIP_DEPTH_MAX {
            return Err("its footer is nested too deep");
        }
        match kind {
            kinds::TRUE | kinds::FALSE => Ok(()),
            kinds::I8 => self.advance(1),
            kinds::I16 | kinds::I32 | kinds::I64 => self.varint().map(drop),
            kinds::DOUBLE => self.advance(8),
            kinds::BINARY => {
                let length = self.varint()?;
                self.advance(length)
            }
            kinds::LIST | kinds::SET => {
                let (length, of) = self.list()?;
                (0..length).try_for_each(|_| self.skip_element(of, depth))
            }
            kinds::MAP => {
                let length = self.varint()?;
                if length > self.rest.len() as u64 {
                    return Err(SHORT);
                }
                let of = if length > 0 { self.byte()? } else { 0 };
                (0..length).try_for_each(|_| {
                    self.skip_element(of >> 4, depth)?;
                    self.skip_element(of & 0x0f, depth)
                })
            }
            kinds::STRUCT => {
                let mut last = 0;
                while let Some((id, of)) = self.field(last)? {
                    last = id;
                    self.skip(of, depth + 1)?;
                }
                Ok(())
            }
            _ => Err("its footer has a field of an unknown type"),
        }
    }

    /// In lists and maps a boolean is a byte of its own.
    fn skip_element(&mut self, kind: u8, depth: usize) -> Result<(), Fault> {
        match kind {
            kinds::TRUE | kinds::FALSE => self.advance(1),
            other => self.skip(other, depth + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A footer whose schema has these numbers of children, and its number of rows behind that.
    fn footer(children: &[u32]) -> Vec<u8> {
        // version = 1; schema: a list of structures, its length as a number of its own.
        let mut out = vec![0x15, 2, 0x19, 0xfc];
        put(&mut out, children.len() as u64);
        for n in children {
            // name (4), then num_children (5) where there are any.
            out.extend([0x48, 1, b'x']);
            if *n > 0 {
                out.push(0x15);
                put(&mut out, u64::from(*n) << 1);
            }
            out.push(0);
        }
        out.extend([0x16, 0, 0]);
        out
    }

    fn put(out: &mut Vec<u8>, mut n: u64) {
        while n >= 0x80 {
            out.push(n as u8 | 0x80);
            n >>= 7;
        }
        out.push(n as u8);
    }

    #[test]
    fn a_schema_that_adds_up_passes() {
        assert_eq!(check(&footer(&[3, 0, 2, 0, 0, 0])), Ok(()));
        assert_eq!(check(&footer(&[0])), Ok(()));
        let deep: Vec<u32> = [vec![1; DEPTH_MAX], vec![0]].concat();
        assert_eq!(check(&footer(&deep)), Ok(()));
    }

    /// Found by fuzzing: the decoder reserved memory for two thousand million children and the process ended.
    #[test]
    fn a_group_of_more_children_than_elements_is_refused_before_memory_is_reserved_for_them() {
        for children in [&[i32::MAX as u32, 0][..], &[2, 0], &[1, 1]] {
            assert!(check(&footer(children)).unwrap_err().contains("more children"), "{children:?}");
        }
    }

    /// Found by fuzzing: the decoder takes a number of children of any type, and what is skipped here as something else.
    #[test]
    fn fields_of_another_type_than_parquets_are_refused() {
        let mut other = footer(&[3, 0, 2, 0, 0, 0]);
        let at = other.windows(2).position(|pair| pair == [b'x', 0x15]).unwrap() + 1;
        for kind in [kinds::I16, kinds::I64, kinds::BINARY, kinds::STRUCT, kinds::TRUE] {
            other[at] = 0x10 | kind;
            assert_eq!(check(&other), Err(OTHER_TYPE), "{kind}");
        }
        assert!(check(&[0x25, 2, 0x19, 0x0c, 0]).unwrap_err().contains("does not begin"));
    }

    #[test]
    fn a_schema_of_endless_depth_is_refused_before_it_takes_the_stack() {
        let deep: Vec<u32> = [vec![1; 1_000_000], vec![0]].concat();
        assert!(check(&footer(&deep)).unwrap_err().contains("too deep"));
        // A structure in a structure in a field that nobody knows.
        let unknown = [&[0x15, 2, 0x19, 0x1c, 0xbc][..], &[0x1c; 1_000]].concat();
        assert!(check(&unknown).unwrap_err().contains("too deep"));
    }

    /// A root of two leaves with these fields between its name and its number of children, whose field number is written out: ids may fall.
    fn with_fields(fields: &[u8]) -> Vec<u8> {
        let behind = [kinds::I32, 10, 4, 0, 0x48, 1, b'y', 0, 0x48, 1, b'z', 0];
        [&[0x15, 2, 0x19, 0x3c, 0x48, 1, b'x'][..], fields, &behind].concat()
    }

    fn with_unknown(kind: u8, value: &[u8]) -> Vec<u8> {
        with_fields(&[&[kind, 40], value].concat())
    }

    #[test]
    fn a_field_that_a_later_parquet_has_is_passed_over_to_its_last_byte() {
        let values: [(u8, &[u8]); 16] = [
            (kinds::TRUE, &[]),
            (kinds::FALSE, &[]),
            (kinds::I8, &[0x80]),
            (kinds::I16, &[0x80, 1]),
            (kinds::I32, &[0xff, 0x7f]),
            (kinds::I64, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            (kinds::DOUBLE, &[0x80; 8]),
            (kinds::BINARY, &[3, b'a', b'b', b'c']),
            (kinds::LIST, &[0x25, 0x80, 1, 2]),
            (kinds::LIST, &[0xf1, 16, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2]),
            (kinds::SET, &[0x28, 1, b'a', 2, b'b', b'c']),
            (kinds::MAP, &[0]),
            (kinds::MAP, &[2, 0x85, 1, b'a', 0x80, 1, 2, b'b', b'c', 4]),
            (kinds::MAP, &[1, 0x12, 1, 2]),
            (kinds::STRUCT, &[0]),
            (kinds::STRUCT, &[0x15, 2, 0x1c, 0x38, 1, b'a', 0, 0x13, 0x80, 0]),
        ];
        for (kind, value) in values {
            let whole = with_unknown(kind, value);
            assert_eq!(check(&whole), Ok(()), "{kind} {value:?}");
            for end in 0..whole.len() {
                assert!(check(&whole[..end]).is_err(), "{kind} {value:?} to {end}");
            }
        }
        assert!(check(&with_unknown(13, &[])).unwrap_err().contains("unknown type"));
        assert!(check(&with_unknown(kinds::I64, &[0xff; 10])).unwrap_err().contains("64 bits"));
    }

    #[test]
    fn numbers_of_fields_and_of_children_may_be_nothing_but_what_they_are() {
        // The number of children as field 5 of a number written out, as -5 and as one beyond 16 bits.
        let numbered = |id: &[u8]| check(&[&[0x15, 2, 0x19, 0x1c, kinds::I32][..], id, &[2, 0]].concat());
        assert!(numbered(&[10]).unwrap_err().contains("more children"));
        assert_eq!(numbered(&[9]), Err(OTHER_TYPE));
        assert!(numbered(&[0x80, 0x80, 4]).unwrap_err().contains("impossible number"));
        assert!(check(&[0x15, 2, 0x19, 0x1c, 0x55, 3, 0]).unwrap_err().contains("negative number of children"));
        assert!(check(&[0x15, 2, 0x19, 0x15, 2]).unwrap_err().contains("no list of elements"));
        assert!(check(&[0x15, 2, 0x19, 0x5c, 0x48, 1, b'x', 0]).is_err(), "more elements than bytes");
    }

    #[test]
    fn logical_types_have_fields_of_parquets_types_only() {
        // An element with a logical type `of` that holds these bytes; ids above 15 are written out.
        fn typed(of: u8, inside: &[u8]) -> Vec<u8> {
            let field = if of > 15 { vec![kinds::STRUCT, of << 1] } else { vec![of << 4 | kinds::STRUCT] };
            with_fields(&[&[0x6c][..], &field, inside, &[0, 0]].concat())
        }
        // (logical type, its field, the types it may have)
        let fields: [(u8, u8, &[u8]); 12] = [
            (5, 1, &[kinds::I32]),
            (5, 2, &[kinds::I32]),
            (7, 1, &[kinds::TRUE, kinds::FALSE]),
            (8, 1, &[kinds::TRUE, kinds::FALSE]),
            (10, 1, &[kinds::I8]),
            (10, 2, &[kinds::TRUE, kinds::FALSE]),
            (16, 1, &[kinds::I8]),
            (17, 1, &[kinds::BINARY]),
            (18, 1, &[kinds::BINARY]),
            (18, 2, &[kinds::I32]),
            (1, 1, &[]),
            (5, 3, &[]),
        ];
        for (of, id, right) in fields {
            for kind in kinds::TRUE..=kinds::STRUCT {
                let value: &[u8] = if kind <= kinds::FALSE { &[] } else { &[0] };
                let found = check(&typed(of, &[&[id << 4 | kind][..], value].concat()));
                let wanted = if right.contains(&kind) { Ok(()) } else { Err(OTHER_TYPE) };
                assert_eq!(found.is_ok(), wanted.is_ok(), "{of} {id} {kind}: {found:?}");
            }
        }
        for of in [7, 8] {
            assert_eq!(check(&typed(of, &[0x2c, 0x1c, 0, 0])), Ok(()), "{of} with a unit");
            assert_eq!(check(&typed(of, &[0x2c, 0x15, 0, 0])), Err(OTHER_TYPE), "{of} with a unit that is a number");
            assert_eq!(
                check(&typed(of, &[0x2c, 0x1c, 0x15, 0, 0, 0])),
                Err(OTHER_TYPE),
                "{of} with a unit of something"
            );
        }
        assert_eq!(check(&with_fields(&[0x6c, 0x55, 0, 0])), Err(OTHER_TYPE), "a logical type that is a number");
    }

    #[test]
    fn cut_footers_are_refused() {
        let whole = footer(&[3, 0, 2, 0, 0, 0]);
        // Behind the schema stand three bytes that the decoder looks at alone.
        for end in 0..whole.len() - 3 {
            assert!(check(&whole[..end]).is_err(), "{end}");
        }
    }
}
