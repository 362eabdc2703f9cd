//! The pointer: the one small item whose conditional replacement is the commit point (architecture.md section 3).
//!
//! Neighbours: `io` carries it as an [`ItemRecord`], `checkpoint` packs the positions, every protocol swaps it on `rev`.
//! The snapshot is kept without its checkpoints (they have their own attribute); [`Pointer::published_snapshot`] puts them back.
//!
//! Invariants: 1. at most [`POINTER_BYTES`] (22), checked before every write; 2. `rev` grows by one with each write, the version by
//! nothing or one (4), but for the end of a fork and an adoption past a foreign expiry; 3. `earliest`, `sweep_cutoff`, `floor`, `published`
//! and checkpoints never fall (3): [`Pointer::check_successor`]; 4. a record of another protocol or one that is damaged is refused by name, never
//! guessed at: it carries a checksum.

use std::collections::BTreeMap;

use siltstone_format::{
    id::{SchemaId, SequenceNumber, SnapshotId},
    snapshot::Snapshot,
};

use crate::{
    base64,
    changes::ChangeId,
    checkpoint::{Checkpoints, Lookup},
    context::{Incarnation, TableLocation},
    error::CommitError,
    io::{Attr, ItemRecord},
};

/// What this build writes and reads.
pub const PROTOCOL: i64 = 1;
/// Most bytes of the item: DynamoDB bills and limits by size, also for failed conditions.
pub const POINTER_BYTES: usize = 8 << 10;
/// Change ids kept.
pub const CHANGE_IDS: usize = 64;
/// Snapshot property: packed recent checkpoints, base64.
pub const PROPERTY_CHECKPOINTS: &str = "siltstone.checkpoints";
/// Snapshot property: object with the other checkpoints.
pub const PROPERTY_CHECKPOINTS_OBJECT: &str = "siltstone.checkpoints-object";
/// Snapshot property: sequence floor.
pub const PROPERTY_FLOOR: &str = "siltstone.floor";
/// Snapshot property: ids of the changes without a shard range, with commas between.
pub const PROPERTY_CHANGE: &str = "siltstone.change";
/// Snapshot property: how many changes were folded into the snapshot, or half of what the one before says, if that was made just now and is more:
/// one small commit among large folds is no sign of calm. Left out where it is one.
pub const PROPERTY_CHANGES: &str = "siltstone.changes";
/// Snapshot property: CRC-32 of the bytes of the schema object of its `schemaId`.
pub const PROPERTY_SCHEMA: &str = "siltstone.schema-crc32";
/// Snapshot property: uuid of the table.
pub const PROPERTY_TABLE: &str = "siltstone.table";

/// Whether commits are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TableState {
    /// Yes.
    Active,
    /// No: the owner said so.
    Paused,
    /// No: a foreign snapshot stands in place of ours.
    Forked,
}

impl TableState {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Active, "active"), (Self::Paused, "paused"), (Self::Forked, "forked")];

    /// As stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Forked => "forked",
        }
    }
}

/// The value of [`PROPERTY_CHANGE`].
pub(crate) fn join_ids(ids: &[ChangeId]) -> String {
    ids.iter().map(ChangeId::to_string).collect::<Vec<_>>().join(",")
}

/// The ids in a value of [`PROPERTY_CHANGE`]; what is none is passed over.
pub(crate) fn split_ids(text: &str) -> impl Iterator<Item = ChangeId> {
    text.split(',').filter_map(|id| u128::from_str_radix(id, 16).ok()).map(ChangeId)
}

/// The current state of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    /// This life of the table.
    pub incarnation: Incarnation,
    /// The table, over all its lives.
    pub table_uuid: String,
    /// Grows by one with each write.
    pub rev: u64,
    /// Whether commits are taken.
    pub state: TableState,
    /// The current snapshot, without checkpoint properties; `None` before the first commit.
    pub snapshot: Option<Snapshot>,
    /// Latest schema.
    pub schema_id: SchemaId,
    /// Positions in the stream.
    pub checkpoints: Checkpoints,
    /// Every name below this one is being expired or gone.
    pub earliest: SnapshotId,
    /// The last snapshot that was seen published when this record was written; 0 for none.
    pub published: SnapshotId,
    /// Files written at or before this time (ms since 1970) may be swept if unreferenced.
    pub sweep_cutoff_ms: i64,
    /// New rows must have sequence numbers above this one.
    pub floor: SequenceNumber,
    /// The last changes without a shard range, newest last.
    pub change_ids: Vec<ChangeId>,
}

impl Pointer {
    /// The pointer of an empty table.
    #[must_use]
    pub fn new(incarnation: Incarnation, table_uuid: String, schema_id: SchemaId) -> Self {
        Self {
            incarnation,
            table_uuid,
            rev: 1,
            state: TableState::Active,
            snapshot: None,
            schema_id,
            checkpoints: Checkpoints::default(),
            earliest: SnapshotId::FIRST,
            published: SnapshotId(0),
            sweep_cutoff_ms: 0,
            floor: SequenceNumber(0),
            change_ids: Vec::new(),
        }
    }

    /// Id of the current snapshot, 0 for none.
    #[must_use]
    pub fn version(&self) -> SnapshotId {
        self.snapshot.as_ref().map_or(SnapshotId(0), |s| s.id)
    }

    /// True if a change of this id is among the last [`CHANGE_IDS`].
    #[must_use]
    pub fn knows(&self, id: ChangeId) -> bool {
        self.change_ids.contains(&id)
    }

    /// The youngest change that is remembered.
    #[must_use]
    pub fn newest_id(&self) -> Option<ChangeId> {
        self.change_ids.last().copied()
    }

    /// True if nothing was forgotten of what was remembered after `newest` (what [`Self::newest_id`] said then): an id that is not here was
    /// not committed since.
    #[must_use]
    pub fn remembers_since(&self, newest: Option<ChangeId>) -> bool {
        newest.map_or(self.change_ids.len() < CHANGE_IDS, |id| self.knows(id))
    }

    /// Remembers a change, and forgets the oldest.
    pub fn remember(&mut self, id: ChangeId) {
        self.change_ids.push(id);
        let surplus = self.change_ids.len().saturating_sub(CHANGE_IDS);
        self.change_ids.drain(..surplus);
    }

    /// The current snapshot as it is published: everything from which this record can be rebuilt is in its properties.
    #[must_use]
    pub fn published_snapshot(&self) -> Option<Snapshot> {
        let mut snapshot = self.snapshot.clone()?;
        if snapshot.commit_user != self.incarnation.commit_user() {
            return Some(snapshot); // adopted: it was published by its author, verbatim
        }
        let properties = snapshot.properties.get_or_insert_default();
        properties.insert(PROPERTY_CHECKPOINTS.to_owned(), base64::encode(&self.checkpoints.pack()));
        if let Some(object) = self.checkpoints.packed_object() {
            properties.insert(PROPERTY_CHECKPOINTS_OBJECT.to_owned(), object.to_owned());
        }
        properties.insert(PROPERTY_TABLE.to_owned(), self.table_uuid.clone());
        properties.insert(PROPERTY_FLOOR.to_owned(), self.floor.to_string());
        Some(snapshot)
    }

    /// Refuses a successor that breaks an invariant of this crate: a defect is caught before it is durable.
    ///
    /// # Errors
    /// `Bug`, naming the field.
    pub fn check_successor(&self, next: &Self) -> Result<(), CommitError> {
        let wrong = |field: &str| Err(CommitError::bug(format!("the next pointer would break `{field}`")));
        let step = next.version().0 - self.version().0;
        // The end of a fork goes on from wherever the other engine is by then; so does an adoption when ours was expired meanwhile.
        let fork_ends = self.state == TableState::Forked && next.state == TableState::Active;
        let ours_expired = next.earliest > self.version() && next.published == next.version();
        let most = if fork_ends || ours_expired { i64::MAX } else { 1 };
        if next.rev != self.rev + 1 {
            return wrong("rev");
        }
        if !(0..=most).contains(&step) {
            return wrong("version");
        }
        if next.incarnation != self.incarnation || next.table_uuid != self.table_uuid {
            return wrong("incarnation");
        }
        let falls = [
            ("earliest", next.earliest < self.earliest),
            ("published", next.published < self.published),
            ("sweep_cutoff", next.sweep_cutoff_ms < self.sweep_cutoff_ms),
            ("floor", next.floor < self.floor),
            ("schema_id", next.schema_id < self.schema_id),
        ];
        if let Some((field, _)) = falls.iter().find(|(_, falls)| *falls) {
            return wrong(field);
        }
        let back = self.checkpoints.recent().any(|(shard, before)| match next.checkpoints.get(shard) {
            Lookup::Found(after) => after.position < before.position || after.last_sequence < before.last_sequence,
            Lookup::Absent => true,
            Lookup::NotLoaded => false,
        });
        if back { wrong("checkpoints") } else { Ok(()) }
    }

    /// As an item.
    ///
    /// # Errors
    /// `Corrupt` if it would exceed [`POINTER_BYTES`].
    pub fn to_record(&self, location: &TableLocation) -> Result<ItemRecord, CommitError> {
        let bad = |reason: String| CommitError::BadPointer { table: location.root().to_owned(), reason };
        let mut attributes = BTreeMap::new();
        let mut put = |name: &str, attr: Attr| attributes.insert(name.to_owned(), attr);
        put("protocol", Attr::N(PROTOCOL));
        put("incarnation", Attr::S(self.incarnation.0.clone()));
        put("table_uuid", Attr::S(self.table_uuid.clone()));
        put("state", Attr::S(self.state.as_str().to_owned()));
        put("version", Attr::N(self.version().0));
        if let Some(snapshot) = &self.snapshot {
            put("snapshot", Attr::S(String::from_utf8_lossy(&snapshot.to_json()).into_owned()));
        }
        put("schema_id", Attr::N(self.schema_id.0));
        put("checkpoints", Attr::B(self.checkpoints.pack()));
        if let Some(object) = self.checkpoints.packed_object() {
            put("checkpoints_object", Attr::S(object.to_owned()));
        }
        put("earliest", Attr::N(self.earliest.0));
        put("published", Attr::N(self.published.0));
        put("sweep_cutoff", Attr::N(self.sweep_cutoff_ms));
        put("floor", Attr::N(self.floor.0));
        put("change_ids", Attr::B(self.change_ids.iter().flat_map(|id| id.0.to_be_bytes()).collect()));
        let sum = sum(location, &attributes);
        attributes.insert(SUM.to_owned(), Attr::N(sum));
        let size = record_bytes(&attributes);
        if size > POINTER_BYTES {
            return Err(bad(format!("it would have {size} bytes, at most {POINTER_BYTES} are written")));
        }
        Ok(ItemRecord { rev: self.rev, attributes })
    }

    /// Reads an item.
    ///
    /// # Errors
    /// `Mismatch` for another protocol, `Corrupt` for anything that is not a pointer.
    pub fn from_record(record: &ItemRecord, location: &TableLocation) -> Result<Self, CommitError> {
        let read = Reader { record, location };
        let protocol = read.number("protocol")?;
        if protocol != PROTOCOL {
            return Err(CommitError::Protocol { table: location.root().to_owned(), found: protocol, known: PROTOCOL });
        }
        // Records of before the checksum have none.
        if record.attributes.contains_key(SUM) && read.number(SUM)? != sum(location, &record.attributes) {
            return Err(read.bad(
                "it is damaged, or another table's: its attributes do not have the checksum that it states".to_owned(),
            ));
        }
        let state = read.text("state")?;
        let state = TableState::ALL.into_iter().find(|(_, name)| *name == state).map(|(s, _)| s);
        let snapshot = match read.record.attributes.get("snapshot") {
            None => None,
            Some(_) => Some(
                Snapshot::from_json("snapshot", read.text("snapshot")?.as_bytes())
                    .map_err(|e| read.bad(format!("`snapshot`: {e}")))?,
            ),
        };
        if read.number("version")? != snapshot.as_ref().map_or(0, |s| s.id.0) {
            return Err(read.bad("`version` is not the id of `snapshot`".to_owned()));
        }
        let packed = match read.record.attributes.get("checkpoints_object") {
            None => None,
            Some(_) => Some(read.text("checkpoints_object")?.to_owned()),
        };
        let checkpoints = Checkpoints::unpack(read.bytes("checkpoints")?, packed)
            .map_err(|e| read.bad(format!("`checkpoints`: {e}")))?;
        Ok(Self {
            incarnation: Incarnation(read.text("incarnation")?.to_owned()),
            table_uuid: read.text("table_uuid")?.to_owned(),
            rev: record.rev,
            state: state.ok_or_else(|| read.bad("`state` is unknown".to_owned()))?,
            snapshot,
            schema_id: SchemaId(read.number("schema_id")?),
            checkpoints,
            earliest: SnapshotId(read.number("earliest")?),
            published: SnapshotId(read.number("published")?),
            sweep_cutoff_ms: read.number("sweep_cutoff")?,
            floor: SequenceNumber(read.number("floor")?),
            change_ids: read.change_ids()?,
        })
    }
}

/// Attribute with the CRC-32 of the table's location and the other attributes.
const SUM: &str = "crc32";

fn sum(location: &TableLocation, attributes: &BTreeMap<String, Attr>) -> i64 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(location.root().as_bytes());
    for (name, value) in attributes.iter().filter(|(name, _)| *name != SUM) {
        let number;
        let (kind, bytes) = match value {
            Attr::S(text) => (b'S', text.as_bytes()),
            Attr::B(bytes) => (b'B', bytes.as_slice()),
            Attr::N(n) => {
                number = n.to_be_bytes();
                (b'N', number.as_slice())
            }
        };
        for part in [name.as_bytes(), &[0, kind], &(bytes.len() as u64).to_be_bytes(), bytes] {
            sum.update(part);
        }
    }
    i64::from(sum.finalize())
}

/// Bytes as DynamoDB counts them, keys of the item included at their largest.
pub(crate) fn record_bytes(attributes: &BTreeMap<String, Attr>) -> usize {
    const KEYS: usize = 300;
    let value = |attr: &Attr| match attr {
        Attr::S(text) => text.len(),
        Attr::B(bytes) => bytes.len(),
        Attr::N(_) => 12,
    };
    KEYS + attributes.iter().map(|(name, attr)| name.len() + value(attr)).sum::<usize>()
}

struct Reader<'a> {
    record: &'a ItemRecord,
    location: &'a TableLocation,
}

impl Reader<'_> {
    fn bad(&self, reason: String) -> CommitError {
        CommitError::BadPointer { table: self.location.root().to_owned(), reason }
    }

    fn text(&self, name: &str) -> Result<&str, CommitError> {
        match self.record.attributes.get(name) {
            Some(Attr::S(text)) => Ok(text),
            _ => Err(self.bad(format!("`{name}` is missing or no text"))),
        }
    }

    fn number(&self, name: &str) -> Result<i64, CommitError> {
        match self.record.attributes.get(name) {
            Some(Attr::N(number)) if *number >= 0 => Ok(*number),
            _ => Err(self.bad(format!("`{name}` is missing or no number from 0"))),
        }
    }

    fn bytes(&self, name: &str) -> Result<&[u8], CommitError> {
        match self.record.attributes.get(name) {
            Some(Attr::B(bytes)) => Ok(bytes),
            _ => Err(self.bad(format!("`{name}` is missing or no bytes"))),
        }
    }

    fn change_ids(&self) -> Result<Vec<ChangeId>, CommitError> {
        let chunks = self.bytes("change_ids")?.chunks(16);
        chunks
            .map(|chunk| chunk.try_into().map(|id| ChangeId(u128::from_be_bytes(id))))
            .collect::<Result<_, _>>()
            .map_err(|_| self.bad("`change_ids` is no list of ids".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use siltstone_format::id::CommitIdentifier;

    use super::*;
    use crate::{
        checkpoint::{ListId, Position, ShardId, ShardRange},
        sequence::{LAST, Slot},
    };

    fn location() -> TableLocation {
        TableLocation::in_warehouse("warehouse", "database", "orders").unwrap()
    }

    /// A pointer with everything that it can carry.
    fn full() -> Pointer {
        let mut pointer = Pointer::new(Incarnation("0123456789ab".into()), "u".repeat(36), SchemaId(3));
        for n in 0..64 {
            let to: Position = "49590338271490256608559692538361571095921575989136588898".parse().unwrap();
            pointer.checkpoints.advance(&ShardRange {
                shard: ShardId::new(format!("shardId-{:012}", 900_000 + n)).unwrap(),
                from: None,
                to,
                first_sequence: None,
                last_sequence: LAST,
                slot: Slot(4_095),
                parents: Vec::new(),
                list: Some(ListId(u64::MAX)),
            });
        }
        for n in 0..200 {
            pointer.remember(ChangeId::derive(&n.to_string()));
        }
        let list = |n: u32| format!("manifest-list-{}-{n}", "u".repeat(36));
        let json = serde_json::json!({
            "version": 3, "uuid": "u".repeat(36), "id": 99_999, "schemaId": 3,
            "baseManifestList": list(0), "baseManifestListSize": 99_999, "deltaManifestList": list(1),
            "deltaManifestListSize": 99_999, "changelogManifestList": list(2), "commitUser": "siltstone-0123456789ab",
            "commitIdentifier": 123_456_789, "commitKind": "APPEND", "timeMillis": 1_800_000_000_000_i64,
            "totalRecordCount": 9_999_999_999_i64, "deltaRecordCount": 99_999, "watermark": 1_800_000_000_000_i64
        });
        pointer.snapshot = Some(Snapshot::from_json("snapshot", json.to_string().as_bytes()).unwrap());
        pointer
    }

    #[test]
    fn full_pointer_round_trips_and_stays_below_the_limit() {
        let pointer = full();
        assert_eq!(pointer.change_ids.len(), CHANGE_IDS);
        let record = pointer.to_record(&location()).unwrap();
        assert!(record_bytes(&record.attributes) <= 6_000, "{}", record_bytes(&record.attributes));
        assert_eq!(Pointer::from_record(&record, &location()).unwrap(), pointer);
    }

    #[test]
    fn pointer_that_would_grow_too_large_is_refused_before_it_is_written() {
        let mut pointer = full();
        let snapshot = pointer.snapshot.as_mut().unwrap();
        snapshot.properties = Some(BTreeMap::from([("note".to_owned(), "x".repeat(4_000))]));
        assert!(pointer.to_record(&location()).unwrap_err().to_string().contains("at most 8192"));
    }

    #[test]
    fn another_protocol_and_damaged_attributes_are_named() {
        let record = full().to_record(&location()).unwrap();
        let mut newer = record.clone();
        newer.attributes.insert("protocol".into(), Attr::N(2));
        assert!(matches!(Pointer::from_record(&newer, &location()), Err(CommitError::Protocol { found: 2, .. })));
        for name in record.attributes.keys().filter(|n| !n.starts_with("snapshot")) {
            let mut damaged = record.clone();
            damaged.attributes.insert(name.clone(), Attr::N(-1));
            for damaged in [damaged.clone(), without_sum(damaged)] {
                let error = Pointer::from_record(&damaged, &location());
                let named = matches!(error, Err(CommitError::BadPointer { .. } | CommitError::Protocol { .. }));
                assert!(named || name == SUM, "{name}: {error:?}");
            }
        }
        assert_eq!(
            Pointer::from_record(&without_sum(record.clone()), &location()).unwrap(),
            full(),
            "of before the checksum"
        );
        let mut changed = record;
        changed.attributes.insert("floor".into(), Attr::N(1));
        assert!(Pointer::from_record(&changed, &location()).unwrap_err().to_string().contains("checksum"));
    }

    fn without_sum(mut record: ItemRecord) -> ItemRecord {
        record.attributes.remove(SUM);
        record
    }

    #[test]
    fn successor_that_breaks_an_invariant_is_caught_before_it_is_written() {
        let before = full();
        let good = Pointer { rev: before.rev + 1, ..before.clone() };
        assert!(before.check_successor(&good).is_ok());
        let mut two_on = good.clone();
        two_on.snapshot.as_mut().unwrap().id = SnapshotId(100_001);
        let bad = [
            Pointer { rev: before.rev + 2, ..good.clone() },
            Pointer { earliest: SnapshotId(0), ..good.clone() },
            Pointer { floor: SequenceNumber(-1), ..good.clone() },
            Pointer { sweep_cutoff_ms: -1, ..good.clone() },
            Pointer { checkpoints: Checkpoints::default(), ..good.clone() },
            Pointer { incarnation: Incarnation("x".into()), ..good.clone() },
            two_on,
        ];
        assert!(bad.iter().all(|next| before.check_successor(next).is_err()));
    }

    #[test]
    fn published_snapshot_of_ours_carries_the_checkpoints_and_an_adopted_one_stays_as_it_is() {
        let mut pointer = full();
        let properties = pointer.published_snapshot().unwrap().properties.unwrap();
        assert_eq!(base64::decode(&properties[PROPERTY_CHECKPOINTS]).unwrap(), pointer.checkpoints.pack());
        let snapshot = pointer.snapshot.as_mut().unwrap();
        snapshot.commit_user = "flink".into();
        snapshot.commit_identifier = CommitIdentifier(1);
        assert_eq!(pointer.published_snapshot(), pointer.snapshot);
    }
}
