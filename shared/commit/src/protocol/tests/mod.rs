//! Scenarios of the protocols on the in-memory world: one rule of architecture.md section 3 per group.

mod crash;
mod group;
mod maintenance;
mod random;
mod recovery;
mod size;

use siltstone_format::{
    id::{Bucket, SchemaId, SequenceNumber, SnapshotId},
    manifest::ManifestEntry,
};

use super::*;
use crate::{
    changes::{ChangeKind, Conflict},
    codec,
    io::{Request, Step},
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
    let pointer = world.monitor.read_pointer(world).unwrap();
    live_of(world, context, &pointer)
}

fn live_of(world: &mut World, context: &TableContext, pointer: &Pointer) -> Vec<ManifestEntry> {
    world.ok(live_files(context, pointer.snapshot.clone().unwrap(), Scope::Everything))
}

/// A compaction of everything in one bucket to level 5, newest row per key.
fn compaction(world: &mut World, context: &TableContext, bucket: i32, name: &str) -> Change {
    let inputs: Vec<ManifestEntry> = live(world, context).into_iter().filter(|e| e.bucket == Bucket(bucket)).collect();
    fixture::compaction(world, context, name, &inputs, siltstone_format::id::Level(5))
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
    foreign_of(world, context, base, entry)
}

/// What another engine does with a file that is there already.
fn foreign_of(world: &mut World, context: &TableContext, base: SnapshotId, entry: ManifestEntry) -> SnapshotId {
    let id = ChangeId::derive(&format!("foreign {}", entry.file.min_sequence_number));
    let mut change = Change::new(id, ChangeKind::Append, SchemaId(0), world.now_ms);
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
    world.stop_before(commit(&context, change), "publish/1");
    assert_eq!(foreign_on(&mut world, &context, SnapshotId(2), 5), SnapshotId(3));
    let error = world.run(load(&context, false)).unwrap().unwrap_err();
    assert!(matches!(error, CommitError::Forked { .. }), "{error}");
    (context, world)
}

/// A fork that was repaired, a commit after it, and then a pointer from a copy that was made in the fork; with the pointer that was lost.
fn copied_in_a_fork() -> (TableContext, World, Pointer) {
    let (context, mut world) = forked();
    let copy = world.items.clone();
    world.ok(repair_fork(&context));
    let last = world.monitor.read_pointer(&world).unwrap().checkpoints.recent().next().unwrap().1.last_sequence;
    let change = fixture::batch(&mut world, &context, 0, Some(12), 16, last);
    commit_ok(&mut world, &context, change);
    let lost = world.monitor.read_pointer(&world).unwrap();
    world.items = copy;
    (context, world, lost)
}

/// Runs a protocol to its end; something else happens right before its first request of a kind.
fn ok_with<T>(
    world: &mut World,
    mut run: Machine<T>,
    when: impl Fn(&Request) -> bool,
    happens: impl FnOnce(&mut World),
) -> T {
    let (mut happens, mut reply) = (Some(happens), None);
    loop {
        match run.resume(reply.take()) {
            Step::Do(request) => {
                if when(&request)
                    && let Some(happens) = happens.take()
                {
                    happens(world);
                }
                reply = world.perform(&request);
            }
            Step::Done(result) => {
                assert!(happens.is_none(), "no such request came");
                return result.unwrap();
            }
        }
    }
}

/// The older schema may have put its rows into another number of buckets.
#[test]
fn append_by_an_older_schema_than_the_pointers_is_planned_anew() {
    let (context, mut world) = table();
    let mut newer = fixture::batch(&mut world, &context, 0, None, 5, ZERO);
    newer.schema_id = SchemaId(1);
    let last = newer.ranges[0].last_sequence;
    commit_ok(&mut world, &context, newer);
    let older = fixture::batch(&mut world, &context, 0, Some(5), 9, last);
    let outcome = world.ok(commit(&context, older));
    let expected = Conflict::Requirement(crate::changes::Requirement::SchemaIs(SchemaId(0)));
    assert_eq!(outcome, Outcome::Conflict(expected));
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

fn conflict_of(world: &mut World, context: &TableContext, change: &Change) -> Conflict {
    let outcome = world.ok(commit(context, change.clone()));
    world.watch(|monitor, world| monitor.answered(world, change, &outcome));
    match outcome {
        Outcome::Conflict(conflict) => conflict,
        other => panic!("{other:?}"),
    }
}

fn pointer(world: &World) -> Pointer {
    world.monitor.read_pointer(world).unwrap()
}

#[test]
fn rule_1_range_that_leaves_a_gap_is_refused() {
    let (context, mut world) = table();
    let change = fixture::batch(&mut world, &context, 0, Some(3), 5, ZERO);
    let expected = Conflict::Gap { shard: fixture::shard(0), at: None };
    assert_eq!(conflict_of(&mut world, &context, &change), expected);
}

#[test]
fn rule_1_child_shard_closes_its_parent_and_starts_above_its_numbers() {
    let (context, mut world) = table();
    let parent = fixture::batch(&mut world, &context, 0, None, 5, ZERO);
    let last = parent.ranges[0].last_sequence;
    commit_ok(&mut world, &context, parent);
    let mut low = fixture::batch(&mut world, &context, 1, None, 5, ZERO);
    low.ranges[0].parents = vec![fixture::shard(0)];
    low.ranges[0].first_sequence = Some(SequenceNumber(1));
    assert_eq!(conflict_of(&mut world, &context, &low), Conflict::Renumber { above: last });
    let mut child = fixture::batch(&mut world, &context, 1, None, 5, last);
    child.ranges[0].parents = vec![fixture::shard(0)];
    commit_ok(&mut world, &context, child);
    let zombie = fixture::batch(&mut world, &context, 0, Some(5), 9, last);
    let expected = Conflict::ShardClosed { shard: fixture::shard(0), at: 5.into() };
    assert_eq!(conflict_of(&mut world, &context, &zombie), expected);
    assert_eq!(world.ok(release_slots(&context)), []);
    world.ok(reserve_slot(&context, fixture::shard(0)));
    assert_eq!(world.ok(release_slots(&context)), [fixture::shard(0)]);
}

#[test]
fn rule_1_change_of_two_shards_of_which_one_is_covered_is_split_by_its_writer() {
    let (context, mut world) = table();
    let one = fixture::batch(&mut world, &context, 0, None, 5, ZERO);
    let mut both = fixture::batch(&mut world, &context, 1, None, 5, ZERO);
    both.ranges.push(one.ranges[0].clone());
    commit_ok(&mut world, &context, one);
    assert_eq!(conflict_of(&mut world, &context, &both), Conflict::PartlyCovered { shard: fixture::shard(0) });
}

#[test]
fn batch_that_leaves_nothing_behind_moves_its_checkpoint_without_a_snapshot() {
    let (context, mut world) = table();
    let change = fixture::append(0, None, 4, Vec::new(), 0);
    let outcome = world.ok(commit(&context, change.clone()));
    assert_eq!(outcome, Outcome::Committed { snapshot: None, rev: 2, already: false });
    let again = world.ok(commit(&context, change));
    assert_eq!(again, Outcome::Committed { snapshot: None, rev: 2, already: true });
    assert_eq!(world.monitor.snapshot_ids(&world), []);
}

#[test]
fn commit_takes_two_item_requests_and_five_puts_besides_its_data_file() {
    let (context, mut world) = grown_by(3);
    let last = pointer(&world).checkpoints.recent().next().unwrap().1.last_sequence;
    let change = fixture::batch(&mut world, &context, 0, Some(12), 16, last);
    let (mut items, mut puts) = (0, 0);
    let machine = commit(&context, change);
    machine
        .run(|request| {
            let effects = match &request.effect {
                crate::io::Effect::All(effects) => effects.clone(),
                effect => vec![effect.clone()],
            };
            for effect in effects {
                use crate::io::Effect::{CreateItem, LoadItem, Put, SwapItem};
                items += usize::from(matches!(effect, LoadItem(_) | CreateItem { .. } | SwapItem { .. }));
                puts += usize::from(matches!(effect, Put { .. }));
            }
            world.perform(&request).unwrap()
        })
        .unwrap();
    assert_eq!((items, puts), (2, 5));
}

fn grown_by(batches: u64) -> (TableContext, World) {
    let (context, mut world) = table();
    let mut last = ZERO;
    for n in 0..batches {
        let change = fixture::batch(&mut world, &context, 0, (n > 0).then_some(n * 4), n * 4 + 4, last);
        last = change.ranges[0].last_sequence;
        commit_ok(&mut world, &context, change);
    }
    (context, world)
}

#[test]
fn rule_6_second_compaction_of_the_same_files_is_refused_and_appends_are_not() {
    let (context, mut world) = grown_by(3);
    let one = compaction(&mut world, &context, 0, "one");
    let two = compaction(&mut world, &context, 0, "two");
    let last = one.files.iter().map(|e| e.file.max_sequence_number).max().unwrap();
    let append = fixture::batch(&mut world, &context, 0, Some(12), 16, last);
    commit_ok(&mut world, &context, append);
    commit_ok(&mut world, &context, one.clone());
    assert!(matches!(conflict_of(&mut world, &context, &two), Conflict::InputNotLive { .. }));
    assert!(commit_ok(&mut world, &context, one).1, "the same change again is known by its id");
}

#[test]
fn rule_6_compactions_of_disjoint_inputs_that_would_overlap_at_a_level_conflict() {
    let (context, mut world) = grown_by(4);
    let mut files: Vec<ManifestEntry> =
        live(&mut world, &context).into_iter().filter(|e| e.bucket == Bucket(0)).collect();
    let (a, b) = (files.split_off(2), files);
    let mut change_of = |inputs: &[ManifestEntry], name: &str| {
        let rows: Vec<Row> =
            inputs.iter().flat_map(|e| fixture::rows(&world.objects[&codec_key(&context, e)].body)).collect();
        let mut change = Change::new(ChangeId::derive(name), ChangeKind::Compact, SchemaId(0), world.now_ms);
        change.files = inputs.iter().map(fixture::delete).collect();
        change.files.push(fixture::data_file(&mut world, &context, None, 0, 3, &rows));
        change
    };
    let (one, two) = (change_of(&a, "a"), change_of(&b, "b"));
    commit_ok(&mut world, &context, one);
    assert!(matches!(conflict_of(&mut world, &context, &two), Conflict::LevelOverlap { .. }));
}

#[test]
fn rule_6_upgrade_keeps_the_file_and_expiry_leaves_it_alone() {
    let (context, mut world) = grown_by(1);
    let file = live(&mut world, &context).into_iter().find(|e| e.bucket == Bucket(0)).unwrap();
    let mut upgrade = Change::new(ChangeId::derive("up"), ChangeKind::Compact, SchemaId(0), world.now_ms);
    let mut lifted = file.clone();
    lifted.file.level = siltstone_format::id::Level(5);
    upgrade.files = vec![lifted, fixture::delete(&file)];
    let (id, _) = commit_ok(&mut world, &context, upgrade);
    assert_eq!(world.monitor.snapshot(&world, id).unwrap().delta_record_count, Some(0));
    let last = pointer(&world).checkpoints.recent().next().unwrap().1.last_sequence;
    for n in 1..4 {
        let change = fixture::batch(&mut world, &context, 0, Some(n * 4), n * 4 + 4, last);
        commit_ok(&mut world, &context, change);
    }
    world.now_ms += 86_400_000;
    let expired = world.ok(expire(&context, expiry()));
    assert_eq!(expired.snapshots.len(), 3);
    assert!(world.objects.contains_key(&codec_key(&context, &file)));
}

#[test]
fn rule_7_dropped_deletes_conflict_with_older_rows_outside_the_inputs() {
    let (context, mut world) = grown_by(2);
    let mut all = compaction(&mut world, &context, 0, "deletes");
    let line = all.files.iter().map(|e| e.file.max_sequence_number).max().unwrap();
    all.dropped_deletes = crate::changes::DroppedDeletes::Below(line);
    // A row that arrives late, with a number below the line, in a key range of the inputs.
    let late = Row { key: 6, sequence: 77, shard: 8, position: 1 };
    let file = fixture::data_file(&mut world, &context, None, 0, 0, &[late]);
    let mut change = Change::new(ChangeId::derive("late"), ChangeKind::Append, SchemaId(0), world.now_ms - 1);
    change.files.push(file);
    commit_ok(&mut world, &context, change);
    assert!(matches!(conflict_of(&mut world, &context, &all), Conflict::DroppedDelete { .. }));
    all.id = ChangeId::derive("deletes, again");
    all.dropped_deletes = crate::changes::DroppedDeletes::All;
    let mut fresh = compaction(&mut world, &context, 0, "everything");
    fresh.dropped_deletes = crate::changes::DroppedDeletes::All;
    commit_ok(&mut world, &context, fresh);
}

#[test]
fn paused_table_takes_no_commit_until_it_is_resumed() {
    let (context, mut world) = table();
    let change = fixture::batch(&mut world, &context, 0, None, 4, ZERO);
    world.ok(set_paused(&context, true));
    let outcome = world.ok(commit(&context, change.clone()));
    assert_eq!(outcome, Outcome::Conflict(Conflict::Paused));
    world.ok(set_paused(&context, false));
    commit_ok(&mut world, &context, change);
}

#[test]
fn change_planned_in_another_incarnation_is_refused() {
    let (mut context, mut world) = table();
    context.incarnation = Some(crate::context::Incarnation("another".into()));
    let change = fixture::batch(&mut world, &context, 0, None, 4, ZERO);
    let error = world.run(commit(&context, change)).unwrap().unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Mismatch);
}

#[test]
fn partitioned_table_reads_only_manifests_of_the_touched_partition() {
    let context = fixture::partitioned();
    let mut world = World::new(&context, 5);
    world.ok(create(&context, None));
    for partition in 0..6 {
        let row = Row { key: 2, sequence: 5 + i64::from(partition), shard: 3, position: 1 + partition as u64 };
        let file = fixture::data_file(&mut world, &context, Some(partition), 0, 0, &[row]);
        let id = ChangeId::derive(&format!("p{partition}"));
        let mut change = Change::new(id, ChangeKind::Append, SchemaId(0), world.now_ms - 1);
        change.files.push(file);
        commit_ok(&mut world, &context, change);
    }
    let target = live(&mut world, &context).into_iter().nth(2).unwrap();
    let mut drop = Change::new(ChangeId::derive("drop"), ChangeKind::Overwrite, SchemaId(0), world.now_ms);
    drop.files.push(fixture::delete(&target));
    let mut manifests = 0;
    let machine = commit(&context, drop);
    machine
        .run(|request| {
            if let crate::io::Effect::Get { key } = &request.effect {
                manifests += usize::from(key.contains("/manifest-") && !key.contains("manifest-list"));
            }
            world.perform(&request).unwrap()
        })
        .unwrap();
    assert_eq!(manifests, 1);
    assert_eq!(live(&mut world, &context).len(), 5);
}

#[test]
fn bare_warehouse_is_compacted_and_a_lost_race_is_evaluated_again() {
    let (mut context, mut world) = table();
    context.authority = Authority::Bare;
    world.items.clear();
    for n in 0..3 {
        foreign_commit(&mut world, &context, 50 + n);
    }
    let snapshot = world.ok(load(&context, false)).snapshot.unwrap();
    let inputs = world.ok(live_files(&context, snapshot, Scope::Everything));
    let mut change = Change::new(ChangeId::derive("bare"), ChangeKind::Compact, SchemaId(0), world.now_ms);
    change.files = inputs.iter().map(fixture::delete).collect();
    let row = Row { key: 100, sequence: 52, shard: 77, position: 52 };
    change.files.push(fixture::data_file(&mut world, &context, None, 0, 5, &[row]));
    let mut raced = false;
    let outcome = commit(&context, change.clone()).run(|request| {
        if request.step.starts_with("publish/1") && !raced {
            raced = true;
            foreign_commit(&mut world, &context, 99);
        }
        world.perform(&request).unwrap()
    });
    assert_eq!(outcome.unwrap(), Outcome::Committed { snapshot: Some(SnapshotId(5)), rev: 0, already: false });
    let snapshot = world.ok(load(&context, false)).snapshot.unwrap();
    assert_eq!(world.ok(live_files(&context, snapshot, Scope::Everything)).len(), 2);
    let again = world.ok(commit(&context, change));
    assert!(matches!(again, Outcome::Committed { already: true, .. }));
}

#[test]
fn bare_warehouse_that_lost_its_newest_snapshot_takes_no_commit() {
    let (mut context, mut world) = table();
    context.authority = Authority::Bare;
    world.items.clear();
    for n in 0..3 {
        foreign_commit(&mut world, &context, 50 + n);
    }
    world.put(&context.location.latest_hint(), "3");
    let snapshot = world.objects.remove(&context.location.snapshot(SnapshotId(3))).unwrap();
    let older = world.ok(load(&context, false)).snapshot.unwrap();
    let inputs = world.ok(live_files(&context, older, Scope::Everything));
    let mut change = Change::new(ChangeId::derive("bare"), ChangeKind::Compact, SchemaId(0), world.now_ms);
    change.files = inputs.iter().map(fixture::delete).collect();
    let before = world.objects.len();
    let error = world.run(commit(&context, change.clone())).unwrap().unwrap_err().to_string();
    assert!(error.contains("LATEST") && error.contains("snapshot-3"), "{error}");
    assert_eq!(world.objects.len(), before, "nothing was written");
    world.objects.insert(context.location.snapshot(SnapshotId(3)), snapshot);
    world.ok(commit(&context, change));
}
