//! How other engines find the latest snapshot, as read in their sources: for invariant 10.
//!
//! Neighbours: `explore` interleaves them with protocols. Sources: Java `HintFileUtils.findLatest`, the `paimon` crate's
//! `SnapshotManager::latest_snapshot_id_from_filesystem`, pypaimon's `SnapshotManager._get_latest_snapshot_from_filesystem`.
//! Invariant: 1. each request of an engine is one effect, in the engine's own order.

use siltstone_format::{
    id::SnapshotId,
    path::{ObjectName, parse_hint},
};

use crate::{
    codec,
    context::TableContext,
    error::CommitError,
    io::{Effect, Io, Machine, ObjectHead, Reply},
    steps::StepName,
};

const STEP: StepName = "engine finds the latest snapshot";

/// A reader that knows nothing of the pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Java Paimon (Spark, Flink, Trino) and the `paimon` crate: LATEST, unless a snapshot stands above it, else the highest name.
    /// Whether the snapshot of LATEST exists is not asked.
    Java,
    /// pypaimon: the same, but a LATEST whose snapshot does not exist is passed over, too.
    Pypaimon,
}

impl Engine {
    /// Every one of them.
    pub const ALL: [Self; 2] = [Self::Java, Self::Pypaimon];

    /// As scenarios are named.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Java => "java",
            Self::Pypaimon => "pypaimon",
        }
    }
}

/// Finds and reads the latest snapshot. It is a defect if the one that is found does not exist, or if a newer one existed before: nobody ever
/// sees an older snapshot than was seen before.
#[must_use]
pub fn latest(context: &TableContext, engine: Engine) -> Machine<SnapshotId> {
    let context = context.clone();
    Machine::new(move |io| async move {
        let before = listed(&io, &context).await?;
        let found = find(&io, &context, engine).await?;
        let key = context.location.snapshot(found);
        let Some(body) = get(&io, &key).await else {
            return Err(CommitError::bug(format!("invariant 10: {engine:?} finds {key}, which does not exist")));
        };
        codec::decode_snapshot(&key, &body)?;
        if found < before {
            return Err(CommitError::bug(format!("invariant 10: {engine:?} finds {found}, {before} was there before")));
        }
        Ok(found)
    })
}

async fn find(io: &Io, context: &TableContext, engine: Engine) -> Result<SnapshotId, CommitError> {
    let hint = get(io, &context.location.latest_hint()).await.and_then(|body| parse_hint(&body));
    if let Some(id) = hint {
        let there = engine == Engine::Java || exists(io, context, id).await;
        if there && !exists(io, context, id.next()).await {
            return Ok(id);
        }
    }
    listed(io, context).await
}

/// The highest name.
async fn listed(io: &Io, context: &TableContext) -> Result<SnapshotId, CommitError> {
    let effect = Effect::List { prefix: context.location.snapshot_prefix(), start_after: None, limit: 1_000 };
    let Reply::Listed { objects, .. } = io.ask(STEP, effect).await else { return Err(crate::effects::unfit(STEP)) };
    let id = |object: &ObjectHead| match context.location.parse(None, &object.key) {
        ObjectName::Snapshot(id) => Some(id),
        _ => None,
    };
    objects.iter().filter_map(id).max().ok_or_else(|| CommitError::bug("invariant 10: no snapshot is found"))
}

async fn get(io: &Io, key: &str) -> Option<bytes::Bytes> {
    match io.ask(STEP, Effect::Get { key: key.to_owned() }).await {
        Reply::Object(object) => Some(object.body),
        _ => None,
    }
}

async fn exists(io: &Io, context: &TableContext, id: SnapshotId) -> bool {
    let key = context.location.snapshot(id);
    matches!(io.ask(STEP, Effect::Head { key }).await, Reply::Head(_))
}
