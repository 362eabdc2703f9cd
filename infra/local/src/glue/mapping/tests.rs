//! The mapping's promises: order, retry, bisect, partial answers, parents before children, redelivery.

use std::{sync::Mutex, time::Instant};

use super::*;
use crate::glue::{InProcess, function::Handler};

/// Far longer than anything here takes: only a test that fails waits for it.
const LONG: Duration = Duration::from_secs(60);

type Log = Arc<Mutex<Vec<(String, String)>>>;

/// A function that logs (shard, data) of each record, and answers what `decide` says of the batch's data.
fn logging(
    decide: impl Fn(&[(String, String)], usize) -> Result<String, String> + Send + Sync + 'static,
) -> (Arc<dyn Function>, Log) {
    let log: Log = Arc::default();
    let (seen, calls) = (log.clone(), AtomicU64::new(0));
    let handler: Handler = Arc::new(move |payload, _| {
        let event: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        let batch: Vec<(String, String)> = event["Records"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| {
                let data = STANDARD.decode(r["kinesis"]["data"].as_str().unwrap()).unwrap();
                (r["eventID"].as_str().unwrap().to_owned(), String::from_utf8(data).unwrap())
            })
            .collect();
        let answer = decide(&batch, calls.fetch_add(1, Ordering::Relaxed) as usize);
        if answer.is_ok() {
            seen.lock().unwrap().extend(batch);
        }
        Box::pin(async move { answer.map(Bytes::from) })
    });
    (Arc::new(InProcess::new("f", handler, Duration::from_secs(5), 8)), log)
}

fn config(batch_size: usize) -> MappingConfig {
    MappingConfig { stream: "s".into(), batch_size, window: Duration::ZERO, bisect: false, checkpoints: None }
}

async fn put(kinesis: &Kinesis, data: &str) {
    let body = json!({"StreamName": "s", "PartitionKey": "k", "Data": STANDARD.encode(data)});
    kinesis.request("PutRecord", body).await.unwrap();
}

async fn until(log: &Log, count: usize) -> Vec<String> {
    let start = Instant::now();
    while log.lock().unwrap().len() < count && start.elapsed() < LONG {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    log.lock().unwrap().iter().map(|(_, data)| data.clone()).collect()
}

async fn stream(records: usize) -> Kinesis {
    let kinesis = Kinesis::open(None).unwrap();
    kinesis.create_stream("s", 1).unwrap();
    for i in 0..records {
        put(&kinesis, &i.to_string()).await;
    }
    kinesis
}

#[tokio::test]
async fn records_come_in_order_and_a_failed_batch_holds_back_what_follows() {
    let (function, log) = logging(|_, call| if call < 2 { Err("not yet".into()) } else { Ok("{}".into()) });
    let mapping = Mapping::start(config(2), stream(5).await, function);
    assert_eq!(until(&log, 5).await, ["0", "1", "2", "3", "4"]);
    assert_eq!(mapping.counts.retries.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_batch_that_fails_is_halved() {
    let sizes: Arc<Mutex<Vec<usize>>> = Arc::default();
    let seen = sizes.clone();
    let (function, log) = logging(move |batch, _| {
        seen.lock().unwrap().push(batch.len());
        if batch.len() > 1 { Err("too many".into()) } else { Ok("{}".into()) }
    });
    let _mapping = Mapping::start(MappingConfig { bisect: true, ..config(4) }, stream(1).await, function);
    assert_eq!(until(&log, 1).await, ["0"]);
    assert_eq!(sizes.lock().unwrap()[0], 1);
}

#[tokio::test]
async fn a_partial_answer_is_retried_from_its_lowest_failure() {
    let (function, log) = logging(|batch, call| {
        let failed = batch.iter().find(|(_, data)| data == "2").filter(|_| call == 0);
        Ok(match failed {
            Some((id, _)) => {
                let sequence = id.split(':').nth(1).unwrap();
                json!({"batchItemFailures": [{"itemIdentifier": sequence}]}).to_string()
            }
            None => "{\"batchItemFailures\": []}".to_owned(),
        })
    });
    let _mapping = Mapping::start(config(10), stream(4).await, function);
    assert_eq!(until(&log, 6).await, ["0", "1", "2", "3", "2", "3"]);
}

fn record(n: usize, bytes: usize) -> Rec {
    Rec { sequence: format!("{n:056}"), partition_key: "k".into(), data: vec![b'x'; bytes].into(), arrival_ms: 0 }
}

#[test]
fn of_several_failures_the_lowest_counts_in_whatever_order_they_are_named() {
    let records: Vec<Rec> = (0..4).map(|n| record(n, 1)).collect();
    let lowest = |named: &[usize]| {
        let items: Vec<_> = named.iter().map(|n| json!({"itemIdentifier": records[*n].sequence})).collect();
        lowest_failure(json!({"batchItemFailures": items}).to_string().as_bytes(), &records).unwrap()
    };
    assert_eq!([&[1, 3][..], &[3, 1], &[2, 0, 3], &[]].map(lowest), [Some(1), Some(1), Some(0), None]);
    let stranger = json!({"batchItemFailures": [{"itemIdentifier": record(9, 1).sequence}]}).to_string();
    assert!(lowest_failure(stranger.as_bytes(), &records).is_err());
}

/// A shard would stand still for ever behind a record that no event can hold.
#[test]
fn an_event_holds_what_fits_a_payload_and_one_record_always() {
    let kept = |sizes: &[usize]| within_payload(sizes.iter().map(|bytes| record(0, *bytes)).collect()).len();
    assert_eq!(kept(&[1 << 20; 6]), 4, "1 MiB is 1.4 MB in an event");
    assert_eq!((kept(&[10 << 20]), kept(&[10 << 20, 1]), kept(&[1, 10 << 20]), kept(&[])), (1, 1, 1, 0));
}

#[tokio::test]
async fn children_wait_for_their_parents() {
    let kinesis = stream(3).await;
    let half = (u128::MAX / 2 + 1).to_string();
    let split = json!({"StreamName": "s", "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": half});
    kinesis.request("SplitShard", split).await.unwrap();
    put(&kinesis, "child").await;
    let (function, log) =
        logging(
            |batch, call| {
                if call < 3 && batch[0].1 == "0" { Err("parent not done".into()) } else { Ok("{}".into()) }
            },
        );
    let _mapping = Mapping::start(config(1), kinesis, function);
    assert_eq!(until(&log, 4).await, ["0", "1", "2", "child"]);
}

#[tokio::test]
async fn what_was_not_acknowledged_is_delivered_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let file = Some(dir.path().join("mapping.json"));
    let kinesis = stream(4).await;
    let (function, log) = logging(|batch, _| if batch[0].1 == "2" { Err("killed".into()) } else { Ok("{}".into()) });
    let first = Mapping::start(MappingConfig { checkpoints: file.clone(), ..config(1) }, kinesis.clone(), function);
    assert_eq!(until(&log, 2).await, ["0", "1"]);
    let start = Instant::now();
    while first.counts.retries.load(Ordering::Relaxed) == 0 {
        assert!(start.elapsed() < LONG, "the third record was not delivered");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(first);
    let (function, log) = logging(|_, _| Ok("{}".into()));
    let _second = Mapping::start(MappingConfig { checkpoints: file, ..config(10) }, kinesis, function);
    assert_eq!(until(&log, 2).await, ["2", "3"]);
}

#[tokio::test]
async fn a_stream_that_is_created_again_is_read_from_its_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let file = Some(dir.path().join("mapping.json"));
    let kinesis = stream(2).await;
    let half = (u128::MAX / 2 + 1).to_string();
    let split = json!({"StreamName": "s", "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": half});
    kinesis.request("SplitShard", split).await.unwrap();
    put(&kinesis, "child").await;
    let again = async |data: &str| {
        kinesis.request("DeleteStream", json!({"StreamName": "s"})).await.unwrap();
        kinesis.create_stream("s", 1).unwrap();
        put(&kinesis, data).await;
    };
    let (function, log) = logging(|_, _| Ok("{}".into()));
    let config = MappingConfig { checkpoints: file, ..config(1) };
    let first = Mapping::start(config.clone(), kinesis.clone(), function.clone());
    assert_eq!(until(&log, 3).await, ["0", "1", "child"]);
    // While the mapping runs, and while it does not.
    again("second").await;
    assert_eq!(until(&log, 4).await.last().unwrap(), "second");
    drop(first);
    again("third").await;
    let _second = Mapping::start(config, kinesis.clone(), function);
    assert_eq!(until(&log, 5).await.last().unwrap(), "third");
}
