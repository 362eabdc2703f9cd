//! S3 notifications: created objects below a prefix start a function, asynchronously.
//!
//! Neighbours: `s3` sends [`ObjectCreated`]; functions take the event JSON of S3. As AWS: at least once, in no promised order, two retries.
//! Recursive-loop detection: a chain through S3 is stopped after 16 invocations unless the function allows it; `lineage` tells the depth.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde_json::json;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{Function, lineage};
use crate::{ObjectCreated, REGION};

/// Lambda stops a chain of about this many invocations.
pub const CHAIN_MAX: u32 = 16;

/// One rule: which objects start which function.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Bucket.
    pub bucket: String,
    /// Prefix of the key.
    pub prefix: String,
    /// Whom to invoke.
    pub function: Arc<dyn Function>,
    /// `RecursiveLoop: Allow`.
    pub allows_loops: bool,
}

/// Settings of delivery.
#[derive(Debug, Clone, Copy, Default)]
pub struct Delivery {
    /// With a seed, some events come twice and out of order.
    pub rough: Option<u64>,
    /// Wait before the first retry; twice as long before the second (a minute on AWS).
    pub retry_after: Duration,
}

/// Counts of notifications.
#[derive(Debug, Default)]
pub struct NotifyCounts {
    /// Events delivered.
    pub delivered: AtomicU64,
    /// Events given up after two retries.
    pub dropped: AtomicU64,
    /// Events stopped as a loop.
    pub loops: AtomicU64,
}

/// Delivers events until the stack ends. `rules` is asked for each event, so rules may come and go.
pub async fn run(
    mut events: UnboundedReceiver<ObjectCreated>,
    rules: impl Fn() -> Vec<Rule> + Send,
    delivery: Delivery,
    counts: Arc<NotifyCounts>,
) {
    let mut rng = SmallRng::seed_from_u64(delivery.rough.unwrap_or(0));
    while let Some(event) = events.recv().await {
        for rule in rules() {
            if rule.bucket != event.bucket || !event.key.starts_with(&rule.prefix) {
                continue;
            }
            let depth = lineage::after(event.lineage.as_deref());
            if depth >= CHAIN_MAX && !rule.allows_loops {
                counts.loops.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(function = rule.function.name(), "a recursive loop was stopped");
                continue;
            }
            let (times, delay) = match delivery.rough {
                Some(_) => (1 + u32::from(rng.random_bool(0.2)), Duration::from_millis(rng.random_range(0..200))),
                None => (1, Duration::ZERO),
            };
            for _ in 0..times {
                let delivered = deliver(rule.function.clone(), event_json(&event), delay, delivery, counts.clone());
                tokio::spawn(lineage::at_depth(depth, delivered));
            }
        }
    }
}

async fn deliver(
    function: Arc<dyn Function>,
    payload: Bytes,
    delay: Duration,
    delivery: Delivery,
    counts: Arc<NotifyCounts>,
) {
    tokio::time::sleep(delay).await;
    for attempt in 0..3u32 {
        match function.invoke(payload.clone()).await {
            Ok(_) => {
                counts.delivered.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Err(error) => {
                tracing::warn!(function = function.name(), attempt, %error, "an asynchronous invocation failed");
                tokio::time::sleep(delivery.retry_after * (attempt + 1)).await;
            }
        }
    }
    counts.dropped.fetch_add(1, Ordering::Relaxed);
}

/// The event JSON of S3 for one created object.
#[must_use]
pub fn event_json(event: &ObjectCreated) -> Bytes {
    let json = json!({"Records": [{
        "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": REGION, "eventTime": iso(event.time_ms),
        "eventName": "ObjectCreated:Put", "userIdentity": {"principalId": "local"},
        "requestParameters": {"sourceIPAddress": "127.0.0.1"}, "responseElements": {},
        "s3": {
            "s3SchemaVersion": "1.0", "configurationId": "local",
            "bucket": {"name": event.bucket, "ownerIdentity": {"principalId": "local"}, "arn": format!("arn:aws:s3:::{}", event.bucket)},
            "object": {"key": encode(&event.key), "size": event.size, "eTag": event.etag, "sequencer": event.sequencer}}}]});
    Bytes::from(json.to_string())
}

/// Keys in events are URL-encoded, `/` kept.
fn encode(key: &str) -> String {
    key.bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => char::from(b).to_string(),
            b' ' => "+".to_owned(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

fn iso(ms: i64) -> String {
    let format = time::format_description::well_known::Rfc3339;
    time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000)
        .ok()
        .and_then(|t| t.format(&format).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::glue::InProcess;

    fn event(key: &str, lineage: Option<&str>) -> ObjectCreated {
        ObjectCreated {
            bucket: "lake".into(),
            key: key.into(),
            size: 3,
            etag: "e".into(),
            sequencer: "1".into(),
            lineage: lineage.map(str::to_owned),
            time_ms: 0,
        }
    }

    #[tokio::test]
    async fn matching_objects_are_delivered_retried_and_loops_stopped() {
        let (send, receive) = tokio::sync::mpsc::unbounded_channel();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = seen.clone();
        let handler: crate::glue::function::Handler = Arc::new(move |payload, _| {
            let mut seen = log.lock().unwrap();
            seen.push(String::from_utf8(payload.to_vec()).unwrap());
            let fails = seen.len() == 1;
            Box::pin(async move { if fails { Err("no".to_owned()) } else { Ok(Bytes::new()) } })
        });
        let function: Arc<dyn Function> = Arc::new(InProcess::new("f", handler, Duration::from_secs(5), 1));
        let rule = Rule { bucket: "lake".into(), prefix: "tasks/".into(), function, allows_loops: false };
        let counts: Arc<NotifyCounts> = Arc::default();
        let delivery = Delivery { rough: None, retry_after: Duration::from_millis(1) };
        let running = tokio::spawn(run(receive, move || vec![rule.clone()], delivery, counts.clone()));
        for e in [
            event("tasks/a=b c", None),
            event("other/x", None),
            event("tasks/loop", Some(&lineage::trace_id(15, lineage::Root::default()))),
        ] {
            send.send(e).unwrap();
        }
        drop(send);
        running.await.unwrap();
        // Each delivery holds the counts until it ends.
        let start = std::time::Instant::now();
        while Arc::strong_count(&counts) > 1 {
            assert!(start.elapsed() < Duration::from_secs(60), "a delivery does not end");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let seen = seen.lock().unwrap().clone();
        assert_eq!(seen.len(), 2, "one failure, one retry: {seen:?}");
        assert!(seen[1].contains("tasks/a%3Db+c"), "{}", seen[1]);
        assert_eq!((counts.delivered.load(Ordering::Relaxed), counts.loops.load(Ordering::Relaxed)), (1, 1));
    }
}
