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

/// A part of `unit`, where a merge cannot hold all of its runs open at once: adjacent runs that fit (two at the least), such that those left on
/// their newer side are all of level 0, on the level just below the next older run. So no run is skipped, and age order of levels holds. Of all
/// such choices the one that reads the fewest bytes for each run it takes away.
#[must_use]
pub fn part_of(levels: &Levels, unit: CompactUnit, fits: impl Fn(&[LevelRun]) -> bool) -> CompactUnit {
    let runs = levels.runs();
    let picked = runs.iter().take_while(|r| r.run.files().iter().all(|f| unit.files.contains(f))).count();
    let from = |end: usize| (0..end - 2).rev().take_while(|&start| runs.get(start..end).is_some_and(&fits)).last();
    let windows = (2..=picked).filter_map(|end| {
        let start = from(end).unwrap_or(end - 2);
        let window = runs.get(start..end)?;
        let output = runs.get(end).map_or(levels.max_level(), |next| Level(next.level.0 - 1));
        let newer_stay = runs.iter().take(start).all(|r| r.level == Level::ZERO);
        (output > Level::ZERO && newer_stay).then_some((output, window))
    });
    let price = |window: &[LevelRun]| {
        let bytes: i128 = window.iter().map(|r| i128::from(r.run.total_size())).sum();
        bytes / i128::try_from(window.len().saturating_sub(1).max(1)).unwrap_or(1)
    };
    match windows.min_by_key(|(_, window)| price(window)) {
        Some((output, window)) => CompactUnit::of(output, window, unit.reason),
        None => unit,
    }
}

/// Whether a rewrite at the max level could drop a delete row of `file`: it has (or may have) some, and the oldest row is below the line.
#[must_use]
pub fn may_drop_deletes(file: &DataFileMeta, drop_line: Option<SequenceNumber>) -> bool {
    file.delete_row_count != Some(0) && drop_line.is_none_or(|line| file.min_sequence_number < line)
}
