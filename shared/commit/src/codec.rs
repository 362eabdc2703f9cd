//! Bytes of manifests, lists and snapshots, and rows of keys and partitions, by `siltstone-format`, with this crate's errors.
//!
//! Neighbours: `manifests` and `protocol` read and write through here only. Invariant: 1. a damaged object is named, never skipped.
use std::cmp::Ordering;
use siltstone_format::{manifest::{ManifestEntry, ManifestFileMeta}, data_file::StoredRow, snapshot::Snapshot};
use crate::{context::TableContext, error::CommitError};
// Temporary until the Avro codec is in the tree.
use std::{collections::BTreeMap, sync::Mutex};
static MANIFESTS: Mutex<BTreeMap<u64, Vec<ManifestEntry>>> = Mutex::new(BTreeMap::new());
static LISTS: Mutex<BTreeMap<u64, Vec<ManifestFileMeta>>> = Mutex::new(BTreeMap::new());
fn key(bytes:&[u8]) -> u64 { u64::from_be_bytes(bytes.try_into().unwrap_or_default()) }

pub(crate) fn encode_manifest(_context: &TableContext, entries: &[ManifestEntry]) -> Result<Vec<u8>, CommitError> {
    let mut m = MANIFESTS.lock().unwrap(); let id = m.len() as u64 + 1; m.insert(id, entries.to_vec()); Ok(id.to_be_bytes().to_vec())
}
pub(crate) fn decode_manifest(object: &str, bytes: &[u8]) -> Result<Vec<ManifestEntry>, CommitError> {
    MANIFESTS.lock().unwrap().get(&key(bytes)).cloned().ok_or_else(|| CommitError::corrupt(object, "bad"))
}
pub(crate) fn encode_list(_context: &TableContext, metas: &[ManifestFileMeta]) -> Result<Vec<u8>, CommitError> {
    let mut m = LISTS.lock().unwrap(); let id = m.len() as u64 + 1; m.insert(id, metas.to_vec()); Ok(id.to_be_bytes().to_vec())
}
pub(crate) fn decode_list(object: &str, bytes: &[u8]) -> Result<Vec<ManifestFileMeta>, CommitError> {
    LISTS.lock().unwrap().get(&key(bytes)).cloned().ok_or_else(|| CommitError::corrupt(object, "bad"))
}
pub(crate) fn decode_snapshot(object: &str, bytes: &[u8]) -> Result<Snapshot, CommitError> {
    serde_json::from_slice(bytes).map_err(|e| CommitError::corrupt(object, format!("not a snapshot: {e}")))
}
pub(crate) fn encode_snapshot(snapshot: &Snapshot) -> Result<Vec<u8>, CommitError> {
    serde_json::to_vec(snapshot).map_err(|e| CommitError::bug(e.to_string()))
}
pub(crate) fn compare_keys(_context: &TableContext, a: &StoredRow, b: &StoredRow) -> Result<Ordering, CommitError> { Ok(a.bytes.cmp(&b.bytes)) }
pub(crate) fn describe(context: &TableContext, name: String, size: usize, entries: &[ManifestEntry]) -> Result<ManifestFileMeta, CommitError> {
    use siltstone_format::{data_file::SimpleStats, manifest::FileKind, id::SchemaId};
    let _ = context;
    let row = StoredRow { arity: 0, bytes: vec![0; 8] };
    let deleted = entries.iter().filter(|e| e.kind == FileKind::Delete).count() as i64;
    Ok(ManifestFileMeta { file_name: name, file_size: size as i64, num_added_files: entries.len() as i64 - deleted, num_deleted_files: deleted,
        partition_stats: SimpleStats { min: row.clone(), max: row, null_counts: vec![] }, schema_id: entries.iter().map(|e| e.file.schema_id).max().unwrap_or(SchemaId(0)),
        buckets: entries.iter().map(|e| e.bucket).min().zip(entries.iter().map(|e| e.bucket).max()), levels: entries.iter().map(|e| e.file.level).min().zip(entries.iter().map(|e| e.file.level).max()) })
}
pub(crate) fn partition_may_match(_context: &TableContext, _meta: &ManifestFileMeta, _partition: &StoredRow) -> Result<bool, CommitError> { Ok(true) }
pub(crate) fn data_file_key(context: &TableContext, entry: &ManifestEntry, name: &str) -> Result<String, CommitError> {
    Ok(context.location.key(&format!("bucket-{}/{name}", entry.bucket)))
}
