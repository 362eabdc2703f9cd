//! Sections: maximal groups of data files whose key ranges overlap, each cut into as few runs as possible.
//!
//! Neighbours: `task` rewrites a section or upgrades its files; `scan` merges a section or reads it raw. Same cut as
//! Paimon's `IntervalPartition`. Invariants: 1. sections are disjoint and ascend by key; 2. every file is in exactly one run.

use std::cmp::Ordering;

use siltstone_format::data_file::{DataFileMeta, StoredRow};

use crate::run::{CompareKeys, SortedRun};

/// Files that must be merged together, as runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Runs of the section; one run means that nothing overlaps.
    pub runs: Vec<SortedRun>,
}

impl Section {
    /// All files of the section, run by run.
    pub fn files(&self) -> impl Iterator<Item = &DataFileMeta> {
        self.runs.iter().flat_map(SortedRun::files)
    }
}

/// Cuts the files of one bucket into sections of ascending keys.
#[must_use]
pub fn sections(mut files: Vec<DataFileMeta>, keys: &impl CompareKeys) -> Vec<Section> {
    files.sort_by(|a, b| keys.compare(&a.min_key, &b.min_key).then_with(|| keys.compare(&a.max_key, &b.max_key)));
    let mut result = Vec::new();
    let mut group: Vec<DataFileMeta> = Vec::new();
    let mut bound: Option<StoredRow> = None;
    for file in files {
        if bound.as_ref().is_some_and(|bound| keys.compare(&file.min_key, bound) == Ordering::Greater) {
            result.push(Section { runs: fewest_runs(std::mem::take(&mut group), keys) });
            bound = None;
        }
        if bound.as_ref().is_none_or(|bound| keys.compare(&file.max_key, bound) == Ordering::Greater) {
            bound = Some(file.max_key.clone());
        }
        group.push(file);
    }
    if !group.is_empty() {
        result.push(Section { runs: fewest_runs(group, keys) });
    }
    result
}

/// Greedy interval colouring: each file (first key ascending) goes behind the run that ended first, if it is free by then.
fn fewest_runs(files: Vec<DataFileMeta>, keys: &impl CompareKeys) -> Vec<SortedRun> {
    let mut runs: Vec<Vec<DataFileMeta>> = Vec::new();
    for file in files {
        let free = runs
            .iter_mut()
            .filter_map(|run| run.last().map(|last| last.max_key.clone()).map(|end| (end, run)))
            .min_by(|(a, _), (b, _)| keys.compare(a, b))
            .filter(|(end, _)| keys.compare(&file.min_key, end) == Ordering::Greater);
        match free {
            Some((_, run)) => run.push(file),
            None => runs.push(vec![file]),
        }
    }
    runs.into_iter().map(SortedRun::from_ordered).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_files::{file, keys};

    fn shape(sections: &[Section]) -> Vec<Vec<Vec<&str>>> {
        sections
            .iter()
            .map(|s| s.runs.iter().map(|r| r.files().iter().map(|f| f.file_name.as_str()).collect()).collect())
            .collect()
    }

    #[test]
    fn files_that_touch_nothing_are_sections_of_their_own() {
        let files = vec![file("b", 5, 10..=19, 1).build(), file("a", 5, 0..=9, 1).build()];
        assert_eq!(shape(&sections(files, &keys)), [[["a"]], [["b"]]]);
    }

    #[test]
    fn overlapping_files_share_a_section_with_the_fewest_runs() {
        let files = vec![
            file("wide", 0, 0..=100, 9).build(),
            file("l", 5, 0..=40, 1).build(),
            file("r", 5, 41..=90, 1).build(),
            file("far", 5, 101..=200, 1).build(),
        ];
        assert_eq!(shape(&sections(files, &keys)), [vec![vec!["l", "r"], vec!["wide"]], vec![vec!["far"]]]);
    }

    #[test]
    fn equal_bounds_overlap() {
        let files = vec![file("a", 0, 0..=5, 1).build(), file("b", 0, 5..=9, 2).build()];
        assert_eq!(shape(&sections(files, &keys)), [[["a"], ["b"]]]);
    }
}
