//! How the memory of a compaction is divided: which runs are merged at once, and how much each may hold.
//!
//! Neighbours: `compact` asks, `source` and `lsm` keep to the answer. Pure. A run that is read holds compressed blocks (one per column, since
//! Parquet stores a row group column by column), decoded pages, and batches of rows; the writer holds a row group in several forms.
//! Invariants: 1. all parts together stay below the limit, whatever the number of runs; 2. what does not fit at once is merged in several
//! passes, never refused: two runs are always taken.

use siltstone_format::data_file::DataFileMeta;
use siltstone_lsm::{layout::FileLayout, reader::BATCH_BYTES, run::SortedRun};

use crate::source::SourceSizes;

/// What the process takes beside the merge: program, clients, threads, manifests, and what the allocator does not give back.
const BASE_BYTES: u64 = 64 << 20;
/// Row groups are no larger even where there is room.
const ROW_GROUP_MAX: u64 = 32 << 20;
/// A row group being written exists as encoded columns, as bytes of the file, in the channel, and in the upload's buffer.
const ROW_GROUP_COPIES: u64 = 6;
/// Smaller batches cost more than they save.
const BATCH_MIN: u64 = 256 << 10;
/// Batches of a run that a merge may hold, and their keys.
const BATCHES: u64 = 3;
/// Rows of a page, as all writers limit them.
const PAGE_ROWS: u64 = 20_000;
/// Bytes of a page, as all writers limit them; a dictionary has as many.
const PAGE_BYTES: u64 = 1 << 20;
/// How much larger decoded rows are than the file, as a rule.
const INFLATION: u64 = 4;

/// The memory of one process that compacts one table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MergeMemory {
    limit: u64,
    columns: usize,
}

/// What the parts of one merge may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Of each open file.
    pub(crate) source: SourceSizes,
    /// Decoded bytes of a batch.
    pub(crate) batch_bytes: usize,
    /// Encoded bytes of a row group.
    pub(crate) row_group_bytes: usize,
}

/// Columns of a data file that are read: nested ones by their leaves, and the two of the system.
pub(crate) fn columns_of(layout: &FileLayout) -> usize {
    layout.values().flattened_fields().len() + 2
}

impl MergeMemory {
    /// `limit` bytes for a process that reads files of `layout`.
    pub(crate) fn new(limit: u64, layout: &FileLayout) -> Self {
        Self { limit, columns: columns_of(layout) }
    }

    /// Half of what is left to the merge; the other half is the writer's.
    fn half(&self) -> u64 {
        self.limit.saturating_sub(BASE_BYTES).max(self.limit / 2) / 2
    }

    /// The least that runs open side by side hold together. A run's files are open one after the other.
    pub(crate) fn least<'a>(&self, runs: impl Iterator<Item = &'a SortedRun>) -> u64 {
        let largest = |run: &SortedRun| run.files().iter().map(|f| self.least_of(size_of(f))).max().unwrap_or(0);
        runs.map(largest).fold(0, u64::saturating_add)
    }

    /// The least that an open file of so many bytes and rows holds.
    fn least_of(&self, (bytes, rows): (u64, u64)) -> u64 {
        let pages = (INFLATION * PAGE_ROWS.min(rows)).saturating_mul(bytes / rows.max(1) + 1);
        let pages = pages.min(2 * PAGE_BYTES * self.columns as u64);
        let held = pages + SourceSizes::new(self.columns, 0).bytes() + BATCHES * BATCH_MIN;
        held.min(bytes.saturating_mul(1 + INFLATION * BATCHES))
    }

    /// Whether runs that hold at least `least` can be open side by side.
    pub(crate) fn fits(&self, least: u64) -> bool {
        least <= self.half()
    }

    /// Divides the memory among `runs` open runs that hold at least `least` together.
    pub(crate) fn shares(&self, runs: usize, least: u64) -> Shares {
        let more = self.half().saturating_sub(least) / (runs as u64).max(1);
        let batch = (BATCH_MIN + more / (2 * BATCHES)).min(BATCH_BYTES as u64);
        let row_group = (self.half() / ROW_GROUP_COPIES).min(ROW_GROUP_MAX);
        let whole = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Shares {
            source: SourceSizes::new(self.columns, SourceSizes::new(self.columns, 0).bytes() + more / 2),
            batch_bytes: whole(batch),
            row_group_bytes: whole(row_group),
        }
    }
}

fn size_of(file: &DataFileMeta) -> (u64, u64) {
    (file.file_size.unsigned_abs(), file.row_count.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn all_parts_together_stay_below_the_limit_at_any_number_of_runs() {
        for limit in [128, 256, 512, 1_769, 10_240].map(|mib| mib * MIB) {
            for columns in [3, 12, 62, 300] {
                let memory = MergeMemory { limit, columns };
                let file = memory.least_of((100 * MIB, 1_000_000));
                for runs in (1..300).filter(|runs| memory.fits(runs * file)) {
                    let shares = memory.shares(usize::try_from(runs).unwrap(), runs * file);
                    let pages = file - SourceSizes::new(columns, 0).bytes() - BATCHES * BATCH_MIN;
                    let run = shares.source.bytes() + pages + BATCHES * shares.batch_bytes as u64;
                    let writer = ROW_GROUP_COPIES * shares.row_group_bytes as u64;
                    assert!(BASE_BYTES + runs * run + writer <= limit, "{limit} {columns} {runs}: {shares:?}");
                }
            }
        }
    }

    #[test]
    fn a_function_of_512_mib_merges_some_dozens_of_large_runs_and_hundreds_of_small_ones() {
        let memory = MergeMemory { limit: 512 * MIB, columns: 12 };
        assert!(memory.fits(30 * memory.least_of((100 * MIB, 2_000_000))));
        assert!(!memory.fits(100 * memory.least_of((100 * MIB, 2_000_000))));
        assert!(memory.fits(500 * memory.least_of((20 << 10, 300))));
    }

    #[test]
    fn few_runs_have_the_largest_blocks_and_batches() {
        let memory = MergeMemory { limit: 512 * MIB, columns: 12 };
        let shares = memory.shares(2, 2 * memory.least_of((100 * MIB, 2_000_000)));
        assert_eq!(shares.source, SourceSizes::new(12, u64::MAX));
        assert_eq!((shares.batch_bytes, shares.row_group_bytes), (BATCH_BYTES, ROW_GROUP_MAX as usize));
    }
}
