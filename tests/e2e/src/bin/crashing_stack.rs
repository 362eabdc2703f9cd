//! A local stack that kills itself (SIGKILL) when a table's snapshot N is about to be put: between commit and publication.
//! `crashing_stack DIR N`. Neighbours: tests/e2e/freshness.py starts it in place of `silt local`, which then goes on where it ended.

use std::{error::Error, process::Command, sync::Arc};

use siltstone_local::{
    GateDecision, Stack, StackConfig,
    host::{Host, HostConfig, Mode},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(dir), Some(snapshot)) = (args.next(), args.next()) else { return Err("crashing_stack DIR N".into()) };
    let unpublished = format!("/snapshot/snapshot-{}", snapshot.parse::<u64>()?);
    let stack = Stack::start(StackConfig { dir: Some(dir.clone().into()), port: 0 }).await?;
    stack.s3().set_gate(Some(Arc::new(move |method: &str, _bucket: &str, key: &str| {
        if method == "PUT" && key.ends_with(&unpublished) {
            // No destructor, no flush, nothing: the process is gone in the middle of the request.
            let ended = Command::new("kill").args(["-9", &std::process::id().to_string()]).status();
            tracing::error!(?ended, "it still lives");
        }
        GateDecision::Pass
    })));
    let output = Arc::new(|line: &str| tracing::info!("{line}"));
    let _host = Host::start(&stack, HostConfig::new(Mode::InProcess, Some(dir.into())), output).await?;
    std::future::pending().await
}
