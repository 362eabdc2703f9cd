//! `silt drain`: waits until all that is in the stream is in the table or in quarantine.
//!
//! Neighbours: `siltstone_table::backlog` asks stream and table.

use std::time::Duration;

use serde_json::json;
use siltstone_commit::pointer::TableState;
use siltstone_decode::config::BadRecords;
use siltstone_table::{
    Purpose, Table,
    backlog::{ShardBacklog, backlog},
    quarantine,
    settings::Feed,
};

use crate::{
    args::{Drain, Place},
    failure::{Done, Failure},
    out::{self, Out},
    place::Warehouse,
};

/// Between two looks: each is a read or two a shard, of which Kinesis allows five a second.
const PAUSE: Duration = Duration::from_secs(1);

pub(crate) async fn run(place: &Place, args: Drain, out: &mut Out) -> Result<Done, Failure> {
    let warehouse = Warehouse::open(place).await?;
    warehouse.need_pointer("drain")?;
    let table = warehouse.table(&args.table, Purpose::Read).await?;
    let streams = warehouse.streams()?;
    let feed = Feed::load(&table.ports, &table.at).await?;
    let stream = feed.stream_arn.rsplit('/').next().unwrap_or(&feed.stream_arn);
    let bar = out::progress("shards with records that are not in the table yet:", None);
    let until = table.ports.clock.now_ms() + i64::from(args.seconds) * 1_000;
    loop {
        if table.pointer().await?.state == TableState::Paused {
            return Err(Failure::Unavailable(format!(
                "{} is paused: `silt resume {}` lets its stream be read again",
                args.table, args.table
            )));
        }
        let behind = backlog(&table, &streams, stream).await?;
        if behind.is_empty() {
            bar.finish_and_clear();
            let words = drained(stream, &args.table, may_be_quarantined(&table, &feed).await?);
            out.object(&json!({"table": args.table, "stream": stream, "drained": true}), words)?;
            return Ok(Done::Well);
        }
        bar.set_position(behind.len() as u64);
        if table.ports.clock.now_ms() >= until {
            bar.finish_and_clear();
            return Err(Failure::Unavailable(not_drained(stream, args.seconds, &behind)));
        }
        table.ports.clock.sleep(PAUSE).await;
    }
}

/// Whether records of the stream may lie in quarantine: by the policy of now, or by an earlier one.
async fn may_be_quarantined(table: &Table, feed: &Feed) -> Result<bool, Failure> {
    if feed.decoder.bad_records == BadRecords::Quarantine {
        return Ok(true);
    }
    Ok(quarantine::read(table).await?.open().next().is_some())
}

fn drained(stream: &str, table: &str, quarantined: bool) -> String {
    let place = if quarantined { " or in its quarantine" } else { "" };
    format!("all records of {stream} are in {table}{place}")
}

fn not_drained(stream: &str, seconds: u32, behind: &[ShardBacklog]) -> String {
    let worst = behind.iter().max_by_key(|shard| shard.behind_ms);
    let shard = worst.map_or_else(String::new, |s| format!(", {} by {} s", s.shard, s.behind_ms / 1_000));
    format!(
        "after {seconds} s, {} shards of {stream} have records that are not in the table{shard}: look at the ingest function's errors (`silt local -v` prints them, on AWS its log group has them), and stop producers first",
        behind.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quarantine_is_named_where_records_may_lie_in_it() {
        assert_eq!(
            drained("orders", "shop.orders", true),
            "all records of orders are in shop.orders or in its quarantine"
        );
        assert_eq!(drained("orders", "shop.orders", false), "all records of orders are in shop.orders");
    }

    #[test]
    fn the_shard_that_is_furthest_behind_is_named() {
        let shard = |n: u32, behind_ms| ShardBacklog { shard: format!("shardId-{n:012}"), behind_ms };
        let words = not_drained("orders", 60, &[shard(1, 2_000), shard(2, 9_500), shard(3, 0)]);
        assert!(
            words.starts_with("after 60 s, 3 shards of orders") && words.contains("shardId-000000000002 by 9 s"),
            "{words}"
        );
    }
}
