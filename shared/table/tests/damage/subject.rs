//! The table that is damaged.
//!
//! Above: `main`.

use bytes::Bytes;
use serde_json::json;
use siltstone_table::{TableRef, compact::CompactRequest, maintain};

use crate::{state::State, verbs::HOUR, world::*};

pub(crate) fn shard(n: u64) -> String {
    format!("shardId-{n:012}")
}

/// A table with everything; `salt` makes another one of the same form.
pub(crate) async fn table(salt: i64) -> (State, TableRef) {
    let options = [
        ("bucket", "1"),
        ("changelog-producer", "input"),
        ("snapshot.num-retained.min", "4"),
        ("snapshot.num-retained.max", "5"),
        ("snapshot.time-retained", "1 s"),
        ("file.compression", if salt == 0 { "zstd" } else { "none" }),
    ];
    let world = world_of(true, &options, 7 + salt.unsigned_abs()).await;
    let ingest = world.ingest();
    let on = |id: i64, note: &str, dt: &str| json!({"id": id + salt, "note": format!("{note} {salt}"), "dt": dt});
    // More shards than the pointer holds; what they bring is rejected, and their snapshots, which are without rows, expire.
    for n in 0..70 {
        let mut nothing = raw_batch(1, &[Bytes::from_static(b"nope")]);
        nothing.shard = shard(n);
        ingest.handle(&nothing, FAR).await.unwrap();
    }
    for n in 0..7_u64 {
        let id = n as i64;
        let mut rows: Vec<_> =
            (0..6).map(|i| on(id * 3 + i, &format!("v{n}"), ["2023-11-14", "2023-11-15"][(i % 2) as usize])).collect();
        rows.push(json!({"id": 2 + salt, "op": "delete", "dt": "2023-11-14"}));
        ingest.handle(&batch(1_000 + 10 * n, &rows), FAR).await.unwrap();
        world.clock.advance(std::time::Duration::from_secs(60));
        match n {
            2 => drop(world.compact_all(CompactRequest::Full).await),
            3 => {
                world.clock.advance(HOUR);
                // One run takes no more than `snapshot.expire.limit` of them.
                for _ in 0..2 {
                    maintain::expire(&world.open().await).await.unwrap();
                }
            }
            _ => {}
        }
    }
    (State::of(&world.ports, &world.at).await, world.at)
}
