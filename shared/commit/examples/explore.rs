//! Model checks the commit protocols: every interleaving of each scenario's actors, with deaths, lost and late answers.
//!
//! Run: `cargo run --locked --release -p siltstone-commit --example explore --features testing -- [--scenario NAME]..
//! [--faults N] [--states N] [--json]`. Ends with 1 at a broken invariant, 2 if a limit of states was reached first.
#![allow(clippy::disallowed_methods, reason = "a measuring program reads its arguments and the clock")]

use std::{process::ExitCode, time::Instant};

use siltstone_commit::testing::explore::{Report, Scenario, explore, scenarios};

struct Arguments {
    names: Vec<String>,
    faults: Option<usize>,
    states: usize,
    json: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut found = Arguments { names: Vec::new(), faults: None, states: usize::MAX, json: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        let number = |text: String| text.parse().map_err(|_| format!("{text} is no number"));
        match word.as_str() {
            "--scenario" => found.names.push(value()?),
            "--faults" => found.faults = Some(number(value()?)?),
            "--states" => found.states = number(value()?)?,
            "--json" => found.json = true,
            _ => return Err(format!("{word} is no option: --scenario NAME, --faults N, --states N, --json")),
        }
    }
    Ok(found)
}

fn chosen(arguments: &Arguments) -> Result<Vec<Scenario>, String> {
    let all = scenarios();
    let names: Vec<String> = all.iter().map(|s| s.name.clone()).collect();
    if let Some(unknown) = arguments.names.iter().find(|name| !names.contains(name)) {
        return Err(format!("{unknown} is no scenario; there are {}", names.join(", ")));
    }
    Ok(all.into_iter().filter(|s| arguments.names.is_empty() || arguments.names.contains(&s.name)).collect())
}

fn show(report: &Report, faults: usize, seconds: f64, json: bool) {
    if !json {
        println!("{report}, {seconds:.1} s");
        return;
    }
    let line = serde_json::json!({
        "scenario": report.name, "faults": faults, "states": report.states, "steps": report.steps, "ends": report.ends,
        "depth": report.depth, "histories": report.histories, "rounds": report.rounds, "shared_keys": report.shared_keys,
        "complete": report.complete, "violation": report.violation.as_ref().map(|v| &v.message), "seconds": seconds,
    });
    println!("{line}");
}

fn run() -> Result<ExitCode, String> {
    let arguments = arguments()?;
    let (mut states, mut violations, mut incomplete) = (0, 0, 0);
    let all = chosen(&arguments)?;
    let scenarios = all.len();
    for mut scenario in all {
        scenario.faults = arguments.faults.unwrap_or(scenario.faults);
        let begun = Instant::now();
        let report = explore(&scenario, arguments.states);
        show(&report, scenario.faults, begun.elapsed().as_secs_f64(), arguments.json);
        states += report.states;
        violations += usize::from(report.violation.is_some());
        incomplete += usize::from(!report.complete);
    }
    if arguments.json {
        let line = serde_json::json!({
            "scenarios": scenarios, "states": states, "violations": violations, "incomplete": incomplete,
        });
        println!("{line}");
    }
    Ok(ExitCode::from(if violations > 0 { 1 } else { 2 * u8::from(incomplete > 0) }))
}

fn main() -> ExitCode {
    run().unwrap_or_else(|message| {
        eprintln!("{message}");
        ExitCode::from(2)
    })
}
