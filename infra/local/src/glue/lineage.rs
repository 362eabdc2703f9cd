//! How many invocations led to one through S3: what recursive-loop detection goes by.
//!
//! As on AWS the depth travels in `Lineage=` of the trace id: Lambda gives it to an invocation, the SDK sends it with every request of the function,
//! S3 hands it on with its event, and `notify` invokes one deeper. Neighbours: `process` gives it to real processes, whose SDK reads it from the
//! environment of their sandbox. In this process a task-local stands for that environment, and [`traced`] for the SDK's part.
//! Invariants: 1. requests from outside a function carry no depth; 2. no two invocations by processes have one `Root=`, and it tells the process.

use std::future::Future;

use aws_sdk_s3::{
    Client,
    config::{ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeTransmitInterceptorContextMut},
    error::BoxError,
};

use crate::s3::TRACE_HEADER;

tokio::task_local! {
    static DEPTH: u32;
}

/// Runs an invocation that so many led to.
pub(crate) async fn at_depth<F: Future>(depth: u32, invocation: F) -> F::Output {
    DEPTH.scope(depth, invocation).await
}

/// How many invocations led to the one that runs here: none, unless it was started by [`at_depth`].
pub(crate) fn depth() -> u32 {
    DEPTH.try_with(|depth| *depth).unwrap_or(0)
}

/// The depth of an invocation that comes of a request with this trace id: none led to it if no function sent that.
pub(crate) fn after(trace_id: Option<&str>) -> u32 {
    let lineage = trace_id.and_then(|id| id.split(';').find_map(|part| part.trim().strip_prefix("Lineage=")));
    let depth: Option<u32> = lineage.and_then(|l| l.rsplit(':').next()).and_then(|depth| depth.parse().ok());
    depth.map_or(0, |depth| depth.saturating_add(1))
}

/// Which invocation a trace id is of. One that runs in this process is the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Root {
    pub(crate) started_ms: i64,
    pub(crate) pid: u32,
    pub(crate) number: u64,
}

/// The trace id of an invocation at a depth.
pub(crate) fn trace_id(depth: u32, root: Root) -> String {
    let seconds = u32::try_from(root.started_ms / 1_000).unwrap_or(u32::MAX);
    let Root { pid, number, .. } = root;
    format!("Root=1-{seconds:08x}-{pid:08x}{number:016x};Sampled=0;Lineage=00000000:{depth}")
}

/// The process that a request with this trace id comes from, if it runs a function.
#[must_use]
pub fn pid_of(trace_id: &str) -> Option<u32> {
    let root = trace_id.split(';').find_map(|part| part.trim().strip_prefix("Root=1-"))?;
    let (_, unique) = root.split_once('-')?;
    u32::from_str_radix(unique.get(..8)?, 16).ok().filter(|pid| *pid != 0)
}

/// The client of functions that run in this process.
#[must_use]
pub fn traced(client: &Client) -> Client {
    Client::from_conf(client.config().to_builder().interceptor(SendsDepth).build())
}

/// Sends the trace id with requests of an invocation.
#[derive(Debug)]
struct SendsDepth;

impl Intercept for SendsDepth {
    fn name(&self) -> &'static str {
        "SendsDepth"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Ok(depth) = DEPTH.try_with(|depth| *depth) {
            context.request_mut().headers_mut().insert(TRACE_HEADER, trace_id(depth, Root::default()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_depth_grows_by_one_from_trace_to_invocation() {
        assert_eq!(after(Some(&trace_id(3, Root::default()))), 4);
        assert_eq!(after(Some("Root=1-0-0;Parent=0;Sampled=1;Lineage=1:a87bd80c:15")), 16);
        assert_eq!((after(None), after(Some("Root=1-0-0;Sampled=0"))), (0, 0));
    }

    #[test]
    fn a_trace_id_tells_the_process_of_its_invocation_and_none_where_there_is_none() {
        let root = Root { started_ms: 1_700_000_000_000, pid: 4_242, number: 7 };
        assert_eq!(pid_of(&trace_id(3, root)), Some(4_242));
        assert_ne!(trace_id(3, root), trace_id(3, Root { number: 8, ..root }));
        assert_eq!(
            (pid_of(&trace_id(3, Root::default())), pid_of("Root=1-0-0"), pid_of("Sampled=0")),
            (None, None, None)
        );
    }

    #[tokio::test]
    async fn an_invocation_knows_its_depth() {
        assert_eq!(depth(), 0);
        assert_eq!(at_depth(7, async { depth() }).await, 7);
    }
}
