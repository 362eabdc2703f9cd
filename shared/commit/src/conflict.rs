//! Whether a compaction or an overwrite may be applied to the state it would be committed onto
//! (paimon-format.md section 12 checks 1 to 5, architecture.md section 3 rules 6 and 7).
//!
//! Neighbours: `fold` calls [`check`] on the accumulating state, `manifests` reads what is live in the touched buckets.
//! Invariants: 1. levels from 1 up stay disjoint (13); 2. a deleted (name, level) never comes back (19); 3. no row can lie below
//! a dropped delete (18). New level-0 files that appeared meanwhile conflict with nothing but a dropped delete.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use siltstone_format::{
    data_file::StoredRow,
    id::{Bucket, Level},
    manifest::{FileKind, ManifestEntry},
};

use crate::{
    changes::{Change, ChangeKind, Conflict, DroppedDeletes},
    codec,
    context::TableContext,
    error::CommitError,
    manifests::{FileKey, Live, file_key},
};

/// The first reason why the change does not apply, if there is one.
///
/// # Errors
/// `Corrupt` if a key of the change or of a live file cannot be read.
pub fn check(context: &TableContext, live: &Live, change: &Change) -> Result<Option<Conflict>, CommitError> {
    codec::check_keys(context, "the change", &change.files)?;
    let conflict = inputs_live_and_outputs_new(live, change)
        .or_else(|| (change.kind != ChangeKind::Overwrite).then(|| bucket_counts(live, change)).flatten())
        .or_else(|| levels_disjoint(context, live, change))
        .or_else(|| dropped_deletes(context, live, change));
    Ok(conflict)
}

/// Checks 1 and 2.
fn inputs_live_and_outputs_new(live: &Live, change: &Change) -> Option<Conflict> {
    let file = |entry: &ManifestEntry| entry.file.file_name.clone();
    for entry in &change.files {
        match entry.kind {
            FileKind::Delete if live.get(entry).is_none() => return Some(Conflict::InputNotLive { file: file(entry) }),
            FileKind::Add if live.get(entry).is_some() || live.is_deleted(entry) => {
                return Some(Conflict::FileExists { file: file(entry) });
            }
            _ => {}
        }
    }
    None
}

/// Check 3.
fn bucket_counts(live: &Live, change: &Change) -> Option<Conflict> {
    let known: BTreeMap<&StoredRow, i32> = live.files().map(|e| (&e.partition, e.total_buckets)).collect();
    change.files.iter().filter(|e| e.kind == FileKind::Add).find_map(|entry| {
        let table = *known.get(&entry.partition)?;
        (table != entry.total_buckets).then_some(Conflict::BucketCount { change: entry.total_buckets, table })
    })
}

/// Check 4, over the buckets that the change adds to.
fn levels_disjoint(context: &TableContext, live: &Live, change: &Change) -> Option<Conflict> {
    let mut after = live.clone();
    after.apply(&change.files);
    overlap(context, after.files())
}

/// Two files of one level above 0 that share keys, if there are any.
pub fn overlap<'a>(context: &TableContext, files: impl Iterator<Item = &'a ManifestEntry>) -> Option<Conflict> {
    let mut levels: BTreeMap<(&StoredRow, Bucket, Level), Vec<&ManifestEntry>> = BTreeMap::new();
    for entry in files.filter(|e| e.file.level > Level::ZERO) {
        levels.entry((&entry.partition, entry.bucket, entry.file.level)).or_default().push(entry);
    }
    for level in levels.values_mut() {
        level.sort_by(|a, b| codec::compare_keys(context, &a.file.min_key, &b.file.min_key));
        for pair in level.windows(2) {
            let [one, other] = pair else { continue };
            if codec::compare_keys(context, &one.file.max_key, &other.file.min_key) != Ordering::Less {
                let (file, other) = (one.file.file_name.clone(), other.file.file_name.clone());
                return Some(Conflict::LevelOverlap { file, other });
            }
        }
    }
    None
}

/// Check 5 and rule 7: a file outside the inputs that could hold rows older than a delete that is gone.
fn dropped_deletes(context: &TableContext, live: &Live, change: &Change) -> Option<Conflict> {
    if change.dropped_deletes == DroppedDeletes::None {
        return None;
    }
    let inputs: Vec<&ManifestEntry> = change.files.iter().filter(|e| e.kind == FileKind::Delete).collect();
    let output_level = change.files.iter().filter(|e| e.kind == FileKind::Add).map(|e| e.file.level).min();
    let taken: BTreeSet<FileKey> = inputs.iter().map(|e| file_key(e)).collect();
    for other in live.files().filter(|e| !taken.contains(&file_key(e))) {
        let may_hold_older = match change.dropped_deletes {
            DroppedDeletes::None => false,
            DroppedDeletes::Below(line) => other.file.min_sequence_number < line,
            DroppedDeletes::All => other.file.level > Level::ZERO && output_level.is_none_or(|l| other.file.level >= l),
        };
        if may_hold_older && overlaps_any(context, other, &inputs) {
            return Some(Conflict::DroppedDelete { file: other.file.file_name.clone() });
        }
    }
    None
}

fn overlaps_any(context: &TableContext, file: &ManifestEntry, inputs: &[&ManifestEntry]) -> bool {
    for input in inputs.iter().filter(|i| i.partition == file.partition && i.bucket == file.bucket) {
        let below = codec::compare_keys(context, &file.file.max_key, &input.file.min_key) == Ordering::Less;
        let above = codec::compare_keys(context, &file.file.min_key, &input.file.max_key) == Ordering::Greater;
        if !below && !above {
            return true;
        }
    }
    false
}
