//! DynamoDB on loopback: the embedded dynoxide, in memory or in one SQLite file.
//! Neighbours: `stack`. Invariant: 1. items past their TTL go within half a minute, as nobody else would remove them.

use std::{path::Path, time::Duration};

use dynoxide::Database;
use siltstone_store::{Clock, SystemClock};
use tokio::{net::TcpListener, sync::oneshot};

use crate::StackError;

const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// The embedded DynamoDB. Cheap to clone.
#[derive(Clone)]
pub struct DynamoDb {
    database: Database,
}

impl std::fmt::Debug for DynamoDb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DynamoDb").finish_non_exhaustive()
    }
}

impl DynamoDb {
    /// Opens the file, or starts empty in memory. Blocking.
    pub fn open(path: Option<&Path>) -> Result<Self, StackError> {
        let database = match path {
            None => Database::memory(),
            Some(path) => Database::new(&path.to_string_lossy()),
        };
        Ok(Self { database: database.map_err(|e| StackError::database("DynamoDB", path, e))? })
    }

    /// Serves until `stop` is sent or dropped.
    pub(crate) async fn serve(self, listener: TcpListener, stop: oneshot::Receiver<()>) {
        let database = self.database.clone();
        let sweeps = async move {
            loop {
                SystemClock.sleep(SWEEP_EVERY).await;
                let database = database.clone();
                match tokio::task::spawn_blocking(move || database.sweep_ttl()).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => tracing::warn!(%error, "items past their TTL could not be removed"),
                    Err(_) => return,
                }
            }
        };
        let stopped = async move {
            stop.await.ok();
        };
        tokio::select! {
            served = dynoxide::server::serve_with_shutdown(listener, self.database, stopped) => {
                if let Err(error) = served {
                    tracing::error!(%error, "DynamoDB ended");
                }
            }
            () = sweeps => {}
        }
    }
}
