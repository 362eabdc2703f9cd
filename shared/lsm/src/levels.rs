//! The LSM tree of one bucket: level 0 holds one run per file, each higher level at most one run.
//!
//! Neighbours: built from live manifest entries by `table`; read by `picker`.
//! Invariants: 1. [`Levels::runs`] is newest first: level 0 by falling largest sequence number, then levels ascending;
//! 2. a level above 0 is one checked [`SortedRun`].

use std::{cmp::Ordering, collections::BTreeMap};

use siltstone_format::{data_file::DataFileMeta, id::Level};

use crate::run::{CompareKeys, Overlap, SortedRun};

/// A run with its level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelRun {
    /// Level of every file of the run.
    pub level: Level,
    /// The run.
    pub run: SortedRun,
}

/// All live files of one bucket, arranged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels {
    runs: Vec<LevelRun>,
    max_level: Level,
}

impl Levels {
    /// Arranges the live files of a bucket. `num_levels` is the table's `num-levels`; files on a higher level make the tree grow,
    /// as in Java.
    ///
    /// # Errors
    /// [`Overlap`] when files of one level above 0 overlap.
    pub fn new(files: Vec<DataFileMeta>, num_levels: i32, keys: &impl CompareKeys) -> Result<Self, Overlap> {
        let mut by_level: BTreeMap<Level, Vec<DataFileMeta>> = BTreeMap::new();
        for file in files {
            by_level.entry(file.level).or_default().push(file);
        }
        let highest = by_level.keys().next_back().map_or(0, |level| level.0);
        let mut level0 = by_level.remove(&Level::ZERO).unwrap_or_default();
        level0.sort_by(newest_first);
        let mut runs: Vec<LevelRun> =
            level0.into_iter().map(|file| LevelRun { level: Level::ZERO, run: SortedRun::single(file) }).collect();
        for (level, files) in by_level {
            runs.push(LevelRun { level, run: SortedRun::new(files, keys)? });
        }
        Ok(Self { runs, max_level: Level(highest.max(num_levels.saturating_sub(1)).max(1)) })
    }

    /// Runs from newest to oldest.
    #[must_use]
    pub fn runs(&self) -> &[LevelRun] {
        &self.runs
    }

    /// The lowest (oldest) level of the tree, where deletes may be dropped.
    #[must_use]
    pub fn max_level(&self) -> Level {
        self.max_level
    }

    /// The highest-numbered level that holds files; level 0 for an empty bucket.
    #[must_use]
    pub fn oldest_non_empty(&self) -> Level {
        self.runs.last().map_or(Level::ZERO, |run| run.level)
    }
}

/// Level 0 order of Java's `Levels`: larger max sequence first, then smaller min sequence, older creation, name.
fn newest_first(a: &DataFileMeta, b: &DataFileMeta) -> Ordering {
    b.max_sequence_number
        .cmp(&a.max_sequence_number)
        .then_with(|| a.min_sequence_number.cmp(&b.min_sequence_number))
        .then_with(|| a.creation_time_ms.cmp(&b.creation_time_ms))
        .then_with(|| a.file_name.cmp(&b.file_name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_files::{file, keys};

    #[test]
    fn level_0_runs_come_newest_first_then_levels_ascend() {
        let files = vec![
            file("old", 5, 0..=9, 1).build(),
            file("a", 0, 0..=9, 10).build(),
            file("b", 0, 0..=9, 30).build(),
            file("mid", 3, 0..=4, 5).build(),
        ];
        let levels = Levels::new(files, 6, &keys).unwrap();
        let names: Vec<_> = levels.runs().iter().map(|r| r.run.files()[0].file_name.as_str()).collect();
        assert_eq!(names, ["b", "a", "mid", "old"]);
        assert_eq!((levels.max_level(), levels.oldest_non_empty()), (Level(5), Level(5)));
    }

    #[test]
    fn overlap_inside_a_level_is_refused_by_name() {
        let files = vec![file("x", 2, 0..=5, 1).build(), file("y", 2, 5..=9, 2).build()];
        let overlap = Levels::new(files, 6, &keys).unwrap_err();
        assert_eq!((overlap.first.as_str(), overlap.second.as_str()), ("x", "y"));
    }

    #[test]
    fn a_file_above_num_levels_makes_the_tree_grow() {
        let levels = Levels::new(vec![file("deep", 9, 0..=5, 1).build()], 6, &keys).unwrap();
        assert_eq!(levels.max_level(), Level(9));
    }
}
