//! The item contract, through the real client, against an embedded DynamoDB on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::sync::Arc;

use siltstone_aws::{Clients, DynamoItems, Endpoints, Timeouts, create_items_table};
use siltstone_store::{Item, ItemCondition, ItemError, ItemStore, SystemClock, contract};
use tokio::{net::TcpListener, sync::oneshot};

/// A server of its own, stopped when the sender is dropped.
async fn server() -> (Clients, oneshot::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let database = dynoxide::Database::memory().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(dynoxide::server::serve_with_shutdown(listener, database, async move {
        stopped.await.ok();
    }));
    let endpoints = Endpoints { dynamodb: Some(url), ..Endpoints::default() };
    (Clients::at(&endpoints, Timeouts::default()).await, stop)
}

#[tokio::test(flavor = "multi_thread")]
async fn dynamodb_keeps_the_contract_of_items() {
    let (clients, _stop) = server().await;
    create_items_table(&clients.dynamodb, "items", &SystemClock).await.unwrap();
    create_items_table(&clients.dynamodb, "items", &SystemClock).await.unwrap();
    contract::item::run(Arc::new(DynamoItems::new(clients.dynamodb, "items"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_made_by_add_has_revision_zero_to_conditions_too() {
    let (clients, _stop) = server().await;
    create_items_table(&clients.dynamodb, "items", &SystemClock).await.unwrap();
    let items = DynamoItems::new(clients.dynamodb, "items");
    items.add("p", "s", "n", 1).await.unwrap();
    let refused = items.put(&Item::new("p", "s", 2), ItemCondition::RevIs(1)).await.unwrap_err();
    assert!(matches!(refused, ItemError::ConditionFailed { current: Some(_), .. }), "{refused}");
    items.put(&Item::new("p", "s", 1), ItemCondition::RevIs(0)).await.unwrap();
    assert_eq!(items.get("p", "s").await.unwrap(), Some(Item::new("p", "s", 1)));
}

#[tokio::test]
async fn a_missing_table_is_named() {
    let (clients, _stop) = server().await;
    let error = DynamoItems::new(clients.dynamodb, "nowhere").get("p", "s").await.unwrap_err();
    assert!(matches!(error, ItemError::Denied(_)), "{error}");
    assert!(error.to_string().contains("table nowhere"), "{error}");
}
