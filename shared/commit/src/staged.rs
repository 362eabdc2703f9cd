//! What the group commit keeps beside the pointer, as values: staged changes with their answers, and the lease.
//!
//! Neighbours: `protocol::group` writes and reads them, `io` names them, `changes` is what is packed.
//! Invariants: 1. nothing here decides what the table is: `rev` of the pointer does; 2. a staged item has at most [`STAGED_BYTES`], a larger
//! change stands in an immutable object that the item names; 3. packed changes carry a checksum, and what cannot be read is an error with
//! a reason, never a guess; 4. a change is packed whole: one with something that the packed form has no place for is not [`stageable`].

use std::collections::BTreeMap;

use bytes::Bytes;
use siltstone_format::{
    id::{SchemaId, SequenceNumber, SnapshotId},
    manifest::{pack_entries, unpack_entries},
};

use crate::{
    changes::{Change, ChangeId, ChangeKind, DroppedDeletes},
    checkpoint::{
        ListId, SHARD_ID_BYTES, ShardId, ShardRange, put_bytes, put_position, put_varint, take_byte, take_bytes,
        take_position, take_varint,
    },
    context::{Incarnation, OWN_DIRECTORY},
    error::CommitError,
    io::{Attr, ItemRecord, StagedName},
    pointer::record_bytes,
    sequence::Slot,
};

/// Most bytes of a staged item: one write unit of DynamoDB.
pub const STAGED_BYTES: usize = 1 << 10;
/// Begin of the names, below the table, of the objects that hold larger staged changes.
pub const STAGED_PREFIX: &str = "staged-";

/// True for the kinds of changes that are staged: what ingest and compactions commit. Requirements are for rare commits,
/// which race for the pointer instead.
#[must_use]
pub fn stageable(change: &Change) -> bool {
    let kind = matches!(change.kind, ChangeKind::Append | ChangeKind::Compact);
    kind && change.requirements.is_empty()
}

/// The item of a change. A shard has one staged change at a time, whoever its writers are, so there are never more items than shards
/// and compactions; a change without range has an item of its own.
#[must_use]
pub fn name_of(change: &Change) -> StagedName {
    let id = change.ranges.first().map_or(change.id, |range| ChangeId::derive(range.shard.as_str()));
    StagedName(id.0)
}

/// Key below the table of an object that holds a staged change.
#[must_use]
pub fn object_name(uuid: &str) -> String {
    format!("{OWN_DIRECTORY}/{STAGED_PREFIX}{uuid}")
}

/// Where the packed change is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// In the item.
    Inline(Bytes),
    /// In an object with this key below the table.
    Object(String),
}

/// How a staged change stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// A lease holder may fold it.
    Pending(Content),
    /// It is committed and published.
    Committed {
        /// The table's snapshot then.
        snapshot: Option<SnapshotId>,
        /// Revision of the pointer then.
        rev: u64,
    },
    /// No holder will fold it any more: its writer looks at the pointer and decides for itself.
    Released,
}

/// A staged item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    /// The change.
    pub id: ChangeId,
    /// Its kind.
    pub kind: ChangeKind,
    /// The life of the table that it was planned in.
    pub incarnation: Incarnation,
    /// When it was staged or answered, ms since 1970.
    pub at_ms: i64,
    /// How it stands.
    pub state: State,
}

impl Staged {
    /// As an item.
    #[must_use]
    pub fn to_record(&self, rev: u64) -> ItemRecord {
        let mut attributes = BTreeMap::from([
            ("change".to_owned(), Attr::B(self.id.0.to_be_bytes().to_vec())),
            ("compact".to_owned(), Attr::N(i64::from(self.kind == ChangeKind::Compact))),
            ("incarnation".to_owned(), Attr::S(self.incarnation.0.clone())),
            ("at".to_owned(), Attr::N(self.at_ms)),
        ]);
        match &self.state {
            State::Pending(Content::Inline(bytes)) => {
                attributes.insert("packed".to_owned(), Attr::B(bytes.to_vec()));
            }
            State::Pending(Content::Object(name)) => {
                attributes.insert("object".to_owned(), Attr::S(name.clone()));
            }
            State::Committed { snapshot, rev } => {
                attributes.insert("snapshot".to_owned(), Attr::N(snapshot.map_or(0, |id| id.0)));
                attributes.insert("committed".to_owned(), Attr::N(i64::try_from(*rev).unwrap_or(i64::MAX)));
            }
            State::Released => {}
        }
        ItemRecord { rev, attributes }
    }

    /// Reads an item; `None` if it is none of this build's: nobody waits for it here.
    #[must_use]
    pub fn from_record(record: &ItemRecord) -> Option<Self> {
        let number = |name: &str| match record.attributes.get(name) {
            Some(Attr::N(number)) => Some(*number),
            _ => None,
        };
        let text = |name: &str| match record.attributes.get(name) {
            Some(Attr::S(text)) => Some(text.clone()),
            _ => None,
        };
        let bytes = |name: &str| match record.attributes.get(name) {
            Some(Attr::B(bytes)) => Some(bytes.as_slice()),
            _ => None,
        };
        let state = match (bytes("packed"), text("object"), number("committed")) {
            (Some(packed), _, _) => State::Pending(Content::Inline(Bytes::copy_from_slice(packed))),
            (None, Some(name), _) => State::Pending(Content::Object(name)),
            (None, None, Some(rev)) => State::Committed {
                snapshot: number("snapshot").filter(|id| *id > 0).map(SnapshotId),
                rev: u64::try_from(rev).ok()?,
            },
            (None, None, None) => State::Released,
        };
        Some(Self {
            id: ChangeId(u128::from_be_bytes(bytes("change")?.try_into().ok()?)),
            kind: if number("compact")? == 1 { ChangeKind::Compact } else { ChangeKind::Append },
            incarnation: Incarnation(text("incarnation")?),
            at_ms: number("at")?,
            state,
        })
    }

    /// True if the item is small enough to be written.
    #[must_use]
    pub fn fits(&self) -> bool {
        record_bytes(&self.to_record(u64::MAX).attributes) <= STAGED_BYTES
    }
}

/// Who folds for a while. It saves work and decides nothing: a holder that wakes after its lease fails by the pointer's `rev`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// A uuid of the holder's run.
    pub holder: String,
    /// The end, ms since 1970; 0 once it is given back.
    pub until_ms: i64,
}

impl Lease {
    /// As an item.
    #[must_use]
    pub fn to_record(&self, rev: u64) -> ItemRecord {
        let attributes = BTreeMap::from([
            ("holder".to_owned(), Attr::S(self.holder.clone())),
            ("until".to_owned(), Attr::N(self.until_ms)),
        ]);
        ItemRecord { rev, attributes }
    }

    /// When the lease of an item ends; one that cannot be read has ended.
    #[must_use]
    pub fn until(record: &ItemRecord) -> i64 {
        match record.attributes.get("until") {
            Some(Attr::N(until)) => *until,
            _ => 0,
        }
    }
}

/// Version of the packed form of a change.
const PACKED_VERSION: u8 = 1;
/// Most ranges of a packed change, and parents of a range: more is damage.
const MANY: u64 = 10_000;

/// A [`stageable`] change as bytes.
///
/// # Errors
/// `InvalidInput` if a file's description breaks a rule of manifests.
pub fn pack(change: &Change) -> Result<Bytes, CommitError> {
    let mut out = vec![PACKED_VERSION, u8::from(change.kind == ChangeKind::Compact)];
    out.extend_from_slice(&change.id.0.to_be_bytes());
    put_signed(&mut out, change.schema_id.0);
    put_signed(&mut out, change.files_created_after_ms);
    let (deletes, below) = match change.dropped_deletes {
        DroppedDeletes::None => (0, 0),
        DroppedDeletes::Below(line) => (1, line.0),
        DroppedDeletes::All => (2, 0),
    };
    out.push(deletes);
    put_signed(&mut out, below);
    put_varint(&mut out, change.ranges.len() as u64);
    change.ranges.iter().for_each(|range| put_range(&mut out, range));
    for entries in [&change.files, &change.changelog] {
        put_bytes(&mut out, &pack_entries(entries)?);
    }
    let sum = crc32fast::hash(&out);
    out.extend_from_slice(&sum.to_be_bytes());
    Ok(out.into())
}

/// Reads what [`pack`] made.
///
/// # Errors
/// A sentence saying what is wrong.
pub fn unpack(bytes: &[u8]) -> Result<Change, String> {
    let (packed, said) = bytes.split_last_chunk::<4>().ok_or("the packed change ends too early")?;
    if crc32fast::hash(packed) != u32::from_be_bytes(*said) {
        return Err("the packed change is damaged: its checksum is another one".to_owned());
    }
    let mut rest = packed;
    if take_byte(&mut rest)? != PACKED_VERSION {
        return Err("a packed change of an unknown version".to_owned());
    }
    let kind = if take_byte(&mut rest)? == 1 { ChangeKind::Compact } else { ChangeKind::Append };
    let (id, mut rest) = rest.split_first_chunk::<16>().ok_or("the packed change ends too early")?;
    let schema_id = SchemaId(take_signed(&mut rest)?);
    let mut change = Change::new(ChangeId(u128::from_be_bytes(*id)), kind, schema_id, take_signed(&mut rest)?);
    let deletes = take_byte(&mut rest)?;
    let below = SequenceNumber(take_signed(&mut rest)?);
    change.dropped_deletes = match deletes {
        0 => DroppedDeletes::None,
        1 => DroppedDeletes::Below(below),
        2 => DroppedDeletes::All,
        _ => return Err("dropped deletes of an unknown kind".to_owned()),
    };
    change.ranges = (0..take_count(&mut rest)?).map(|_| take_range(&mut rest)).collect::<Result<_, _>>()?;
    for entries in [&mut change.files, &mut change.changelog] {
        let length = rest.len();
        *entries = unpack_entries("a packed change", take_bytes(&mut rest, length)?).map_err(|e| e.to_string())?;
    }
    if rest.is_empty() { Ok(change) } else { Err("bytes are left over behind the packed change".to_owned()) }
}

fn put_range(out: &mut Vec<u8>, range: &ShardRange) {
    put_bytes(out, range.shard.as_str().as_bytes());
    out.push(u8::from(range.from.is_some()));
    put_position(out, range.from.unwrap_or_default());
    put_position(out, range.to);
    put_optional(out, range.first_sequence.map(|n| n.0));
    put_signed(out, range.last_sequence.0);
    put_varint(out, u64::from(range.slot.0));
    put_varint(out, range.parents.len() as u64);
    range.parents.iter().for_each(|parent| put_bytes(out, parent.as_str().as_bytes()));
    out.push(u8::from(range.list.is_some()));
    put_varint(out, range.list.map_or(0, |list| list.0));
}

fn take_range(rest: &mut &[u8]) -> Result<ShardRange, String> {
    let shard = take_shard(rest)?;
    let begun = take_byte(rest)? == 1;
    let from = Some(take_position(rest)?).filter(|_| begun);
    let mut range = ShardRange {
        shard,
        from,
        to: take_position(rest)?,
        first_sequence: take_optional(rest)?.map(SequenceNumber),
        last_sequence: SequenceNumber(take_signed(rest)?),
        slot: Slot(u16::try_from(take_varint(rest)?).map_err(|_| "a slot is too large".to_owned())?),
        parents: (0..take_count(rest)?).map(|_| take_shard(rest)).collect::<Result<_, _>>()?,
        list: None,
    };
    let listed = take_byte(rest)? == 1;
    range.list = Some(ListId(take_varint(rest)?)).filter(|_| listed);
    Ok(range)
}

fn take_shard(rest: &mut &[u8]) -> Result<ShardId, String> {
    let name = take_bytes(rest, SHARD_ID_BYTES)?;
    let name = String::from_utf8(name.to_vec()).map_err(|_| "a shard id is not UTF-8".to_owned())?;
    ShardId::new(name).map_err(|e| e.to_string())
}

fn take_count(rest: &mut &[u8]) -> Result<u64, String> {
    Some(take_varint(rest)?).filter(|n| *n <= MANY).ok_or_else(|| "a packed change claims too many parts".to_owned())
}

/// Zigzag, so that small numbers of either sign are short.
fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

fn take_signed(rest: &mut &[u8]) -> Result<i64, String> {
    let value = take_varint(rest)?;
    Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
}

fn put_optional(out: &mut Vec<u8>, value: Option<i64>) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put_signed(out, value);
    }
}

fn take_optional(rest: &mut &[u8]) -> Result<Option<i64>, String> {
    if take_byte(rest)? == 0 { Ok(None) } else { take_signed(rest).map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{fixture, world::World};

    fn changes() -> Vec<Change> {
        let context = fixture::partitioned();
        let mut world = World::new(&context, 1);
        let mut append = fixture::batch(&mut world, &context, 3, Some(7), 9, SequenceNumber(0));
        append.ranges[0].list = Some(ListId(u64::MAX));
        append.ranges[0].parents = vec![fixture::shard(1), fixture::shard(2)];
        append.changelog = append.files.clone();
        let mut compact = Change::new(ChangeId(u128::MAX), ChangeKind::Compact, SchemaId(2), i64::MAX);
        compact.files = append.files.iter().map(fixture::delete).chain(append.files.clone()).collect();
        compact.dropped_deletes = DroppedDeletes::Below(SequenceNumber(i64::MAX));
        let mut all = compact.clone();
        all.dropped_deletes = DroppedDeletes::All;
        vec![append, compact, all, fixture::append(0, None, 4, Vec::new(), 0)]
    }

    #[test]
    fn packed_change_is_the_same_change_and_no_cut_or_flipped_byte_passes() {
        for change in changes() {
            let bytes = pack(&change).unwrap();
            assert_eq!(unpack(&bytes).unwrap(), change);
            for at in 0..bytes.len() {
                assert!(unpack(&bytes[..at]).is_err());
                let mut flipped = bytes.to_vec();
                flipped[at] ^= 1;
                assert!(unpack(&flipped).is_err());
            }
        }
    }

    #[test]
    fn staged_item_of_one_file_fits_into_a_kilobyte_and_round_trips_in_every_state() {
        let change = changes().remove(3);
        let content = Content::Inline(pack(&change).unwrap());
        let states = [
            State::Pending(content),
            State::Pending(Content::Object(object_name("u"))),
            State::Committed { snapshot: Some(SnapshotId(4)), rev: 9 },
            State::Committed { snapshot: None, rev: 9 },
            State::Released,
        ];
        for state in states {
            let incarnation = Incarnation("0123456789ab".to_owned());
            let staged = Staged { id: change.id, kind: change.kind, incarnation, at_ms: 77, state };
            assert!(staged.fits());
            assert_eq!(Staged::from_record(&staged.to_record(5)), Some(staged));
        }
        assert_eq!(Staged::from_record(&ItemRecord::default()), None);
    }

    #[test]
    fn change_with_requirements_is_not_staged() {
        let mut change = changes().remove(1);
        assert!(stageable(&change));
        change.requirements.push(crate::changes::Requirement::SchemaIs(SchemaId(0)));
        assert!(!stageable(&change));
    }

    #[test]
    fn changes_of_a_shard_share_one_item_and_names_spread_over_the_parts() {
        let name = |n: u32, to: u64| name_of(&fixture::append(n, None, to, Vec::new(), 0));
        assert_eq!(name(1, 4), name(1, 9));
        let parts: std::collections::BTreeSet<u8> = (0..200).map(|n| name(n, 1).part()).collect();
        assert_eq!(parts.len(), usize::from(crate::io::STAGE_PARTS));
    }
}
