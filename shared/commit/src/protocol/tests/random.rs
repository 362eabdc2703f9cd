//! Random interleavings: three writers with zombies, a compactor, expiry and sweep; the monitor stops at the first broken invariant.

use crate::testing::{
    fixture,
    schedule::{Plan, Summary, run},
    world::Faults,
};

fn plan() -> Plan {
    Plan { writers: 3, positions: 12, compactor: true, maintenance: true, faults: Faults::default(), crash: 0 }
}

fn seeds(from: u64, count: u64, plan: &Plan) -> Summary {
    let mut context = fixture::context();
    context.settings.manifest_merge_min_count = 3;
    let mut total = Summary::default();
    for seed in from..from + count {
        let one = run(&context, seed, plan);
        total.effects += one.effects;
        total.committed += one.committed;
        total.refused += one.refused;
        total.crashed += one.crashed;
        total.expired += one.expired;
        total.swept += one.swept;
        total.compacted += one.compacted;
        total.staged += one.staged;
        total.folded += one.folded;
        total.snapshots += one.snapshots;
    }
    total
}

#[test]
fn interleaved_writers_compactor_expiry_and_sweep_break_no_invariant() {
    let total = seeds(0, 30, &plan());
    assert!(total.compacted > 5 && total.expired > 5 && total.swept > 5 && total.refused > 5, "{total:?}");
}

#[test]
fn interleavings_with_crashes_zombies_and_lost_answers_break_no_invariant() {
    let faults = Faults { throttle: 20, conflict: 20, lost_answer: 20, lost_request: 10, late: 15 };
    let total = seeds(10_000, 30, &Plan { faults, crash: 10, ..plan() });
    assert!(total.crashed > 5 && total.compacted > 5 && total.expired > 5, "{total:?}");
}

#[test]
fn eight_writers_that_stage_and_fold_among_crashes_and_zombies_break_no_invariant() {
    let faults = Faults { throttle: 20, conflict: 20, lost_answer: 20, lost_request: 10, late: 15 };
    let total = seeds(20_000, 15, &Plan { writers: 8, positions: 8, faults, crash: 10, ..plan() });
    assert!(total.staged > 100 && total.folded > 100 && total.crashed > 5, "{total:?}");
}

#[test]
#[ignore = "some minutes: thousands of seeds, before a release and after a change of a protocol"]
fn thousands_of_seeds_break_no_invariant() {
    let faults = Faults { throttle: 20, conflict: 20, lost_answer: 20, lost_request: 10, late: 15 };
    seeds(1_000_000, 2_000, &plan());
    seeds(2_000_000, 2_000, &Plan { faults, crash: 10, ..plan() });
    seeds(3_000_000, 1_000, &Plan { writers: 8, positions: 8, faults, crash: 10, ..plan() });
}

#[test]
fn same_seed_gives_the_same_run() {
    let faults = Faults { throttle: 20, lost_answer: 20, late: 20, ..Faults::default() };
    let plan = Plan { faults, crash: 10, ..plan() };
    let context = fixture::context();
    assert_eq!(run(&context, 7, &plan), run(&context, 7, &plan));
    assert_ne!(run(&context, 7, &plan), run(&context, 8, &plan));
}
