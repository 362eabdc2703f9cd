//! A hundred shards that commit to one table at the same time: what it takes, how long, and that nothing is lost or doubled.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod slow;
mod world;

use std::sync::Arc;

use futures::future::join_all;
use siltstone_store::{
    clock::Clock,
    item::query_all,
    meter::{Meter, Metered},
};
use siltstone_table::{
    Ports,
    ingest::{Ingest, IngestReport, StreamBatch},
    settings::IngestLimits,
};
use slow::{Slow, Time, run};
use world::*;

const SHARDS: u64 = 100;

/// The world's stores with the times of S3 and DynamoDB, counted.
fn ports(world: &World, time: &Arc<Time>, meter: &Arc<Meter>) -> Ports {
    let objects = Metered::new(Slow::new(world.ports.objects.clone(), time.clone(), 30), meter.clone());
    let items = Metered::new(Slow::new(world.ports.items.clone(), time.clone(), 8), meter.clone());
    Ports { objects: Arc::new(objects), items: Arc::new(items), clock: time.clone(), ids: world.ports.ids.clone() }
}

fn batch_of(shard: u64, round: u64) -> StreamBatch {
    let id = i64::try_from(10 * shard + round).unwrap();
    StreamBatch { shard: format!("shardId-{shard:012}"), ..batch(1 + 10 * round, &[row(id, "x")]) }
}

/// One batch of every shard, begun within a second; how long each took, from its event to its answer.
async fn round(ingests: &[Ingest], time: &Time, number: u64) -> Vec<(i64, IngestReport)> {
    join_all((0..SHARDS).zip(ingests).map(|(shard, ingest)| async move {
        time.wait(i64::try_from(shard * 10).unwrap()).await;
        let begun = time.now_ms();
        loop {
            // A shard that was not answered is delivered again.
            if let Ok(report) = ingest.handle(&batch_of(shard, number), begun + 60_000).await {
                return (time.now_ms() - begun, report);
            }
        }
    }))
    .await
}

#[tokio::test]
async fn a_hundred_shards_at_once_are_folded_and_pay_two_puts_and_five_item_requests_each() {
    let world = world(false, &[("bucket", "1")]).await;
    let (time, meter) = (Arc::new(Time::new(START)), Meter::new());
    let ingests: Vec<Ingest> = (0..SHARDS)
        .map(|_| Ingest::new(ports(&world, &time, &meter), world.at.clone(), None, IngestLimits::default()))
        .collect();
    // The first round opens the table, reserves slots, and meets without warning.
    run(&time, round(&ingests, &time, 0));
    let before = (meter.snapshot(), time.now_ms());
    let reports = run(&time, round(&ingests, &time, 1));
    let usage = meter.snapshot().since(&before.0);

    let mut took: Vec<i64> = reports.iter().map(|(ms, _)| *ms).collect();
    took.sort_unstable();
    let staged = reports.iter().filter(|(_, report)| report.staged).count();
    let folded: u64 = reports.iter().map(|(_, report)| report.folded).sum();
    let (puts, items) = (usage.s3_put_class(), usage.dynamo());
    let told = format!(
        "{puts} of the PUT class, {items} of DynamoDB, {} write units; staged {staged}, folded {folded}; p50 {} ms, p99 {} ms",
        usage.write_units, took[49], took[98]
    );
    println!("{told}");
    assert!(puts <= 2 * SHARDS && items <= 5 * SHARDS, "{told}");
    assert!(staged == 100 && folded == 100 && took[98] <= 5_000, "{told}");
    assert_eq!(world.rows(None).await.len(), 200);
    // Every batch was counted by whoever swapped, once.
    let hints = query_all(world.ports.items.as_ref(), &world.at.partition(), "debt#").await.unwrap();
    assert_eq!(hints[0].attributes["runs"].as_n(), Some(200));
}
