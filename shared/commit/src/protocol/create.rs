//! Makes a table, puts a pointer over one that is there, and pauses one.
//!
//! Neighbours: `tip` for everything after; `restore` for pointers that are lost or behind.
//! Invariants: 1. the pointer is what makes a table exist: it is written last, and once; 2. a schema or a snapshot of somebody
//! else is never written over; 3. an adopted table's floor is above every sequence number in it.

use bytes::Bytes;
use siltstone_format::{
    id::SchemaId,
    path::{ObjectName, TableLocation},
    schema::TableSchema,
    snapshot::Snapshot,
};

use super::{
    adopt, need_pointer,
    tip::{self, Swap},
};
use crate::{
    codec,
    context::{Incarnation, TableContext},
    effects::TRIES,
    error::CommitError,
    io::{Effect, Failure, FailureKind, Io, ItemName, PutMode, Reply},
    manifests::{self, Scope},
    pointer::{Pointer, TableState},
    steps::{self, StepName},
};

/// A short random name for a new life of a table.
pub(crate) async fn new_incarnation(io: &Io, step: StepName) -> Result<Incarnation, CommitError> {
    let uuid = io.uuid(step).await?;
    Ok(Incarnation(uuid.rsplit('-').next().unwrap_or(&uuid).to_owned()))
}

pub(crate) async fn create(io: Io, context: TableContext, table_uuid: Option<String>) -> Result<Pointer, CommitError> {
    need_pointer(&context)?;
    let table = context.location.root().to_owned();
    if let Some(pointer) = tip::find_pointer(&io, steps::CREATE_LOOK_UP, &context).await? {
        let same = table_uuid.as_ref() == Some(&pointer.table_uuid);
        return if same { Ok(pointer) } else { Err(CommitError::TableExists { table, uuid: pointer.table_uuid }) };
    }
    put_first_schema(&io, &context).await?;
    if !tip::list_snapshots(&io, steps::CREATE_READ_SCHEMA, &context).await?.is_empty() {
        return Err(CommitError::TableExists {
            table,
            uuid: "unknown, without pointer: put it under one with `silt repair`".to_owned(),
        });
    }
    let uuid = match table_uuid {
        Some(uuid) => uuid,
        None => io.uuid(steps::CREATE_POINTER).await?,
    };
    let incarnation = new_incarnation(&io, steps::CREATE_POINTER).await?;
    create_pointer(&io, &context, Pointer::new(incarnation, uuid, context.schema.id)).await
}

async fn put_first_schema(io: &Io, context: &TableContext) -> Result<(), CommitError> {
    let table = context.location.root().to_owned();
    if context.schema.id != SchemaId(0) {
        let reason = format!("a new table begins with schema 0, not {}", context.schema.id);
        return Err(CommitError::InvalidChange { reason });
    }
    let key = context.location.schema(SchemaId(0));
    let body = Bytes::from(context.schema.to_json());
    for attempt in 1..=TRIES {
        match io.put_if(steps::CREATE_SCHEMA, &key, &body, &PutMode::IfAbsent).await {
            Ok(()) => return Ok(()),
            Err(failure) if matches!(failure.kind, FailureKind::PreconditionFailed | FailureKind::Unknown) => {}
            Err(failure) => return Err(CommitError::effect(steps::CREATE_SCHEMA, key, failure)),
        }
        if let Some(object) = io.get(steps::CREATE_READ_SCHEMA, key.clone()).await? {
            let there = TableSchema::from_json(&key, &object.body)?;
            let same = TableSchema { time_millis: context.schema.time_millis, ..there } == *context.schema;
            let uuid = "unknown, another schema-0 is there".to_owned();
            return if same { Ok(()) } else { Err(CommitError::TableExists { table, uuid }) };
        }
        io.pause(attempt).await;
    }
    Err(CommitError::Contended { protocol: "create", attempts: TRIES })
}

/// Creates the pointer item, or finds that it was created by this very table's run before.
pub(crate) async fn create_pointer(io: &Io, context: &TableContext, pointer: Pointer) -> Result<Pointer, CommitError> {
    let record = pointer.to_record(&context.location)?;
    let mut last = Failure::new(FailureKind::Unavailable, "not tried");
    for attempt in 1..=TRIES {
        let effect = Effect::CreateItem { name: ItemName::Pointer, record: record.clone() };
        match io.ask(steps::CREATE_POINTER, effect).await {
            Reply::Done => return Ok(pointer),
            Reply::Failed(failure) => last = failure,
            _ => return Err(crate::effects::unfit(steps::CREATE_POINTER)),
        }
        match last.kind {
            FailureKind::PreconditionFailed | FailureKind::Unknown => {
                if let Some(there) = find_any(io, context).await? {
                    let table = context.location.root().to_owned();
                    let mine = there.table_uuid == pointer.table_uuid;
                    return if mine {
                        Ok(there)
                    } else {
                        Err(CommitError::TableExists { table, uuid: there.table_uuid })
                    };
                }
            }
            kind if crate::effects::wrote_nothing(kind) => {}
            _ => break,
        }
        io.pause(attempt).await;
    }
    Err(CommitError::effect(steps::CREATE_POINTER, ItemName::Pointer.to_string(), last))
}

async fn find_any(io: &Io, context: &TableContext) -> Result<Option<Pointer>, CommitError> {
    let any = TableContext { incarnation: None, ..context.clone() };
    tip::find_pointer(io, steps::CREATE_LOOK_UP, &any).await
}

pub(crate) async fn adopt_table(io: Io, context: TableContext) -> Result<Pointer, CommitError> {
    need_pointer(&context)?;
    if let Some(pointer) = tip::find_pointer(&io, steps::CREATE_LOOK_UP, &context).await? {
        let table = context.location.root().to_owned();
        return Err(CommitError::TableExists { table, uuid: pointer.table_uuid });
    }
    let step = steps::RESTORE_FIND;
    let schema_id = latest_schema(&io, step, &context).await?;
    let names = tip::list_snapshots(&io, step, &context).await?;
    let uuid = io.uuid(steps::CREATE_POINTER).await?;
    let incarnation = new_incarnation(&io, steps::CREATE_POINTER).await?;
    let mut pointer = Pointer::new(incarnation, uuid, schema_id);
    if let (Some((earliest, _)), Some((latest, _))) = (names.first(), names.last()) {
        let key = context.location.snapshot(*latest);
        let object = io.get_needed(step, vec![key.clone()]).await?.pop();
        let snapshot = codec::decode_snapshot(&key, &object.map(|o| o.body).unwrap_or_default())?;
        if Incarnation::is_ours(&snapshot.commit_user) {
            let table = context.location.root().to_owned();
            return Err(CommitError::PointerBehind {
                table,
                pointer: siltstone_format::id::SnapshotId(0),
                found: *latest,
            });
        }
        pointer.floor = floor_of(&io, &context, &snapshot).await?;
        pointer.earliest = *earliest;
        pointer.published = *latest;
        pointer.schema_id = pointer.schema_id.max(snapshot.schema_id);
        pointer.snapshot = Some(adopt::slim(snapshot));
    }
    create_pointer(&io, &context, pointer).await
}

/// A floor above every live row.
pub(crate) async fn floor_of(
    io: &Io,
    context: &TableContext,
    snapshot: &Snapshot,
) -> Result<siltstone_format::id::SequenceNumber, CommitError> {
    let step = steps::RESTORE_READ;
    let manifests = manifests::read_manifests(io, step, context, snapshot).await?;
    let live = manifests::read_live(io, step, context, &manifests.all(), &Scope::Everything).await?;
    let numbers = live.files().map(|e| e.file.max_sequence_number);
    Ok(tip::raised_floor(siltstone_format::id::SequenceNumber(0), numbers))
}

/// The highest schema that exists.
pub(crate) async fn latest_schema(io: &Io, step: StepName, context: &TableContext) -> Result<SchemaId, CommitError> {
    let location: &TableLocation = &context.location;
    let objects = io.list(step, location.schema_prefix()).await?;
    let ids = objects.iter().filter_map(|object| match location.parse(None, &object.key) {
        ObjectName::Schema(id) => Some(id),
        _ => None,
    });
    ids.max().ok_or_else(|| CommitError::NoTable { table: location.root().to_owned() })
}

pub(crate) async fn set_paused(io: Io, context: TableContext, paused: bool) -> Result<Pointer, CommitError> {
    need_pointer(&context)?;
    for attempt in 1..=context.settings.max_attempts.max(1) {
        let pointer = tip::settle(&io, &context).await?;
        let state = if paused { TableState::Paused } else { TableState::Active };
        if pointer.state == state {
            return Ok(pointer);
        }
        let next = Pointer { rev: pointer.rev + 1, state, ..pointer.clone() };
        if tip::swap(&io, steps::SETTLE_SWAP, &context, &pointer, &next).await? == Swap::Swapped {
            return Ok(next);
        }
        io.pause(attempt).await;
    }
    Err(CommitError::Contended { protocol: "pause", attempts: context.settings.max_attempts })
}
