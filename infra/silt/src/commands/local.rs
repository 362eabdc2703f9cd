//! `silt local`: the stack with its functions, kept up until Ctrl-C.
//!
//! Neighbours: `siltstone_local` is the stack and its host.

use std::{path::Path, sync::Arc};

use serde_json::{Map, Value, json};
use siltstone_local::{
    Endpoints, Stack, StackConfig,
    glue::process::Output,
    host::{Bootstraps, Host, HostConfig, Mode, Role},
};

use crate::{
    args::Local,
    failure::{Done, Failure},
    out::Out,
    place::{need_text, serving},
};

/// The last port that has three more after it.
const LAST_FIRST_PORT: u16 = u16::MAX - 3;

pub(crate) async fn run(args: Local, out: &mut Out) -> Result<Done, Failure> {
    if let Some(dir) = &args.dir {
        need_text(dir)?;
    }
    if args.exports {
        return exports(args.dir.as_deref(), out).await;
    }
    if args.port > LAST_FIRST_PORT {
        return Err(Failure::Usage(format!(
            "--port {}: the stack needs four ports in a row, so the first is at most {LAST_FIRST_PORT}",
            args.port
        )));
    }
    let mode = if args.process {
        for role in [Role::Ingest, Role::Compact, Role::Maintain] {
            let program = args.functions.join(role.program()).join("bootstrap");
            if !program.is_file() {
                return Err(Failure::Usage(format!(
                    "--process needs the functions' programs: {} is not there; build them with `cargo lambda build`",
                    program.display()
                )));
            }
        }
        Mode::Processes(Bootstraps::Folder(args.functions))
    } else {
        Mode::InProcess
    };
    if let Some(dir) = &args.dir {
        make(dir)?;
    }
    let stack = Stack::start(StackConfig { dir: args.dir.clone(), port: args.port }).await?;
    let mut config = HostConfig::new(mode, args.dir.clone());
    config.rough_events = args.rough_events.then_some(1);
    let warehouse = format!("s3://{}/{}", config.bucket, config.warehouse);
    let output: Output = Arc::new(|line: &str| tracing::info!(target: "siltstone", "{line}"));
    let host = Host::start(&stack, config, output).await?;
    if out.json {
        out.line(as_json(&stack.endpoints()))?;
    } else {
        out.line(stack.exports().trim_end())?;
        out.line(format!("# warehouse {warehouse}; Ctrl-C ends the stack"))?;
    }
    stopped().await;
    drop(host);
    stack.shutdown().await;
    Ok(Done::Well)
}

/// Makes the directory of a stack.
pub(crate) fn make(dir: &Path) -> Result<(), Failure> {
    if dir.exists() && !dir.is_dir() {
        return Err(Failure::Usage(format!(
            "{} is no directory: a stack keeps its state in one, so name another",
            dir.display()
        )));
    }
    std::fs::create_dir_all(dir)
        .map_err(|e| Failure::Usage(format!("the directory {} cannot be made: {e}", dir.display())))
}

fn as_json(endpoints: &Endpoints) -> Value {
    Value::Object(endpoints.variables().iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect::<Map<_, _>>())
}

/// Addresses of the stack that runs in a directory: an answer means that it serves.
async fn exports(dir: Option<&Path>, out: &mut Out) -> Result<Done, Failure> {
    let dir = dir.unwrap_or(Path::new("."));
    let away = || {
        Failure::Unavailable(format!(
            "no stack runs in {}: start one with `silt local --dir {}`",
            dir.display(),
            dir.display()
        ))
    };
    let endpoints = serving(dir).await.ok_or_else(away)?;
    let text = endpoints.exports();
    out.object(&as_json(&endpoints), text.trim_end())?;
    Ok(Done::Well)
}

/// Ctrl-C, or the end that a service manager asks for.
pub(crate) async fn stopped() {
    let Ok(mut term) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else {
        tokio::signal::ctrl_c().await.ok();
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
    }
}
