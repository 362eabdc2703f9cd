//! Siltstone's functions on the local stack: for each table with a stream, what `infra/cdk` deploys on AWS.
//!
//! Neighbours: `glue` invokes as Lambda does; `functions` holds the three of one table; `silt local` and `silt demo` start a [`Host`].
//! Invariants: 1. a table that is created while the host runs is served within a second, a dropped one no longer; 2. `maintain` has checked
//! the event source mapping before records are delivered.

mod functions;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use siltstone_aws::{Clients, Endpoints as ClientEndpoints, Stores, Timeouts, create_items_table};
use siltstone_store::{Clock, RandomIds, SystemClock};
use siltstone_table::{Ports, TableName, TableRef, catalog, settings::Feed, table::life_of};
use tokio::{sync::Notify, task::JoinHandle};

pub use functions::{Bootstraps, Hosted, Mode, Role, Runner};

use crate::{
    Stack, StackError,
    glue::{
        Function, MappingConfig, control_api, lineage,
        notify::{self, Delivery, NotifyCounts, Rule},
        process::Output,
    },
};

/// How long a change of the catalog may stay unseen.
const DISCOVER_EVERY: Duration = Duration::from_millis(500);

/// Settings of a host.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// Bucket of the warehouse; created.
    pub bucket: String,
    /// DynamoDB table of the pointers; created.
    pub items_table: String,
    /// Prefix of the warehouse.
    pub warehouse: String,
    /// In this process or in processes of their own.
    pub mode: Mode,
    /// Processes get the share of a core that Lambda gives for their memory.
    pub cpu_share: bool,
    /// Records of a batch.
    pub batch_size: usize,
    /// How long a batch is gathered.
    pub window: Duration,
    /// Rate of `maintain`.
    pub maintain_every: Duration,
    /// Deliver S3 events twice and out of order now and then, by this seed.
    pub rough_events: Option<u64>,
    /// Where the mappings' checkpoints are kept; in memory without.
    pub dir: Option<PathBuf>,
    /// Where functions of their own processes find the services, if not at the stack itself: a proxy in between.
    pub function_endpoints: Option<crate::Endpoints>,
}

impl HostConfig {
    /// Settings of `silt local`.
    #[must_use]
    pub fn new(mode: Mode, dir: Option<PathBuf>) -> Self {
        Self {
            bucket: "siltstone".to_owned(),
            items_table: "siltstone".to_owned(),
            warehouse: "warehouse".to_owned(),
            mode,
            cpu_share: true,
            batch_size: 10_000,
            window: Duration::from_millis(500),
            maintain_every: Duration::from_secs(60),
            rough_events: None,
            dir,
            function_endpoints: None,
        }
    }
}

/// Functions beside a stack. Dropping it ends them.
pub struct Host {
    shared: Arc<Shared>,
    /// Counts of S3 notifications.
    pub notifications: Arc<NotifyCounts>,
    tasks: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.shared.tables().clear();
    }
}

struct Shared {
    config: HostConfig,
    clients: Clients,
    ports: Ports,
    endpoints: crate::Endpoints,
    kinesis: crate::Kinesis,
    output: Output,
    tables: Mutex<BTreeMap<TableName, Arc<Hosted>>>,
    changed: Notify,
}

impl Shared {
    fn tables(&self) -> std::sync::MutexGuard<'_, BTreeMap<TableName, Arc<Hosted>>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rules(&self) -> Vec<Rule> {
        let rule = |hosted: &Arc<Hosted>| Rule {
            bucket: self.config.bucket.clone(),
            prefix: hosted.at.tasks(),
            function: hosted.runner(Role::Compact),
            // An unfinished job puts the next task itself.
            allows_loops: true,
        };
        self.tables().values().map(rule).collect()
    }

    /// Serves new tables and leaves dropped ones.
    async fn discover(&self) {
        let names = match catalog::list(&self.ports, &self.config.warehouse).await {
            Ok(names) => names,
            Err(error) => {
                tracing::warn!(%error, "the tables cannot be listed");
                return;
            }
        };
        self.tables().retain(|name, _| names.contains(name));
        for name in names {
            let at = TableRef::new(&self.config.warehouse, name.clone());
            let (Ok(feed), Ok(table_uuid)) = (Feed::load(&self.ports, &at).await, life_of(&self.ports, &at).await)
            else {
                self.tables().remove(&name);
                continue;
            };
            let stream = feed.stream_arn.rsplit('/').next().unwrap_or_default().to_owned();
            let same = |hosted: &Arc<Hosted>| hosted.stream == stream && hosted.table_uuid == table_uuid;
            if self.tables().get(&name).is_some_and(same) {
                continue;
            }
            match Hosted::new(self, at, table_uuid, stream).await {
                Ok(hosted) => {
                    self.tables().insert(name, hosted.clone());
                    // The mapping is in the control API from here on, so that `maintain` finds it.
                    hosted.start(self).await;
                }
                Err(error) => tracing::error!(table = %name, error, "the table's functions do not start"),
            }
        }
        self.changed.notify_waiters();
    }
}

impl control_api::Registry for Shared {
    fn function(&self, name: &str) -> Option<Arc<dyn Function>> {
        let tables = self.tables();
        let roles = [Role::Ingest, Role::Compact, Role::Maintain];
        for hosted in tables.values() {
            if let Some(role) = roles.into_iter().find(|role| hosted.function_name(*role) == name) {
                return Some(hosted.runner(role));
            }
        }
        // With one table, the name of the program is enough.
        let role = roles.into_iter().find(|role| role.program() == name)?;
        match tables.values().collect::<Vec<_>>().as_slice() {
            [one] => Some(one.runner(role)),
            _ => None,
        }
    }

    fn mappings(&self) -> Vec<(String, MappingConfig)> {
        self.tables().values().map(|hosted| (hosted.function_name(Role::Ingest), hosted.mapping.clone())).collect()
    }
}

impl Host {
    /// Serves the tables of `stack`. Lines that functions print (logs, metrics) go to `output`.
    ///
    /// # Errors
    /// When bucket or items table cannot be created, or the stack's functions are served already.
    pub async fn start(stack: &Stack, config: HostConfig, output: Output) -> Result<Self, StackError> {
        let failed = |reason: String| StackError::Service { service: "Lambda", reason };
        stack.s3().create_bucket(&config.bucket)?;
        let endpoints = stack.endpoints();
        let clients = clients(&endpoints).await;
        create_items_table(&clients.dynamodb, &config.items_table, &SystemClock)
            .await
            .map_err(|e| failed(format!("the items table {} cannot be created: {e}", config.items_table)))?;
        let ports = ports(&clients, &config.bucket, &config.items_table);
        let events = stack.take_events().ok_or_else(|| failed("the events of S3 were taken already".to_owned()))?;
        let listener = stack.take_lambda_listener().ok_or_else(|| failed("its port was taken already".to_owned()))?;
        let notifications: Arc<NotifyCounts> = Arc::default();
        let delivery = Delivery { rough: config.rough_events, retry_after: Duration::from_secs(1) };
        let shared = Arc::new(Shared {
            config,
            clients,
            ports,
            endpoints,
            kinesis: stack.kinesis().clone(),
            output,
            tables: Mutex::default(),
            changed: Notify::new(),
        });
        let rules = shared.clone();
        let tasks = vec![
            tokio::spawn(control_api::serve(listener, shared.clone())),
            tokio::spawn(notify::run(events, move || rules.rules(), delivery, notifications.clone())),
            tokio::spawn({
                let shared = shared.clone();
                async move {
                    loop {
                        shared.discover().await;
                        SystemClock.sleep(DISCOVER_EVERY).await;
                    }
                }
            }),
        ];
        Ok(Self { shared, notifications, tasks })
    }

    /// Ports over the stack, for whoever wants to look at tables beside the functions.
    #[must_use]
    pub fn ports(&self) -> Ports {
        self.shared.ports.clone()
    }

    /// Clients of the stack.
    #[must_use]
    pub fn clients(&self) -> Clients {
        self.shared.clients.clone()
    }

    /// The functions of a table, once they are served.
    #[must_use]
    pub fn table(&self, name: &TableName) -> Option<Arc<Hosted>> {
        self.shared.tables().get(name).cloned()
    }

    /// Waits until a table is served.
    pub async fn served(&self, name: &TableName) -> Arc<Hosted> {
        loop {
            if let Some(hosted) = self.table(name) {
                return hosted;
            }
            tokio::time::timeout(DISCOVER_EVERY, self.shared.changed.notified()).await.ok();
        }
    }
}

/// Clients of a local stack, for functions of this process as for anyone else.
pub async fn clients(endpoints: &crate::Endpoints) -> Clients {
    let at = ClientEndpoints {
        s3: Some(endpoints.s3.clone()),
        dynamodb: Some(endpoints.dynamodb.clone()),
        kinesis: Some(endpoints.kinesis.clone()),
        lambda: Some(endpoints.lambda.clone()),
    };
    let clients = Clients::at(&at, Timeouts::default()).await;
    Clients { s3: lineage::traced(&clients.s3), ..clients }
}

fn ports(clients: &Clients, bucket: &str, items_table: &str) -> Ports {
    let (clock, ids) = (Arc::new(SystemClock), Arc::new(RandomIds));
    let stores = Stores::new(clients, bucket, items_table, clock.clone(), ids.clone());
    Ports { objects: stores.objects, items: stores.items, clock, ids }
}
