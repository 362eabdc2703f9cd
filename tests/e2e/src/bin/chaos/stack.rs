//! The stack with its functions as a process of its own, which is killed and started again on the same directory and ports.
//!
//! Neighbours: `main` starts this same program as the child by [`Serve`]; the driver holds a [`StackProcess`]. Functions reach the services by
//! the proxy. Invariants: 1. a child ends with the driver, however that ends; 2. a stack comes back at its ports.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use siltstone_local::{
    Endpoints, Stack, StackConfig,
    glue::process::Output,
    host::{Bootstraps, Host, HostConfig, Mode, Role},
};
use siltstone_store::{Clock, SystemClock};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

/// Below what the system gives to connections, so that nobody takes them while the stack is down.
const PORTS: std::ops::Range<u16> = 20_000..30_000;
const READY_TRIES: u32 = 600;
const TRY_EVERY: Duration = Duration::from_millis(100);
/// A log is begun anew with the stack once it is so long.
const LOG_BYTES: u64 = 64 << 20;

/// What the child is told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Serve {
    /// State directory
    #[arg(long)]
    dir: PathBuf,
    /// The first of four ports
    #[arg(long)]
    port: u16,
    /// Seed of rough events
    #[arg(long)]
    seed: u64,
    /// Where functions find S3, `DynamoDB` and Kinesis; without, there are no functions
    #[arg(long, num_args = 3)]
    proxies: Vec<String>,
}

/// The child: serves until it is killed.
pub(crate) async fn serve(args: Serve) -> Result<(), String> {
    let words = |e: &dyn std::error::Error| e.to_string();
    let stack =
        Stack::start(StackConfig { dir: Some(args.dir.clone()), port: args.port }).await.map_err(|e| words(&e))?;
    let host = match args.proxies.as_slice() {
        [s3, dynamodb, kinesis] => {
            let programs = programs(&args.dir).map_err(|e| words(&e))?;
            let mut config = HostConfig::new(Mode::Processes(Bootstraps::Folder(programs)), Some(args.dir.clone()));
            config.cpu_share = false;
            config.window = Duration::from_millis(300);
            config.maintain_every = Duration::from_secs(5);
            config.rough_events = Some(args.seed);
            let (s3, dynamodb, kinesis) = (s3.clone(), dynamodb.clone(), kinesis.clone());
            config.function_endpoints = Some(Endpoints { s3, dynamodb, kinesis, lambda: stack.endpoints().lambda });
            let output: Output = Arc::new(|line: &str| {
                // Metrics are of no use here; warnings are.
                if !line.contains("\"_aws\"") {
                    tracing::warn!(target: "function", "{line}");
                }
            });
            Some(Host::start(&stack, config, output).await.map_err(|e| words(&e))?)
        }
        _ => None,
    };
    // The driver holds the other end, and never writes.
    let ended = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()));
    ended.await.map_err(|e| words(&e))?.map_err(|e| words(&e))?;
    drop(host);
    Ok(())
}

/// The built functions as `cargo lambda build` would lay them out.
fn programs(dir: &Path) -> std::io::Result<PathBuf> {
    let built = std::env::current_exe()?;
    let folder = dir.join("functions");
    for role in [Role::Ingest, Role::Compact, Role::Maintain] {
        let bootstrap = folder.join(role.program()).join("bootstrap");
        std::fs::create_dir_all(folder.join(role.program()))?;
        if !bootstrap.exists() {
            symlink(built.with_file_name(role.program()), bootstrap)?;
        }
    }
    Ok(folder)
}

/// The child as the driver sees it.
pub(crate) struct StackProcess {
    dir: PathBuf,
    port: u16,
    seed: u64,
    proxies: Vec<String>,
    child: Child,
}

impl StackProcess {
    /// Starts, and waits until all ports answer.
    pub(crate) async fn start(dir: &Path, seed: u64, proxies: &Endpoints) -> Result<Self, String> {
        let port = free_ports(seed).ok_or("no four free ports in a row")?;
        let proxies = vec![proxies.s3.clone(), proxies.dynamodb.clone(), proxies.kinesis.clone()];
        let child = spawn(dir, port, seed, &proxies)?;
        let mut stack = Self { dir: dir.to_owned(), port, seed, proxies, child };
        stack.ready().await?;
        Ok(stack)
    }

    /// Where it listens.
    pub(crate) fn endpoints(&self) -> Endpoints {
        let [s3, dynamodb, kinesis, lambda] = [0, 1, 2, 3].map(|n| format!("http://127.0.0.1:{}", self.port + n));
        Endpoints { s3, dynamodb, kinesis, lambda }
    }

    /// SIGKILL, and up again.
    pub(crate) async fn kill_and_restart(&mut self) -> Result<(), String> {
        self.kill().await;
        self.child = spawn(&self.dir, self.port, self.seed, &self.proxies)?;
        self.ready().await
    }

    /// SIGKILL, and up again with services only.
    pub(crate) async fn restart_without_functions(&mut self) -> Result<(), String> {
        self.proxies.clear();
        self.kill_and_restart().await
    }

    async fn kill(&mut self) {
        // Only a child that is gone cannot be killed.
        self.child.kill().await.ok();
    }

    async fn ready(&mut self) -> Result<(), String> {
        for _ in 0..READY_TRIES {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("the stack ended with {status}; see {}", log(&self.dir).display()));
            }
            let mut up = 0;
            for n in 0..3 {
                up += u32::from(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port + n)).await.is_ok());
            }
            if up == 3 {
                return Ok(());
            }
            SystemClock.sleep(TRY_EVERY).await;
        }
        Err(format!("the stack does not answer; see {}", log(&self.dir).display()))
    }
}

pub(crate) fn log(dir: &Path) -> PathBuf {
    dir.join("stack.log")
}

fn spawn(dir: &Path, port: u16, seed: u64, proxies: &[String]) -> Result<Child, String> {
    let failed = |e: std::io::Error| format!("the stack does not start: {e}");
    let long = std::fs::metadata(log(dir)).is_ok_and(|file| file.len() > LOG_BYTES);
    let file = OpenOptions::new().create(true).append(true).open(log(dir)).map_err(failed)?;
    if long {
        file.set_len(0).map_err(failed)?;
    }
    let settings: BTreeMap<&str, String> =
        [("--dir", dir.display().to_string()), ("--port", port.to_string()), ("--seed", seed.to_string())].into();
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.arg("stack");
    for (name, value) in settings {
        command.args([name, &value]);
    }
    if !proxies.is_empty() {
        command.arg("--proxies").args(proxies);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(file).kill_on_drop(true).spawn().map_err(failed)
}

fn free_ports(seed: u64) -> Option<u16> {
    let count = u64::from(PORTS.end - PORTS.start) / 4;
    (0..count).find_map(|n| {
        let first = PORTS.start + u16::try_from((seed + n) % count).ok()? * 4;
        let listeners: Vec<_> = (0..4).map(|n| TcpListener::bind((Ipv4Addr::LOCALHOST, first + n))).collect();
        listeners.iter().all(Result::is_ok).then_some(first)
    })
}
