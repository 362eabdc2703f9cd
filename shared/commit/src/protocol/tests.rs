//! Scenarios of the protocols on the in-memory world: one rule of architecture.md section 3 per group.

use siltstone_format::id::{SequenceNumber, SnapshotId};

use super::*;
use crate::{
    changes::Conflict,
    testing::{fixture, world::World},
};

const ZERO: SequenceNumber = SequenceNumber(0);

fn table() -> (TableContext, World) {
    let context = fixture::context();
    let mut world = World::new(&context, 1);
    world.ok(create(&context, None));
    (context, world)
}

fn commit_ok(world: &mut World, context: &TableContext, change: Change) -> (SnapshotId, bool) {
    let outcome = world.ok(commit(context, change.clone()));
    world.watch(|monitor, world| monitor.answered(world, &change, &outcome));
    match outcome {
        Outcome::Committed { snapshot: Some(id), already, .. } => (id, already),
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_appends_make_two_published_snapshots() {
    let (context, mut world) = table();
    let one = fixture::batch(&mut world, &context, 0, None, 5, ZERO);
    let last = one.ranges[0].last_sequence;
    assert_eq!(commit_ok(&mut world, &context, one), (SnapshotId(1), false));
    let two = fixture::batch(&mut world, &context, 0, Some(5), 9, last);
    assert_eq!(commit_ok(&mut world, &context, two), (SnapshotId(2), false));
    let latest = &world.objects[&context.location.latest_hint()].body;
    assert_eq!(&latest[..], b"2");
    assert_eq!(&world.objects[&context.location.earliest_hint()].body[..], b"1");
    assert_eq!(world.monitor.witnessed().len(), 9);
}

#[test]
fn redelivered_batch_is_recognised_by_its_range_and_committed_once() {
    let (context, mut world) = table();
    let one = fixture::batch(&mut world, &context, 0, None, 5, ZERO);
    commit_ok(&mut world, &context, one);
    let again = fixture::batch(&mut world, &context, 0, None, 5, ZERO);
    assert_eq!(commit_ok(&mut world, &context, again), (SnapshotId(1), true));
}

#[test]
fn overlapping_batch_is_told_where_to_trim() {
    let (context, mut world) = table();
    let one = fixture::batch(&mut world, &context, 0, None, 5, ZERO);
    commit_ok(&mut world, &context, one);
    let wide = fixture::batch(&mut world, &context, 0, None, 8, ZERO);
    let outcome = world.ok(commit(&context, wide));
    let expected = Conflict::Overlap { shard: fixture::shard(0), covered: 5.into() };
    assert_eq!(outcome, Outcome::Conflict(expected));
}
