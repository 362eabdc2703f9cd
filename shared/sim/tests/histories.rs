//! Histories with fixed seeds, and that a seed is a history.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use siltstone_sim::{
    report::Report,
    run::{Limits, run},
};

/// Runs seeds from `from` on.
fn histories(from: u64, count: u64) -> Report {
    let mut report = Report::default();
    (from..from + count).for_each(|seed| report.add(&run(seed, &Limits::default())));
    report
}

#[test]
fn hundreds_of_histories_break_no_invariant() {
    let report = histories(0, 200);
    assert!(report.violations.is_empty(), "{:#?}", report.violations);
    for what in ["batches", "compactions", "maintenances", "expired", "swept", "reshards", "foreign commits", "repairs"]
    {
        assert!(report.done.get(what).is_some_and(|times| *times > 5), "{what}: {:?}", report.done);
    }
    assert_eq!(report.faults.len(), 13, "every kind of fault comes: {:?}", report.faults);
}

#[test]
fn a_seed_is_one_history_byte_for_byte() {
    for seed in 500..540 {
        let (one, other) = (run(seed, &Limits::default()), run(seed, &Limits::default()));
        assert_eq!(one.trace, other.trace, "seed {seed}");
        assert_eq!(one.digest, other.digest, "seed {seed}: equal steps, other bytes");
    }
}

#[test]
fn faults_that_are_left_out_leave_the_others_where_they_are() {
    let whole = (0..).map(|seed| run(seed, &Limits::default())).find(|history| history.hits.len() > 20).unwrap();
    let all = Limits { only: Some(whole.hits.iter().map(|hit| hit.turn).collect()), ..Limits::default() };
    assert_eq!(run(whole.seed, &all).digest, whole.digest);
    let first = Limits { only: Some(whole.hits.iter().take(1).map(|hit| hit.turn).collect()), ..Limits::default() };
    let hits = run(whole.seed, &first).hits;
    assert_eq!(hits.first(), whole.hits.first());
    assert!(hits.iter().skip(1).all(|hit| hit.step == "deadline"), "{hits:?}");
}
