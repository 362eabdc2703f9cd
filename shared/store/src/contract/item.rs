//! What every `ItemStore` must do. Neighbours: `item` (the port and its promises).

use std::sync::Arc;

use bytes::Bytes;

use super::{RACERS, ROUNDS};
use crate::item::{Attr, ITEM_BYTES_MAX, Item, ItemCondition, ItemError, ItemStore, query_all};

/// Runs every check.
pub async fn run(store: Arc<dyn ItemStore>) {
    put_then_get_returns_the_whole_item(&store).await;
    put_replaces_the_whole_item(&store).await;
    failed_condition_returns_the_current_item(&store).await;
    racing_rev_writers_have_one_winner(&store).await;
    racing_absent_writers_have_one_winner(&store).await;
    add_creates_counts_and_loses_nothing(&store).await;
    delete_honours_its_condition(&store).await;
    query_pages_in_byte_order_under_a_prefix(&store).await;
    wrong_requests_are_named(&store).await;
    super::fault::items(store).await;
}

/// An item of every attribute kind, extremes and empties included, is read back equal.
pub async fn put_then_get_returns_the_whole_item(store: &Arc<dyn ItemStore>) {
    assert_eq!(store.get("contract/put", "none").await.unwrap(), None);
    let item = Item::new("contract/put", "ünï #1", u64::MAX)
        .with("text", Attr::S("é\n\"x\"".into()))
        .with("empty", Attr::S(String::new()))
        .with("least", Attr::N(i64::MIN))
        .with("most", Attr::N(i64::MAX))
        .with("binary", Attr::B(Bytes::from_static(&[0, 255, 1])))
        .with("status", Attr::S("a reserved word of DynamoDB".into()));
    store.put(&item, ItemCondition::Absent).await.unwrap();
    assert_eq!(store.get("contract/put", "ünï #1").await.unwrap(), Some(item));
}

/// Attributes that the new item does not have are gone.
pub async fn put_replaces_the_whole_item(store: &Arc<dyn ItemStore>) {
    let first = Item::new("contract/replace", "s", 1).with("a", Attr::N(1)).with("b", Attr::N(2));
    store.put(&first, ItemCondition::None).await.unwrap();
    let second = Item::new("contract/replace", "s", 2).with("b", Attr::N(3));
    store.put(&second, ItemCondition::RevIs(1)).await.unwrap();
    assert_eq!(store.get("contract/replace", "s").await.unwrap(), Some(second));
}

/// `Absent` and `RevIs` that do not hold change nothing and return what is there, or that nothing is.
pub async fn failed_condition_returns_the_current_item(store: &Arc<dyn ItemStore>) {
    let there = Item::new("contract/condition", "s", 5).with("x", Attr::S("there".into()));
    let mine = Item::new("contract/condition", "s", 6);
    expect_failed(store.put(&mine, ItemCondition::RevIs(5)).await, None);
    store.put(&there, ItemCondition::Absent).await.unwrap();
    expect_failed(store.put(&mine, ItemCondition::Absent).await, Some(&there));
    expect_failed(store.put(&mine, ItemCondition::RevIs(4)).await, Some(&there));
    expect_failed(store.delete("contract/condition", "s", ItemCondition::RevIs(6)).await, Some(&there));
    assert_eq!(store.get("contract/condition", "s").await.unwrap(), Some(there));
}

fn expect_failed(result: Result<(), ItemError>, want: Option<&Item>) {
    match result {
        Err(ItemError::ConditionFailed { current, .. }) => assert_eq!(current.as_ref(), want),
        other => panic!("expected a failed condition, got {other:?}"),
    }
}

/// 16 writers from the same revision: one wins, the others see the winner's item.
pub async fn racing_rev_writers_have_one_winner(store: &Arc<dyn ItemStore>) {
    store.put(&Item::new("contract/race", "rev", 0), ItemCondition::None).await.unwrap();
    for round in 0..ROUNDS as u64 {
        race(store, "rev", round + 1, ItemCondition::RevIs(round)).await;
    }
}

/// 16 creators of one item: one wins.
pub async fn racing_absent_writers_have_one_winner(store: &Arc<dyn ItemStore>) {
    for round in 0..ROUNDS {
        race(store, &format!("absent-{round}"), 1, ItemCondition::Absent).await;
    }
}

async fn race(store: &Arc<dyn ItemStore>, sort: &str, rev: u64, condition: ItemCondition) {
    let racers: Vec<_> = (0..RACERS as i64)
        .map(|racer| {
            let (store, item) = (store.clone(), Item::new("contract/race", sort, rev).with("racer", Attr::N(racer)));
            tokio::spawn(async move {
                loop {
                    match store.put(&item, condition).await {
                        Ok(()) => return Ok(racer),
                        Err(ItemError::ConditionFailed { current, .. }) => return Err(current),
                        Err(ItemError::Throttled(_)) => tokio::task::yield_now().await,
                        Err(e) => panic!("a racer failed: {e}"),
                    }
                }
            })
        })
        .collect();
    let mut winners = Vec::new();
    let mut seen = Vec::new();
    for racer in racers {
        match racer.await.unwrap() {
            Ok(racer) => winners.push(racer),
            Err(current) => seen.push(current),
        }
    }
    assert_eq!(winners.len(), 1, "winners of {sort}: {winners:?}");
    let want = Some(Item::new("contract/race", sort, rev).with("racer", Attr::N(winners[0])));
    assert!(seen.iter().all(|current| *current == want), "losers saw {seen:?}");
    assert_eq!(store.get("contract/race", sort).await.unwrap(), want);
}

/// Adding makes the item with revision 0, keeps the others' attributes and revision, and sums all racers.
pub async fn add_creates_counts_and_loses_nothing(store: &Arc<dyn ItemStore>) {
    assert_eq!(store.add("contract/add", "new", "runs", 3).await.unwrap(), 3);
    assert_eq!(store.add("contract/add", "new", "runs", -1).await.unwrap(), 2);
    let made = store.get("contract/add", "new").await.unwrap().unwrap();
    assert_eq!(made, Item::new("contract/add", "new", 0).with("runs", Attr::N(2)));

    let there = Item::new("contract/add", "old", 9).with("x", Attr::S("kept".into()));
    store.put(&there, ItemCondition::Absent).await.unwrap();
    let racers: Vec<_> = (0..RACERS)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.add("contract/add", "old", "n", 2).await.unwrap() })
        })
        .collect();
    for racer in racers {
        racer.await.unwrap();
    }
    let now = store.get("contract/add", "old").await.unwrap().unwrap();
    assert_eq!(now, there.with("n", Attr::N(2 * RACERS as i64)));
    assert!(matches!(store.add("contract/add", "old", "x", 1).await, Err(ItemError::Invalid(_))));
}

/// Deleting nothing succeeds without a condition; with one it must hold.
pub async fn delete_honours_its_condition(store: &Arc<dyn ItemStore>) {
    store.delete("contract/delete", "s", ItemCondition::None).await.unwrap();
    expect_failed(store.delete("contract/delete", "s", ItemCondition::RevIs(1)).await, None);
    store.put(&Item::new("contract/delete", "s", 1), ItemCondition::Absent).await.unwrap();
    store.delete("contract/delete", "s", ItemCondition::RevIs(1)).await.unwrap();
    assert_eq!(store.get("contract/delete", "s").await.unwrap(), None);
}

/// Pages of any size give every item of the partition under the prefix once, in byte order of the sort key.
pub async fn query_pages_in_byte_order_under_a_prefix(store: &Arc<dyn ItemStore>) {
    let mut sorts = ["a", "b/1", "b/10", "b/2", "b0", "B", "é/1"];
    for sort in sorts {
        store.put(&Item::new("contract/query", sort, 1), ItemCondition::None).await.unwrap();
    }
    store.put(&Item::new("contract/query2", "b/3", 1), ItemCondition::None).await.unwrap();
    sorts.sort_unstable();
    for limit in [1, 2, sorts.len(), 100] {
        let mut seen: Vec<String> = Vec::new();
        loop {
            let page = store.query("contract/query", "", seen.last().map(String::as_str), limit).await.unwrap();
            assert!(page.items.len() <= limit);
            seen.extend(page.items.into_iter().map(|i| i.sort));
            if !page.more {
                break;
            }
        }
        assert_eq!(seen, sorts, "limit {limit}");
    }
    let under: Vec<String> =
        query_all(store, "contract/query", "b/").await.unwrap().into_iter().map(|i| i.sort).collect();
    assert_eq!(under, ["b/1", "b/10", "b/2"]);
    let after = store.query("contract/query", "b/", Some("b/1"), 1).await.unwrap();
    assert_eq!(after.items[0].sort, "b/10");
    let past = store.query("contract/query", "b/", Some("b0"), 10).await.unwrap();
    assert_eq!(past.items, []);
    assert!(query_all(store, "contract/query-none", "").await.unwrap().is_empty());
}

/// Empty keys, reserved names and oversized items are refused with their own kind.
pub async fn wrong_requests_are_named(store: &Arc<dyn ItemStore>) {
    assert!(matches!(store.get("", "s").await, Err(ItemError::Invalid(_))));
    assert!(matches!(store.put(&Item::new("p", "", 1), ItemCondition::None).await, Err(ItemError::Invalid(_))));
    let reserved = Item::new("contract/wrong", "s", 1).with("p", Attr::N(1));
    assert!(matches!(store.put(&reserved, ItemCondition::None).await, Err(ItemError::Invalid(_))));
    assert!(matches!(store.add("contract/wrong", "s", "rev", 1).await, Err(ItemError::Invalid(_))));
    let large = Item::new("contract/wrong", "s", 1).with("x", Attr::B(Bytes::from(vec![7; ITEM_BYTES_MAX])));
    assert!(matches!(store.put(&large, ItemCondition::None).await, Err(ItemError::TooLarge(_))));
    assert!(matches!(store.query("contract/wrong", "", None, 0).await, Err(ItemError::Invalid(_))));
    assert_eq!(store.get("contract/wrong", "s").await.unwrap(), None);
}
