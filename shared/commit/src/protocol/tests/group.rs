//! The group commit: stage, fold, take-over, two holders, holders that wake up late, and who is told what.

use std::collections::BTreeSet;

use super::*;
use crate::{
    changes::CommitReport,
    io::{Effect, ItemName, Request, Step},
    staged::{self, Content, Staged, State},
    steps,
};

/// A machine that stands before its next request.
struct Actor<T> {
    machine: Machine<T>,
    request: Option<Request>,
    steps: Vec<&'static str>,
}

impl<T: std::fmt::Debug> Actor<T> {
    fn new(mut machine: Machine<T>) -> Self {
        let Step::Do(request) = machine.resume(None) else { panic!("it asks for nothing") };
        Self { machine, request: Some(request), steps: Vec::new() }
    }

    /// Performs requests until the next one is of this step.
    fn run_to(&mut self, world: &mut World, step: &str) {
        while self.request.as_ref().is_none_or(|request| request.step != step) {
            assert!(self.once(world).is_none(), "it ended before {step}: {:?}", self.steps);
        }
    }

    fn finish(mut self, world: &mut World) -> Result<T, CommitError> {
        loop {
            if let Some(result) = self.once(world) {
                return result;
            }
        }
    }

    fn once(&mut self, world: &mut World) -> Option<Result<T, CommitError>> {
        let request = self.request.take().expect("a request");
        self.steps.push(request.step);
        let reply = world.perform(&request).expect("no fuse");
        match self.machine.resume(Some(reply)) {
            Step::Do(request) => self.request = Some(request),
            Step::Done(result) => return Some(result),
        }
        None
    }
}

fn writer(context: &TableContext, world: &World, change: &Change) -> Actor<CommitReport> {
    Actor::new(commit_until(context, change.clone(), None, world.now_ms + 30_000))
}

/// A change that its writer has staged before it died.
pub(super) fn leave_staged(world: &mut World, change: &Change) {
    leave(world, change, Content::Inline(staged::pack(change).unwrap()));
}

/// The same, by reference to an object.
pub(super) fn leave_large(world: &mut World, context: &TableContext, change: &Change) {
    let name = staged::object_name(&world.uuid());
    world.put(&context.key(&name), staged::pack(change).unwrap());
    leave(world, change, Content::Object(name));
}

fn leave(world: &mut World, change: &Change, content: Content) {
    world.now_ms += 1;
    let incarnation = pointer(world).incarnation;
    let state = State::Pending(content);
    let item = Staged { id: change.id, kind: change.kind, incarnation, at_ms: world.now_ms, state };
    world.items.insert(ItemName::Staged(staged::name_of(change)), item.to_record(world.now_ms.unsigned_abs()));
    let lease = staged::Lease { holder: "long gone".to_owned(), until_ms: 0 };
    world.items.entry(ItemName::Lease).or_insert_with(|| lease.to_record(1));
}

fn state_of(world: &World, change: &Change) -> State {
    Staged::from_record(&world.items[&ItemName::Staged(staged::name_of(change))]).unwrap().state
}

fn first(world: &mut World, context: &TableContext, n: u32) -> Change {
    fixture::batch(world, context, n, None, 3, ZERO)
}

/// A table whose last snapshot is a fold of five changes, just now.
pub(super) fn busy_table() -> (TableContext, World) {
    let (context, mut world) = grown_by(2);
    for n in 10..15 {
        let change = first(&mut world, &context, n);
        leave_staged(&mut world, &change);
    }
    assert_eq!(world.ok(fold_staged(&context)).folded, 5);
    (context, world)
}

#[test]
fn writer_that_lost_a_race_stages_its_change_folds_it_and_is_answered() {
    let (context, mut world) = table();
    let (one, two) = (first(&mut world, &context, 1), first(&mut world, &context, 2));
    let mut loser = writer(&context, &world, &one);
    loser.run_to(&mut world, steps::COMMIT_SWAP);
    commit_ok(&mut world, &context, two);
    loser.run_to(&mut world, steps::STAGE_ITEM);
    let report = loser.finish(&mut world).unwrap();
    assert_eq!(report.outcome, Outcome::Committed { snapshot: Some(SnapshotId(2)), rev: 3, already: false });
    assert_eq!((report.staged, report.folded), (true, 1));
    assert_eq!(report.runs.iter().map(|r| r.runs).sum::<u64>(), one.files.len() as u64);
}

#[test]
fn staged_changes_become_one_snapshot_and_each_writer_is_answered() {
    let (context, mut world) = busy_table();
    let planned = pointer(&world);
    let mut writers = Vec::new();
    for n in 20..26 {
        let change = first(&mut world, &context, n);
        let machine = commit_until(&context, change.clone(), Some(planned.clone()), world.now_ms + 30_000);
        let mut writer = Actor::new(machine);
        writer.run_to(&mut world, steps::STAGE_WAIT);
        assert!(writer.steps.iter().all(|step| !step.starts_with("commit/4")), "it writes no manifest");
        writers.push((change, writer));
    }
    let mut reports = Vec::new();
    for (change, writer) in writers {
        let report = writer.finish(&mut world).unwrap();
        world.watch(|monitor, world| monitor.answered(world, &change, &report.outcome));
        reports.push(report);
    }
    assert_eq!(pointer(&world).version(), planned.version().next());
    assert_eq!(reports.iter().map(|r| r.folded).collect::<Vec<_>>(), [6, 0, 0, 0, 0, 0], "the first one holds");
    assert!(reports.iter().all(|r| matches!(r.outcome, Outcome::Committed { already: false, .. })));
}

#[test]
fn lone_writer_after_the_rush_commits_at_once_again() {
    let (context, mut world) = busy_table();
    let planned = pointer(&world);
    world.now_ms += 60_000;
    let change = first(&mut world, &context, 30);
    let report = world.ok(commit_until(&context, change, Some(planned), i64::MAX));
    assert!(!report.staged, "{report:?}");
}

#[test]
fn folds_come_at_most_once_a_second_under_load() {
    let (context, mut world) = busy_table();
    let before = pointer(&world).snapshot.unwrap().time_millis;
    let change = first(&mut world, &context, 30);
    leave_staged(&mut world, &change);
    world.ok(fold_staged(&context));
    assert!(pointer(&world).snapshot.unwrap().time_millis >= before + 1_000);
}

#[test]
fn bad_staged_changes_are_handed_back_and_sink_no_fold() {
    let (context, mut world) = table();
    let good = first(&mut world, &context, 1);
    leave_staged(&mut world, &good);
    let damaged = first(&mut world, &context, 2);
    leave(&mut world, &damaged, Content::Inline(bytes::Bytes::from_static(b"no change")));
    let gone = first(&mut world, &context, 3);
    leave(&mut world, &gone, Content::Object("siltstone/staged-gone".to_owned()));
    let mut unreadable = first(&mut world, &context, 4);
    unreadable.files[0].file.min_key.bytes.clear();
    unreadable.files[0].file.min_key.arity = 0;
    leave_staged(&mut world, &unreadable);
    let gap = fixture::batch(&mut world, &context, 5, Some(2), 4, ZERO);
    leave_staged(&mut world, &gap);
    let mut elsewhere = first(&mut world, &context, 6);
    elsewhere.id = ChangeId(6);
    leave_staged(&mut world, &elsewhere);
    let name = ItemName::Staged(staged::name_of(&elsewhere));
    let mut other_life = Staged::from_record(&world.items[&name]).unwrap();
    other_life.incarnation = crate::context::Incarnation("before".into());
    world.items.insert(name, other_life.to_record(9));
    let folds = world.ok(fold_staged(&context));
    assert_eq!((folds.folded, folds.released), (1, 5));
    assert!(matches!(state_of(&world, &good), State::Committed { .. }));
    for bad in [damaged, gone, unreadable, gap, elsewhere] {
        assert_eq!(state_of(&world, &bad), State::Released);
    }
}

#[test]
fn append_and_compact_folds_take_turns_and_never_share_a_snapshot() {
    let (context, mut world) = grown_by(3);
    let compact = compaction(&mut world, &context, 0, "c");
    leave_staged(&mut world, &compact);
    let append = first(&mut world, &context, 1);
    leave_large(&mut world, &context, &append);
    let folds = world.ok(fold_staged(&context));
    assert_eq!(folds.folded, 2);
    let kinds = [4, 5].map(|id| world.monitor.snapshot(&world, SnapshotId(id)).unwrap().commit_kind);
    use siltstone_format::snapshot::CommitKind::{Append, Compact};
    assert_eq!(kinds, [Compact, Append]);
}

#[test]
fn compactions_that_only_conflict_with_each_other_are_answered_fold_by_fold() {
    let (context, mut world) = grown_by(3);
    let (one, two) = (compaction(&mut world, &context, 0, "one"), compaction(&mut world, &context, 0, "two"));
    leave_staged(&mut world, &one);
    leave_staged(&mut world, &two);
    let folds = world.ok(fold_staged(&context));
    assert_eq!((folds.folded, folds.released), (1, 1));
    assert_eq!(state_of(&world, &two), State::Released);
    assert!(matches!(conflict_of(&mut world, &context, &two), Conflict::InputNotLive { .. }));
}

#[test]
fn lease_of_a_dead_holder_runs_out_and_the_next_writer_takes_over() {
    let (context, mut world) = busy_table();
    let planned = pointer(&world);
    let (dead, alive) = (first(&mut world, &context, 20), first(&mut world, &context, 21));
    let mut holder = writer(&context, &world, &dead);
    holder.run_to(&mut world, steps::COMMIT_SWAP);
    let other = first(&mut world, &context, 22);
    world.ok(commit(&context, other));
    holder.run_to(&mut world, steps::FOLD_SWAP);
    drop(holder);
    let taken_ms = world.now_ms;
    let machine = commit_until(&context, alive, Some(planned), world.now_ms + 30_000);
    let report = world.ok(machine);
    assert_eq!(report.folded, 2, "the dead holder's change, too");
    assert!(world.now_ms - taken_ms >= 4_000);
    assert!(matches!(state_of(&world, &dead), State::Committed { .. }));
}

#[test]
fn two_holders_at_once_and_one_that_wakes_after_its_lease_commit_each_change_once() {
    let (context, mut world) = table();
    let (one, two) = (first(&mut world, &context, 1), first(&mut world, &context, 2));
    leave_staged(&mut world, &one);
    let mut sleeper = Actor::new(fold_staged(&context));
    sleeper.run_to(&mut world, steps::FOLD_SWAP);
    world.now_ms += 10_000;
    leave_staged(&mut world, &two);
    assert_eq!(world.ok(fold_staged(&context)).folded, 2);
    let late = sleeper.finish(&mut world).unwrap();
    assert_eq!((late.folded, pointer(&world).version()), (0, SnapshotId(1)));
    assert_eq!(world.monitor.witnessed().len(), 6);
}

#[test]
fn writer_whose_deadline_comes_says_unknown_and_its_change_is_recognised_later() {
    let (context, mut world) = busy_table();
    let planned = pointer(&world);
    let change = first(&mut world, &context, 20);
    let machine = commit_until(&context, change.clone(), Some(planned.clone()), world.now_ms + 800);
    let report = world.ok(machine);
    assert_eq!(report.outcome, Outcome::Unknown { expected_rev: planned.rev });
    assert_eq!(world.ok(fold_staged(&context)).folded, 1);
    assert!(commit_ok(&mut world, &context, change).1, "known by its range");
}

#[test]
fn missing_or_replaced_item_proves_nothing_and_its_writer_looks_for_itself() {
    let (context, mut world) = busy_table();
    let planned = pointer(&world);
    let change = first(&mut world, &context, 20);
    for replace in [false, true] {
        let mut world = world.clone();
        let machine = commit_until(&context, change.clone(), Some(planned.clone()), world.now_ms + 30_000);
        let mut actor = Actor::new(machine);
        actor.run_to(&mut world, steps::STAGE_POLL);
        let name = ItemName::Staged(staged::name_of(&change));
        if replace {
            let twin = fixture::batch(&mut world, &context, 20, None, 2, ZERO);
            leave_staged(&mut world, &twin);
        } else {
            world.items.remove(&name);
        }
        let report = actor.finish(&mut world).unwrap();
        assert!(matches!(report.outcome, Outcome::Committed { already: false, .. }), "{report:?}");
    }
}

/// A holder has read a compaction that its writer then hears to be in conflict; what was in its way goes; the holder wakes up.
#[test]
fn conflict_that_may_pass_is_answered_only_once_no_holder_can_fold_the_change() {
    let (context, mut world) = grown_by(4);
    let files: Vec<ManifestEntry> = live(&mut world, &context).into_iter().filter(|e| e.bucket == Bucket(0)).collect();
    let rewrite = |world: &mut World, inputs: &[ManifestEntry], level: i32, name: &str| {
        let rows: Vec<Row> =
            inputs.iter().flat_map(|e| fixture::rows(&world.objects[&codec_key(&context, e)].body)).collect();
        let mut change = Change::new(ChangeId::derive(name), ChangeKind::Compact, SchemaId(0), world.now_ms);
        change.files = inputs.iter().map(fixture::delete).collect();
        change.files.push(fixture::data_file(world, &context, None, 0, level, &rows));
        change
    };
    let ours = rewrite(&mut world, &files[2..], 3, "ours");
    leave_staged(&mut world, &ours);
    // What lies in its way at level 3.
    let obstacle = rewrite(&mut world, &files[..2], 3, "obstacle");
    let output = obstacle.files.last().cloned().unwrap();
    commit_ok(&mut world, &context, obstacle);
    let mut sleeper = Actor::new(fold_staged(&context));
    sleeper.run_to(&mut world, steps::FOLD_POINTER);
    sleeper.run_to(&mut world, steps::FOLD_STAGED);
    while sleeper.request.as_ref().is_some_and(|r| r.step == steps::FOLD_STAGED) {
        sleeper.once(&mut world);
    }
    let refused = conflict_of(&mut world, &context, &ours);
    assert!(matches!(refused, Conflict::LevelOverlap { .. }), "{refused:?}");
    assert_eq!(state_of(&world, &ours), State::Released);
    let away = rewrite(&mut world, &[output], 5, "away");
    commit_ok(&mut world, &context, away);
    sleeper.finish(&mut world).unwrap();
    assert_eq!(world.ok(fold_staged(&context)).folded, 0, "never again (7): the monitor would have stopped");
}

#[test]
fn next_fold_is_prepared_while_the_one_before_is_published_and_swaps_only_after() {
    let (context, mut world) = busy_table();
    let (one, two) = (first(&mut world, &context, 20), first(&mut world, &context, 21));
    leave_staged(&mut world, &one);
    let mut publisher = Actor::new(fold_staged(&context));
    publisher.run_to(&mut world, steps::PUBLISH_SNAPSHOT);
    let unpublished = pointer(&world).version();
    leave_staged(&mut world, &two);
    let mut next = Actor::new(fold_staged(&context));
    next.run_to(&mut world, steps::SETTLE_TIP);
    assert!(next.steps.contains(&steps::COMMIT_LISTS), "its lists are written: {:?}", next.steps);
    assert!(world.monitor.snapshot(&world, unpublished).is_none(), "while the name is not there");
    next.run_to(&mut world, steps::FOLD_SWAP);
    assert!(world.monitor.snapshot(&world, unpublished).is_some(), "8");
    publisher.finish(&mut world).unwrap();
    assert_eq!(next.finish(&mut world).unwrap().folded, 1);
    assert!([one, two].iter().all(|c| matches!(state_of(&world, c), State::Committed { .. })));
}

#[test]
fn answers_that_nobody_asked_for_are_deleted_after_an_hour() {
    let (context, mut world) = busy_table();
    let staged = |world: &World| world.items.keys().filter(|n| matches!(n, ItemName::Staged(_))).count();
    assert_eq!(world.ok(fold_staged(&context)).cleaned, 0);
    world.now_ms += 3_700_000;
    assert_eq!((world.ok(fold_staged(&context)).cleaned, staged(&world)), (5, 0));
}

#[test]
fn large_change_goes_by_reference_and_the_sweep_keeps_what_is_staged() {
    let (context, mut world) = busy_table();
    let planned = pointer(&world);
    let mut change = first(&mut world, &context, 20);
    for key in 0..20 {
        let row = Row { key: 2 * key, sequence: change.ranges[0].last_sequence.0 + 1, shard: 20, position: 50 };
        change.files.push(fixture::data_file(
            &mut world,
            &context,
            None,
            0,
            0,
            &[Row { position: 50 + key as u64, ..row }],
        ));
    }
    let mut actor = Actor::new(commit_until(&context, change.clone(), Some(planned), world.now_ms + 30_000));
    actor.run_to(&mut world, steps::STAGE_WAIT);
    drop(actor);
    let State::Pending(Content::Object(name)) = state_of(&world, &change) else { panic!("inline") };
    world.now_ms += 10 * 86_400_000;
    let sweep_now = SweepOptions { older_than_ms: 1_000, clock_skew_ms: 0, dry_run: false, ..SweepOptions::default() };
    let kept: BTreeSet<String> =
        change.files.iter().map(|e| codec_key(&context, e)).chain([context.key(&name)]).collect();
    let swept = world.ok(sweep(&context, sweep_now.clone()));
    assert!(swept.keys.iter().all(|key| !kept.contains(key)), "{:?}", swept.keys);
    // Too old to be committed now: it is handed back, and then nothing keeps its files.
    assert_eq!(world.ok(fold_staged(&context)).released, 1);
    let swept: BTreeSet<String> = world.ok(sweep(&context, sweep_now)).keys.into_iter().collect();
    assert!(kept.is_subset(&swept), "{swept:?}");
}

#[test]
fn ids_of_a_fold_are_bounded_so_that_an_unknown_outcome_can_be_looked_up() {
    let (context, mut world) = table();
    for n in 0..40 {
        let row = Row { key: 2, sequence: n, shard: 90, position: n as u64 };
        let file = fixture::data_file(&mut world, &context, None, 0, 0, &[row]);
        let mut import =
            Change::new(ChangeId::derive(&n.to_string()), ChangeKind::Append, SchemaId(0), world.now_ms - 9);
        import.files.push(file);
        leave_staged(&mut world, &import);
    }
    let ids = |world: &World| pointer(world).change_ids.len();
    let mut counts = Vec::new();
    for _ in 0..3 {
        world.ok(fold_staged(&context));
        counts.push(ids(&world));
    }
    assert_eq!(counts.last(), Some(&40));
    let of = |id: i64| world.monitor.snapshot(&world, SnapshotId(id)).unwrap();
    let named = of(1).properties.unwrap()[crate::pointer::PROPERTY_CHANGE].split(',').count();
    assert_eq!(named, 16);
    world.items.remove(&ItemName::Pointer);
    assert_eq!(world.ok(restore(&context)).change_ids.len(), 40, "from the snapshots' properties");
}

#[test]
fn change_without_range_that_could_be_forgotten_is_unknown_and_not_refused() {
    let (context, mut world) = grown_by(3);
    let compact = compaction(&mut world, &context, 0, "c");
    let mut actor = writer(&context, &world, &compact);
    actor.run_to(&mut world, steps::COMMIT_SWAP);
    let request = actor.request.clone().unwrap();
    // The swap takes effect, its answer is lost, and so many changes follow that its id is forgotten.
    world.apply(&request.effect);
    world.ok(load(&context, false));
    for n in 0..70 {
        let row = Row { key: 2, sequence: n, shard: 90, position: n as u64 };
        let file = fixture::data_file(&mut world, &context, None, 0, 0, &[row]);
        let id = ChangeId::derive(&n.to_string());
        let mut import = Change::new(id, ChangeKind::Append, SchemaId(0), world.now_ms - 9);
        import.files.push(file);
        commit_ok(&mut world, &context, import);
    }
    let report = actor.finish(&mut world).unwrap();
    assert!(matches!(report.outcome, Outcome::Unknown { .. }), "{report:?}");
}

#[test]
fn folds_of_three_thousand_shards_keep_pointer_and_sidecar_small() {
    let (context, mut world) = table();
    let shards = 3_000_u32;
    let position = |step: u64| -> crate::checkpoint::Position {
        format!("4959033827149025660855969253836157109592157598{:010}", step).parse().unwrap()
    };
    for round in 0..2_u64 {
        for n in 0..shards {
            let from = (round > 0).then(|| position(round));
            let mut change = fixture::append(n, None, 1, Vec::new(), 0);
            change.id = ChangeId(u128::from(n) << 8 | u128::from(round));
            change.ranges[0].from = from;
            change.ranges[0].to = position(round + 1);
            change.ranges[0].last_sequence = SequenceNumber(i64::MAX >> (1 - round));
            change.ranges[0].slot = crate::sequence::Slot(u16::try_from(n).unwrap());
            leave_staged(&mut world, &change);
        }
        assert_eq!(world.ok(fold_staged(&context)).folded, u64::from(shards));
    }
    let pointer = pointer(&world);
    let bytes = crate::pointer::record_bytes(&world.items[&ItemName::Pointer].attributes);
    assert!(bytes <= 4_096, "the pointer has {bytes} bytes");
    let sidecar = world.objects[&context.key(pointer.checkpoints.packed_object().unwrap())].body.len();
    assert!(sidecar <= 128 << 10, "the sidecar has {sidecar} bytes");
    let loaded = world.ok(load(&context, true)).pointer.unwrap().checkpoints;
    assert_eq!(loaded.all().len(), shards as usize);
    assert!(loaded.all().values().all(|c| c.position == position(2)));
}

#[test]
fn a_fold_of_a_hundred_costs_each_writer_two_puts_and_five_item_requests_at_most() {
    let (context, mut world) = busy_table();
    let planned = pointer(&world);
    let (mut puts, mut items) = (0.0, 0.0);
    let mut count = |request: &Request| {
        let effects = match &request.effect {
            Effect::All(effects) => effects.clone(),
            effect => vec![effect.clone()],
        };
        for effect in effects {
            match effect {
                Effect::Put { .. } => puts += 1.0,
                Effect::LoadItem(_)
                | Effect::CreateItem { .. }
                | Effect::SwapItem { .. }
                | Effect::PutItem { .. }
                | Effect::DeleteItem { .. }
                | Effect::ListStaged { .. } => items += 1.0,
                _ => {}
            }
        }
    };
    // Side by side: the one whose time comes first does its next thing.
    let mut actors: Vec<(i64, Actor<CommitReport>)> = Vec::new();
    for n in 100..200 {
        let change = first(&mut world, &context, n);
        let machine = commit_until(&context, change, Some(planned.clone()), world.now_ms + 60_000);
        actors.push((world.now_ms, Actor::new(machine)));
    }
    let mut folded = 0;
    while let Some(next) = (0..actors.len()).min_by_key(|i| actors[*i].0) {
        let (at_ms, actor) = &mut actors[next];
        world.now_ms = *at_ms;
        count(actor.request.as_ref().unwrap());
        let ended = actor.once(&mut world);
        *at_ms = world.now_ms;
        if let Some(report) = ended {
            folded += report.unwrap().folded;
            drop(actors.swap_remove(next));
        }
    }
    assert_eq!(folded, 100);
    // One data file, and the reading of the pointer when the batch was planned.
    let (puts, items) = (1.0 + puts / 100.0, 1.0 + items / 100.0);
    assert!(puts <= 2.0 && items <= 5.0, "{puts} puts, {items} item requests");
}
