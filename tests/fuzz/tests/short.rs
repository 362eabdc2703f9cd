//! A short run of every parser with a fresh seed, the inputs that once broke one, and proof that a fault would be seen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use siltstone_fuzz::{
    corpus::Corpus,
    driver::{Plan, execute, fuzz, hex},
    memory::Counting,
    mutate::Shape,
    targets::{self, Memory, Outcome, Target},
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const EACH: Duration = Duration::from_millis(150);

fn all() -> Vec<Target> {
    targets::all(&Corpus::of_the_repository())
}

#[test]
fn some_seconds_of_damage_break_no_parser() {
    let seed: u64 = rand::random();
    for target in all() {
        let plan = Plan { executions: u64::MAX, seed, time: Some(EACH), trace: None };
        let report = fuzz(&target, &plan);
        let faults: Vec<String> =
            report.faults.iter().map(|f| format!("{}\n  input {}", f.what, hex(&f.input))).collect();
        assert!(
            faults.is_empty(),
            "{}: {}\n  again: cargo run -p siltstone-fuzz -- --target {} --executions {} --seed {seed}",
            target.name,
            faults.join("\n"),
            target.name,
            report.executions
        );
        assert!(report.executions > 0, "{}", target.name);
    }
}

/// What engines wrote and what this product writes is taken: fuzzing starts behind the first check of every parser.
#[test]
fn every_parser_takes_a_seed_and_breaks_at_none() {
    let mut names = BTreeSet::new();
    for target in all() {
        assert!(names.insert(target.name), "{} stands twice", target.name);
        let runs: Vec<_> = target.seeds.iter().map(|seed| execute(&target, seed)).collect();
        assert!(runs.iter().any(|run| run.taken), "{}: no seed of {} is taken", target.name, runs.len());
        assert!(runs.iter().all(|run| run.fault.is_none()), "{}: {runs:?}", target.name);
    }
}

/// `tests/fuzz/found/PARSER/NAME`: inputs that were faults, named for what was wrong.
#[test]
fn inputs_that_once_broke_a_parser_break_none() {
    let every = all();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("found");
    let files =
        |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect::<Vec<_>>();
    for parser in files(&folder) {
        let name = parser.file_name().unwrap().to_str().unwrap().to_owned();
        let target = every.iter().find(|target| target.name == name).unwrap_or_else(|| panic!("{name} is no parser"));
        for path in files(&parser) {
            let run = execute(target, &fs::read(&path).unwrap());
            assert_eq!(run.fault, None, "{}", path.display());
        }
    }
}

fn planted(run: impl Fn(&[u8]) -> Outcome + 'static) -> Target {
    let memory = Memory { per_byte: 100, constant: 4096 };
    let seeds = vec![b"{\"name\": \"value\", \"n\": 1}".to_vec()];
    Target { name: "planted", shape: Shape::Json, words: &["trap"], memory, seeds, run: Box::new(run) }
}

fn faults(target: &Target) -> Vec<(String, Vec<u8>)> {
    let report = fuzz(target, &Plan { executions: 4_000, seed: 7, ..Plan::default() });
    assert_eq!(report.executions, 4_000);
    report.faults.into_iter().map(|fault| (fault.what, fault.input)).collect()
}

fn has(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|part| part == word)
}

#[test]
fn a_planted_panic_is_found_once_and_its_input_made_small() {
    let target = planted(|bytes| {
        assert!(!has(bytes, b"trap"), "planted {}", bytes.len());
        Outcome::Refused
    });
    let found = faults(&target);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].0.starts_with("panic: ") && found[0].0.contains("planted"), "{found:?}");
    assert_eq!(found[0].1, b"trap");
}

#[test]
fn a_planted_allocation_is_found() {
    let target = planted(|bytes| {
        let claimed = if has(bytes, b"trap") { 8 << 20 } else { bytes.len() };
        let held: Vec<u8> = Vec::with_capacity(std::hint::black_box(claimed));
        drop(std::hint::black_box(held));
        Outcome::Refused
    });
    let found = faults(&target);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].0.starts_with("memory: 8388608 bytes"), "{found:?}");
}

#[test]
fn a_planted_value_that_does_not_survive_is_found() {
    let target =
        planted(|bytes| if has(bytes, b"tra") { Outcome::Broken("changed".to_owned()) } else { Outcome::Taken });
    let found = faults(&target);
    assert_eq!(found.iter().map(|(what, _)| what.as_str()).collect::<Vec<_>>(), ["broken: changed"]);
}

#[test]
fn the_same_seed_finds_the_same() {
    let every = all();
    let target = every.iter().find(|target| target.name == "type-sql").unwrap();
    let run = |seed| {
        let report = fuzz(target, &Plan { executions: 3_000, seed, ..Plan::default() });
        (report.executions, report.taken, report.pool)
    };
    assert_eq!(run(3), run(3));
}
