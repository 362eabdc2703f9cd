//! What a table takes under load, and what that costs a batch; that a seed is one course.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use siltstone_sim::load::{Figures, Load, run};

fn figures(shards: u32) -> Figures {
    run(Load { shards, warm_seconds: 15, seconds: 10, seed: 1 })
}

fn number(figures: &Figures, name: &str) -> f64 {
    figures.to_json()[name].as_f64().unwrap_or_else(|| panic!("no figure {name}"))
}

#[test]
fn a_lone_shard_commits_at_once_for_seven_puts_and_three_item_requests_at_most() {
    let alone = figures(1);
    // A batch that is under way when counting begins, or a refused request, adds to the three.
    assert!(number(&alone, "s3_put_class") <= 7.0 && number(&alone, "dynamo") <= 3.2, "{}", alone.to_json());
    assert!(number(&alone, "staged") == 0.0 && number(&alone, "visible_p99_ms") < 2_000.0, "{}", alone.to_json());
}

#[test]
fn a_hundred_shards_fold_within_two_puts_and_five_item_requests_a_batch_and_are_read_within_five_seconds() {
    let many = figures(100);
    assert!(number(&many, "s3_put_class") <= 2.0 && number(&many, "dynamo") <= 5.0, "{}", many.to_json());
    assert!(number(&many, "visible_p99_ms") <= 5_000.0 && many.failures == 0, "{}", many.to_json());
    assert!(number(&many, "batches_per_s") >= 75.0, "{}", many.to_json());
    let started = many.all_started_ms.unwrap_or(i64::MAX);
    assert!(started < 15_000, "all hundred begin together: {started} ms");
}

#[test]
fn a_thousand_shards_bring_a_thousand_batches_a_second_that_are_read_within_five() {
    let many = run(Load { shards: 1_000, warm_seconds: 20, seconds: 5, seed: 1 });
    assert!(number(&many, "batches_per_s") >= 1_000.0, "{}", many.to_json());
    assert!(number(&many, "visible_p99_ms") <= 5_000.0 && many.failures == 0, "{}", many.to_json());
    assert!(number(&many, "s3_put_class") <= 2.0 && number(&many, "dynamo") <= 5.0, "{}", many.to_json());
}

#[test]
fn a_seed_is_one_course() {
    assert_eq!(figures(10).to_json(), figures(10).to_json());
}
