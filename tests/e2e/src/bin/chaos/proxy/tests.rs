//! The proxy before a service that counts: what reaches it, and what comes back.
//! Neighbours: `proxy`.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::{Router, extract::State, http::StatusCode};

use super::*;

/// A service that counts what reaches it; the second request to it is refused as a condition that fails.
async fn service() -> (Endpoints, Arc<AtomicU64>) {
    let count: Arc<AtomicU64> = Arc::default();
    let answer = |State(count): State<Arc<AtomicU64>>| async move {
        if count.fetch_add(1, Ordering::SeqCst) == 1 { StatusCode::PRECONDITION_FAILED } else { StatusCode::OK }
    };
    let router = Router::new().fallback(answer).with_state(count.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (Endpoints { s3: address.clone(), dynamodb: address.clone(), kinesis: address, lambda: String::new() }, count)
}

async fn disturbed(fault: Fault) -> (Option<StatusCode>, u64) {
    let (endpoints, count) = service().await;
    let (proxy, _) = Proxy::start(1).await.unwrap();
    proxy.stand_before(endpoints);
    let (head, ()) = Request::put("/siltstone/w/snapshot/snapshot-1").body(()).unwrap().into_parts();
    let asked = Asked::of(Service::S3, &head, b"");
    let answer = proxy.disturb(fault, &asked, head, Bytes::from_static(b"{}")).await;
    let reached = count.load(Ordering::SeqCst);
    (answer.ok().map(|answer| answer.status()), reached)
}

#[tokio::test]
async fn each_fault_does_to_the_service_what_it_says() {
    assert_eq!(disturbed(Fault::RequestLost).await, (None, 0));
    assert_eq!(disturbed(Fault::AnswerLost).await, (None, 1));
    assert_eq!(disturbed(Fault::Twice).await, (Some(StatusCode::PRECONDITION_FAILED), 2));
    assert_eq!(disturbed(Fault::DoneButFailed).await, (Some(StatusCode::INTERNAL_SERVER_ERROR), 1));
    assert_eq!(disturbed(Fault::Throttled).await, (Some(StatusCode::SERVICE_UNAVAILABLE), 0));
    assert_eq!(disturbed(Fault::Conflict).await, (Some(StatusCode::CONFLICT), 0));
}

#[test]
fn a_listing_gets_older_and_keeps_everything_else() {
    let listing = "<L><C><Key>a</Key><LastModified>2026-01-02T00:10:00.5Z</LastModified></C><C>b</C></L>";
    let older_by_16_minutes = "<L><C><Key>a</Key><LastModified>2026-01-01T23:54:00.5Z</LastModified></C><C>b</C></L>";
    assert_eq!(older(listing), older_by_16_minutes);
    assert_eq!(older("<L><LastModified>soon</LastModified>"), "<L><LastModified>soon</LastModified>");
}

#[test]
fn only_functions_are_killed() {
    assert!(!signal(std::process::id(), Signal::KILL));
    assert!(!signal(0, Signal::KILL));
}
