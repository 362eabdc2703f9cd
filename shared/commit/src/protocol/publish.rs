//! Makes a committed snapshot visible to every engine: `snapshot-N`, then the hints (rule 3).
//!
//! Neighbours: called by the author right after the swap, or by whoever comes next through `tip`.
//! Invariants: 1. a name gets one uuid for ever (9): puts are conditional, and only 200 or a read that shows our uuid counts;
//! 2. LATEST never falls and never names a snapshot that is not there (10); 3. a hint that cannot be written fails nothing.

use bytes::Bytes;
use siltstone_format::{id::SnapshotId, path::parse_hint};

use super::tip;
use crate::{
    codec,
    context::{Incarnation, TableContext},
    effects::TRIES,
    error::CommitError,
    io::{Failure, FailureKind, Io, PutMode},
    pointer::Pointer,
    steps,
};

/// Publishes the pointer's snapshot, and marks a fork if another one stands in its place.
pub(crate) async fn publish(io: &Io, context: &TableContext, pointer: &Pointer) -> Result<(), CommitError> {
    let Some(snapshot) = pointer.published_snapshot() else { return Ok(()) };
    let key = context.location.snapshot(snapshot.id);
    // An adopted snapshot was published by its author.
    let ours = Incarnation::is_ours(&snapshot.commit_user);
    let body = Bytes::from(if ours { snapshot.to_sealed_json() } else { snapshot.to_json() });
    let mut last = None;
    for attempt in 1..=TRIES {
        match io.put_if(steps::PUBLISH_SNAPSHOT, &key, &body, &PutMode::IfAbsent).await {
            Ok(()) => return raise_hints(io, context, snapshot.id, pointer.earliest).await,
            Err(failure) if matches!(failure.kind, FailureKind::PreconditionFailed | FailureKind::Unknown) => {
                last = Some(failure);
            }
            Err(failure) => return Err(CommitError::effect(steps::PUBLISH_SNAPSHOT, key, failure)),
        }
        if let Some(object) = io.get(steps::PUBLISH_READ_BACK, key.clone()).await? {
            if tip::same_snapshot(&codec::decode_snapshot(&key, &object.body)?, &snapshot) {
                return raise_hints(io, context, snapshot.id, pointer.earliest).await;
            }
            return forked(io, context, pointer).await;
        }
        io.pause(attempt).await;
    }
    let last = last.unwrap_or_else(|| Failure::new(FailureKind::Unavailable, "not tried"));
    Err(CommitError::effect(steps::PUBLISH_SNAPSHOT, key, last))
}

/// The fork is real only if the pointer still says N: after an expiry or a newer commit the name is not ours to judge.
async fn forked(io: &Io, context: &TableContext, pointer: &Pointer) -> Result<(), CommitError> {
    if tip::unchanged(io, context, pointer).await? {
        tip::mark_forked(io, context, pointer).await?;
    }
    let reason = "another engine put its own snapshot in place of ours".to_owned();
    Err(CommitError::Forked { table: context.location.root().to_owned(), at: pointer.version(), reason })
}

/// LATEST and, with the first snapshot, EARLIEST. Readers survive stale hints, so trouble here is no trouble.
async fn raise_hints(io: &Io, context: &TableContext, id: SnapshotId, earliest: SnapshotId) -> Result<(), CommitError> {
    raise_latest(io, context, id).await?;
    if id == earliest {
        let body = Bytes::from(id.to_string());
        let key = context.location.earliest_hint();
        drop(io.put_if(steps::PUBLISH_EARLIEST, &key, &body, &PutMode::IfAbsent).await);
    }
    Ok(())
}

pub(crate) async fn raise_latest(io: &Io, context: &TableContext, id: SnapshotId) -> Result<(), CommitError> {
    let hint =
        Hint { key: context.location.latest_hint(), read: steps::PUBLISH_READ_LATEST, write: steps::PUBLISH_LATEST };
    match hint.raise(io, id).await {
        Err(CommitError::Bug { reason }) => Err(CommitError::Bug { reason }),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// LATEST is at `id` or above, or nothing goes on: before names below it are deleted.
pub(crate) async fn ensure_latest(io: &Io, context: &TableContext, id: SnapshotId) -> Result<(), CommitError> {
    let hint =
        Hint { key: context.location.latest_hint(), read: steps::PUBLISH_READ_LATEST, write: steps::PUBLISH_LATEST };
    hint.raise(io, id).await
}

/// EARLIEST after an expiry. It exists to save readers a listing, so trouble is no trouble.
pub(crate) async fn raise_earliest(io: &Io, context: &TableContext, id: SnapshotId) -> Result<(), CommitError> {
    let key = context.location.earliest_hint();
    let hint = Hint { key, read: steps::EXPIRE_EARLIEST, write: steps::EXPIRE_EARLIEST };
    match hint.raise(io, id).await {
        Err(CommitError::Bug { reason }) => Err(CommitError::Bug { reason }),
        Ok(()) | Err(_) => Ok(()),
    }
}

struct Hint {
    key: String,
    read: steps::StepName,
    write: steps::StepName,
}

impl Hint {
    /// Writes the id unless the hint is there already or above; conditional on what was read, so it never falls.
    async fn raise(&self, io: &Io, id: SnapshotId) -> Result<(), CommitError> {
        let body = Bytes::from(id.to_string());
        let mut last = Failure::new(FailureKind::Unavailable, "not tried");
        for attempt in 1..=TRIES {
            let mode = match io.get(self.read, self.key.clone()).await? {
                None => PutMode::IfAbsent,
                Some(hint) if parse_hint(&hint.body).is_some_and(|found| found >= id) => return Ok(()),
                Some(hint) => PutMode::IfMatch(hint.etag),
            };
            match io.put_if(self.write, &self.key, &body, &mode).await {
                Ok(()) => return Ok(()),
                Err(failure) => last = failure,
            }
            io.pause(attempt).await;
        }
        Err(CommitError::effect(self.write, self.key.clone(), last))
    }
}
