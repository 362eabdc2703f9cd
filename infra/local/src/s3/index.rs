//! What survives of S3: buckets, objects and uploads in one SQLite file.
//! Neighbours: `state` (the same in memory, calls this first), `body` (the bytes).
//! Invariants: 1. each method is one transaction; 2. without a file every method succeeds and does nothing.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::state::{Headers, Part, Stored, Upload};

type Result<T> = std::result::Result<T, rusqlite::Error>;

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    CREATE TABLE IF NOT EXISTS buckets (name TEXT PRIMARY KEY, created_ms INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS objects (
        bucket TEXT NOT NULL, key TEXT NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL, modified_ms INTEGER NOT NULL,
        body TEXT NOT NULL, headers TEXT NOT NULL, PRIMARY KEY (bucket, key)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS uploads (
        id TEXT PRIMARY KEY, bucket TEXT NOT NULL, key TEXT NOT NULL, started_ms INTEGER NOT NULL,
        headers TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS parts (
        upload TEXT NOT NULL, number INTEGER NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL,
        modified_ms INTEGER NOT NULL, body TEXT NOT NULL, headers TEXT NOT NULL,
        PRIMARY KEY (upload, number)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS marks (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
";

/// The file, if there is one.
#[derive(Debug)]
pub(super) struct Index {
    db: Option<Connection>,
}

/// One row of objects or parts, its body by name.
#[derive(Debug)]
pub(super) struct Row<K> {
    pub(super) of: K,
    pub(super) size: u64,
    pub(super) etag: String,
    pub(super) modified_ms: i64,
    pub(super) body: String,
    pub(super) headers: Headers,
}

impl Index {
    pub(super) fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self { db: None }) };
        let db = Connection::open(path)?;
        db.execute_batch(SCHEMA)?;
        Ok(Self { db: Some(db) })
    }

    fn write(&mut self, act: impl FnOnce(&Transaction<'_>) -> Result<()>) -> Result<()> {
        let Some(db) = &mut self.db else { return Ok(()) };
        let transaction = db.transaction()?;
        act(&transaction)?;
        transaction.commit()
    }

    pub(super) fn create_bucket(&mut self, name: &str, created_ms: i64) -> Result<()> {
        self.write(|t| t.execute("INSERT INTO buckets VALUES (?, ?)", params![name, created_ms]).map(drop))
    }

    pub(super) fn delete_bucket(&mut self, name: &str, uploads: &[String]) -> Result<()> {
        self.write(|t| {
            uploads.iter().try_for_each(|id| drop_upload(t, id))?;
            t.execute("DELETE FROM buckets WHERE name = ?", [name]).map(drop)
        })
    }

    /// Also ends the upload that made the object.
    pub(super) fn put(
        &mut self,
        (bucket, key): (&str, &str),
        o: &Stored,
        sequencer: u64,
        ended: Option<&str>,
    ) -> Result<()> {
        self.write(|t| {
            t.prepare_cached("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?, ?)")?.execute(params![
                bucket,
                key,
                signed(o.size),
                o.etag,
                o.modified_ms,
                o.body.name(),
                json(&o.headers)
            ])?;
            t.prepare_cached("INSERT OR REPLACE INTO marks VALUES ('sequencer', ?)")?.execute([signed(sequencer)])?;
            ended.map_or(Ok(()), |id| drop_upload(t, id))
        })
    }

    pub(super) fn delete(&mut self, bucket: &str, keys: &[String]) -> Result<()> {
        self.write(|t| {
            let mut delete = t.prepare_cached("DELETE FROM objects WHERE bucket = ? AND key = ?")?;
            keys.iter().try_for_each(|key| delete.execute([bucket, key]).map(drop))
        })
    }

    pub(super) fn put_upload(&mut self, id: &str, upload: &Upload) -> Result<()> {
        self.write(|t| {
            let row = params![id, upload.bucket, upload.key, upload.started_ms, json(&upload.headers)];
            t.execute("INSERT INTO uploads VALUES (?, ?, ?, ?, ?)", row).map(drop)
        })
    }

    pub(super) fn put_part(&mut self, upload: &str, number: i32, part: &Part) -> Result<()> {
        self.write(|t| {
            let (size, headers) = (signed(part.size), json(&part.headers));
            let row = params![upload, number, size, part.etag, part.modified_ms, part.body.name(), headers];
            t.execute("INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?, ?, ?)", row).map(drop)
        })
    }

    pub(super) fn delete_upload(&mut self, id: &str) -> Result<()> {
        self.write(|t| drop_upload(t, id))
    }

    pub(super) fn buckets(&self) -> Result<Vec<(String, i64)>> {
        let Some(db) = &self.db else { return Ok(Vec::new()) };
        let mut query = db.prepare("SELECT name, created_ms FROM buckets")?;
        query.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect()
    }

    pub(super) fn sequencer(&self) -> Result<u64> {
        let Some(db) = &self.db else { return Ok(0) };
        let value: Option<i64> =
            db.query_row("SELECT value FROM marks WHERE name = 'sequencer'", [], |r| r.get(0)).optional()?;
        Ok(value.map_or(0, i64::unsigned_abs))
    }

    /// By bucket and key.
    pub(super) fn objects(&self) -> Result<Vec<Row<(String, String)>>> {
        let sql = "SELECT size, etag, modified_ms, body, headers, bucket, key FROM objects";
        self.rows(sql, |r| Ok((r.get(5)?, r.get(6)?)))
    }

    /// By upload and number.
    pub(super) fn parts(&self) -> Result<Vec<Row<(String, i32)>>> {
        let sql = "SELECT size, etag, modified_ms, body, headers, upload, number FROM parts";
        self.rows(sql, |r| Ok((r.get(5)?, r.get(6)?)))
    }

    pub(super) fn uploads(&self) -> Result<Vec<(String, Upload)>> {
        let Some(db) = &self.db else { return Ok(Vec::new()) };
        let mut query = db.prepare("SELECT id, bucket, key, started_ms, headers FROM uploads")?;
        let rows = query.query_map([], |r| {
            let (bucket, key, started_ms, headers) = (r.get(1)?, r.get(2)?, r.get(3)?, headers(r, 4)?);
            Ok((r.get(0)?, Upload { bucket, key, started_ms, headers, parts: Default::default() }))
        })?;
        rows.collect()
    }

    fn rows<K>(&self, sql: &str, of: impl Fn(&rusqlite::Row<'_>) -> Result<K>) -> Result<Vec<Row<K>>> {
        let Some(db) = &self.db else { return Ok(Vec::new()) };
        let mut query = db.prepare(sql)?;
        let rows = query.query_map([], |r| {
            let size: i64 = r.get(0)?;
            let (etag, modified_ms, body) = (r.get(1)?, r.get(2)?, r.get(3)?);
            Ok(Row { of: of(r)?, size: size.unsigned_abs(), etag, modified_ms, body, headers: headers(r, 4)? })
        })?;
        rows.collect()
    }
}

fn drop_upload(t: &Transaction<'_>, id: &str) -> Result<()> {
    t.execute("DELETE FROM uploads WHERE id = ?", [id])?;
    t.execute("DELETE FROM parts WHERE upload = ?", [id]).map(drop)
}

/// Sizes and sequencers are far below 2^63; SQLite has signed integers only.
fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn json(headers: &Headers) -> String {
    serde_json::to_string(headers).unwrap_or_default()
}

fn headers(row: &rusqlite::Row<'_>, at: usize) -> Result<Headers> {
    let text: String = row.get(at)?;
    serde_json::from_str(&text)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, Box::new(e)))
}
