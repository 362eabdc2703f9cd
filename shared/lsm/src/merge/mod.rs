//! Merges the sorted runs of one bucket into one stream of one row per key, ascending by key.
//!
//! Above: `reader` and `buffer` (inputs). Below: `function` (what survives), `writer` (output files). No I/O of its own: inputs are
//! iterators of batches. Invariants: 1. output keys strictly ascend; 2. of a key's rows the newest wins: by `sequence.field`, then
//! sequence number, on a tie adds after retracts, then the newer run; 3. a delete is dropped only as [`DropDeletes`] allows, and the
//! largest number dropped is reported; 4. at most one batch per run is held beside the output batch, whatever the input size.

mod loser_tree;
mod output;
#[cfg(test)]
mod tests;

use std::{cmp::Ordering, sync::Arc};

use siltstone_format::id::SequenceNumber;

use crate::{
    batch::{DELETE, KeyValueBatch, UPDATE_BEFORE, is_retract},
    error::LsmError,
    keys::{KeyColumns, KeyEncoder},
    layout::FileLayout,
};
use loser_tree::LoserTree;
use output::Output;

/// Which deletes the merge may leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropDeletes {
    /// None: older versions of the key may live outside the input.
    Keep,
    /// All: the input holds the oldest version of every key.
    All,
    /// Those with a smaller sequence number (architecture.md section 3, rule 7).
    Below(SequenceNumber),
}

/// One input: a run as an iterator of batches whose keys ascend strictly.
pub type RunBatches<'a> = Box<dyn Iterator<Item = Result<KeyValueBatch, LsmError>> + Send + 'a>;

/// Bounds of the output batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MergeSettings {
    /// Rows of an output batch at the most.
    pub batch_rows: usize,
    /// Deletes.
    pub drop_deletes: DropDeletes,
}

impl Default for MergeSettings {
    fn default() -> Self {
        Self { batch_rows: 8192, drop_deletes: DropDeletes::Keep }
    }
}

/// The merge as an iterator of output batches.
pub struct Merge<'a> {
    runs: Vec<Run<'a>>,
    tree: LoserTree,
    encoder: KeyEncoder,
    settings: MergeSettings,
    output: Output,
    dropped: Option<SequenceNumber>,
    started: bool,
    failed: bool,
}

struct Run<'a> {
    batches: RunBatches<'a>,
    current: Option<Current>,
}

/// The batch that a run's cursor stands in.
#[derive(Clone)]
struct Current {
    batch: Arc<KeyValueBatch>,
    keys: Arc<KeyColumns>,
    position: usize,
    /// Place of the batch in the output's table of sources.
    source: usize,
}

impl Current {
    fn sequence(&self, row: usize) -> i64 {
        self.batch.sequence.values().get(row).copied().unwrap_or(i64::MIN)
    }

    fn kind(&self, row: usize) -> i8 {
        self.batch.kind.values().get(row).copied().unwrap_or(0)
    }
}

impl std::fmt::Debug for Merge<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Merge").field("runs", &self.runs.len()).field("settings", &self.settings).finish()
    }
}

impl<'a> Merge<'a> {
    /// Merges `runs`, newest first (the order decides only exact ties).
    ///
    /// # Errors
    /// As [`KeyEncoder::new`].
    pub fn new(layout: &FileLayout, runs: Vec<RunBatches<'a>>, settings: MergeSettings) -> Result<Self, LsmError> {
        let runs: Vec<_> = runs.into_iter().map(|batches| Run { batches, current: None }).collect();
        Ok(Self {
            tree: LoserTree::new(runs.len()),
            runs,
            encoder: KeyEncoder::new(layout)?,
            settings,
            output: Output::new(layout.values().clone()),
            dropped: None,
            started: false,
            failed: false,
        })
    }

    /// The largest sequence number of a delete that was left out so far.
    #[must_use]
    pub fn dropped_deletes(&self) -> Option<SequenceNumber> {
        self.dropped
    }

    /// Loads the next non-empty batch of a run.
    fn load(&mut self, run: usize) -> Result<(), LsmError> {
        let Some(input) = self.runs.get_mut(run) else { return Ok(()) };
        input.current = None;
        for batch in input.batches.by_ref() {
            let batch = batch?;
            if batch.is_empty() {
                continue;
            }
            let keys = Arc::new(self.encoder.encode(&batch.values)?);
            let batch = Arc::new(batch);
            let source = self.output.add_source(batch.clone());
            input.current = Some(Current { batch, keys, position: 0, source });
            break;
        }
        Ok(())
    }

    /// Moves a run's cursor by `rows`.
    fn advance(&mut self, run: usize, rows: usize) -> Result<(), LsmError> {
        let exhausted = self.runs.get_mut(run).and_then(|r| r.current.as_mut()).is_some_and(|current| {
            current.position += rows;
            current.position >= current.batch.len()
        });
        if exhausted { self.load(run) } else { Ok(()) }
    }

    fn start(&mut self) -> Result<(), LsmError> {
        for run in 0..self.runs.len() {
            self.load(run)?;
        }
        let runs = &self.runs;
        self.tree.build(|a, b| precedes(runs, a, b));
        self.started = true;
        Ok(())
    }

    fn replay(&mut self) {
        let runs = &self.runs;
        self.tree.replay(|a, b| precedes(runs, a, b));
    }

    /// Takes all rows of the smallest key, or a stretch of rows that overlaps with no other run.
    fn step(&mut self) -> Result<bool, LsmError> {
        let winner = self.tree.winner();
        let Some(current) = self.runs.get(winner).and_then(|r| r.current.clone()) else { return Ok(false) };
        let runner_up = {
            let runs = &self.runs;
            self.tree.runner_up(|a, b| precedes(runs, a, b))
        };
        let rest = current.batch.len() - current.position;
        let rival = runner_up.and_then(|r| self.runs.get(r)).and_then(|r| r.current.as_ref());
        let free = match rival {
            None => rest,
            Some(rival) => {
                let last = current.position + rest - 1;
                if current.keys.compare(last, &rival.keys, rival.position) == Ordering::Less {
                    rest
                } else if current.keys.compare(current.position, &rival.keys, rival.position) == Ordering::Less {
                    current.keys.count_below(current.position, &rival.keys, rival.position)
                } else {
                    0
                }
            }
        };
        if free > 0 {
            let taken = free.min(self.settings.batch_rows.saturating_sub(self.output.rows()).max(1));
            self.take_stretch(&current, taken);
            self.advance(winner, taken)?;
            self.replay();
        } else {
            self.take_group(&current)?;
        }
        Ok(true)
    }

    /// Rows that no other run has a version of.
    fn take_stretch(&mut self, current: &Current, rows: usize) {
        let end = current.position + rows;
        if self.settings.drop_deletes == DropDeletes::Keep && !has_update_before(current, end) {
            self.output.push_range(current.source, current.position, rows);
            return;
        }
        let mut start = current.position;
        for row in current.position..end {
            if self.drops(current.kind(row), current.sequence(row)) {
                self.output.push_range(current.source, start, row - start);
                start = row + 1;
            }
        }
        self.output.push_range(current.source, start, end - start);
    }

    /// All versions of one key: runs come out of the tree newest first, so the first is the result.
    fn take_group(&mut self, first: &Current) -> Result<(), LsmError> {
        let (source, row) = (first.source, first.position);
        let (kind, sequence) = (first.kind(row), first.sequence(row));
        if !self.drops(kind, sequence) {
            self.output.push_range(source, row, 1);
        }
        loop {
            let run = self.tree.winner();
            let same = self
                .runs
                .get(run)
                .and_then(|r| r.current.as_ref())
                .is_some_and(|current| current.keys.compare(current.position, &first.keys, row) == Ordering::Equal);
            if !same {
                return Ok(());
            }
            self.advance(run, 1)?;
            self.replay();
        }
    }

    /// Whether the result of a key is left out. -U never reaches a data file (trap 39).
    fn drops(&mut self, kind: i8, sequence: i64) -> bool {
        let droppable = match self.settings.drop_deletes {
            DropDeletes::Keep => false,
            DropDeletes::All => true,
            DropDeletes::Below(line) => sequence < line.0,
        };
        let drop = kind == UPDATE_BEFORE || (kind == DELETE && droppable);
        if drop && kind == DELETE {
            self.dropped = self.dropped.max(Some(SequenceNumber(sequence)));
        }
        drop
    }

    fn fill(&mut self) -> Result<Option<KeyValueBatch>, LsmError> {
        if !self.started {
            self.start()?;
        }
        // A batch stays held while the plan may name it: bounded, also where every row is dropped.
        let held = 2 * self.runs.len() + 16;
        loop {
            let mut ended = false;
            while !ended && self.output.rows() < self.settings.batch_rows && self.output.sources() < held {
                ended = !self.step()?;
            }
            let live: Vec<usize> = self.runs.iter().filter_map(|r| r.current.as_ref().map(|c| c.source)).collect();
            let (batch, moved) = self.output.take(&live)?;
            for run in &mut self.runs {
                if let Some(current) = run.current.as_mut() {
                    current.source = moved.get(&current.source).copied().unwrap_or(current.source);
                }
            }
            if ended || !batch.is_empty() {
                return Ok((!batch.is_empty()).then_some(batch));
            }
        }
    }
}

fn has_update_before(current: &Current, end: usize) -> bool {
    current.batch.kind.values().get(current.position..end).is_some_and(|kinds| kinds.contains(&UPDATE_BEFORE))
}

/// Whether run `a` comes out before run `b`: smaller key, then the newer row (so that the first of a key is its result).
fn precedes(runs: &[Run<'_>], a: usize, b: usize) -> bool {
    let current = |i: usize| runs.get(i).and_then(|r| r.current.as_ref());
    let (Some(x), Some(y)) = (current(a), current(b)) else { return current(a).is_some() };
    let (i, j) = (x.position, y.position);
    let order = x
        .keys
        .compare(i, &y.keys, j)
        .then_with(|| y.keys.compare_order(j, &x.keys, i))
        .then_with(|| y.sequence(j).cmp(&x.sequence(i)))
        .then_with(|| is_retract(x.kind(i)).cmp(&is_retract(y.kind(j))));
    order.then(a.cmp(&b)) == Ordering::Less
}

impl Iterator for Merge<'_> {
    type Item = Result<KeyValueBatch, LsmError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let result = self.fill().transpose();
        self.failed = matches!(result, Some(Err(_)));
        result
    }
}
