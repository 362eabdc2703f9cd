//! Bytes of manifests, lists and snapshots, and rows of keys and partitions, by `siltstone-format`, with this crate's errors.
//!
//! Neighbours: `manifests` and `protocol` read and write through here only.
//! Invariants: 1. a damaged object is named, never skipped; 2. partition statistics are exact and have full arity.

use std::{cmp::Ordering, collections::BTreeMap};

use siltstone_format::{
    binary_row::decode_row,
    data_file::{SimpleStats, StoredRow},
    id::SchemaId,
    manifest::{self, FileKind, ManifestEntry, ManifestFileMeta},
    snapshot::Snapshot,
    stats::ColumnRanges,
};

use crate::{context::TableContext, error::CommitError, manifests::count};

pub(crate) fn encode_manifest(
    context: &TableContext,
    entries: &[ManifestEntry],
    name: &str,
) -> Result<Vec<u8>, CommitError> {
    Ok(manifest::encode_manifest_with(entries, context.settings.manifest_compression, name)?)
}

pub(crate) fn decode_manifest(object: &str, bytes: &[u8]) -> Result<Vec<ManifestEntry>, CommitError> {
    Ok(manifest::decode_manifest(object, bytes)?)
}

pub(crate) fn encode_list(
    context: &TableContext,
    metas: &[ManifestFileMeta],
    name: &str,
) -> Result<Vec<u8>, CommitError> {
    Ok(manifest::encode_manifest_list_with(metas, context.settings.manifest_compression, name)?)
}

pub(crate) fn decode_list(object: &str, bytes: &[u8]) -> Result<Vec<ManifestFileMeta>, CommitError> {
    Ok(manifest::decode_manifest_list(object, bytes)?)
}

pub(crate) fn decode_snapshot(object: &str, bytes: &[u8]) -> Result<Snapshot, CommitError> {
    Ok(Snapshot::from_json(object, bytes)?)
}

/// Order of two keys that were checked when their manifest was read.
pub(crate) fn compare_keys(context: &TableContext, a: &StoredRow, b: &StoredRow) -> Ordering {
    context.shape.keys.compare(a, b)
}

/// Refuses entries whose keys cannot be compared.
pub(crate) fn check_keys(context: &TableContext, object: &str, entries: &[ManifestEntry]) -> Result<(), CommitError> {
    for entry in entries {
        context.shape.keys.check(object, &entry.file.min_key)?;
        context.shape.keys.check(object, &entry.file.max_key)?;
    }
    Ok(())
}

/// Refuses entries that no manifest or key order could take: keys and partitions are read as far as a commit reads them.
pub(crate) fn check_entries(
    context: &TableContext,
    object: &str,
    entries: &[ManifestEntry],
) -> Result<(), CommitError> {
    check_keys(context, object, entries)?;
    entries.iter().try_for_each(|entry| bucket_file(context, entry, &entry.file.file_name).map(|_| ()))
}

/// What a list says of a manifest.
pub(crate) fn describe(
    context: &TableContext,
    name: String,
    size: usize,
    entries: &[ManifestEntry],
) -> Result<ManifestFileMeta, CommitError> {
    let (buckets, levels) = (entries.iter().map(|e| e.bucket), entries.iter().map(|e| e.file.level));
    Ok(ManifestFileMeta {
        partition_stats: partition_stats(context, &name, entries)?,
        file_name: name,
        file_size: i64::try_from(size).unwrap_or(i64::MAX),
        num_added_files: count(entries, FileKind::Add),
        num_deleted_files: count(entries, FileKind::Delete),
        schema_id: entries.iter().map(|e| e.file.schema_id).max().unwrap_or(SchemaId(0)),
        buckets: buckets.clone().min().zip(buckets.max()),
        levels: levels.clone().min().zip(levels.max()),
    })
}

/// Smallest, largest and nulls per partition column. Entries of one partition are decoded once.
fn partition_stats(context: &TableContext, name: &str, entries: &[ManifestEntry]) -> Result<SimpleStats, CommitError> {
    let types = &context.shape.partition_types;
    let mut partitions: BTreeMap<&StoredRow, u64> = BTreeMap::new();
    for entry in entries {
        *partitions.entry(&entry.partition).or_default() += 1;
    }
    let mut ranges = ColumnRanges::new(types);
    for (row, times) in partitions {
        let values = decode_row(name, row, types)?;
        for _ in 0..times {
            ranges.add(&values)?;
        }
    }
    Ok(ranges.finish()?)
}

/// False only if the manifest's statistics prove that it holds nothing of this partition.
pub(crate) fn partition_may_match(
    context: &TableContext,
    meta: &ManifestFileMeta,
    partition: &StoredRow,
) -> Result<bool, CommitError> {
    let types = &context.shape.partition_types;
    let (stats, name) = (&meta.partition_stats, &meta.file_name);
    let known = |row: &StoredRow| usize::try_from(row.arity) == Ok(types.len());
    if types.is_empty() || !known(&stats.min) || !known(&stats.max) {
        return Ok(true);
    }
    let low = decode_row(name, &stats.min, types)?;
    let high = decode_row(name, &stats.max, types)?;
    let values = decode_row(name, partition, types)?;
    let outside = values.iter().zip(low.iter().zip(&high)).any(|(value, (low, high))| {
        let bounded = !value.is_null() && !low.is_null() && !high.is_null();
        bounded && (value.compare(low) == Ordering::Less || value.compare(high) == Ordering::Greater)
    });
    Ok(!outside)
}

/// Key of a file beside an entry's data file: the file itself, a side file, or a copy.
pub(crate) fn bucket_file(context: &TableContext, entry: &ManifestEntry, name: &str) -> Result<String, CommitError> {
    let shape = &context.shape;
    let values = decode_row(name, &entry.partition, &shape.partition_types)?;
    let partition = shape.partition_paths.path(&values)?;
    Ok(context.location.bucket_file(shape.data_directory.as_deref(), &partition, entry.bucket, name))
}

/// Keys of everything that lives and dies with an entry's data file. Files outside the table's directory are not ours to touch.
pub(crate) fn files_of(context: &TableContext, entry: &ManifestEntry) -> Result<Vec<String>, CommitError> {
    if entry.file.external_path.is_some() {
        return Ok(Vec::new());
    }
    let names = entry.file.extra_files.iter().chain([&entry.file.file_name]);
    names.map(|name| bucket_file(context, entry, name)).collect()
}
