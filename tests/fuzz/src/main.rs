//! The command: fuzzes all parsers, or one, and says what was found.
//!
//! Below: `driver`. Invariant: 1. the exit code is 0 only when every parser ran and nothing that must not happen did.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use serde_json::json;
use siltstone_fuzz::{
    corpus::Corpus,
    coverage::Seen,
    driver::{Plan, fuzz},
    memory::Counting,
    targets,
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Fuzz the parsers of Siltstone with damaged copies of what real engines and streams wrote.
#[derive(Debug, Parser)]
struct Args {
    /// Inputs in all, shared out evenly among the parsers
    #[arg(long, default_value_t = 100_000)]
    executions: u64,
    /// Where chance starts; a fresh one unless given
    #[arg(long)]
    seed: Option<u64>,
    /// Only this parser; may be repeated
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,
    /// Seconds for each parser, at the most
    #[arg(long)]
    seconds: Option<f64>,
    /// Write each input to this file before it runs
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Run this one input instead
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// One line of JSON for each parser, and one for all
    #[arg(long)]
    json: bool,
    /// Name the parsers
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut every = targets::all(&Corpus::of_the_repository());
    if args.list {
        every.iter().for_each(|target| println!("{:<16} {} seeds", target.name, target.seeds.len()));
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = args.target.iter().find(|name| every.iter().all(|target| target.name != **name)) {
        eprintln!("error: no parser is called {unknown}; --list names them");
        return ExitCode::from(2);
    }
    every.retain(|target| args.target.is_empty() || args.target.iter().any(|name| name == target.name));
    if let Some(path) = &args.input {
        return one(&every, path);
    }
    let seed = args.seed.unwrap_or_else(rand::random);
    let plan = Plan {
        executions: args.executions.div_ceil(every.len().max(1) as u64),
        seed,
        time: args.seconds.map(Duration::from_secs_f64),
        trace: args.trace,
    };
    let counters = Seen::default().counters();
    let (mut executions, mut faults, mut seconds) = (0, 0, 0.0);
    for target in &every {
        let report = fuzz(target, &plan);
        executions += report.executions;
        seconds += report.seconds;
        faults += report.faults.len();
        if args.json {
            println!("{}", report.to_json());
            continue;
        }
        println!(
            "{:<16} {:>9} inputs, {:>9} taken, {:>5} kept, {:>9} bytes at most (input of {}), {:>6.1} s",
            report.target, report.executions, report.taken, report.pool, report.peak.0, report.peak.1, report.seconds
        );
        for fault in &report.faults {
            println!(
                "FAULT   {}: {} ({} times)\n        {}",
                target.name,
                fault.what,
                fault.times,
                fault.input.escape_ascii()
            );
        }
    }
    if args.json {
        let all = json!({"targets": every.len(), "executions": executions, "faults": faults, "seed": seed, "counters": counters,
            "seconds": (seconds * 10.0).round() / 10.0});
        println!("{all}");
    } else {
        let guided = if counters > 0 { "guided by coverage" } else { "blind: see tests/fuzz/guided" };
        println!("{executions} inputs, {faults} faults, seed {seed}, {seconds:.0} s, {guided}");
    }
    if faults > 0 || executions == 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn one(every: &[targets::Target], path: &PathBuf) -> ExitCode {
    let [target] = every else {
        eprintln!("error: --input takes one --target");
        return ExitCode::from(2);
    };
    let input = match std::fs::read(path) {
        Ok(input) => input,
        Err(error) => {
            eprintln!("error: {}: {error}", path.display());
            return ExitCode::from(2);
        }
    };
    let run = siltstone_fuzz::driver::execute(target, &input);
    println!("taken: {}, {} bytes at most, fault: {:?}", run.taken, run.peak, run.fault);
    if run.fault.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
