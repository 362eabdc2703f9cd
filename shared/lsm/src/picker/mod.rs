//! Which files to compact next: pure functions from a bucket's levels to a unit of work.
//!
//! Neighbours: `levels` in, `task` out. All memory is an argument (no hidden counters), so equal inputs give equal answers.
//! Names and defaults are Paimon's; an option's doc names its key.

mod universal;

use siltstone_format::{
    data_file::DataFileMeta,
    id::{Level, SequenceNumber},
};

use crate::levels::{LevelRun, Levels};

pub use universal::pick;

/// What the picker may be told by table options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PickOptions {
    /// `num-sorted-run.compaction-trigger`: runs from which on a pick is made.
    pub trigger: usize,
    /// `compaction.max-size-amplification-percent`.
    pub max_size_amplification_percent: i64,
    /// `compaction.size-ratio`, percent (the off-peak addition included by the caller).
    pub size_ratio_percent: i64,
    /// `compaction.optimization-interval` in ms: a full compaction at least this often.
    pub optimization_interval_ms: Option<i64>,
    /// `compaction.total-size-threshold` in bytes: buckets smaller than this are always compacted fully.
    pub total_size_threshold: Option<i64>,
    /// `compaction.incremental-size-threshold` in bytes: more than this above the max level compacts fully.
    pub incremental_size_threshold: Option<i64>,
    /// `compaction.force-up-level-0`: when nothing else is picked, all of level 0 is lifted.
    pub force_up_level_0: bool,
}

impl Default for PickOptions {
    fn default() -> Self {
        Self {
            trigger: 5,
            max_size_amplification_percent: 200,
            size_ratio_percent: 1,
            optimization_interval_ms: None,
            total_size_threshold: None,
            incremental_size_threshold: None,
            force_up_level_0: false,
        }
    }
}

/// Why a unit was picked: shown to people and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PickReason {
    /// Asked for.
    Full,
    /// An early full compaction by interval or size threshold.
    EarlyFull,
    /// The newer runs together are too large beside the oldest.
    SizeAmplification,
    /// Runs of similar size.
    SizeRatio,
    /// Too many runs.
    RunCount,
    /// Level 0 is lifted.
    ForceLevel0,
}

/// Files to compact together and the level they go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactUnit {
    /// Where the result goes; never level 0.
    pub output_level: Level,
    /// The inputs, newest run first.
    pub files: Vec<DataFileMeta>,
    /// Why.
    pub reason: PickReason,
}

impl CompactUnit {
    fn of(output_level: Level, runs: &[LevelRun], reason: PickReason) -> Self {
        Self { output_level, files: runs.iter().flat_map(|r| r.run.files().iter().cloned()).collect(), reason }
    }
}

/// A full compaction on request: everything goes to the max level. When everything is there already, only files with deletes
/// that may be dropped (below `drop_line`; `None` = no limit) are rewritten.
#[must_use]
pub fn full(levels: &Levels, drop_line: Option<SequenceNumber>) -> Option<CompactUnit> {
    let (max, runs) = (levels.max_level(), levels.runs());
    match runs {
        [] => None,
        [only] if only.level == max => {
            let files: Vec<_> = only.run.files().iter().filter(|f| may_drop_deletes(f, drop_line)).cloned().collect();
            (!files.is_empty()).then_some(CompactUnit { output_level: max, files, reason: PickReason::Full })
        }
        all => Some(CompactUnit::of(max, all, PickReason::Full)),
    }
}

/// Whether a rewrite at the max level could drop a delete row of `file`: it has (or may have) some, and the oldest row is below the line.
#[must_use]
pub fn may_drop_deletes(file: &DataFileMeta, drop_line: Option<SequenceNumber>) -> bool {
    file.delete_row_count != Some(0) && drop_line.is_none_or(|line| file.min_sequence_number < line)
}
