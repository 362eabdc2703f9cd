//! Damage to inputs: what chance, a bad disk, another program or an attacker would do.
//!
//! Below: `json` and `avro`, which damage the content and keep the form, so that the damage reaches what lies behind the first check.
//! Above: `driver`. Invariants: 1. the same generator state gives the same bytes; 2. an input never grows beyond [`INPUT_MAX`].

mod avro;
mod json;

use rand::{Rng, rngs::SmallRng, seq::IndexedRandom};

pub use self::avro::{container, unpacked, varint};

/// Largest input that is made: damage needs no megabytes.
pub const INPUT_MAX: usize = 128 << 10;

/// What an input is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Anything.
    Bytes,
    /// A text of JSON.
    Json,
    /// An Avro container file.
    Avro,
}

/// What an input is damaged with.
#[derive(Debug, Clone, Copy)]
pub struct Tools<'a> {
    /// What it is made of.
    pub shape: Shape,
    /// Other inputs of the same parser.
    pub pool: &'a [Vec<u8>],
    /// Words that the parser knows.
    pub words: &'a [&'static str],
}

/// Numbers at the edges of what fits where.
const EDGES: [i64; 19] = [
    0,
    1,
    -1,
    2,
    16,
    63,
    64,
    127,
    128,
    255,
    256,
    32_767,
    65_535,
    65_536,
    i32::MAX as i64,
    i32::MIN as i64,
    u32::MAX as i64,
    i64::MAX,
    i64::MIN,
];

/// A damaged copy of an input: one to eight blows.
#[must_use]
pub fn damaged(input: &[u8], tools: Tools<'_>, rng: &mut SmallRng) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..1_usize << rng.random_range(0..4_u32) {
        let formed = rng.random_bool(0.5);
        let made = match tools.shape {
            Shape::Json if formed => json::damaged(&bytes, tools, rng),
            Shape::Avro if formed => avro::damaged(&bytes, tools, rng),
            _ => None,
        };
        match made {
            Some(made) => bytes = made,
            None => blow(&mut bytes, tools, rng),
        }
    }
    bytes.truncate(INPUT_MAX);
    bytes
}

/// One piece of damage that knows nothing of the form.
pub(crate) fn blow(bytes: &mut Vec<u8>, tools: Tools<'_>, rng: &mut SmallRng) {
    let at = rng.random_range(0..=bytes.len());
    let reach = 1_usize << rng.random_range(0..8_u32);
    let end = (at + 1 + rng.random_range(0..reach)).min(bytes.len());
    match rng.random_range(0..13_u32) {
        0 | 1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << rng.random_range(0..8_u32);
            }
        }
        2 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = rng.random();
            }
        }
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(at.min(end)..end)),
        5 => {
            let again: Vec<u8> = bytes.get(at..end).unwrap_or_default().to_vec();
            let times = if rng.random_bool(0.1) { 200 } else { 1 };
            insert(bytes, at, &again.repeat(times));
        }
        6 => {
            let new: Vec<u8> = (at..end.max(at + 1)).map(|_| rng.random()).collect();
            insert(bytes, at, &new);
        }
        7 | 8 => write_number(bytes, at, rng),
        9 => {
            if let Some(word) = tools.words.choose(rng) {
                let over = if rng.random_bool(0.5) { word.len() } else { 0 };
                bytes.drain(at..(at + over).min(bytes.len()));
                insert(bytes, at, word.as_bytes());
            }
        }
        10 => {
            if let Some(other) = tools.pool.choose(rng)
                && !other.is_empty()
            {
                let from = rng.random_range(0..other.len());
                let to = (from + 1 + rng.random_range(0..64_usize)).min(other.len());
                insert(bytes, at, other.get(from..to).unwrap_or_default());
            }
        }
        11 => {
            // The head of one, the tail of another.
            if let Some(other) = tools.pool.choose(rng) {
                let from = rng.random_range(0..=other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(other.get(from..).unwrap_or_default());
            }
        }
        _ => swap(bytes, at, rng),
    }
    bytes.truncate(INPUT_MAX);
}

fn insert(bytes: &mut Vec<u8>, at: usize, new: &[u8]) {
    let new = new.get(..new.len().min(INPUT_MAX.saturating_sub(bytes.len()))).unwrap_or_default();
    bytes.splice(at..at, new.iter().copied());
}

fn swap(bytes: &mut [u8], at: usize, rng: &mut SmallRng) {
    if !bytes.is_empty() {
        let (a, b) = (at.min(bytes.len() - 1), rng.random_range(0..bytes.len()));
        bytes.swap(a, b);
    }
}

/// A number at the edge of something over what stands there, in one of the forms that formats have.
fn write_number(bytes: &mut Vec<u8>, at: usize, rng: &mut SmallRng) {
    let near = i64::try_from(bytes.len()).unwrap_or(0) + rng.random_range(-2..=2_i64);
    let number = if rng.random_bool(0.3) { near } else { *EDGES.choose(rng).unwrap_or(&0) };
    let form: Vec<u8> = match rng.random_range(0..6_u32) {
        0 => number.to_le_bytes().to_vec(),
        1 => number.to_be_bytes().to_vec(),
        2 => number.to_le_bytes()[..4].to_vec(),
        3 => number.to_be_bytes()[4..].to_vec(),
        4 => avro::varint(number),
        _ => number.to_string().into_bytes(),
    };
    let end = (at + form.len()).min(bytes.len());
    bytes.splice(at..end, form);
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_damage_and_it_stays_small() {
        let pool = [b"{\"a\": [1, 2.5e3, null], \"b\": \"x\"}".to_vec(), b"[]".to_vec()];
        for shape in [Shape::Bytes, Shape::Json, Shape::Avro] {
            let tools = Tools { shape, pool: &pool, words: &["word"] };
            let run = |seed| {
                let mut rng = SmallRng::seed_from_u64(seed);
                let mut bytes = pool[0].clone();
                for _ in 0..2_000 {
                    bytes = damaged(&bytes, tools, &mut rng);
                    assert!(bytes.len() <= INPUT_MAX);
                }
                bytes
            };
            assert_eq!(run(1), run(1));
            assert_ne!(run(1), run(2));
        }
    }
}
