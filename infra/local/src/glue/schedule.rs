//! EventBridge rate schedules: a function every so often.
//!
//! Neighbours: `maintain` is started by one.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::json;
use tokio::task::JoinHandle;

use super::Function;
use crate::{ACCOUNT, REGION};

/// A running schedule. Dropping it ends it.
#[derive(Debug)]
pub struct Schedule(JoinHandle<()>);

impl Drop for Schedule {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Schedule {
    /// Invokes `function` every `rate`, the first time at once.
    #[must_use]
    pub fn start(name: &str, rate: Duration, function: Arc<dyn Function>) -> Self {
        let event = json!({
            "version": "0", "id": "00000000-0000-0000-0000-000000000000", "detail-type": "Scheduled Event", "source": "aws.events",
            "account": ACCOUNT, "region": REGION, "resources": [format!("arn:aws:events:{REGION}:{ACCOUNT}:rule/{name}")], "detail": {}});
        let payload = Bytes::from(event.to_string());
        Self(tokio::spawn(async move {
            loop {
                if let Err(error) = function.invoke(payload.clone()).await {
                    tracing::warn!(function = function.name(), %error, "a scheduled invocation failed");
                }
                tokio::time::sleep(rate).await;
            }
        }))
    }
}
