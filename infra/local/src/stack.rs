//! Starts the services on four ports, remembers the ports, and guards the directory.
//! Neighbours: one module per service; `silt` and the end-to-end tests start a stack.
//! Invariants: 1. one process has a directory at a time; 2. a stack in a directory comes back at the same addresses; 3. a
//! dropped stack lets go of ports and directory without being asked to, as a killed one does.

use std::{
    fs::{self, File, TryLockError},
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use siltstone_store::{Clock, SystemClock};
use tokio::{
    net::TcpListener,
    sync::{
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
        oneshot,
    },
    task::JoinHandle,
};

use crate::{ACCESS_KEY, Kinesis, REGION, S3, SECRET_KEY, StackError, dynamodb::DynamoDb, s3::ObjectCreated};

/// In the order of their ports.
const SERVICES: [&str; 4] = ["S3", "DynamoDB", "Kinesis", "Lambda"];
/// How often a port of a stack that just ended is tried again, 20 ms apart.
const BIND_TRIES: usize = 50;
const SHUTDOWN_WAIT: Duration = Duration::from_millis(500);

/// Where a stack lives and listens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StackConfig {
    /// What survives the process lies here; none: all is in memory.
    pub dir: Option<PathBuf>,
    /// The first of four ports in a row: S3, DynamoDB, Kinesis, Lambda. 0: those that the directory remembers, else any free ones.
    pub port: u16,
}

/// Addresses, as in `http://127.0.0.1:4566`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// S3.
    pub s3: String,
    /// DynamoDB.
    pub dynamodb: String,
    /// Kinesis.
    pub kinesis: String,
    /// Lambda, once somebody serves functions there.
    pub lambda: String,
}

impl Endpoints {
    fn of(ports: [u16; 4]) -> Self {
        let [s3, dynamodb, kinesis, lambda] = ports.map(|port| format!("http://127.0.0.1:{port}"));
        Self { s3, dynamodb, kinesis, lambda }
    }

    /// Of the stack that runs, or last ran, in a directory.
    #[must_use]
    pub fn remembered(dir: &Path) -> Option<Self> {
        let text = fs::read(dir.join("stack.json")).ok()?;
        serde_json::from_slice::<Remembered>(&text).ok().map(|remembered| Self::of(remembered.ports))
    }

    /// What points every AWS client at this stack: names and values.
    #[must_use]
    pub fn variables(&self) -> [(&'static str, &str); 9] {
        [
            ("AWS_ENDPOINT_URL_S3", &self.s3),
            ("AWS_ENDPOINT_URL_DYNAMODB", &self.dynamodb),
            ("AWS_ENDPOINT_URL_DYNAMODB_STREAMS", &self.dynamodb),
            ("AWS_ENDPOINT_URL_KINESIS", &self.kinesis),
            ("AWS_ENDPOINT_URL_LAMBDA", &self.lambda),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            ("AWS_REGION", REGION),
            ("AWS_DEFAULT_REGION", REGION),
        ]
    }

    /// Those, as lines for a shell.
    #[must_use]
    pub fn exports(&self) -> String {
        self.variables().map(|(name, value)| format!("export {name}={value}\n")).concat()
    }
}

/// What `stack.json` remembers.
#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    ports: [u16; 4],
}

/// A running stack. Dropping it ends it; `shutdown` also waits for that.
#[derive(Debug)]
pub struct Stack {
    ports: [u16; 4],
    s3: S3,
    dynamodb: DynamoDb,
    kinesis: Kinesis,
    events: Mutex<Option<UnboundedReceiver<ObjectCreated>>>,
    lambda: Mutex<Option<TcpListener>>,
    stops: Vec<oneshot::Sender<()>>,
    tasks: Vec<JoinHandle<()>>,
    /// Held for its lock.
    _lock: Option<File>,
}

impl Stack {
    /// Starts. The events of S3 wait for `take_events`.
    pub async fn start(config: StackConfig) -> Result<Self, StackError> {
        let (events, received) = unbounded_channel();
        let mut stack = Self::start_with(config, events).await?;
        stack.events = Mutex::new(Some(received));
        Ok(stack)
    }

    /// Starts, with the events of S3 going to `events`.
    pub async fn start_with(config: StackConfig, events: UnboundedSender<ObjectCreated>) -> Result<Self, StackError> {
        let dir = config.dir.clone();
        let open = move || open(dir.as_deref(), events);
        let opened = tokio::task::spawn_blocking(open).await;
        let opened = opened.map_err(|e| StackError::dir(config.dir.as_deref(), io::Error::other(e)))?;
        let (lock, remembered, s3, dynamodb, kinesis) = opened?;
        let [for_s3, for_dynamodb, for_kinesis, for_lambda] = listen(config.port, remembered).await?;
        let mut ports = [0; 4];
        for (port, listener) in ports.iter_mut().zip([&for_s3, &for_dynamodb, &for_kinesis, &for_lambda]) {
            *port = listener.local_addr().map_err(|e| StackError::dir(config.dir.as_deref(), e))?.port();
        }
        if let Some(dir) = &config.dir {
            remember(dir, &Remembered { ports }).map_err(|e| StackError::dir(Some(dir), e))?;
        }
        let (stop_dynamodb, dynamodb_stopped) = oneshot::channel();
        let (stop_kinesis, kinesis_stopped) = oneshot::channel();
        let tasks = vec![
            tokio::spawn(s3.clone().serve(for_s3)),
            tokio::spawn(dynamodb.clone().serve(for_dynamodb, dynamodb_stopped)),
            tokio::spawn(kinesis.clone().serve(for_kinesis, kinesis_stopped)),
        ];
        let (events, lambda) = (Mutex::new(None), Mutex::new(Some(for_lambda)));
        let stops = vec![stop_dynamodb, stop_kinesis];
        Ok(Self { ports, s3, dynamodb, kinesis, events, lambda, stops, tasks, _lock: lock })
    }

    /// Where the services listen.
    pub fn endpoints(&self) -> Endpoints {
        Endpoints::of(self.ports)
    }

    /// Lines for a shell that point every AWS client at this stack.
    pub fn exports(&self) -> String {
        self.endpoints().exports()
    }

    /// The embedded S3.
    pub fn s3(&self) -> &S3 {
        &self.s3
    }

    /// The embedded DynamoDB.
    pub fn dynamodb(&self) -> &DynamoDb {
        &self.dynamodb
    }

    /// The embedded Kinesis.
    pub fn kinesis(&self) -> &Kinesis {
        &self.kinesis
    }

    /// The events of S3 since the start. Once; none when they were given a receiver at start.
    pub fn take_events(&self) -> Option<UnboundedReceiver<ObjectCreated>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The fourth port, kept for whoever runs functions. Once.
    pub fn take_lambda_listener(&self) -> Option<TcpListener> {
        self.lambda.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Ends the services, and returns once their ports are free.
    pub async fn shutdown(mut self) {
        self.stops.clear();
        let mut tasks = std::mem::take(&mut self.tasks).into_iter();
        // S3 is cut at once: its writes end in their own threads. The others end by themselves, if no client holds on.
        if let Some(s3) = tasks.next() {
            s3.abort();
            s3.await.ok();
        }
        for mut task in tasks {
            if tokio::time::timeout(SHUTDOWN_WAIT, &mut task).await.is_err() {
                task.abort();
                task.await.ok();
            }
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.stops.clear();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

type Opened = (Option<File>, Option<Remembered>, S3, DynamoDb, Kinesis);

/// Blocking.
fn open(dir: Option<&Path>, events: UnboundedSender<ObjectCreated>) -> Result<Opened, StackError> {
    let Some(dir) = dir else {
        return Ok((None, None, S3::open(None, events)?, DynamoDb::open(None)?, Kinesis::open(None)?));
    };
    let io = |e| StackError::dir(Some(dir), e);
    let s3_dir = dir.join("s3");
    fs::create_dir_all(&s3_dir).map_err(io)?;
    let lock = lock(dir)?;
    let remembered = fs::read(dir.join("stack.json")).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let s3 = S3::open(Some(&s3_dir), events)?;
    let dynamodb = DynamoDb::open(Some(&dir.join("dynamodb.sqlite")))?;
    let kinesis = Kinesis::open(Some(&dir.join("kinesis.sqlite")))?;
    Ok((Some(lock), remembered, s3, dynamodb, kinesis))
}

/// The lock goes with the process, however it ends.
fn lock(dir: &Path) -> Result<File, StackError> {
    let file = File::create(dir.join("lock")).map_err(|e| StackError::dir(Some(dir), e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StackError::Locked { dir: dir.to_owned() }),
        Err(TryLockError::Error(e)) => Err(StackError::dir(Some(dir), e)),
    }
}

/// Whole or not at all.
fn remember(dir: &Path, what: &Remembered) -> io::Result<()> {
    let draft = dir.join("stack.json.new");
    fs::write(&draft, serde_json::to_vec(what)?)?;
    fs::rename(draft, dir.join("stack.json"))
}

async fn listen(first: u16, remembered: Option<Remembered>) -> Result<[TcpListener; 4], StackError> {
    let wanted = match remembered {
        Some(remembered) if first == 0 => remembered.ports,
        _ if first == 0 => [0; 4],
        _ => [0, 1, 2, 3].map(|n: u16| first.saturating_add(n)),
    };
    let [s3, dynamodb, kinesis, lambda] = wanted;
    let [a, b, c, d] = SERVICES;
    Ok([bind(a, s3).await?, bind(b, dynamodb).await?, bind(c, kinesis).await?, bind(d, lambda).await?])
}

async fn bind(service: &'static str, port: u16) -> Result<TcpListener, StackError> {
    let mut tries = 1;
    loop {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Ok(listener) => return Ok(listener),
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && tries < BIND_TRIES => {
                tries += 1;
                SystemClock.sleep(Duration::from_millis(20)).await;
            }
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => return Err(StackError::PortTaken { service, port }),
            Err(source) => return Err(StackError::Listen { service, port, source }),
        }
    }
}
