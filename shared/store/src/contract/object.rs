//! What every `ObjectStore` must do. Neighbours: `object` (the port and its promises).

use std::{fmt::Debug, sync::Arc};

use bytes::Bytes;

use super::{RACERS, ROUNDS};
use crate::object::{ETag, LIST_LIMIT, ObjectErrorKind, ObjectResult, ObjectStore, PART_BYTES_MIN, PutMode, list_all};

/// Keys that URLs and XML get wrong, but that a file system holds as they are.
pub const ODD_PATHS: [&str; 8] = [
    "dt=2026-01-01/bucket-0/data-1.parquet",
    "a b",
    "a+b",
    "a%20b",
    "100%",
    "a&b<c>'d\"",
    "ünï/çødé/日本",
    "__HIVE_DEFAULT__=~!@#$^*()",
];

/// Keys that only an object store tells apart. A store over directories refuses them as `Invalid`.
pub const ODD_KEYS: [&str; 6] = ["a//b", "a/./b", "a/../b", "x", "x/y", "trailing/"];

/// Runs every check on an object store.
pub async fn run(store: Arc<dyn ObjectStore>) {
    odd_keys_are_kept_byte_for_byte(&store, &ODD_KEYS).await;
    run_on_paths(store).await;
}

/// Runs every check that a store whose keys are paths of files can pass.
pub async fn run_on_paths(store: Arc<dyn ObjectStore>) {
    put_then_get_returns_the_bytes_and_their_tag(&store).await;
    missing_keys_are_not_found(&store).await;
    overwrite_replaces_content_and_tag(&store).await;
    if_absent_on_an_existing_key_fails_and_changes_nothing(&store).await;
    if_match_follows_the_tag(&store).await;
    racing_if_absent_has_one_winner(&store).await;
    racing_if_match_has_one_winner(&store).await;
    odd_keys_are_kept_byte_for_byte(&store, &ODD_PATHS).await;
    ranges_are_cut_at_the_end_and_refused_past_it(&store).await;
    listing_is_in_byte_order_and_pages_without_gaps(&store).await;
    list_dirs_returns_each_next_segment_once(&store).await;
    deleting_is_idempotent_and_takes_many_keys(&store).await;
    upload_is_invisible_until_complete(&store).await;
    upload_in_parts_joins_them_under_a_condition(&store).await;
    wrong_uploads_are_invalid(&store).await;
    concurrent_overwrites_are_never_torn(&store).await;
    super::fault::objects(store).await;
}

fn kind<T: Debug>(result: ObjectResult<T>) -> ObjectErrorKind {
    result.expect_err("an error was expected").kind()
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// A put is read back whole, with the same tag everywhere, and dated.
pub async fn put_then_get_returns_the_bytes_and_their_tag(store: &Arc<dyn ObjectStore>) {
    let key = "contract/put/one";
    let tag = store.put(key, bytes("hello"), PutMode::Overwrite).await.unwrap();
    let object = store.get(key).await.unwrap();
    assert_eq!(object.bytes, bytes("hello"));
    assert_eq!((object.meta.key.as_str(), object.meta.size, &object.meta.etag), (key, 5, &tag));
    assert!(object.meta.last_modified_ms > 0);
    assert_eq!(store.head(key).await.unwrap(), object.meta);

    store.put("contract/put/empty", Bytes::new(), PutMode::IfAbsent).await.unwrap();
    let empty = store.get("contract/put/empty").await.unwrap();
    assert_eq!((empty.bytes.len(), empty.meta.size), (0, 0));
}

/// Reads of nothing are `NotFound`, naming the key; an empty key is `Invalid`.
pub async fn missing_keys_are_not_found(store: &Arc<dyn ObjectStore>) {
    let error = store.get("contract/missing").await.unwrap_err();
    assert_eq!((error.kind(), error.key.as_str()), (ObjectErrorKind::NotFound, "contract/missing"));
    assert_eq!(kind(store.head("contract/missing").await), ObjectErrorKind::NotFound);
    assert_eq!(kind(store.get_range("contract/missing", 0..1).await), ObjectErrorKind::NotFound);
    assert_eq!(kind(store.get("").await), ObjectErrorKind::Invalid);
    assert_eq!(kind(store.put("", Bytes::new(), PutMode::Overwrite).await), ObjectErrorKind::Invalid);
    let long = "x".repeat(1_025);
    assert_eq!(kind(store.put(&long, Bytes::new(), PutMode::Overwrite).await), ObjectErrorKind::Invalid);
}

/// The last overwrite wins and has another tag.
pub async fn overwrite_replaces_content_and_tag(store: &Arc<dyn ObjectStore>) {
    let key = "contract/overwrite";
    let first = store.put(key, bytes("one"), PutMode::Overwrite).await.unwrap();
    let second = store.put(key, bytes("two!"), PutMode::Overwrite).await.unwrap();
    assert_ne!(first, second);
    assert_eq!(store.get(key).await.unwrap().bytes, bytes("two!"));
}

/// `IfAbsent` on what exists is `PreconditionFailed`, also with the same bytes, and works again after a delete.
pub async fn if_absent_on_an_existing_key_fails_and_changes_nothing(store: &Arc<dyn ObjectStore>) {
    let key = "contract/if-absent";
    let tag = store.put(key, bytes("mine"), PutMode::IfAbsent).await.unwrap();
    for other in ["theirs", "mine"] {
        assert_eq!(kind(store.put(key, bytes(other), PutMode::IfAbsent).await), ObjectErrorKind::PreconditionFailed);
    }
    let now = store.get(key).await.unwrap();
    assert_eq!((now.bytes, now.meta.etag), (bytes("mine"), tag));
    store.delete(&[key.to_owned()]).await.unwrap();
    store.put(key, bytes("again"), PutMode::IfAbsent).await.unwrap();
}

/// `IfMatch` takes effect with the current tag only; on a missing key it is `NotFound` and makes nothing.
pub async fn if_match_follows_the_tag(store: &Arc<dyn ObjectStore>) {
    let key = "contract/if-match";
    let absent = store.put(key, bytes("x"), PutMode::IfMatch(ETag::new("0".repeat(32)))).await;
    assert_eq!(kind(absent), ObjectErrorKind::NotFound);
    assert_eq!(kind(store.head(key).await), ObjectErrorKind::NotFound);

    let first = store.put(key, bytes("1"), PutMode::Overwrite).await.unwrap();
    let second = store.put(key, bytes("2"), PutMode::IfMatch(first.clone())).await.unwrap();
    let stale = store.put(key, bytes("3"), PutMode::IfMatch(first)).await;
    assert_eq!(kind(stale), ObjectErrorKind::PreconditionFailed);
    let now = store.get(key).await.unwrap();
    assert_eq!((now.bytes, now.meta.etag), (bytes("2"), second));
}

/// Of 16 racers with `IfAbsent` one wins, and what is stored is the winner's. A 409 counts as lost for that request: it is sent again.
pub async fn racing_if_absent_has_one_winner(store: &Arc<dyn ObjectStore>) {
    for round in 0..ROUNDS {
        let key = format!("contract/race-absent/{round}");
        race(store, &key, PutMode::IfAbsent).await;
    }
}

/// Of 16 racers with `IfMatch` on one tag one wins, and what is stored is the winner's.
pub async fn racing_if_match_has_one_winner(store: &Arc<dyn ObjectStore>) {
    for round in 0..ROUNDS {
        let key = format!("contract/race-match/{round}");
        let tag = store.put(&key, bytes("start"), PutMode::Overwrite).await.unwrap();
        race(store, &key, PutMode::IfMatch(tag)).await;
    }
}

async fn race(store: &Arc<dyn ObjectStore>, key: &str, mode: PutMode) {
    let racers: Vec<_> = (0..RACERS)
        .map(|racer| {
            let (store, key, mode) = (store.clone(), key.to_owned(), mode.clone());
            tokio::spawn(async move {
                loop {
                    match store.put(&key, Bytes::from(format!("racer {racer}")), mode.clone()).await {
                        Ok(_) => return Some(racer),
                        Err(e) if e.kind() == ObjectErrorKind::PreconditionFailed => return None,
                        Err(e) if e.kind() == ObjectErrorKind::Conflict => tokio::task::yield_now().await,
                        Err(e) => panic!("a racer failed: {e}"),
                    }
                }
            })
        })
        .collect();
    let mut winners = Vec::new();
    for racer in racers {
        winners.extend(racer.await.unwrap());
    }
    assert_eq!(winners.len(), 1, "winners of {key}: {winners:?}");
    let stored = store.get(key).await.unwrap().bytes;
    assert_eq!(stored, Bytes::from(format!("racer {}", winners[0])));
}

/// Every odd key is its own object, listed and deleted under exactly its name.
pub async fn odd_keys_are_kept_byte_for_byte(store: &Arc<dyn ObjectStore>, keys: &[&str]) {
    let prefix = "contract/odd/";
    for odd in keys {
        store.put(&format!("{prefix}{odd}"), bytes(odd), PutMode::IfAbsent).await.unwrap();
    }
    for odd in keys {
        assert_eq!(store.get(&format!("{prefix}{odd}")).await.unwrap().bytes, bytes(odd), "{odd}");
    }
    let listed: Vec<String> = list_all(store, prefix).await.unwrap().into_iter().map(|o| o.key).collect();
    let mut want: Vec<String> = keys.iter().map(|odd| format!("{prefix}{odd}")).collect();
    want.sort_unstable();
    assert_eq!(listed, want);
    store.delete(&want).await.unwrap();
    assert!(list_all(store, prefix).await.unwrap().is_empty());
}

/// A range past the end is cut; one that starts at the end, or is empty, is `Invalid`.
pub async fn ranges_are_cut_at_the_end_and_refused_past_it(store: &Arc<dyn ObjectStore>) {
    let key = "contract/range";
    store.put(key, bytes("0123456789"), PutMode::Overwrite).await.unwrap();
    assert_eq!(store.get_range(key, 0..10).await.unwrap(), bytes("0123456789"));
    assert_eq!(store.get_range(key, 3..5).await.unwrap(), bytes("34"));
    assert_eq!(store.get_range(key, 9..10).await.unwrap(), bytes("9"));
    assert_eq!(store.get_range(key, 7..1_000).await.unwrap(), bytes("789"));
    assert_eq!(kind(store.get_range(key, 10..11).await), ObjectErrorKind::Invalid);
    assert_eq!(kind(store.get_range(key, 5..5).await), ObjectErrorKind::Invalid);
}

/// Pages of any size give every key once, in byte order (not in the order of locales or directories), with size and tag.
pub async fn listing_is_in_byte_order_and_pages_without_gaps(store: &Arc<dyn ObjectStore>) {
    let prefix = "contract/list/";
    let mut keys: Vec<String> =
        ["a-b/1", "a/1", "a/2", "a.b", "a0", "B", "b", "é", "z/z/z"].map(|k| format!("{prefix}{k}")).into();
    for key in &keys {
        store.put(key, bytes(key), PutMode::Overwrite).await.unwrap();
    }
    store.put("contract/list-", bytes("outside"), PutMode::Overwrite).await.unwrap();
    store.put("contract/list0", bytes("outside"), PutMode::Overwrite).await.unwrap();
    keys.sort_unstable();
    for limit in [1, 3, keys.len(), LIST_LIMIT + 500] {
        let mut seen: Vec<String> = Vec::new();
        loop {
            let page = store.list(prefix, seen.last().map(String::as_str), limit).await.unwrap();
            assert!(page.objects.len() <= limit);
            for object in page.objects {
                assert_eq!(object.size, object.key.len() as u64);
                assert_eq!(object.etag, store.head(&object.key).await.unwrap().etag);
                seen.push(object.key);
            }
            if !page.more {
                break;
            }
        }
        assert_eq!(seen, keys, "limit {limit}");
    }
    let inside = store.list(&format!("{prefix}a/"), None, 10).await.unwrap();
    assert_eq!(inside.objects.len(), 2);
    let after_missing = store.list(prefix, Some(&format!("{prefix}a/15")), 1).await.unwrap();
    assert_eq!(after_missing.objects[0].key, format!("{prefix}a/2"));
    assert!(store.list("contract/nothing/", None, 10).await.unwrap().objects.is_empty());
    assert_eq!(kind(store.list(prefix, None, 0).await), ObjectErrorKind::Invalid);
}

/// The next segment of each key, once, in byte order of the whole directory prefix, without objects.
pub async fn list_dirs_returns_each_next_segment_once(store: &Arc<dyn ObjectStore>) {
    let prefix = "contract/dirs/";
    for key in ["file", "a/1", "a/2", "a-b/1", "dt=1/bucket-0/f", "dt=1/bucket-1/f", "ü/1"] {
        store.put(&format!("{prefix}{key}"), bytes("x"), PutMode::Overwrite).await.unwrap();
    }
    let dirs = store.list_dirs(prefix).await.unwrap();
    assert_eq!(dirs, ["a-b/", "a/", "dt=1/", "ü/"].map(|d| format!("{prefix}{d}")));
    let below = store.list_dirs(&format!("{prefix}dt=1/")).await.unwrap();
    assert_eq!(below, ["bucket-0/", "bucket-1/"].map(|d| format!("{prefix}dt=1/{d}")));
    assert!(store.list_dirs("contract/no-dirs/").await.unwrap().is_empty());
}

/// 1,003 keys in one call, some missing; again; and nothing at all.
pub async fn deleting_is_idempotent_and_takes_many_keys(store: &Arc<dyn ObjectStore>) {
    let prefix = "contract/delete/";
    for n in 0..5 {
        store.put(&format!("{prefix}{n}"), bytes("x"), PutMode::Overwrite).await.unwrap();
    }
    let keys: Vec<String> = (1..1_004).map(|n| format!("{prefix}{n}")).collect();
    store.delete(&keys).await.unwrap();
    store.delete(&keys).await.unwrap();
    store.delete(&[]).await.unwrap();
    let left: Vec<String> = list_all(store, prefix).await.unwrap().into_iter().map(|o| o.key).collect();
    assert_eq!(left, [format!("{prefix}0")]);
}

/// Neither an unfinished, a dropped nor an aborted upload can be seen; the finished one has the last word.
pub async fn upload_is_invisible_until_complete(store: &Arc<dyn ObjectStore>) {
    let key = "contract/upload/hidden";
    let mut aborted = store.upload(key).await.unwrap();
    aborted.part(bytes("gone")).await.unwrap();
    aborted.abort().await.unwrap();
    let mut dropped = store.upload(key).await.unwrap();
    dropped.part(bytes("left")).await.unwrap();
    drop(dropped);
    let mut upload = store.upload(key).await.unwrap();
    upload.part(bytes("small")).await.unwrap();
    assert_eq!(kind(store.head(key).await), ObjectErrorKind::NotFound);
    assert!(list_all(store, "contract/upload/").await.unwrap().is_empty());
    let tag = upload.complete(PutMode::IfAbsent).await.unwrap();
    let object = store.get(key).await.unwrap();
    assert_eq!((object.bytes, object.meta.etag), (bytes("small"), tag));
}

/// Parts join in order; completing honours `IfAbsent` and `IfMatch`.
pub async fn upload_in_parts_joins_them_under_a_condition(store: &Arc<dyn ObjectStore>) {
    let key = "contract/upload/parts";
    let first = Bytes::from(vec![b'a'; PART_BYTES_MIN]);
    let mut upload = store.upload(key).await.unwrap();
    upload.part(first.clone()).await.unwrap();
    upload.part(bytes("tail")).await.unwrap();
    let tag = upload.complete(PutMode::IfAbsent).await.unwrap();
    let meta = store.head(key).await.unwrap();
    assert_eq!((meta.size, &meta.etag), (PART_BYTES_MIN as u64 + 4, &tag));
    let seam = PART_BYTES_MIN as u64;
    assert_eq!(store.get_range(key, seam - 2..seam + 4).await.unwrap(), bytes("aatail"));

    let late = upload_small(store, key, "late", PutMode::IfAbsent).await;
    assert_eq!(kind(late), ObjectErrorKind::PreconditionFailed);
    let stale = upload_small(store, key, "stale", PutMode::IfMatch(ETag::new("0".repeat(32)))).await;
    assert_eq!(kind(stale), ObjectErrorKind::PreconditionFailed);
    assert_eq!(store.head(key).await.unwrap().etag, tag);
    upload_small(store, key, "next", PutMode::IfMatch(tag)).await.unwrap();
    assert_eq!(store.get(key).await.unwrap().bytes, bytes("next"));
}

async fn upload_small(store: &Arc<dyn ObjectStore>, key: &str, text: &str, mode: PutMode) -> ObjectResult<ETag> {
    let mut upload = store.upload(key).await?;
    upload.part(bytes(text)).await?;
    upload.complete(mode).await
}

/// An upload of nothing, an empty part, and a small part before the last are `Invalid`, and write nothing.
pub async fn wrong_uploads_are_invalid(store: &Arc<dyn ObjectStore>) {
    let key = "contract/upload/wrong";
    let mut none = store.upload(key).await.unwrap();
    assert_eq!(kind(none.complete(PutMode::Overwrite).await), ObjectErrorKind::Invalid);
    let mut empty = store.upload(key).await.unwrap();
    assert_eq!(kind(empty.part(Bytes::new()).await), ObjectErrorKind::Invalid);
    empty.abort().await.unwrap();
    let mut small = store.upload(key).await.unwrap();
    small.part(bytes("small")).await.unwrap();
    let refused = match small.part(bytes("last")).await {
        Ok(()) => kind(small.complete(PutMode::Overwrite).await),
        Err(e) => e.kind(),
    };
    assert_eq!(refused, ObjectErrorKind::Invalid);
    assert_eq!(kind(store.head(key).await), ObjectErrorKind::NotFound);
}

/// Readers beside overwriting writers see one whole content or another, and never a missing key.
pub async fn concurrent_overwrites_are_never_torn(store: &Arc<dyn ObjectStore>) {
    let key = "contract/torn";
    let content = |n: u8| Bytes::from(vec![n; 64 << 10]);
    store.put(key, content(0), PutMode::Overwrite).await.unwrap();
    let writers: Vec<_> = (1..4_u8)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    store.put(key, content(writer), PutMode::Overwrite).await.unwrap();
                }
            })
        })
        .collect();
    for _ in 0..30 {
        let object = store.get(key).await.unwrap();
        assert_eq!(object.bytes.len(), 64 << 10);
        let first = object.bytes[0];
        assert!(object.bytes.iter().all(|b| *b == first), "a torn read");
    }
    for writer in writers {
        writer.await.unwrap();
    }
}
