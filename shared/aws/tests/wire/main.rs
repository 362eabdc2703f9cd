//! What each adapter makes of statuses, codes and broken connections, through the real clients and real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, reason = "tests")]

mod server;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use server::{Answer, Wire};
use siltstone_aws::{Clients, DynamoItems, Endpoints, KinesisStream, LambdaMappings, S3Store, Timeouts};
use siltstone_store::memory::ManualClock;
use siltstone_store::{
    ETag, EventSourceMappings, Item, ItemCondition, ItemError, ItemStore, MappingError, Meter, Metered,
    ObjectErrorKind, ObjectStore, PutMode, PutRecord, RequestKind, Retry, RetryPolicy, Retrying, SeededIds,
    StartingPosition, StreamErrorKind, StreamReader, StreamWriter,
};

const KEY: &str = "db/t/snapshot/snapshot-7";
const MINE: Bytes = Bytes::from_static(b"mine");

async fn clients(url: &str) -> Clients {
    let url = Some(url.to_owned());
    let endpoints = Endpoints { s3: url.clone(), dynamodb: url.clone(), kinesis: url.clone(), lambda: url };
    let timeouts = Timeouts {
        connect: Duration::from_millis(500),
        read: Duration::from_millis(300),
        operation: Duration::from_secs(2),
    };
    Clients::at(&endpoints, timeouts).await
}

async fn s3(wire: &Wire) -> S3Store {
    S3Store::new(clients(&wire.url).await.s3, "bucket")
}

fn xml(status: u16, code: &str) -> Answer {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>words</Message></Error>");
    Answer::Http(status, "content-type: application/xml\r\n", body)
}

fn json(status: u16, code: &str) -> Answer {
    json_body(status, format!("{{\"__type\":\"com.amazonaws#{code}\",\"message\":\"words\"}}"))
}

fn json_body(status: u16, body: impl Into<String>) -> Answer {
    Answer::Http(status, "content-type: application/x-amz-json-1.1\r\n", body.into())
}

fn stored(body: &str) -> Answer {
    Answer::Http(200, "etag: \"abc\"\r\nlast-modified: Thu, 01 Jan 2026 00:00:07 GMT\r\n", body.to_owned())
}

async fn put_kind(answer: Answer) -> (ObjectErrorKind, usize) {
    let wire = Wire::start(vec![answer]).await;
    let error = s3(&wire).await.put(KEY, MINE, PutMode::IfAbsent).await.unwrap_err();
    assert_eq!((error.bucket.as_str(), error.key.as_str(), error.operation), ("bucket", KEY, "put"));
    (error.kind(), wire.requests().len())
}

#[tokio::test]
async fn each_answer_to_a_conditional_put_has_its_kind_and_is_not_retried_inside() {
    use ObjectErrorKind as K;
    let cases = [
        (xml(412, "PreconditionFailed"), K::PreconditionFailed),
        (xml(409, "ConditionalRequestConflict"), K::Conflict),
        (xml(503, "SlowDown"), K::Throttled),
        (xml(429, "TooManyRequests"), K::Throttled),
        (xml(403, "AccessDenied"), K::Denied),
        (xml(400, "ExpiredToken"), K::Denied),
        (xml(404, "NoSuchBucket"), K::NotFound),
        (xml(400, "InvalidArgument"), K::Invalid),
        (xml(409, "BucketAlreadyExists"), K::Invalid),
        (xml(500, "InternalError"), K::Unknown),
        (xml(502, "BadGateway"), K::Unknown),
        (Answer::Http(503, "", "<html>a proxy</html>".to_owned()), K::Unknown),
        (xml(400, "RequestTimeout"), K::Unknown),
        (Answer::Http(200, "", String::new()), K::Unknown),
        (Answer::Cut, K::Unknown),
        (Answer::Hang, K::Unknown),
    ];
    for (answer, want) in cases {
        let got = put_kind(answer.clone()).await;
        assert_eq!(got, (want, 1), "{answer:?}");
    }
}

#[tokio::test]
async fn reads_map_missing_ranges_and_outages() {
    use ObjectErrorKind as K;
    for (answer, want) in [
        (xml(404, "NoSuchKey"), K::NotFound),
        (xml(416, "InvalidRange"), K::Invalid),
        (xml(500, "InternalError"), K::Unavailable),
        (xml(503, "ServiceUnavailable"), K::Throttled),
        (Answer::Cut, K::Unknown),
        (
            Answer::Http(200, "etag: \"abc\"\r\ncontent-length: 100\r\nconnection: close\r\n", "cut".to_owned()),
            K::Unknown,
        ),
    ] {
        let wire = Wire::start(vec![answer.clone()]).await;
        let error = s3(&wire).await.get_range(KEY, 0..10).await.unwrap_err();
        assert_eq!(error.kind(), want, "{answer:?} {error}");
    }
    let wire = Wire::start(vec![Answer::Http(404, "", String::new())]).await;
    assert_eq!(s3(&wire).await.head(KEY).await.unwrap_err().kind(), K::NotFound);
    let wire = Wire::start(vec![Answer::Http(403, "", String::new())]).await;
    assert_eq!(s3(&wire).await.head(KEY).await.unwrap_err().kind(), K::Denied);
}

#[tokio::test]
async fn a_refused_connection_wrote_nothing() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let store = S3Store::new(clients(&format!("http://{free}")).await.s3, "bucket");
    let error = store.put(KEY, MINE, PutMode::IfAbsent).await.unwrap_err();
    assert_eq!(error.kind(), ObjectErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn conditions_travel_as_headers_of_put_and_complete() {
    let init = "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>";
    let done = "<CompleteMultipartUploadResult><ETag>\"abc-1\"</ETag></CompleteMultipartUploadResult>";
    let wire = Wire::start(vec![
        stored(""),
        stored(""),
        Answer::Http(200, "", init.to_owned()),
        stored(""),
        Answer::Http(200, "", done.to_owned()),
    ])
    .await;
    let store = s3(&wire).await;
    store.put(KEY, MINE, PutMode::IfAbsent).await.unwrap();
    store.put(KEY, MINE, PutMode::IfMatch(ETag::new("t1"))).await.unwrap();
    let mut upload = store.upload(KEY).await.unwrap();
    upload.part(MINE).await.unwrap();
    assert_eq!(upload.complete(PutMode::IfAbsent).await.unwrap(), ETag::new("abc-1"));
    let requests: Vec<String> = wire.requests().iter().map(|r| r.to_lowercase()).collect();
    assert!(requests[0].starts_with(&format!("put /bucket/{KEY}")), "{}", requests[0]);
    assert!(requests[0].contains("\r\nif-none-match: *\r\n") && !requests[0].contains("if-match:"));
    assert!(requests[1].contains("\r\nif-match: \"t1\"\r\n") && !requests[1].contains("if-none-match:"));
    assert!(requests[4].starts_with("post ") && requests[4].contains("\r\nif-none-match: *\r\n"), "{}", requests[4]);
}

#[tokio::test]
async fn an_error_inside_a_successful_completion_is_no_success() {
    let init = "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>";
    for (code, want) in
        [("InternalError", ObjectErrorKind::Unknown), ("PreconditionFailed", ObjectErrorKind::PreconditionFailed)]
    {
        let late = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>late</Message></Error>");
        let answers = vec![Answer::Http(200, "", init.to_owned()), stored(""), Answer::Http(200, "", late)];
        let wire = Wire::start(answers).await;
        let mut upload = s3(&wire).await.upload(KEY).await.unwrap();
        upload.part(MINE).await.unwrap();
        let error = upload.complete(PutMode::Overwrite).await.unwrap_err();
        assert_eq!(error.kind(), want, "{error}");
    }
}

#[tokio::test]
async fn partial_failures_of_a_delete_are_errors_naming_the_key() {
    let body = "<DeleteResult><Error><Key>b</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>";
    let wire = Wire::start(vec![Answer::Http(200, "", body.to_owned())]).await;
    let error = s3(&wire).await.delete(&["a".to_owned(), "b".to_owned()]).await.unwrap_err();
    assert_eq!((error.kind(), error.key.as_str()), (ObjectErrorKind::Denied, "b"));
}

fn retry() -> Arc<Retry> {
    Retry::new(RetryPolicy::default(), Arc::new(ManualClock::new(0)), Arc::new(SeededIds::new(1)))
}

#[tokio::test]
async fn a_lost_answer_then_412_is_a_success_if_our_content_is_there_and_unknown_otherwise() {
    for (there, want) in [("mine", Ok(ETag::new("abc"))), ("theirs", Err(ObjectErrorKind::Unknown))] {
        let wire = Wire::start(vec![Answer::Cut, xml(412, "PreconditionFailed"), stored(there)]).await;
        let meter = Meter::new();
        let store = Retrying::new(Metered::new(s3(&wire).await, meter.clone()), retry());
        let got = store.put(KEY, MINE, PutMode::IfAbsent).await.map_err(|e| e.kind());
        assert_eq!(got, want);
        assert_eq!(wire.requests().len(), 3);
        let usage = meter.snapshot();
        let count = |kind| usage.count(kind).requests;
        assert_eq!((count(RequestKind::S3Put), count(RequestKind::S3Get)), (2, 1));
    }
}

#[tokio::test]
async fn each_answer_to_an_item_write_has_its_variant_and_is_not_retried_inside() {
    type Is = fn(&ItemError) -> bool;
    let cases: [(Answer, Is); 11] = [
        (json(400, "ProvisionedThroughputExceededException"), |e| matches!(e, ItemError::Throttled(_))),
        (json(400, "ThrottlingException"), |e| matches!(e, ItemError::Throttled(_))),
        (json(400, "TransactionConflictException"), |e| matches!(e, ItemError::Throttled(_))),
        (json(400, "ResourceNotFoundException"), |e| matches!(e, ItemError::Denied(_))),
        (json(400, "AccessDeniedException"), |e| matches!(e, ItemError::Denied(_))),
        (json(400, "ValidationException"), |e| matches!(e, ItemError::Invalid(_))),
        (json(500, "InternalServerError"), |e| matches!(e, ItemError::Unknown(_))),
        (json(503, "ServiceUnavailable"), |e| matches!(e, ItemError::Unknown(_))),
        (json(400, "ConditionalCheckFailedException"), |e| {
            matches!(e, ItemError::ConditionFailed { current: None, .. })
        }),
        (Answer::Cut, |e| matches!(e, ItemError::Unknown(_))),
        (Answer::Hang, |e| matches!(e, ItemError::Unknown(_))),
    ];
    for (answer, want) in cases {
        let wire = Wire::start(vec![answer.clone()]).await;
        let items = DynamoItems::new(clients(&wire.url).await.dynamodb, "items");
        let error = items.put(&Item::new("p", "s", 2), ItemCondition::RevIs(1)).await.unwrap_err();
        assert!(want(&error), "{answer:?} gave {error:?}");
        assert_eq!(wire.requests().len(), 1, "{answer:?}");
    }
}

#[tokio::test]
async fn a_failed_item_condition_carries_the_old_item_and_a_get_is_consistent() {
    let body = r#"{"__type":"x#ConditionalCheckFailedException","message":"m",
        "Item":{"p":{"S":"p"},"s":{"S":"s"},"rev":{"N":"9"},"x":{"B":"AAE="}}}"#;
    let wire = Wire::start(vec![json_body(400, body), json_body(200, "{}")]).await;
    let items = DynamoItems::new(clients(&wire.url).await.dynamodb, "items");
    match items.put(&Item::new("p", "s", 2), ItemCondition::RevIs(1)).await {
        Err(ItemError::ConditionFailed { current: Some(item), .. }) => {
            assert_eq!((item.rev, item.size() > 0), (9, true))
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(items.get("p", "s").await.unwrap(), None);
    let requests = wire.requests();
    assert!(requests[0].contains("\"ReturnValuesOnConditionCheckFailure\":\"ALL_OLD\""), "{}", requests[0]);
    assert!(requests[1].contains("\"ConsistentRead\":true"), "{}", requests[1]);
}

#[tokio::test]
async fn an_item_of_a_foreign_shape_is_refused_naming_the_attribute() {
    let wire = Wire::start(vec![json_body(200, r#"{"Item":{"p":{"S":"p"},"s":{"S":"s"},"odd":{"SS":["a"]}}}"#)]).await;
    let items = DynamoItems::new(clients(&wire.url).await.dynamodb, "items");
    let error = items.get("p", "s").await.unwrap_err();
    assert!(matches!(error, ItemError::Invalid(_)) && error.to_string().contains("odd"), "{error}");
}

#[tokio::test]
async fn partial_failures_of_put_records_are_reported_per_record() {
    let body = r#"{"FailedRecordCount":1,"Records":[
        {"SequenceNumber":"49","ShardId":"shardId-000000000000"},
        {"ErrorCode":"ProvisionedThroughputExceededException","ErrorMessage":"slow"}]}"#;
    let record = PutRecord { data: MINE, partition_key: "k".to_owned(), explicit_hash_key: Some(u128::MAX) };
    let wire = Wire::start(vec![json_body(200, body)]).await;
    let streams = KinesisStream::new(clients(&wire.url).await.kinesis);
    let results = streams.put_records("s", &[record.clone(), record.clone()]).await.unwrap();
    assert_eq!(results[0].as_ref().unwrap().sequence, "49");
    assert_eq!(results[1].as_ref().unwrap_err().code, "ProvisionedThroughputExceededException");
    assert!(wire.requests()[0].contains("340282366920938463463374607431768211455"));

    // Fewer answers than records: what happened to the rest is not known.
    let error = streams.put_records("s", &[record.clone(), record.clone(), record]).await.unwrap_err();
    assert_eq!(error.kind(), StreamErrorKind::Unknown);
}

#[tokio::test]
async fn stream_errors_have_their_kinds() {
    use StreamErrorKind as K;
    for (answer, want) in [
        (json(400, "ExpiredIteratorException"), K::ExpiredIterator),
        (json(400, "ProvisionedThroughputExceededException"), K::Throttled),
        (json(400, "ResourceNotFoundException"), K::NotFound),
        (json(400, "AccessDeniedException"), K::Denied),
        (json(400, "InvalidArgumentException"), K::Invalid),
        (json(500, "InternalFailure"), K::Unknown),
        (Answer::Cut, K::Unknown),
    ] {
        let wire = Wire::start(vec![answer.clone()]).await;
        let streams = KinesisStream::new(clients(&wire.url).await.kinesis);
        let iterator = siltstone_store::ShardIterator("i".to_owned());
        let error = streams.get_records("s", &iterator, 10).await.unwrap_err();
        assert_eq!(error.kind(), want, "{answer:?}");
    }
}

#[tokio::test]
async fn mapping_settings_are_read_page_by_page_and_only_for_kinesis() {
    let first = r#"{"NextMarker":"m","EventSourceMappings":[
        {"UUID":"b","EventSourceArn":"arn:aws:kinesis:eu-west-1:1:stream/s","State":"Enabled","ParallelizationFactor":2,
         "MaximumRetryAttempts":-1,"MaximumRecordAgeInSeconds":-1,"BatchSize":500,"StartingPosition":"TRIM_HORIZON",
         "FilterCriteria":{"Filters":[{"Pattern":"{}"}]},"BisectBatchOnFunctionError":true,
         "DestinationConfig":{"OnFailure":{"Destination":"arn:aws:sqs:x"}},
         "FunctionResponseTypes":["ReportBatchItemFailures"]},
        {"UUID":"q","EventSourceArn":"arn:aws:sqs:eu-west-1:1:q"}]}"#;
    let second = r#"{"EventSourceMappings":[{"UUID":"a","EventSourceArn":"arn:aws:kinesis:eu-west-1:1:stream/t"}]}"#;
    let wire = Wire::start(vec![json_body(200, first), json_body(200, second)]).await;
    let mappings = LambdaMappings::new(clients(&wire.url).await.lambda).kinesis_mappings("ingest").await.unwrap();
    assert_eq!(mappings.iter().map(|m| m.uuid.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((mappings[0].parallelization_factor, mappings[0].bisect_on_error), (None, None));
    let b = &mappings[1];
    assert_eq!((b.parallelization_factor, b.maximum_retry_attempts, b.filters), (Some(2), Some(-1), 1));
    assert_eq!((b.starting_position, b.batch_size), (Some(StartingPosition::TrimHorizon), Some(500)));
    assert_eq!((b.on_failure_destination.as_deref(), b.reports_batch_item_failures), (Some("arn:aws:sqs:x"), true));
    assert!(wire.requests()[1].contains("Marker=m"), "{}", wire.requests()[1]);

    let denied = Answer::Http(403, "x-amzn-errortype: AccessDeniedException\r\n", "{\"Message\":\"no\"}".to_owned());
    let wire = Wire::start(vec![denied]).await;
    let error = LambdaMappings::new(clients(&wire.url).await.lambda).kinesis_mappings("ingest").await.unwrap_err();
    assert!(matches!(error, MappingError::Denied { .. }), "{error}");
}
