//! Stops after every single effect of every protocol, and breaks every single effect, then lets the next run repair.

use std::collections::BTreeSet;

use super::*;
use crate::{
    io::FailureKind,
    steps,
    testing::world::{Fault, World},
};

type Run = dyn Fn(&TableContext, &mut World) -> Option<Result<(), CommitError>>;

/// A protocol in a world, ready to run.
struct Scenario {
    context: TableContext,
    world: World,
    /// Runs it to its end; `None` if the fuse blew, otherwise whether it succeeded.
    run: Box<Run>,
}

impl Scenario {
    fn new<T: Send + 'static>(
        (context, world): (TableContext, World),
        machine: impl Fn(&TableContext) -> Machine<T> + 'static,
    ) -> Self {
        let run = move |context: &TableContext, world: &mut World| {
            world.run(machine(context)).map(|result| result.map(|_| ()))
        };
        Self { context, world, run: Box::new(run) }
    }

    fn commits(world: (TableContext, World), change: Change) -> Self {
        let run = move |context: &TableContext, world: &mut World| {
            let result = world.run(commit(context, change.clone()))?;
            if let Ok(outcome) = &result {
                world.watch(|monitor, world| monitor.answered(world, &change, outcome));
            }
            Some(result.map(|outcome| assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}")))
        };
        Self { context: world.0, world: world.1, run: Box::new(run) }
    }
}

/// Ten snapshots of two shards, a compaction among them, old enough to expire.
fn grown() -> (TableContext, World) {
    let (mut context, mut world) = table();
    context.settings.manifest_merge_min_count = 4;
    let mut last = ZERO;
    for n in 0..6_u64 {
        let from = (n > 0).then_some(n * 4);
        let change = fixture::batch(&mut world, &context, 0, from, n * 4 + 4, last);
        last = change.ranges[0].last_sequence;
        commit_ok(&mut world, &context, change);
        if n == 3 {
            let change = compaction(&mut world, &context, 0, "c1");
            commit_ok(&mut world, &context, change);
        }
        world.now_ms += 3_600_000;
    }
    (context, world)
}

fn last_number(world: &World) -> SequenceNumber {
    let pointer = world.monitor.read_pointer(world).unwrap();
    pointer.checkpoints.recent().map(|(_, c)| c.last_sequence).max().unwrap_or(ZERO)
}

fn scenarios() -> Vec<(&'static str, Scenario)> {
    let mut all = Vec::new();
    let (context, world) = (fixture::context(), World::new(&fixture::context(), 1));
    all.push(("create", Scenario::new((context, world), |c| create(c, Some("table-1".into())))));

    let (context, mut world) = table();
    let change = fixture::batch(&mut world, &context, 0, None, 5, ZERO);
    all.push(("commit first", Scenario::commits((context, world), change)));

    let (context, mut world) = grown();
    let last = last_number(&world);
    let change = fixture::batch(&mut world, &context, 0, Some(24), 30, last);
    all.push(("commit append with merged manifests", Scenario::commits((context, world), change)));

    let (context, mut world) = grown();
    let change = compaction(&mut world, &context, 1, "c2");
    all.push(("commit compaction", Scenario::commits((context, world), change)));

    let (context, mut world) = table();
    for n in 0..64 {
        let change = fixture::batch(&mut world, &context, n, None, 1, ZERO);
        commit_ok(&mut world, &context, change);
    }
    let change = fixture::batch(&mut world, &context, 64, None, 1, ZERO);
    all.push(("commit that moves checkpoints out of the pointer", Scenario::commits((context, world), change)));

    let (context, mut world) = grown();
    let empty = Change { files: Vec::new(), ..fixture::append(3, None, 7, Vec::new(), world.now_ms) };
    world.now_ms += 1;
    all.push(("commit of checkpoints only", Scenario::commits((context, world), empty)));

    let (context, mut world) = grown();
    foreign_commit(&mut world, &context, 9_000);
    all.push(("adopt a foreign snapshot", Scenario::new((context, world), |c| load(c, true))));

    all.push(("expire", Scenario::new(grown(), |c| expire(c, expiry()))));

    let (context, mut world) = grown();
    let orphan = fixture::batch(&mut world, &context, 5, None, 9, ZERO);
    world.now_ms += 2 * 86_400_000;
    let key = codec_key(&context, &orphan.files[0]);
    assert!(world.objects.contains_key(&key));
    let options = SweepOptions { dry_run: false, ..SweepOptions::default() };
    all.push(("sweep", Scenario::new((context, world), move |c| sweep(c, options.clone()))));

    let id = ChangeId::derive("rollback");
    let target = RollbackTarget::Snapshot(SnapshotId(3));
    all.push(("rollback", Scenario::new(grown(), move |c| rollback(c, target.clone(), id))));

    let (context, mut world) = grown();
    world.items.remove(&crate::io::ItemName::Pointer);
    all.push(("restore a lost pointer", Scenario::new((context, world), restore)));

    let (context, mut world) = grown();
    let old = world.items.clone();
    let last = last_number(&world);
    let change = fixture::batch(&mut world, &context, 0, Some(24), 30, last);
    commit_ok(&mut world, &context, change);
    world.items = old;
    all.push(("restore an old pointer", Scenario::new((context, world), restore)));

    all.push(("repair a fork", Scenario::new(forked(), repair_fork)));
    let (context, world, _) = copied_in_a_fork();
    all.push(("repair a fork that was repaired", Scenario::new((context, world), repair_fork)));
    all.push(("commit under contention", contended()));
    let (context, mut world) = grown();
    let gap = fixture::append(50, Some(3), 5, Vec::new(), world.now_ms);
    world.now_ms += 1;
    all.push((
        "refusal of a change that may be staged",
        Scenario::new((context, world), move |c| commit(c, gap.clone())),
    ));
    all.push(("reserve a slot", Scenario::new(grown(), |c| reserve_slot(c, fixture::shard(7)))));

    let (context, mut world) = grown();
    world.ok(reserve_slot(&context, fixture::shard(0)));
    world.ok(reserve_slot(&context, fixture::shard(7)));
    let last = last_number(&world);
    let mut child = fixture::batch(&mut world, &context, 7, None, 3, last);
    child.ranges[0].parents = vec![fixture::shard(0)];
    commit_ok(&mut world, &context, child);
    all.push(("free the slot of a closed shard", Scenario::new((context, world), release_slots)));
    all
}

/// A writer with a large change on a busy table; dead writers have left a change by reference, a compaction, one that does not apply, and
/// old answers.
fn contended() -> Scenario {
    let (context, mut world) = group::busy_table();
    let answered = fixture::append(39, None, 1, Vec::new(), 0);
    group::leave_staged(&mut world, &answered);
    let name = crate::io::ItemName::Staged(crate::staged::name_of(&answered));
    let mut old = crate::staged::Staged::from_record(&world.items[&name]).unwrap();
    (old.at_ms, old.state) = (0, crate::staged::State::Released);
    world.items.insert(name, old.to_record(1));
    let compact = compaction(&mut world, &context, 0, "staged");
    group::leave_staged(&mut world, &compact);
    let large = fixture::batch(&mut world, &context, 40, None, 3, ZERO);
    group::leave_large(&mut world, &context, &large);
    group::leave_staged(&mut world, &fixture::append(41, Some(3), 5, Vec::new(), 0));
    let mut change = fixture::batch(&mut world, &context, 42, None, 8, ZERO);
    let last = change.ranges[0].last_sequence;
    for position in 9..25 {
        let row = Row { key: 4, sequence: last.0 + position, shard: 42, position: position.unsigned_abs() };
        change.files.push(fixture::data_file(&mut world, &context, None, 0, 0, &[row]));
    }
    change.ranges[0].to = 24.into();
    change.ranges[0].last_sequence = SequenceNumber(last.0 + 24);
    let planned = pointer(&world);
    let run = move |context: &TableContext, world: &mut World| {
        let until = world.now_ms + 60_000;
        let result = world.run(commit_until(context, change.clone(), Some(planned.clone()), until))?;
        if let Ok(report) = &result {
            world.watch(|monitor, world| monitor.answered(world, &change, &report.outcome));
        }
        Some(result.map(|report| assert!(matches!(report.outcome, Outcome::Committed { .. }), "{report:?}")))
    };
    Scenario { context, world, run: Box::new(run) }
}

/// After whatever happened: the same run again succeeds, another writer goes on, and nothing is broken or lost.
fn recover(name: &str, at: usize, scenario: &Scenario, world: &mut World) {
    world.fuse = None;
    world.plan = None;
    world.settle_late();
    let result = (scenario.run)(&scenario.context, world).expect("no fuse");
    assert!(result.is_ok(), "{name}: run after a stop at effect {at}: {result:?}");
    let last = last_number(world);
    let next = fixture::batch(world, &scenario.context, 900, None, 3, last);
    commit_ok(world, &scenario.context, next);
    world.check();
    let findings = world.ok(check(&scenario.context)).findings;
    let bad: Vec<_> = findings.iter().filter(|f| f.severity == Severity::Error).collect();
    assert!(bad.is_empty(), "{name} at {at}: {bad:?}");
}

#[test]
fn crash_after_every_step_of_every_protocol_is_repaired_by_the_next_run() {
    let mut steps = BTreeSet::new();
    for (name, scenario) in scenarios() {
        let mut whole = scenario.world.clone();
        whole.log.clear();
        let result = (scenario.run)(&scenario.context, &mut whole).expect("no fuse");
        assert!(result.is_ok(), "{name}: {result:?}");
        let effects = whole.log.len();
        assert!(effects > 1, "{name}");
        steps.extend(whole.log.iter().copied());
        for k in 0..effects {
            let mut world = scenario.world.clone();
            world.fuse = Some(k);
            let stopped = (scenario.run)(&scenario.context, &mut world);
            assert!(stopped.is_none(), "{name}: not stopped at {k}");
            recover(name, k, &scenario, &mut world);
        }
    }
    // Steps that only an ambiguous answer reaches are visited by the next test; these are all others.
    let rare =
        ["settle/4 write adoption or fork", "publish/2", "create/4", "commit/7", "sweep/5", "check/1", "back off"];
    let missed: Vec<_> =
        steps::ALL.iter().filter(|s| !steps.contains(*s) && !rare.iter().any(|r| s.starts_with(r))).collect();
    assert!(missed.is_empty(), "no scenario visits {missed:?}");
}

#[test]
fn every_unknown_answer_at_every_step_ends_in_success_or_is_repaired_by_the_next_run() {
    break_every_effect(&[Fault::LostAnswer, Fault::LostRequest, Fault::Late]);
}

#[test]
fn every_refusal_at_every_step_is_waited_out_or_repaired_by_the_next_run() {
    let refused = [FailureKind::Throttled, FailureKind::Denied];
    break_every_effect(&refused.map(Fault::Refused));
}

fn break_every_effect(faults: &[Fault]) {
    for (name, scenario) in scenarios() {
        let mut whole = scenario.world.clone();
        whole.log.clear();
        (scenario.run)(&scenario.context, &mut whole).expect("no fuse").unwrap();
        for fault in faults {
            for k in 0..whole.log.len() {
                let mut world = scenario.world.clone();
                world.plan = Some((k, *fault));
                let result = (scenario.run)(&scenario.context, &mut world).expect("no fuse");
                let harmless = *fault == Fault::Refused(FailureKind::Throttled);
                assert!(result.is_ok() || !harmless, "{name} at {k}, {fault:?}: {result:?}");
                recover(name, k, &scenario, &mut world);
            }
        }
    }
}
