//! Reservation of sequence slots: before a shard's first file, and back once its child has closed it.
//!
//! Neighbours: `sequence` has the table as a value; the item stands beside the pointer, since it changes with shards, not with commits.
//! A thousand shards that begin at once would race for one item that grows with each of them: so whoever reserves first does it for all.
//! Invariants: 1. a slot has one owner (16): every write is conditional on the item's revision; 2. only closed shards lose theirs,
//! and what they may still try to commit is refused.

use std::collections::BTreeMap;

use super::{need_pointer, packed, tip};
use crate::{
    checkpoint::ShardId,
    context::TableContext,
    error::CommitError,
    io::{Attr, Effect, FailureKind, Io, ItemName, ItemRecord, Reply},
    sequence::{Reservation, SlotTable},
    steps,
};

const ATTRIBUTE: &str = "slots";

pub(crate) async fn reserve(
    io: Io,
    context: TableContext,
    shard: ShardId,
    ahead: Vec<ShardId>,
) -> Result<Reservation, CommitError> {
    need_pointer(&context)?;
    update(&io, &context, |table| {
        if let Some(known) = table.get(&shard) {
            return Ok((known, false));
        }
        let reservation = table.reserve(&shard)?;
        table.reserve_ahead(&ahead);
        Ok((reservation, true))
    })
    .await
}

pub(crate) async fn release(io: Io, context: TableContext) -> Result<Vec<ShardId>, CommitError> {
    need_pointer(&context)?;
    let mut pointer = tip::settle(&io, &context).await?;
    packed::load_others(&io, steps::COMMIT_READ, &context, &mut pointer.checkpoints).await?;
    let all = pointer.checkpoints.all();
    update(&io, &context, |table| {
        let mut freed = Vec::new();
        for (shard, checkpoint) in all.iter().filter(|(_, c)| c.closed) {
            if table.release(shard, checkpoint.last_sequence) {
                freed.push(shard.clone());
            }
        }
        let changed = !freed.is_empty();
        Ok((freed, changed))
    })
    .await
}

/// Applies `change` to the table of slots until its write is known to have taken effect. `change` returns its answer, and whether
/// there is anything to write; it is evaluated afresh on every reading.
async fn update<T>(
    io: &Io,
    context: &TableContext,
    mut change: impl FnMut(&mut SlotTable) -> Result<(T, bool), CommitError>,
) -> Result<T, CommitError> {
    let name = ItemName::Slots;
    for attempt in 1..=context.settings.max_attempts.max(1) {
        let record = io.load_item(steps::SLOTS_READ, name).await?;
        let mut table = match &record {
            Some(record) => read(context, record)?,
            None => SlotTable::default(),
        };
        let (answer, changed) = change(&mut table)?;
        if !changed {
            return Ok(answer);
        }
        let attributes = BTreeMap::from([(ATTRIBUTE.to_owned(), Attr::B(table.pack()))]);
        let effect = match record.map(|r| r.rev) {
            None => Effect::CreateItem { name, record: ItemRecord { rev: 1, attributes } },
            Some(rev) => Effect::SwapItem { name, expected_rev: rev, record: ItemRecord { rev: rev + 1, attributes } },
        };
        match io.ask(steps::SLOTS_SWAP, effect).await {
            Reply::Done => return Ok(answer),
            Reply::Failed(failure) if failure.kind == FailureKind::Denied => {
                return Err(CommitError::effect(steps::SLOTS_SWAP, name.to_string(), failure));
            }
            Reply::Failed(_) => {}
            _ => return Err(crate::effects::unfit(steps::SLOTS_SWAP)),
        }
        io.pause(attempt).await;
    }
    Err(CommitError::Contended { protocol: "slots", attempts: context.settings.max_attempts })
}

pub(crate) fn read(context: &TableContext, record: &ItemRecord) -> Result<SlotTable, CommitError> {
    let object = || format!("item {} of {}", ItemName::Slots, context.location.root());
    match record.attributes.get(ATTRIBUTE) {
        Some(Attr::B(bytes)) => SlotTable::unpack(bytes).map_err(|reason| CommitError::corrupt(object(), reason)),
        _ => Err(CommitError::corrupt(object(), "its attribute `slots` is missing or no bytes")),
    }
}
