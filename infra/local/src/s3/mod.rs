//! S3 on loopback: conditional writes, uploads, listings, and an event for each object that comes to be.
//! Neighbours: `stack` (starts it), the glue (listens to the events). Inside: `service` (the wire), `state` (decisions),
//! `index` and `body` (what survives), `receive` (checksums), `list` (pages).
//! Invariants: 1. an answer is sent after the effect is durable against the end of the process; 2. a gate is asked before an
//! operation takes effect and after its body was read.

mod body;
mod index;
mod list;
mod receive;
mod service;
mod state;

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use siltstone_store::{Clock, SystemClock};
use tokio::{net::TcpListener, sync::mpsc::UnboundedSender, task::JoinSet};

use crate::StackError;

/// The header by which the SDK, within a Lambda function, sends the trace id of the invocation.
pub(crate) const TRACE_HEADER: &str = "x-amzn-trace-id";

/// An object came to be, by a put, a copy or a completed upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectCreated {
    /// Its bucket.
    pub bucket: String,
    /// Its key, not encoded.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Without quotes.
    pub etag: String,
    /// 16 hexadecimal digits that grow with each event of the stack.
    pub sequencer: String,
    /// The writer's trace id, if it is a Lambda function: what loops are found by.
    pub lineage: Option<String>,
    /// When, in milliseconds since 1970.
    pub time_ms: i64,
}

/// What becomes of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateDecision {
    /// It goes on.
    Pass,
    /// It is answered with this status and has no effect.
    Deny(u16),
    /// It is never answered and has no effect.
    Hang,
}

/// Asked with HTTP method, bucket and key (empty for operations on buckets). `DeleteObjects` asks once per key, as `DELETE`.
pub type Gate = Arc<dyn Fn(&str, &str, &str) -> GateDecision + Send + Sync>;

/// The embedded S3. Cheap to clone.
#[derive(Clone)]
pub struct S3 {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<state::State>,
    bodies: body::Bodies,
    /// Whether operations touch files, and so leave the threads of the runtime.
    files: bool,
    gate: RwLock<Option<Gate>>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3").field("files", &self.inner.files).finish_non_exhaustive()
    }
}

impl S3 {
    /// Opens what `dir` holds, or starts empty in memory. Blocking. Every object made from now on is sent to `events`.
    pub fn open(dir: Option<&Path>, events: UnboundedSender<ObjectCreated>) -> Result<Self, StackError> {
        let path = dir.map(|dir| dir.join("index.sqlite"));
        let io = |e: std::io::Error| StackError::dir(dir, e);
        let bodies = body::Bodies::new(dir.map(|dir| dir.join("bodies"))).map_err(io)?;
        let sql = |e| StackError::database("s3", path.as_deref(), e);
        let index = index::Index::open(path.as_deref()).map_err(sql)?;
        let state = Mutex::new(state::State::load(index, &bodies, events).map_err(sql)?);
        let (files, gate, clock) = (dir.is_some(), RwLock::new(None), Arc::new(SystemClock));
        Ok(Self { inner: Arc::new(Inner { state, bodies, files, gate, clock }) })
    }

    /// Sets, replaces or removes the gate, at any time.
    pub fn set_gate(&self, gate: Option<Gate>) {
        *self.inner.gate.write().unwrap_or_else(PoisonError::into_inner) = gate;
    }

    /// Creates a bucket; fine if it exists. Blocking when there is a directory, for a fraction of a millisecond.
    pub fn create_bucket(&self, name: &str) -> Result<(), StackError> {
        if !s3s::path::check_bucket_name(name) {
            return Err(StackError::Name { what: "bucket", name: name.to_owned() });
        }
        let created = self.state().create_bucket(name, self.inner.clock.now_ms());
        created.map_err(|e| StackError::Service { service: "S3", reason: e.to_string() })
    }

    fn state(&self) -> MutexGuard<'_, state::State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves until dropped, which also cuts all connections.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let mut builder = S3ServiceBuilder::new(self);
        builder.set_auth(SimpleAuth::from_single(crate::ACCESS_KEY, crate::SECRET_KEY));
        let service = builder.build();
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let socket = match listener.accept().await {
                Ok((socket, _)) => socket,
                Err(error) => {
                    // Out of file descriptors, or a peer that is gone: the next may be well.
                    tracing::warn!(%error, "a connection to S3 was not accepted");
                    SystemClock.sleep(std::time::Duration::from_millis(20)).await;
                    continue;
                }
            };
            socket.set_nodelay(true).ok();
            let service = service.clone();
            connections.spawn(async move {
                let builder = Builder::new(TokioExecutor::new());
                if let Err(error) = builder.serve_connection(TokioIo::new(socket), service).await {
                    tracing::debug!(%error, "a connection to S3 ended");
                }
            });
        }
    }
}
