//! Compacts buckets: pick, plan, merge, upload, commit.
//!
//! Neighbours: the `compact` function and `silt compact`; `lsm` decides and merges on a blocking thread, this module uploads and commits.
//! Invariants: 1. a bucket's rows are the same before and after (17); 2. deletes are dropped only where no older version can live, and on
//! tables with our clock only older than the lateness (rule 7); 3. when time runs out, finished groups of sections are committed and the rest
//! stays as it was; 4. a refused compaction leaves files to the sweep and changes nothing; 5. memory stays within its limit: more runs than it
//! allows are merged in several passes, each a commit.

use std::sync::Arc;

use bytes::Bytes;
use siltstone_commit::{
    changes::{Change, ChangeId, ChangeKind, DroppedDeletes, Outcome},
    context::Authority,
    manifests::Scope,
    protocol,
    sequence::first_of,
};
use siltstone_format::{
    compare::KeyComparator,
    data_file::{DataFileMeta, StoredRow},
    id::{Bucket, Level, SequenceNumber},
    manifest::{FileKind, ManifestEntry},
    options::{ChangelogProducer, MergeEngine, Purpose},
    snapshot::Snapshot,
};
use siltstone_lsm::{
    compact::{CompactStats, CompactStep, CompactionJob, OpenFile},
    levels::Levels,
    merge::{DropDeletes, MergeSettings},
    picker::{self, CompactUnit, PickReason},
    run::CompareKeys,
    section::{Section, sections},
    task::{CompactTask as Plan, TaskOptions},
};
use siltstone_store::{buffered::BufferedUpload, object::PutMode};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{
    debt,
    driver::{ANSWER_MS, drive},
    error::{Result, TableError},
    ingest::refuse_paused,
    memory::{MergeMemory, Shares},
    open_files::opener,
    settings::CompactLimits,
    state,
    table::Table,
    writing::{pick_options, writer_settings},
};

/// Bytes of an uploaded part.
const PART_BYTES: usize = 8 << 20;

/// Times an unknown outcome is looked up again.
const UNKNOWN_MAX: u32 = 5;

/// What to compact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompactRequest {
    /// What the picker chooses.
    Picked,
    /// Everything to the max level.
    Full,
}

/// What came of one bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compacted {
    /// Nothing to do.
    Nothing,
    /// Done and published.
    Done(Box<CompactReport>),
    /// Somebody else changed the bucket meanwhile; its next event or schedule compacts it.
    Conflict(String),
}

/// A finished compaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactReport {
    /// Why these files were picked.
    pub reason: PickReason,
    /// Where the output went.
    pub output_level: Level,
    /// Files read.
    pub files_in: u64,
    /// Files moved without being read.
    pub upgraded: u64,
    /// Files written.
    pub files_out: u64,
    /// Bytes read.
    pub bytes_in: u64,
    /// Bytes written.
    pub bytes_out: u64,
    /// Rows read.
    pub rows_in: u64,
    /// Rows written.
    pub rows_out: u64,
    /// Snapshot that holds the result.
    pub snapshot: Option<i64>,
    /// False when time ran out, or a later pass failed, and a part was left.
    pub complete: bool,
}

impl CompactReport {
    /// Adds the pass that came after.
    fn add(&mut self, next: &Self) {
        self.output_level = next.output_level;
        self.files_in += next.files_in;
        self.upgraded += next.upgraded;
        self.files_out += next.files_out;
        self.bytes_in += next.bytes_in;
        self.bytes_out += next.bytes_out;
        self.rows_in += next.rows_in;
        self.rows_out += next.rows_out;
        self.snapshot = next.snapshot;
        self.complete = next.complete;
    }
}

/// Compacts one bucket of a table opened for compaction.
///
/// # Errors
/// When an object is missing or damaged, or a service does not answer; nothing was changed then.
pub async fn compact_bucket(
    table: &Table,
    partition: &StoredRow,
    bucket: Bucket,
    request: CompactRequest,
    limits: &CompactLimits,
    deadline_ms: i64,
) -> Result<Compacted> {
    refuse_unsupported(table)?;
    let deadline_ms = deadline_ms.saturating_sub(limits.reserve_ms);
    let pass = || pass(table, partition, bucket, request, limits, deadline_ms);
    let mut report = match pass().await? {
        Compacted::Done(report) => report,
        other => return Ok(other),
    };
    while !report.complete && table.ports.clock.now_ms() < deadline_ms {
        // What the passes before have committed is done, whatever becomes of this one.
        match pass().await {
            Ok(Compacted::Done(next)) => report.add(&next),
            Ok(Compacted::Nothing) => report.complete = true,
            Ok(Compacted::Conflict(reason)) => {
                tracing::info!(table = %table.at.name, %bucket, reason, "a later pass of a compaction lost a race");
                break;
            }
            Err(error) => {
                tracing::warn!(table = %table.at.name, %bucket, %error, "a later pass of a compaction failed");
                break;
            }
        }
    }
    Ok(Compacted::Done(report))
}

/// One pick, merge and commit.
async fn pass(
    table: &Table,
    partition: &StoredRow,
    bucket: Bucket,
    request: CompactRequest,
    limits: &CompactLimits,
    deadline_ms: i64,
) -> Result<Compacted> {
    let loaded = drive(protocol::load(&table.context, false), &table.ports, &table.at).await?;
    if let Some(pointer) = &loaded.pointer {
        refuse_paused(table, pointer)?;
    }
    let Some(snapshot) = loaded.snapshot else { return Ok(Compacted::Nothing) };
    let scope = Scope::Buckets([(partition.clone(), bucket)].into());
    let entries = state::live_files(table, &snapshot, scope).await?;
    // The table was altered since it was opened: written by the old schema, the new columns of these files would be lost.
    if let Some(newer) = entries.iter().map(|e| e.file.schema_id).max().filter(|id| *id > table.schema.id) {
        let mut altered =
            Table::with_schema(&table.ports, &table.at, table.context.authority, Purpose::Compact, newer).await?;
        altered.context.incarnation.clone_from(&table.context.incarnation);
        let table = altered;
        return Box::pin(pass(&table, partition, bucket, request, limits, deadline_ms)).await;
    }
    let keys = KeyComparator::new(table.layout.key_types());
    let compare = |a: &StoredRow, b: &StoredRow| keys.compare(a, b);
    let levels = Levels::new(state::files_of(&entries), table.options.compaction.num_levels, &compare)
        .map_err(siltstone_lsm::error::LsmError::from)?;
    let now = table.ports.clock.now_ms();
    let drop_line = match table.context.authority {
        Authority::Pointer => Some(first_of(now.saturating_sub(limits.lateness_ms))),
        Authority::Bare => None,
    };
    let unit = match request {
        CompactRequest::Full => picker::full(&levels, drop_line),
        CompactRequest::Picked => picker::pick(&levels, &pick_options(table, hour_of(now)), now),
    };
    let Some(picked) = unit else { return Ok(Compacted::Nothing) };
    let memory = MergeMemory::new(limits.memory_bytes, &table.layout);
    let (unit, shares, cut) = fitting(&memory, &levels, picked, &compare);
    let drop_line = below_newer(&levels, &unit, drop_line);
    let (reason, output_level) = (unit.reason, unit.output_level);
    let runs_in = levels.runs().iter().filter(|r| r.run.files().iter().any(|f| unit.files.contains(f))).count();
    let oldest = output_level >= levels.oldest_non_empty();
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a ratio of a file size")]
    let small_file_bytes = (table.options.files.target_size as f64 * table.options.compaction.small_file_ratio) as i64;
    let plan = Plan::plan(
        unit,
        &TaskOptions {
            small_file_bytes,
            rewrite_all: table.options.compaction.force_rewrite_all_files,
            max_level: levels.max_level(),
            drop_line,
        },
        &compare,
    )
    .in_portions(u64::try_from(table.options.files.target_size).unwrap_or(u64::MAX));
    if plan.is_empty() {
        return Ok(Compacted::Nothing);
    }
    let drop_deletes = match (oldest, drop_line) {
        (false, _) => DropDeletes::Keep,
        (true, None) => DropDeletes::All,
        (true, Some(line)) => DropDeletes::Below(line),
    };
    let merging =
        Merging { table, entries: &entries, partition, bucket, output_level, drop_deletes, shares, deadline_ms };
    let result = merging.rewrite(&plan).await?;
    let until_ms = deadline_ms.saturating_add(limits.reserve_ms).saturating_sub(ANSWER_MS);
    let facts = Facts { reason, output_level, partition, bucket, now, drop_deletes, runs_in, cut, until_ms };
    commit(table, &entries, plan, result, facts).await
}

/// What of a picked unit can be merged at once, and how; true if that is not all of it.
fn fitting(
    memory: &MergeMemory,
    levels: &Levels,
    picked: CompactUnit,
    keys: &impl CompareKeys,
) -> (CompactUnit, Shares, bool) {
    // Sections are merged one after the other.
    let needs = |unit: &CompactUnit| {
        let sections = sections(unit.files.clone(), keys);
        let needs = sections.iter().map(|section| (memory.least(section.runs.iter()), section.runs.len()));
        needs.max().unwrap_or_default()
    };
    let (least, runs) = needs(&picked);
    if memory.fits(least) {
        return (picked, memory.shares(runs, least), false);
    }
    let files = picked.files.len();
    let unit = picker::part_of(levels, picked, |runs| memory.fits(memory.least(runs.iter().map(|r| &r.run))));
    let cut = unit.files.len() < files;
    let (least, runs) = needs(&unit);
    (unit, memory.shares(runs, least), cut)
}

/// The line below which deletes may go where newer runs stay outside: none of their rows may lie below a delete that is gone.
fn below_newer(levels: &Levels, unit: &CompactUnit, line: Option<SequenceNumber>) -> Option<SequenceNumber> {
    let newer = levels.runs().iter().take_while(|r| !r.run.files().iter().any(|f| unit.files.contains(f)));
    newer.flat_map(|r| r.run.files()).map(|f| f.min_sequence_number).chain(line).min()
}

fn refuse_unsupported(table: &Table) -> Result<()> {
    if table.options.merge_engine != MergeEngine::Deduplicate {
        return Err(TableError::invalid(format!(
            "{}: merge-engine = {} is not compacted by Siltstone yet: let Flink or Spark compact this table",
            table.at.name,
            table.options.merge_engine.name()
        )));
    }
    if !matches!(table.options.changelog_producer, ChangelogProducer::None | ChangelogProducer::Input) {
        return Err(TableError::invalid(format!(
            "{}: a compaction must write this table's changelog (changelog-producer), which Siltstone does not do yet: \
             let Flink or Spark compact it",
            table.at.name
        )));
    }
    Ok(())
}

/// Finished groups of a plan.
#[derive(Debug, Default)]
struct Rewritten {
    /// Groups done, from the first on.
    groups: usize,
    files: Vec<DataFileMeta>,
    stats: CompactStats,
}

/// What the merges of one plan share.
struct Merging<'a> {
    table: &'a Table,
    entries: &'a [ManifestEntry],
    partition: &'a StoredRow,
    bucket: Bucket,
    output_level: Level,
    drop_deletes: DropDeletes,
    shares: Shares,
    /// When merging must end, so that time is left for the commit.
    deadline_ms: i64,
}

impl Merging<'_> {
    fn out_of_time(&self) -> bool {
        self.table.ports.clock.now_ms() >= self.deadline_ms
    }

    /// Merges group after group until time runs out.
    async fn rewrite(&self, plan: &Plan) -> Result<Rewritten> {
        let mut done = Rewritten::default();
        if plan.rewrites.is_empty() {
            return Ok(done);
        }
        let (sizes, batch_bytes) = (self.shares.source, self.shares.batch_bytes);
        let open = opener(self.table, self.entries, sizes, batch_bytes).await?;
        let writer_id = self.table.ports.ids.uuid();
        for group in &plan.rewrites {
            let id = format!("{writer_id}-{}", done.groups);
            let Some((files, stats)) = self.merge(group.clone(), open.clone(), &id).await? else { break };
            done.groups += 1;
            done.files.extend(files);
            done.stats.rows_in += stats.rows_in;
            done.stats.rows_out += stats.rows_out;
            done.stats.dropped_deletes = done.stats.dropped_deletes.max(stats.dropped_deletes);
        }
        match plan.rewrites.first() {
            Some(group) if done.groups == 0 && plan.upgrades.is_empty() => Err(self.too_large(group)),
            _ => Ok(done),
        }
    }

    /// The error of a job of which not even the first group fits into the time of an invocation.
    fn too_large(&self, group: &[Section]) -> TableError {
        let files: Vec<&DataFileMeta> = group.iter().flat_map(Section::files).collect();
        let bytes: u64 = files.iter().map(|f| f.file_size.unsigned_abs()).sum();
        TableError::Unavailable(format!(
            "{}: bucket {} cannot be compacted in the time of this invocation: {} files of {bytes} bytes, of which the first is {}, must be \
             merged at once; nothing was changed. Give `compact` more memory (it brings more CPU) or a longer timeout, or run `silt compact`",
            self.table.at.name,
            self.bucket,
            files.len(),
            files.first().map_or("none", |f| f.file_name.as_str()),
        ))
    }

    /// Merges one group on a blocking thread and uploads what comes out. `None` if time ran out: its files are left to the sweep.
    async fn merge(
        &self,
        group: Vec<Section>,
        open: OpenFile<'static>,
        id: &str,
    ) -> Result<Option<(Vec<DataFileMeta>, CompactStats)>> {
        let (mut receive, worker) = self.start(group, open, id);
        let (values, names) =
            (self.table.partition_values(self.partition)?, writer_settings(self.table, self.output_level));
        let mut files: Vec<DataFileMeta> = Vec::new();
        let mut upload: Option<BufferedUpload> = None;
        let merged = loop {
            let step = match receive.recv().await {
                Some(Ok(step)) => step,
                Some(Err(error)) => break Err(error),
                None => break Err(TableError::Bug("the merge thread died".to_owned())),
            };
            let (bytes, finished): (Bytes, Option<DataFileMeta>) = match step {
                CompactStep::Bytes(bytes) => (bytes, None),
                CompactStep::FileDone(bytes, meta) => (bytes, Some(*meta)),
                CompactStep::Finished(stats) => break Ok(Some(stats)),
            };
            if self.out_of_time() {
                break Ok(None);
            }
            let current = match &mut upload {
                Some(current) => current,
                none => {
                    let name = names.file_name(&format!("{id}-{}", files.len()));
                    let key = self.table.data_key(&values, self.bucket, &name)?;
                    none.insert(BufferedUpload::new(self.table.ports.objects.clone(), key, PART_BYTES))
                }
            };
            if let Err(error) = current.write(bytes).await {
                break Err((*error).into());
            }
            if let Some(meta) = finished {
                if let Some(current) = upload.take()
                    && let Err(error) = current.finish(PutMode::Overwrite).await
                {
                    break Err((*error).into());
                }
                files.push(meta);
            }
        };
        // Without a receiver the thread ends after its step: no reading outlives this.
        drop(receive);
        let ended = worker.await.map_err(|e| TableError::Bug(format!("the merge thread died: {e}")));
        if let Some(upload) = upload {
            abandon(upload).await;
        }
        let stats = merged?;
        ended?;
        Ok(stats.map(|stats| (files, stats)))
    }

    /// The thread that merges, and where its steps come out.
    fn start(
        &self,
        group: Vec<Section>,
        open: OpenFile<'static>,
        id: &str,
    ) -> (mpsc::Receiver<Result<CompactStep>>, JoinHandle<()>) {
        let level = self.output_level;
        let mut settings = writer_settings(self.table, level);
        settings.row_group_bytes = settings.row_group_bytes.min(self.shares.row_group_bytes);
        let merge = MergeSettings {
            drop_deletes: self.drop_deletes,
            batch_bytes: self.shares.batch_bytes,
            ..MergeSettings::default()
        };
        let created = self.table.ports.clock.now_ms();
        let (settings, id) = (Arc::new(settings), id.to_owned());
        let (named, mut number) = (settings.clone(), 0);
        let names = Box::new(move || {
            number += 1;
            (named.file_name(&format!("{id}-{}", number - 1)), created)
        });
        let layout = self.table.layout.clone();
        let (send, receive) = mpsc::channel::<Result<CompactStep>>(2);
        let worker = tokio::task::spawn_blocking(move || {
            let mut job = CompactionJob::new(&layout, settings, merge, level, vec![group], open, names);
            loop {
                let step = job.step().map_err(TableError::from);
                let last = matches!(step, Ok(CompactStep::Finished(_)) | Err(_));
                if send.blocking_send(step).is_err() || last {
                    return;
                }
            }
        });
        (receive, worker)
    }
}

async fn abandon(upload: BufferedUpload) {
    if let Err(error) = upload.abort().await {
        tracing::warn!(%error, "an unfinished upload could not be aborted; the bucket's lifecycle rule removes it");
    }
}

/// What the commit needs to know beside the files.
struct Facts<'a> {
    reason: PickReason,
    output_level: Level,
    partition: &'a StoredRow,
    bucket: Bucket,
    now: i64,
    drop_deletes: DropDeletes,
    runs_in: usize,
    /// Memory allowed only a part of what was picked.
    cut: bool,
    /// When the commit waits for nobody any more.
    until_ms: i64,
}

async fn commit(
    table: &Table,
    entries: &[ManifestEntry],
    plan: Plan,
    done: Rewritten,
    facts: Facts<'_>,
) -> Result<Compacted> {
    let complete = done.groups == plan.rewrites.len() && !facts.cut;
    let inputs: Vec<&DataFileMeta> =
        plan.rewrites.iter().take(done.groups).flatten().flat_map(Section::files).collect();
    let entry_of = |file: &DataFileMeta| {
        entries
            .iter()
            .find(|e| e.file.file_name == file.file_name && e.file.level == file.level)
            .cloned()
            .ok_or_else(|| TableError::Bug(format!("{} is not among the bucket's files", file.file_name)))
    };
    let total_buckets = entries.first().map_or(1, |e| e.total_buckets);
    let id = ChangeId(table.ports.ids.uuid().as_u128());
    let mut change = Change::new(id, ChangeKind::Compact, table.schema.id, facts.now);
    for file in inputs.iter().copied().chain(&plan.upgrades) {
        change.files.push(ManifestEntry { kind: FileKind::Delete, ..entry_of(file)? });
    }
    for file in &done.files {
        change.files.push(ManifestEntry {
            kind: FileKind::Add,
            partition: facts.partition.clone(),
            bucket: facts.bucket,
            total_buckets,
            file: file.clone(),
        });
    }
    for file in &plan.upgrades {
        let mut entry = ManifestEntry { kind: FileKind::Add, ..entry_of(file)? };
        entry.file.level = facts.output_level;
        change.files.push(entry);
    }
    change.dropped_deletes = dropped_deletes(done.stats.dropped_deletes, facts.drop_deletes);
    let sum = |files: &mut dyn Iterator<Item = &DataFileMeta>| {
        files.map(|f| u64::try_from(f.file_size).unwrap_or(0)).sum::<u64>()
    };
    let mut report = CompactReport {
        reason: facts.reason,
        output_level: facts.output_level,
        files_in: inputs.len() as u64,
        upgraded: plan.upgrades.len() as u64,
        files_out: done.files.len() as u64,
        bytes_in: sum(&mut inputs.iter().copied()),
        bytes_out: sum(&mut done.files.iter()),
        rows_in: done.stats.rows_in,
        rows_out: done.stats.rows_out,
        snapshot: None,
        complete,
    };
    for _ in 0..UNKNOWN_MAX {
        let machine = protocol::commit_until(&table.context, change.clone(), None, facts.until_ms);
        let done = drive(machine, &table.ports, &table.at).await?;
        // Under contention it may have committed batches of others on its way.
        debt::add(table, &done.runs, facts.until_ms).await;
        match done.outcome {
            Outcome::Committed { snapshot, .. } => {
                report.snapshot = snapshot.map(|s| s.0);
                if table.context.authority == Authority::Pointer {
                    let path = table.partition_path(&table.partition_values(facts.partition)?)?;
                    debt::take_off(table, &path, facts.bucket, facts.runs_in.saturating_sub(1)).await;
                }
                return Ok(Compacted::Done(Box::new(report)));
            }
            Outcome::Conflict(conflict) => return Ok(Compacted::Conflict(conflict.to_string())),
            Outcome::Unknown { .. } => {}
        }
    }
    Err(TableError::Unavailable(format!(
        "{}: the commit of a compaction got no answer {UNKNOWN_MAX} times; it took effect or it did not, both are safe: try again",
        table.at.name
    )))
}

/// What the commit is told of deletes that are gone: with a line, every row below the highest of them, and one of its own number, conflicts.
fn dropped_deletes(highest: Option<SequenceNumber>, allowed: DropDeletes) -> DroppedDeletes {
    match (highest, allowed) {
        (None, _) | (_, DropDeletes::Keep) => DroppedDeletes::None,
        (Some(_), DropDeletes::All) => DroppedDeletes::All,
        (Some(highest), DropDeletes::Below(_)) => DroppedDeletes::Below(SequenceNumber(highest.0.saturating_add(1))),
    }
}

/// Every bucket of the table that has files, with the number of its runs.
///
/// # Errors
/// When manifests cannot be read.
pub async fn buckets(table: &Table) -> Result<Vec<(StoredRow, Bucket, usize)>> {
    let Some(snapshot) = table.current().await? else { return Ok(Vec::new()) };
    let levels = levels(table, &snapshot).await?;
    Ok(levels.into_iter().map(|(partition, bucket, levels)| (partition, bucket, levels.runs().len())).collect())
}

/// The buckets of a snapshot in which a compaction would find work: too many runs, or what the table's options say beside that.
///
/// # Errors
/// When manifests cannot be read.
pub async fn due(table: &Table, snapshot: &Snapshot) -> Result<Vec<(StoredRow, Bucket)>> {
    let now = table.ports.clock.now_ms();
    let options = pick_options(table, hour_of(now));
    let mut levels = levels(table, snapshot).await?;
    levels.retain(|(_, _, levels)| picker::pick(levels, &options, now).is_some());
    Ok(levels.into_iter().map(|(partition, bucket, _)| (partition, bucket)).collect())
}

async fn levels(table: &Table, snapshot: &Snapshot) -> Result<Vec<(StoredRow, Bucket, Levels)>> {
    let entries = state::live_files(table, snapshot, Scope::Everything).await?;
    let keys = KeyComparator::new(table.layout.key_types());
    state::by_bucket(entries)
        .into_iter()
        .map(|((partition, bucket), entries)| {
            let levels = Levels::new(
                state::files_of(&entries),
                table.options.compaction.num_levels,
                &|a: &StoredRow, b: &StoredRow| keys.compare(a, b),
            )
            .map_err(siltstone_lsm::error::LsmError::from)?;
            Ok((partition, bucket, levels))
        })
        .collect()
}

/// Hour of the day, UTC.
fn hour_of(now_ms: i64) -> i32 {
    i32::try_from(now_ms.rem_euclid(86_400_000) / 3_600_000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The line is exclusive: a writer of another engine may have given out the delete's own number again.
    #[test]
    fn a_dropped_delete_conflicts_with_rows_up_to_its_own_number() {
        let (nine, line) = (Some(SequenceNumber(9)), DropDeletes::Below(SequenceNumber(50)));
        assert_eq!(dropped_deletes(nine, line), DroppedDeletes::Below(SequenceNumber(10)));
        assert_eq!(dropped_deletes(nine, DropDeletes::All), DroppedDeletes::All);
        assert_eq!(dropped_deletes(nine, DropDeletes::Keep), DroppedDeletes::None);
        assert_eq!(dropped_deletes(None, line), DroppedDeletes::None);
    }
}
