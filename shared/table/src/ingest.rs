//! One batch of one shard into the table: trim, decode, type, number, sort, write, quarantine, commit.
//!
//! Neighbours: the `ingest` function and the local stack call [`Ingest::handle`]; `decode` types records, `lsm` sorts and writes them,
//! `commit` decides. The order of the steps is the proof of "never lost, never doubled":
//! 1. what the checkpoint covers is dropped, so a redelivered batch does nothing but make sure that it is published;
//! 2. bad records are durable in the quarantine, and data files are durable, before the commit names them;
//! 3. the commit applies only if the checkpoint is still where step 1 saw it; 4. success is answered only after publication.
//!
//! Invariants: 1. equal batches on an equal checkpoint give equal sequence numbers and equal change ids; 2. a record is in the table, in the
//! quarantine, or above the checkpoint; 3. an error acknowledges nothing.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use siltstone_commit::{
    changes::{Change, ChangeId, ChangeKind, Conflict, Outcome},
    checkpoint::{Checkpoint, Lookup, Position, ShardId, ShardRange},
    context::Authority,
    pointer::Pointer,
    protocol,
    sequence::{Allocator, Reservation, first_of, padded},
};
use siltstone_decode::{Decoded, Decoder, Reject, RejectCode, RowChange, RowKind, quarantine::QuarantinedRecord};
use siltstone_format::{
    data_file::{DataFileMeta, FileSource},
    id::{Level, SequenceNumber},
    manifest::{FileKind, ManifestEntry},
    options::Purpose,
    value::Value,
};
use siltstone_lsm::{
    batch::KeyValueBatch,
    buffer::{BucketRows, Splitter, Touched},
    rows::batch_of,
    writer::{RunWriter, WriterSettings},
};
use siltstone_store::{object::PutMode, stream::StreamAdmin};

use crate::{
    debt,
    driver::drive,
    error::{Result, TableError},
    name::TableRef,
    ports::Ports,
    settings::{Feed, IngestLimits},
    table::Table,
    writing::{changelog_settings, writer_settings, writes_changelog},
};

/// A record as it stands in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRecord {
    /// Sequence number, decimal.
    pub sequence: String,
    /// Arrival at the stream, ms since 1970.
    pub arrival_ms: i64,
    /// Partition key.
    pub partition_key: String,
    /// Payload.
    pub data: Bytes,
}

/// Records of one shard, in stream order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamBatch {
    /// ARN of the stream.
    pub stream_arn: String,
    /// Shard id.
    pub shard: String,
    /// Records.
    pub records: Vec<StreamRecord>,
}

/// What came of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IngestReport {
    /// Stream records in the batch.
    pub records: u64,
    /// Of them, covered by the checkpoint before: redelivered after a commit.
    pub redelivered: u64,
    /// Row changes typed.
    pub changes: u64,
    /// Messages that carry no row, by kind, and changes that an option of the table leaves out, by option.
    pub ignored: BTreeMap<String, u64>,
    /// Records quarantined, by code.
    pub quarantined: BTreeMap<String, u64>,
    /// Data and changelog files written.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Buckets touched.
    pub buckets: u64,
    /// Snapshot that holds the batch, if it made one.
    pub snapshot: Option<i64>,
    /// Arrival of the oldest record of the batch that was not covered, ms since 1970.
    pub oldest_arrival_ms: Option<i64>,
    /// Task objects put for `compact`.
    pub tasks: u64,
    /// Times the batch was planned anew after a lost race.
    pub replans: u64,
}

/// The ingest of one table, kept between invocations of a warm function.
#[derive(Debug)]
pub struct Ingest {
    ports: Ports,
    at: TableRef,
    streams: Option<Arc<dyn StreamAdmin>>,
    limits: IngestLimits,
    warm: Mutex<Option<Arc<Warm>>>,
}

/// What a warm function remembers; never trusted for safety.
#[derive(Debug)]
struct Warm {
    table: Table,
    feed: Feed,
    decoder: Decoder,
    slots: Mutex<BTreeMap<ShardId, Reservation>>,
    /// When S3 was last asked for a newer schema, ms.
    schema_seen_ms: AtomicI64,
}

/// Plans before giving up: each lost race means that somebody else made progress.
const PLANS_MAX: u64 = 8;

impl Ingest {
    /// Ingest into a table. `streams` finds the parents of shards that appear by a split or merge.
    #[must_use]
    pub fn new(ports: Ports, at: TableRef, streams: Option<Arc<dyn StreamAdmin>>, limits: IngestLimits) -> Self {
        Self { ports, at, streams, limits, warm: Mutex::new(None) }
    }

    /// The table this ingests into.
    #[must_use]
    pub fn table(&self) -> &TableRef {
        &self.at
    }

    /// Takes one batch; `deadline_ms` is when the invocation ends. An answer `Ok` acknowledges the whole batch.
    ///
    /// # Errors
    /// Nothing is acknowledged; the stream redelivers.
    pub async fn handle(&self, batch: &StreamBatch, deadline_ms: i64) -> Result<IngestReport> {
        let mut report = IngestReport { records: batch.records.len() as u64, ..IngestReport::default() };
        if batch.records.is_empty() {
            return Ok(report);
        }
        let shard = ShardId::new(&batch.shard)?;
        for plan in 0..PLANS_MAX {
            report = IngestReport { records: report.records, replans: plan, ..IngestReport::default() };
            self.check_time(deadline_ms)?;
            let warm = self.warm(batch).await?;
            match self.attempt(&warm, &shard, batch, deadline_ms, &mut report).await? {
                Attempt::Done => return Ok(report),
                Attempt::Replan => {}
                Attempt::NewSchema => self.forget(),
            }
        }
        Err(TableError::Conflict(format!(
            "batch of shard {} on {} lost {PLANS_MAX} races; Kinesis delivers it again",
            batch.shard, self.at.name
        )))
    }

    fn check_time(&self, deadline_ms: i64) -> Result<()> {
        let left = deadline_ms.saturating_sub(self.ports.clock.now_ms());
        if left < self.limits.reserve_ms {
            return Err(TableError::Unavailable(format!(
                "{left} ms are left, {} ms are kept for the commit: raise the function's timeout or lower the batch size",
                self.limits.reserve_ms
            )));
        }
        Ok(())
    }

    fn forget(&self) {
        *self.warm.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    async fn warm(&self, batch: &StreamBatch) -> Result<Arc<Warm>> {
        let known = self.warm.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let warm = match known {
            Some(warm) => warm,
            None => {
                let table = Table::open(&self.ports, &self.at, Authority::Pointer, Purpose::Write).await?;
                let feed = Feed::load(&self.ports, &self.at).await?;
                let decoder = Decoder::new(&table.schema, &feed.decoder).map_err(|faults| {
                    let words: Vec<String> = faults.iter().map(ToString::to_string).collect();
                    TableError::invalid(format!(
                        "the decoder of {} does not fit its schema: {}",
                        self.at.name,
                        words.join("; ")
                    ))
                })?;
                let schema_seen_ms = AtomicI64::new(self.ports.clock.now_ms());
                let warm = Arc::new(Warm { table, feed, decoder, slots: Mutex::default(), schema_seen_ms });
                *self.warm.lock().unwrap_or_else(PoisonError::into_inner) = Some(warm.clone());
                warm
            }
        };
        if warm.feed.stream_arn != batch.stream_arn {
            return Err(TableError::invalid(format!(
                "{} is fed by {}, the event is from {}: point the event source mapping or the table's feed at the right stream",
                self.at.name, warm.feed.stream_arn, batch.stream_arn
            )));
        }
        Ok(warm)
    }

    /// Whether another engine altered the table. Its new columns would be left out of the rows until somebody commits with them, so S3 is
    /// asked now and then, not only the pointer.
    async fn schema_changed(&self, warm: &Warm) -> Result<bool> {
        let now = self.ports.clock.now_ms();
        let seen = warm.schema_seen_ms.load(Ordering::Relaxed);
        if now.saturating_sub(seen) < self.limits.schema_interval_ms {
            return Ok(false);
        }
        warm.schema_seen_ms.store(now, Ordering::Relaxed);
        warm.table.has_newer_schema().await
    }

    async fn attempt(
        &self,
        warm: &Warm,
        shard: &ShardId,
        batch: &StreamBatch,
        deadline_ms: i64,
        report: &mut IngestReport,
    ) -> Result<Attempt> {
        let table = &warm.table;
        let loaded = drive(protocol::load(&table.context, false), &self.ports, &self.at).await?;
        let mut pointer =
            loaded.pointer.ok_or_else(|| TableError::Bug("a table under a pointer loaded without one".to_owned()))?;
        if pointer.schema_id > table.schema.id || self.schema_changed(warm).await? {
            return Ok(Attempt::NewSchema);
        }
        if pointer.checkpoints.get(shard) == Lookup::NotLoaded {
            let full = drive(protocol::load(&table.context, true), &self.ports, &self.at).await?;
            pointer = full.pointer.unwrap_or(pointer);
        }
        let checkpoint = match pointer.checkpoints.get(shard) {
            Lookup::Found(checkpoint) => Some(checkpoint),
            Lookup::Absent | Lookup::NotLoaded => None,
        };
        let unseen = unseen(batch, checkpoint.as_ref())?;
        report.redelivered = report.records - unseen.len() as u64;
        let Some(last) = unseen.last() else { return Ok(Attempt::Done) };
        let to = position(last)?;
        report.oldest_arrival_ms = unseen.iter().map(|r| r.arrival_ms).min();

        let parents = match checkpoint {
            Some(_) => Vec::new(),
            None => self.parents(batch, shard, &pointer).await?,
        };
        let reservation = self.slot(warm, shard).await?;
        let mut above = vec![protocol::sequence_floor(&pointer, reservation)];
        above.extend(checkpoint.map(|c| c.last_sequence));
        above.extend(parents.iter().map(|(_, c)| c.last_sequence));
        let allocator = Allocator::new(reservation.slot, above)?;
        let typed = type_records(warm, shard, batch, unseen, allocator, report)?;

        let started = self.ports.clock.now_ms();
        self.quarantine(warm, shard, checkpoint.as_ref().map(|c| c.position), to, &typed.rejected).await?;
        let from = checkpoint.map(|c| c.position);
        let mut change = Change::new(
            ChangeId::derive(&format!(
                "{}/{shard}/{}..{to}",
                pointer.incarnation,
                from.map_or_else(String::new, |p| p.to_string())
            )),
            ChangeKind::Append,
            table.schema.id,
            started,
        );
        change.ranges.push(ShardRange {
            shard: shard.clone(),
            from,
            to,
            first_sequence: typed.first,
            last_sequence: typed.last,
            slot: reservation.slot,
            parents: parents.into_iter().map(|(shard, _)| shard).collect(),
        });
        let touched = self.write(table, &typed, &mut change, report).await?;
        self.check_time(deadline_ms)?;
        match self.commit(table, change, pointer, deadline_ms).await? {
            Outcome::Committed { snapshot, .. } => {
                report.snapshot = snapshot.map(|s| s.0);
                if typed.batch.is_some() {
                    report.tasks = debt::add(table, &touched, snapshot).await;
                }
                Ok(Attempt::Done)
            }
            Outcome::Conflict(Conflict::Overlap { .. } | Conflict::Gap { .. }) => Ok(Attempt::Replan),
            Outcome::Conflict(Conflict::Requirement(_)) => Ok(Attempt::NewSchema),
            // Closed for ever: another plan would only write the files again.
            Outcome::Conflict(Conflict::ShardClosed { shard, at }) => Err(TableError::invalid(format!(
                "shard {shard} of {} was closed at {at} when its child's first batch came, and has records after that: one event source \
                 mapping delivers a parent to its end before its children; see that `ingest` has no other",
                self.at.name
            ))),
            Outcome::Conflict(other) => {
                tracing::info!(shard = %shard, reason = %other, "batch is planned anew");
                Ok(Attempt::Replan)
            }
            Outcome::Unknown { expected_rev } => Err(TableError::Unavailable(format!(
                "the commit of shard {shard} on revision {expected_rev} of {} got no answer in time; Kinesis delivers the batch again and \
                 what was committed is recognised",
                self.at.name
            ))),
        }
    }

    /// Runs the same change again while its outcome is unknown and time is left (rule 2).
    async fn commit(&self, table: &Table, change: Change, planned_on: Pointer, deadline_ms: i64) -> Result<Outcome> {
        let mut planned_on = Some(planned_on);
        loop {
            let machine = protocol::commit_on(&table.context, change.clone(), planned_on.take());
            let outcome = drive(machine, &self.ports, &self.at).await?;
            if !matches!(outcome, Outcome::Unknown { .. }) || self.check_time(deadline_ms).is_err() {
                return Ok(outcome);
            }
        }
    }

    async fn slot(&self, warm: &Warm, shard: &ShardId) -> Result<Reservation> {
        let known = warm.slots.lock().unwrap_or_else(PoisonError::into_inner).get(shard).copied();
        if let Some(reservation) = known {
            return Ok(reservation);
        }
        let reservation =
            drive(protocol::reserve_slot(&warm.table.context, shard.clone()), &self.ports, &self.at).await?;
        warm.slots.lock().unwrap_or_else(PoisonError::into_inner).insert(shard.clone(), reservation);
        Ok(reservation)
    }

    /// The parents of a shard that has no checkpoint yet, as far as the table has read them.
    async fn parents(
        &self,
        batch: &StreamBatch,
        shard: &ShardId,
        pointer: &Pointer,
    ) -> Result<Vec<(ShardId, Checkpoint)>> {
        let Some(streams) = &self.streams else { return Ok(Vec::new()) };
        if pointer.checkpoints.recent().next().is_none() {
            return Ok(Vec::new());
        }
        let stream = batch.stream_arn.rsplit('/').next().unwrap_or(&batch.stream_arn);
        let shards = streams
            .list_shards(stream)
            .await
            .map_err(|e| TableError::Unavailable(format!("the shards of {stream} cannot be listed: {e}")))?;
        let mut found = Vec::new();
        for info in shards.iter().filter(|s| s.id == shard.as_str()) {
            for parent in info.parent.iter().chain(&info.adjacent_parent) {
                let parent = ShardId::new(parent)?;
                if let Lookup::Found(checkpoint) = pointer.checkpoints.get(&parent) {
                    found.push((parent, checkpoint));
                }
            }
        }
        Ok(found)
    }

    /// Puts the rejected records of a range under a name that the range alone decides: redelivery finds it there.
    async fn quarantine(
        &self,
        warm: &Warm,
        shard: &ShardId,
        from: Option<Position>,
        to: Position,
        rejected: &[QuarantinedRecord],
    ) -> Result<()> {
        if rejected.is_empty() {
            return Ok(());
        }
        let mut lines = Vec::new();
        for record in rejected {
            lines.extend_from_slice(record.to_json_line().as_bytes());
            lines.push(b'\n');
        }
        let from = from.map_or_else(|| "start".to_owned(), |p| p.to_string());
        let key = format!("{}{shard}/{from}..{to}.jsonl", warm.table.at.quarantine());
        self.ports.objects.put(&key, Bytes::from(lines), PutMode::Overwrite).await.map_err(|e| *e)?;
        Ok(())
    }

    /// Writes one level-0 file per touched bucket (and its changelog file) and names them in the change.
    async fn write(
        &self,
        table: &Table,
        typed: &Typed,
        change: &mut Change,
        report: &mut IngestReport,
    ) -> Result<Vec<Touched>> {
        let Some(batch) = &typed.batch else { return Ok(Vec::new()) };
        let splitter = Splitter::new(&table.layout, table.bucketer()?, writes_changelog(table))?;
        let touched = splitter.split(batch)?;
        report.buckets = touched.len() as u64;
        let settings = Arc::new(writer_settings(table, Level::ZERO));
        let changelog = Arc::new(changelog_settings(table));
        let writer_id = self.ports.ids.uuid();
        // Files are made one at a time (memory); their uploads run side by side.
        let files: Vec<Written> = stream::iter(touched.iter().cloned().enumerate())
            .map(|(number, bucket)| {
                let made = splitter
                    .bucket_rows(batch, bucket)
                    .map_err(TableError::from)
                    .and_then(|rows| self.make(table, rows, &settings, &changelog, &format!("{writer_id}-{number}")));
                async move {
                    let written = made?;
                    for (key, bytes) in &written.objects {
                        self.ports.objects.put(key, bytes.clone(), PutMode::Overwrite).await.map_err(|e| *e)?;
                    }
                    Ok::<_, TableError>(written)
                }
            })
            .buffered(self.limits.parallel_uploads.max(1))
            .try_collect()
            .await?;
        for file in files {
            report.files += file.objects.len() as u64;
            report.bytes += file.objects.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
            change.files.push(file.data);
            change.changelog.extend(file.changelog);
        }
        Ok(touched)
    }

    fn make(
        &self,
        table: &Table,
        rows: BucketRows,
        settings: &Arc<WriterSettings>,
        changelog: &Arc<WriterSettings>,
        id: &str,
    ) -> Result<Written> {
        let entry = |file: DataFileMeta| ManifestEntry {
            kind: FileKind::Add,
            partition: rows.partition_row.clone(),
            bucket: rows.bucket,
            total_buckets: table.bucket_count().unwrap_or(1),
            file,
        };
        let now = self.ports.clock.now_ms();
        let mut objects = Vec::new();
        let mut write = |batch: &KeyValueBatch, settings: &Arc<WriterSettings>| -> Result<DataFileMeta> {
            let mut writer = RunWriter::new(&table.layout, settings.clone(), Level::ZERO, FileSource::Append)?;
            writer.write(batch)?;
            let (bytes, mut meta) = writer.finish(format!("{}{id}.parquet", settings.prefix), now)?;
            // A foreign writer goes on at max + 1: the end of the millisecond is in nobody's slot.
            meta.max_sequence_number = padded(meta.max_sequence_number);
            objects.push((table.data_key(&rows.partition, rows.bucket, &meta.file_name)?, bytes));
            Ok(meta)
        };
        let data = entry(write(&rows.rows, settings)?);
        let changelog = match &rows.changelog {
            Some(batch) => Some(entry(write(batch, changelog)?)),
            None => None,
        };
        Ok(Written { data, changelog, objects })
    }
}

enum Attempt {
    Done,
    Replan,
    NewSchema,
}

struct Written {
    data: ManifestEntry,
    changelog: Option<ManifestEntry>,
    objects: Vec<(String, Bytes)>,
}

/// The rows of a batch, numbered.
struct Typed {
    batch: Option<KeyValueBatch>,
    rejected: Vec<QuarantinedRecord>,
    first: Option<SequenceNumber>,
    last: SequenceNumber,
}

fn position(record: &StreamRecord) -> Result<Position> {
    record.sequence.parse().map_err(|_| {
        TableError::invalid(format!(
            "`{}` is not a Kinesis sequence number",
            record.sequence.chars().take(80).collect::<String>()
        ))
    })
}

/// The records above the checkpoint. A record at or below it that arrived after everything the checkpoint covers is not a redelivery but
/// another stream of the same name: skipping it would lose it.
fn unseen<'b>(batch: &'b StreamBatch, checkpoint: Option<&Checkpoint>) -> Result<Vec<&'b StreamRecord>> {
    let mut kept = Vec::with_capacity(batch.records.len());
    for record in &batch.records {
        let at = position(record)?;
        match checkpoint {
            Some(checkpoint) if at <= checkpoint.position => {
                let covered_ms = siltstone_commit::sequence::millis_of(padded(checkpoint.last_sequence));
                if record.arrival_ms > covered_ms {
                    return Err(TableError::invalid(format!(
                        "shard {}: position {at} is at or below the checkpoint {} but arrived later: the stream was deleted and created \
                         again under the same name; give the new stream another name",
                        batch.shard, checkpoint.position
                    )));
                }
            }
            _ => kept.push(record),
        }
    }
    Ok(kept)
}

fn type_records(
    warm: &Warm,
    shard: &ShardId,
    batch: &StreamBatch,
    records: Vec<&StreamRecord>,
    mut allocator: Allocator,
    report: &mut IngestReport,
) -> Result<Typed> {
    let table = &warm.table;
    let (mut rows, mut numbers, mut kinds): (Vec<Vec<Value>>, Vec<i64>, Vec<i8>) = Default::default();
    let mut rejected = Vec::new();
    let arrivals: Vec<i64> = records.iter().map(|r| r.arrival_ms).collect();
    let mut guard = warm.decoder.batch_guard();
    for record in records {
        let quarantine = |sub: u64, data: &[u8], reject: &Reject| QuarantinedRecord {
            stream: batch.stream_arn.clone(),
            shard: shard.as_str().to_owned(),
            sequence: record.sequence.clone(),
            sub_sequence: sub,
            arrival_ms: record.arrival_ms,
            partition_key: record.partition_key.clone(),
            schema_id: table.schema.id.0,
            reject: reject.clone(),
            data: data.to_vec(),
        };
        let users = match siltstone_decode::aggregate::deaggregate(&record.data) {
            Ok(users) => users,
            Err(reject) => {
                *report.quarantined.entry(reject.code.to_string()).or_default() += 1;
                rejected.push(quarantine(0, &record.data, &reject));
                continue;
            }
        };
        for user in users {
            match guard.decode(&user.data, record.arrival_ms) {
                Decoded::Changes(changes) => {
                    match changes.iter().map(|change| kind_of(table, change)).collect::<Result<Vec<_>, _>>() {
                        Ok(told) => {
                            for (kind, change) in told.into_iter().zip(changes) {
                                if let Some(option) = dropped_by(table, kind) {
                                    *report.ignored.entry(option.to_owned()).or_default() += 1;
                                    continue;
                                }
                                report.changes += 1;
                                numbers.push(allocator.next(record.arrival_ms)?.0);
                                kinds.push(kind as i8);
                                rows.push(change.row);
                            }
                        }
                        Err(reject) => {
                            *report.quarantined.entry(reject.code.to_string()).or_default() += 1;
                            rejected.push(quarantine(user.sub_sequence, &user.data, &reject));
                        }
                    }
                }
                Decoded::Ignored(kind) => *report.ignored.entry(kind.to_string()).or_default() += 1,
                Decoded::Rejected(reject) => {
                    *report.quarantined.entry(reject.code.to_string()).or_default() += 1;
                    rejected.push(quarantine(user.sub_sequence, &user.data, &reject));
                }
            }
        }
    }
    // The shard's last number also covers the arrival of records that made no row: a later look at the checkpoint can then tell
    // a redelivery (arrived before) from another stream of the same name (arrived after).
    let last_arrival = records_end(&arrivals);
    let first = numbers.iter().min().copied().map(SequenceNumber);
    let batch = if rows.is_empty() {
        None
    } else {
        Some(KeyValueBatch::new(batch_of(&table.layout, &rows)?, numbers.into(), kinds.into())?)
    };
    Ok(Typed { batch, rejected, first, last: allocator.last().max(last_arrival) })
}

fn records_end(arrivals: &[i64]) -> SequenceNumber {
    arrivals.iter().max().map_or(SequenceNumber(0), |ms| first_of(*ms))
}

/// The kind of a change: what the column of `rowkind.field` says, else what the message says.
fn kind_of(table: &Table, change: &RowChange) -> Result<RowKind, Reject> {
    let named = table.options.rowkind_field.as_ref().and_then(|name| Some((name, table.schema.field_index(name)?)));
    let Some((name, Some(Value::String(text)))) = named.map(|(name, place)| (name, change.row.get(place))) else {
        return Ok(change.kind);
    };
    RowKind::from_short(text).ok_or_else(|| Reject {
        code: RejectCode::UnknownOperation,
        column: Some(name.clone()),
        detail: "the column of `rowkind.field` holds none of +I, -U, +U, -D".to_owned(),
    })
}

/// The option of the table that leaves rows of this kind out before they are buffered.
fn dropped_by(table: &Table, kind: RowKind) -> Option<&'static str> {
    match kind {
        RowKind::Delete | RowKind::UpdateBefore if table.options.ignore_delete => Some("ignore-delete"),
        RowKind::UpdateBefore if table.options.ignore_update_before => Some("ignore-update-before"),
        _ => None,
    }
}
