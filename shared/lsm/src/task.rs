//! A compaction task: which sections of a picked unit are rewritten together and which files only change their level.
//!
//! Neighbours: `picker` gives the unit, `compact` rewrites. Same decisions as Paimon's `MergeTreeCompactTask`.
//! Invariants: 1. every input file is either rewritten, upgraded or kept as it is; 2. a file with deletes that could be dropped is
//! never moved to the max level unread; 3. rewrites are in key order and disjoint, so the output level stays one run.

use siltstone_format::{
    data_file::DataFileMeta,
    id::{Level, SequenceNumber},
};

use crate::{
    picker::{CompactUnit, may_drop_deletes},
    run::{CompareKeys, SortedRun},
    section::{Section, sections},
};

/// What to do with the files of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactTask {
    /// Level of every output.
    pub output_level: Level,
    /// Groups of adjacent sections; each group is merged into one series of output files.
    pub rewrites: Vec<Vec<Section>>,
    /// Files that move to the output level without being read.
    pub upgrades: Vec<DataFileMeta>,
}

/// Sizes and rules that decide between rewriting and upgrading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskOptions {
    /// Files below this many bytes are rewritten with their neighbours (`target-file-size` x `compaction.small-file-ratio`).
    pub small_file_bytes: i64,
    /// `compaction.force-rewrite-all-files`.
    pub rewrite_all: bool,
    /// The max level of the bucket.
    pub max_level: Level,
    /// Deletes below this number may be dropped at the max level; `None` = all.
    pub drop_line: Option<SequenceNumber>,
}

impl CompactTask {
    /// Decides for each file of `unit`.
    #[must_use]
    pub fn plan(unit: CompactUnit, options: &TaskOptions, keys: &impl CompareKeys) -> Self {
        let mut task = Self { output_level: unit.output_level, rewrites: Vec::new(), upgrades: Vec::new() };
        let mut pending: Vec<Section> = Vec::new();
        for section in sections(unit.files, keys) {
            match <[SortedRun; 1]>::try_from(section.runs) {
                Err(runs) => pending.push(Section { runs }),
                Ok([run]) => {
                    for file in run.into_files() {
                        if file.file_size < options.small_file_bytes {
                            pending.push(single(file));
                        } else {
                            task.flush(&mut pending, options);
                            task.upgrade(file, options);
                        }
                    }
                }
            }
        }
        task.flush(&mut pending, options);
        task
    }

    /// Cuts the rewrites between two sections into groups of at least `bytes` of input: each is one that can be committed by itself.
    #[must_use]
    pub fn in_portions(mut self, bytes: u64) -> Self {
        let mut portions = Vec::new();
        for group in self.rewrites {
            let (mut portion, mut size) = (Vec::new(), 0u64);
            for section in group {
                size += section.files().map(|f| f.file_size.unsigned_abs()).sum::<u64>();
                portion.push(section);
                if size >= bytes {
                    portions.push(std::mem::take(&mut portion));
                    size = 0;
                }
            }
            if !portion.is_empty() {
                portions.push(portion);
            }
        }
        self.rewrites = portions;
        self
    }

    /// True when nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rewrites.is_empty() && self.upgrades.is_empty()
    }

    /// A lone small file wins nothing by being rewritten: it is upgraded.
    fn flush(&mut self, pending: &mut Vec<Section>, options: &TaskOptions) {
        let group = std::mem::take(pending);
        if let [Section { runs }] = group.as_slice()
            && let [run] = runs.as_slice()
        {
            for file in run.files() {
                self.upgrade(file.clone(), options);
            }
        } else if !group.is_empty() {
            self.rewrites.push(group);
        }
    }

    fn upgrade(&mut self, file: DataFileMeta, options: &TaskOptions) {
        let hides_deletes = self.output_level == options.max_level
            && (may_drop_deletes(&file, options.drop_line)
                || (file.level != self.output_level && file.delete_row_count != Some(0)));
        if options.rewrite_all || hides_deletes {
            self.rewrites.push(vec![single(file)]);
        } else if file.level != self.output_level {
            self.upgrades.push(file);
        }
    }
}

fn single(file: DataFileMeta) -> Section {
    Section { runs: vec![SortedRun::single(file)] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        picker::PickReason,
        test_files::{file, keys},
    };

    fn plan(files: Vec<DataFileMeta>, output: i32, drop_line: Option<i64>) -> (Vec<Vec<String>>, Vec<String>) {
        let unit = CompactUnit { output_level: Level(output), files, reason: PickReason::Full };
        let options = TaskOptions {
            small_file_bytes: 70,
            rewrite_all: false,
            max_level: Level(5),
            drop_line: drop_line.map(SequenceNumber),
        };
        let task = CompactTask::plan(unit, &options, &keys);
        let name = |f: &DataFileMeta| f.file_name.clone();
        let rewrites = task.rewrites.iter().map(|g| g.iter().flat_map(Section::files).map(name).collect()).collect();
        (rewrites, task.upgrades.iter().map(name).collect())
    }

    #[test]
    fn large_files_that_overlap_nothing_are_upgraded_between_rewrites() {
        let files = vec![
            file("s1", 0, 0..=4, 1).size(10).build(),
            file("s2", 0, 5..=9, 2).size(10).build(),
            file("big", 0, 10..=19, 3).size(100).build(),
            file("o1", 0, 20..=29, 4).build(),
            file("o2", 5, 25..=35, 0).build(),
        ];
        let (rewrites, upgrades) = plan(files, 5, None);
        assert_eq!(rewrites, [["s1", "s2"], ["o1", "o2"]]);
        assert_eq!(upgrades, ["big"]);
    }

    #[test]
    fn a_long_group_is_cut_between_sections_once_a_portion_is_large_enough() {
        let section = |n: i64| Section {
            runs: vec![SortedRun::single(file(&format!("s{n}"), 0, 10 * n..=10 * n + 9, 1).size(40).build())],
        };
        let whole = CompactTask {
            output_level: Level(5),
            rewrites: vec![(0..5).map(section).collect(), vec![section(9)]],
            upgrades: vec![],
        };
        let shape = |bytes| -> Vec<usize> { whole.clone().in_portions(bytes).rewrites.iter().map(Vec::len).collect() };
        assert_eq!(shape(80), [2, 2, 1, 1]);
        assert_eq!(shape(1), [1; 6]);
        assert_eq!(shape(u64::MAX), [5, 1]);
    }

    #[test]
    fn a_lone_small_file_is_upgraded() {
        assert_eq!(plan(vec![file("s", 0, 0..=4, 1).size(1).build()], 4, None), (vec![], vec!["s".to_owned()]));
    }

    #[test]
    fn files_from_the_limit_on_are_not_small() {
        let files = |size| vec![file("a", 0, 0..=4, 1).size(size).build(), file("b", 0, 5..=9, 2).size(size).build()];
        assert_eq!(plan(files(70), 4, None), (vec![], vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(plan(files(69), 4, None).0, [["a", "b"]]);
    }

    #[test]
    fn every_file_is_rewritten_where_the_table_asks_for_it() {
        let files = vec![file("a", 5, 0..=4, 1).build(), file("b", 0, 5..=9, 2).build()];
        let unit = CompactUnit { output_level: Level(5), files, reason: PickReason::Full };
        let options = TaskOptions { small_file_bytes: 70, rewrite_all: true, max_level: Level(5), drop_line: None };
        let task = CompactTask::plan(unit, &options, &keys);
        let rewritten = task.rewrites.iter().flatten().flat_map(Section::files).map(|f| f.file_name.as_str());
        assert_eq!((rewritten.collect::<Vec<_>>(), task.upgrades), (vec!["a", "b"], vec![]));
    }

    #[test]
    fn a_task_is_empty_when_it_neither_rewrites_nor_moves_a_file() {
        let is_empty = |file| {
            let unit = CompactUnit { output_level: Level(5), files: vec![file], reason: PickReason::Full };
            let options =
                TaskOptions { small_file_bytes: 70, rewrite_all: false, max_level: Level(5), drop_line: None };
            CompactTask::plan(unit, &options, &keys).is_empty()
        };
        let there = || file("f", 5, 0..=4, 1);
        assert!(is_empty(there().build()));
        assert!(!is_empty(there().deletes(1).build()), "it is rewritten");
        assert!(!is_empty(file("f", 0, 0..=4, 1).build()), "it is moved");
    }

    #[test]
    fn a_file_with_deletes_is_rewritten_on_its_way_to_the_max_level_only() {
        let deletes = || vec![file("d", 0, 0..=4, 9).deletes(1).build()];
        assert_eq!(plan(deletes(), 5, None).0, [["d"]]);
        assert_eq!(plan(deletes(), 5, Some(1)).0, [["d"]], "also where they are too young to be dropped");
        assert_eq!(plan(deletes(), 4, None).1, ["d"]);
    }

    #[test]
    fn young_deletes_at_the_max_level_are_left_alone() {
        let files = || vec![file("d", 5, 0..=4, 9).deletes(1).build()];
        assert_eq!(plan(files(), 5, Some(9)), (vec![], vec![]));
        assert_eq!(plan(files(), 5, Some(10)).0, [["d"]]);
    }

    #[test]
    fn a_file_that_does_not_say_its_deletes_counts_as_having_some() {
        let mut unknown = file("u", 0, 0..=4, 9).build();
        unknown.delete_row_count = None;
        assert_eq!(plan(vec![unknown], 5, None).0, [["u"]]);
    }
}
