//! The seam of the merge engines: what becomes of the versions of one key.
//!
//! Neighbours: `super::Merge` finds the versions, a function decides, `super::output` carries it out. `deduplicate` is the one that
//! exists. Invariant: 1. a function sees each key once, with all versions in the input, newest first.

pub(crate) mod deduplicate;

use crate::{error::LsmError, layout::FileLayout, merge::output::Output};

/// One version of a key: where its row stands, and what age and kind it has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Version {
    /// Batch in the output's table of sources.
    pub(crate) source: usize,
    /// Row in that batch.
    pub(crate) row: usize,
    /// Row kind.
    pub(crate) kind: i8,
    /// Sequence number.
    pub(crate) sequence: i64,
}

/// A merge engine.
pub(crate) trait MergeFunction {
    /// Whether single versions come out as they are when no row among them is a retract (`retracts` = false) or some may be (true):
    /// then a stretch that overlaps with nothing is copied without a look at its rows.
    fn passes(&self, retracts: bool) -> bool;

    /// Plans the result of one key; `versions` is newest first and not empty.
    fn result(&mut self, versions: &[Version], output: &mut Output);
}

/// Refuses tables of an engine that has no function here: merged by another's rules their rows would silently be wrong.
pub(crate) fn refuse_other_engines(layout: &FileLayout) -> Result<(), LsmError> {
    match layout.table().options.get("merge-engine").map(String::as_str) {
        None | Some("deduplicate") => Ok(()),
        Some(other) => Err(LsmError::Unsupported {
            what: format!("merge-engine = {other}"),
            remedy: "read and compact this table with Flink or Spark; Siltstone merges deduplicate tables".to_owned(),
        }),
    }
}
