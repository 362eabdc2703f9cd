//! One compaction: groups of sections in, files of the output level out, step by step.
//!
//! Neighbours: `task` says what to rewrite, `merge` and `writer` do it, `table` uploads between the steps.
//! Invariants: 1. output files ascend and are disjoint; 2. a file is closed at the target number of rows or at about the
//! target size, always between two keys;
//! 3. memory is two batches per open run, one output batch and one row group; 4. a step ends after each output batch: the caller can look at the
//! clock and stop.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use siltstone_format::{
    data_file::{DataFileMeta, FileSource},
    id::{Level, SequenceNumber},
};

use crate::{
    batch::KeyValueBatch,
    error::LsmError,
    layout::FileLayout,
    merge::{Merge, MergeSettings, RunBatches},
    run::SortedRun,
    section::Section,
    writer::{RunWriter, WriterSettings},
};

/// Opens the rows of a data file, in the current schema.
pub type OpenFile<'a> = Arc<dyn Fn(&DataFileMeta) -> Result<RunBatches<'a>, LsmError> + Send + Sync + 'a>;

/// What a step brought.
#[derive(Debug)]
pub enum CompactStep {
    /// More bytes of the file being written; often none.
    Bytes(Bytes),
    /// The last bytes of a file; with its description.
    FileDone(Bytes, Box<DataFileMeta>),
    /// Everything is merged.
    Finished(CompactStats),
}

/// Totals of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompactStats {
    /// Rows read.
    pub rows_in: u64,
    /// Rows written.
    pub rows_out: u64,
    /// Largest sequence number of a dropped delete.
    pub dropped_deletes: Option<SequenceNumber>,
}

/// Names and times of output files come from the caller: the engine has neither clock nor randomness.
pub type NameFile<'a> = Box<dyn FnMut() -> (String, i64) + Send + 'a>;

/// A running compaction of one bucket.
pub struct CompactionJob<'a> {
    layout: FileLayout,
    settings: Arc<WriterSettings>,
    merge_settings: MergeSettings,
    level: Level,
    open: OpenFile<'a>,
    name: NameFile<'a>,
    groups: VecDeque<VecDeque<Section>>,
    merge: Option<Merge<'a>>,
    writer: Option<RunWriter>,
    /// Rows of the last batch that the closed file had no place for.
    rest: Option<KeyValueBatch>,
    stats: CompactStats,
}

impl std::fmt::Debug for CompactionJob<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CompactionJob").field("level", &self.level).field("stats", &self.stats).finish()
    }
}

impl<'a> CompactionJob<'a> {
    /// A job over `groups` of adjacent sections; each group becomes one series of files.
    #[must_use]
    pub fn new(
        layout: &FileLayout,
        settings: Arc<WriterSettings>,
        merge_settings: MergeSettings,
        level: Level,
        groups: Vec<Vec<Section>>,
        open: OpenFile<'a>,
        name: NameFile<'a>,
    ) -> Self {
        Self {
            layout: layout.clone(),
            settings,
            merge_settings,
            level,
            open,
            name,
            groups: groups.into_iter().map(VecDeque::from).collect(),
            merge: None,
            writer: None,
            rest: None,
            stats: CompactStats::default(),
        }
    }

    /// Merges and writes one batch, or closes a file.
    ///
    /// # Errors
    /// Whatever reading, merging or encoding meets; the job is over then.
    pub fn step(&mut self) -> Result<CompactStep, LsmError> {
        loop {
            if self.writer.as_ref().is_some_and(|writer| self.is_full(writer)) {
                return self.close();
            }
            match self.next_batch()? {
                Some(batch) => {
                    let batch = self.cut(batch);
                    self.stats.rows_out += batch.len() as u64;
                    let writer = match &mut self.writer {
                        Some(writer) => writer,
                        none => none.insert(RunWriter::new(
                            &self.layout,
                            self.settings.clone(),
                            self.level,
                            FileSource::Compact,
                        )?),
                    };
                    writer.write(&batch)?;
                    return Ok(CompactStep::Bytes(writer.take_bytes()));
                }
                None if self.writer.is_some() => return self.close(),
                None if self.groups.is_empty() => return Ok(CompactStep::Finished(self.stats)),
                None => {}
            }
        }
    }

    fn is_full(&self, writer: &RunWriter) -> bool {
        writer.estimated_bytes() >= self.settings.target_file_bytes || self.rows_left() == 0
    }

    /// Rows that the open file, or else the next one, still takes.
    fn rows_left(&self) -> u64 {
        let rows = self.writer.as_ref().map_or(0, |writer| writer.rows().unsigned_abs());
        self.settings.target_file_rows.max(1).saturating_sub(rows)
    }

    /// The rows that fit into the open file; the others wait for the next one.
    fn cut(&mut self, batch: KeyValueBatch) -> KeyValueBatch {
        let fits = usize::try_from(self.rows_left()).unwrap_or(usize::MAX);
        if batch.len() <= fits {
            return batch;
        }
        self.rest = Some(batch.slice(fits, batch.len() - fits));
        batch.slice(0, fits)
    }

    fn close(&mut self) -> Result<CompactStep, LsmError> {
        let Some(writer) = self.writer.take() else { return Ok(CompactStep::Finished(self.stats)) };
        let (name, created) = (self.name)();
        let (bytes, meta) = writer.finish(name, created)?;
        Ok(CompactStep::FileDone(bytes, Box::new(meta)))
    }

    /// The next merged batch of the current group; `None` at its end.
    fn next_batch(&mut self) -> Result<Option<KeyValueBatch>, LsmError> {
        if let Some(rest) = self.rest.take() {
            return Ok(Some(rest));
        }
        loop {
            if let Some(merge) = &mut self.merge {
                if let Some(batch) = merge.next().transpose()? {
                    return Ok(Some(batch));
                }
                self.stats.dropped_deletes = self.stats.dropped_deletes.max(merge.dropped_deletes());
                self.merge = None;
            }
            let Some(group) = self.groups.front_mut() else { return Ok(None) };
            let Some(section) = group.pop_front() else {
                self.groups.pop_front();
                return Ok(None);
            };
            self.stats.rows_in += section.files().map(|f| u64::try_from(f.row_count).unwrap_or(0)).sum::<u64>();
            let runs = section.runs.into_iter().map(|run| run_batches(run, self.open.clone())).collect();
            self.merge = Some(Merge::new(&self.layout, runs, self.merge_settings)?);
        }
    }
}

/// The batches of a run: its files are opened one after the other.
#[must_use]
pub fn run_batches<'a>(run: SortedRun, open: OpenFile<'a>) -> RunBatches<'a> {
    let mut files: VecDeque<DataFileMeta> = run.into_files().into();
    let mut current: Option<RunBatches<'a>> = None;
    Box::new(std::iter::from_fn(move || {
        loop {
            if let Some(batches) = &mut current {
                match batches.next() {
                    Some(result) => return Some(result),
                    None => current = None,
                }
            }
            match open(&files.pop_front()?) {
                Ok(batches) => current = Some(batches),
                Err(error) => {
                    files.clear();
                    return Some(Err(error));
                }
            }
        }
    }))
}
