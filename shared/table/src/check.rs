//! Checks a table: the protocol's own check of everything that is named, and on request every row of every file.
//!
//! Neighbours: `commit`'s check says which files a reader of any snapshot or tag can reach, `lsm::audit` compares one with its manifest entry,
//! `silt check` prints. Memory: [`FILES_AT_ONCE`] files, each with the blocks of its source (24 MiB) and one batch (8 MiB); requests: one GET
//! per file of up to 8 MiB, one per MiB of a larger one. Invariants: 1. nothing is written; 2. a damaged file is a finding and stops no other;
//! only a service that does not answer ends the check.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use siltstone_commit::protocol::{self, Checked, Finding, ReachedFile, Severity};
use siltstone_format::{bucket::Bucketer, id::SchemaId, schema::TableSchema};
use siltstone_lsm::{
    audit::{Audited, Expected, Fault, audit},
    checksum::{self, Stated},
    error::LsmError,
};
use siltstone_store::object::ObjectErrorKind;

use crate::{
    driver::drive,
    error::{ErrorKind, Result, TableError},
    memory::columns_of,
    source::{FileSource, SourceSizes},
    table::{Table, read_schema},
};

/// Files read side by side.
pub const FILES_AT_ONCE: usize = 4;

/// What a deep check has read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Deep {
    /// What is wrong, in the order of object keys.
    pub findings: Vec<Finding>,
    /// Files read.
    pub files: u64,
    /// Their rows.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Looks at pointer, snapshots, tags, lists and manifests, and at which files there are, without reading them.
///
/// # Errors
/// When a service does not answer, or there is no table.
pub async fn check(table: &Table) -> Result<Checked> {
    drive(protocol::check(&table.context), &table.ports, &table.at).await
}

/// Reads every file that [`check`] reached, and compares its rows with what is said of them. `read` is told the bytes of each file done.
///
/// # Errors
/// When a service does not answer.
pub async fn deep(table: &Table, checked: &Checked, mut read: impl FnMut(u64)) -> Result<Deep> {
    let mut deep = Deep::default();
    let schemas = schemas(table, checked, &mut deep.findings).await?;
    let mut jobs: Vec<BoxFuture<'_, Result<(Audited, String, u64)>>> = Vec::new();
    for (key, file) in &checked.files {
        if let Some(schema) = schemas.get(&file.entry.file.schema_id) {
            jobs.push(one(table, key, file, schema.clone()).boxed());
        }
    }
    let mut results = stream::iter(jobs).buffered(FILES_AT_ONCE);
    while let Some(result) = results.next().await {
        let (audited, key, bytes) = result?;
        read(bytes);
        deep.files += 1;
        deep.rows += audited.rows;
        deep.bytes += bytes;
        for Fault { grave, detail } in audited.faults {
            let (severity, remedy) = if grave {
                (Severity::Error, "; restore it from a backup, or roll the table back to a snapshot without it")
            } else {
                (Severity::Note, "")
            };
            deep.findings.push(Finding { severity, object: key.clone(), message: format!("{detail}{remedy}") });
        }
    }
    Ok(deep)
}

/// The schemas that files were written under. One that is missing or damaged is a finding, and its files cannot be read.
async fn schemas(
    table: &Table,
    checked: &Checked,
    findings: &mut Vec<Finding>,
) -> Result<BTreeMap<SchemaId, Arc<TableSchema>>> {
    let ids: BTreeSet<SchemaId> = checked.files.values().map(|f| f.entry.file.schema_id).collect();
    let mut schemas = BTreeMap::new();
    for id in ids {
        match read_schema(&table.ports, &table.location, id).await {
            Ok(schema) => drop(schemas.insert(id, Arc::new(schema))),
            Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
            Err(error) => {
                let message = format!("{error}; the files written under it were not read");
                findings.push(Finding { severity: Severity::Error, object: table.location.schema(id), message });
            }
        }
    }
    Ok(schemas)
}

/// One file, on a blocking thread.
async fn one(table: &Table, key: &str, file: &ReachedFile, schema: Arc<TableSchema>) -> Result<(Audited, String, u64)> {
    let (key, file) = (key.to_owned(), file.clone());
    let bytes = u64::try_from(file.entry.file.file_size).unwrap_or(0);
    // An audit reads the key columns beside the value columns.
    let sizes = SourceSizes::alone(columns_of(&table.layout) + table.layout.key().len());
    let source = match FileSource::open(&table.ports.objects, &key, bytes, sizes).await {
        Ok(source) => source,
        Err(error) if error.kind() == ObjectErrorKind::NotFound => {
            let detail = "it is gone since the check began: another run may have expired it; check again".to_owned();
            return Ok((Audited { rows: 0, faults: vec![Fault { grave: true, detail }] }, key, 0));
        }
        Err(error) if error.kind() == ObjectErrorKind::Damaged => {
            return Ok((
                Audited { rows: 0, faults: vec![Fault { grave: true, detail: error.to_string() }] },
                key,
                bytes,
            ));
        }
        Err(error) => return Err((*error).into()),
    };
    let partition = table.partition_values(&file.entry.partition)?;
    let bucketer = bucketer(table, &file, &schema);
    let work = tokio::task::spawn_blocking(move || {
        let bucket = bucketer.map(|bucketer| (file.entry.bucket, bucketer));
        let meta = &file.entry.file;
        let expected = Expected { meta, partition: &partition, bucket, changelog: file.changelog };
        let mut audited = audit(source.clone(), &expected, &schema)?;
        if let Some(fault) = sum(&source, &meta.file_name)? {
            audited.faults.push(fault);
        }
        Ok((audited, key, bytes))
    });
    work.await.map_err(|died| TableError::Bug(format!("the thread of a check died: {died}")))?
}

/// Where rows of this file belong: by the bucket count that it was written for. None where no function says so.
fn bucketer(table: &Table, file: &ReachedFile, schema: &TableSchema) -> Option<Bucketer> {
    let key = schema.types_at(&schema.bucket_key_indices().ok()?);
    Bucketer::new(key, table.options.bucket_function?, file.entry.total_buckets).ok()
}

/// Compares a file with the checksum that it states.
fn sum(source: &FileSource, name: &str) -> Result<Option<Fault>> {
    let checked = checksum::stated(source, name).and_then(|stated| match stated {
        Stated::Nothing => Ok(None),
        Stated::Missing => {
            let detail =
                "it is Siltstone's and states no checksum: it is of before there were any, or damaged just there";
            Ok(Some(Fault { grave: false, detail: detail.to_owned() }))
        }
        Stated::Sum(claim) => {
            let unavailable =
                |e: std::io::Error| LsmError::Unavailable { object: name.to_owned(), detail: e.to_string() };
            claim.check(name, source.crc32(claim.digits_at).map_err(unavailable)?).map(|()| None)
        }
    });
    match checked {
        Err(LsmError::Corrupt { detail, .. }) => Ok(Some(Fault { grave: true, detail })),
        other => Ok(other?),
    }
}
