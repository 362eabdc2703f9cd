//! Merges the sorted runs of one bucket into one stream of one row per key, ascending by key.
//!
//! Above: `reader` and `buffer` (inputs). Below: `function` (what survives), `writer` (output files). No I/O of its own: inputs are
//! iterators of batches. Invariants: 1. output keys strictly ascend; 2. of a key's rows the newest wins: by `sequence.field`, then
//! sequence number, on a tie adds after retracts, then the newer run; 3. a delete is dropped only as [`DropDeletes`] allows, and the
//! largest number dropped is reported; 4. at most two batches per run and two more are held beside the output batch, whatever the input size.

mod function;
mod loser_tree;
mod output;
#[cfg(test)]
mod tests;

use std::{cmp::Ordering, sync::Arc};

use arrow::buffer::ScalarBuffer;
use siltstone_format::id::SequenceNumber;

use crate::{
    batch::{KeyValueBatch, is_retract},
    error::LsmError,
    keys::{KeyColumns, KeyEncoder},
    layout::FileLayout,
};
use function::{MergeFunction, Version, deduplicate::Deduplicate};
use loser_tree::LoserTree;
use output::Output;

/// A run that won so many times in a row is asked how far it is alone. Fewer, and interleaved runs pay for the question.
const STREAK: u32 = 6;

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
    /// Bytes of an output batch, by the average row of each input batch; one row at the least.
    pub batch_bytes: usize,
    /// Deletes.
    pub drop_deletes: DropDeletes,
}

impl Default for MergeSettings {
    fn default() -> Self {
        Self { batch_rows: 8192, batch_bytes: 8 << 20, drop_deletes: DropDeletes::Keep }
    }
}

/// The merge as an iterator of output batches.
pub struct Merge<'a> {
    runs: Vec<Run<'a>>,
    race: Race,
    tree: LoserTree,
    encoder: KeyEncoder,
    settings: MergeSettings,
    function: Deduplicate,
    output: Output,
    /// Versions of the key at hand; kept for its memory.
    versions: Vec<Version>,
    /// The last winner and how often it won in a row.
    streak: (usize, u32),
    started: bool,
    failed: bool,
}

struct Run<'a> {
    batches: RunBatches<'a>,
}

/// Where the runs' cursors stand.
struct Race {
    heads: Vec<Head>,
    cursors: Vec<Option<Cursor>>,
    /// Whether equal prefixes mean equal keys.
    exact: bool,
}

/// What decides most matches, side by side in memory.
#[derive(Clone, Copy)]
struct Head {
    prefix: u64,
    sequence: i64,
    live: bool,
}

const ENDED: Head = Head { prefix: u64::MAX, sequence: 0, live: false };

/// The batch that a run's cursor stands in.
struct Cursor {
    keys: Arc<KeyColumns>,
    sequence: ScalarBuffer<i64>,
    kind: ScalarBuffer<i8>,
    /// Whether any row of the batch takes something back.
    retracts: bool,
    position: usize,
    /// Place of the batch in the output's table of sources.
    source: usize,
}

impl Cursor {
    fn head(&self) -> Head {
        match self.sequence.get(self.position) {
            Some(&sequence) => Head { prefix: self.keys.prefix(self.position), sequence, live: true },
            None => ENDED,
        }
    }

    fn version(&self, row: usize) -> Version {
        Version {
            source: self.source,
            row,
            kind: self.kind.get(row).copied().unwrap_or(0),
            sequence: self.sequence.get(row).copied().unwrap_or(i64::MIN),
        }
    }
}

impl Race {
    fn head(&self, run: usize) -> Head {
        self.heads.get(run).copied().unwrap_or(ENDED)
    }

    fn cursor(&self, run: usize) -> Option<&Cursor> {
        self.cursors.get(run)?.as_ref()
    }

    /// Whether run `a` comes out before run `b`: smaller key, then the newer row (so that the first of a key is its result).
    #[inline]
    fn precedes(&self, a: usize, b: usize) -> bool {
        let (x, y) = (self.head(a), self.head(b));
        if x.prefix == y.prefix { self.precedes_at_equal_prefix(a, b) } else { x.prefix < y.prefix }
    }

    fn precedes_at_equal_prefix(&self, a: usize, b: usize) -> bool {
        let (Some(x), Some(y)) = (self.cursor(a), self.cursor(b)) else { return self.cursor(a).is_some() };
        let (i, j) = (x.position, y.position);
        let key = if self.exact { Ordering::Equal } else { x.keys.compare(i, &y.keys, j) };
        let order = key
            .then_with(|| y.keys.compare_order(j, &x.keys, i))
            .then_with(|| self.head(b).sequence.cmp(&self.head(a).sequence))
            .then_with(|| is_retract(x.version(i).kind).cmp(&is_retract(y.version(j).kind)));
        order.then(a.cmp(&b)) == Ordering::Less
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
    /// [`LsmError::Unsupported`] for a merge engine without a function here, [`LsmError::Format`] for an `ignore-delete` that is no
    /// boolean; else as [`KeyEncoder::new`].
    pub fn new(layout: &FileLayout, runs: Vec<RunBatches<'a>>, settings: MergeSettings) -> Result<Self, LsmError> {
        function::refuse_other_engines(layout)?;
        let encoder = KeyEncoder::new(layout)?;
        let runs: Vec<_> = runs.into_iter().map(|batches| Run { batches }).collect();
        Ok(Self {
            race: Race {
                heads: vec![ENDED; runs.len()],
                cursors: runs.iter().map(|_| None).collect(),
                exact: encoder.is_exact(),
            },
            tree: LoserTree::new(runs.len()),
            runs,
            encoder,
            settings,
            function: Deduplicate::new(layout, settings.drop_deletes)?,
            output: Output::new(layout.values().clone()),
            versions: Vec::new(),
            streak: (usize::MAX, 0),
            started: false,
            failed: false,
        })
    }

    /// The largest sequence number of a delete that was left out so far.
    #[must_use]
    pub fn dropped_deletes(&self) -> Option<SequenceNumber> {
        self.function.dropped()
    }

    /// Loads the next non-empty batch of a run.
    fn load(&mut self, run: usize) -> Result<(), LsmError> {
        let mut cursor = None;
        while let Some(batch) = self.runs.get_mut(run).and_then(|r| r.batches.next()).transpose()? {
            if !batch.is_empty() {
                cursor = Some(self.cursor_of(batch)?);
                break;
            }
        }
        if let (Some(head), Some(place)) = (self.race.heads.get_mut(run), self.race.cursors.get_mut(run)) {
            *head = cursor.as_ref().map_or(ENDED, Cursor::head);
            *place = cursor;
        }
        Ok(())
    }

    fn cursor_of(&mut self, batch: KeyValueBatch) -> Result<Cursor, LsmError> {
        let keys = match &batch.keys {
            Some(keys) => keys.clone(),
            None => Arc::new(self.encoder.encode(&batch.values)?),
        };
        Ok(Cursor {
            sequence: batch.sequence.values().clone(),
            kind: batch.kind.values().clone(),
            retracts: batch.kind.values().iter().any(|kind| is_retract(*kind)),
            position: 0,
            source: self.output.add_source(batch, keys.clone()),
            keys,
        })
    }

    /// Moves a run's cursor by `rows` and plays its matches.
    fn advance(&mut self, run: usize, rows: usize) -> Result<(), LsmError> {
        if let (Some(head), Some(Some(cursor))) = (self.race.heads.get_mut(run), self.race.cursors.get_mut(run)) {
            cursor.position += rows;
            *head = cursor.head();
        }
        if !self.race.head(run).live {
            self.load(run)?;
        }
        let race = &self.race;
        self.tree.replay(|a, b| race.precedes(a, b));
        Ok(())
    }

    fn start(&mut self) -> Result<(), LsmError> {
        for run in 0..self.runs.len() {
            self.load(run)?;
        }
        let race = &self.race;
        self.tree.build(|a, b| race.precedes(a, b));
        self.started = true;
        Ok(())
    }

    /// Takes all versions of the smallest key, or a stretch of rows that overlaps with no other run; false at the end.
    fn step(&mut self) -> Result<bool, LsmError> {
        let winner = self.tree.winner();
        if !self.race.head(winner).live {
            return Ok(false);
        }
        self.streak = if self.streak.0 == winner { (winner, self.streak.1 + 1) } else { (winner, 0) };
        if self.streak.1 >= STREAK {
            match self.alone(winner) {
                0 => self.streak.1 = 0,
                rows => return self.take_stretch(winner, rows).map(|()| true),
            }
        }
        self.take_key(winner)?;
        Ok(true)
    }

    /// Rows from the winner's cursor on whose keys are below every other run's.
    fn alone(&self, winner: usize) -> usize {
        let Some(cursor) = self.race.cursor(winner) else { return 0 };
        let rest = cursor.sequence.len().saturating_sub(cursor.position);
        let rival = self.tree.runner_up(|a, b| self.race.precedes(a, b)).and_then(|run| self.race.cursor(run));
        match rival {
            None => rest,
            Some(rival) => cursor.keys.count_below(cursor.position, &rival.keys, rival.position),
        }
    }

    /// Rows that no other run has a version of.
    fn take_stretch(&mut self, run: usize, rows: usize) -> Result<(), LsmError> {
        let Some(cursor) = self.race.cursor(run) else { return Ok(()) };
        let (source, start) = (cursor.source, cursor.position);
        let left = self.settings.batch_rows.saturating_sub(self.output.rows());
        let rows = rows.min(left).min(self.output.rows_that_fit(source, self.settings.batch_bytes)).max(1);
        if self.function.passes(cursor.retracts) {
            self.output.push_range(source, start, rows);
        } else {
            for row in start..start + rows {
                self.function.result(&[cursor.version(row)], &mut self.output);
            }
        }
        self.advance(run, rows)
    }

    /// All versions of one key: they come out of the tree newest first.
    fn take_key(&mut self, mut run: usize) -> Result<(), LsmError> {
        let prefix = self.race.head(run).prefix;
        self.versions.clear();
        while let Some(cursor) = self.race.cursor(run) {
            self.versions.push(cursor.version(cursor.position));
            self.advance(run, 1)?;
            run = self.tree.winner();
            let next = self.race.head(run);
            if next.prefix != prefix || !next.live || !self.same_key(run) {
                break;
            }
        }
        self.function.result(&self.versions, &mut self.output);
        Ok(())
    }

    /// Whether `run` stands at the key of the versions at hand; their prefixes are equal.
    fn same_key(&self, run: usize) -> bool {
        if self.race.exact {
            return true;
        }
        let (Some(cursor), Some(first)) = (self.race.cursor(run), self.versions.first()) else { return false };
        let keys = self.output.keys(first.source);
        keys.is_some_and(|keys| cursor.keys.compare(cursor.position, keys, first.row) == Ordering::Equal)
    }

    fn fill(&mut self) -> Result<Option<KeyValueBatch>, LsmError> {
        if !self.started {
            self.start()?;
        }
        // A batch stays held while the plan may name it: bounded, also where every row is dropped.
        let held = 2 * self.runs.len() + 2;
        loop {
            let mut ended = false;
            while !ended
                && self.output.rows() < self.settings.batch_rows
                && self.output.bytes() < self.settings.batch_bytes
                && self.output.sources() < held
            {
                ended = !self.step()?;
            }
            let live: Vec<usize> = self.race.cursors.iter().flatten().map(|cursor| cursor.source).collect();
            let batch = self.output.take(&live)?;
            for (place, cursor) in self.race.cursors.iter_mut().flatten().enumerate() {
                cursor.source = place;
            }
            if ended || !batch.is_empty() {
                return Ok((!batch.is_empty()).then_some(batch));
            }
        }
    }
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
