//! The contract of streams, through the real client and sockets, against a small Kinesis server over the in-memory streams.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use siltstone_aws::{Clients, Endpoints, KinesisStream, Timeouts};
use siltstone_store::{
    PutRecord, Shard, ShardIterator, ShardStart, StreamAdmin, StreamError, StreamErrorKind, StreamReader, StreamResult,
    StreamWriter, contract, memory::MemoryStreams,
};
use tokio::net::TcpListener;

#[tokio::test(flavor = "multi_thread")]
async fn kinesis_keeps_the_contract_of_streams() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().route("/", post(serve)).with_state(MemoryStreams::new());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let endpoints = Endpoints { kinesis: Some(url), ..Endpoints::default() };
    let clients = Clients::at(&endpoints, Timeouts::default()).await;
    contract::stream::run(Arc::new(KinesisStream::new(clients.kinesis))).await;
}

async fn serve(State(streams): State<MemoryStreams>, headers: HeaderMap, body: String) -> Response {
    let target = headers["x-amz-target"].to_str().unwrap().strip_prefix("Kinesis_20131202.").unwrap().to_owned();
    let input: Value = serde_json::from_str(&body).unwrap();
    let (status, output) = match answer(&streams, &target, &input).await {
        Ok(output) => (StatusCode::OK, output),
        Err(error) => (StatusCode::BAD_REQUEST, json!({ "__type": code(error.kind()), "message": error.reason })),
    };
    (status, [("content-type", "application/x-amz-json-1.1")], output.to_string()).into_response()
}

fn code(kind: StreamErrorKind) -> &'static str {
    match kind {
        StreamErrorKind::NotFound => "ResourceNotFoundException",
        StreamErrorKind::InUse => "ResourceInUseException",
        StreamErrorKind::Throttled => "ProvisionedThroughputExceededException",
        _ => "InvalidArgumentException",
    }
}

async fn answer(streams: &MemoryStreams, target: &str, input: &Value) -> StreamResult<Value> {
    let text = |name: &str| input[name].as_str().unwrap_or_default().to_owned();
    let name = text("StreamName");
    match target {
        "CreateStream" => {
            streams.create(&name, input["ShardCount"].as_u64().unwrap() as u32).await?;
        }
        "DeleteStream" => streams.delete(&name).await?,
        "DescribeStreamSummary" => return describe(streams, &name).await,
        "ListShards" => return list_shards(streams, input).await,
        "SplitShard" => {
            let start = text("NewStartingHashKey").parse().unwrap();
            streams.split(&name, &text("ShardToSplit"), start).await?;
        }
        "MergeShards" => streams.merge(&name, &text("ShardToMerge"), &text("AdjacentShardToMerge")).await?,
        "IncreaseStreamRetentionPeriod" => {
            let hours = input["RetentionPeriodHours"].as_u64().unwrap();
            streams.set_retention(&name, Duration::from_secs(hours * 3_600)).await?;
        }
        "PutRecords" => return put_records(streams, &name, input).await,
        "GetShardIterator" => {
            let start = match text("ShardIteratorType").as_str() {
                "TRIM_HORIZON" => ShardStart::TrimHorizon,
                "LATEST" => ShardStart::Latest,
                "AT_SEQUENCE_NUMBER" => ShardStart::AtSequence(text("StartingSequenceNumber")),
                "AFTER_SEQUENCE_NUMBER" => ShardStart::AfterSequence(text("StartingSequenceNumber")),
                _ => ShardStart::AtTimestamp((input["Timestamp"].as_f64().unwrap() * 1e3).round() as i64),
            };
            let iterator = streams.iterator(&name, &text("ShardId"), start).await?;
            return Ok(json!({ "ShardIterator": iterator.0 }));
        }
        "GetRecords" => return get_records(streams, input).await,
        other => return Err(StreamError::new(StreamErrorKind::Invalid, "serve", name, other)),
    }
    Ok(json!({}))
}

async fn describe(streams: &MemoryStreams, name: &str) -> StreamResult<Value> {
    let now = streams.describe(name).await?;
    Ok(json!({ "StreamDescriptionSummary": {
        "StreamName": now.name, "StreamARN": now.arn, "StreamStatus": "ACTIVE", "OpenShardCount": 1,
        "RetentionPeriodHours": now.retention.as_secs() / 3_600, "EnhancedMonitoring": [],
        "StreamCreationTimestamp": now.created_ms as f64 / 1e3,
    }}))
}

/// Two shards a page; a page after the first is asked for by its token alone, as Kinesis insists.
async fn list_shards(streams: &MemoryStreams, input: &Value) -> StreamResult<Value> {
    let (name, from) = match input["NextToken"].as_str() {
        Some(token) => {
            assert!(input["StreamName"].is_null(), "a token and a stream name");
            let (from, name) = token.split_once(':').unwrap();
            (name.to_owned(), from.parse().unwrap())
        }
        None => (input["StreamName"].as_str().unwrap().to_owned(), 0_usize),
    };
    let shards = streams.list_shards(&name).await?;
    let page: Vec<Value> = shards.iter().skip(from).take(2).map(shard_json).collect();
    let next = (shards.len() > from + 2).then(|| format!("{}:{name}", from + 2));
    Ok(json!({ "Shards": page, "NextToken": next }))
}

fn shard_json(shard: &Shard) -> Value {
    json!({
        "ShardId": shard.id, "ParentShardId": shard.parent, "AdjacentParentShardId": shard.adjacent_parent,
        "HashKeyRange": {
            "StartingHashKey": shard.hash_start.to_string(), "EndingHashKey": shard.hash_end.to_string(),
        },
        "SequenceNumberRange": {
            "StartingSequenceNumber": shard.first_sequence, "EndingSequenceNumber": shard.last_sequence,
        },
    })
}

async fn put_records(streams: &MemoryStreams, name: &str, input: &Value) -> StreamResult<Value> {
    let records: Vec<PutRecord> = input["Records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|record| PutRecord {
            data: BASE64_STANDARD.decode(record["Data"].as_str().unwrap()).unwrap().into(),
            partition_key: record["PartitionKey"].as_str().unwrap().to_owned(),
            explicit_hash_key: record["ExplicitHashKey"].as_str().map(|hash| hash.parse().unwrap()),
        })
        .collect();
    let results = streams.put_records(name, &records).await?;
    let results: Vec<Value> = results
        .into_iter()
        .map(|result| match result {
            Ok(put) => json!({ "ShardId": put.shard, "SequenceNumber": put.sequence }),
            Err(failure) => json!({ "ErrorCode": failure.code, "ErrorMessage": failure.message }),
        })
        .collect();
    Ok(json!({ "Records": results }))
}

async fn get_records(streams: &MemoryStreams, input: &Value) -> StreamResult<Value> {
    let iterator = ShardIterator(input["ShardIterator"].as_str().unwrap().to_owned());
    let answer = streams.get_records("", &iterator, input["Limit"].as_u64().unwrap() as u32).await?;
    let records: Vec<Value> = answer
        .records
        .into_iter()
        .map(|record| {
            json!({
                "SequenceNumber": record.sequence, "Data": BASE64_STANDARD.encode(&record.data),
                "PartitionKey": record.partition_key, "ApproximateArrivalTimestamp": record.arrival_ms as f64 / 1e3,
            })
        })
        .collect();
    let next = answer.next.map(|next| next.0);
    Ok(json!({ "Records": records, "NextShardIterator": next, "MillisBehindLatest": answer.behind_ms }))
}
