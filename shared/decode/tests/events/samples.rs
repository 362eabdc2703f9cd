//! What the sample events contain. Times and numbers are fixed: the files are the same on every run.
//!
//! Shapes: Lambda's Kinesis event, S3's `ObjectCreated:Put`, an EventBridge schedule, as AWS delivers them.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Value as Json, json};
use siltstone_decode::aggregate::aggregate;

/// Arrival of the first record: 2025-06-02T08:00:00Z.
pub(crate) const ARRIVAL_MS: i64 = 1_748_851_200_000;
const STREAM_ARN: &str = "arn:aws:kinesis:us-east-1:123456789012:stream/orders";
/// 2025-06-01 as days since 1970.
const DAY: i64 = 20_240;

/// A record of a stream: place in its shard, partition key, bytes.
type Record = (u64, &'static str, Vec<u8>);

/// All files of `events/` with their contents.
pub(crate) fn all() -> Vec<(&'static str, Json)> {
    vec![
        ("ingest-normal.json", event(0, normal())),
        ("ingest-empty.json", json!({"Records": []})),
        ("ingest-duplicate.json", event(0, duplicate())),
        ("ingest-poison.json", event(0, poison())),
        ("ingest-kpl.json", event(0, kpl())),
        // The shard was split: its children deliver what was written after. Order 1 goes on in the child that has its hash.
        ("ingest-after-split.json", event(1, after_split())),
        ("compact-task.json", compact_task()),
        ("maintain-schedule.json", schedule()),
    ]
}

fn event(shard: u32, records: Vec<Record>) -> Json {
    let records: Vec<Json> = records.into_iter().map(|(place, key, data)| record(shard, place, key, &data)).collect();
    json!({"Records": records})
}

fn record(shard: u32, place: u64, key: &str, data: &[u8]) -> Json {
    // 56 digits, as Kinesis gives; a child shard's numbers lie above its parents'.
    let sequence = format!("4966{shard:02}8527133584930210473625102896450139{place:016}");
    json!({
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": key,
            "sequenceNumber": sequence,
            "data": STANDARD.encode(data),
            "approximateArrivalTimestamp": seconds(ARRIVAL_MS + i64::from(shard) * 600_000 + i64::try_from(place).unwrap() * 10),
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": format!("shardId-{shard:012}:{sequence}"),
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::123456789012:role/siltstone-ingest",
        "awsRegion": "us-east-1",
        "eventSourceARN": STREAM_ARN,
    })
}

/// Kinesis writes arrival times as seconds with a fraction.
fn seconds(ms: i64) -> Json {
    serde_json::from_str(&format!("{}.{:03}", ms / 1000, ms % 1000)).unwrap()
}

/// An order as Debezium writes it with `decimal.handling.mode` = string.
fn order(id: i64, status: &str, amount: &str, minute: i64) -> Json {
    json!({
        "order_id": id,
        "customer": format!("Customer#{:09}", id * 7 % 1000),
        "status": status,
        "amount": amount,
        "ordered": DAY,
        "updated_at": (DAY + 1) * 86_400_000 + minute * 60_000,
    })
}

fn change(op: &str, before: Json, after: Json) -> Vec<u8> {
    let source = json!({"version": "3.1.1.Final", "connector": "postgresql", "name": "shop", "ts_ms": ARRIVAL_MS - 900,
        "snapshot": if op == "r" { "true" } else { "false" }, "db": "shop", "schema": "public", "table": "orders", "lsn": 24_023_128});
    json!({"before": before, "after": after, "source": source, "transaction": null, "op": op, "ts_ms": ARRIVAL_MS - 400})
        .to_string()
        .into_bytes()
}

fn create(id: i64) -> Vec<u8> {
    change("c", Json::Null, order(id, "O", "120.50", 1))
}

/// As `change`, with the schema envelope (`schemas.enable` = true) and precise decimals.
fn enveloped(id: i64) -> Vec<u8> {
    let field = |name: &str, kind: &str| json!({"type": kind, "optional": true, "field": name});
    let named = |name: &str, kind: &str, semantic: &str| json!({"type": kind, "optional": true, "name": semantic, "version": 1, "field": name});
    let mut amount = named("amount", "bytes", "org.apache.kafka.connect.data.Decimal");
    amount["parameters"] = json!({"scale": "2", "connect.decimal.precision": "12"});
    let fields = json!([
        field("order_id", "int64"),
        field("customer", "string"),
        field("status", "string"),
        amount,
        named("ordered", "int32", "io.debezium.time.Date"),
        named("updated_at", "int64", "io.debezium.time.MicroTimestamp"),
    ]);
    let row = |name: &str| json!({"type": "struct", "fields": fields, "optional": true, "name": "shop.public.orders.Value", "field": name});
    let mut after = order(id, "O", "", 2);
    after["amount"] = json!("LxI="); // 12050
    after["updated_at"] = json!(((DAY + 1) * 86_400_000 + 120_000) * 1000);
    json!({
        "schema": {"type": "struct", "fields": [row("before"), row("after"), field("op", "string"), field("ts_ms", "int64")],
            "optional": false, "name": "shop.public.orders.Envelope", "version": 2},
        "payload": {"before": null, "after": after, "op": "c", "ts_ms": ARRIVAL_MS - 400},
    })
    .to_string()
    .into_bytes()
}

fn normal() -> Vec<Record> {
    vec![
        (1, "1", change("r", Json::Null, order(1, "O", "99.95", 0))),
        (2, "2", create(2)),
        (3, "3", create(3)),
        (4, "4", create(4)),
        (5, "1", change("u", order(1, "O", "99.95", 0), order(1, "F", "99.95", 5))),
        (6, "3", change("d", order(3, "O", "120.50", 1), Json::Null)),
        (7, "heartbeat", br#"{"ts_ms":1748851199700}"#.to_vec()),
        (8, "5", enveloped(5)),
    ]
}

/// The records of `ingest-normal.json` once more, followed by two new ones: what a redelivery that grew looks like.
fn duplicate() -> Vec<Record> {
    let mut records = normal();
    records.push((9, "2", change("u", order(2, "O", "120.50", 1), order(2, "F", "120.50", 9))));
    records.push((10, "6", create(6)));
    records
}

fn poison() -> Vec<Record> {
    let bad = |after: Json| change("c", Json::Null, after);
    let mut wrong_type = order(50, "O", "1.00", 0);
    wrong_type["ordered"] = json!("yesterday");
    let mut no_key = order(51, "O", "1.00", 0);
    no_key.as_object_mut().unwrap().shift_remove("order_id");
    let mut too_large = order(52, "O", "1.00", 0);
    too_large["order_id"] = serde_json::from_str("9223372036854775808").unwrap();
    let deep = [vec![b'['; 10_000], vec![b']'; 10_000]].concat();
    let mut left_out = order(53, "O", "1.00", 0);
    left_out["customer"] = json!("__debezium_unavailable_value");
    let mut damaged = aggregate(&[("54".to_owned(), Bytes::from(create(54)))]).to_vec();
    damaged[20] ^= 0xff;
    vec![
        (101, "30", create(30)),
        (102, "x", vec![0xff, 0xfe, 0x00, 0x80]),
        (103, "x", br#"{"op":"c","after":{"order_id":1,"#.to_vec()),
        (104, "50", bad(wrong_type)),
        (105, "51", bad(no_key)),
        (106, "52", bad(too_large)),
        (107, "55", bad(order(55, "O", "12345678901.00", 0))),
        (108, "x", deep),
        (109, "53", change("u", Json::Null, left_out)),
        (110, "x", vec![0x1f, 0x8b, 0x08, 0x00, 0x01]),
        (111, "54", damaged),
        (112, "31", create(31)),
    ]
}

fn kpl() -> Vec<Record> {
    let packed = aggregate(&[
        ("10".to_owned(), create(10).into()),
        ("11".to_owned(), create(11).into()),
        ("11".to_owned(), change("u", order(11, "O", "120.50", 1), order(11, "F", "120.50", 3)).into()),
    ]);
    vec![(201, "a", packed.to_vec()), (202, "12", create(12))]
}

fn after_split() -> Vec<Record> {
    vec![(1, "1", change("u", order(1, "F", "99.95", 5), order(1, "P", "99.95", 15))), (2, "20", create(20))]
}

fn compact_task() -> Json {
    json!({"Records": [{
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventTime": "2025-06-02T08:10:00.123Z",
        "eventName": "ObjectCreated:Put",
        "userIdentity": {"principalId": "AWS:AROAEXAMPLE:siltstone-ingest"},
        "requestParameters": {"sourceIPAddress": "10.0.0.1"},
        "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810", "x-amz-id-2": "EXAMPLE"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "siltstone-tasks",
            "bucket": {"name": "lake", "ownerIdentity": {"principalId": "A3EXAMPLE"}, "arn": "arn:aws:s3:::lake"},
            "object": {
                "key": "_siltstone/tasks/demo.db/orders/bucket-0/00000000000000000005-0.json",
                "size": 118,
                "eTag": "d41d8cd98f00b204e9800998ecf8427e",
                "sequencer": "00683D5AA81E2F5B10",
            },
        },
    }]})
}

fn schedule() -> Json {
    json!({
        "version": "0",
        "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa",
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "123456789012",
        "time": "2025-06-02T08:15:00Z",
        "region": "us-east-1",
        "resources": ["arn:aws:events:us-east-1:123456789012:rule/siltstone-maintain"],
        "detail": {},
    })
}
