//! Positions in the input stream, per shard, packed small enough to move with every commit.
//!
//! Neighbours: `pointer` carries the recent ones, `changes` compares a change's ranges with them, `protocol::commit` keeps the
//! others in an immutable object on S3. Same bytes, base64, in the `properties` of every snapshot.
//! Invariants: 1. a checkpoint never moves back (3); 2. a range is applied if and only if its start is the checkpoint (6);
//! 3. a closed shard never moves again; 4. at most [`RECENT_SHARDS`] shards are in the pointer, about 44 bytes each, 10 more with a list (22);
//! 5. packing is canonical: equal checkpoints give equal bytes, and nothing read panics.

use std::{collections::BTreeMap, fmt, str::FromStr};

use siltstone_format::id::SequenceNumber;

use crate::{error::CommitError, sequence::Slot};

/// Most shards in the pointer itself.
pub const RECENT_SHARDS: usize = 64;
/// Longest shard id, bytes: Kinesis allows 128; a stream name may stand before it.
pub const SHARD_ID_BYTES: usize = 256;
/// Most shards that are read from one packed object (about 10 MB): more is not a checkpoint of this product.
pub const PACKED_SHARDS: usize = 200_000;

/// Name of a shard, unique among everything that feeds the table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(String);

impl ShardId {
    /// Takes a name of 1 to [`SHARD_ID_BYTES`] bytes.
    ///
    /// # Errors
    /// `InvalidInput` for an empty or too long name.
    pub fn new(name: impl Into<String>) -> Result<Self, CommitError> {
        let name = name.into();
        if name.is_empty() || name.len() > SHARD_ID_BYTES {
            let reason = format!("a shard id has 1 to {SHARD_ID_BYTES} bytes, this one has {}", name.len());
            return Err(CommitError::InvalidChange { reason });
        }
        Ok(Self(name))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number of a name of Kinesis' own form, which packs into a few bytes.
    fn number(&self) -> Option<u64> {
        let digits = self.0.strip_prefix("shardId-")?;
        let plain = digits.len() == 12 && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse().ok()).flatten()
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A place in a shard: everything up to and including it has been read. Kinesis' sequence numbers have up to 56 digits and
/// more, so they are kept as 32 big-endian bytes; the sub-sequence counts inside a KPL aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    sequence: [u8; 32],
    sub_sequence: u64,
}

impl Position {
    /// The same record, another place in its aggregate.
    #[must_use]
    pub const fn with_sub_sequence(self, sub_sequence: u64) -> Self {
        Self { sequence: self.sequence, sub_sequence }
    }

    /// The last 64 bits of the number: all of it for positions that are counted from 1.
    #[must_use]
    pub fn number(self) -> u64 {
        self.sequence.last_chunk().map_or(0, |last| u64::from_be_bytes(*last))
    }

    /// Place inside the aggregate, 0 for a record that is none.
    #[must_use]
    pub const fn sub_sequence(self) -> u64 {
        self.sub_sequence
    }
}

impl From<u64> for Position {
    fn from(number: u64) -> Self {
        let mut sequence = [0; 32];
        sequence[24..].copy_from_slice(&number.to_be_bytes());
        Self { sequence, sub_sequence: 0 }
    }
}

impl FromStr for Position {
    type Err = CommitError;

    /// Reads `digits` or `digits.sub`.
    fn from_str(text: &str) -> Result<Self, CommitError> {
        let bad = || CommitError::InvalidChange {
            reason: format!("{text:?} is no stream position: decimal digits below 2^256, and an optional `.sub`"),
        };
        let (digits, sub) = text.split_once('.').map_or((text, None), |(d, s)| (d, Some(s)));
        if digits.is_empty() || digits.len() > 78 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        let mut sequence = [0_u8; 32];
        for digit in digits.bytes() {
            let mut carry = u16::from(digit - b'0');
            for byte in sequence.iter_mut().rev() {
                let value = u16::from(*byte) * 10 + carry;
                *byte = (value & 0xff) as u8;
                carry = value >> 8;
            }
            if carry != 0 {
                return Err(bad());
            }
        }
        let sub_sequence = sub.map_or(Ok(0), |s| s.parse().map_err(|_| bad()))?;
        Ok(Self { sequence, sub_sequence })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.sequence;
        let mut digits = Vec::new();
        while rest.iter().any(|b| *b != 0) {
            let mut remainder = 0_u16;
            for byte in &mut rest {
                let value = (remainder << 8) | u16::from(*byte);
                *byte = (value / 10) as u8;
                remainder = value % 10;
            }
            digits.push(b'0' + remainder as u8);
        }
        if digits.is_empty() {
            digits.push(b'0');
        }
        digits.reverse();
        f.write_str(&String::from_utf8_lossy(&digits))?;
        if self.sub_sequence != 0 {
            write!(f, ".{}", self.sub_sequence)?;
        }
        Ok(())
    }
}

/// Names an immutable list of records beside the table by its content, the name of the list before it included: so the last name of a shard
/// vouches for all of its lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListId(pub u64);

impl fmt::Display for ListId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for ListId {
    type Err = CommitError;

    fn from_str(text: &str) -> Result<Self, CommitError> {
        let id = u64::from_str_radix(text, 16).ok().map(Self).filter(|id| id.to_string() == text);
        id.ok_or_else(|| CommitError::InvalidChange { reason: format!("{text:.40?} names no list: 16 digits, 0 to f") })
    }
}

/// What one change read of one shard: `(from, to]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardRange {
    /// Shard.
    pub shard: ShardId,
    /// The checkpoint that the reader started from; `None` if the table has none for this shard.
    pub from: Option<Position>,
    /// The last position that was read, above `from`.
    pub to: Position,
    /// Smallest sequence number given to a row or kept for a quarantined record; `None` if there is neither, and for replayed records,
    /// whose old numbers stand below what was given out since.
    pub first_sequence: Option<SequenceNumber>,
    /// Largest sequence number that the shard has given out, this change included.
    pub last_sequence: SequenceNumber,
    /// The shard's reserved slot.
    pub slot: Slot,
    /// Shards that this one follows: they are closed by the same write.
    pub parents: Vec<ShardId>,
    /// The list with the records of the range that went into quarantine; `None` if none did.
    pub list: Option<ListId>,
}

/// How far a shard is covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// Everything up to here is in the table or in quarantine.
    pub position: Position,
    /// Largest sequence number given out.
    pub last_sequence: SequenceNumber,
    /// Reserved slot; it may be given away once `closed`.
    pub slot: Slot,
    /// A child shard has begun: this one is read to its end.
    pub closed: bool,
    /// The shard's last list of quarantined records, which names those before it.
    pub list: Option<ListId>,
}

/// What is known of a shard without reading the packed object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// Its checkpoint.
    Found(Checkpoint),
    /// It has none.
    Absent,
    /// It is not among the recent ones; the packed object has to be read first.
    NotLoaded,
}

/// How a range stands to its shard's checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeFit {
    /// It starts where the checkpoint is.
    Fits,
    /// All of it was committed before.
    Covered,
    /// A part was committed before: trim to what lies above.
    Overlaps(Position),
    /// Records between the checkpoint and the range are missing.
    Gap(Option<Position>),
    /// The shard was closed by its child.
    Closed(Position),
    /// The packed object has to be read first.
    NotLoaded,
}

/// The checkpoints of a table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checkpoints {
    /// Least recently moved first.
    recent: Vec<(ShardId, Checkpoint)>,
    /// Key (below the table) of the immutable object with the others.
    packed: Option<String>,
    /// Its content, where it was read. `recent` wins over it.
    others: Option<BTreeMap<ShardId, Checkpoint>>,
}

impl Checkpoints {
    /// The recent ones, least recently moved first.
    pub fn recent(&self) -> impl Iterator<Item = (&ShardId, &Checkpoint)> {
        self.recent.iter().map(|(shard, checkpoint)| (shard, checkpoint))
    }

    /// Whether the shards of the packed object are here.
    #[must_use]
    pub const fn has_others(&self) -> bool {
        self.others.is_some()
    }

    /// Every shard known here: the recent ones, and the others if they were loaded.
    #[must_use]
    pub fn all(&self) -> BTreeMap<ShardId, Checkpoint> {
        let mut all = self.others.clone().unwrap_or_default();
        all.extend(self.recent.iter().cloned());
        all
    }

    /// Key below the table of the packed object.
    #[must_use]
    pub fn packed_object(&self) -> Option<&str> {
        self.packed.as_deref()
    }

    /// Adds the content of the packed object, once read.
    pub fn load_others(&mut self, others: BTreeMap<ShardId, Checkpoint>) {
        self.others = Some(others);
    }

    /// The checkpoint of a shard.
    #[must_use]
    pub fn get(&self, shard: &ShardId) -> Lookup {
        if let Some((_, checkpoint)) = self.recent.iter().find(|(s, _)| s == shard) {
            return Lookup::Found(*checkpoint);
        }
        match (&self.packed, &self.others) {
            (_, Some(others)) => others.get(shard).map_or(Lookup::Absent, |c| Lookup::Found(*c)),
            (None, None) => Lookup::Absent,
            (Some(_), None) => Lookup::NotLoaded,
        }
    }

    /// How a range stands to the checkpoint of its shard (architecture.md section 3 rule 1).
    #[must_use]
    pub fn fit(&self, range: &ShardRange) -> RangeFit {
        let current = match self.get(&range.shard) {
            Lookup::NotLoaded => return RangeFit::NotLoaded,
            Lookup::Absent => None,
            Lookup::Found(checkpoint) => Some(checkpoint),
        };
        let Some(current) = current else {
            return if range.from.is_none() { RangeFit::Fits } else { RangeFit::Gap(None) };
        };
        match range.from {
            _ if range.to <= current.position => RangeFit::Covered,
            _ if current.closed => RangeFit::Closed(current.position),
            Some(from) if from == current.position => RangeFit::Fits,
            Some(from) if from > current.position => RangeFit::Gap(Some(current.position)),
            _ => RangeFit::Overlaps(current.position),
        }
    }

    /// Moves a shard to the end of a range that fits, and closes its parents.
    pub fn advance(&mut self, range: &ShardRange) {
        let (last_sequence, list) = match self.get(&range.shard) {
            Lookup::Found(checkpoint) => (checkpoint.last_sequence.max(range.last_sequence), checkpoint.list),
            _ => (range.last_sequence, None),
        };
        for parent in &range.parents {
            if let Lookup::Found(checkpoint) = self.get(parent) {
                self.put(parent, Checkpoint { closed: true, ..checkpoint });
            }
        }
        let list = range.list.or(list);
        let moved = Checkpoint { position: range.to, last_sequence, slot: range.slot, closed: false, list };
        self.put(&range.shard, moved);
    }

    /// Takes over every checkpoint that is further than here; a shard that is closed in either stays closed.
    pub fn raise(&mut self, others: &BTreeMap<ShardId, Checkpoint>) {
        for (shard, other) in others {
            let here = match self.get(shard) {
                Lookup::Found(here) => here,
                Lookup::Absent | Lookup::NotLoaded => *other,
            };
            let further = if other.position > here.position { *other } else { here };
            let last_sequence = here.last_sequence.max(other.last_sequence);
            let raised = Checkpoint { last_sequence, closed: here.closed || other.closed, ..further };
            if self.get(shard) != Lookup::Found(raised) {
                self.put(shard, raised);
            }
        }
    }

    fn put(&mut self, shard: &ShardId, checkpoint: Checkpoint) {
        self.recent.retain(|(s, _)| s != shard);
        self.recent.push((shard.clone(), checkpoint));
    }

    /// True if the pointer would carry too many shards, so that [`Self::spill`] must move some to a packed object.
    #[must_use]
    pub fn overflows(&self) -> bool {
        self.recent.len() > RECENT_SHARDS || self.pack().len() > RECENT_SHARDS * 56
    }

    /// Moves the less recently moved half out, to the new packed object `name`, and returns its bytes.
    pub fn spill(&mut self, name: &str) -> Vec<u8> {
        let stay = self.recent.split_off(self.recent.len() - self.recent.len().min(RECENT_SHARDS / 2));
        let leave = std::mem::replace(&mut self.recent, stay);
        let mut others = self.others.take().unwrap_or_default();
        others.extend(leave);
        for (shard, _) in &self.recent {
            others.remove(shard);
        }
        let mut bytes = pack(others.iter());
        bytes.extend_from_slice(&sum(name, &bytes).to_be_bytes());
        self.packed = Some(name.to_owned());
        self.others = Some(others);
        bytes
    }

    /// The recent ones as bytes, order kept.
    #[must_use]
    pub fn pack(&self) -> Vec<u8> {
        pack(self.recent.iter().map(|(s, c)| (s, c)))
    }

    /// Reads what [`Self::pack`] made; `packed` names the object with the others.
    ///
    /// # Errors
    /// A sentence saying what is wrong.
    pub fn unpack(bytes: &[u8], packed: Option<String>) -> Result<Self, String> {
        Ok(Self { recent: unpack(bytes)?, packed, others: None })
    }

    /// Reads the content of a packed object, which ends in a checksum of its name and bytes.
    ///
    /// # Errors
    /// A sentence saying what is wrong.
    pub fn unpack_others(name: &str, bytes: &[u8]) -> Result<BTreeMap<ShardId, Checkpoint>, String> {
        let (packed, said) = bytes.split_last_chunk::<4>().ok_or("the packed bytes end too early")?;
        if u32::from_be_bytes(*said) != sum(name, packed) {
            return Err(
                "the packed checkpoints are damaged, or another table's: their checksum is another one".to_owned()
            );
        }
        Ok(unpack(packed)?.into_iter().collect())
    }
}

fn sum(name: &str, packed: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(name.as_bytes());
    sum.update(packed);
    sum.finalize()
}

/// Version of the packed form.
const PACKED_VERSION: u8 = 1;
const FLAG_CLOSED: u8 = 1;
const FLAG_NAMED: u8 = 2;
const FLAG_LIST: u8 = 4;

/// `version`, then per shard: flags, shard (number, or length and name), position (length and bytes without leading zeros,
/// sub-sequence), last sequence number, slot, last list if flagged. Integers are LEB128.
fn pack<'a>(shards: impl Iterator<Item = (&'a ShardId, &'a Checkpoint)>) -> Vec<u8> {
    let mut out = vec![PACKED_VERSION];
    for (shard, checkpoint) in shards {
        let number = shard.number();
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        let list = flag(checkpoint.list.is_some(), FLAG_LIST);
        out.push(flag(checkpoint.closed, FLAG_CLOSED) | flag(number.is_none(), FLAG_NAMED) | list);
        match number {
            Some(number) => put_varint(&mut out, number),
            None => put_bytes(&mut out, shard.as_str().as_bytes()),
        }
        put_position(&mut out, checkpoint.position);
        put_varint(&mut out, checkpoint.last_sequence.0.max(0).unsigned_abs());
        put_varint(&mut out, u64::from(checkpoint.slot.0));
        if let Some(list) = checkpoint.list {
            put_varint(&mut out, list.0);
        }
    }
    out
}

fn unpack(bytes: &[u8]) -> Result<Vec<(ShardId, Checkpoint)>, String> {
    let mut rest = bytes;
    if take_byte(&mut rest)? != PACKED_VERSION {
        return Err("packed checkpoints of an unknown version".to_owned());
    }
    let mut shards = Vec::new();
    while !rest.is_empty() {
        if shards.len() >= PACKED_SHARDS {
            return Err(format!("more than {PACKED_SHARDS} shards"));
        }
        shards.push(unpack_one(&mut rest)?);
    }
    Ok(shards)
}

fn unpack_one(rest: &mut &[u8]) -> Result<(ShardId, Checkpoint), String> {
    let flags = take_byte(rest)?;
    let shard = if flags & FLAG_NAMED == 0 {
        ShardId(format!("shardId-{:012}", take_varint(rest)?))
    } else {
        let name = take_bytes(rest, SHARD_ID_BYTES)?;
        ShardId(String::from_utf8(name.to_vec()).map_err(|_| "a shard id is not UTF-8".to_owned())?)
    };
    let position = take_position(rest)?;
    let last = i64::try_from(take_varint(rest)?).map_err(|_| "a sequence number is too large".to_owned())?;
    let slot = u16::try_from(take_varint(rest)?).map_err(|_| "a slot is too large".to_owned())?;
    let list = if flags & FLAG_LIST == 0 { None } else { Some(ListId(take_varint(rest)?)) };
    let closed = flags & FLAG_CLOSED != 0;
    Ok((shard, Checkpoint { position, last_sequence: SequenceNumber(last), slot: Slot(slot), closed, list }))
}

pub(crate) fn put_position(out: &mut Vec<u8>, position: Position) {
    let zeros = position.sequence.iter().take_while(|b| **b == 0).count();
    put_bytes(out, position.sequence.get(zeros..).unwrap_or_default());
    put_varint(out, position.sub_sequence);
}

pub(crate) fn take_position(rest: &mut &[u8]) -> Result<Position, String> {
    let digits = take_bytes(rest, 32)?;
    let mut sequence = [0; 32];
    sequence.iter_mut().rev().zip(digits.iter().rev()).for_each(|(to, from)| *to = *from);
    Ok(Position { sequence, sub_sequence: take_varint(rest)? })
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(crate) fn take_byte(rest: &mut &[u8]) -> Result<u8, String> {
    let (first, tail) = rest.split_first().ok_or("the packed bytes end too early")?;
    *rest = tail;
    Ok(*first)
}

pub(crate) fn take_varint(rest: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take_byte(rest)?;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 {
            break;
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a packed number is too long".to_owned())
}

pub(crate) fn take_bytes<'a>(rest: &mut &'a [u8], most: usize) -> Result<&'a [u8], String> {
    let length = usize::try_from(take_varint(rest)?).unwrap_or(usize::MAX);
    if length > most || length > rest.len() {
        return Err(format!("a packed text of {length} bytes, at most {} can be here", most.min(rest.len())));
    }
    let (head, tail) = rest.split_at(length);
    *rest = tail;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KINESIS: &str = "49590338271490256608559692538361571095921575989136588898";

    fn shard(n: u32) -> ShardId {
        ShardId::new(format!("shardId-{n:012}")).unwrap()
    }

    fn range(n: u32, from: Option<u64>, to: u64) -> ShardRange {
        ShardRange {
            shard: shard(n),
            from: from.map(Position::from),
            to: to.into(),
            first_sequence: None,
            last_sequence: SequenceNumber(to as i64),
            slot: Slot(n as u16),
            parents: Vec::new(),
            list: None,
        }
    }

    #[test]
    fn position_parses_prints_and_compares_as_a_big_integer() {
        let a: Position = KINESIS.parse().unwrap();
        assert_eq!(a.to_string(), KINESIS);
        let b: Position = "9".parse().unwrap();
        assert!(b < a, "not compared as text");
        assert_eq!("0".parse::<Position>().unwrap().to_string(), "0");
        assert_eq!("12.7".parse::<Position>().unwrap(), Position::from(12).with_sub_sequence(7));
        assert!(Position::from(12) < Position::from(12).with_sub_sequence(1));
        let greatest = "115792089237316195423570985008687907853269984665640564039457584007913129639935";
        assert_eq!(greatest.parse::<Position>().unwrap().to_string(), greatest);
        for bad in [
            "",
            "x",
            "-1",
            "1.",
            "1.x",
            "115792089237316195423570985008687907853269984665640564039457584007913129639936",
        ] {
            assert!(bad.parse::<Position>().is_err(), "{bad}");
        }
    }

    #[test]
    fn range_is_applied_only_from_the_checkpoint() {
        let mut c = Checkpoints::default();
        assert_eq!(c.fit(&range(1, Some(5), 9)), RangeFit::Gap(None));
        assert_eq!(c.fit(&range(1, None, 9)), RangeFit::Fits);
        c.advance(&range(1, None, 9));
        assert_eq!(c.fit(&range(1, None, 9)), RangeFit::Covered);
        assert_eq!(c.fit(&range(1, Some(3), 8)), RangeFit::Covered);
        assert_eq!(c.fit(&range(1, Some(3), 12)), RangeFit::Overlaps(9.into()));
        assert_eq!(c.fit(&range(1, None, 12)), RangeFit::Overlaps(9.into()));
        assert_eq!(c.fit(&range(1, Some(10), 12)), RangeFit::Gap(Some(9.into())));
        assert_eq!(c.fit(&range(1, Some(9), 12)), RangeFit::Fits);
    }

    #[test]
    fn child_shard_closes_its_parents_for_ever() {
        let mut c = Checkpoints::default();
        c.advance(&range(1, None, 9));
        c.advance(&ShardRange { parents: vec![shard(1), shard(99)], ..range(2, None, 4) });
        assert_eq!(c.fit(&range(1, Some(9), 12)), RangeFit::Closed(9.into()));
        assert_eq!(c.fit(&range(1, Some(5), 9)), RangeFit::Covered);
        let back = Checkpoints::unpack(&c.pack(), None).unwrap();
        assert_eq!(back, c);
    }

    #[test]
    fn a_range_of_lower_numbers_leaves_the_last_number_given_out() {
        let mut c = Checkpoints::default();
        c.advance(&ShardRange { last_sequence: SequenceNumber(100), ..range(1, None, 9) });
        c.advance(&ShardRange { last_sequence: SequenceNumber(40), ..range(1, Some(9), 12) });
        let Lookup::Found(checkpoint) = c.get(&shard(1)) else { panic!("it has one") };
        assert_eq!((checkpoint.position, checkpoint.last_sequence), (12.into(), SequenceNumber(100)));
    }

    #[test]
    fn of_two_checkpoints_the_further_position_the_higher_number_and_the_end_of_the_shard_count() {
        let of = |position: u64, last: i64, closed| Checkpoint {
            position: position.into(),
            last_sequence: SequenceNumber(last),
            slot: Slot(1),
            closed,
            list: None,
        };
        for (here, other, raised) in [
            (of(9, 100, true), of(12, 40, false), of(12, 100, true)),
            (of(12, 40, false), of(9, 100, true), of(12, 100, true)),
            (of(12, 100, false), of(9, 40, false), of(12, 100, false)),
            (of(9, 40, false), of(12, 100, false), of(12, 100, false)),
        ] {
            let mut c = Checkpoints::default();
            c.put(&shard(1), here);
            c.raise(&BTreeMap::from([(shard(1), other), (shard(2), other)]));
            assert_eq!(c.all(), BTreeMap::from([(shard(1), raised), (shard(2), other)]), "{here:?} and {other:?}");
        }
    }

    #[test]
    fn sixty_four_kinesis_shards_take_at_most_44_bytes_each() {
        let mut c = Checkpoints::default();
        for n in 0..RECENT_SHARDS as u32 {
            let to: Position = KINESIS.parse().unwrap();
            let last = SequenceNumber(crate::sequence::LAST.0);
            c.advance(&ShardRange { to, last_sequence: last, slot: Slot(4095), ..range(n + 900_000, None, 1) });
        }
        assert!(!c.overflows());
        assert!(c.pack().len() <= 44 * RECENT_SHARDS, "{}", c.pack().len());
    }

    #[test]
    fn overflow_moves_the_oldest_out_and_every_shard_stays_known() {
        let mut c = Checkpoints::default();
        for n in 0..=RECENT_SHARDS as u32 {
            c.advance(&range(n, None, 10));
        }
        assert!(c.overflows());
        let bytes = c.spill("siltstone/checkpoints-1");
        assert!(!c.overflows());
        let mut back = Checkpoints::unpack(&c.pack(), c.packed_object().map(str::to_owned)).unwrap();
        assert_eq!(back.fit(&range(0, Some(10), 12)), RangeFit::NotLoaded);
        assert_eq!(back.fit(&range(64, Some(10), 12)), RangeFit::Fits);
        back.load_others(Checkpoints::unpack_others("siltstone/checkpoints-1", &bytes).unwrap());
        assert!(Checkpoints::unpack_others("siltstone/checkpoints-2", &bytes).is_err(), "another object");
        for n in 0..=RECENT_SHARDS as u32 {
            assert_eq!(back.fit(&range(n, Some(10), 12)), RangeFit::Fits, "{n}");
        }
        back.advance(&range(0, Some(10), 12));
        assert_eq!(back.fit(&range(0, Some(10), 12)), RangeFit::Covered, "the recent one wins over the packed one");
        assert_eq!(back.all().len(), 65);
    }

    proptest! {
        #[test]
        fn unpacking_any_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(c) = Checkpoints::unpack(&bytes, None) {
                prop_assert_eq!(Checkpoints::unpack(&c.pack(), None).unwrap(), c);
            }
        }

        #[test]
        fn position_round_trips(digits in "[1-9][0-9]{0,75}", sub in 0_u64..9) {
            let text = if sub == 0 { digits } else { format!("{digits}.{sub}") };
            prop_assert_eq!(text.parse::<Position>().unwrap().to_string(), text);
        }
    }
}
