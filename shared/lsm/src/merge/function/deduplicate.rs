//! `merge-engine` = deduplicate: the newest version of a key is its row, and its kind says whether the key lives.
//!
//! Neighbours: called by `super::super::Merge`. Invariants: 1. a delete is dropped only as [`DropDeletes`] allows, and the largest
//! number dropped is reported; 2. -U never reaches a data file (paimon-format.md section 15, trap 39); 3. with `ignore-delete`, a
//! stored delete is as if it were not there (trap 26): it hides no older row, and nothing needs to know of it once it is left out.

use siltstone_format::{id::SequenceNumber, options::ignores_deletes};

use super::{MergeFunction, Version};
use crate::{
    batch::{DELETE, UPDATE_BEFORE, is_retract},
    error::LsmError,
    layout::FileLayout,
    merge::{DropDeletes, output::Output},
};

/// The function with what it dropped so far.
#[derive(Debug)]
pub(crate) struct Deduplicate {
    drop_deletes: DropDeletes,
    ignore_delete: bool,
    dropped: Option<SequenceNumber>,
}

impl Deduplicate {
    pub(crate) fn new(layout: &FileLayout, drop_deletes: DropDeletes) -> Result<Self, LsmError> {
        Ok(Self { drop_deletes, ignore_delete: ignores_deletes(layout.table())?, dropped: None })
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
        let ignored = |version: &&Version| self.ignore_delete && is_retract(version.kind);
        if let Some(newest) = versions.iter().find(|version| !ignored(version))
            && !self.drops(newest.kind, newest.sequence)
        {
            output.push_range(newest.source, newest.row, 1);
        }
    }
}
