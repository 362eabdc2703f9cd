//! A sorted run: data files of one bucket whose key ranges are disjoint, in ascending key order.
//!
//! Neighbours: `levels` groups runs, `section` cuts overlapping files into runs, `merge` reads them.
//! Invariants (checked by [`SortedRun::new`]): 1. at least one file; 2. max key of a file < min key of the next.

use std::cmp::Ordering;

use siltstone_format::data_file::{DataFileMeta, StoredRow};

/// Compares two trimmed primary keys in the table's sort order.
pub trait CompareKeys {
    /// The order of `a` relative to `b`.
    fn compare(&self, a: &StoredRow, b: &StoredRow) -> Ordering;
}

impl<F: Fn(&StoredRow, &StoredRow) -> Ordering> CompareKeys for F {
    fn compare(&self, a: &StoredRow, b: &StoredRow) -> Ordering {
        self(a, b)
    }
}

/// Two files that should be disjoint are not: reading them as one run would give a key twice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "data files {first} and {second} overlap in a run of level {level}: their keys would be read twice; \
     rewrite both by a full compaction with the engine that wrote them"
)]
pub struct Overlap {
    /// The file with the smaller first key.
    pub first: String,
    /// The file that starts before `first` ends.
    pub second: String,
    /// Level of the second file.
    pub level: siltstone_format::id::Level,
}

/// Data files with ascending, disjoint key ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortedRun {
    files: Vec<DataFileMeta>,
}

impl SortedRun {
    /// Sorts `files` by first key and checks that they are disjoint.
    ///
    /// # Errors
    /// [`Overlap`] with the first pair that overlaps.
    pub fn new(mut files: Vec<DataFileMeta>, keys: &impl CompareKeys) -> Result<Self, Overlap> {
        files.sort_by(|a, b| keys.compare(&a.min_key, &b.min_key));
        for pair in files.windows(2) {
            if let [first, second] = pair
                && keys.compare(&first.max_key, &second.min_key) != Ordering::Less
            {
                return Err(Overlap {
                    first: first.file_name.clone(),
                    second: second.file_name.clone(),
                    level: second.level,
                });
            }
        }
        Ok(Self { files })
    }

    /// A run of one file.
    #[must_use]
    pub fn single(file: DataFileMeta) -> Self {
        Self { files: vec![file] }
    }

    /// Builds a run from files that the caller already placed in ascending, disjoint order.
    pub(crate) fn from_ordered(files: Vec<DataFileMeta>) -> Self {
        Self { files }
    }

    /// The files, first key ascending.
    #[must_use]
    pub fn files(&self) -> &[DataFileMeta] {
        &self.files
    }

    /// The files, by value.
    #[must_use]
    pub fn into_files(self) -> Vec<DataFileMeta> {
        self.files
    }

    /// Sum of file sizes in bytes.
    #[must_use]
    pub fn total_size(&self) -> i64 {
        self.files.iter().map(|f| f.file_size).fold(0, i64::saturating_add)
    }
}
