//! `merge-engine` = deduplicate: the newest version of a key is its row, and its kind says whether the key lives.
//!
//! Neighbours: called by `super::super::Merge`. Invariants: 1. a delete is dropped only as [`DropDeletes`] allows, and the largest
//! number dropped is reported; 2. -U never reaches a data file (paimon-format.md section 15, trap 39).

use siltstone_format::id::SequenceNumber;

use super::{MergeFunction, Version};
use crate::{
    batch::{DELETE, UPDATE_BEFORE},
    merge::{DropDeletes, output::Output},
};

/// The function with what it dropped so far.
#[derive(Debug)]
pub(crate) struct Deduplicate {
    drop_deletes: DropDeletes,
    dropped: Option<SequenceNumber>,
}

impl Deduplicate {
    pub(crate) fn new(drop_deletes: DropDeletes) -> Self {
        Self { drop_deletes, dropped: None }
    }

    /// The largest sequence number of a delete that was left out.
    pub(crate) fn dropped(&self) -> Option<SequenceNumber> {
        self.dropped
    }

    fn drops(&mut self, kind: i8, sequence: i64) -> bool {
        match kind {
            UPDATE_BEFORE => true,
            DELETE => {
                let droppable = match self.drop_deletes {
                    DropDeletes::Keep => false,
                    DropDeletes::All => true,
                    DropDeletes::Below(line) => sequence < line.0,
                };
                if droppable {
                    self.dropped = self.dropped.max(Some(SequenceNumber(sequence)));
                }
                droppable
            }
            _ => false,
        }
    }
}

impl MergeFunction for Deduplicate {
    fn passes(&self, retracts: bool) -> bool {
        !retracts
    }

    fn result(&mut self, versions: &[Version], output: &mut Output) {
        if let Some(newest) = versions.first()
            && !self.drops(newest.kind, newest.sequence)
        {
            output.push_range(newest.source, newest.row, 1);
        }
    }
}
