//! The contracts of all ports, through the real clients and sockets, against the stack; in memory and in a directory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{path::Path, sync::Arc};

use siltstone_aws::{Clients, DynamoItems, Endpoints, KinesisStream, S3Store, Timeouts, create_items_table};
use siltstone_local::{Stack, StackConfig};
use siltstone_store::{SystemClock, contract};

async fn start(dir: Option<&Path>) -> (Stack, Clients) {
    let stack = Stack::start(StackConfig { dir: dir.map(Path::to_owned), port: 0 }).await.unwrap();
    let at = stack.endpoints();
    let endpoints = Endpoints { s3: Some(at.s3), dynamodb: Some(at.dynamodb), kinesis: Some(at.kinesis), lambda: None };
    (stack, Clients::at(&endpoints, Timeouts::default()).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_in_memory_keeps_the_contract_of_objects() {
    let (stack, clients) = start(None).await;
    stack.s3().create_bucket("bucket1").unwrap();
    contract::object::run(Arc::new(S3Store::new(clients.s3, "bucket1"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_in_a_directory_keeps_the_contract_of_objects() {
    let dir = tempfile::tempdir().unwrap();
    let (stack, clients) = start(Some(dir.path())).await;
    stack.s3().create_bucket("bucket1").unwrap();
    contract::object::run(Arc::new(S3Store::new(clients.s3, "bucket1"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dynamodb_keeps_the_contract_of_items() {
    let dir = tempfile::tempdir().unwrap();
    for dir in [None, Some(dir.path())] {
        let (_stack, clients) = start(dir).await;
        create_items_table(&clients.dynamodb, "items", &SystemClock).await.unwrap();
        contract::item::run(Arc::new(DynamoItems::new(clients.dynamodb, "items"))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kinesis_keeps_the_contract_of_streams() {
    let dir = tempfile::tempdir().unwrap();
    for dir in [None, Some(dir.path())] {
        let (_stack, clients) = start(dir).await;
        contract::stream::run(Arc::new(KinesisStream::new(clients.kinesis))).await;
    }
}
