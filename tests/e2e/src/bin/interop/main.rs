//! Siltstone's side of `tests/interop`: creates tables on a directory, ingests records into them, compacts, expires, reads and checks them.
//!
//! Neighbours: `tests/interop/peers.py` starts it once and sends it commands; other engines read the directory. The cases read and compact
//! bare tables by `silt` itself, as a user would; the random histories by the same use-cases in here, since a process a read is slow.
//! Pointers live in memory: a table is ours as long as this process lives.
//! Invariants: 1. one JSON command a line on standard input, one JSON answer a line on standard output, in order; 2. a record that does not
//! become a row is an error, never left out.

mod cells;

use std::{
    collections::BTreeMap,
    error::Error,
    fs::File,
    io::{BufRead, BufWriter, Write},
    sync::Arc,
};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use siltstone_commit::{
    context::{Authority, TableContext, TableLocation},
    protocol::{self, ExpireOptions},
};
use siltstone_decode::{Decoded, Decoder, DecoderConfig, config::PartitionLimits};
use siltstone_format::{
    binary_row::encode_row,
    bucket::{bucket_of, hash},
    options::{Purpose, TableOptions},
    schema::{Column, TableSchema, type_from_json},
    types::DataType,
};
use siltstone_store::{FsObjectStore, RandomIds, SystemClock, memory::MemoryItemStore};
use siltstone_table::{
    Ports, Table, TableRef, Version,
    compact::{self, CompactRequest, Compacted},
    driver::drive,
    filter::Filter,
    ingest::{Ingest, StreamBatch, StreamRecord},
    scan::{ScanRequest, scan},
    settings::{CompactLimits, Feed, IngestLimits},
};

type Outcome<T> = Result<T, Box<dyn Error>>;

const STREAM: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/interop";
const SHARD: &str = "shardId-000000000000";
/// Name of the field that says what a record does; no table of the cases has a column of this name.
const OP_FIELD: &str = "_op";
/// Deadlines are not what is tested here.
const NO_DEADLINE: i64 = i64::MAX;

/// A command.
#[derive(Debug, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
enum Command {
    /// A new table; types as in a schema file, nested ones as objects.
    Create {
        table: String,
        columns: Vec<(String, Json)>,
        partition_keys: Vec<String>,
        primary_keys: Vec<String>,
        options: BTreeMap<String, String>,
    },
    /// One batch of plain-JSON records: a file with one a line.
    Ingest { table: String, records: String },
    /// Every bucket, to the last level or as the picker chooses; `bare` as a table without pointer.
    Compact {
        table: String,
        full: bool,
        #[serde(default)]
        bare: bool,
    },
    /// All rows, or those of a `--where` text, of the newest snapshot, another or a tag's: one list of cells a line goes to `out`.
    Scan {
        table: String,
        out: String,
        filter: Option<String>,
        snapshot: Option<i64>,
        tag: Option<String>,
        #[serde(default)]
        bare: bool,
    },
    /// Removes all snapshots but the newest `keep`, whatever their age.
    Expire { table: String, keep: u64 },
    /// What is wrong with a table.
    Check {
        table: String,
        #[serde(default)]
        bare: bool,
    },
    /// BinaryRow bytes (with the arity prefix), hash and buckets of rows, each a record with the fields `c0`, `c1`, ...
    Encode { types: Vec<Json>, records: Vec<Json>, buckets: Vec<i32> },
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let dir = std::env::args().nth(1).ok_or("usage: interop WAREHOUSE_DIRECTORY < commands")?;
    let mut session = Session::open(&dir)?;
    let (input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    for line in input.lines() {
        let answer = match session.answer(&line?).await {
            Ok(answer) => answer,
            Err(error) => json!({"error": error.to_string()}),
        };
        writeln!(output, "{answer}")?;
        output.flush()?;
    }
    Ok(())
}

struct Session {
    ports: Ports,
    /// One warm ingest and the next stream sequence number, by table.
    writers: BTreeMap<String, (Ingest, u64)>,
}

impl Session {
    fn open(dir: &str) -> Outcome<Self> {
        let ports = Ports {
            objects: Arc::new(FsObjectStore::open_unsynced(dir)?),
            items: Arc::new(MemoryItemStore::new()),
            clock: Arc::new(SystemClock),
            ids: Arc::new(RandomIds),
        };
        Ok(Self { ports, writers: BTreeMap::new() })
    }

    async fn answer(&mut self, line: &str) -> Outcome<Json> {
        match serde_json::from_str(line)? {
            Command::Create { table, columns, partition_keys, primary_keys, options } => {
                let columns = columns
                    .into_iter()
                    .map(|(name, text)| Ok(Column::new(name, type_from_json(&text, 0)?)))
                    .collect::<Outcome<Vec<_>>>()?;
                let now = self.ports.clock.now_ms();
                let schema = TableSchema::create(columns, partition_keys, primary_keys, options, None, now)?;
                self.create(&table, schema).await
            }
            Command::Ingest { table, records } => self.ingest(&table, &std::fs::read(records)?).await,
            Command::Compact { table, full, bare } => {
                compact_all(&self.open_table(&table, bare, Purpose::Compact).await?, full).await
            }
            Command::Scan { table, out, filter, snapshot, tag, bare } => {
                let version = tag.map_or_else(|| Version::from(snapshot), Version::Tag);
                let table = self.open_table(&table, bare, Purpose::Read).await?.as_of(&version).await?;
                read(&table, &out, filter.as_deref(), version).await
            }
            Command::Expire { table, keep } => {
                expire(&self.open_table(&table, false, Purpose::Expire).await?, keep).await
            }
            Command::Check { table, bare } => {
                let table = self.open_table(&table, bare, Purpose::Read).await?;
                let checked = drive(protocol::check(&table.context), &table.ports, &table.at).await?;
                let findings: Vec<String> = checked.findings.iter().map(ToString::to_string).collect();
                Ok(json!({"findings": findings, "files": checked.live_files}))
            }
            Command::Encode { types, records, buckets } => encode(&types, &records, &buckets),
        }
    }

    async fn create(&mut self, name: &str, schema: TableSchema) -> Outcome<Json> {
        TableOptions::for_purpose(&schema, Purpose::Write)?;
        let at = TableRef::new("", name.parse()?);
        let context = TableContext::new(TableLocation::new(&at.location())?, schema.into())?;
        drive(protocol::create(&context, None), &self.ports, &at).await?;
        // Random days of a century are meant.
        let partitions = PartitionLimits { days_back: 36_500, per_batch: 20_000, ..PartitionLimits::default() };
        let decoder = DecoderConfig { op_field: Some(OP_FIELD.to_owned()), partitions, ..DecoderConfig::default() };
        Feed { stream_arn: STREAM.to_owned(), decoder }.save(&self.ports, &at).await?;
        // Others alter tables here, and the next batch is to have the new columns.
        let limits = IngestLimits { schema_interval_ms: 0, ..IngestLimits::default() };
        let ingest = Ingest::new(self.ports.clone(), at, None, limits);
        self.writers.insert(name.to_owned(), (ingest, 1));
        Ok(json!({"table": name}))
    }

    async fn ingest(&mut self, name: &str, records: &[u8]) -> Outcome<Json> {
        let arrival_ms = self.ports.clock.now_ms();
        let (ingest, next) = self.writers.get_mut(name).ok_or("no such table of this process")?;
        let records: Vec<StreamRecord> = records
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .zip(*next..)
            .map(|(line, n)| StreamRecord {
                sequence: format!("4959033827149025660855969253836157{n:022}"),
                arrival_ms,
                partition_key: n.to_string(),
                data: Bytes::copy_from_slice(line),
            })
            .collect();
        let count = records.len() as u64;
        *next += count;
        let batch = StreamBatch { stream_arn: STREAM.to_owned(), shard: SHARD.to_owned(), records };
        let report = ingest.handle(&batch, NO_DEADLINE).await?;
        // A table may leave deletes out (`ignore-delete`).
        if report.changes + report.ignored.values().sum::<u64>() != count {
            let why = format!(
                "{count} records became {} changes: {:?}, {:?}",
                report.changes, report.ignored, report.quarantined
            );
            return Err(why.into());
        }
        Ok(json!({"changes": report.changes, "files": report.files, "snapshot": report.snapshot}))
    }

    async fn open_table(&self, name: &str, bare: bool, purpose: Purpose) -> Outcome<Table> {
        let authority = if bare { Authority::Bare } else { Authority::Pointer };
        Ok(Table::open(&self.ports, &TableRef::new("", name.parse()?), authority, purpose).await?)
    }
}

async fn compact_all(table: &Table, full: bool) -> Outcome<Json> {
    let request = if full { CompactRequest::Full } else { CompactRequest::Picked };
    // Nobody redelivers here: deletes may go at once.
    let limits = CompactLimits { lateness_ms: 0, ..CompactLimits::default() };
    let (mut compacted, mut rows_in, mut rows_out) = (0, 0, 0);
    for (partition, bucket, _) in compact::buckets(table).await? {
        match compact::compact_bucket(table, &partition, bucket, request, &limits, NO_DEADLINE).await? {
            Compacted::Nothing => {}
            Compacted::Conflict(reason) => return Err(format!("bucket {}: {reason}", bucket.0).into()),
            Compacted::Done(report) => {
                compacted += 1;
                rows_in += report.rows_in;
                rows_out += report.rows_out;
            }
        }
    }
    Ok(json!({"buckets": compacted, "rowsIn": rows_in, "rowsOut": rows_out}))
}

async fn read(table: &Table, out: &str, filter: Option<&str>, version: Version) -> Outcome<Json> {
    let filter = filter.map_or(Ok(Filter::default()), |text| Filter::parse(text, &table.schema))?;
    let request = ScanRequest { version, filter, limit: None };
    let types: Vec<&DataType> = table.schema.fields.iter().map(|field| &field.data_type).collect();
    let mut lines = BufWriter::new(File::create(out)?);
    let mut failed = None;
    let rows = scan(table, &request, |row| match writeln!(lines, "{}", cells::line(&row.values, &types)) {
        Ok(()) => true,
        Err(error) => {
            failed = Some(error);
            false
        }
    })
    .await?;
    failed.map_or(Ok(()), Err)?;
    lines.flush()?;
    let columns: Vec<&str> = table.schema.fields.iter().map(|field| field.name.as_str()).collect();
    Ok(json!({"rows": rows, "columns": columns}))
}

async fn expire(table: &Table, keep: u64) -> Outcome<Json> {
    let options = ExpireOptions {
        retain_min: keep,
        retain_max: keep,
        time_retained_ms: 0,
        limit: u64::MAX,
        // Nobody publishes late here.
        name_grace_ms: 0,
        ..ExpireOptions::default()
    };
    let expired = drive(protocol::expire(&table.context, options), &table.ports, &table.at).await?;
    Ok(json!({"expired": expired.snapshots.len(), "deleted": expired.keys.len()}))
}

/// Types the records as ingest would, and encodes the values; a column of the key comes first and is left out of the rows.
fn encode(types: &[Json], records: &[Json], buckets: &[i32]) -> Outcome<Json> {
    let types = types.iter().map(|text| Ok(type_from_json(text, 0)?)).collect::<Outcome<Vec<DataType>>>()?;
    let named = types.iter().enumerate().map(|(n, t)| Column::new(format!("c{n}"), t.clone()));
    let columns = [Column::new("key", DataType::parse("INT")?)].into_iter().chain(named).collect();
    let schema = TableSchema::create(columns, Vec::new(), vec!["key".to_owned()], BTreeMap::new(), None, 0)?;
    let decoder = Decoder::new(&schema, &DecoderConfig::default())
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    let mut rows = Vec::new();
    for record in records {
        let decoded = decoder.decode(record.to_string().as_bytes());
        let Decoded::Changes(changes) = &decoded else { return Err(format!("{record}: {decoded:?}").into()) };
        for change in changes {
            let row = encode_row(change.row.get(1..).unwrap_or_default(), &types)?;
            let bytes: String = row.to_prefixed().iter().map(|byte| format!("{byte:02x}")).collect();
            let buckets: Vec<i32> = buckets.iter().map(|n| bucket_of(&row.bytes, *n).0).collect();
            rows.push(json!({"bytes": bytes, "hash": hash(&row.bytes), "buckets": buckets}));
        }
    }
    Ok(json!({"rows": rows}))
}
