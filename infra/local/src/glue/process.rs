//! Real processes behind a Lambda Runtime API: an unmodified `bootstrap` runs here as on AWS.
//!
//! Neighbours: `function`. One process is one sandbox with a Runtime API of its own; a busy sandbox takes nothing else, an idle one is used
//! again. Invariants: 1. a process that runs out of time or memory is killed; 2. a death answers its open invocation; 3. processes end
//! with this one.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use rustix::process::{Pid, Signal, kill_process};
use siltstone_store::{Clock, SystemClock};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    net::TcpListener,
    process::{Child, Command},
    sync::{Mutex as AsyncMutex, Semaphore, mpsc, oneshot},
    task::JoinHandle,
};

use super::{Function, FunctionError, function::Counts, lineage};
use crate::{ACCOUNT, REGION};

/// How a function's process is started.
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    /// Name.
    pub name: String,
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Environment beside what Lambda sets: endpoints, credentials, settings.
    pub environment: BTreeMap<String, String>,
    /// Memory limit, MiB: told to the function, and enforced by its resident set.
    pub memory_mb: u64,
    /// Time limit of an invocation.
    pub timeout: Duration,
    /// Processes at once.
    pub concurrency: usize,
    /// Give the process the share of a core that Lambda gives for its memory; otherwise all it can get.
    pub cpu_share: bool,
}

/// Memory for which Lambda gives one core, MiB.
const CORE_MB: u64 = 1_769;
/// Period of a share, as Lambda's.
const CPU_PERIOD: Duration = Duration::from_millis(20);

/// Takes each line that a function prints: logs and metrics.
pub type Output = Arc<dyn Fn(&str) + Send + Sync>;

/// A function of real processes.
pub struct ProcessFunction {
    config: ProcessConfig,
    output: Output,
    permits: Semaphore,
    idle: Mutex<Vec<Sandbox>>,
    busy: Mutex<BTreeMap<u64, u32>>,
    next: AtomicU64,
    /// Counts.
    pub counts: Counts,
    /// Processes started.
    pub cold_starts: AtomicU64,
    /// Processes that were killed or died with an invocation open.
    pub crashes: AtomicU64,
}

impl fmt::Debug for ProcessFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessFunction").field("config", &self.config).finish_non_exhaustive()
    }
}

struct Invocation {
    id: String,
    payload: Bytes,
    deadline_ms: i64,
    trace_id: String,
}

type Answer = Result<Bytes, FunctionError>;
type Open = Arc<Mutex<Option<(String, oneshot::Sender<Answer>)>>>;

#[derive(Debug)]
struct Sandbox {
    child: Child,
    work: mpsc::Sender<Invocation>,
    open: Open,
    server: JoinHandle<()>,
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl ProcessFunction {
    /// A function; processes start with the first invocations.
    #[must_use]
    pub fn new(config: ProcessConfig, output: Output) -> Self {
        Self {
            output,
            permits: Semaphore::new(config.concurrency.max(1)),
            config,
            idle: Mutex::default(),
            busy: Mutex::default(),
            next: AtomicU64::new(1),
            counts: Counts::default(),
            cold_starts: AtomicU64::new(0),
            crashes: AtomicU64::new(0),
        }
    }

    /// SIGKILL to every process that works on an invocation; returns how many.
    pub fn kill_running(&self) -> usize {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        for pid in busy.values() {
            signal(*pid, Signal::KILL);
        }
        busy.len()
    }

    /// Share of a core, thousandths; `None` for all of it.
    fn share(&self) -> Option<u32> {
        let share = u32::try_from(self.config.memory_mb * 1_000 / CORE_MB).ok()?;
        (self.config.cpu_share && share < 1_000).then_some(share.max(50))
    }

    async fn sandbox(&self) -> Result<Sandbox, FunctionError> {
        let waiting = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(mut sandbox) = waiting
            && matches!(sandbox.child.try_wait(), Ok(None))
        {
            return Ok(sandbox);
        }
        self.start().await
    }

    async fn start(&self) -> Result<Sandbox, FunctionError> {
        let failed = |what: &str, e: std::io::Error| FunctionError::Crashed(format!("{what}: {e}"));
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|e| failed("no port for the Runtime API", e))?;
        let address = listener.local_addr().map_err(|e| failed("no port for the Runtime API", e))?;
        let (work, queue) = mpsc::channel(1);
        let open: Open = Arc::default();
        let arn = format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:{}", self.config.name);
        let api = Arc::new(Api { queue: AsyncMutex::new(queue), open: open.clone(), arn });
        let server = tokio::spawn(serve(listener, api));
        let mut command = Command::new(&self.config.program);
        command
            .args(&self.config.arguments)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", &self.config.name)
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", self.config.memory_mb.to_string())
            .env("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{}", self.config.name))
            .env("AWS_LAMBDA_LOG_STREAM_NAME", "local")
            .env("AWS_REGION", REGION)
            .envs(&self.config.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child =
            command.spawn().map_err(|e| failed(&format!("{} does not start", self.config.program.display()), e))?;
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(read_lines(stdout, self.output.clone()));
        }
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(read_lines(stderr, self.output.clone()));
        }
        self.cold_starts.fetch_add(1, Ordering::Relaxed);
        Ok(Sandbox { child, work, open, server })
    }

    async fn run(&self, sandbox: &mut Sandbox, payload: Bytes) -> Answer {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let id = format!("00000000-0000-0000-0000-{number:012}");
        let (send, answer) = oneshot::channel();
        *sandbox.open.lock().unwrap_or_else(PoisonError::into_inner) = Some((id.clone(), send));
        let started_ms = SystemClock.now_ms();
        let deadline_ms = started_ms + i64::try_from(self.config.timeout.as_millis()).unwrap_or(i64::MAX);
        let pid = sandbox.child.id().unwrap_or(0);
        let _busy = Busy::new(self, pid);
        let limit = self.config.memory_mb << 20;
        let trace_id = lineage::trace_id(lineage::depth(), lineage::Root { started_ms, pid, number });
        let queued = sandbox.work.send(Invocation { id, payload, deadline_ms, trace_id }).await;
        if queued.is_err() {
            return Err(FunctionError::Crashed("its Runtime API ended".to_owned()));
        }
        tokio::select! {
            answered = answer => answered.unwrap_or_else(|_| Err(FunctionError::Crashed("no answer".to_owned()))),
            status = sandbox.child.wait() => Err(FunctionError::Crashed(
                status.map_or_else(|e| e.to_string(), |s| s.to_string()))),
            () = tokio::time::sleep(self.config.timeout) => Err(FunctionError::TimedOut(self.config.timeout)),
            never = throttled(pid, self.share()) => match never {},
            () = over_memory(pid, limit) => Err(FunctionError::Crashed(
                format!("more than {} MiB of memory", self.config.memory_mb))),
        }
    }
}

/// A process with an open invocation, for [`ProcessFunction::kill_running`]. It is forgotten when this is dropped, which happens before its
/// sandbox is: a pid that nobody waits for any more may soon be another process.
struct Busy<'a> {
    of: &'a ProcessFunction,
    number: u64,
}

impl<'a> Busy<'a> {
    fn new(of: &'a ProcessFunction, pid: u32) -> Self {
        let number = of.next.fetch_add(1, Ordering::Relaxed);
        of.busy.lock().unwrap_or_else(PoisonError::into_inner).insert(number, pid);
        Self { of, number }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.of.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

#[async_trait]
impl Function for ProcessFunction {
    fn name(&self) -> &str {
        &self.config.name
    }

    async fn invoke(&self, payload: Bytes) -> Answer {
        let _permit = self.permits.acquire().await.map_err(|e| FunctionError::Crashed(e.to_string()))?;
        let started = SystemClock.now_ms();
        let mut sandbox = self.sandbox().await?;
        let result = self.run(&mut sandbox, payload).await;
        match &result {
            Ok(_) | Err(FunctionError::Handled(_)) => {
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sandbox);
            }
            Err(_) => {
                self.crashes.fetch_add(1, Ordering::Relaxed);
                sandbox.child.start_kill().ok();
            }
        }
        self.counts.add(result.is_err(), SystemClock.now_ms() - started);
        result
    }
}

async fn read_lines(pipe: impl AsyncRead + Unpin, output: Output) {
    let mut lines = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        output(&line);
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // A process that is gone needs no signal.
        kill_process(pid, signal).ok();
    }
}

/// Lets a process run for `share` thousandths of the time, for as long as this is polled.
async fn throttled(pid: u32, share: Option<u32>) -> Infallible {
    let Some(share) = share else { return std::future::pending().await };
    let runs = CPU_PERIOD * share / 1_000;
    loop {
        tokio::time::sleep(runs).await;
        let _stopped = Stopped::new(pid);
        tokio::time::sleep(CPU_PERIOD.saturating_sub(runs)).await;
    }
}

/// A stopped process; it goes on when this is dropped.
struct Stopped(u32);

impl Stopped {
    fn new(pid: u32) -> Self {
        signal(pid, Signal::STOP);
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal(self.0, Signal::CONT);
    }
}

/// Ends once a process has more resident memory than `limit` bytes.
async fn over_memory(pid: u32, limit: u64) {
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
        let pages: u64 = text.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
        if pages.saturating_mul(4096) > limit {
            return;
        }
    }
}

struct Api {
    queue: AsyncMutex<mpsc::Receiver<Invocation>>,
    open: Open,
    arn: String,
}

impl Api {
    fn answer(&self, id: &str, answer: Answer) -> StatusCode {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.take() {
            Some((wanted, send)) if wanted == id => {
                send.send(answer).ok();
                StatusCode::ACCEPTED
            }
            other => {
                *open = other;
                StatusCode::BAD_REQUEST
            }
        }
    }
}

async fn serve(listener: TcpListener, api: Arc<Api>) {
    let router = Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route("/2018-06-01/runtime/invocation/{id}/response", post(response))
        .route("/2018-06-01/runtime/invocation/{id}/error", post(error))
        .route("/2018-06-01/runtime/init/error", post(init_error))
        .layer(axum::extract::DefaultBodyLimit::max(8 << 20))
        .with_state(api);
    axum::serve(listener, router).await.ok();
}

async fn next(State(api): State<Arc<Api>>) -> Response {
    let Some(invocation) = api.queue.lock().await.recv().await else { return StatusCode::GONE.into_response() };
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("lambda-runtime-aws-request-id", invocation.id),
        ("lambda-runtime-deadline-ms", invocation.deadline_ms.to_string()),
        ("lambda-runtime-invoked-function-arn", api.arn.clone()),
        ("lambda-runtime-trace-id", invocation.trace_id),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    (headers, invocation.payload).into_response()
}

async fn response(State(api): State<Arc<Api>>, Path(id): Path<String>, body: Bytes) -> StatusCode {
    api.answer(&id, Ok(body))
}

async fn error(State(api): State<Arc<Api>>, Path(id): Path<String>, body: Bytes) -> StatusCode {
    api.answer(&id, Err(FunctionError::Handled(message(&body))))
}

async fn init_error(State(api): State<Arc<Api>>, body: Bytes) -> StatusCode {
    let open = api.open.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((_, send)) = open {
        send.send(Err(FunctionError::Crashed(format!("it failed to start: {}", message(&body))))).ok();
    }
    StatusCode::ACCEPTED
}

fn message(body: &[u8]) -> String {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    json.get("errorMessage")
        .and_then(|m| m.as_str())
        .map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(script: &str, memory_mb: u64, timeout: Duration) -> ProcessFunction {
        let config = ProcessConfig {
            name: "f".into(),
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            environment: BTreeMap::new(),
            memory_mb,
            timeout,
            concurrency: 1,
            cpu_share: true,
        };
        ProcessFunction::new(config, Arc::new(|_| {}))
    }

    #[tokio::test]
    async fn a_process_that_ends_or_is_too_slow_fails_its_invocation_and_is_replaced() {
        let f = function("exit 7", 128, Duration::from_secs(5));
        assert!(matches!(f.invoke(Bytes::new()).await, Err(FunctionError::Crashed(_))));
        assert!(matches!(f.invoke(Bytes::new()).await, Err(FunctionError::Crashed(_))));
        assert_eq!((f.cold_starts.load(Ordering::Relaxed), f.crashes.load(Ordering::Relaxed)), (2, 2));
        let f = function("exec sleep 60", 128, Duration::from_millis(100));
        assert!(matches!(f.invoke(Bytes::new()).await, Err(FunctionError::TimedOut(_))));
    }

    #[tokio::test]
    async fn a_process_over_its_memory_is_killed() {
        // A shell is larger than no memory at all.
        let f = function("while :; do :; done", 0, Duration::from_secs(10));
        let error = f.invoke(Bytes::new()).await.unwrap_err();
        assert!(error.to_string().contains("0 MiB of memory"), "{error}");
    }

    #[tokio::test]
    async fn an_invocation_that_is_dropped_leaves_no_process_to_kill() {
        let f = Arc::new(function("exec sleep 60", 128, Duration::from_secs(60)));
        let running = tokio::spawn({
            let f = f.clone();
            async move { f.invoke(Bytes::new()).await }
        });
        while f.busy.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        assert_eq!(f.kill_running(), 0, "the number may be another process by now");
    }

    #[tokio::test]
    async fn a_small_function_gets_its_share_of_a_core() {
        // 354 MiB are a fifth of a core; the loop would use all of one.
        let f = Arc::new(function("while :; do :; done", 354, Duration::from_millis(1_500)));
        let running = tokio::spawn({
            let f = f.clone();
            async move { f.invoke(Bytes::new()).await }
        });
        tokio::time::sleep(Duration::from_millis(1_300)).await;
        let pid = *f.busy.lock().unwrap().values().next().unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let after_name: Vec<u64> =
            stat.rsplit(')').next().unwrap().split_whitespace().skip(1).map(|n| n.parse().unwrap_or(0)).collect();
        // utime and stime, in hundredths of a second, are fields 14 and 15 of the line.
        let centis = after_name[10] + after_name[11];
        assert!(centis < 90, "{centis} hundredths of a second of 130");
        assert!(running.await.unwrap().is_err());
    }
}
