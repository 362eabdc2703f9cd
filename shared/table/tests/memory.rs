//! Peak memory of a compaction, as the kernel counts it: alone in its process, over files on a disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![cfg(target_os = "linux")]

mod world;

use std::sync::Arc;

use siltstone_store::{fs::FsObjectStore, memory::ManualClock};
use siltstone_table::{
    compact::{self, CompactRequest, Compacted, compact_bucket},
    settings::CompactLimits,
};
use world::*;

const RUNS: u64 = 64;
const ROWS: u64 = 1_000;
const LIMIT: u64 = 192 << 20;

/// Four kilobytes that compress badly.
fn note(seed: u64) -> String {
    let mut state = seed;
    let mut text = String::with_capacity(4_096);
    for _ in 0..256 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!("{:016x}", state ^ (state >> 29)));
    }
    text
}

/// `VmRSS` or `VmHWM`, bytes.
fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// In a process of its own, with the allocator as the functions have it: glibc keeps freed memory in an arena of each thread.
#[test]
fn sixty_four_overlapping_runs_are_compacted_within_the_limit() {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "compact_sixty_four_runs", "--nocapture"])
        .env("MALLOC_ARENA_MAX", "1")
        .status();
    assert!(child.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "what the test above runs"]
async fn compact_sixty_four_runs() {
    let dir = tempfile::tempdir().unwrap();
    let objects = Arc::new(FsObjectStore::open_unsynced(dir.path()).unwrap());
    let world = world_over(objects, Arc::new(ManualClock::new(START)), &new_table(false, &[("bucket", "1")]), 7).await;
    for run in 0..RUNS {
        let rows: Vec<_> = (0..ROWS)
            .map(|n| {
                let id = (n * RUNS + run * 7) % (ROWS * RUNS / 2);
                serde_json::json!({"id": id, "note": note(run << 32 | n), "dt": "2023-11-14"}).to_string().into()
            })
            .collect();
        world.ingest().handle(&raw_batch(1 + run * ROWS, &rows), FAR).await.unwrap();
    }
    let table = world.open().await;
    let (partition, bucket, runs) = compact::buckets(&table).await.unwrap().remove(0);
    assert_eq!(runs as u64, RUNS);
    // 5 sets the peak back to what is resident now.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory("VmRSS");
    let limits = CompactLimits { memory_bytes: LIMIT, lateness_ms: 0, ..CompactLimits::default() };
    let done = compact_bucket(&table, &partition, bucket, CompactRequest::Full, &limits, i64::MAX).await.unwrap();
    let Compacted::Done(report) = done else { panic!("{done:?}") };
    let peak = memory("VmHWM");
    println!("{} MiB in, peak {} MiB, {} MiB before", report.bytes_in >> 20, peak >> 20, before >> 20);
    assert!(report.complete, "{report:?}");
    assert!(peak < LIMIT, "{} MiB at the peak, {} MiB before: {report:?}", peak >> 20, before >> 20);
    assert_eq!(compact::buckets(&table).await.unwrap()[0].2, 1);
}
