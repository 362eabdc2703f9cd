//! Task objects worked off under a lease, with a crash at every request.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod world;

use std::time::Duration;

use siltstone_store::{
    item::{Attr, Item, ItemCondition},
    memory::FaultPlan,
    object::list_all,
};
use siltstone_table::{
    Ports, TableError,
    compact::{CompactRequest, buckets},
    maintain,
    settings::CompactLimits,
    task::{Fate, work_off},
};
use world::*;

const LEASE: &str = "lease#/bucket-0";

/// A bucket of three runs, and the task object that the third has put.
async fn due() -> (World, String) {
    let world = world(false, &[("num-sorted-run.compaction-trigger", "3")]).await;
    let ingest = world.ingest();
    for n in 0..3 {
        ingest.handle(&batch(1 + 10 * n, &[row(1, &format!("v{n}")), row(10 + n as i64, "x")]), FAR).await.unwrap();
    }
    let [task] = tasks(&world).await.try_into().unwrap();
    (world, task)
}

async fn tasks(world: &World) -> Vec<String> {
    let tasks = list_all(world.ports.objects.as_ref(), &world.at.tasks()).await.unwrap();
    tasks.into_iter().map(|object| object.key).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_by_time_is_planned_below_the_trigger() {
    // The leases that `work` renews on the manual clock take hours.
    let daily = [("num-sorted-run.compaction-trigger", "5"), ("compaction.optimization-interval", "1 d")];
    let world = world(false, &daily).await;
    let ingest = world.ingest();
    for n in 0..2 {
        ingest.handle(&batch(1 + 10 * n, &[row(1, &format!("v{n}"))]), FAR).await.unwrap();
    }
    assert_eq!((runs(&world).await, tasks(&world).await), (vec![2], Vec::new()));
    assert_eq!(maintain::plan(&world.open().await).await.unwrap(), 1, "there never was a full compaction");
    let [task] = tasks(&world).await.try_into().unwrap();
    work(&world, &world.ports, &task).await.unwrap();
    assert_eq!(runs(&world).await, [1]);
    ingest.handle(&batch(31, &[row(1, "late")]), FAR).await.unwrap();
    assert_eq!(maintain::plan(&world.open().await).await.unwrap(), 0, "the last one is not a day old");
    world.clock.advance(Duration::from_secs(86_400));
    assert_eq!(maintain::plan(&world.open().await).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_put_by_each_run_that_makes_a_multiple_of_the_trigger_and_by_no_other() {
    let world = world(false, &[("num-sorted-run.compaction-trigger", "3")]).await;
    assert_eq!(tasks_by_run(&world, 7).await, [0, 0, 1, 0, 0, 1, 0]);
}

/// Hints may be lost: then a compaction takes off runs that were never counted.
#[tokio::test(flavor = "multi_thread")]
async fn runs_below_none_are_counted_up_without_a_task() {
    let (world, _) = due().await;
    let (partition, hint) = (world.at.partition(), "debt#/bucket-0");
    world.ports.items.delete(&partition, hint, ItemCondition::None).await.unwrap();
    world.compact_all(CompactRequest::Full).await;
    let counted = world.ports.items.get(&partition, hint).await.unwrap().unwrap();
    assert_eq!(counted.attributes.get("runs").and_then(Attr::as_n), Some(-2));
    assert_eq!(tasks_by_run(&world, 5).await, [0, 0, 0, 0, 1]);
}

/// How many tasks each of some further runs of one bucket puts.
async fn tasks_by_run(world: &World, runs: u64) -> Vec<u64> {
    let ingest = world.ingest();
    let mut put = Vec::new();
    for n in 0..runs {
        put.push(ingest.handle(&batch(101 + 10 * n, &[row(1, "v")]), FAR).await.unwrap().tasks);
    }
    put
}

async fn work(world: &World, ports: &Ports, task: &str) -> Result<Fate, TableError> {
    work_off(ports, &world.at, task, &CompactLimits::default(), i64::MAX).await
}

async fn runs(world: &World) -> Vec<usize> {
    buckets(&world.open().await).await.unwrap().into_iter().map(|(_, _, runs)| runs).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_request_leaves_a_task_that_is_worked_off_once() {
    crash_everywhere(FaultPlan::crash_after).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_with_a_lost_answer_at_any_request_leaves_a_task_that_is_worked_off_once() {
    crash_everywhere(FaultPlan::crash_losing_answer).await;
}

async fn crash_everywhere(plan: fn(u64) -> FaultPlan) {
    let mut crashes = 0;
    for n in 1.. {
        let (world, task) = due().await;
        let before = world.rows(None).await;
        let crashed = work(&world, &world.faulty_ports(&plan(n)), &task).await.is_err();
        // Lambda delivers the event again: soon, when the lease of the dead one may still stand, and later.
        let soon = work(&world, &world.ports, &task).await.unwrap();
        world.clock.advance(Duration::from_secs(16));
        work(&world, &world.ports, &task).await.unwrap();
        assert_eq!(runs(&world).await, [1], "crash after request {n}");
        assert_eq!(world.rows(None).await, before, "crash after request {n}");
        assert_eq!(tasks(&world).await, [""; 0], "crash after request {n}");
        assert!(
            world.ports.items.get(&world.at.partition(), LEASE).await.unwrap().is_none(),
            "crash after request {n}"
        );
        if !crashed {
            assert_eq!(soon, Fate::Gone);
            break;
        }
        crashes += 1;
    }
    assert!(crashes > 10, "{crashes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_was_taken_over_is_not_freed_by_its_former_holder() {
    let (world, task) = due().await;
    let (items, partition) = (world.ports.items.clone(), world.at.partition());
    let other = Item::new(partition.clone(), LEASE, 99).with("until", Attr::N(FAR));
    let take_over = {
        let (items, other) = (items.clone(), other.clone());
        || async move { items.put(&other, ItemCondition::None).await.unwrap() }
    };
    let plan = FaultPlan::none().act_before("delete_item", LEASE, 1, take_over);
    let fate = work(&world, &world.faulty_ports(&plan), &task).await.unwrap();
    assert!(matches!(fate, Fate::Done(_)), "two compactors are as safe as one: {fate:?}");
    assert_eq!(items.get(&partition, LEASE).await.unwrap(), Some(other));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_won_by_one_of_two() {
    let (world, task) = due().await;
    let (items, partition) = (world.ports.items.clone(), world.at.partition());
    let other = Item::new(partition, LEASE, 1).with("until", Attr::N(FAR));
    let plan = FaultPlan::none()
        .act_before("put_item", LEASE, 1, || async move { items.put(&other, ItemCondition::Absent).await.unwrap() });
    assert_eq!(work(&world, &world.faulty_ports(&plan), &task).await.unwrap(), Fate::Leased);
    assert_eq!((runs(&world).await, tasks(&world).await), (vec![3], vec![task]));
}
