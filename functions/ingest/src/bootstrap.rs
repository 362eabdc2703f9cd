//! What `main` runs: settings, clients and handler built once, then one invocation after the other.
//!
//! Neighbours: `main`; the local stack, which runs the same code in processes of its own.

use std::sync::Arc;

use lambda_runtime::{Error, LambdaEvent, service_fn};
use siltstone_aws::{Clients, Stores, Timeouts};
use siltstone_store::{clock::SystemClock, ids::RandomIds};
use siltstone_table::{Ports, settings::FunctionSettings};

use crate::{Handler, event::KinesisEvent};

/// Runs until Lambda stops the sandbox.
///
/// # Errors
/// When the settings are not complete, or Lambda's Runtime API is gone.
pub async fn serve() -> Result<(), Error> {
    tracing_subscriber::fmt().json().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let settings = FunctionSettings::read(|name| std::env::var(name).ok()).map_err(|faults| faults.join("; "))?;
    let clients = Clients::from_env(Timeouts::default()).await;
    let (clock, ids) = (Arc::new(SystemClock), Arc::new(RandomIds));
    let stores = Stores::new(&clients, &settings.bucket, &settings.items_table, clock.clone(), ids.clone());
    let retry = stores.retry.clone();
    let ports = Ports { objects: stores.objects, items: stores.items, clock, ids };
    let handler = Handler::new(ports, Some(stores.streams), settings).with_meter(stores.meter);
    let (handler, retry) = (&handler, &retry);
    lambda_runtime::run(service_fn(move |event: LambdaEvent<KinesisEvent>| async move {
        let deadline = i64::try_from(event.context.deadline).unwrap_or(i64::MAX);
        retry.set_deadline_ms(deadline);
        let answer = handler.handle(event.payload, deadline, |line| println!("{line}")).await;
        answer.map_err(|error| Error::from(error.to_string()))
    }))
    .await
}
