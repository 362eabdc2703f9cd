//! What an idle table asks of S3 and DynamoDB for being looked after, counted through the handler: paid around the clock for every table.
//!
//! Neighbours: `shared/table/tests/budget.rs` (events and compactions). The counts are exact.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "../../ingest/tests/world/mod.rs"]
mod world;

use std::{sync::Arc, time::Duration};

use siltstone_maintain::Handler;
use siltstone_store::{
    Cost, LIST_PRICES,
    mapping::{MappingSettings, StartingPosition},
    memory::MemoryMappings,
    meter::{RequestKind, Usage},
};
use siltstone_table::ingest::Ingest;
use world::{FAR, STREAM, World, batch, sample, settings};

/// Runs of a day, at the rate that `infra/cdk` sets: every 5 minutes.
const RUNS_A_DAY: u64 = 288;

/// A table with one snapshot that nobody writes any more, and its `maintain`.
async fn idle() -> (World, Handler) {
    let world = World::new().await;
    let ingest = Ingest::new(world.ports.clone(), settings(&[]).table, None, Default::default());
    ingest.handle(&batch("ingest-normal"), FAR).await.unwrap();
    let seen = MemoryMappings::new();
    let safe = MappingSettings {
        stream_arn: STREAM.to_owned(),
        starting_position: Some(StartingPosition::TrimHorizon),
        ..MappingSettings::default()
    };
    seen.set("ingest", vec![safe]);
    let settings = settings(&[("SILTSTONE_FUNCTION_INGEST", "ingest")]);
    let handler = Handler::new(world.ports.clone(), Some(Arc::new(seen)), settings);
    (world, handler)
}

/// What so many runs, 5 minutes apart, take, and how many of them swept.
async fn runs(world: &World, handler: &Handler, runs: u64) -> (Usage, usize) {
    let before = world.meter.snapshot();
    let mut swept = 0;
    for _ in 0..runs {
        let report = handler.handle_json(sample("maintain-schedule").as_bytes(), FAR, |_| {}).await.unwrap();
        swept += usize::from(serde_json::from_slice::<serde_json::Value>(&report).unwrap()["swept"] == true);
        world.clock.advance(Duration::from_secs(300));
    }
    (world.meter.snapshot().since(&before), swept)
}

fn counts(usage: &Usage) -> [(&'static str, u64); 5] {
    let lists = usage.count(RequestKind::S3List).requests;
    [
        ("S3 put class without lists", usage.s3_put_class() - lists),
        ("S3 list", lists),
        ("S3 get class", usage.s3_get_class()),
        ("DynamoDB read units", usage.read_units),
        ("DynamoDB write units", usage.write_units),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_over_an_idle_table_lists_no_data_files_and_writes_one_item() {
    let (world, handler) = idle().await;
    let (first, swept) = runs(&world, &handler, 1).await;
    assert_eq!(swept, 1, "{first:?}");
    let (usage, swept) = runs(&world, &handler, 1).await;
    assert_eq!(swept, 0);
    let wanted = [
        ("S3 put class without lists", 0),
        ("S3 list", 2),
        ("S3 get class", 13),
        ("DynamoDB read units", 9),
        ("DynamoDB write units", 1),
    ];
    assert_eq!(counts(&usage), wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_of_an_idle_table_costs_cents() {
    let (world, handler) = idle().await;
    let (day, swept) = runs(&world, &handler, RUNS_A_DAY).await;
    assert_eq!(swept, 1);
    let month = (0..30).fold(Usage::default(), |mut month, _| {
        month.add(&day);
        month
    });
    let wanted = [
        ("S3 put class without lists", 0),
        ("S3 list", 17_460),
        ("S3 get class", 112_500),
        ("DynamoDB read units", 77_820),
        ("DynamoDB write units", 8_700),
    ];
    assert_eq!(counts(&month), wanted);
    let cost = Cost::of(&month, &LIST_PRICES);
    assert_eq!(format!("{:.3}", cost.added()), "0.147", "{cost}");
}
