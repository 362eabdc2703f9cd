//! The command: batches a second and time to visibility of one table, by the number of shards.
//!
//! Below: `load`. Invariant: 1. the last line of `--json` holds every figure.

use std::process::ExitCode;

use clap::Parser;
use serde_json::Value;
use siltstone_sim::load::{Load, run};

/// Simulate a table under load, over services with the times and limits of AWS
#[derive(Debug, Parser)]
struct Args {
    /// Numbers of shards, one run each
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 100, 1_000], value_parser = clap::value_parser!(u32).range(1..=10_000))]
    shards: Vec<u32>,
    /// Seconds that are counted
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
    /// Seconds before that: cold starts
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(..=3_600))]
    warm: u32,
    /// Of all draws
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One line of JSON at the end
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut all = Vec::new();
    for shards in args.shards {
        let load = Load { shards, warm_seconds: args.warm, seconds: args.seconds, seed: args.seed };
        let figures = run(load).to_json();
        if !args.json {
            show(&figures, all.is_empty());
        }
        all.push(figures);
    }
    if args.json {
        println!("{}", Value::from(all));
    }
    ExitCode::SUCCESS
}

fn show(figures: &Value, first: bool) {
    let Some(figures) = figures.as_object() else { return };
    let width = |name: &String| name.len().max(8);
    let line = |cell: &dyn Fn(&String, &Value) -> String| {
        let cells: Vec<String> =
            figures.iter().map(|(name, value)| format!("{:>1$}", cell(name, value), width(name))).collect();
        println!("{}", cells.join("  "));
    };
    if first {
        line(&|name, _| name.clone());
    }
    line(&|_, value| value.to_string());
}
