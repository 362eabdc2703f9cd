//! Scenarios of the protocols on the in-memory world: one rule of architecture.md section 3 per group.

mod crash;
mod random;

use siltstone_format::{
    id::{Bucket, SchemaId, SequenceNumber, SnapshotId},
    manifest::ManifestEntry,
};

use super::*;
use crate::{
    changes::{ChangeKind, Conflict},
    codec,
    testing::{
        fixture::{self, Row},
        world::World,
    },
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

fn codec_key(context: &TableContext, entry: &ManifestEntry) -> String {
    codec::bucket_file(context, entry, &entry.file.file_name).unwrap()
}

fn live(world: &mut World, context: &TableContext) -> Vec<ManifestEntry> {
    let snapshot = world.monitor.read_pointer(world).unwrap().snapshot.unwrap();
    world.ok(live_files(context, snapshot, Scope::Everything))
}

/// A compaction of everything in one bucket to level 5, newest row per key.
fn compaction(world: &mut World, context: &TableContext, bucket: i32, name: &str) -> Change {
    let inputs: Vec<ManifestEntry> = live(world, context).into_iter().filter(|e| e.bucket == Bucket(bucket)).collect();
    let mut newest = std::collections::BTreeMap::new();
    for entry in &inputs {
        for row in fixture::rows(&world.objects[&codec_key(context, entry)].body) {
            let best: &mut Row = newest.entry(row.key).or_insert(row);
            if row.sequence > best.sequence {
                *best = row;
            }
        }
    }
    let created = world.now_ms;
    let mut change = Change::new(ChangeId::derive(name), ChangeKind::Compact, SchemaId(0), created);
    let rows: Vec<Row> = newest.into_values().collect();
    change.files = inputs.iter().map(fixture::delete).collect();
    change.files.push(fixture::data_file(world, context, None, bucket, 5, &rows));
    change
}

fn expiry() -> ExpireOptions {
    ExpireOptions { retain_min: 2, time_retained_ms: 3_600_000, ..ExpireOptions::default() }
}

/// What another engine does: a snapshot on top of the newest one, put over whatever is there.
fn foreign_commit(world: &mut World, context: &TableContext, sequence: i64) -> SnapshotId {
    let newest = world.monitor.snapshot_ids(world).last().copied().unwrap_or(SnapshotId(0));
    foreign_on(world, context, newest, sequence)
}

fn foreign_on(world: &mut World, context: &TableContext, base: SnapshotId, sequence: i64) -> SnapshotId {
    let row = Row { key: 100, sequence, shard: 77, position: u64::try_from(sequence).unwrap() };
    let entry = fixture::data_file(world, context, None, 0, 0, &[row]);
    let mut change = Change::new(ChangeId::derive("foreign"), ChangeKind::Append, SchemaId(0), world.now_ms);
    change.files.push(entry);
    // A bare commit in a world of its own, in which `base` is the newest, then copied over.
    let mut elsewhere = world.elsewhere();
    elsewhere.items.clear();
    elsewhere.objects.remove(&context.location.latest_hint());
    for id in elsewhere.monitor.snapshot_ids(&elsewhere).into_iter().filter(|id| *id > base) {
        elsewhere.objects.remove(&context.location.snapshot(id));
    }
    let mut bare = context.clone();
    bare.authority = Authority::Bare;
    let outcome = elsewhere.ok(commit(&bare, change));
    let Outcome::Committed { snapshot: Some(id), .. } = outcome else { panic!("{outcome:?}") };
    let hint = context.location.latest_hint();
    let new = elsewhere.objects.into_iter().filter(|(key, o)| world.objects.get(key) != Some(o) && *key != hint);
    world.objects.extend(new.collect::<Vec<_>>());
    id
}

/// A table whose snapshot 3 of ours was overwritten by a foreign one before it was published.
fn forked() -> (TableContext, World) {
    let (context, mut world) = table();
    let mut last = ZERO;
    for n in 0..2_u64 {
        let change = fixture::batch(&mut world, &context, 0, (n > 0).then_some(n * 4), n * 4 + 4, last);
        last = change.ranges[0].last_sequence;
        commit_ok(&mut world, &context, change);
    }
    let change = fixture::batch(&mut world, &context, 0, Some(8), 12, last);
    world.monitor.foreign = true;
    stop_before(&mut world, commit(&context, change), "publish/1");
    assert_eq!(foreign_on(&mut world, &context, SnapshotId(2), 5), SnapshotId(3));
    let error = world.run(load(&context, false)).unwrap().unwrap_err();
    assert!(matches!(error, CommitError::Forked { .. }), "{error}");
    (context, world)
}

/// Runs a machine until it asks for a step, and drops it there.
fn stop_before<T>(world: &mut World, mut machine: Machine<T>, step: &str) {
    let mut reply = None;
    loop {
        match machine.resume(reply.take()) {
            crate::io::Step::Do(request) if request.step.starts_with(step) => return,
            crate::io::Step::Do(request) => reply = world.perform(&request),
            crate::io::Step::Done(_) => panic!("it never came to {step}"),
        }
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
