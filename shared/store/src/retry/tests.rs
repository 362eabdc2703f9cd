//! Each fault against each kind of write, and the bounds of waiting.

use super::*;
use crate::{
    contract,
    ids::SeededIds,
    item::Attr,
    memory::{Fault, FaultPlan, Faulty, ManualClock, MemoryItemStore, MemoryObjectStore},
    meter::{Meter, Metered},
};

const MINE: Bytes = Bytes::from_static(b"mine");
const THEIRS: Bytes = Bytes::from_static(b"theirs");

fn retry() -> (Arc<Retry>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(1_000_000));
    (Retry::new(RetryPolicy::default(), clock.clone(), Arc::new(SeededIds::new(1))), clock)
}

fn objects(store: &MemoryObjectStore, plan: FaultPlan) -> Retrying<Faulty<MemoryObjectStore>> {
    Retrying::new(Faulty::new(store.clone(), plan), retry().0)
}

fn items(store: &MemoryItemStore, plan: FaultPlan) -> Retrying<Faulty<MemoryItemStore>> {
    Retrying::new(Faulty::new(store.clone(), plan), retry().0)
}

fn other_puts(plan: FaultPlan, store: &MemoryObjectStore, nth: u64, mode: PutMode) -> FaultPlan {
    let other = store.clone();
    plan.act_before("put", "k", nth, move || async move {
        other.put("k", THEIRS, mode).await.unwrap();
    })
}

#[tokio::test]
async fn every_transient_fault_of_a_conditional_put_ends_in_one_success() {
    for fault in [Fault::Throttle, Fault::Conflict, Fault::Unavailable, Fault::LoseRequest, Fault::LoseAnswer] {
        let store = MemoryObjectStore::new();
        let plan = FaultPlan::none().on("put", "k", 1, fault);
        let tag = objects(&store, plan).put("k", MINE, PutMode::IfAbsent).await.unwrap();
        assert_eq!(store.get("k").await.unwrap().meta.etag, tag, "{fault:?}");
    }
}

#[tokio::test]
async fn lost_answer_of_if_match_is_recognised_by_our_content() {
    let store = MemoryObjectStore::new();
    let before = store.put("k", THEIRS, PutMode::Overwrite).await.unwrap();
    let plan = FaultPlan::none().on("put", "k", 1, Fault::LoseAnswer);
    let tag = objects(&store, plan).put("k", MINE, PutMode::IfMatch(before)).await.unwrap();
    assert_eq!(store.head("k").await.unwrap().etag, tag);
}

#[tokio::test]
async fn precondition_failed_at_the_first_attempt_is_certain() {
    let store = MemoryObjectStore::new();
    store.put("k", THEIRS, PutMode::Overwrite).await.unwrap();
    let error = objects(&store, FaultPlan::none()).put("k", MINE, PutMode::IfAbsent).await.unwrap_err();
    assert_eq!(error.kind(), ObjectErrorKind::PreconditionFailed);
    let throttled = FaultPlan::none().on("put", "k", 1, Fault::Throttle);
    let error = objects(&store, throttled).put("k", MINE, PutMode::IfAbsent).await.unwrap_err();
    assert_eq!(error.kind(), ObjectErrorKind::PreconditionFailed);
}

#[tokio::test]
async fn precondition_failed_after_doubt_is_unknown_when_another_content_is_there() {
    for fault in [Fault::LoseRequest, Fault::Conflict] {
        let store = MemoryObjectStore::new();
        let plan = other_puts(FaultPlan::none().on("put", "k", 1, fault), &store, 2, PutMode::IfAbsent);
        let error = objects(&store, plan).put("k", MINE, PutMode::IfAbsent).await.unwrap_err();
        assert_eq!(error.kind(), ObjectErrorKind::Unknown, "{fault:?}");
    }
    // Ours was there, and was replaced before we looked: a failure would be a lie.
    let store = MemoryObjectStore::new();
    let plan = FaultPlan::none().on("put", "k", 1, Fault::LoseAnswer);
    let plan = other_puts(plan, &store, 2, PutMode::Overwrite);
    let error = objects(&store, plan).put("k", MINE, PutMode::IfAbsent).await.unwrap_err();
    assert_eq!(error.kind(), ObjectErrorKind::Unknown);
}

#[tokio::test]
async fn doubt_outlives_a_later_throttle() {
    let store = MemoryObjectStore::new();
    let mut plan = FaultPlan::none().at(1, Fault::LoseAnswer);
    for n in 2..=6 {
        plan = plan.at(n, Fault::Throttle);
    }
    let error = objects(&store, plan.clone()).put("k", MINE, PutMode::IfAbsent).await.unwrap_err();
    assert_eq!((error.kind(), plan.count()), (ObjectErrorKind::Unknown, 6));
}

#[tokio::test]
async fn reads_are_retried_and_not_found_is_not() {
    let store = MemoryObjectStore::new();
    store.put("k", MINE, PutMode::Overwrite).await.unwrap();
    let plan = FaultPlan::none().at(1, Fault::LoseRequest).at(2, Fault::Throttle);
    assert_eq!(objects(&store, plan).get("k").await.unwrap().bytes, MINE);
    let plan = FaultPlan::none();
    objects(&store, plan.clone()).get("none").await.unwrap_err();
    assert_eq!(plan.count(), 1);
}

#[tokio::test]
async fn upload_parts_and_completion_are_retried_with_doubt_kept() {
    let store = MemoryObjectStore::new();
    let plan = FaultPlan::none().on("upload", "k", 1, Fault::LoseAnswer).on("part", "k", 1, Fault::LoseRequest).on(
        "complete",
        "k",
        1,
        Fault::Throttle,
    );
    let mut upload = objects(&store, plan).upload("k").await.unwrap();
    upload.part(MINE).await.unwrap();
    upload.complete(PutMode::IfAbsent).await.unwrap();
    assert_eq!(store.get("k").await.unwrap().bytes, MINE);

    let plan = FaultPlan::none().on("complete", "u", 1, Fault::LoseAnswer);
    let mut upload = objects(&store, plan).upload("u").await.unwrap();
    upload.part(MINE).await.unwrap();
    let error = upload.complete(PutMode::IfAbsent).await.unwrap_err();
    assert_eq!(error.kind(), ObjectErrorKind::Unknown);
}

#[tokio::test]
async fn lost_item_write_is_a_success_only_if_exactly_our_item_is_there() {
    let store = MemoryItemStore::new();
    let ours = Item::new("p", "s", 1).with("by", Attr::S("me".into()));
    let lost = || FaultPlan::none().on("put_item", "p/s", 1, Fault::LoseAnswer);
    items(&store, lost()).put(&ours, ItemCondition::Absent).await.unwrap();

    let next = Item::new("p", "s", 2).with("by", Attr::S("me".into()));
    let other = store.clone();
    let plan = FaultPlan::none().on("put_item", "p/s", 1, Fault::LoseRequest).act_before(
        "put_item",
        "",
        2,
        move || async move { other.put(&Item::new("p", "s", 2), ItemCondition::RevIs(1)).await.unwrap() },
    );
    let error = items(&store, plan).put(&next, ItemCondition::RevIs(1)).await.unwrap_err();
    assert!(matches!(error, ItemError::Unknown(_)), "{error}");

    let certain = items(&store, FaultPlan::none()).put(&next, ItemCondition::RevIs(1)).await.unwrap_err();
    assert!(matches!(certain, ItemError::ConditionFailed { .. }), "{certain}");
}

#[tokio::test]
async fn add_is_never_repeated_after_a_lost_answer() {
    let store = MemoryItemStore::new();
    let plan = FaultPlan::none().at(1, Fault::Throttle).at(2, Fault::LoseAnswer);
    let error = items(&store, plan).add("p", "s", "n", 1).await.unwrap_err();
    assert!(matches!(error, ItemError::Unknown(_)));
    assert_eq!(store.add("p", "s", "n", 0).await.unwrap(), 1);
}

#[tokio::test]
async fn conditional_delete_whose_answer_is_lost_stays_unknown() {
    let store = MemoryItemStore::new();
    store.put(&Item::new("p", "s", 1), ItemCondition::Absent).await.unwrap();
    let plan = FaultPlan::none().on("delete_item", "p/s", 1, Fault::LoseAnswer);
    let error = items(&store, plan).delete("p", "s", ItemCondition::RevIs(1)).await.unwrap_err();
    assert!(matches!(error, ItemError::Unknown(_)));
    let plan = FaultPlan::none().on("delete_item", "p/s", 1, Fault::LoseAnswer);
    items(&store, plan).delete("p", "s", ItemCondition::None).await.unwrap();
}

#[tokio::test]
async fn waiting_keeps_within_attempts_budget_and_deadline() {
    let forever = || {
        let mut plan = FaultPlan::none();
        for n in 1..100 {
            plan = plan.at(n, Fault::Throttle);
        }
        plan
    };
    let count = async |policy: RetryPolicy, deadline_ms: i64| {
        let clock = Arc::new(ManualClock::new(0));
        let retry = Retry::new(policy, clock.clone(), Arc::new(SeededIds::new(3)));
        retry.set_deadline_ms(deadline_ms);
        let plan = forever();
        let store = Retrying::new(Faulty::new(MemoryObjectStore::new(), plan.clone()), retry);
        assert_eq!(store.get("k").await.unwrap_err().kind(), ObjectErrorKind::Throttled);
        (plan.count(), clock.slept())
    };
    let policy = RetryPolicy { attempts: 50, ..RetryPolicy::default() };
    assert_eq!(count(RetryPolicy { attempts: 4, ..policy }, i64::MAX).await.0, 4);
    assert_eq!(count(policy, 0).await, (1, Duration::ZERO));
    let (attempts, slept) = count(policy, i64::MAX).await;
    assert!(attempts > 5 && slept <= policy.budget && slept > Duration::from_secs(10), "{attempts} {slept:?}");
    let (_, slept) = count(policy, 2_000).await;
    assert!(slept < Duration::from_secs(2), "{slept:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_layers_together_keep_the_contracts() {
    let meter = Meter::new();
    let objects = Metered::new(Faulty::new(MemoryObjectStore::new(), FaultPlan::none()), meter.clone());
    contract::object::run(Arc::new(Retrying::new(objects, retry().0))).await;
    let items = Metered::new(Faulty::new(MemoryItemStore::new(), FaultPlan::none()), meter.clone());
    contract::item::run(Arc::new(Retrying::new(items, retry().0))).await;
    let usage = meter.snapshot();
    assert!(usage.s3_put_class() > 100 && usage.write_units > 100, "{usage:?}");
}

#[tokio::test]
async fn another_content_of_our_length_is_not_taken_for_ours() {
    let store = MemoryObjectStore::new();
    let other = store.clone();
    let plan = FaultPlan::none().on("put", "k", 1, Fault::LoseRequest).act_before("put", "k", 2, move || async move {
        other.put("k", Bytes::from_static(b"MINE"), PutMode::IfAbsent).await.unwrap();
    });
    let error = objects(&store, plan).put("k", MINE, PutMode::IfAbsent).await.unwrap_err();
    assert_eq!(error.kind(), ObjectErrorKind::Unknown);
}
