//! Expiry and sweep: rules 4 and 5, and what must survive them.

use std::collections::BTreeSet;

use super::*;
use crate::{io::Step, protocol::Severity};

/// Five snapshots, the second one a compaction of bucket 0, all two hours old.
fn old_table() -> (TableContext, World) {
    let (context, mut world) = grown_by(1);
    let change = compaction(&mut world, &context, 0, "c");
    commit_ok(&mut world, &context, change);
    let last = pointer(&world).checkpoints.recent().next().unwrap().1.last_sequence;
    for n in 1..4_u64 {
        let change = fixture::batch(&mut world, &context, 0, Some(n * 4), n * 4 + 4, last);
        commit_ok(&mut world, &context, change);
    }
    world.now_ms += 2 * 3_600_000;
    (context, world)
}

fn sweep_now() -> SweepOptions {
    SweepOptions { dry_run: false, ..SweepOptions::default() }
}

#[test]
fn rule_4_expiry_deletes_what_only_expired_snapshots_needed() {
    let (context, mut world) = old_table();
    let expired = world.ok(expire(&context, expiry()));
    assert_eq!(expired.snapshots, [1, 2, 3].map(SnapshotId));
    assert_eq!((expired.earliest, pointer(&world).earliest), (SnapshotId(4), SnapshotId(4)));
    assert_eq!(world.monitor.snapshot_ids(&world), [4, 5].map(SnapshotId));
    assert_eq!(&world.objects[&context.location.earliest_hint()].body[..], b"4");
    let data = expired.keys.iter().filter(|k| k.contains("bucket-")).count();
    assert_eq!(data, 1, "the compacted file: {:?}", expired.keys);
    assert_eq!(world.ok(expire(&context, expiry())).snapshots, []);
}

#[test]
fn rule_4_name_stays_until_its_successor_is_twenty_minutes_old() {
    let (context, mut world) = grown_by(4);
    let greedy = ExpireOptions { retain_min: 1, retain_max: 1, time_retained_ms: 0, ..ExpireOptions::default() };
    world.now_ms += 19 * 60_000;
    assert_eq!(world.ok(expire(&context, greedy.clone())).snapshots, []);
    world.now_ms += 2 * 60_000;
    assert_eq!(world.ok(expire(&context, greedy)).snapshots, [1, 2, 3].map(SnapshotId));
}

#[test]
fn rule_4_tag_keeps_its_files_and_consumer_keeps_its_snapshots() {
    let (context, mut world) = old_table();
    let tagged = world.objects[&context.location.snapshot(SnapshotId(1))].body.clone();
    let mut json: serde_json::Value = serde_json::from_slice(&tagged).unwrap();
    json["tagCreateTime"] = serde_json::json!([2026, 1, 2, 3, 4, 5]);
    world.put(&context.location.tag("keep"), serde_json::to_vec(&json).unwrap());
    world.put(&format!("{}a", context.location.consumer_prefix()), r#"{"nextSnapshot": 3}"#);
    let expired = world.ok(expire(&context, expiry()));
    assert_eq!(expired.snapshots, [1, 2].map(SnapshotId));
    assert!(!expired.keys.iter().any(|k| k.contains("bucket-")), "{:?}", expired.keys);
    let snapshot = crate::codec::decode_snapshot("tag", &tagged).unwrap();
    for entry in world.ok(live_files(&context, snapshot, Scope::Everything)) {
        assert!(world.objects.contains_key(&codec_key(&context, &entry)));
    }
    world.ok(rollback(&context, RollbackTarget::Tag("keep".into()), ChangeId::derive("to tag")));
}

/// Java's expiry takes the changelog of an expired snapshot away, also where a tag holds its rows (random history of seed 1010).
#[test]
fn rule_4_tag_whose_changelog_went_with_its_snapshot_is_kept_and_stops_nothing() {
    let (context, mut world) = old_table();
    let first = world.objects[&context.location.snapshot(SnapshotId(1))].body.clone();
    let mut tag: serde_json::Value = serde_json::from_slice(&first).unwrap();
    tag["changelogManifestList"] = "manifest-list-gone".into();
    tag["changelogManifestListSize"] = 1_000.into();
    world.put(&context.location.tag("keep"), serde_json::to_vec(&tag).unwrap());
    let expired = world.ok(expire(&context, expiry()));
    assert_eq!(expired.snapshots, [1, 2, 3].map(SnapshotId));
    assert!(!expired.keys.iter().any(|k| k.contains("bucket-")), "{:?}", expired.keys);
    world.ok(sweep(&context, SweepOptions { dry_run: false, ..SweepOptions::default() }));
    let findings = world.ok(check(&context)).findings;
    assert!(findings.iter().all(|f| f.severity == Severity::Note), "{findings:?}");
    assert!(findings.iter().any(|f| f.object.ends_with("tag-keep") && f.message.contains("changelog")), "{findings:?}");

    tag["deltaManifestList"] = "manifest-list-gone".into();
    world.put(&context.location.tag("keep"), serde_json::to_vec(&tag).unwrap());
    let findings = world.ok(check(&context)).findings;
    assert!(
        findings.iter().any(|f| f.severity == Severity::Error && f.object.ends_with("manifest-list-gone")),
        "{findings:?}"
    );
    assert!(world.run(sweep(&context, SweepOptions::default())).unwrap().is_err());
}

#[test]
fn rule_4_tag_that_is_made_while_expiry_looks_keeps_its_files() {
    let (context, mut world) = old_table();
    let tagged = world.objects[&context.location.snapshot(SnapshotId(1))].body.clone();
    let tag = |world: &mut World| world.put(&context.location.tag("late"), tagged.clone());
    let expired = ok_with(&mut world, expire(&context, expiry()), |request| request.step == steps::EXPIRE_RAISE, tag);
    assert_eq!(expired.snapshots, [1, 2, 3].map(SnapshotId));
    let snapshot = crate::codec::decode_snapshot("tag", &tagged).unwrap();
    for entry in world.ok(live_files(&context, snapshot, Scope::Everything)) {
        assert!(world.objects.contains_key(&codec_key(&context, &entry)), "{}", entry.file.file_name);
    }
}

/// Lists say which files are to go: without them nobody would find those again.
#[test]
fn rule_4_expiry_that_stops_between_its_deletions_leaves_nothing_to_the_sweep() {
    let (context, world) = old_table();
    let all = world.clone().ok(expire(&context, expiry())).keys;
    for step in [steps::EXPIRE_DATA, steps::EXPIRE_MANIFESTS, steps::EXPIRE_NAMES] {
        let mut world = world.clone();
        world.stop_before(expire(&context, expiry()), step);
        world.ok(expire(&context, expiry()));
        let left: Vec<&String> = all.iter().filter(|key| world.objects.contains_key(*key)).collect();
        assert!(left.is_empty(), "stopped before {step}: {left:?}");
    }
}

#[test]
fn rule_4_latest_is_raised_before_names_below_it_go() {
    let (context, mut world) = old_table();
    world.put(&context.location.latest_hint(), "1");
    world.ok(expire(&context, expiry()));
    assert_eq!(&world.objects[&context.location.latest_hint()].body[..], b"5");
}

#[test]
fn rule_5_sweep_takes_old_orphans_and_nothing_else() {
    let (context, mut world) = old_table();
    let orphan = fixture::batch(&mut world, &context, 7, None, 5, ZERO);
    for key in ["README.md", "siltstone/quarantine/x", "schema/schema-0.bak", "manifest/README"] {
        world.put(&format!("{}/{key}", context.location.root()), "mine");
    }
    world.put(&context.location.manifest("manifest-lost-0"), "lost");
    world.now_ms += 3 * 86_400_000;
    let young = fixture::batch(&mut world, &context, 8, None, 5, ZERO);
    let before: BTreeSet<String> = world.objects.keys().cloned().collect();
    let rev = pointer(&world).rev;
    let dry = world.ok(sweep(&context, SweepOptions::default()));
    assert_eq!((pointer(&world).rev, world.objects.len()), (rev, before.len()), "a dry run changes nothing");
    let swept = world.ok(sweep(&context, SweepOptions { dry_run: false, ..SweepOptions::default() }));
    assert_eq!(dry, swept);
    let mut expected: Vec<String> = orphan.files.iter().map(|e| codec_key(&context, e)).collect();
    expected.push(context.location.manifest("manifest-lost-0"));
    expected.sort();
    assert_eq!(swept.keys, expected);
    // What the sweep took can never be named again, what it left can.
    assert!(matches!(conflict_of(&mut world, &context, &orphan), Conflict::OlderThanSweep { .. }));
    commit_ok(&mut world, &context, young);
}

#[test]
fn rule_5_a_run_that_slept_through_a_sweep_commits_nothing_and_is_run_again() {
    let (context, mut world) = old_table();
    let mut change = fixture::batch(&mut world, &context, 7, None, 5, ZERO);
    change.files.clear();
    let (mut run, mut reply) = (commit(&context, change.clone()), None);
    let swap = loop {
        match run.resume(reply.take()) {
            Step::Do(request) if request.step == steps::COMMIT_SWAP => break request,
            Step::Do(request) => reply = world.perform(&request),
            Step::Done(_) => panic!("it never came to the swap"),
        }
    };
    world.now_ms += 3 * 86_400_000;
    world.ok(sweep(&context, SweepOptions { dry_run: false, ..SweepOptions::default() }));
    let mut reply = world.perform(&swap);
    let outcome = loop {
        match run.resume(reply.take()) {
            Step::Do(request) => reply = world.perform(&request),
            Step::Done(outcome) => break outcome.unwrap(),
        }
    };
    assert!(matches!(outcome, Outcome::Unknown { .. }), "its time is over, it claims nothing: {outcome:?}");
    assert!(matches!(world.ok(commit(&context, change)), Outcome::Committed { already: false, .. }));
}

#[test]
fn rule_5_sweep_leaves_what_clocks_that_are_apart_make_look_old() {
    let (context, mut world) = old_table();
    let orphan = fixture::batch(&mut world, &context, 7, None, 5, ZERO);
    let keys: Vec<String> = orphan.files.iter().map(|e| codec_key(&context, e)).collect();
    let SweepOptions { older_than_ms, clock_skew_ms, .. } = sweep_now();
    world.now_ms += older_than_ms + clock_skew_ms - 60_000;
    assert_eq!(world.ok(sweep(&context, sweep_now())).keys, Vec::<String>::new());
    world.now_ms += 120_000;
    assert_eq!(world.ok(sweep(&context, sweep_now())).keys, keys);
}

#[test]
fn rule_5_old_file_that_a_foreign_commit_names_while_the_sweep_looks_stays() {
    let (context, mut world) = old_table();
    let row = Row { key: 100, sequence: 1 << 40, shard: 77, position: 1 };
    let entry = fixture::data_file(&mut world, &context, None, 0, 0, &[row]);
    let key = codec_key(&context, &entry);
    world.now_ms += 3 * 86_400_000;
    let adopts = |world: &mut World| {
        foreign_of(world, &context, SnapshotId(5), entry.clone());
    };
    let swept = ok_with(&mut world, sweep(&context, sweep_now()), |request| request.step == steps::SWEEP_LIST, adopts);
    assert!(!swept.keys.contains(&key) && world.objects.contains_key(&key), "{:?}", swept.keys);
    assert_eq!(pointer(&world).version(), SnapshotId(6));
    assert!(live(&mut world, &context).iter().any(|e| e.file.file_name == entry.file.file_name));
}

/// No snapshot names them: only positions moved.
#[test]
fn rule_5_sweep_keeps_the_packed_checkpoints_of_the_pointer_and_takes_older_ones_by_their_age() {
    let (context, mut world) = table();
    let begin = |world: &mut World, shards: std::ops::Range<u32>| {
        for n in shards {
            let change = fixture::append(n, None, 1, Vec::new(), world.now_ms);
            assert!(matches!(world.ok(commit(&context, change)), Outcome::Committed { .. }));
        }
        context.key(pointer(world).checkpoints.packed_object().unwrap())
    };
    let first = begin(&mut world, 0..65);
    world.now_ms += 3 * 86_400_000;
    assert_eq!(world.ok(sweep(&context, sweep_now())).keys, Vec::<String>::new());
    let second = begin(&mut world, 65..98);
    assert_ne!(first, second);
    assert_eq!(world.ok(sweep(&context, sweep_now())).keys, [first]);
    let third = begin(&mut world, 98..131);
    assert_eq!(world.ok(sweep(&context, sweep_now())).keys, Vec::<String>::new(), "{second} may be wanted by a commit");
    world.now_ms += 3 * 86_400_000;
    assert_eq!(world.ok(sweep(&context, sweep_now())).keys, [second]);
    assert!(world.objects.contains_key(&third));
}

#[test]
fn rule_5_files_of_unfinished_jobs_stay_if_the_caller_names_them() {
    let (context, mut world) = old_table();
    let job = fixture::batch(&mut world, &context, 7, None, 5, ZERO);
    let in_flight = job.files.iter().map(|e| codec_key(&context, e)).collect();
    world.now_ms += 3 * 86_400_000;
    let options = SweepOptions { dry_run: false, in_flight, ..SweepOptions::default() };
    assert_eq!(world.ok(sweep(&context, options)).keys, Vec::<String>::new());
}

#[test]
fn decoupled_changelogs_are_refused_by_expiry() {
    let (context, mut world) = old_table();
    let options = ExpireOptions { decoupled_changelog: true, ..expiry() };
    let error = world.run(expire(&context, options)).unwrap().unwrap_err();
    assert!(error.to_string().contains("changelog.*-retained"), "{error}");
}

#[test]
fn check_names_what_is_missing_and_what_has_another_size() {
    let (context, mut world) = old_table();
    assert_eq!(world.ok(check(&context)).findings, []);
    let files = live(&mut world, &context);
    let (gone, short) = (codec_key(&context, &files[0]), codec_key(&context, &files[1]));
    world.objects.remove(&gone);
    world.put(&short, "x");
    world.put(&context.location.latest_hint(), "99");
    let objects: Vec<String> = world.ok(check(&context)).findings.into_iter().map(|f| f.object).collect();
    let expected = BTreeSet::from([gone, short, context.location.latest_hint()]);
    assert_eq!(objects.into_iter().collect::<BTreeSet<_>>(), expected);
}
