//! Compacts buckets: pick, plan, merge, upload, commit.
//!
//! Neighbours: the `compact` function and `silt compact`; `lsm` decides and merges on a blocking thread, this module uploads and commits.
//! Invariants: 1. a bucket's rows are the same before and after (17); 2. deletes are dropped only where no older version can live, and on
//! tables with our clock only older than the lateness (rule 7); 3. when time runs out, finished sections are committed and the rest stays as
//! it was; 4. a refused compaction leaves files to the sweep and changes nothing.

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
};
use siltstone_lsm::{
    compact::{CompactStats, CompactStep, CompactionJob},
    levels::Levels,
    merge::{DropDeletes, MergeSettings},
    picker::{self, PickReason},
    section::Section,
    task::{CompactTask as Plan, TaskOptions},
};
use siltstone_store::{buffered::BufferedUpload, object::PutMode};
use tokio::sync::mpsc;

use crate::{
    debt,
    driver::drive,
    error::{Result, TableError},
    ingest::refuse_paused,
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
    /// False when time ran out and a part was left.
    pub complete: bool,
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
        return Box::pin(compact_bucket(&table, partition, bucket, request, limits, deadline_ms)).await;
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
    let hour = i32::try_from(now.rem_euclid(86_400_000) / 3_600_000).unwrap_or(0);
    let unit = match request {
        CompactRequest::Full => picker::full(&levels, drop_line),
        CompactRequest::Picked => picker::pick(&levels, &pick_options(table, hour), now),
    };
    let Some(unit) = unit else { return Ok(Compacted::Nothing) };
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
    );
    if plan.is_empty() {
        return Ok(Compacted::Nothing);
    }
    let drop_deletes = match (oldest, drop_line) {
        (false, _) => DropDeletes::Keep,
        (true, None) => DropDeletes::All,
        (true, Some(line)) => DropDeletes::Below(line),
    };
    let deadline_ms = deadline_ms.saturating_sub(limits.reserve_ms);
    let result = rewrite(table, &entries, &plan, output_level, drop_deletes, deadline_ms, limits).await?;
    commit(table, &entries, plan, result, Facts { reason, output_level, partition, bucket, now, drop_deletes, runs_in })
        .await
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

/// Merges group after group on a blocking thread and uploads what comes out; stops between two groups when time runs out.
async fn rewrite(
    table: &Table,
    entries: &[ManifestEntry],
    plan: &Plan,
    output_level: Level,
    drop_deletes: DropDeletes,
    deadline_ms: i64,
    limits: &CompactLimits,
) -> Result<Rewritten> {
    let mut done = Rewritten::default();
    if plan.rewrites.is_empty() {
        return Ok(done);
    }
    let open = opener(table, entries).await?;
    let writer_id = table.ports.ids.uuid();
    for group in &plan.rewrites {
        if done.groups > 0 && table.ports.clock.now_ms() >= deadline_ms {
            break;
        }
        let out = merge_group(
            table,
            group.clone(),
            open.clone(),
            output_level,
            drop_deletes,
            limits,
            &format!("{writer_id}-{}", done.groups),
            entries,
        )
        .await?;
        let late = table.ports.clock.now_ms() >= deadline_ms.saturating_add(limits.reserve_ms);
        if late {
            return Err(TableError::Unavailable(format!(
                "{}: the time of this invocation is over in the middle of a section; give `compact` more memory (it brings more CPU) or \
                 a longer timeout",
                table.at.name
            )));
        }
        done.groups += 1;
        done.files.extend(out.0);
        done.stats.rows_in += out.1.rows_in;
        done.stats.rows_out += out.1.rows_out;
        done.stats.dropped_deletes = done.stats.dropped_deletes.max(out.1.dropped_deletes);
    }
    Ok(done)
}

#[expect(
    clippy::too_many_arguments,
    reason = "one private step of `rewrite`, named arguments read better than a struct used once"
)]
async fn merge_group(
    table: &Table,
    group: Vec<Section>,
    open: siltstone_lsm::compact::OpenFile<'static>,
    output_level: Level,
    drop_deletes: DropDeletes,
    limits: &CompactLimits,
    id: &str,
    entries: &[ManifestEntry],
) -> Result<(Vec<DataFileMeta>, CompactStats)> {
    let mut settings = writer_settings(table, output_level);
    settings.row_group_bytes =
        settings.row_group_bytes.min(usize::try_from(limits.memory_bytes / 8).unwrap_or(usize::MAX));
    let (settings, layout) = (Arc::new(settings), table.layout.clone());
    let merge = MergeSettings { drop_deletes, ..MergeSettings::default() };
    let name = {
        let (settings, id) = (settings.clone(), id.to_owned());
        move |n: usize| settings.file_name(&format!("{id}-{n}"))
    };
    let created = table.ports.clock.now_ms();
    let (send, mut receive) = mpsc::channel::<Result<CompactStep>>(4);
    let namer = name.clone();
    let worker = tokio::task::spawn_blocking(move || {
        let mut number = 0;
        let names = Box::new(move || {
            number += 1;
            (namer(number - 1), created)
        });
        let mut job = CompactionJob::new(&layout, settings, merge, output_level, vec![group], open, names);
        loop {
            let step = job.step().map_err(TableError::from);
            let last = matches!(step, Ok(CompactStep::Finished(_)) | Err(_));
            if send.blocking_send(step).is_err() || last {
                return;
            }
        }
    });
    let (partition, bucket) = match entries.first() {
        Some(entry) => (table.partition_values(&entry.partition)?, entry.bucket),
        None => return Err(TableError::Bug("a plan without files".to_owned())),
    };
    let mut files: Vec<DataFileMeta> = Vec::new();
    let mut upload: Option<BufferedUpload> = None;
    let start = |number: usize| -> Result<BufferedUpload> {
        let key = table.data_key(&partition, bucket, &name(number))?;
        Ok(BufferedUpload::new(table.ports.objects.clone(), key, PART_BYTES))
    };
    let merged = loop {
        let step = match receive.recv().await {
            Some(Ok(step)) => step,
            Some(Err(error)) => break Err(error),
            None => break Err(TableError::Bug("the merge thread died".to_owned())),
        };
        let (bytes, finished): (Bytes, Option<DataFileMeta>) = match step {
            CompactStep::Bytes(bytes) => (bytes, None),
            CompactStep::FileDone(bytes, meta) => (bytes, Some(*meta)),
            CompactStep::Finished(stats) => break Ok(stats),
        };
        let current = match &mut upload {
            Some(current) => current,
            none => none.insert(start(files.len())?),
        };
        if let Err(error) = current.write(bytes).await {
            break Err((*error).into());
        }
        if let Some(meta) = finished {
            if let Some(current) = upload.take() {
                current.finish(PutMode::Overwrite).await.map_err(|e| *e)?;
            }
            files.push(meta);
        }
    };
    let stats = match merged {
        Ok(stats) => stats,
        Err(error) => {
            abandon(upload).await;
            return Err(error);
        }
    };
    worker.await.map_err(|e| TableError::Bug(format!("the merge thread died: {e}")))?;
    Ok((files, stats))
}

async fn abandon(upload: Option<BufferedUpload>) {
    if let Some(upload) = upload
        && let Err(error) = upload.abort().await
    {
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
}

async fn commit(
    table: &Table,
    entries: &[ManifestEntry],
    plan: Plan,
    done: Rewritten,
    facts: Facts<'_>,
) -> Result<Compacted> {
    let complete = done.groups == plan.rewrites.len();
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
    change.dropped_deletes = match (done.stats.dropped_deletes, facts.drop_deletes) {
        (None, _) | (_, DropDeletes::Keep) => DroppedDeletes::None,
        (Some(_), DropDeletes::All) => DroppedDeletes::All,
        (Some(highest), DropDeletes::Below(_)) => DroppedDeletes::Below(SequenceNumber(highest.0.saturating_add(1))),
    };
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
        match drive(protocol::commit(&table.context, change.clone()), &table.ports, &table.at).await? {
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

/// All buckets of the current snapshot, with how many runs each has.
///
/// # Errors
/// When manifests cannot be read.
pub async fn buckets(table: &Table) -> Result<Vec<(StoredRow, Bucket, usize)>> {
    let Some(snapshot) = table.current().await? else { return Ok(Vec::new()) };
    let entries = state::live_files(table, &snapshot, Scope::Everything).await?;
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
            Ok((partition, bucket, levels.runs().len()))
        })
        .collect()
}
