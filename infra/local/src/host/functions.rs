//! The three functions of one table, in this process or in processes of their own, and what feeds them.
//!
//! Neighbours: `host` creates and drops them; `glue` runs them. Invariant: 1. both modes run the code of `functions/*` with the settings that
//! the environment gives on AWS.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use siltstone_aws::{LambdaMappings, Stores};
use siltstone_store::{RandomIds, SystemClock};
use siltstone_table::{Ports, TableRef, settings::FunctionSettings};

use super::Shared;
use crate::glue::{
    Function, FunctionError, InProcess, Mapping, MappingConfig, MappingCounts, ProcessConfig, ProcessFunction,
    function::{Counts, Handler},
    schedule::Schedule,
};

/// Which of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Kinesis events to level-0 runs.
    Ingest,
    /// S3 events to compactions.
    Compact,
    /// Schedules to maintenance.
    Maintain,
}

impl Role {
    /// As in function names.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Compact => "compact",
            Self::Maintain => "maintain",
        }
    }

    /// Name of its program.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::Ingest => "siltstone-ingest",
            Self::Compact => "siltstone-compact",
            Self::Maintain => "siltstone-maintain",
        }
    }

    /// The role of a function that calls itself so.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        [Self::Ingest, Self::Compact, Self::Maintain].into_iter().find(|role| role.name() == name)
    }

    /// Memory in MiB: what `infra/cdk` gives without other settings.
    #[must_use]
    pub fn memory_mb(self) -> u64 {
        match self {
            Self::Ingest => 1024,
            Self::Compact => 1769,
            Self::Maintain => 512,
        }
    }

    /// Time limit of an invocation: what `infra/cdk` gives without other settings.
    #[must_use]
    pub fn timeout(self) -> Duration {
        match self {
            Self::Ingest => Duration::from_mins(2),
            Self::Compact => Duration::from_mins(15),
            Self::Maintain => Duration::from_mins(5),
        }
    }

    /// Invocations at once, for one machine: on AWS the stream's shards, `compactConcurrency` and the schedule say it.
    fn concurrency(self) -> usize {
        match self {
            Self::Ingest => 64,
            Self::Compact => 2,
            Self::Maintain => 1,
        }
    }
}

/// Where the programs of functions are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bootstraps {
    /// A folder with PROGRAM/bootstrap, as `cargo lambda build` leaves it.
    Folder(PathBuf),
    /// One program that becomes a function by its last argument, the role.
    Program(PathBuf, Vec<String>),
}

/// How functions run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// In this process.
    InProcess,
    /// As real processes behind a Runtime API.
    Processes(Bootstraps),
}

/// A function in either mode.
#[derive(Debug)]
pub enum Runner {
    /// In this process.
    InProcess(InProcess),
    /// In processes.
    Process(ProcessFunction),
}

impl Runner {
    /// Kills what runs now, as if its sandbox was lost.
    pub fn kill_running(&self) {
        match self {
            Self::InProcess(function) => function.kill_running(),
            Self::Process(function) => {
                function.kill_running();
            }
        }
    }

    /// Counts.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        match self {
            Self::InProcess(function) => &function.counts,
            Self::Process(function) => &function.counts,
        }
    }
}

#[async_trait]
impl Function for Runner {
    fn name(&self) -> &str {
        match self {
            Self::InProcess(function) => function.name(),
            Self::Process(function) => function.name(),
        }
    }

    async fn invoke(&self, payload: Bytes) -> Result<Bytes, FunctionError> {
        match self {
            Self::InProcess(function) => function.invoke(payload).await,
            Self::Process(function) => function.invoke(payload).await,
        }
    }
}

/// The functions of one table.
#[derive(Debug)]
pub struct Hosted {
    /// The table.
    pub at: TableRef,
    /// Its life: a table that is created again under its name is read from the beginning of its stream.
    pub table_uuid: String,
    /// The stream that feeds it.
    pub stream: String,
    /// Settings of its event source mapping.
    pub mapping: MappingConfig,
    runners: BTreeMap<Role, Arc<Runner>>,
    running: Mutex<Option<(Mapping, Schedule)>>,
}

impl Hosted {
    pub(super) async fn new(
        shared: &Shared,
        at: TableRef,
        table_uuid: String,
        stream: String,
    ) -> Result<Arc<Self>, String> {
        let checkpoints = match &shared.config.dir {
            Some(dir) => {
                let dir = dir.join("mappings");
                std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
                Some(dir.join(format!("{}-{stream}-{table_uuid}.json", at.name)))
            }
            None => None,
        };
        let mapping = MappingConfig {
            stream: stream.clone(),
            batch_size: shared.config.batch_size,
            window: shared.config.window,
            bisect: true,
            checkpoints,
        };
        let mut runners = BTreeMap::new();
        for role in [Role::Ingest, Role::Compact, Role::Maintain] {
            runners.insert(role, Arc::new(runner(shared, &at, role)?));
        }
        Ok(Arc::new(Self { at, table_uuid, stream, mapping, runners, running: Mutex::default() }))
    }

    /// Runs maintenance once, then delivers records.
    pub(super) async fn start(&self, shared: &Shared) {
        let maintain = self.runner(Role::Maintain);
        if let Err(error) = maintain.invoke(Bytes::from_static(b"{}")).await {
            tracing::warn!(table = %self.at.name, %error, "the first maintenance failed");
        }
        let schedule = Schedule::start(&self.function_name(Role::Maintain), shared.config.maintain_every, maintain);
        let mapping = Mapping::start(self.mapping.clone(), shared.kinesis.clone(), self.runner(Role::Ingest));
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some((mapping, schedule));
    }

    /// Name of a function, as in `demo-orders-ingest`.
    #[must_use]
    pub fn function_name(&self, role: Role) -> String {
        function_name(&self.at, role)
    }

    /// A function.
    #[must_use]
    pub fn runner(&self, role: Role) -> Arc<Runner> {
        // All roles are there from the start.
        self.runners.get(&role).cloned().unwrap_or_else(|| Arc::new(Runner::InProcess(missing(role))))
    }

    /// Counts of the event source mapping, once it runs.
    #[must_use]
    pub fn delivered(&self) -> Option<Arc<MappingCounts>> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().map(|(mapping, _)| mapping.counts.clone())
    }
}

fn missing(role: Role) -> InProcess {
    let handler: Handler = Arc::new(|_, _| Box::pin(async { Err("the function is not there".to_owned()) }));
    InProcess::new(role.name(), handler, Duration::from_secs(1), 1)
}

fn function_name(at: &TableRef, role: Role) -> String {
    format!("{}-{}-{}", at.name.database, at.name.table, role.name())
}

/// What the environment tells a function, as on AWS.
fn environment(shared: &Shared, at: &TableRef) -> BTreeMap<String, String> {
    let own = [
        ("SILTSTONE_BUCKET", shared.config.bucket.clone()),
        ("SILTSTONE_ITEMS_TABLE", shared.config.items_table.clone()),
        ("SILTSTONE_WAREHOUSE", shared.config.warehouse.clone()),
        ("SILTSTONE_TABLE", at.name.to_string()),
        ("SILTSTONE_FUNCTION_INGEST", function_name(at, Role::Ingest)),
        ("RUST_LOG", "warn".to_owned()),
        ("MALLOC_ARENA_MAX", "1".to_owned()),
    ];
    let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
    let endpoints = shared.config.function_endpoints.as_ref().unwrap_or(&shared.endpoints);
    let aws = endpoints.variables().into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    own.chain(aws).collect()
}

fn runner(shared: &Shared, at: &TableRef, role: Role) -> Result<Runner, String> {
    let (memory_mb, timeout, concurrency) = (role.memory_mb(), role.timeout(), role.concurrency());
    let name = function_name(at, role);
    let environment = environment(shared, at);
    match &shared.config.mode {
        Mode::InProcess => {
            let handler = handler(shared, role, &environment, memory_mb)?;
            Ok(Runner::InProcess(InProcess::new(name, handler, timeout, concurrency)))
        }
        Mode::Processes(bootstraps) => {
            let (program, arguments) = match bootstraps {
                Bootstraps::Folder(folder) => (folder.join(role.program()).join("bootstrap"), Vec::new()),
                Bootstraps::Program(program, arguments) => {
                    (program.clone(), arguments.iter().cloned().chain([role.name().to_owned()]).collect())
                }
            };
            if !program.is_file() {
                return Err(format!("{} is missing: build it with `cargo lambda build`", program.display()));
            }
            let cpu_share = shared.config.cpu_share;
            let config =
                ProcessConfig { name, program, arguments, environment, memory_mb, timeout, concurrency, cpu_share };
            Ok(Runner::Process(ProcessFunction::new(config, shared.output.clone())))
        }
    }
}

fn handler(
    shared: &Shared,
    role: Role,
    environment: &BTreeMap<String, String>,
    memory_mb: u64,
) -> Result<Handler, String> {
    let settings = FunctionSettings::read(|name| match name {
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE" => Some(memory_mb.to_string()),
        name => environment.get(name).cloned(),
    })
    .map_err(|faults| faults.join("; "))?;
    let (clock, ids) = (Arc::new(SystemClock), Arc::new(RandomIds));
    let config = &shared.config;
    let stores = Stores::new(&shared.clients, &config.bucket, &config.items_table, clock.clone(), ids.clone());
    let ports = Ports { objects: stores.objects, items: stores.items, clock, ids };
    let output = shared.output.clone();
    Ok(match role {
        Role::Ingest => {
            let handler = siltstone_ingest::Handler::new(ports, Some(stores.streams), settings);
            let handler = Arc::new(handler.with_meter(stores.meter));
            Arc::new(move |payload: Bytes, deadline| {
                let (handler, output) = (handler.clone(), output.clone());
                Box::pin(async move {
                    let answer = handler.handle_json(&payload, deadline, |line| output(&line)).await;
                    answer.map(Bytes::from).map_err(|e| e.to_string())
                })
            })
        }
        Role::Compact => {
            let handler = Arc::new(siltstone_compact::Handler::new(ports, settings).with_meter(stores.meter));
            Arc::new(move |payload: Bytes, deadline| {
                let (handler, output) = (handler.clone(), output.clone());
                Box::pin(async move {
                    let answer = handler.handle_json(&payload, deadline, |line| output(&line)).await;
                    answer.map(Bytes::from).map_err(|e| e.to_string())
                })
            })
        }
        Role::Maintain => {
            let mappings = Arc::new(LambdaMappings::new(shared.clients.lambda.clone()));
            let handler = siltstone_maintain::Handler::new(ports, Some(mappings), settings).with_meter(stores.meter);
            let handler = Arc::new(handler);
            Arc::new(move |payload: Bytes, deadline| {
                let (handler, output) = (handler.clone(), output.clone());
                Box::pin(async move {
                    let answer = handler.handle_json(&payload, deadline, |line| output(&line)).await;
                    answer.map(Bytes::from).map_err(|e| e.to_string())
                })
            })
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_that_the_construct_gives() {
        let construct = include_str!("../../../cdk/lib/siltstone-table.ts");
        for role in [Role::Ingest, Role::Compact, Role::Maintain] {
            let (memory_mb, minutes) = (role.memory_mb(), role.timeout().as_secs() / 60);
            let line =
                format!("  {}: {{ memoryMb: {memory_mb}, timeout: Duration.minutes({minutes}) }},\n", role.name());
            assert!(construct.contains(&line), "infra/cdk/lib/siltstone-table.ts has no line `{}`", line.trim());
        }
    }
}
