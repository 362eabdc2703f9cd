//! The command: many histories with fresh seeds, or one seed once more.
//!
//! Below: `run`, `shrink`, `report`. Invariant: 1. the exit code is 0 only when histories ran and nothing was broken in any.

use std::{
    collections::BTreeSet,
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use clap::Parser;
use siltstone_sim::{
    report::Report,
    run::{History, Limits, run},
    shrink::shrink,
};
use siltstone_store::ids::{Ids, RandomIds};

/// Failing seeds that are made small and shown.
const SHOWN: usize = 3;

/// Simulate the whole system under faults; one seed is one history.
#[derive(Debug, Parser)]
struct Args {
    /// Histories in all
    #[arg(long, default_value_t = 1_000)]
    histories: u64,
    /// The first seed, the others follow it; a fresh one unless given
    #[arg(long)]
    seed: Option<u64>,
    /// Threads, each with histories of its own
    #[arg(long, default_value_t = 1)]
    jobs: u64,
    /// One line of JSON at the end
    #[arg(long)]
    json: bool,
    /// Replay one seed and print all that happens
    #[arg(long, requires = "seed")]
    trace: bool,
    /// With --trace: only the faults of these turns
    #[arg(long, value_delimiter = ',', requires = "trace")]
    only: Option<Vec<u64>>,
    /// With --trace: no more records than this
    #[arg(long, requires = "trace")]
    records: Option<u64>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    // Any 53 bits: what prints in JSON reads back everywhere.
    let fresh = || u64::try_from(RandomIds.uuid().as_u128() >> 75).unwrap_or(0);
    let seed = args.seed.unwrap_or_else(fresh);
    // A panic is how a history stops at what is broken; it is told with its seed below.
    std::panic::set_hook(Box::new(|_| ()));
    if args.trace {
        return replay(seed, &args);
    }
    let started = Instant::now();
    let report = all(seed, &args);
    let seconds = started.elapsed().as_secs_f64();
    if !args.json {
        print!("{}", report.table());
        println!("{:?}", report.done);
    }
    // After the long table: what is broken is what a reader of the last lines came for.
    for seed in report.violations.keys().take(SHOWN) {
        explain(*seed);
    }
    for (seed, violation) in report.violations.iter().skip(SHOWN) {
        eprintln!("seed {seed}: {violation}");
    }
    if args.json {
        let mut all = report.to_json();
        all["seed"] = seed.into();
        all["seconds"] = ((seconds * 10.0).round() / 10.0).into();
        println!("{all}");
    } else {
        let (histories, violations) = (report.histories, report.violations.len());
        println!("{histories} histories from seed {seed}, {violations} violations, {seconds:.0} s");
    }
    if report.histories > 0 && report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn all(seed: u64, args: &Args) -> Report {
    let next = AtomicU64::new(0);
    let work = || {
        let mut report = Report::default();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            if place >= args.histories {
                return report;
            }
            report.add(&run(seed.wrapping_add(place), &Limits::default()));
        }
    };
    let mut total = Report::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..args.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            match worker.join() {
                Ok(report) => total.merge(report),
                Err(_) => drop(total.violations.insert(seed, "a thread of the simulation died".to_owned())),
            }
        }
    });
    total
}

/// Makes a failing seed small, and says how to see it again.
fn explain(seed: u64) {
    let Some((limits, history)) = shrink(seed) else {
        return eprintln!("seed {seed} failed and does not fail again: this is a fault of the simulation");
    };
    let turns: Vec<String> = limits.only.iter().flatten().map(u64::to_string).collect();
    let only = if limits.only.is_some() { format!(" --only {}", turns.join(",")) } else { String::new() };
    let records = limits.records.map_or_else(String::new, |records| format!(" --records {records}"));
    eprintln!("seed {seed}: {}", history.violation.as_deref().unwrap_or_default());
    show(&history, 60);
    eprintln!("again: tests/sim-long --seed {seed} --trace{records}{only}");
}

fn show(history: &History, lines: usize) {
    let from = history.trace.len().saturating_sub(lines);
    history.trace.iter().skip(from).for_each(|line| eprintln!("  {line}"));
}

fn replay(seed: u64, args: &Args) -> ExitCode {
    let only: Option<BTreeSet<u64>> = args.only.as_ref().map(|turns| turns.iter().copied().collect());
    let history = run(seed, &Limits { only, records: args.records });
    show(&history, usize::MAX);
    match history.violation {
        Some(violation) => {
            println!("seed {seed}: {violation}");
            ExitCode::FAILURE
        }
        None => {
            println!("seed {seed}: nothing broken in {} turns, digest {:016x}", history.turns, history.digest);
            ExitCode::SUCCESS
        }
    }
}
