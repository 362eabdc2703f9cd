//! Universal compaction as Paimon's `UniversalCompaction` picks it: early full, size amplification, size ratio, run count,
//! then level 0 by force (paimon-format.md section 9).
//!
//! Neighbours: `super` for units and options. Invariant: 1. the output level is above 0 and no run between the picked ones and
//! the output level is skipped, so age order of levels holds.

use siltstone_format::id::Level;

use super::{CompactUnit, PickOptions, PickReason};
use crate::levels::{LevelRun, Levels};

/// Picks the next unit of a bucket, or nothing. `now_ms` is only used by `compaction.optimization-interval`.
#[must_use]
pub fn pick(levels: &Levels, options: &PickOptions, now_ms: i64) -> Option<CompactUnit> {
    let beyond = levels.runs().len().checked_sub(options.trigger);
    early_full(levels, options, now_ms)
        .or_else(|| size_amplification(levels, options))
        .or_else(|| beyond.and_then(|_| by_size_ratio(levels, options, 1, PickReason::SizeRatio)))
        .or_else(|| beyond.and_then(|runs| by_size_ratio(levels, options, runs + 1, PickReason::RunCount)))
        .or_else(|| options.force_up_level_0.then(|| force_level_0(levels, options)).flatten())
}

fn early_full(levels: &Levels, options: &PickOptions, now_ms: i64) -> Option<CompactUnit> {
    let runs = levels.runs();
    if runs.len() <= 1 {
        return None;
    }
    let size = |runs: &[LevelRun]| runs.iter().map(|r| r.run.total_size()).fold(0i64, i64::saturating_add);
    let above: i64 =
        size(runs) - runs.iter().filter(|r| r.level == levels.max_level()).map(|r| r.run.total_size()).sum::<i64>();
    let last_full = runs
        .iter()
        .filter(|r| r.level == levels.max_level())
        .flat_map(|r| r.run.files())
        .filter_map(|f| f.creation_time_ms)
        .max();
    let due = options
        .optimization_interval_ms
        .is_some_and(|interval| last_full.is_none_or(|last| now_ms.saturating_sub(last) >= interval));
    let small = options.total_size_threshold.is_some_and(|limit| size(runs) < limit);
    let grown = options.incremental_size_threshold.is_some_and(|limit| above > limit);
    (due || small || grown).then(|| CompactUnit::of(levels.max_level(), runs, PickReason::EarlyFull))
}

fn size_amplification(levels: &Levels, options: &PickOptions) -> Option<CompactUnit> {
    let runs = levels.runs();
    let (oldest, newer) = runs.split_last()?;
    if runs.len() < options.trigger {
        return None;
    }
    let newer: i128 = newer.iter().map(|r| i128::from(r.run.total_size())).sum();
    let allowed = i128::from(options.max_size_amplification_percent) * i128::from(oldest.run.total_size());
    (newer * 100 > allowed).then(|| CompactUnit::of(levels.max_level(), runs, PickReason::SizeAmplification))
}

fn by_size_ratio(levels: &Levels, options: &PickOptions, at_least: usize, reason: PickReason) -> Option<CompactUnit> {
    let count = extend(levels.runs(), options, at_least);
    (count > 1).then(|| unit_of(levels, count, reason))
}

/// Extends a pick of the newest `count` runs while the next run is not much larger than all picked together. Once two are
/// picked, only a run below level 1 stops it: level 1 must not be left behind between picks.
fn extend(runs: &[LevelRun], options: &PickOptions, mut count: usize) -> usize {
    let mut picked: i128 = runs.iter().take(count).map(|r| i128::from(r.run.total_size())).sum();
    for next in runs.iter().skip(count) {
        let size = i128::from(next.run.total_size());
        let fits = picked * (100 + i128::from(options.size_ratio_percent)) >= size * 100;
        if !fits && (count < 2 || next.level > Level(1)) {
            break;
        }
        picked += size;
        count += 1;
    }
    count
}

fn force_level_0(levels: &Levels, options: &PickOptions) -> Option<CompactUnit> {
    let count = levels.runs().iter().take_while(|r| r.level == Level::ZERO).count();
    (count > 0).then(|| unit_of(levels, extend(levels.runs(), options, count), PickReason::ForceLevel0))
}

/// The newest `count` runs, with the level just above the next run as output; never level 0.
fn unit_of(levels: &Levels, mut count: usize, reason: PickReason) -> CompactUnit {
    let runs = levels.runs();
    let mut output = runs.get(count).map_or(levels.max_level(), |next| Level((next.level.0 - 1).max(0)));
    if output == Level::ZERO {
        for next in runs.iter().skip(count) {
            count += 1;
            if next.level != Level::ZERO {
                output = next.level;
                break;
            }
        }
    }
    if count == runs.len() {
        output = levels.max_level();
    }
    CompactUnit::of(output, runs.get(..count).unwrap_or(runs), reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_files::{file, keys};

    /// Runs newest first as (level, size); all overlap.
    fn bucket(runs: &[(i32, i64)]) -> Levels {
        let files = runs
            .iter()
            .enumerate()
            .map(|(i, (level, size))| file(&format!("f{i}"), *level, 0..=9, 1000 - i as i64).size(*size).build())
            .collect();
        Levels::new(files, 6, &keys).unwrap()
    }

    fn picked(runs: &[(i32, i64)], options: &PickOptions) -> Option<(i32, Vec<i64>, PickReason)> {
        pick(&bucket(runs), options, 0)
            .map(|u| (u.output_level.0, u.files.iter().map(|f| f.file_size).collect(), u.reason))
    }

    fn trigger(trigger: usize) -> PickOptions {
        PickOptions { trigger, ..PickOptions::default() }
    }

    #[test]
    fn nothing_is_picked_below_the_trigger() {
        assert_eq!(picked(&[(0, 1), (0, 1), (5, 1)], &trigger(5)), None);
    }

    #[test]
    fn newer_runs_of_more_than_twice_the_oldest_are_compacted_fully() {
        let got = picked(&[(0, 1), (0, 1), (0, 1), (3, 100), (5, 30)], &trigger(5)).unwrap();
        assert_eq!(got, (5, vec![1, 1, 1, 100, 30], PickReason::SizeAmplification));
    }

    #[test]
    fn exactly_twice_the_oldest_is_not_too_much() {
        let reason = |newer| picked(&[(0, newer), (5, 100)], &trigger(2)).unwrap().2;
        assert_eq!((reason(200), reason(201)), (PickReason::SizeRatio, PickReason::SizeAmplification));
    }

    #[test]
    fn a_run_is_of_similar_size_up_to_the_ratio() {
        let got = |next| picked(&[(0, 100), (0, next), (5, 100_000)], &trigger(2)).unwrap();
        assert_eq!(got(101), (4, vec![100, 101], PickReason::SizeRatio));
        assert_eq!(got(102), (4, vec![100, 102], PickReason::RunCount));
    }

    #[test]
    fn once_two_runs_are_picked_no_other_run_of_level_0_or_1_is_left_behind() {
        let got = picked(&[(0, 1), (0, 1), (0, 9), (5, 1000)], &trigger(3)).unwrap();
        assert_eq!(got, (4, vec![1, 1, 9], PickReason::SizeRatio));
    }

    #[test]
    fn runs_of_similar_size_go_just_above_the_next_larger_run() {
        let got = picked(&[(0, 1), (0, 1), (0, 2), (4, 50), (5, 1000)], &trigger(5)).unwrap();
        assert_eq!(got, (3, vec![1, 1, 2], PickReason::SizeRatio));
    }

    #[test]
    fn too_many_runs_are_reduced_even_when_sizes_differ() {
        let got = picked(&[(0, 1), (0, 10), (3, 100), (4, 1000), (5, 100_000)], &trigger(4)).unwrap();
        assert_eq!(got, (2, vec![1, 10], PickReason::RunCount));
    }

    #[test]
    fn output_is_never_level_0() {
        let got = picked(&[(0, 1), (0, 1), (0, 1), (0, 1_000_000), (0, 9_000_000)], &trigger(3)).unwrap();
        assert_eq!(got.0, 5, "all following level 0 runs are taken until a level above 0, here the end");
        assert_eq!(got.1.len(), 5);
    }

    #[test]
    fn a_pick_next_to_level_1_includes_level_1() {
        let got = picked(&[(0, 1), (0, 1), (0, 1), (1, 9), (5, 1000)], &trigger(5)).unwrap();
        assert_eq!(got, (4, vec![1, 1, 1, 9], PickReason::SizeRatio));
    }

    #[test]
    fn level_0_is_lifted_by_force_when_nothing_else_is_due() {
        let options = PickOptions { force_up_level_0: true, ..trigger(5) };
        assert_eq!(picked(&[(0, 1), (5, 1000)], &options).unwrap(), (4, vec![1], PickReason::ForceLevel0));
        assert_eq!(picked(&[(5, 1000)], &options), None);
        let beside_level_1 = picked(&[(0, 1), (1, 1000), (5, 100_000)], &options).unwrap();
        assert_eq!(beside_level_1, (1, vec![1, 1000], PickReason::ForceLevel0), "no level lies between");
    }

    #[test]
    fn an_early_full_compaction_follows_the_interval_and_thresholds() {
        let due = PickOptions { optimization_interval_ms: Some(100), ..trigger(5) };
        let levels =
            Levels::new(vec![file("n", 0, 0..=9, 2).build(), file("o", 5, 0..=9, 1).created(1_000).build()], 6, &keys)
                .unwrap();
        assert_eq!(pick(&levels, &due, 1_099), None);
        assert_eq!(pick(&levels, &due, 1_100).unwrap().reason, PickReason::EarlyFull);
        let grown = PickOptions { incremental_size_threshold: Some(99), ..trigger(5) };
        assert_eq!(pick(&levels, &grown, 0).unwrap().files.len(), 2);
        let small = |limit| PickOptions { total_size_threshold: Some(limit), ..trigger(5) };
        assert_eq!(pick(&levels, &small(201), 0).unwrap().output_level, Level(5));
        assert_eq!(pick(&levels, &small(200), 0), None);
    }

    #[test]
    fn only_what_lies_above_the_max_level_counts_as_grown() {
        let grown = |limit| PickOptions { incremental_size_threshold: Some(limit), ..trigger(5) };
        assert_eq!(picked(&[(0, 60), (4, 40), (5, 1000)], &grown(100)), None);
        assert_eq!(picked(&[(0, 60), (4, 40), (5, 1000)], &grown(99)).unwrap().2, PickReason::EarlyFull);
    }

    fn cut(runs: &[(i32, i64)], most: usize) -> (i32, Vec<i64>) {
        let levels = bucket(runs);
        let unit = super::super::full(&levels, None).unwrap();
        let unit = super::super::part_of(&levels, unit, |runs| runs.len() <= most);
        (unit.output_level.0, unit.files.iter().map(|f| f.file_size).collect())
    }

    #[test]
    fn a_unit_of_too_many_runs_is_cut_to_the_cheapest_adjacent_ones() {
        let tower = [(0, 1), (0, 2), (0, 3), (0, 4), (5, 1000)];
        assert_eq!(cut(&tower, 2), (4, vec![3, 4]), "the oldest of level 0, just above the large one");
        assert_eq!(cut(&tower, 4), (4, vec![1, 2, 3, 4]));
        assert_eq!(cut(&[(0, 1), (0, 2), (1, 3), (2, 4), (5, 9)], 2), (1, vec![2, 3]), "level 1 has no room below it");
        assert_eq!(cut(&[(0, 1), (1, 3), (2, 4), (3, 5)], 2), (1, vec![1, 3]));
        assert_eq!(cut(&[(0, 1), (0, 2), (0, 3)], 1), (5, vec![2, 3]), "two at the least");
    }

    #[test]
    fn cutting_a_unit_again_and_again_ends_in_one_run_and_never_mixes_up_ages() {
        for most in 2..6 {
            let mut runs: Vec<(i32, i64)> =
                [vec![(0, 1); 13], vec![(1, 10), (2, 20), (3, 30), (4, 40), (5, 50)]].concat();
            let mut passes = 0;
            while runs.len() > 1 {
                let (output, files) = cut(&runs, most);
                let same = |window: &[(i32, i64)]| window.iter().map(|r| r.1).eq(files.iter().copied());
                let at = runs.windows(files.len()).rposition(same).unwrap();
                let older = at + files.len();
                assert!(runs[..at].iter().all(|r| r.0 == 0) && runs.get(older).is_none_or(|r| r.0 > output));
                runs.splice(at..older, [(output, files.iter().sum())]);
                passes += 1;
                assert!(passes < 18);
            }
        }
    }

    #[test]
    fn a_full_request_rewrites_only_droppable_deletes_when_all_is_at_the_max_level() {
        use siltstone_format::id::SequenceNumber;
        let levels = Levels::new(
            vec![file("clean", 5, 0..=4, 1).build(), file("dirty", 5, 5..=9, 50).deletes(2).build()],
            6,
            &keys,
        )
        .unwrap();
        let names = |line| super::super::full(&levels, line).map(|u| u.files[0].file_name.clone());
        assert_eq!(names(None).as_deref(), Some("dirty"));
        assert_eq!(names(Some(SequenceNumber(51))).as_deref(), Some("dirty"));
        assert_eq!(names(Some(SequenceNumber(50))), None);
    }
}
