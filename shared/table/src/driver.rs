//! Runs a protocol of `commit` over the ports: performs each effect, hands back the reply.
//!
//! Neighbours: `commit::io` (effects, replies), `ports`. The only place where a protocol's effects meet I/O.
//! Invariants: 1. effects are performed one at a time in the order asked, save those of one [`Effect::All`], a bounded number of which go on at
//! once; 2. no failure is hidden or repeated here: an answer that did not come is `Unknown`, and the protocol decides; 3. dropping the future
//! stops all I/O (a frozen Lambda must not go on later).

use std::time::Duration;

use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use siltstone_commit::io::{
    Attr, Effect, Failure, FailureKind, ItemName, ItemRecord, Machine, Object, ObjectHead, PutMode, Reply, StagedName,
    Step, staged_suffix,
};
use siltstone_store::{
    item::{Attr as ItemAttr, Item, ItemCondition, ItemError},
    object::{ETag, ObjectError, ObjectErrorKind, ObjectMeta, PutMode as StorePutMode},
};

use crate::{error::Result, name::TableRef, ports::Ports};

/// Time kept back to answer the invocation while a change waits for a lease holder, ms.
pub(crate) const ANSWER_MS: i64 = 500;
/// Effects of one request that are performed at once.
const AT_ONCE: usize = 64;
/// Longest wait between two attempts.
const PAUSE_MAX_MS: u64 = 10_000;
/// Wait before the first repetition; doubled for each further one.
const PAUSE_MIN_MS: u64 = 10;

/// Runs `machine` to its end.
///
/// # Errors
/// The protocol's own.
pub async fn drive<T>(mut machine: Machine<T>, ports: &Ports, table: &TableRef) -> Result<T> {
    let mut reply = None;
    loop {
        match machine.resume(reply.take()) {
            Step::Do(request) => {
                tracing::trace!(step = request.step, "effect");
                reply = Some(perform(request.effect, ports, table).await);
            }
            Step::Done(result) => return Ok(result?),
        }
    }
}

fn perform<'a>(effect: Effect, ports: &'a Ports, table: &'a TableRef) -> BoxFuture<'a, Reply> {
    async move {
        match effect {
            Effect::LoadItem(name) => match ports.items.get(&partition_of(table, name), &name.sort()).await {
                Ok(item) => Reply::Item(item.map(to_record)),
                Err(error) => item_failure(&error),
            },
            Effect::PutItem { name, record } => put_item(name, record, ItemCondition::None, ports, table).await,
            Effect::DeleteItem { name, expected_rev } => {
                let condition = ItemCondition::RevIs(expected_rev);
                match ports.items.delete(&partition_of(table, name), &name.sort(), condition).await {
                    Ok(()) => Reply::Done,
                    Err(error) => item_failure(&error),
                }
            }
            Effect::ListStaged { part, start_after, limit } => {
                let partition = table.partition() + &staged_suffix(part);
                let after = start_after.map(|name| ItemName::Staged(name).sort());
                match ports.items.query(&partition, "", after.as_deref(), limit).await {
                    Ok(page) => Reply::Items { items: staged(page.items), more: page.more },
                    Err(error) => item_failure(&error),
                }
            }
            Effect::CreateItem { name, record } => put_item(name, record, ItemCondition::Absent, ports, table).await,
            Effect::SwapItem { name, expected_rev, record } => {
                put_item(name, record, ItemCondition::RevIs(expected_rev), ports, table).await
            }
            Effect::Get { key } => match ports.objects.get(&key).await {
                Ok(object) => Reply::Object(Object {
                    body: object.bytes,
                    etag: object.meta.etag.as_str().to_owned(),
                    last_modified_ms: object.meta.last_modified_ms,
                }),
                Err(error) => object_failure(&error),
            },
            Effect::Head { key } => match ports.objects.head(&key).await {
                Ok(meta) => Reply::Head(head(meta)),
                Err(error) => object_failure(&error),
            },
            Effect::Put { key, body, mode } => {
                let mode = match mode {
                    PutMode::Overwrite => StorePutMode::Overwrite,
                    PutMode::IfAbsent => StorePutMode::IfAbsent,
                    PutMode::IfMatch(tag) => StorePutMode::IfMatch(ETag::new(tag)),
                };
                match ports.objects.put(&key, body, mode).await {
                    Ok(tag) => Reply::Put { etag: tag.as_str().to_owned() },
                    Err(error) => object_failure(&error),
                }
            }
            Effect::Copy { from, to } => match copy(ports, &from, &to).await {
                Ok(reply) => reply,
                Err(error) => object_failure(&error),
            },
            Effect::Delete { keys } => match ports.objects.delete(&keys).await {
                Ok(()) => Reply::Done,
                Err(error) => object_failure(&error),
            },
            Effect::List { prefix, start_after, limit } => {
                match ports.objects.list(&prefix, start_after.as_deref(), limit).await {
                    Ok(page) => {
                        Reply::Listed { objects: page.objects.into_iter().map(head).collect(), more: page.more }
                    }
                    Err(error) => object_failure(&error),
                }
            }
            Effect::Now => Reply::Now(ports.clock.now_ms()),
            Effect::Uuid => Reply::Uuid(ports.ids.uuid().to_string()),
            Effect::Pause { attempt } => {
                ports.clock.sleep(pause(attempt, ports.ids.jitter())).await;
                Reply::Done
            }
            Effect::Wait { ms } => {
                ports.clock.sleep(Duration::from_millis(ms)).await;
                Reply::Done
            }
            Effect::All(effects) => Reply::All(perform_all(effects, ports, table).await),
        }
    }
    .boxed()
}

/// Many effects, so many at once; a slow one holds no other up.
async fn perform_all(effects: Vec<Effect>, ports: &Ports, table: &TableRef) -> Vec<Reply> {
    let numbered = effects.into_iter().enumerate();
    let performed = numbered.map(|(place, effect)| perform(effect, ports, table).map(move |reply| (place, reply)));
    let mut replies: Vec<(usize, Reply)> = stream::iter(performed).buffer_unordered(AT_ONCE).collect().await;
    replies.sort_unstable_by_key(|(place, _)| *place);
    replies.into_iter().map(|(_, reply)| reply).collect()
}

/// Exponential, with full jitter above half: two losers of one race do not meet again at once.
fn pause(attempt: u32, jitter: f64) -> Duration {
    let longest = PAUSE_MIN_MS.saturating_mul(1 << attempt.min(16)).min(PAUSE_MAX_MS);
    Duration::from_millis(share(longest, 0.5 + jitter / 2.0))
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "times of seconds, and a share between 0 and 2"
)]
fn share(ms: u64, share: f64) -> u64 {
    (ms as f64 * share) as u64
}

/// The partition key of an item.
fn partition_of(table: &TableRef, name: ItemName) -> String {
    table.partition() + &name.partition_suffix()
}

/// Staged items by their names; what else may stand beside them is nobody's.
fn staged(items: Vec<Item>) -> Vec<(StagedName, ItemRecord)> {
    items.into_iter().filter_map(|item| Some((StagedName::parse(&item.sort)?, to_record(item)))).collect()
}

/// Copies a data file, unless it is damaged: under a new name nobody would know where the damage came from.
async fn copy(ports: &Ports, from: &str, to: &str) -> std::result::Result<Reply, Box<ObjectError>> {
    let object = ports.objects.get(from).await?;
    if from.ends_with(".parquet")
        && let Err(damage) = siltstone_lsm::checksum::check_whole(&object.bytes, from)
    {
        return Ok(Reply::Failed(Failure::new(FailureKind::Damaged, damage.to_string())));
    }
    ports.objects.put(to, object.bytes, StorePutMode::Overwrite).await.map(|_| Reply::Done)
}

async fn put_item(
    name: ItemName,
    record: ItemRecord,
    condition: ItemCondition,
    ports: &Ports,
    table: &TableRef,
) -> Reply {
    let mut item = Item::new(partition_of(table, name), name.sort(), record.rev);
    item.attributes = record
        .attributes
        .into_iter()
        .map(|(name, value)| {
            let value = match value {
                Attr::S(s) => ItemAttr::S(s),
                Attr::N(n) => ItemAttr::N(n),
                Attr::B(b) => ItemAttr::B(b.into()),
            };
            (name, value)
        })
        .collect();
    match ports.items.put(&item, condition).await {
        Ok(()) => Reply::Done,
        Err(error) => item_failure(&error),
    }
}

/// An item as the protocols see it.
#[must_use]
pub fn to_record(item: Item) -> ItemRecord {
    let attributes = item
        .attributes
        .into_iter()
        .map(|(name, value)| {
            let value = match value {
                ItemAttr::S(s) => Attr::S(s),
                ItemAttr::N(n) => Attr::N(n),
                ItemAttr::B(b) => Attr::B(b.to_vec()),
            };
            (name, value)
        })
        .collect();
    ItemRecord { rev: item.rev, attributes }
}

fn head(meta: ObjectMeta) -> ObjectHead {
    ObjectHead { key: meta.key, size: meta.size, last_modified_ms: meta.last_modified_ms }
}

fn object_failure(error: &ObjectError) -> Reply {
    let kind = match error.kind() {
        ObjectErrorKind::NotFound => FailureKind::NotFound,
        ObjectErrorKind::PreconditionFailed => FailureKind::PreconditionFailed,
        ObjectErrorKind::Conflict => FailureKind::Conflict,
        ObjectErrorKind::Throttled => FailureKind::Throttled,
        ObjectErrorKind::Unknown => FailureKind::Unknown,
        ObjectErrorKind::Denied | ObjectErrorKind::Invalid => FailureKind::Denied,
        ObjectErrorKind::Unavailable => FailureKind::Unavailable,
        ObjectErrorKind::Damaged => FailureKind::Damaged,
    };
    Reply::Failed(Failure::new(kind, error.to_string()))
}

fn item_failure(error: &ItemError) -> Reply {
    let kind = match error {
        ItemError::ConditionFailed { .. } => FailureKind::PreconditionFailed,
        ItemError::Throttled(_) => FailureKind::Throttled,
        ItemError::Unknown(_) => FailureKind::Unknown,
        ItemError::Denied(_) | ItemError::TooLarge(_) | ItemError::Invalid(_) => FailureKind::Denied,
        ItemError::Unavailable(_) => FailureKind::Unavailable,
    };
    Reply::Failed(Failure::new(kind, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_spread() {
        assert_eq!(pause(1, 0.0), Duration::from_millis(10));
        assert_eq!(pause(1, 0.999), Duration::from_millis(19));
        assert_eq!(pause(60, 0.999).as_millis(), 9_995);
    }
}
