//! Real faults on real processes: functions and the whole local stack are killed under load, and in the end nothing is lost, nothing twice.
//!
//! `tests/e2e/chaos` starts it; shared/design/0024-chaos.md says why it is as it is. Inside: `drive` (a run), `stack` (the child), `proxy` (faults
//! and kills), `producer` and `source` (the load), `witness` and `verify` (the verdict). Invariant: 1. the exit code is 0 only when all is right
//! and something was tested.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod drive;
mod producer;
mod proxy;
mod report;
mod source;
mod stack;
mod verify;
mod witness;

use std::{path::Path, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};
use siltstone_store::ids::{Ids, RandomIds};

/// Kill functions and the whole stack under load, and compare.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    stack: Option<Child>,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Subcommand)]
enum Child {
    /// The stack of a run; started by the run itself
    #[command(hide = true)]
    Stack(stack::Serve),
}

#[derive(Debug, Args)]
struct Run {
    /// How long records are produced
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Stop producing after so many records
    #[arg(long, default_value_t = u64::MAX)]
    records: u64,
    /// Of load, faults and kills; a fresh one unless given
    #[arg(long)]
    seed: Option<u64>,
    /// Records a second, as long as the functions keep up
    #[arg(long, default_value_t = 4_000)]
    rate: u64,
    /// One line of JSON at the end
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_env_filter("warn").with_writer(std::io::stderr).with_ansi(false).init();
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("no threads: {error}")),
    };
    match cli.stack {
        Some(Child::Stack(args)) => match runtime.block_on(stack::serve(args)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error),
        },
        None => chaos(&cli.run, &runtime),
    }
}

fn failed(words: &str) -> ExitCode {
    eprintln!("chaos: {words}");
    ExitCode::FAILURE
}

fn chaos(args: &Run, runtime: &tokio::runtime::Runtime) -> ExitCode {
    // Any 53 bits: what prints in JSON reads back everywhere.
    let fresh = || u64::try_from(RandomIds.uuid().as_u128() >> 75).unwrap_or(0);
    let seed = args.seed.unwrap_or_else(fresh);
    let Ok(time) = Duration::try_from_secs_f64(args.minutes * 60.0) else { return failed("--minutes is no time") };
    let load = producer::Load { seed, time, records: args.records, rate: args.rate };
    let dir = match tempfile::Builder::new().prefix("siltstone-chaos-").tempdir() {
        Ok(dir) => dir,
        Err(error) => return failed(&format!("no directory for the state: {error}")),
    };
    eprintln!("seed {seed}, state in {}", dir.path().display());
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = drive::run(dir.path(), load) => outcome,
            _ = tokio::signal::ctrl_c() => Err("stopped before its end: nothing was compared".to_owned()),
        }
    });
    let well = match outcome {
        Ok(report) if args.json => {
            println!("{}", report.json());
            report.well()
        }
        Ok(report) => {
            println!("{report}");
            report.well()
        }
        Err(error) => {
            eprintln!("chaos: {error}");
            false
        }
    };
    if well {
        return ExitCode::SUCCESS;
    }
    keep(&dir.keep(), seed);
    ExitCode::FAILURE
}

/// Says how to look at what is left.
fn keep(dir: &Path, seed: u64) {
    let (table, dir) = (drive::TABLE, dir.display());
    eprintln!(
        "The state is kept. What functions and the stack said: {dir}/stack.log. To look at the table:\n  \
         silt local --dir {dir} &\n  silt --local {dir} check {table} --deep\n  silt --local {dir} snapshots {table}\n\
         Again: tests/e2e/chaos --seed {seed}"
    );
}
