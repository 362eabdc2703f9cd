//! One batch of one shard into the table: trim, decode, type, number, sort, write, quarantine, commit.
//!
//! Neighbours: the `ingest` function and the local stack call [`Ingest::handle`]; `decode` types records, `level_zero` writes them,
//! `commit` decides. The order of the steps is the proof of "never lost, never doubled":
//! 1. what the checkpoint covers is dropped, so a redelivered batch does nothing but make sure that it is published;
//! 2. bad records are durable in the quarantine, and data files are durable, before the commit names them;
//! 3. the commit applies only if the checkpoint is still where step 1 saw it; 4. success is answered only after publication.
//!
//! Invariants: 1. equal batches on an equal checkpoint give equal sequence numbers and equal change ids; 2. a record is in the table, in the
//! quarantine, or above the checkpoint; 3. an error acknowledges nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use bytes::Bytes;
use futures::try_join;
use siltstone_commit::{
    changes::{Change, ChangeId, ChangeKind, Conflict, Outcome},
    checkpoint::{Checkpoint, ListId, Lookup, Position, ShardId, ShardRange},
    context::Authority,
    error::CommitError,
    pointer::{Pointer, TableState},
    protocol,
    sequence::{Allocator, Reservation, first_of, padded},
};
use siltstone_decode::{
    Decoded, Decoder, DecoderConfig, Reject, RejectCode, RowChange, RowKind, config::BadRecords,
    quarantine::QuarantinedRecord,
};
use siltstone_format::{id::SequenceNumber, options::Purpose, value::Value};
use siltstone_lsm::{batch::KeyValueBatch, rows::batch_of};
use siltstone_store::stream::{Shard, StreamAdmin};

use crate::{
    debt,
    driver::{ANSWER_MS, drive},
    error::{Result, TableError},
    level_zero, lists,
    maintain::require_mapping,
    name::TableRef,
    ports::Ports,
    rescale::require_rescaled,
    settings::{Feed, IngestLimits},
    table::Table,
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
    /// Of them, those older than the lateness: a compaction may have dropped a newer delete of their key already (rule 7).
    pub late: u64,
    /// Fields of the records that no column reads, and that were left out.
    pub unread_fields: u64,
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
    /// A snapshot that holds all rows of the batch, readable by now: the batch's own, or the table's current one where the batch brought
    /// no rows or was found to be committed already. `None` before the first snapshot, and where everything was covered before.
    pub snapshot: Option<i64>,
    /// Arrival of the oldest record of the batch that was not covered, ms since 1970.
    pub oldest_arrival_ms: Option<i64>,
    /// Task objects put for `compact`.
    pub tasks: u64,
    /// Times the batch was planned anew after a lost race.
    pub replans: u64,
    /// The batch was staged for a lease holder: others commit at the same time.
    pub staged: bool,
    /// Staged batches that this invocation committed as the lease holder, its own among them.
    pub folded: u64,
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
    /// When a newer schema and feed were last asked for, ms.
    schema_seen_ms: AtomicI64,
    /// When the recorded event source mapping was last seen to be safe, ms.
    mapping_seen_ms: AtomicI64,
}

/// Time kept back for the answer when debt hints are written, ms.
const HINT_RESERVE_MS: i64 = 500;
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
            let IngestReport { records, tasks, staged, folded, .. } = report;
            report = IngestReport { records, tasks, staged, folded, replans: plan, ..IngestReport::default() };
            self.check_time(deadline_ms)?;
            let warm = self.warm(batch).await?;
            match self.attempt(&warm, &shard, batch, deadline_ms, &mut report).await {
                Ok(Attempt::Done) => return Ok(report),
                Ok(Attempt::Replan) => {}
                Ok(Attempt::NewSchema) => self.forget(),
                // Dropped, re-created or restored since: nothing of what is remembered is of this table.
                Err(TableError::Commit(CommitError::Incarnation { .. } | CommitError::NoTable { .. })) => self.forget(),
                Err(error) => return Err(error),
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
        // An event of another stream than the one remembered may be the first one of a new feed.
        let warm = match known.filter(|warm| warm.feed.stream_arn == batch.stream_arn) {
            Some(warm) => warm,
            None => self.opened().await?,
        };
        if warm.feed.stream_arn != batch.stream_arn {
            return Err(TableError::invalid(format!(
                "{} is fed by {}, the event is from {}: point the event source mapping or the table's feed (`silt table feed`) at the right stream",
                self.at.name, warm.feed.stream_arn, batch.stream_arn
            )));
        }
        self.require_mapping(&warm).await?;
        Ok(warm)
    }

    /// Table and feed as they are now; remembered.
    async fn opened(&self) -> Result<Arc<Warm>> {
        let table = Table::open(&self.ports, &self.at, Authority::Pointer, Purpose::Write).await?;
        let ((), feed) = try_join!(require_rescaled(&table), Feed::load(&self.ports, &self.at))?;
        let decoder = decoder_of(&table, &feed.decoder)?;
        let warm = Arc::new(Warm {
            table,
            feed,
            decoder,
            slots: Mutex::default(),
            schema_seen_ms: AtomicI64::new(self.ports.clock.now_ms()),
            mapping_seen_ms: AtomicI64::new(i64::MIN),
        });
        *self.warm.lock().unwrap_or_else(PoisonError::into_inner) = Some(warm.clone());
        Ok(warm)
    }

    /// Fails closed while the event source mapping was not seen to be safe.
    async fn require_mapping(&self, warm: &Warm) -> Result<()> {
        let Some(trusted_ms) = self.limits.mapping_trusted_ms else { return Ok(()) };
        let now = self.ports.clock.now_ms();
        if now.saturating_sub(warm.mapping_seen_ms.load(Ordering::Relaxed)) >= trusted_ms {
            require_mapping(&self.ports, &self.at, &warm.feed.stream_arn).await?;
            warm.mapping_seen_ms.store(now, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether another engine altered the table, or its owner the feed. New columns would be left out of the rows until somebody commits with
    /// them, and a mended decoder would wait for the end of this process, so both are asked for now and then, not only the pointer.
    async fn outdated(&self, warm: &Warm) -> Result<bool> {
        let now = self.ports.clock.now_ms();
        let seen = warm.schema_seen_ms.load(Ordering::Relaxed);
        if now.saturating_sub(seen) < self.limits.schema_interval_ms {
            return Ok(false);
        }
        warm.schema_seen_ms.store(now, Ordering::Relaxed);
        Ok(warm.table.has_newer_schema().await? || Feed::load(&self.ports, &self.at).await? != warm.feed)
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
        let pointer = drive(protocol::load_for(&table.context, shard.clone()), &self.ports, &self.at).await?;
        if pointer.schema_id > table.schema.id || self.outdated(warm).await? {
            return Ok(Attempt::NewSchema);
        }
        let checkpoint = match pointer.checkpoints.get(shard) {
            Lookup::Found(checkpoint) => Some(checkpoint),
            Lookup::Absent | Lookup::NotLoaded => None,
        };
        let unseen = unseen(batch, checkpoint.as_ref())?;
        report.redelivered = report.records - unseen.len() as u64;
        let Some(last) = unseen.last() else { return Ok(Attempt::Done) };
        refuse_paused(table, &pointer)?;
        let to = position(last)?;
        report.oldest_arrival_ms = unseen.iter().map(|r| r.arrival_ms).min();

        let siblings = match checkpoint {
            Some(_) => Vec::new(),
            None => self.list_shards(batch).await?,
        };
        let parents = parents(&siblings, shard, &pointer)?;
        let reservation = self.slot(warm, shard, &siblings).await?;
        let mut above = vec![protocol::sequence_floor(&pointer, reservation)];
        above.extend(checkpoint.map(|c| c.last_sequence));
        above.extend(parents.iter().map(|(_, c)| c.last_sequence));
        let allocator = Allocator::new(reservation.slot, above)?;
        let typed = type_records(warm, shard, batch, unseen, allocator, report)?;
        // The decoder that is mended next must be seen.
        refuse_rejected(warm, &typed.rejected).inspect_err(|_| self.forget())?;

        let started = self.ports.clock.now_ms();
        report.late = typed.below(first_of(started.saturating_sub(self.limits.lateness_ms)));
        let list = self.quarantine(shard, checkpoint.and_then(|c| c.list), &typed.rejected).await?;
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
            list,
        });
        let written = match &typed.batch {
            Some(rows) => level_zero::write(table, rows, self.limits.parallel_uploads, &mut change).await?,
            None => level_zero::Written::default(),
        };
        (report.buckets, report.files, report.bytes) = (written.buckets, written.files, written.bytes);
        self.check_time(deadline_ms)?;
        match self.commit(table, change, pointer, deadline_ms, report).await? {
            Outcome::Committed { snapshot, .. } => {
                report.snapshot = snapshot.map(|s| s.0);
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

    /// Runs the same change again while its outcome is unknown and time is left (rule 2). Whoever swaps the pointer counts the new runs, also those
    /// of the writers whose changes it folded.
    async fn commit(
        &self,
        table: &Table,
        change: Change,
        planned_on: Pointer,
        deadline_ms: i64,
        report: &mut IngestReport,
    ) -> Result<Outcome> {
        let mut planned_on = Some(planned_on);
        let until_ms = deadline_ms.saturating_sub(ANSWER_MS);
        loop {
            let machine = protocol::commit_until(&table.context, change.clone(), planned_on.take(), until_ms);
            let done = drive(machine, &self.ports, &self.at).await?;
            report.staged |= done.staged;
            report.folded += done.folded;
            report.tasks += debt::add(table, &done.runs, deadline_ms.saturating_sub(HINT_RESERVE_MS)).await;
            if !matches!(done.outcome, Outcome::Unknown { .. }) || self.check_time(deadline_ms).is_err() {
                return Ok(done.outcome);
            }
        }
    }

    async fn slot(&self, warm: &Warm, shard: &ShardId, siblings: &[Shard]) -> Result<Reservation> {
        let known = warm.slots.lock().unwrap_or_else(PoisonError::into_inner).get(shard).copied();
        if let Some(reservation) = known {
            return Ok(reservation);
        }
        let open = siblings.iter().filter(|sibling| !sibling.is_closed()).map(|sibling| ShardId::new(&sibling.id));
        let machine =
            protocol::reserve_slots(&warm.table.context, shard.clone(), open.collect::<std::result::Result<_, _>>()?);
        let reservation = drive(machine, &self.ports, &self.at).await?;
        warm.slots.lock().unwrap_or_else(PoisonError::into_inner).insert(shard.clone(), reservation);
        Ok(reservation)
    }

    /// The shards of the stream, of which those around a shard that begins are wanted; none where there is no stream to ask.
    async fn list_shards(&self, batch: &StreamBatch) -> Result<Vec<Shard>> {
        let Some(streams) = &self.streams else { return Ok(Vec::new()) };
        let stream = batch.stream_arn.rsplit('/').next().unwrap_or(&batch.stream_arn);
        streams
            .list_shards(stream)
            .await
            .map_err(|e| TableError::Unavailable(format!("the shards of {stream} cannot be listed: {e}")))
    }

    /// Puts the rejected records of a range on a list, which counts once the change that names it is committed.
    async fn quarantine(
        &self,
        shard: &ShardId,
        last: Option<ListId>,
        rejected: &[QuarantinedRecord],
    ) -> Result<Option<ListId>> {
        if rejected.is_empty() {
            return Ok(None);
        }
        let prefix = format!("{}{shard}/", self.at.quarantine());
        let lines = rejected.iter().map(QuarantinedRecord::to_json_line);
        lists::put(&self.ports, &prefix, last, lines).await.map(Some)
    }
}

enum Attempt {
    Done,
    Replan,
    NewSchema,
}

/// The rows of a batch, numbered.
struct Typed {
    batch: Option<KeyValueBatch>,
    rejected: Vec<QuarantinedRecord>,
    first: Option<SequenceNumber>,
    last: SequenceNumber,
}

impl Typed {
    /// Rows numbered below a line.
    fn below(&self, line: SequenceNumber) -> u64 {
        self.batch.iter().flat_map(|batch| batch.sequence.values()).filter(|number| **number < line.0).count() as u64
    }
}

/// Under the policy `fail` a record that was rejected stops its shard.
fn refuse_rejected(warm: &Warm, rejected: &[QuarantinedRecord]) -> Result<()> {
    match rejected.first().filter(|_| warm.feed.decoder.bad_records == BadRecords::Fail) {
        None => Ok(()),
        Some(record) => Err(TableError::invalid(format!(
            "{} records of {} cannot be taken, the first at {}: {}; its decoder says `bad-records: fail`, so the shard waits: mend the decoder, or \
             let it say `quarantine`",
            rejected.len(),
            warm.table.at.name,
            record.position(),
            record.reject
        ))),
    }
}

/// The nearest ancestors of a shard without checkpoint that the table has read, on each branch: a shard between may never have had a record.
fn parents(shards: &[Shard], shard: &ShardId, pointer: &Pointer) -> Result<Vec<(ShardId, Checkpoint)>> {
    let mut found = BTreeMap::new();
    let (mut unread, mut asked) = (vec![shard.clone()], BTreeSet::new());
    while let Some(child) = unread.pop() {
        for info in shards.iter().filter(|s| s.id == child.as_str()) {
            for parent in info.parent.iter().chain(&info.adjacent_parent) {
                let parent = ShardId::new(parent)?;
                match pointer.checkpoints.get(&parent) {
                    Lookup::Found(checkpoint) => drop(found.insert(parent, checkpoint)),
                    _ if asked.insert(parent.clone()) => unread.push(parent),
                    _ => {}
                }
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// Refuses a paused table before anything is written for it.
pub(crate) fn refuse_paused(table: &Table, pointer: &Pointer) -> Result<()> {
    match pointer.state {
        TableState::Paused => Err(TableError::Unavailable(format!(
            "{} is paused by its owner: nothing is written, the stream keeps its records; `silt resume {}` goes on",
            table.at.name, table.at.name
        ))),
        TableState::Active | TableState::Forked => Ok(()),
    }
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

/// Gives each row of a batch, and each record that makes none for now, a number of its own, in stream order.
struct Numbers {
    allocator: Allocator,
    first: Option<SequenceNumber>,
}

impl Numbers {
    fn next(&mut self, arrival_ms: i64) -> Result<i64> {
        let number = self.allocator.next(arrival_ms)?;
        self.first.get_or_insert(number);
        Ok(number.0)
    }
}

fn type_records(
    warm: &Warm,
    shard: &ShardId,
    batch: &StreamBatch,
    records: Vec<&StreamRecord>,
    allocator: Allocator,
    report: &mut IngestReport,
) -> Result<Typed> {
    let table = &warm.table;
    let (mut rows, mut sequence, mut kinds): (Vec<Vec<Value>>, Vec<i64>, Vec<i8>) = Default::default();
    let mut rejected = Vec::new();
    let mut numbers = Numbers { allocator, first: None };
    let mut guard = warm.decoder.batch_guard();
    for record in &records {
        let mut quarantine = |numbers: &mut Numbers, sub: u64, data: &[u8], reject: Reject| -> Result<()> {
            *report.quarantined.entry(reject.code.to_string()).or_default() += 1;
            rejected.push(QuarantinedRecord {
                stream: batch.stream_arn.clone(),
                shard: shard.as_str().to_owned(),
                sequence: record.sequence.clone(),
                sub_sequence: sub,
                arrival_ms: record.arrival_ms,
                partition_key: record.partition_key.clone(),
                number: numbers.next(record.arrival_ms)?,
                schema_id: table.schema.id.0,
                reject,
                data: data.to_vec(),
            });
            Ok(())
        };
        let users = match siltstone_decode::aggregate::deaggregate(&record.data) {
            Ok(users) => users,
            Err(reject) => {
                quarantine(&mut numbers, 0, &record.data, reject)?;
                continue;
            }
        };
        guard.begin_stream_record();
        for user in users {
            match typed(table, guard.decode(&user.data, record.arrival_ms)) {
                Decoded::Changes(changes) => {
                    for change in changes {
                        if let Some(option) = dropped_by(table, change.kind) {
                            *report.ignored.entry(option.to_owned()).or_default() += 1;
                            continue;
                        }
                        report.changes += 1;
                        sequence.push(numbers.next(record.arrival_ms)?);
                        kinds.push(change.kind as i8);
                        rows.push(change.row);
                    }
                }
                Decoded::Ignored(kind) => *report.ignored.entry(kind.to_string()).or_default() += 1,
                Decoded::Rejected(reject) => quarantine(&mut numbers, user.sub_sequence, &user.data, reject)?,
            }
        }
    }
    report.unread_fields = guard.unread_fields();
    // The shard's last number also covers the arrival of records that made no row: a later look at the checkpoint can then tell
    // a redelivery (arrived before) from another stream of the same name (arrived after).
    let last_arrival = records.iter().map(|r| first_of(r.arrival_ms)).max().unwrap_or(SequenceNumber(0));
    let batch = rows_batch(table, &rows, sequence, kinds)?;
    Ok(Typed { batch, rejected, first: numbers.first, last: numbers.allocator.last().max(last_arrival) })
}

/// A decoder for the table's schema.
pub(crate) fn decoder_of(table: &Table, config: &DecoderConfig) -> Result<Decoder> {
    Decoder::new(&table.schema, config).map_err(|faults| {
        let words: Vec<String> = faults.iter().map(ToString::to_string).collect();
        TableError::invalid(format!("the decoder does not fit the schema of {}: {}", table.at.name, words.join("; ")))
    })
}

/// Rows of the table with their numbers and kinds; `None` for none.
pub(crate) fn rows_batch(
    table: &Table,
    rows: &[Vec<Value>],
    sequence: Vec<i64>,
    kinds: Vec<i8>,
) -> Result<Option<KeyValueBatch>> {
    if rows.is_empty() {
        return Ok(None);
    }
    Ok(Some(KeyValueBatch::new(batch_of(&table.layout, rows)?, sequence.into(), kinds.into())?))
}

/// What was decoded, with the kinds that the table's `rowkind.field` tells.
pub(crate) fn typed(table: &Table, decoded: Decoded) -> Decoded {
    let Decoded::Changes(mut changes) = decoded else { return decoded };
    for change in &mut changes {
        match kind_of(table, change) {
            Ok(kind) => change.kind = kind,
            Err(reject) => return Decoded::Rejected(reject),
        }
    }
    Decoded::Changes(changes)
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
pub(crate) fn dropped_by(table: &Table, kind: RowKind) -> Option<&'static str> {
    match kind {
        RowKind::Delete | RowKind::UpdateBefore if table.options.ignore_delete => Some("ignore-delete"),
        RowKind::UpdateBefore if table.options.ignore_update_before => Some("ignore-update-before"),
        _ => None,
    }
}
