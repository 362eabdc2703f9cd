//! The object contract, through the real client and sockets, against a small S3 server over the in-memory store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, reason = "tests")]

mod front;

use std::sync::Arc;

use front::Front;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use siltstone_aws::{Clients, Endpoints, S3Store, Timeouts};
use siltstone_store::contract;
use tokio::net::TcpListener;

async fn store() -> S3Store {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut builder = S3ServiceBuilder::new(Front::default());
    builder.set_auth(SimpleAuth::from_single("test", "test"));
    let service = builder.build();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            socket.set_nodelay(true).unwrap();
            let service = service.clone();
            tokio::spawn(async move {
                let builder = Builder::new(TokioExecutor::new());
                builder.serve_connection(TokioIo::new(socket), service).await.ok();
            });
        }
    });
    let endpoints = Endpoints { s3: Some(url), ..Endpoints::default() };
    S3Store::new(Clients::at(&endpoints, Timeouts::default()).await.s3, "bucket1")
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_keeps_the_contract_of_objects() {
    contract::object::run(Arc::new(store().await)).await;
}
