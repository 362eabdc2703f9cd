//! Damage inside Avro container files: the schema in the header and the rows in the blocks, with lengths and marks made to fit again.
//!
//! Above: the mutator of bytes, which breaks lengths and marks. Invariant: 1. what is no container, or one whose blocks cannot be opened, is
//! not touched here.

use std::io::Read;

use rand::{Rng, rngs::SmallRng};

use super::{INPUT_MAX, Shape, Tools, blow, json};

const MAGIC: &[u8] = b"Obj\x01";
const OPENED_MAX: u64 = 1 << 20;

/// A container file, opened.
struct Container {
    schema: Vec<u8>,
    sync: Vec<u8>,
    blocks: Vec<(i64, Vec<u8>)>,
}

/// The same file with blocks that are not compressed; `None` for what is no container file, or too large.
#[must_use]
pub fn unpacked(bytes: &[u8]) -> Option<Vec<u8>> {
    Some(open(bytes)?.close(false))
}

/// A container file of one block with these rows, not compressed.
#[must_use]
pub fn container(schema: &str, rows: i64, body: Vec<u8>) -> Vec<u8> {
    Container { schema: schema.as_bytes().to_vec(), sync: vec![7; 16], blocks: vec![(rows, body)] }.close(false)
}

/// A damaged copy, or `None` for what is no container file.
pub(crate) fn damaged(bytes: &[u8], tools: Tools<'_>, rng: &mut SmallRng) -> Option<Vec<u8>> {
    let mut file = open(bytes)?;
    let packed = rng.random_bool(0.1);
    let place = rng.random_range(0..=file.blocks.len().max(1));
    match file.blocks.get_mut(place) {
        Some((rows, body)) => match rng.random_range(0..8_u32) {
            0 => *rows = rows.saturating_add(rng.random_range(-1..=1)),
            1 => drop(file.blocks.remove(place)),
            2 => {
                let again = file.blocks.get(place)?.clone();
                file.blocks.push(again);
            }
            _ => blow(body, tools, rng),
        },
        None if rng.random_bool(0.5) => {
            let tools = Tools { shape: Shape::Json, pool: &[], ..tools };
            file.schema = json::damaged(&file.schema, tools, rng)?;
        }
        None => blow(&mut file.schema, tools, rng),
    }
    let bytes = file.close(packed);
    (bytes.len() <= INPUT_MAX).then_some(bytes)
}

fn open(bytes: &[u8]) -> Option<Container> {
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let (mut schema, mut codec) = (None, Vec::new());
    loop {
        let count = long(&mut rest)?;
        if count == 0 {
            break;
        }
        if count < 0 {
            long(&mut rest)?;
        }
        for _ in 0..count.unsigned_abs().min(64) {
            let (name, value) = (take(&mut rest)?, take(&mut rest)?);
            match name.as_slice() {
                b"avro.schema" => schema = Some(value),
                b"avro.codec" => codec = value,
                _ => {}
            }
        }
    }
    let (sync, mut rest) = rest.split_at_checked(16)?;
    let mut blocks = Vec::new();
    while !rest.is_empty() {
        let (rows, body) = (long(&mut rest)?, take(&mut rest)?);
        rest = rest.split_at_checked(16)?.1;
        let body = match codec.as_slice() {
            b"zstandard" => {
                let mut out = Vec::new();
                let decoder = zstd::stream::read::Decoder::with_buffer(body.as_slice()).ok()?;
                decoder.take(OPENED_MAX).read_to_end(&mut out).ok()?;
                out
            }
            b"null" | b"" => body,
            _ => return None,
        };
        blocks.push((rows, body));
    }
    Some(Container { schema: schema?, sync: sync.to_vec(), blocks })
}

impl Container {
    fn close(&self, packed: bool) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(varint(2));
        let codec: &[u8] = if packed { b"zstandard" } else { b"null" };
        for part in [b"avro.schema".as_slice(), &self.schema, b"avro.codec", codec] {
            put(&mut out, part);
        }
        out.push(0);
        out.extend_from_slice(&self.sync);
        for (rows, body) in &self.blocks {
            out.extend(varint(*rows));
            let compressed = if packed { zstd::bulk::compress(body, 1).ok() } else { None };
            put(&mut out, compressed.as_deref().unwrap_or(body));
            out.extend_from_slice(&self.sync);
        }
        out
    }
}

/// A number as Avro has it.
#[must_use]
pub fn varint(number: i64) -> Vec<u8> {
    let mut rest = ((number << 1) ^ (number >> 63)).cast_unsigned();
    let mut out = Vec::new();
    while rest >= 0x80 {
        out.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    out.push(rest.to_le_bytes()[0]);
    out
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(varint(i64::try_from(bytes.len()).unwrap_or(0)));
    out.extend_from_slice(bytes);
}

fn long(rest: &mut &[u8]) -> Option<i64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    None
}

fn take(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let length = usize::try_from(long(rest)?).ok()?;
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head.to_vec())
}
