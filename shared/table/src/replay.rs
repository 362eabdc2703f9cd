//! Replays quarantined records: decodes them anew and commits their rows under the numbers that the stream had kept for them.
//!
//! Neighbours: `quarantine` reads the records, `level_zero` writes the rows, `silt quarantine replay` calls. A replay is a range of a shard of
//! its own, [`REPLAYS`], whose positions count replays and whose list has the positions of its records: rule 1 of the commit protocol decides
//! between two replays at once, and the pointer says for ever which of them count (`shared/design/0022-quarantine-lists.md`).
//!
//! Invariants: 1. a record is replayed once, whatever crashes or runs beside it; 2. its rows never win over what came after it in its shard;
//! 3. a record that is rejected again stays in quarantine.

use std::collections::BTreeSet;

use siltstone_commit::{
    changes::{Change, ChangeId, ChangeKind, Conflict, Outcome},
    checkpoint::{Checkpoints, ListId, Lookup, Position, ShardId, ShardRange},
    protocol,
    sequence::{Slot, first_of},
};
use siltstone_decode::{Decoded, Decoder, DecoderConfig, quarantine::QuarantinedRecord};
use siltstone_format::{id::SequenceNumber, value::Value};

use crate::{
    debt,
    driver::drive,
    error::{Result, TableError},
    ingest::{decoder_of, dropped_by, rows_batch, typed},
    level_zero,
    lists::{self, List},
    quarantine::{self, Quarantine},
    rescale::require_rescaled,
    table::Table,
};

/// The shard whose position counts replays. No shard of Kinesis has this name.
pub const REPLAYS: &str = "replays";
/// How long a replay waits for its commit while many shards commit, ms.
const PATIENCE_MS: i64 = 60_000;
/// Raw bytes of the records of one commit, after which it takes no more.
const COMMIT_BYTES: usize = 16 << 20;
/// Files uploaded side by side.
const PARALLEL_UPLOADS: usize = 8;
/// Races lost before giving up: each means that another replay made progress.
const RACES_MAX: u32 = 8;

/// What a replay did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Replayed {
    /// Positions of the records that were taken.
    pub records: Vec<String>,
    /// Rows that they made.
    pub rows: u64,
    /// Records that had been replayed before.
    pub before: u64,
    /// Records that are rejected again, with the reason of this time.
    pub rejected: Vec<QuarantinedRecord>,
    /// Of the taken records, those that arrived longer ago than compactions keep deletes: a delete that came after one of them, and that a
    /// compaction has dropped since, does not hide its row any more.
    pub late: u64,
    /// Snapshot with the rows, if there are any.
    pub snapshot: Option<i64>,
}

/// Replays the records at `positions`, or with none given all that are open, through `decoder`. Run it again after an error: what was committed
/// is recognised. Records older than `lateness_ms` are counted as late: compactions may have dropped a newer delete of their keys.
///
/// # Errors
/// [`TableError::NotFound`] for a position that is not in the quarantine.
pub async fn replay(
    table: &Table,
    positions: &[String],
    decoder: &DecoderConfig,
    lateness_ms: i64,
) -> Result<Replayed> {
    let decoder = decoder_of(table, decoder)?;
    require_rescaled(table).await?;
    let first = quarantine::read(table).await?;
    let before = positions.iter().filter(|p| first.replayed.contains(*p)).count() as u64;
    let mut done = Replayed { before, ..Replayed::default() };
    let (mut quarantine, mut lost) = (first, 0);
    while lost < RACES_MAX {
        let taken = decode(table, &decoder, wanted(table, &quarantine, positions)?);
        done.rejected = taken.rejected;
        if taken.records.is_empty() {
            return Ok(done);
        }
        let records: Vec<String> = taken.records.iter().map(QuarantinedRecord::position).collect();
        let rows = taken.rows.values.len() as u64;
        match commit(table, quarantine.replays, &records, taken.rows).await? {
            Some(snapshot) => {
                let line = first_of(table.ports.clock.now_ms() - lateness_ms).0;
                done.late += taken.records.iter().filter(|record| record.number < line).count() as u64;
                done.snapshot = if rows > 0 { snapshot } else { done.snapshot };
                done.rows += rows;
                done.records.extend(records);
            }
            None => lost += 1,
        }
        quarantine = quarantine::read(table).await?;
    }
    Err(TableError::Conflict(format!("{RACES_MAX} other replays of {} came first; run it again", table.at.name)))
}

/// The open records that are asked for.
fn wanted(table: &Table, quarantine: &Quarantine, positions: &[String]) -> Result<Vec<QuarantinedRecord>> {
    for position in positions {
        quarantine.find(table, position)?;
    }
    let asked: BTreeSet<&String> = positions.iter().collect();
    let wanted = |record: &&QuarantinedRecord| asked.is_empty() || asked.contains(&record.position());
    Ok(quarantine.open().filter(wanted).cloned().collect())
}

/// Records of one commit, decoded.
#[derive(Default)]
struct Taken {
    records: Vec<QuarantinedRecord>,
    rows: Rows,
    rejected: Vec<QuarantinedRecord>,
}

#[derive(Default)]
struct Rows {
    values: Vec<Vec<Value>>,
    numbers: Vec<i64>,
    kinds: Vec<i8>,
}

/// Decodes as many records as one commit may hold.
fn decode(table: &Table, decoder: &Decoder, records: Vec<QuarantinedRecord>) -> Taken {
    let mut taken = Taken::default();
    let mut bytes = 0;
    for mut record in records {
        if bytes > COMMIT_BYTES {
            break;
        }
        // Limits by batch were for the batch that it came in.
        match typed(table, decoder.batch_guard().decode(&record.data, record.arrival_ms)) {
            Decoded::Rejected(reject) => {
                record.reject = reject;
                taken.rejected.push(record);
                continue;
            }
            Decoded::Ignored(_) => {}
            Decoded::Changes(changes) => {
                for change in changes.into_iter().filter(|change| dropped_by(table, change.kind).is_none()) {
                    taken.rows.numbers.push(record.number);
                    taken.rows.kinds.push(change.kind as i8);
                    taken.rows.values.push(change.row);
                }
            }
        }
        bytes += record.data.len();
        taken.records.push(record);
    }
    taken
}

/// Commits one replay after `replays` others, the last of which is named. Gives the snapshot; `None` if another replay came first.
async fn commit(
    table: &Table,
    (replays, last): (u64, Option<ListId>),
    records: &[String],
    rows: Rows,
) -> Result<Option<Option<i64>>> {
    let started = table.ports.clock.now_ms();
    let list = lists::put(&table.ports, &table.at.replays(), last, records.iter().cloned()).await?;
    let id = ChangeId::derive(&format!("{}/{REPLAYS}/{list}", table.location.root()));
    let mut change = Change::new(id, ChangeKind::Append, table.schema.id, started);
    change.ranges.push(ShardRange {
        shard: ShardId::new(REPLAYS)?,
        from: (replays > 0).then(|| Position::from(replays)),
        to: Position::from(replays + 1),
        first_sequence: None,
        last_sequence: SequenceNumber(0),
        slot: Slot(0),
        parents: Vec::new(),
        list: Some(list),
    });
    if let Some(rows) = rows_batch(table, &rows.values, rows.numbers, rows.kinds)? {
        level_zero::write(table, &rows, PARALLEL_UPLOADS, &mut change).await?;
    }
    let until_ms = started.saturating_add(PATIENCE_MS);
    let done = drive(protocol::commit_until(&table.context, change, None, until_ms), &table.ports, &table.at).await?;
    debt::add(table, &done.runs, i64::MAX).await;
    match done.outcome {
        // Another replay may cover the same number: whose it is, only its list tells.
        Outcome::Committed { snapshot, .. } => {
            if !counts(table, list).await? {
                return Ok(None);
            }
            Ok(Some(snapshot.map(|s| s.0)))
        }
        Outcome::Conflict(Conflict::Overlap { .. } | Conflict::Gap { .. } | Conflict::OlderThanSweep { .. }) => {
            Ok(None)
        }
        Outcome::Conflict(other) => Err(TableError::Conflict(format!("the replay was refused: {other}; run it again"))),
        Outcome::Unknown { .. } => Err(TableError::Unavailable(
            "the commit of the replay got no answer in time; run it again, what was committed is recognised".to_owned(),
        )),
    }
}

async fn counts(table: &Table, list: ListId) -> Result<bool> {
    let (_, last) = last(&quarantine::checkpoints(table).await?)?;
    Ok(chain(table, last).await?.iter().any(|committed| committed.id == list))
}

/// How many replays there were, and the list of the last.
pub(crate) fn last(checkpoints: &Checkpoints) -> Result<(u64, Option<ListId>)> {
    Ok(match checkpoints.get(&ShardId::new(REPLAYS)?) {
        Lookup::Found(checkpoint) => (checkpoint.position.number(), checkpoint.list),
        Lookup::Absent | Lookup::NotLoaded => (0, None),
    })
}

/// The lists of the replays that count, the newest first.
pub(crate) async fn chain(table: &Table, last: Option<ListId>) -> Result<Vec<List>> {
    lists::chain(&table.ports, &table.at.replays(), last).await
}
