//! Publication, foreign writers, rollback and restore: rules 2, 3, 8 and 9.

use super::*;
use crate::{
    checkpoint::ListId,
    io::{Effect, ItemName},
    pointer::{PROPERTY_CHECKPOINTS, TableState},
    protocol::Severity,
    testing::world::Fault,
};

#[test]
fn rule_2_lost_answer_of_the_swap_is_found_committed_and_not_repeated() {
    let (context, world) = grown_by(1);
    let mut whole = world.clone();
    let last = pointer(&world).checkpoints.recent().next().unwrap().1.last_sequence;
    let change = fixture::batch(&mut whole, &context, 0, Some(4), 8, last);
    whole.log.clear();
    let start = whole.clone();
    commit_ok(&mut whole, &context, change.clone());
    let at = whole.log.iter().position(|s| s.starts_with("commit/6")).unwrap();
    let mut world = start;
    world.plan = Some((at, Fault::LostAnswer));
    assert_eq!(commit_ok(&mut world, &context, change), (SnapshotId(2), false));
    assert_eq!(pointer(&world).rev, 3);
}

#[test]
fn rule_3_snapshot_of_a_dead_author_is_published_by_whoever_comes_next() {
    let (context, mut world) = grown_by(1);
    let last = pointer(&world).checkpoints.recent().next().unwrap().1.last_sequence;
    let dead = fixture::batch(&mut world, &context, 0, Some(4), 8, last);
    world.stop_before(commit(&context, dead.clone()), "publish/1");
    assert_eq!(world.monitor.snapshot_ids(&world), [SnapshotId(1)]);
    // The redelivered batch is acknowledged only now that it is published.
    let again = Change { files: Vec::new(), ..dead };
    assert_eq!(commit_ok(&mut world, &context, again), (SnapshotId(2), true));
    assert_eq!(world.monitor.snapshot_ids(&world), [1, 2].map(SnapshotId));
}

#[test]
fn rule_8_foreign_snapshot_on_top_of_ours_is_adopted_and_our_change_rebased() {
    let (context, mut world) = grown_by(2);
    let last = pointer(&world).checkpoints.recent().next().unwrap().1.last_sequence;
    let change = fixture::batch(&mut world, &context, 0, Some(8), 12, last);
    foreign_commit(&mut world, &context, 7);
    assert_eq!(commit_ok(&mut world, &context, change).0, SnapshotId(4));
    let keys: Vec<i64> = live(&mut world, &context).iter().map(|e| e.file.min_sequence_number.0).collect();
    assert!(keys.contains(&7), "the foreign row is there");
}

#[test]
fn rule_8_adoption_raises_the_floor_and_numbers_below_it_are_renumbered() {
    let (context, mut world) = grown_by(1);
    let change = fixture::batch(&mut world, &context, 0, Some(4), 8, ZERO);
    let above = change.ranges[0].last_sequence.0 + (1 << 30);
    foreign_commit(&mut world, &context, above);
    let floor = crate::sequence::padded(SequenceNumber(above));
    assert_eq!(conflict_of(&mut world, &context, &change), Conflict::Renumber { above: floor });
    let renumbered = fixture::batch(&mut world, &context, 0, Some(4), 8, floor);
    commit_ok(&mut world, &context, renumbered);
}

#[test]
fn rule_8_foreign_snapshot_in_place_of_ours_forks_and_repair_keeps_both() {
    let (context, mut world) = forked();
    assert_eq!(pointer(&world).state, TableState::Forked);
    let change = fixture::batch(&mut world, &context, 1, None, 3, ZERO);
    let error = world.run(commit(&context, change)).unwrap().unwrap_err();
    assert!(matches!(error, CommitError::Forked { .. }));
    let repaired = world.ok(repair_fork(&context));
    assert_eq!((repaired.state, repaired.version()), (TableState::Active, SnapshotId(4)));
    let numbers: Vec<i64> = live(&mut world, &context).iter().map(|e| e.file.min_sequence_number.0).collect();
    assert!(numbers.contains(&5), "theirs");
    let rows: i64 = live(&mut world, &context).iter().map(|e| e.file.row_count).sum();
    assert_eq!(rows, 13, "twelve of ours, one of theirs");
    assert_eq!(world.ok(check(&context)).findings, []);
}

/// Simulated history of seed 3100553195774919: our APPEND was in the table twice.
#[test]
fn rule_9_pointer_restored_from_a_copy_made_in_a_fork_is_rolled_forward_and_not_repaired_again() {
    let (context, mut world, before) = copied_in_a_fork();
    let live_before = live_of(&mut world, &context, &before);
    let repaired = world.ok(repair_fork(&context));
    assert_eq!((repaired.state, repaired.version()), (TableState::Active, before.version()));
    assert_eq!(repaired.checkpoints, before.checkpoints);
    assert_ne!(repaired.incarnation, before.incarnation);
    assert_eq!(live_of(&mut world, &context, &repaired), live_before);
    assert_eq!(world.ok(check(&context)).findings, []);
}

#[test]
fn rule_8_foreign_rollback_is_refused_and_nothing_is_put_again() {
    let (context, mut world) = grown_by(3);
    world.ok(set_paused(&context, true));
    world.ok(set_paused(&context, false));
    world.objects.remove(&context.location.snapshot(SnapshotId(3)));
    let before = world.objects.len();
    let error = world.run(load(&context, false)).unwrap().unwrap_err();
    assert!(matches!(error, CommitError::ForeignRollback { missing: SnapshotId(3), .. }), "{error}");
    assert_eq!(world.objects.len(), before);
    // The tip's own publication was not yet on record, but its lists are gone: Java's rollback deletes them.
    let (context, mut world) = grown_by(3);
    let list = pointer(&world).snapshot.unwrap().delta_manifest_list;
    world.objects.remove(&context.location.snapshot(SnapshotId(3)));
    world.objects.remove(&context.location.manifest(&list));
    let error = world.run(load(&context, false)).unwrap().unwrap_err();
    assert!(matches!(error, CommitError::ForeignRollback { missing: SnapshotId(3), .. }), "{error}");
}

/// What another engine's expiry leaves of the snapshots below `kept`: no name, no list, no EARLIEST that names one.
fn expired_by_others(world: &mut World, context: &TableContext, kept: SnapshotId) {
    for id in world.monitor.snapshot_ids(world).into_iter().filter(|id| *id < kept) {
        let key = context.location.snapshot(id);
        let snapshot = crate::codec::decode_snapshot(&key, &world.objects[&key].body).unwrap();
        let lists =
            [Some(snapshot.base_manifest_list), Some(snapshot.delta_manifest_list), snapshot.changelog_manifest_list];
        lists.into_iter().flatten().for_each(|name| drop(world.objects.remove(&context.location.manifest(&name))));
        world.objects.remove(&key);
    }
    world.objects.remove(&context.location.earliest_hint());
}

#[test]
fn rule_8_snapshot_of_ours_that_others_expired_below_their_own_is_passed_over() {
    let (context, mut world) = grown_by(2);
    let last = pointer(&world).checkpoints.recent().next().unwrap().1.last_sequence;
    world.monitor.foreign = true;
    foreign_commit(&mut world, &context, 7);
    let newest = foreign_commit(&mut world, &context, 9);
    expired_by_others(&mut world, &context, newest);
    let positions = pointer(&world).checkpoints;
    let adopted = world.ok(load(&context, false)).pointer.unwrap();
    assert_eq!((adopted.version(), adopted.earliest, adopted.published), (newest, newest, newest));
    assert_eq!(adopted.checkpoints, positions);
    let change = fixture::batch(&mut world, &context, 0, Some(8), 12, last);
    assert_eq!(commit_ok(&mut world, &context, change).0, newest.next());
    let numbers: Vec<i64> = live(&mut world, &context).iter().map(|e| e.file.min_sequence_number.0).collect();
    assert!(numbers.contains(&7) && numbers.contains(&9), "the foreign rows are there: {numbers:?}");
    let findings = world.ok(check(&context)).findings;
    assert_eq!(findings, []);
}

/// Random history of seed 1004: a tag keeps the lists of the expired snapshot.
#[test]
fn rule_8_snapshot_of_ours_that_others_tagged_and_expired_is_passed_over() {
    let (context, mut world) = grown_by(2);
    world.monitor.foreign = true;
    let ours = context.location.snapshot(SnapshotId(2));
    let tagged = world.objects[&ours].clone();
    world.objects.insert(context.location.tag("kept"), tagged);
    foreign_commit(&mut world, &context, 7);
    let newest = foreign_commit(&mut world, &context, 9);
    expired_by_others(&mut world, &context, SnapshotId(2));
    for id in 2..newest.0 {
        world.objects.remove(&context.location.snapshot(SnapshotId(id)));
    }
    assert_eq!(world.ok(load(&context, false)).pointer.unwrap().version(), newest);
}

/// Random history of seed 120: our first commit became a snapshot 1 below theirs, which no reader sees.
#[test]
fn rule_8_table_that_others_began_and_expired_before_our_first_commit_is_adopted() {
    let (context, mut world) = table();
    world.monitor.foreign = true;
    foreign_commit(&mut world, &context, 7);
    let newest = foreign_commit(&mut world, &context, 9);
    expired_by_others(&mut world, &context, newest);
    let change = fixture::batch(&mut world, &context, 0, None, 4, ZERO);
    assert_eq!(commit_ok(&mut world, &context, change).0, newest.next());
    let numbers: Vec<i64> = live(&mut world, &context).iter().map(|e| e.file.min_sequence_number.0).collect();
    assert!(numbers.contains(&7) && numbers.contains(&9), "the foreign rows are there: {numbers:?}");
}

#[test]
fn rule_8_snapshot_that_vanished_with_its_lists_in_place_is_no_expiry() {
    let (context, mut world) = grown_by(2);
    world.monitor.foreign = true;
    foreign_commit(&mut world, &context, 7);
    let newest = foreign_commit(&mut world, &context, 9);
    for id in 1..newest.0 {
        world.objects.remove(&context.location.snapshot(SnapshotId(id)));
    }
    let error = world.run(load(&context, false)).unwrap().unwrap_err();
    assert!(matches!(error, CommitError::PointerBehind { .. }), "{error}");
}

#[test]
fn rule_8_own_snapshot_above_an_expired_one_means_that_the_pointer_was_restored() {
    let (context, mut world) = grown_by(1);
    let last = pointer(&world).checkpoints.recent().next().unwrap().1.last_sequence;
    let old = world.items.clone();
    let change = fixture::batch(&mut world, &context, 0, Some(4), 8, last);
    commit_ok(&mut world, &context, change);
    world.monitor.foreign = true;
    foreign_commit(&mut world, &context, 7);
    expired_by_others(&mut world, &context, SnapshotId(2));
    world.items = old;
    let error = world.run(load(&context, false)).unwrap().unwrap_err();
    assert!(matches!(error, CommitError::PointerBehind { found: SnapshotId(2), .. }), "{error}");
}

/// Simulated history of seed 4407552300837540: the foreign one was adopted, and only then was ours seen above it.
#[test]
fn rule_8_foreign_snapshot_below_one_of_ours_is_not_adopted_by_a_restored_pointer() {
    let (context, mut world) = grown_by(1);
    let last = pointer(&world).checkpoints.recent().next().unwrap().1.last_sequence;
    let old = world.items.clone();
    world.monitor.foreign = true;
    foreign_commit(&mut world, &context, 7);
    let change = fixture::batch(&mut world, &context, 0, Some(4), 8, last);
    assert_eq!(commit_ok(&mut world, &context, change).0, SnapshotId(3));
    world.items = old.clone();
    let error = world.run(load(&context, true)).unwrap().unwrap_err();
    assert!(matches!(error, CommitError::PointerBehind { found: SnapshotId(3), .. }), "{error}");
    assert_eq!(world.items, old);
}

/// Simulated history of seed 800028023: the lists of ours were gone when a slow reader came to prove that the foreign snapshot stands on them.
#[test]
fn rule_8_adoption_that_others_have_made_and_expired_meanwhile_is_looked_at_again() {
    let (context, mut world) = grown_by(2);
    world.monitor.foreign = true;
    let newest = foreign_commit(&mut world, &context, 7);
    let list = context.location.manifest(&pointer(&world).snapshot.unwrap().delta_manifest_list);
    let gets = |effect: &Effect| matches!(effect, Effect::Get { key } if *key == list);
    let needs_our_list = |request: &Request| match &request.effect {
        Effect::All(effects) => effects.iter().any(gets),
        effect => gets(effect),
    };
    let loaded = ok_with(&mut world, load(&context, true), needs_our_list, |world| {
        world.ok(load(&context, true));
        expired_by_others(world, &context, newest);
    });
    assert_eq!(loaded.pointer.unwrap().version(), newest);
}

#[test]
fn check_tells_foreign_expiry_from_a_lost_snapshot() {
    let (context, mut world) = grown_by(4);
    expired_by_others(&mut world, &context, SnapshotId(2));
    let findings = world.ok(check(&context)).findings;
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].severity, Severity::Note);
    assert!(findings[0].message.contains("expired snapshots 1 to 1"), "{findings:?}");
    world.objects.remove(&context.location.snapshot(SnapshotId(3)));
    let findings = world.ok(check(&context)).findings;
    assert!(findings.iter().any(|f| f.severity == Severity::Error && f.object.ends_with("snapshot-3")), "{findings:?}");
}

#[test]
fn rule_8_rollback_brings_the_content_back_and_leaves_the_positions() {
    let (context, mut world) = grown_by(2);
    let wanted = world.watch(|monitor, world| monitor.newest(world));
    let old = compaction(&mut world, &context, 0, "c");
    commit_ok(&mut world, &context, old);
    let last = pointer(&world).checkpoints.recent().next().unwrap().1.last_sequence;
    let change = fixture::batch(&mut world, &context, 0, Some(8), 20, last);
    commit_ok(&mut world, &context, change);
    let before = pointer(&world).checkpoints;
    let target = RollbackTarget::Snapshot(SnapshotId(2));
    let outcome = world.ok(rollback(&context, target.clone(), ChangeId::derive("r")));
    assert_eq!(outcome, Outcome::Committed { snapshot: Some(SnapshotId(5)), rev: 6, already: false });
    assert_eq!(world.watch(|monitor, world| monitor.newest(world)), wanted);
    assert_eq!(pointer(&world).checkpoints, before);
    let again = world.ok(rollback(&context, target, ChangeId::derive("r")));
    assert!(matches!(again, Outcome::Committed { already: true, .. }));
    // The copies outlive the expiry of what they were copied from.
    world.now_ms += 86_400_000;
    world.ok(expire(&context, ExpireOptions { retain_min: 1, ..expiry() }));
    assert_eq!(world.watch(|monitor, world| monitor.newest(world)), wanted);
}

#[test]
fn rule_9_lost_pointer_is_rebuilt_with_its_checkpoints_as_a_new_incarnation() {
    let (context, mut world) = grown_by(3);
    let before = pointer(&world);
    world.items.remove(&ItemName::Pointer);
    let restored = world.ok(restore(&context));
    assert_eq!(restored.checkpoints, before.checkpoints);
    assert_eq!(restored.table_uuid, before.table_uuid);
    assert_ne!(restored.incarnation, before.incarnation);
    assert!(restored.rev > before.rev + 1_000 && restored.floor >= before.floor);
    let last = crate::protocol::sequence_floor(
        &restored,
        crate::sequence::Reservation { slot: crate::sequence::Slot(1), floor: ZERO },
    );
    let change = fixture::batch(&mut world, &context, 0, Some(12), 16, last);
    assert_eq!(commit_ok(&mut world, &context, change).0, SnapshotId(4));
}

#[test]
fn rule_9_list_of_a_batch_that_was_all_quarantined_outlives_its_pointer() {
    let (context, mut world) = grown_by(1);
    let old = world.items.clone();
    let mut change = fixture::append(0, Some(4), 8, Vec::new(), 0);
    let last = pointer(&world).checkpoints.recent().next().unwrap().1.last_sequence;
    change.ranges[0].last_sequence = SequenceNumber(last.0 + 4);
    change.ranges[0].list = Some(ListId(7));
    assert_eq!(commit_ok(&mut world, &context, change.clone()), (SnapshotId(2), false));
    let before = pointer(&world).checkpoints;
    world.items = old;
    assert_eq!(world.ok(restore(&context)).checkpoints, before);
    assert!(commit_ok(&mut world, &context, change).1, "acknowledged, and not to be delivered again");
}

#[test]
fn rule_9_pointer_behind_s3_serves_nothing_until_it_is_restored() {
    let (context, mut world) = grown_by(2);
    let old = world.items.clone();
    let last = pointer(&world).checkpoints.recent().next().unwrap().1.last_sequence;
    let change = fixture::batch(&mut world, &context, 0, Some(8), 12, last);
    commit_ok(&mut world, &context, change.clone());
    world.items = old;
    let error = world.run(commit(&context, change.clone())).unwrap().unwrap_err();
    assert!(matches!(error, CommitError::PointerBehind { found: SnapshotId(3), .. }), "{error}");
    world.ok(restore(&context));
    assert!(commit_ok(&mut world, &context, change).1, "the lost pointer's commit is known again");
}

#[test]
fn every_published_snapshot_carries_what_its_pointer_can_be_rebuilt_from() {
    let (_, world) = grown_by(2);
    let snapshot = world.monitor.snapshot(&world, SnapshotId(2)).unwrap();
    let packed = &snapshot.properties.unwrap()[PROPERTY_CHECKPOINTS];
    let bytes = crate::base64::decode(packed).unwrap();
    assert_eq!(bytes, pointer(&world).checkpoints.pack());
}

#[test]
fn existing_paimon_table_is_put_under_a_pointer_with_a_floor_above_its_rows() {
    let (context, mut world) = table();
    world.items.clear();
    foreign_commit(&mut world, &context, 5_000_000);
    let adopted = world.ok(adopt_table(&context));
    assert_eq!((adopted.version(), adopted.earliest), (SnapshotId(1), SnapshotId(1)));
    assert_eq!(adopted.floor, crate::sequence::padded(SequenceNumber(5_000_000)));
    let error = world.run(adopt_table(&context)).unwrap().unwrap_err();
    assert!(matches!(error, CommitError::TableExists { .. }));
    let change = fixture::batch(&mut world, &context, 0, None, 4, adopted.floor);
    assert_eq!(commit_ok(&mut world, &context, change).0, SnapshotId(2));
}

#[test]
fn create_refuses_a_table_that_is_there_and_finishes_one_that_was_interrupted() {
    let (context, mut world) = table();
    let error = world.run(create(&context, None)).unwrap().unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Mismatch);
    let mut world = World::new(&context, 3);
    world.stop_before(create(&context, None), "create/3");
    world.ok(create(&context, None));
}
