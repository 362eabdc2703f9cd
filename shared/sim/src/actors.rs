//! What runs beside `ingest` and `compact`, which are use-cases of `table` as they stand: the schedule, another engine, the operator's repair.
//!
//! Neighbours: `run` starts them. Invariant: 1. nothing here but `alone` knows of the simulation.

use std::sync::Arc;

use futures::future::BoxFuture;
use siltstone_commit::{
    changes::{Change, ChangeId, ChangeKind, Outcome},
    manifests::Scope,
    protocol::{self, SweepOptions},
};
use siltstone_format::{
    data_file::{FileSource, StoredRow},
    id::Level,
    manifest::{FileKind, ManifestEntry},
    value::Value,
};
use siltstone_lsm::{batch::KeyValueBatch, rows::batch_of, writer::RunWriter};
use siltstone_store::{mapping::EventSourceMappings, object::PutMode};
use siltstone_table::{
    Authority, Ports, Purpose, Result, Table, TableRef,
    driver::drive,
    maintain::{self, MaintainReport, MaintainRequest},
    repair::{self, Plan},
    state, writing,
};

use crate::{
    ports::ports_of,
    process::{Desk, Process, Verdict},
    world::World,
};

/// Name of the function that the mapping feeds.
pub const INGEST: &str = "ingest";

/// `maintain` runs its tasks; and now and then a sweep of what is minutes old, not a day.
///
/// # Errors
/// When the table cannot be opened, or the sweep fails.
pub async fn maintain(
    ports: Ports,
    at: TableRef,
    mappings: Arc<dyn EventSourceMappings>,
    sweep_young: bool,
    deadline_ms: i64,
) -> Result<MaintainReport> {
    let table = Table::open(&ports, &at, Authority::Pointer, Purpose::Read).await?;
    let request = MaintainRequest { sweep_now: false, dry_run: false, deadline_ms };
    let mut report = maintain::run(&table, Some((mappings.as_ref(), INGEST)), &request).await;
    if sweep_young {
        let options =
            SweepOptions { older_than_ms: 60_000, clock_skew_ms: 60_000, dry_run: false, ..SweepOptions::default() };
        let swept = drive(protocol::sweep(&table.context, options), &ports, &at).await?;
        report.orphans += swept.keys.len() as u64;
    }
    Ok(report)
}

/// Another engine appends one row, by a conditional put of the next snapshot. True if it is known to be in the table.
///
/// # Errors
/// When a service does not answer.
pub async fn foreign(ports: Ports, at: TableRef, number: u32) -> Result<bool> {
    let table = Table::open(&ports, &at, Authority::Bare, Purpose::Write).await?;
    let live = match table.current().await? {
        Some(snapshot) => state::live_files(&table, &snapshot, Scope::Everything).await?,
        None => Vec::new(),
    };
    let highest = live.iter().map(|entry| entry.file.max_sequence_number.0).max().unwrap_or(0);
    let key = Value::Int(1_000 + i32::try_from(number).unwrap_or(0));
    let bucket = table.bucketer()?.bucket(std::slice::from_ref(&key))?;
    let row = vec![key, Value::Int(1), Value::BigInt(i64::from(number))];
    let rows = KeyValueBatch::new(batch_of(&table.layout, &[row])?, vec![highest + 1].into(), vec![0].into())?;
    let settings = Arc::new(writing::writer_settings(&table, Level::ZERO));
    let started = ports.clock.now_ms();
    let mut writer = RunWriter::new(&table.layout, settings, Level::ZERO, FileSource::Append)?;
    writer.write(&rows)?;
    let (bytes, file) = writer.finish(format!("data-{}-0.parquet", ports.ids.uuid()), started)?;
    let place = table.data_key(&[], bucket, &file.file_name)?;
    ports.objects.put(&place, bytes, PutMode::Overwrite).await.map_err(|e| *e)?;
    let mut change = Change::new(ChangeId(ports.ids.uuid().as_u128()), ChangeKind::Append, table.schema.id, started);
    let total_buckets = table.bucket_count().unwrap_or(1);
    change.files.push(ManifestEntry {
        kind: FileKind::Add,
        partition: StoredRow::empty(),
        bucket,
        total_buckets,
        file,
    });
    let outcome = drive(protocol::commit(&table.context, change), &ports, &at).await?;
    Ok(matches!(outcome, Outcome::Committed { .. }))
}

/// Runs work over ports of its own with nobody beside it and nothing going wrong; a call takes a millisecond.
///
/// # Errors
/// Its own.
///
/// # Panics
/// If it waits for something that is no call.
pub fn alone<T: Send + 'static>(
    world: &World,
    seed: u64,
    work: impl FnOnce(Ports) -> BoxFuture<'static, Result<T>>,
) -> Result<T> {
    let desk = Arc::new(Desk::default());
    let (ports, ..) = ports_of(world, &desk, 0, seed);
    let mut process = Process::with_threads(desk, work(ports));
    let mut end = process.settle();
    loop {
        if let Some(end) = end {
            return end;
        }
        let call = process.calls().into_iter().min_by_key(|(number, call)| (call.not_before_ms, *number));
        let Some((number, call)) = call else { panic!("a process without a call") };
        world.advance(1.max(call.not_before_ms - world.now_ms()));
        process.decide(number, Verdict::Perform, 0);
        end = process.answer(number);
    }
}

/// The operator looks, and repairs.
///
/// # Errors
/// When it has to be repeated.
pub async fn repair(ports: Ports, at: TableRef) -> Result<Plan> {
    let (table, plan) = repair::plan(&ports, &at).await?;
    repair::run(&table, plan).await?;
    Ok(plan)
}
