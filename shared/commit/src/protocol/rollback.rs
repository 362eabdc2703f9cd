//! Gives the table the content of an older snapshot or tag, as a new snapshot; stream positions stay (rule 8).
//!
//! Neighbours: `build` and `publish` as for any commit; files that are no longer live are copied under new names, since a deleted (name, level)
//! never comes back (19) and expiry by anyone deletes what an old delta deleted.
//! Invariants: 1. the content is the target's, row for row; 2. it takes effect at most once per change id.

use std::collections::BTreeMap;

use siltstone_format::{
    id::SnapshotId,
    manifest::{FileKind, ManifestEntry},
    snapshot::Snapshot,
};

use super::{build, commit, need_pointer, publish, tip, tip::Swap};
use crate::{
    changes::{Change, ChangeId, ChangeKind, Outcome},
    codec,
    context::TableContext,
    error::CommitError,
    fold::{Accumulated, Folded, fold},
    io::Io,
    manifests::{self, FileKey, Live, Names, Scope, file_key},
    pointer::Pointer,
    steps,
};

/// Whose content comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RollbackTarget {
    /// A snapshot that is not expired.
    Snapshot(SnapshotId),
    /// A tag.
    Tag(String),
}

pub(crate) async fn run(
    io: Io,
    context: TableContext,
    target: RollbackTarget,
    id: ChangeId,
) -> Result<Outcome, CommitError> {
    need_pointer(&context)?;
    let started = io.now(steps::COMMIT_TIME).await?;
    let mut names = Names::new(io.uuid(steps::COMMIT_TIME).await?);
    let mut copies = BTreeMap::new();
    for attempt in 1..=context.settings.max_attempts.max(1) {
        let pointer = tip::settle(&io, &context).await?;
        if pointer.knows(id) {
            return Ok(commit::committed(&pointer, true));
        }
        let wanted = live(&io, &context, &target_snapshot(&io, &context, &pointer, &target).await?).await?;
        let current = match &pointer.snapshot {
            Some(snapshot) => live(&io, &context, snapshot).await?,
            None => Live::default(),
        };
        let mut change = Change::new(id, ChangeKind::Overwrite, pointer.schema_id, started);
        change.files = difference(&io, &context, &mut names, &mut copies, &current, &wanted).await?;
        if change.files.is_empty() {
            return Ok(commit::committed(&pointer, true));
        }
        let mut state = Accumulated::new(&pointer, Some(current));
        match fold(&context, &mut state, &change)? {
            Folded::Applied => {}
            Folded::Rejected(conflict) => return Ok(Outcome::Conflict(conflict)),
            Folded::Already | Folded::NeedsCheckpoints => return Err(CommitError::bug("a rollback has no range")),
        }
        let next = build::next_pointer(&io, &context, &mut names, &pointer, state, started).await?;
        match tip::swap(&io, steps::COMMIT_SWAP, &context, &pointer, &next).await? {
            Swap::Swapped => {
                publish::publish(&io, &context, &next).await?;
                return Ok(commit::committed(&next, false));
            }
            Swap::Moved { .. } => io.pause(attempt).await,
            Swap::Unknown => return Ok(Outcome::Unknown { expected_rev: pointer.rev }),
        }
    }
    Err(CommitError::Contended { protocol: "rollback", attempts: context.settings.max_attempts })
}

async fn target_snapshot(
    io: &Io,
    context: &TableContext,
    pointer: &Pointer,
    target: &RollbackTarget,
) -> Result<Snapshot, CommitError> {
    let key = match target {
        RollbackTarget::Snapshot(id) if *id < pointer.earliest || *id > pointer.version() => {
            let (first, last) = (pointer.earliest, pointer.version());
            let reason = format!("snapshot {id} is not among {first} to {last}; choose one of these, or a tag");
            return Err(CommitError::InvalidChange { reason });
        }
        RollbackTarget::Snapshot(id) => context.location.snapshot(*id),
        RollbackTarget::Tag(name) => context.location.tag(name),
    };
    let object = io.get_needed(steps::ROLLBACK_READ, vec![key.clone()]).await?.pop();
    codec::decode_snapshot(&key, &object.map(|o| o.body).unwrap_or_default())
}

async fn live(io: &Io, context: &TableContext, snapshot: &Snapshot) -> Result<Live, CommitError> {
    let manifests = manifests::read_manifests(io, steps::ROLLBACK_READ, context, snapshot).await?;
    manifests::read_live(io, steps::ROLLBACK_READ, context, &manifests.all(), &Scope::Everything).await
}

/// DELETEs of what must not be there, ADDs of copies of what must. `copies` outlives an attempt: a file is copied once.
async fn difference(
    io: &Io,
    context: &TableContext,
    names: &mut Names,
    copies: &mut BTreeMap<FileKey, ManifestEntry>,
    current: &Live,
    wanted: &Live,
) -> Result<Vec<ManifestEntry>, CommitError> {
    let surplus = current.files().filter(|e| wanted.get(e).is_none());
    let mut files: Vec<ManifestEntry> =
        surplus.map(|e| ManifestEntry { kind: FileKind::Delete, ..e.clone() }).collect();
    let (mut pairs, mut sizes) = (Vec::new(), Vec::new());
    for entry in wanted.files().filter(|e| current.get(e).is_none()) {
        let key = file_key(entry);
        if !copies.contains_key(&key) {
            let copy = renamed(names, entry)?;
            let from = codec::bucket_file(context, entry, &entry.file.file_name)?;
            sizes.push(entry.file.file_size);
            pairs.push((from, codec::bucket_file(context, &copy, &copy.file.file_name)?));
            copies.insert(key.clone(), copy);
        }
        files.extend(copies.get(&key).cloned());
    }
    whole(io, &pairs, &sizes).await?;
    let made: Vec<String> = pairs.iter().map(|(_, to)| to.clone()).collect();
    if let Err(error) = io.copy_all(steps::ROLLBACK_COPY, pairs).await {
        // Nothing names them; what cannot be deleted now is swept.
        drop(io.delete(steps::ROLLBACK_COPY, &made).await);
        return Err(error);
    }
    Ok(files)
}

/// Looks whether all files are there in full before the first one is copied.
async fn whole(io: &Io, pairs: &[(String, String)], sizes: &[i64]) -> Result<(), CommitError> {
    let keys: Vec<String> = pairs.iter().map(|(from, _)| from.clone()).collect();
    for ((key, size), head) in keys.iter().zip(sizes).zip(io.head_all(steps::ROLLBACK_READ, &keys).await?) {
        let found = head.map(|head| head.size);
        if found.and_then(|found| i64::try_from(found).ok()) != Some(*size) {
            let found = found.map_or_else(|| "it does not exist".to_owned(), |found| format!("it has {found} bytes"));
            return Err(CommitError::corrupt(key, format!("{found}, its manifest entry says {size}")));
        }
    }
    Ok(())
}

/// The same file under a fresh name. Side files hold indexes only: a file without them reads the same, only slower.
fn renamed(names: &mut Names, entry: &ManifestEntry) -> Result<ManifestEntry, CommitError> {
    if entry.file.external_path.is_some() {
        let reason = format!("{} lies outside the table's directory and cannot be copied", entry.file.file_name);
        return Err(CommitError::InvalidChange { reason });
    }
    let mut copy = entry.clone();
    let ending = entry.file.file_name.split_once('.').map_or("parquet", |(_, ending)| ending);
    copy.file.file_name = format!("{}.{ending}", names.data());
    copy.file.extra_files = Vec::new();
    Ok(copy)
}
