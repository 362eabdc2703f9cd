//! What a caller wants committed, what may be asked of the table first, and what can come of it.
//!
//! Neighbours: `fold` decides whether a change applies, `conflict` checks compactions, `protocol::commit` performs it.
//! Invariants: 1. a change names its input exactly (rule 1); 2. an outcome of [`Outcome::Conflict`] is final: that very change
//! never commits (7); 3. `Unknown` claims nothing.

use std::fmt;

use siltstone_format::{
    data_file::StoredRow,
    id::{Bucket, SchemaId, SequenceNumber, SnapshotId},
    manifest::ManifestEntry,
};

use crate::checkpoint::{Position, ShardId, ShardRange};

/// Names one change for ever, so that an unknown outcome can be looked up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeId(pub u128);

impl ChangeId {
    /// An id derived from a name (FNV-1a, 128 bits): the same work gets the same id in every invocation.
    #[must_use]
    pub fn derive(name: &str) -> Self {
        const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
        Self(name.bytes().fold(OFFSET, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME)))
    }
}

impl fmt::Display for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a change does; it becomes the snapshot's commit kind. Kinds never share a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// New data, only ADDs.
    Append,
    /// Same rows, other files.
    Compact,
    /// Replaced content.
    Overwrite,
}

/// What must hold of the table besides what the change itself implies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// The current snapshot is this one (`None`: there is none yet).
    SnapshotIs(Option<SnapshotId>),
    /// The table's latest schema is this one.
    SchemaIs(SchemaId),
}

/// How far delete rows were dropped by a compaction (rule 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DroppedDeletes {
    /// None were.
    #[default]
    None,
    /// Only those with a sequence number below this one: no overlapping live file outside the inputs may start below it.
    Below(SequenceNumber),
    /// All, since the output is the lowest data of its keys (Paimon's rule, tables without our clock): no live file outside
    /// the inputs at or below the output level may overlap.
    All,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub id: ChangeId,
    /// Kind.
    pub kind: ChangeKind,
    /// ADD and DELETE entries; written with all DELETEs first. DELETEs repeat the live entry verbatim.
    pub files: Vec<ManifestEntry>,
    /// Changelog files, ADD entries.
    pub changelog: Vec<ManifestEntry>,
    /// What was read of the stream.
    pub ranges: Vec<ShardRange>,
    /// What else must hold.
    pub requirements: Vec<Requirement>,
    /// Deletes dropped by a compaction.
    pub dropped_deletes: DroppedDeletes,
    /// Latest schema that the caller has seen.
    pub schema_id: SchemaId,
    /// Every newly referenced object was written at or after this time (caller's clock, ms since 1970), taken before the first one.
    pub files_created_after_ms: i64,
}

impl Change {
    /// A change with nothing in it yet.
    #[must_use]
    pub fn new(id: ChangeId, kind: ChangeKind, schema_id: SchemaId, files_created_after_ms: i64) -> Self {
        Self {
            id,
            kind,
            files: Vec::new(),
            changelog: Vec::new(),
            ranges: Vec::new(),
            requirements: Vec::new(),
            dropped_deletes: DroppedDeletes::None,
            schema_id,
            files_created_after_ms,
        }
    }

    /// True if it makes no snapshot: checkpoints move past records that leave nothing behind. A list of quarantined records makes one, since
    /// from the pointer alone its name would be lost with the pointer, and records that were acknowledged with it.
    #[must_use]
    pub fn is_checkpoint_only(&self) -> bool {
        self.files.is_empty() && self.changelog.is_empty() && self.ranges.iter().all(|range| range.list.is_none())
    }
}

/// Why a change was not committed, and never will be as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Conflict {
    /// A part of the range was committed by someone else: drop everything up to `covered` and submit the rest as a new change.
    Overlap {
        /// Shard.
        shard: ShardId,
        /// Its checkpoint.
        covered: Position,
    },
    /// Records between the checkpoint and the range are missing: read the checkpoint again and re-read from there.
    Gap {
        /// Shard.
        shard: ShardId,
        /// Its checkpoint.
        at: Option<Position>,
    },
    /// A child has begun, this shard is closed: a zombie's batch.
    ShardClosed {
        /// Shard.
        shard: ShardId,
        /// Where it ended.
        at: Position,
    },
    /// Some ranges of the change are covered and others are not: split it.
    PartlyCovered {
        /// A covered shard.
        shard: ShardId,
    },
    /// Sequence numbers are not above the shard's (or its parents') last one, or the floor: renumber, and write the files again.
    Renumber {
        /// Numbers must be above this one.
        above: SequenceNumber,
    },
    /// A newly referenced file may be older than the orphan sweep's cutoff: write the files again.
    OlderThanSweep {
        /// The cutoff, ms since 1970.
        cutoff_ms: i64,
    },
    /// A file that the change deletes is not live (any more): plan again.
    InputNotLive {
        /// File name.
        file: String,
    },
    /// A file that the change adds is live already, or was deleted under this name and level.
    FileExists {
        /// File name.
        file: String,
    },
    /// The partition has another bucket count.
    BucketCount {
        /// In the change.
        change: i32,
        /// In the table.
        table: i32,
    },
    /// Two files of one level would overlap.
    LevelOverlap {
        /// One.
        file: String,
        /// The other.
        other: String,
    },
    /// An older version of a key could lie below a delete that was dropped.
    DroppedDelete {
        /// The file that could hold it.
        file: String,
    },
    /// A requirement does not hold.
    Requirement(Requirement),
    /// The table is paused by its owner.
    Paused,
    /// The change has another kind than what it would share a snapshot with.
    OtherKind,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overlap { shard, covered } => {
                write!(f, "{shard} is covered up to {covered}; submit only what lies above")
            }
            Self::Gap { shard, at: Some(at) } => write!(f, "{shard} is covered up to {at}, the change starts above"),
            Self::Gap { shard, at: None } => write!(f, "{shard} has no checkpoint, the change expects one"),
            Self::ShardClosed { shard, at } => write!(f, "{shard} was closed at {at} by its child shard"),
            Self::PartlyCovered { shard } => {
                write!(f, "{shard} is covered, other shards of the change are not; split it")
            }
            Self::Renumber { above } => write!(f, "sequence numbers must be above {above}; renumber the rows"),
            Self::OlderThanSweep { cutoff_ms } => {
                write!(f, "files may be older than the orphan sweep's cutoff {cutoff_ms}; write them again")
            }
            Self::InputNotLive { file } => write!(f, "{file} is not live; plan again"),
            Self::FileExists { file } => write!(f, "{file} is already in the table"),
            Self::BucketCount { change, table } => write!(f, "written for {change} buckets, the partition has {table}"),
            Self::LevelOverlap { file, other } => {
                write!(f, "{file} would overlap {other} inside one level; plan again")
            }
            Self::DroppedDelete { file } => {
                write!(f, "{file} may hold rows older than a delete that was dropped; plan again")
            }
            Self::Requirement(Requirement::SnapshotIs(id)) => match id {
                Some(id) => write!(f, "the current snapshot is not {id} any more"),
                None => f.write_str("the table is not empty any more"),
            },
            Self::Requirement(Requirement::SchemaIs(id)) => write!(f, "the latest schema is not {id} any more"),
            Self::Paused => f.write_str("the table is paused"),
            Self::OtherKind => f.write_str("changes of two kinds never share a snapshot"),
        }
    }
}

impl Conflict {
    /// True if the change that met it can never apply again, whatever is committed meanwhile: positions, sequence numbers and the sweep's
    /// cutoff never fall, and a deleted file never comes back.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Overlap { .. }
                | Self::ShardClosed { .. }
                | Self::PartlyCovered { .. }
                | Self::Renumber { .. }
                | Self::OlderThanSweep { .. }
        )
    }
}

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the table and published.
    Committed {
        /// The table's snapshot now; `None` if it still has none (checkpoints moved only).
        snapshot: Option<SnapshotId>,
        /// Revision of the pointer after it; 0 on a bare warehouse.
        rev: u64,
        /// It had been committed before this run.
        already: bool,
    },
    /// It is not in the table and, as it is, never will be, save one that was staged by a write that took effect after this answer. Its files
    /// stay for the orphan sweep.
    Conflict(Conflict),
    /// No answer said which: run the same change again.
    Unknown {
        /// Revision that it was conditional on (snapshot id on a bare warehouse).
        expected_rev: u64,
    },
}

/// Level-0 files that a commit added to one bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRuns {
    /// The snapshot that brought them.
    pub snapshot: SnapshotId,
    /// Partition row.
    pub partition: StoredRow,
    /// Bucket.
    pub bucket: Bucket,
    /// How many.
    pub runs: u64,
}

/// What a run of the commit protocol did, beside the outcome of its change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitReport {
    /// What came of the change.
    pub outcome: Outcome,
    /// The change was staged for a lease holder.
    pub staged: bool,
    /// Staged changes that this run committed as the lease holder, others' among them.
    pub folded: u64,
    /// Level-0 files that this run's own swaps brought in, of whoever's changes: whoever swaps counts them, so each counts once.
    pub runs: Vec<NewRuns>,
}

impl CommitReport {
    /// A change that was not staged and brought nothing in.
    #[must_use]
    pub const fn plain(outcome: Outcome) -> Self {
        Self { outcome, staged: false, folded: 0, runs: Vec::new() }
    }
}
