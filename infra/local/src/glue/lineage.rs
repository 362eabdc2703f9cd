//! How many invocations led to one through S3: what recursive-loop detection goes by.
//!
//! As on AWS the depth travels in `Lineage=` of the trace id: Lambda gives it to an invocation, the SDK sends it with every request of the function,
//! S3 hands it on with its event, and `notify` invokes one deeper. Neighbours: `process` gives it to real processes, whose SDK reads it from the
//! environment of their sandbox. In this process a task-local stands for that environment, and [`traced`] for the SDK's part.
//! Invariant: 1. requests from outside a function carry no depth.

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

/// The trace id of an invocation at a depth.
pub(crate) fn trace_id(depth: u32) -> String {
    format!("Root=1-00000000-000000000000000000000000;Sampled=0;Lineage=00000000:{depth}")
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
            context.request_mut().headers_mut().insert(TRACE_HEADER, trace_id(depth));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_depth_grows_by_one_from_trace_to_invocation() {
        assert_eq!(after(Some(&trace_id(3))), 4);
        assert_eq!(after(Some("Root=1-0-0;Parent=0;Sampled=1;Lineage=1:a87bd80c:15")), 16);
        assert_eq!((after(None), after(Some("Root=1-0-0;Sampled=0"))), (0, 0));
    }

    #[tokio::test]
    async fn an_invocation_knows_its_depth() {
        assert_eq!(depth(), 0);
        assert_eq!(at_depth(7, async { depth() }).await, 7);
    }
}
