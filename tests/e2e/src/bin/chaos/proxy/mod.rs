//! Stands between functions and services: passes requests on, disturbs them, and kills who asked right after what was asked is done.
//!
//! Inside: `step` (what a request would leave behind), `fault`, `plan` (what becomes of each). A function's process is known by the trace id
//! that its SDK sends. Invariants: 1. a killed process never sees the answer of the step it is killed for; 2. only programs of ours are killed;
//! 3. requests under way, and requests that are late, are bounded in number.

mod fault;
mod plan;
mod step;

use std::{
    collections::BTreeSet,
    fmt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Instant,
};

use axum::{
    body::{Body, Bytes, to_bytes},
    http::{
        Request, Response, Uri,
        header::{CONNECTION, EXPECT, TRANSFER_ENCODING},
        request::Parts,
        response,
    },
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use rustix::process::{Pid, Signal, kill_process};
use siltstone_local::{Endpoints, glue::lineage};
use siltstone_store::{Clock, SystemClock};
use tokio::{net::TcpListener, sync::Semaphore};

use fault::Fault;
pub(crate) use plan::Counts;
use plan::{Act, Plan};
use step::{Asked, Service};

/// Requests under way.
const UNDER_WAY: usize = 256;
/// Requests whose sender is gone and which are done later.
const LATE: usize = 32;
const BODY_BYTES: usize = 256 << 20;
/// Snapshots look so much older to functions than they are, so that expiry need not be waited for 20 minutes: a name goes 4 minutes after its
/// successor. What could bring it back lives for seconds, unless the machine is starved.
const OLDER: time::Duration = time::Duration::minutes(16);
/// Names of programs that may be killed begin so.
const PROGRAMS: &str = "siltstone-";

/// No answer: the connection is cut.
#[derive(Debug)]
struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cut")
    }
}

impl std::error::Error for Cut {}

/// The proxy. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Proxy {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client<HttpConnector, Body>,
    behind: OnceLock<Endpoints>,
    plan: Mutex<Plan>,
    /// Processes that have asked for something.
    pids: Mutex<BTreeSet<u32>>,
    /// Those of them whose stack was killed.
    orphans: Mutex<BTreeSet<u32>>,
    under_way: Semaphore,
    late: Arc<Semaphore>,
}

impl Proxy {
    /// Listens on three ports; requests are cut until `stand_before` says where services are.
    pub(crate) async fn start(seed: u64) -> std::io::Result<(Self, Endpoints)> {
        let proxy = Self {
            inner: Arc::new(Inner {
                client: Client::builder(TokioExecutor::new()).build_http(),
                behind: OnceLock::new(),
                plan: Mutex::new(Plan::new(seed)),
                pids: Mutex::default(),
                orphans: Mutex::default(),
                under_way: Semaphore::new(UNDER_WAY),
                late: Arc::new(Semaphore::new(LATE)),
            }),
        };
        let endpoints = Endpoints {
            s3: proxy.listen(Service::S3).await?,
            dynamodb: proxy.listen(Service::DynamoDb).await?,
            kinesis: proxy.listen(Service::Kinesis).await?,
            lambda: String::new(),
        };
        Ok((proxy, endpoints))
    }

    /// Says where the services are.
    pub(crate) fn stand_before(&self, endpoints: Endpoints) {
        self.inner.behind.get_or_init(|| endpoints);
    }

    /// No more faults and kills.
    pub(crate) fn end_faults(&self) {
        self.plan().end();
    }

    pub(crate) fn counts(&self) -> Counts {
        self.plan().counts()
    }

    /// Processes of functions that live.
    pub(crate) fn living(&self) -> BTreeSet<u32> {
        let mut pids = lock(&self.inner.pids);
        pids.retain(|pid| program_of(*pid).is_some());
        pids.clone()
    }

    /// All functions that live are of a stack that is killed now.
    pub(crate) fn orphan(&self) -> BTreeSet<u32> {
        let orphans = self.living();
        lock(&self.inner.orphans).clone_from(&orphans);
        orphans
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        lock(&self.inner.plan)
    }

    async fn listen(&self, service: Service) -> std::io::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}", listener.local_addr()?);
        tokio::spawn(self.clone().accept(listener, service));
        Ok(address)
    }

    async fn accept(self, listener: TcpListener, service: Service) {
        while let Ok((stream, _)) = listener.accept().await {
            let proxy = self.clone();
            tokio::spawn(async move {
                let answer = service_fn(move |request| {
                    let proxy = proxy.clone();
                    async move { proxy.answer(service, request).await }
                });
                // A connection that was cut on purpose ends in an error like any other.
                http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), answer)
                    .await
                    .ok();
            });
        }
    }

    async fn answer(&self, service: Service, request: Request<Incoming>) -> Result<Response<Body>, Cut> {
        let _permit = self.inner.under_way.acquire().await.map_err(|_| Cut)?;
        let (head, body) = request.into_parts();
        let body = to_bytes(Body::new(body), BODY_BYTES).await.map_err(|_| Cut)?;
        let asked = Asked::of(service, &head, &body);
        let pid = self.process_of(&head);
        let step = asked.step.as_deref().zip(pid).and_then(|(step, pid)| Some(format!("{} {step}", program_of(pid)?)));
        let act = self.plan().decide(&asked, step.as_deref(), Instant::now());
        match act {
            Act::Pass => self.pass(&asked, &head, &body).await,
            Act::Disturb(fault) => self.disturb(fault, &asked, head, body).await,
            Act::Kill => {
                let answer = self.pass(&asked, &head, &body).await?;
                match pid.zip(step).filter(|_| answer.status().is_success()) {
                    Some((pid, step)) if signal(pid, Signal::KILL) => {
                        self.plan().killed(&step, Instant::now());
                        Err(Cut)
                    }
                    _ => Ok(answer),
                }
            }
        }
    }

    fn process_of(&self, head: &Parts) -> Option<u32> {
        let pid = lineage::pid_of(head.headers.get("x-amzn-trace-id")?.to_str().ok()?)?;
        lock(&self.inner.pids).insert(pid);
        if lock(&self.inner.orphans).contains(&pid) {
            self.plan().orphan_asked();
        }
        Some(pid)
    }

    async fn disturb(&self, fault: Fault, asked: &Asked, head: Parts, body: Bytes) -> Result<Response<Body>, Cut> {
        match fault {
            Fault::RequestLost => Err(Cut),
            Fault::AnswerLost => {
                self.pass(asked, &head, &body).await?;
                Err(Cut)
            }
            Fault::Late(after) => {
                // With too many under way, this one is lost.
                if let Ok(permit) = self.inner.late.clone().try_acquire_owned() {
                    let (proxy, asked) = (self.clone(), asked.clone());
                    tokio::spawn(async move {
                        SystemClock.sleep(after).await;
                        proxy.pass(&asked, &head, &body).await.ok();
                        drop(permit);
                    });
                }
                Err(Cut)
            }
            Fault::Slow(delay) => {
                SystemClock.sleep(delay).await;
                self.pass(asked, &head, &body).await
            }
            Fault::Twice => {
                self.pass(asked, &head, &body).await?;
                self.pass(asked, &head, &body).await
            }
            Fault::DoneButFailed => {
                self.pass(asked, &head, &body).await?;
                Ok(fault.answer(asked.service))
            }
            Fault::Throttled | Fault::Conflict | Fault::Failed => Ok(fault.answer(asked.service)),
        }
    }

    /// The service's answer.
    async fn pass(&self, asked: &Asked, head: &Parts, body: &Bytes) -> Result<Response<Body>, Cut> {
        let behind = self.inner.behind.get().ok_or(Cut)?;
        let base = match asked.service {
            Service::S3 => &behind.s3,
            Service::DynamoDb => &behind.dynamodb,
            Service::Kinesis => &behind.kinesis,
        };
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let uri: Uri = format!("{base}{path}").parse().map_err(|_| Cut)?;
        let mut request = Request::new(Body::from(body.clone()));
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = uri;
        // The host stays as it was signed.
        *request.headers_mut() = head.headers.clone();
        for name in [EXPECT, TRANSFER_ENCODING, CONNECTION] {
            request.headers_mut().remove(name);
        }
        let answer = self.inner.client.request(request).await.map_err(|_| Cut)?;
        let (head, body) = answer.into_parts();
        let body = to_bytes(Body::new(body), BODY_BYTES).await.map_err(|_| Cut)?;
        Ok(handed_on(asked, head, body))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn handed_on(asked: &Asked, mut head: response::Parts, body: Bytes) -> Response<Body> {
    for name in [TRANSFER_ENCODING, CONNECTION] {
        head.headers.remove(name);
    }
    if !asked.lists_snapshots {
        return Response::from_parts(head, Body::from(body));
    }
    head.headers.remove(axum::http::header::CONTENT_LENGTH);
    Response::from_parts(head, Body::from(older(&String::from_utf8_lossy(&body))))
}

/// A listing whose objects were written earlier.
fn older(listing: &str) -> String {
    const OPEN: &str = "<LastModified>";
    const CLOSE: &str = "</LastModified>";
    let mut out = String::with_capacity(listing.len());
    let mut rest = listing;
    while let Some((before, found)) = rest.split_once(OPEN)
        && let Some((text, after)) = found.split_once(CLOSE)
    {
        let format = &time::format_description::well_known::Rfc3339;
        let shifted = time::OffsetDateTime::parse(text, format).ok().and_then(|at| (at - OLDER).format(format).ok());
        out.extend([before, OPEN, shifted.as_deref().unwrap_or(text), CLOSE]);
        rest = after;
    }
    out + rest
}

/// The function that a process runs, if it is one of ours: `ingest` of `siltstone-ingest`.
fn program_of(pid: u32) -> Option<String> {
    let program = std::fs::read_link(Path::new("/proc").join(pid.to_string()).join("exe")).ok()?;
    program.file_name()?.to_str()?.strip_prefix(PROGRAMS).map(str::to_owned)
}

/// A signal to a function's process; false if it is none.
pub(crate) fn signal(pid: u32, signal: Signal) -> bool {
    let ours = program_of(pid).is_some();
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).filter(|_| ours);
    pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
}

#[cfg(test)]
mod tests;
