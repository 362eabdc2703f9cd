//! Opens data files of a table for the engine: bytes from the store, the schema each was written under, rows in today's schema.
//!
//! Neighbours: `scan` and `compact` merge what this opens. Runs on a blocking thread, since the engine pulls bytes as it goes.
//! Invariant: 1. every schema a file names is loaded before the first row is read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use siltstone_format::{data_file::DataFileMeta, id::SchemaId, manifest::ManifestEntry, schema::TableSchema};
use siltstone_lsm::{compact::OpenFile, error::LsmError, merge::RunBatches, reader};
use tokio::runtime::Handle;

use crate::{
    error::{Result, TableError},
    source::{FileSource, SourceSizes},
    table::{Table, read_schema},
};

/// Schemas of a set of files, by id.
pub(crate) async fn schemas_of(table: &Table, files: &[ManifestEntry]) -> Result<BTreeMap<SchemaId, Arc<TableSchema>>> {
    let ids: BTreeSet<SchemaId> = files.iter().map(|e| e.file.schema_id).collect();
    let mut schemas = BTreeMap::new();
    for id in ids {
        let schema = if id == table.schema.id {
            table.schema.clone()
        } else {
            Arc::new(read_schema(&table.ports, &table.location, id).await?)
        };
        schemas.insert(id, schema);
    }
    Ok(schemas)
}

/// A function that opens any of `files` by its description, each within `sizes` and with batches of `batch_bytes`.
pub(crate) async fn opener(
    table: &Table,
    files: &[ManifestEntry],
    sizes: SourceSizes,
    batch_bytes: usize,
) -> Result<OpenFile<'static>> {
    let schemas = schemas_of(table, files).await?;
    let mut keys: BTreeMap<String, String> = BTreeMap::new();
    for entry in files {
        let key = match &entry.file.external_path {
            Some(path) => {
                return Err(TableError::invalid(format!(
                    "data file {path} lies outside the table (data-file.external-paths), which is not supported: \
                     let its own engine rewrite it into the table"
                )));
            }
            None => {
                let partition = table.partition_values(&entry.partition)?;
                table.data_key(&partition, entry.bucket, &entry.file.file_name)?
            }
        };
        keys.insert(entry.file.file_name.clone(), key);
    }
    let (runtime, objects, layout) = (Handle::current(), table.ports.objects.clone(), table.layout.clone());
    Ok(Arc::new(move |meta: &DataFileMeta| {
        let object = meta.file_name.as_str();
        let unavailable = |detail: String| LsmError::Unavailable { object: object.to_owned(), detail };
        let key = keys.get(object).ok_or_else(|| unavailable("was not among the files opened".to_owned()))?;
        let schema = schemas.get(&meta.schema_id).ok_or_else(|| unavailable("its schema was not read".to_owned()))?;
        let size = u64::try_from(meta.file_size).unwrap_or(0);
        let source = runtime.block_on(FileSource::open(&objects, key, size, sizes)).map_err(|e| match e.kind() {
            siltstone_store::object::ObjectErrorKind::NotFound => LsmError::Corrupt {
                object: key.clone(),
                detail: "the object is missing though a manifest names it".to_owned(),
            },
            siltstone_store::object::ObjectErrorKind::Damaged => {
                LsmError::Corrupt { object: key.clone(), detail: e.to_string() }
            }
            _ => unavailable(e.to_string()),
        })?;
        if parquet::file::reader::Length::len(&source) != size {
            let found = parquet::file::reader::Length::len(&source);
            return Err(LsmError::Corrupt {
                object: key.clone(),
                detail: format!("has {found} bytes, its manifest entry says {size}"),
            });
        }
        source.check_whole(key)?;
        let batches = reader::open_bounded(source, meta, schema, &layout, batch_bytes).map_err(|e| e.found_in(key))?;
        let key = key.clone();
        let named = batches.map(move |batch| batch.map_err(|e| e.found_in(&key)));
        Ok(Box::new(named) as RunBatches<'static>)
    }))
}
