//! Where the tables are: the local stack, AWS, or a bare Paimon warehouse.
//!
//! Neighbours: every command that touches a table. Invariants: 1. a stack that runs is used over its ports, one that does not is opened for
//! this command only; 2. nothing is created by looking.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use siltstone_aws::{Clients, KinesisStream, LambdaMappings, Stores, Timeouts, create_items_table};
use siltstone_local::{Endpoints, Stack, StackConfig, StackErrorKind, host};
use siltstone_store::{FsObjectStore, RandomIds, SystemClock, mapping::EventSourceMappings, memory::MemoryItemStore};
use siltstone_table::{Authority, Ports, Purpose, Table, TableName, TableRef};

use crate::{args::Place, failure::Failure};

/// What bare warehouses do without; said when one is changed.
pub(crate) const BARE: &str = "a bare warehouse has no pointer: two commits at once are told apart by snapshot names only, so keep other \
                               writers away from object stores without conditional writes while this runs";

/// How long a running stack may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// How long credentials may take: longer than a role of a machine on AWS needs.
const CREDENTIALS: Duration = Duration::from_secs(5);
/// How long another command may hold a stack.
const COMMAND_WAIT: Duration = Duration::from_secs(30);

/// An opened place.
pub(crate) struct Warehouse {
    pub(crate) ports: Ports,
    pub(crate) authority: Authority,
    pub(crate) clients: Option<Clients>,
    /// The stack is on this machine, and streams may be created in it.
    pub(crate) local: bool,
    /// Functions run beside the stack.
    pub(crate) served: bool,
    prefix: String,
    /// What comes before a table's location: s3://bucket or file:///path.
    base: String,
    /// Kept open for the command.
    _stack: Option<Stack>,
}

/// Endpoints of the stack that serves a directory: an answer of its Lambda means that it does.
pub(crate) async fn serving(dir: &Path) -> Option<Endpoints> {
    let endpoints = Endpoints::remembered(dir)?;
    let mappings = LambdaMappings::new(host::clients(&endpoints).await.lambda);
    let answer = tokio::time::timeout(ANSWER, mappings.kinesis_mappings("any")).await;
    matches!(answer, Ok(Ok(_))).then_some(endpoints)
}

/// Refuses a directory that no stack can live in: its databases take their paths as text.
pub(crate) fn need_text(dir: &Path) -> Result<(), Failure> {
    match dir.to_str() {
        Some(_) => Ok(()),
        None => Err(Failure::Usage(format!("{}: a stack's directory needs a name in UTF-8", dir.display()))),
    }
}

/// Clients of AWS, with credentials that are there.
async fn aws() -> Result<Clients, Failure> {
    let clients = Clients::with_access(Timeouts::default(), CREDENTIALS).await;
    clients.map_err(|e| Failure::Usage(format!("{e}. For a stack on this machine, give --local DIR instead")))
}

/// The stack of a directory.
enum Opened {
    /// For this command only.
    Here(Stack),
    /// In another process, which serves it.
    There(Endpoints),
}

/// Opens the stack of a directory. One that is locked and does not serve belongs to another command, which ends soon: its ports go with it.
async fn opened(dir: &Path) -> Result<Opened, Failure> {
    let until = Instant::now() + COMMAND_WAIT;
    loop {
        match Stack::start(StackConfig { dir: Some(dir.to_owned()), port: 0 }).await {
            Ok(stack) => return Ok(Opened::Here(stack)),
            Err(error) if error.kind() == StackErrorKind::Locked => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(endpoints) = serving(dir).await {
            return Ok(Opened::There(endpoints));
        }
        if Instant::now() >= until {
            return Err(Failure::Unavailable(format!(
                "another command has used the stack in {} for {} s: try again when it is done, or keep the stack up for both with \
                 `silt local --dir {}`",
                dir.display(),
                COMMAND_WAIT.as_secs(),
                dir.display()
            )));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Warehouse {
    pub(crate) async fn open(place: &Place) -> Result<Self, Failure> {
        match (&place.local, &place.warehouse, &place.bucket) {
            (Some(dir), _, _) => Self::local(dir, place).await,
            (None, Some(uri), _) => Self::bare(uri).await,
            (None, None, Some(bucket)) => {
                let clients = aws().await?;
                Ok(Self::over(clients, bucket, place, None))
            }
            (None, None, None) => Err(Failure::Usage(
                "say where the tables are: --local DIR for a local stack, --warehouse file:///path or s3://bucket/prefix for a bare \
                 Paimon warehouse, or --bucket NAME for Siltstone on AWS"
                    .to_owned(),
            )),
        }
    }

    fn over(clients: Clients, bucket: &str, place: &Place, stack: Option<Stack>) -> Self {
        let (clock, ids) = (Arc::new(SystemClock), Arc::new(RandomIds));
        let stores = Stores::new(&clients, bucket, &place.items_table, clock.clone(), ids.clone());
        Self {
            ports: Ports { objects: stores.objects, items: stores.items, clock, ids },
            authority: Authority::Pointer,
            clients: Some(clients),
            local: false,
            served: false,
            prefix: place.prefix.clone(),
            base: format!("s3://{bucket}"),
            _stack: stack,
        }
    }

    async fn local(dir: &Path, place: &Place) -> Result<Self, Failure> {
        let bucket = place.bucket.as_deref().unwrap_or("siltstone");
        need_text(dir)?;
        if Endpoints::remembered(dir).is_none() {
            return Err(Failure::Usage(format!(
                "there is no local stack in {}: start one with `silt local --dir {}`",
                dir.display(),
                dir.display()
            )));
        }
        match opened(dir).await? {
            Opened::Here(stack) => {
                stack.s3().create_bucket(bucket)?;
                let clients = host::clients(&stack.endpoints()).await;
                create_items_table(&clients.dynamodb, &place.items_table, &SystemClock)
                    .await
                    .map_err(|e| Failure::Unavailable(e.to_string()))?;
                Ok(Self { local: true, ..Self::over(clients, bucket, place, Some(stack)) })
            }
            Opened::There(endpoints) => {
                let clients = host::clients(&endpoints).await;
                Ok(Self { local: true, served: true, ..Self::over(clients, bucket, place, None) })
            }
        }
    }

    async fn bare(uri: &str) -> Result<Self, Failure> {
        let (clock, ids) = (Arc::new(SystemClock), Arc::new(RandomIds));
        let items = Arc::new(MemoryItemStore::new());
        let (objects, clients, prefix, base) = if let Some(path) = uri.strip_prefix("file://") {
            if !Path::new(path).is_dir() {
                return Err(Failure::Usage(format!("--warehouse {uri}: {path} is not a directory")));
            }
            let objects = FsObjectStore::open(path).map_err(|e| Failure::Problem(format!("{path}: {e}")))?;
            (
                Arc::new(objects) as Arc<dyn siltstone_store::ObjectStore>,
                None,
                String::new(),
                uri.trim_end_matches('/').to_owned(),
            )
        } else if let Some(rest) = uri.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(Failure::Usage(format!("--warehouse {uri}: write s3://bucket/prefix")));
            }
            let clients = aws().await?;
            let stores = Stores::new(&clients, bucket, "", clock.clone(), ids.clone());
            (stores.objects, Some(clients), prefix.to_owned(), format!("s3://{bucket}"))
        } else {
            return Err(Failure::Usage(format!("--warehouse {uri}: write file:///path or s3://bucket/prefix")));
        };
        let ports = Ports { objects, items, clock, ids };
        Ok(Self { ports, authority: Authority::Bare, clients, local: false, served: false, prefix, base, _stack: None })
    }

    /// The warehouse's prefix in its bucket.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Where a table is, as other engines name it.
    pub(crate) fn location(&self, at: &TableRef) -> String {
        format!("{}/{}", self.base, at.location())
    }

    /// A table by its name.
    pub(crate) fn at(&self, name: &str) -> Result<TableRef, Failure> {
        let name = match self.authority {
            Authority::Pointer => name.parse(),
            Authority::Bare => TableName::of_any_engine(name),
        };
        Ok(TableRef::new(&self.prefix, name?))
    }

    /// Opens a table.
    pub(crate) async fn table(&self, name: &str, purpose: Purpose) -> Result<Table, Failure> {
        Ok(Table::open(&self.ports, &self.at(name)?, self.authority, purpose).await?)
    }

    /// Refuses verbs that need a pointer.
    pub(crate) fn need_pointer(&self, verb: &str) -> Result<(), Failure> {
        match self.authority {
            Authority::Pointer => Ok(()),
            Authority::Bare => Err(Failure::Usage(format!(
                "`silt {verb}` works on tables of Siltstone (--local or --bucket), not on a bare --warehouse"
            ))),
        }
    }

    /// Streams of this place.
    pub(crate) fn streams(&self) -> Result<KinesisStream, Failure> {
        match &self.clients {
            Some(clients) if self.authority == Authority::Pointer => Ok(KinesisStream::new(clients.kinesis.clone())),
            _ => Err(Failure::Usage("a bare --warehouse has no streams: use --local or --bucket".to_owned())),
        }
    }
}
