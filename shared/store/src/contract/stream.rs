//! What every version of the stream ports must do. Neighbours: `stream` (the ports and their promises).

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::stream::{
    PutRecord, Shard, ShardStart, StreamAdmin, StreamErrorKind, StreamReader, StreamRecord, StreamState, StreamWriter,
};

/// All three ports in one.
pub trait Streams: StreamWriter + StreamAdmin + StreamReader {}
impl<T: StreamWriter + StreamAdmin + StreamReader + fmt::Debug> Streams for T {}

/// Runs every check.
pub async fn run(streams: Arc<dyn Streams>) {
    records_are_read_back_in_order_with_ascending_sequences(&*streams).await;
    hash_keys_choose_the_shard(&*streams).await;
    every_start_begins_where_it_says(&*streams).await;
    split_and_merge_keep_the_hash_space_covered(&*streams).await;
    wrong_stream_requests_are_named(&*streams).await;
}

fn record(partition_key: &str, data: &str, explicit_hash_key: Option<u128>) -> PutRecord {
    PutRecord {
        data: Bytes::copy_from_slice(data.as_bytes()),
        partition_key: partition_key.to_owned(),
        explicit_hash_key,
    }
}

async fn create(streams: &dyn Streams, name: &str, shards: u32) -> Vec<Shard> {
    streams.create(name, shards).await.unwrap();
    wait_active(streams, name).await;
    streams.list_shards(name).await.unwrap()
}

async fn wait_active(streams: &dyn Streams, name: &str) {
    for _ in 0..500 {
        if streams.describe(name).await.unwrap().state == StreamState::Active {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("stream {name} did not become active");
}

async fn read_all(streams: &dyn Streams, name: &str, shard: &str, start: ShardStart) -> Vec<StreamRecord> {
    let mut all = Vec::new();
    let mut next = Some(streams.iterator(name, shard, start).await.unwrap());
    let mut empty = 0;
    while let Some(iterator) = next {
        let answer = streams.get_records(name, &iterator, 3).await.unwrap();
        empty = if answer.records.is_empty() { empty + 1 } else { 0 };
        all.extend(answer.records);
        next = answer.next.filter(|_| empty < 2);
    }
    all
}

/// Sequence numbers compare as integers, whatever their length.
fn ascends(a: &str, b: &str) -> bool {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    (a.len(), a) < (b.len(), b)
}

/// What goes into a shard comes out once, in order, whole.
pub async fn records_are_read_back_in_order_with_ascending_sequences(streams: &dyn Streams) {
    let name = "contract-order";
    let shard = create(streams, name, 1).await.remove(0);
    let batch: Vec<_> = (0..7).map(|n| record("k", &format!("record {n}"), None)).collect();
    let puts = streams.put_records(name, &batch).await.unwrap();
    let sequences: Vec<String> = puts.into_iter().map(|p| p.unwrap().sequence).collect();
    assert!(sequences.windows(2).all(|w| ascends(&w[0], &w[1])), "{sequences:?}");
    let read = read_all(streams, name, &shard.id, ShardStart::TrimHorizon).await;
    assert_eq!(
        read.iter().map(|r| r.data.clone()).collect::<Vec<_>>(),
        batch.iter().map(|r| r.data.clone()).collect::<Vec<_>>()
    );
    assert_eq!(read.iter().map(|r| r.sequence.clone()).collect::<Vec<_>>(), sequences);
    assert!(read.iter().all(|r| r.partition_key == "k" && r.arrival_ms > 0));
}

/// An explicit hash key goes to the shard whose range holds it; a partition key to its MD5's.
pub async fn hash_keys_choose_the_shard(streams: &dyn Streams) {
    let name = "contract-hash";
    let shards = create(streams, name, 4).await;
    assert_eq!((shards.len(), shards[0].hash_start, shards[3].hash_end), (4, 0, u128::MAX));
    assert!(shards.windows(2).all(|w| w[0].hash_end + 1 == w[1].hash_start));
    for shard in &shards {
        for hash in [shard.hash_start, shard.hash_end] {
            let puts = streams.put_records(name, &[record("same", "x", Some(hash))]).await.unwrap();
            assert_eq!(puts[0].as_ref().unwrap().shard, shard.id, "hash {hash}");
        }
    }
    // MD5("a") = 0cc1.., MD5("b") = 92eb..
    for (key, shard) in [("a", &shards[0]), ("b", &shards[2])] {
        let puts = streams.put_records(name, &[record(key, "x", None)]).await.unwrap();
        assert_eq!(puts[0].as_ref().unwrap().shard, shard.id, "key {key}");
    }
}

/// `AtSequence`, `AfterSequence`, `Latest` and `AtTimestamp`.
pub async fn every_start_begins_where_it_says(streams: &dyn Streams) {
    let name = "contract-start";
    let shard = create(streams, name, 1).await.remove(0);
    let mut sequences = Vec::new();
    for n in 0..3 {
        let put = streams.put_records(name, &[record("k", &n.to_string(), None)]).await.unwrap().remove(0).unwrap();
        sequences.push(put.sequence);
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let first = |records: Vec<StreamRecord>| records.first().map(|r| r.data.clone());
    let all = read_all(streams, name, &shard.id, ShardStart::TrimHorizon).await;
    let at = read_all(streams, name, &shard.id, ShardStart::AtSequence(sequences[1].clone())).await;
    assert_eq!(first(at), Some(Bytes::from_static(b"1")));
    let after = read_all(streams, name, &shard.id, ShardStart::AfterSequence(sequences[1].clone())).await;
    assert_eq!(first(after), Some(Bytes::from_static(b"2")));
    let time = read_all(streams, name, &shard.id, ShardStart::AtTimestamp(all[1].arrival_ms)).await;
    assert_eq!(first(time), Some(Bytes::from_static(b"1")));
    let latest = streams.iterator(name, &shard.id, ShardStart::Latest).await.unwrap();
    streams.put_records(name, &[record("k", "new", None)]).await.unwrap().remove(0).unwrap();
    let answer = streams.get_records(name, &latest, 10).await.unwrap();
    assert_eq!(first(answer.records), Some(Bytes::from_static(b"new")));
}

/// Parents close and end, children name them and cover their range, and new records go to the children.
pub async fn split_and_merge_keep_the_hash_space_covered(streams: &dyn Streams) {
    let name = "contract-split";
    let root = create(streams, name, 1).await.remove(0);
    streams.put_records(name, &[record("k", "before", None)]).await.unwrap().remove(0).unwrap();
    let half = 1_u128 << 127;
    streams.split(name, &root.id, half).await.unwrap();
    wait_active(streams, name).await;
    let shards = streams.list_shards(name).await.unwrap();
    assert_eq!(shards.len(), 3);
    assert!(shards[0].is_closed() && !shards[1].is_closed() && !shards[2].is_closed());
    assert_eq!((shards[1].hash_start, shards[1].hash_end), (0, half - 1));
    assert_eq!((shards[2].hash_start, shards[2].hash_end), (half, u128::MAX));
    assert!(shards[1..].iter().all(|s| s.parent.as_deref() == Some(&root.id)));
    let last = shards[0].last_sequence.clone().unwrap();
    assert_eq!(read_all(streams, name, &root.id, ShardStart::TrimHorizon).await.len(), 1);
    assert_ends(streams, name, &root.id).await;
    let put = streams.put_records(name, &[record("k", "up", Some(half))]).await.unwrap().remove(0).unwrap();
    assert_eq!(put.shard, shards[2].id);
    assert!(ascends(&last, &put.sequence), "{last} {}", put.sequence);

    streams.merge(name, &shards[1].id, &shards[2].id).await.unwrap();
    wait_active(streams, name).await;
    let merged = streams.list_shards(name).await.unwrap().remove(3);
    assert_eq!((merged.hash_start, merged.hash_end), (0, u128::MAX));
    assert_eq!(merged.parent.as_ref(), Some(&shards[1].id));
    assert_eq!(merged.adjacent_parent.as_ref(), Some(&shards[2].id));
    assert_ends(streams, name, &shards[2].id).await;
}

/// Reading a closed shard to its end gives no next iterator.
async fn assert_ends(streams: &dyn Streams, name: &str, shard: &str) {
    let mut next = Some(streams.iterator(name, shard, ShardStart::TrimHorizon).await.unwrap());
    for _ in 0..20 {
        let Some(iterator) = next else { return };
        next = streams.get_records(name, &iterator, 100).await.unwrap().next;
    }
    panic!("closed shard {shard} does not end");
}

/// Missing streams, double creation, too many records and bad splits have their own kinds.
pub async fn wrong_stream_requests_are_named(streams: &dyn Streams) {
    let missing = streams.describe("contract-missing").await.unwrap_err();
    assert_eq!(missing.kind(), StreamErrorKind::NotFound);
    let put = streams.put_records("contract-missing", &[record("k", "x", None)]).await.unwrap_err();
    assert_eq!(put.kind(), StreamErrorKind::NotFound);
    let name = "contract-wrong";
    let shard = create(streams, name, 1).await.remove(0);
    assert_eq!(streams.create(name, 1).await.unwrap_err().kind(), StreamErrorKind::InUse);
    let many = vec![record("k", "x", None); 501];
    assert_eq!(streams.put_records(name, &many).await.unwrap_err().kind(), StreamErrorKind::Invalid);
    assert_eq!(streams.put_records(name, &[]).await.unwrap_err().kind(), StreamErrorKind::Invalid);
    assert_eq!(streams.split(name, &shard.id, 0).await.unwrap_err().kind(), StreamErrorKind::Invalid);
    streams.set_retention(name, Duration::from_secs(168 * 3_600)).await.unwrap();
    wait_active(streams, name).await;
    assert_eq!(streams.describe(name).await.unwrap().retention, Duration::from_secs(168 * 3_600));
    streams.delete(name).await.unwrap();
}
