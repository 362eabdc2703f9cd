//! What survives of Kinesis, in one SQLite file. Neighbours: `state` (names the changes), `mod` (calls this before it answers).
//! Invariants: 1. the changes of one call are one transaction; 2. the last sequence number is kept with them.

use std::path::Path;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};

use super::state::{Change, Record, Sequence, Stream, Streams};

type Result<T> = std::result::Result<T, rusqlite::Error>;

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    CREATE TABLE IF NOT EXISTS streams (name TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS records (
        sequence INTEGER PRIMARY KEY, stream TEXT NOT NULL, shard TEXT NOT NULL, partition_key TEXT NOT NULL,
        arrival_ms INTEGER NOT NULL, data BLOB NOT NULL);
    CREATE INDEX IF NOT EXISTS records_of_shard ON records (stream, shard, sequence);
    CREATE TABLE IF NOT EXISTS marks (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
";

#[derive(Debug)]
pub(super) struct Db {
    connection: Connection,
}

impl Db {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let connection = Connection::open(path)?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self { connection })
    }

    pub(super) fn load(&self) -> Result<Streams> {
        let db = &self.connection;
        let mut streams = Streams::default();
        let mut rows = db.prepare("SELECT name, state FROM streams")?;
        let rows = rows.query_map([], |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?)))?;
        for row in rows {
            let (name, text) = row?;
            let wrong = |e| rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(e));
            let stream: Stream = serde_json::from_str(&text).map_err(wrong)?;
            streams.streams.insert(name, stream);
        }
        let mut rows = db.prepare(
            "SELECT stream, shard, sequence, partition_key, arrival_ms, data FROM records ORDER BY sequence",
        )?;
        let mut rows = rows.query([])?;
        while let Some(r) = rows.next()? {
            let (name, shard): (String, String) = (r.get(0)?, r.get(1)?);
            let (sequence, data): (i64, Vec<u8>) = (r.get(2)?, r.get(5)?);
            let (sequence, data) = (Sequence(sequence.unsigned_abs()), Bytes::from(data));
            let record = Record { sequence, partition_key: r.get(3)?, data, arrival_ms: r.get(4)? };
            let stream = streams.streams.get_mut(&name);
            if let Some(shard) = stream.and_then(|s| s.shards.iter_mut().find(|s| s.id == shard)) {
                shard.records.push_back(record);
            }
        }
        let mark: Option<i64> =
            db.query_row("SELECT value FROM marks WHERE name = 'sequence'", [], |r| r.get(0)).optional()?;
        streams.sequence = Sequence(mark.unwrap_or(0).unsigned_abs());
        Ok(streams)
    }

    pub(super) fn keep(&mut self, streams: &Streams, changes: &[Change]) -> Result<()> {
        let t = self.connection.transaction()?;
        for change in changes {
            match change {
                Change::Stream(name) => {
                    let Some(stream) = streams.streams.get(name) else { continue };
                    let text = serde_json::to_string(stream).unwrap_or_default();
                    t.execute("INSERT OR REPLACE INTO streams VALUES (?, ?)", params![name, text])?;
                }
                Change::Dropped(name) => {
                    t.execute("DELETE FROM streams WHERE name = ?", [name])?;
                    t.execute("DELETE FROM records WHERE stream = ?", [name])?;
                }
                Change::Record(stream, shard, r) => {
                    let row = params![signed(r.sequence), stream, shard, r.partition_key, r.arrival_ms, &r.data[..]];
                    t.prepare_cached("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)")?.execute(row)?;
                }
                Change::Trimmed(stream, shard, below) => {
                    let sql = "DELETE FROM records WHERE stream = ? AND shard = ? AND sequence < ?";
                    t.execute(sql, params![stream, shard, signed(*below)])?;
                }
            }
        }
        t.execute("INSERT OR REPLACE INTO marks VALUES ('sequence', ?)", [signed(streams.sequence)])?;
        t.commit()
    }
}

/// A counter of records stays far below 2^63.
fn signed(sequence: Sequence) -> i64 {
    i64::try_from(sequence.0).unwrap_or(i64::MAX)
}
