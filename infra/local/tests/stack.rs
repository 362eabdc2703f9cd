//! What the contracts do not cover: restarts, gates, events, conditions on reads, and Kinesis' finer points.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{path::Path, sync::Arc, time::Duration};

use aws_sdk_kinesis::{
    primitives::{Blob, DateTime},
    types::{PutRecordsRequestEntry, ScalingType, ShardFilter, ShardFilterType, ShardIteratorType},
};
use aws_sdk_s3::{
    error::ProvideErrorMetadata,
    primitives::ByteStream,
    types::{ChecksumAlgorithm, ChecksumMode, CompletedMultipartUpload, CompletedPart},
};
use siltstone_aws::{Clients, DynamoItems, Endpoints, Timeouts, create_items_table};
use siltstone_local::{GateDecision, Stack, StackConfig, StackErrorKind};
use siltstone_store::{Item, ItemCondition, ItemStore, SystemClock};

async fn clients(stack: &Stack) -> Clients {
    let at = stack.endpoints();
    let endpoints = Endpoints { s3: Some(at.s3), dynamodb: Some(at.dynamodb), kinesis: Some(at.kinesis), lambda: None };
    Clients::at(&endpoints, Timeouts::default()).await
}

async fn start(dir: Option<&Path>) -> (Stack, Clients) {
    let stack = Stack::start(StackConfig { dir: dir.map(Path::to_owned), port: 0 }).await.unwrap();
    let clients = clients(&stack).await;
    (stack, clients)
}

fn body(text: &str) -> ByteStream {
    ByteStream::from(text.as_bytes().to_vec())
}

async fn get(clients: &Clients, key: &str) -> Vec<u8> {
    let answer = clients.s3.get_object().bucket("bucket1").key(key).send().await.unwrap();
    answer.body.collect().await.unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_services_return_after_a_drop_without_shutdown_at_the_same_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let (stack, clients) = start(Some(dir.path())).await;
    let before = stack.endpoints();
    stack.s3().create_bucket("bucket1").unwrap();
    for n in 0..3 {
        let put = clients.s3.put_object().bucket("bucket1").key("a").metadata("n", n.to_string());
        put.body(body(&format!("body {n}"))).send().await.unwrap();
    }
    let upload = clients.s3.create_multipart_upload().bucket("bucket1").key("big").send().await.unwrap();
    let id = upload.upload_id.unwrap();
    let part = clients.s3.upload_part().bucket("bucket1").key("big").upload_id(&id).part_number(1);
    let part = part.body(body("part")).send().await.unwrap();
    create_items_table(&clients.dynamodb, "items", &SystemClock).await.unwrap();
    let item = Item::new("p", "s", 1);
    DynamoItems::new(clients.dynamodb.clone(), "items").put(&item, ItemCondition::Absent).await.unwrap();
    stack.kinesis().create_stream("events", 2).unwrap();
    let put = clients.kinesis.put_record().stream_name("events").partition_key("k").data(Blob::new("one"));
    let first = put.send().await.unwrap();
    drop(stack);

    let stack = Stack::start(StackConfig { dir: Some(dir.path().to_owned()), port: 0 }).await.unwrap();
    assert_eq!(stack.endpoints(), before);
    let clients = self::clients(&stack).await;
    assert_eq!(get(&clients, "a").await, b"body 2");
    let head = clients.s3.head_object().bucket("bucket1").key("a").send().await.unwrap();
    assert_eq!(head.metadata().unwrap()["n"], "2");
    let parts = CompletedPart::builder().part_number(1).e_tag(part.e_tag.unwrap()).build();
    let parts = CompletedMultipartUpload::builder().parts(parts).build();
    let complete = clients.s3.complete_multipart_upload().bucket("bucket1").key("big").upload_id(&id);
    complete.multipart_upload(parts).send().await.unwrap();
    assert_eq!(get(&clients, "big").await, b"part");
    let items = DynamoItems::new(clients.dynamodb.clone(), "items");
    assert_eq!(items.get("p", "s").await.unwrap(), Some(item));
    let read = stack.kinesis().read("events", first.shard_id(), None, 10, 1 << 20);
    assert_eq!((read.records.len(), &*read.records[0].data, read.end_of_shard), (1, b"one".as_slice(), false));
    assert_eq!(read.records[0].sequence, first.sequence_number());
    let put = clients.kinesis.put_record().stream_name("events").partition_key("k").data(Blob::new("two"));
    let second = put.send().await.unwrap();
    assert!(second.sequence_number() > first.sequence_number());
    stack.shutdown().await;
    let files = |dir: &Path| std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
    let bodies: usize = files(&dir.path().join("s3/bodies")).iter().map(|shelf| files(shelf).len()).sum();
    assert_eq!(bodies, 2, "bodies of overwritten objects and finished uploads are gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_stack_gets_neither_the_directory_nor_the_ports() {
    let dir = tempfile::tempdir().unwrap();
    let (stack, _) = start(Some(dir.path())).await;
    let again = Stack::start(StackConfig { dir: Some(dir.path().to_owned()), port: 0 }).await.unwrap_err();
    assert_eq!(again.kind(), StackErrorKind::Locked, "{again}");
    let url = stack.endpoints().s3;
    let port = url.rsplit(':').next().unwrap().parse().unwrap();
    let taken = Stack::start(StackConfig { dir: None, port }).await.unwrap_err();
    assert_eq!(taken.kind(), StackErrorKind::Port);
    assert!(taken.to_string().contains(&port.to_string()), "{taken}");
    assert!(stack.exports().contains(&format!("export AWS_ENDPOINT_URL_S3={url}\n")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_denies_or_hangs_before_the_effect_and_can_be_removed() {
    let (stack, clients) = start(None).await;
    stack.s3().create_bucket("bucket1").unwrap();
    let gate = |method: &str, bucket: &str, key: &str| match (method, bucket, key) {
        ("PUT", "bucket1", "denied") => GateDecision::Deny(503),
        ("PUT", "bucket1", "hangs") => GateDecision::Hang,
        ("DELETE", "bucket1", "kept") => GateDecision::Deny(403),
        _ => GateDecision::Pass,
    };
    stack.s3().set_gate(Some(Arc::new(gate)));
    let put = |key: &str| clients.s3.put_object().bucket("bucket1").key(key).body(body("x")).send();
    let denied = put("denied").await.unwrap_err();
    assert_eq!(denied.raw_response().unwrap().status().as_u16(), 503);
    assert!(tokio::time::timeout(Duration::from_millis(200), put("hangs")).await.is_err());
    put("kept").await.unwrap();
    put("free").await.unwrap();
    let ids = ["kept", "free"].map(|k| aws_sdk_s3::types::ObjectIdentifier::builder().key(k).build().unwrap());
    let delete = aws_sdk_s3::types::Delete::builder().set_objects(Some(ids.into())).build().unwrap();
    let deleted = clients.s3.delete_objects().bucket("bucket1").delete(delete).send().await.unwrap();
    assert_eq!(deleted.errors()[0].key(), Some("kept"));
    stack.s3().set_gate(None);
    let listed = clients.s3.list_objects_v2().bucket("bucket1").send().await.unwrap();
    let keys: Vec<_> = listed.contents().iter().map(|o| o.key().unwrap()).collect();
    assert_eq!(keys, ["kept"]);
    put("denied").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_object_that_comes_to_be_is_announced_once_and_failed_writes_are_not() {
    let (stack, clients) = start(None).await;
    let mut events = stack.take_events().unwrap();
    assert!(stack.take_events().is_none());
    stack.s3().create_bucket("bucket1").unwrap();
    clients.s3.put_object().bucket("bucket1").key("a b+ü").body(body("abc")).send().await.unwrap();
    let lost = clients.s3.put_object().bucket("bucket1").key("a b+ü").if_none_match("*").body(body("abc"));
    assert_eq!(lost.send().await.unwrap_err().code(), Some("PreconditionFailed"));
    let copy = clients.s3.copy_object().bucket("bucket1").key("copy").copy_source("bucket1/a%20b%2B%C3%BC");
    copy.send().await.unwrap();
    let first = events.try_recv().unwrap();
    assert_eq!((first.bucket.as_str(), first.key.as_str(), first.size), ("bucket1", "a b+ü", 3));
    assert_eq!(first.etag, "900150983cd24fb0d6963f7d28e17f72", "the MD5 of abc");
    let second = events.try_recv().unwrap();
    assert_eq!((second.key.as_str(), &second.etag), ("copy", &first.etag));
    assert!(second.sequencer > first.sequencer);
    assert!(events.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn checksums_are_kept_and_wrong_ones_store_nothing() {
    let (stack, clients) = start(None).await;
    stack.s3().create_bucket("bucket1").unwrap();
    use ChecksumAlgorithm as A;
    for algorithm in [A::Crc32, A::Crc32C, A::Crc64Nvme, A::Sha1, A::Sha256] {
        let put = clients.s3.put_object().bucket("bucket1").key("sum").checksum_algorithm(algorithm);
        put.body(body("abc")).send().await.unwrap();
        let get = clients.s3.get_object().bucket("bucket1").key("sum").checksum_mode(ChecksumMode::Enabled);
        assert_eq!(&get.send().await.unwrap().body.collect().await.unwrap().to_vec(), b"abc");
    }
    let head = clients.s3.head_object().bucket("bucket1").key("sum").checksum_mode(ChecksumMode::Enabled);
    let sha256 = head.send().await.unwrap().checksum_sha256.unwrap();
    assert_eq!(sha256, "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
    let wrong = clients.s3.put_object().bucket("bucket1").key("wrong").checksum_crc32("AAAAAA==").body(body("abc"));
    assert_eq!(wrong.send().await.unwrap_err().raw_response().unwrap().status().as_u16(), 400);
    let missing = clients.s3.head_object().bucket("bucket1").key("wrong").send().await.unwrap_err();
    assert!(missing.into_service_error().is_not_found());
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_and_old_listings_and_conditional_reads_answer_as_s3_does() {
    let (_stack, clients) = start(None).await;
    let s3 = &clients.s3;
    s3.create_bucket().bucket("bucket1").send().await.unwrap();
    s3.create_bucket().bucket("bucket1").send().await.unwrap();
    s3.head_bucket().bucket("bucket1").send().await.unwrap();
    assert!(s3.head_bucket().bucket("missing").send().await.unwrap_err().into_service_error().is_not_found());
    assert_eq!(s3.list_buckets().send().await.unwrap().buckets().len(), 1);
    s3.get_bucket_location().bucket("bucket1").send().await.unwrap();
    for key in ["a/1", "a/2", "b"] {
        s3.put_object().bucket("bucket1").key(key).body(body(key)).send().await.unwrap();
    }
    let page = s3.list_objects().bucket("bucket1").delimiter("/").max_keys(1).send().await.unwrap();
    assert_eq!((page.is_truncated, page.common_prefixes().len()), (Some(true), 1));
    let rest = s3.list_objects().bucket("bucket1").delimiter("/").marker(page.next_marker.unwrap());
    let rest = rest.send().await.unwrap();
    assert_eq!((rest.contents().len(), rest.contents()[0].key()), (1, Some("b")));
    let suffix = s3.get_object().bucket("bucket1").key("a/1").range("bytes=-2").send().await.unwrap();
    assert_eq!(suffix.content_range(), Some("bytes 1-2/3"));
    let tag = suffix.e_tag.unwrap();
    let same = s3.get_object().bucket("bucket1").key("a/1").if_none_match(&tag).send().await.unwrap_err();
    assert_eq!(same.raw_response().unwrap().status().as_u16(), 304);
    let full = s3.delete_bucket().bucket("bucket1").send().await.unwrap_err();
    assert_eq!(full.code(), Some("BucketNotEmpty"));
    for key in ["a/1", "a/2", "b"] {
        s3.delete_object().bucket("bucket1").key(key).send().await.unwrap();
    }
    s3.delete_bucket().bucket("bucket1").send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_body_is_read_back_from_its_file_in_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let (stack, clients) = start(Some(dir.path())).await;
    stack.s3().create_bucket("bucket1").unwrap();
    let long: Vec<u8> = (0..9_000_001_u32).map(|n| (n / 251) as u8).collect();
    let put = clients.s3.put_object().bucket("bucket1").key("long").body(ByteStream::from(long.clone()));
    put.send().await.unwrap();
    assert!(get(&clients, "long").await == long);
}

#[tokio::test(flavor = "multi_thread")]
async fn kinesis_tells_the_children_of_a_closed_shard_and_how_far_behind_a_reader_is() {
    let (stack, clients) = start(None).await;
    let kinesis = &clients.kinesis;
    kinesis.create_stream().stream_name("s").shard_count(1).send().await.unwrap();
    let mut changes = stack.kinesis().changes();
    let data = |n: u32| PutRecordsRequestEntry::builder().data(Blob::new(n.to_string())).partition_key("k").build();
    let put = kinesis.put_records().stream_name("s").set_records(Some((0..3).map(|n| data(n).unwrap()).collect()));
    put.send().await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), changes.changed()).await.unwrap().unwrap();
    let shard = stack.kinesis().shards("s").remove(0);
    kinesis
        .update_shard_count()
        .stream_name("s")
        .target_shard_count(2)
        .scaling_type(ScalingType::UniformScaling)
        .send()
        .await
        .unwrap();

    let iterator = kinesis.get_shard_iterator().stream_name("s").shard_id(&shard.id);
    let at = iterator.shard_iterator_type(ShardIteratorType::AtTimestamp).timestamp(DateTime::from_secs(0));
    let start = at.send().await.unwrap().shard_iterator.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let first = kinesis.get_records().shard_iterator(start).limit(2).send().await.unwrap();
    assert_eq!(first.records().len(), 2);
    assert!(first.millis_behind_latest().unwrap() > 0);
    let next = first.next_shard_iterator.unwrap();
    let last = kinesis.get_records().shard_iterator(next).send().await.unwrap();
    assert_eq!((last.records().len(), last.next_shard_iterator(), last.millis_behind_latest()), (1, None, Some(0)));
    assert_eq!(last.child_shards().len(), 2);
    assert_eq!(last.child_shards()[0].parent_shards(), std::slice::from_ref(&shard.id));

    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
    let filter = ShardFilter::builder().r#type(ShardFilterType::AtLatest).build().unwrap();
    let open = kinesis.list_shards().stream_arn(arn).shard_filter(filter).send().await.unwrap();
    assert_eq!(open.shards().len(), 2);
    let page = kinesis.list_shards().stream_name("s").max_results(2).send().await.unwrap();
    let rest = kinesis.list_shards().next_token(page.next_token.unwrap()).send().await.unwrap();
    assert_eq!((rest.shards().len(), rest.next_token()), (1, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_handle_reads_in_batches_to_the_end_of_a_closed_shard() {
    let (stack, clients) = start(None).await;
    let kinesis = stack.kinesis();
    kinesis.create_stream("s", 1).unwrap();
    for n in 0..5 {
        let put = clients.kinesis.put_record().stream_name("s").partition_key("k");
        put.data(Blob::new(n.to_string())).send().await.unwrap();
    }
    let id = kinesis.shards("s").remove(0).id;
    let first = kinesis.read("s", &id, None, 3, 1 << 20);
    assert_eq!((first.records.len(), first.end_of_shard), (3, false));
    let middle = (1_u128 << 127).to_string();
    clients
        .kinesis
        .split_shard()
        .stream_name("s")
        .shard_to_split(&id)
        .new_starting_hash_key(middle)
        .send()
        .await
        .unwrap();
    let after = first.records[2].sequence.clone();
    let small = kinesis.read("s", &id, Some(&after), 10, 1);
    assert_eq!((small.records.len(), small.end_of_shard), (1, false), "one record whatever its size");
    let rest = kinesis.read("s", &id, Some(&after), 10, 1 << 20);
    assert_eq!((rest.records.len(), rest.end_of_shard), (2, true));
    let shards = kinesis.shards("s");
    assert!(shards[0].closed && shards[1].parents == [id]);
}
