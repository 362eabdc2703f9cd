//! Commits to a plain Paimon warehouse, without a pointer: `snapshot-N` is put if absent, and that put is the commit point.
//!
//! Neighbours: `build` makes the same objects as under a pointer. What this does not protect against: engines that overwrite `snapshot-N`
//! without a condition (every filesystem catalog on S3 does), checkpoints, and a sweep by others that runs for more than a day late.
//! Invariants: 1. an unknown put is decided by reading the name back and comparing the uuid; 2. LATEST is written after the snapshot.

use std::collections::BTreeMap;

use bytes::Bytes;
use siltstone_format::{
    id::{CommitIdentifier, SnapshotId},
    path::parse_hint,
    snapshot::Snapshot,
};

use super::{build, publish, tip};
use crate::{
    changes::{Change, Outcome},
    codec,
    context::TableContext,
    effects::TRIES,
    error::CommitError,
    fold::{Accumulated, Folded, fold, needs_live},
    io::{FailureKind, Io, PutMode},
    manifests::{self, Names, Scope},
    pointer::PROPERTY_CHANGE,
    steps,
};

/// The latest snapshot: LATEST if nothing stands above it, else the highest name.
pub(crate) async fn latest(io: &Io, context: &TableContext) -> Result<Option<Snapshot>, CommitError> {
    let hint = io.get(steps::SETTLE_TIP, context.location.latest_hint()).await?.and_then(|o| parse_hint(&o.body));
    if let Some(id) = hint {
        let key = context.location.snapshot(id);
        let (object, grown) =
            io.get_and_head(steps::SETTLE_TIP, key.clone(), context.location.snapshot(id.next())).await?;
        if let (Some(object), false) = (object, grown) {
            return codec::decode_snapshot(&key, &object.body).map(Some);
        }
    }
    let newest = tip::list_snapshots(io, steps::SETTLE_TIP, context).await?.last().map(|(id, _)| *id);
    let Some(id) = newest else { return Ok(None) };
    let key = context.location.snapshot(id);
    let object = io.get_needed(steps::SETTLE_TIP, vec![key.clone()]).await?.pop();
    codec::decode_snapshot(&key, &object.map(|o| o.body).unwrap_or_default()).map(Some)
}

pub(crate) async fn run(io: Io, context: TableContext, change: Change) -> Result<Outcome, CommitError> {
    crate::fold::validate(&change)?;
    if change.is_checkpoint_only() || !change.ranges.is_empty() {
        let reason = "a bare warehouse has no checkpoints; put the table under a pointer to ingest into it".to_owned();
        return Err(CommitError::InvalidChange { reason });
    }
    let mut names = Names::new(io.uuid(steps::COMMIT_TIME).await?);
    let user = format!("silt-{}", io.uuid(steps::COMMIT_TIME).await?);
    for attempt in 1..=context.settings.max_attempts.max(1) {
        let before = latest(&io, &context).await?;
        refuse_lost_tip(&io, &context, before.as_ref()).await?;
        if before.as_ref().is_some_and(|s| is_change(s, &change)) {
            return Ok(committed(before.as_ref().map(|s| s.id), true));
        }
        let state = match evaluate(&io, &context, before.as_ref(), &change).await? {
            (state, Folded::Applied) => state,
            (_, Folded::Rejected(conflict)) => return Ok(Outcome::Conflict(conflict)),
            (_, Folded::Already | Folded::NeedsCheckpoints) => {
                return Err(CommitError::bug("a bare warehouse has no checkpoints"));
            }
        };
        let properties = BTreeMap::from([(PROPERTY_CHANGE.to_owned(), change.id.to_string())]);
        // One run commits once, so i64::MAX (batch writers' identifier, never deduplicated by Java) is right.
        let author = build::Author { user: user.clone(), identifier: CommitIdentifier(i64::MAX), properties };
        let snapshot = build::write_snapshot(&io, &context, &mut names, before.as_ref(), state, author).await?;
        match put(&io, &context, &snapshot).await? {
            Put::Ours => {
                publish::raise_latest(&io, &context, snapshot.id).await?;
                return Ok(committed(Some(snapshot.id), false));
            }
            Put::Theirs => io.pause(attempt).await,
            Put::Unknown => return Ok(Outcome::Unknown { expected_rev: snapshot.id.0.unsigned_abs() }),
        }
    }
    Err(CommitError::Contended { protocol: "commit", attempts: context.settings.max_attempts })
}

/// A LATEST above every snapshot means that the newest one is lost: a commit would take its name, and it could not be restored.
async fn refuse_lost_tip(io: &Io, context: &TableContext, newest: Option<&Snapshot>) -> Result<(), CommitError> {
    let key = context.location.latest_hint();
    let hint = io.get(steps::SETTLE_TIP, key.clone()).await?.and_then(|o| parse_hint(&o.body));
    let newest = newest.map_or(SnapshotId(0), |s| s.id);
    match hint.filter(|id| *id > newest) {
        Some(id) if io.get(steps::SETTLE_TIP, context.location.snapshot(id)).await?.is_none() => {
            let reason = format!(
                "it names {}, which does not exist, and the newest is {newest}: restore the snapshot, or write {newest} into it to go on from \
                 there",
                context.location.snapshot(id)
            );
            Err(CommitError::corrupt(key, reason))
        }
        _ => Ok(()),
    }
}

fn committed(snapshot: Option<SnapshotId>, already: bool) -> Outcome {
    Outcome::Committed { snapshot, rev: 0, already }
}

fn is_change(snapshot: &Snapshot, change: &Change) -> bool {
    let id = snapshot.properties.as_ref().and_then(|p| p.get(PROPERTY_CHANGE));
    id.is_some_and(|id| *id == change.id.to_string())
}

async fn evaluate(
    io: &Io,
    context: &TableContext,
    before: Option<&Snapshot>,
    change: &Change,
) -> Result<(Accumulated, Folded), CommitError> {
    let live = match before {
        _ if !needs_live(change) => None,
        None => Some(manifests::Live::default()),
        Some(snapshot) => {
            let manifests = manifests::read_manifests(io, steps::COMMIT_READ, context, snapshot).await?.all();
            let scope = Scope::of(&change.files);
            Some(manifests::read_live(io, steps::COMMIT_READ, context, &manifests, &scope).await?)
        }
    };
    let version = before.map_or(SnapshotId(0), |s| s.id);
    let schema = before.map_or(context.schema.id, |s| s.schema_id.max(context.schema.id));
    let mut state = Accumulated::bare(version, schema, live);
    let folded = fold(context, &mut state, change)?;
    Ok((state, folded))
}

enum Put {
    Ours,
    Theirs,
    Unknown,
}

async fn put(io: &Io, context: &TableContext, snapshot: &Snapshot) -> Result<Put, CommitError> {
    let key = context.location.snapshot(snapshot.id);
    let body = Bytes::from(snapshot.to_sealed_json());
    for attempt in 1..=TRIES {
        match io.put_if(steps::PUBLISH_SNAPSHOT, &key, &body, &PutMode::IfAbsent).await {
            Ok(()) => return Ok(Put::Ours),
            Err(failure) if matches!(failure.kind, FailureKind::PreconditionFailed | FailureKind::Unknown) => {}
            Err(failure) => return Err(CommitError::effect(steps::PUBLISH_SNAPSHOT, key, failure)),
        }
        match io.get(steps::PUBLISH_READ_BACK, key.clone()).await {
            Ok(Some(object)) => {
                let ours = tip::same_snapshot(&codec::decode_snapshot(&key, &object.body)?, snapshot);
                return Ok(if ours { Put::Ours } else { Put::Theirs });
            }
            // Nothing there yet: the same conditional put again can only make it ours.
            Ok(None) => {}
            Err(_) if attempt == TRIES => return Ok(Put::Unknown),
            Err(_) => {}
        }
        io.pause(attempt).await;
    }
    Ok(Put::Unknown)
}
