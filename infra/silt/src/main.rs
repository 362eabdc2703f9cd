//! `silt`: the command line of Siltstone. The same verbs on the local stack, on AWS, and on bare Paimon warehouses.
//!
//! Neighbours: `args` is the grammar, `place` opens what the verbs work on, `commands/*` are the verbs, `demo` is the minute that shows all
//! of it. Invariant: 1. a user's mistake ends with words and an exit code, never with a panic or a backtrace.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod args;
mod commands;
mod demo;
mod failure;
mod out;
mod place;

use std::{ffi::OsString, io::IsTerminal, process::ExitCode};

use clap::Parser;
use siltstone_local::host::Role;
use tracing_subscriber::EnvFilter;

use args::{Cli, Verb};
use failure::{Done, Failure};
use out::Out;

fn main() -> ExitCode {
    // Functions started by `demo` are this same program; they read everything from their environment.
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let [first, role] = arguments.as_slice()
        && first == FUNCTION
    {
        return function(&role.to_string_lossy());
    }
    quiet_guarded_panics();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && arguments.iter().any(|word| word == "--json") => {
            let words = error.to_string();
            return Failure::Usage(words.trim_start_matches("error: ").trim_end().to_owned()).report(true);
        }
        Err(error) => error.exit(),
    };
    if let Err(failure) = cli.check() {
        return failure.report(cli.json);
    }
    let level = match cli.verbose {
        // A failure tells itself at the end; what libraries say of it on the way is for -v.
        0 => "off,siltstone=error",
        1 => "warn,siltstone=info",
        _ => "info,siltstone=debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let json = cli.json;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::Unavailable(format!("no threads: {error}")).report(json),
    };
    let ended = runtime.block_on(run(cli));
    // What still runs in the background is not waited for.
    runtime.shutdown_background();
    match ended {
        Ok(Done::Well) => ExitCode::SUCCESS,
        Ok(Done::Problems) => ExitCode::from(1),
        Err(failure) => failure.report(json),
    }
}

/// A decoder's panic over a damaged file is an error that names the file; its backtrace is no news.
fn quiet_guarded_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !siltstone_lsm::reader::is_guarded() {
            before(panic);
        }
    }));
}

/// First argument of a process that is a function: `silt function ingest`.
pub(crate) const FUNCTION: &str = "function";

fn function(role: &str) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(_) => return ExitCode::from(3),
    };
    let served = match Role::of_name(role) {
        Some(Role::Ingest) => runtime.block_on(siltstone_ingest::bootstrap::serve()),
        Some(Role::Compact) => runtime.block_on(siltstone_compact::bootstrap::serve()),
        Some(Role::Maintain) => runtime.block_on(siltstone_maintain::bootstrap::serve()),
        None => Err(format!("{role} is none of ingest, compact, maintain").into()),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => Failure::Usage(error.to_string()).report(false),
    }
}

async fn run(cli: Cli) -> Result<Done, Failure> {
    let mut out = Out::new(cli.json);
    let place = &cli.place;
    match cli.verb {
        // Its functions are processes, and end with what is dropped here.
        Verb::Demo(args) => tokio::select! {
            ended = demo::run(args, &mut out) => ended,
            () = commands::local::stopped() => {
                Err(Failure::Problem("the demo was stopped before its end: nothing was compared".to_owned()))
            }
        },
        Verb::Local(args) => commands::local::run(args, &mut out).await,
        Verb::Table(args) => commands::table::run(place, args, &mut out).await,
        Verb::Produce(args) => commands::produce::run(place, args, &mut out).await,
        Verb::Scan(args) => commands::scan::run(place, args, &mut out).await,
        Verb::Snapshots(args) => commands::snapshots::run(place, args, &mut out).await,
        Verb::Files(args) => commands::files::run(place, args, &mut out).await,
        Verb::Compact(args) => commands::compact::run(place, args, &mut out).await,
        Verb::Check(args) => commands::check::run(place, args, &mut out).await,
        Verb::Expire(args) => commands::expire::run(place, args, &mut out).await,
        Verb::Rollback(args) => commands::rollback::run(place, args, &mut out).await,
        Verb::Repair(args) => commands::repair::run(place, args, &mut out).await,
        Verb::Quarantine(args) => commands::quarantine::run(place, args, &mut out).await,
        Verb::Pause(args) => commands::pause::run(place, args, true, &mut out).await,
        Verb::Resume(args) => commands::pause::run(place, args, false, &mut out).await,
        Verb::Drain(args) => commands::drain::run(place, args, &mut out).await,
    }
}
