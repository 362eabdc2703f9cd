//! The event source mapping port: the real settings by which a stream's records reach a function.
//! Above: `maintain`, which verifies them, and `ingest`, which fails closed on what was seen. Below: `memory` and the Lambda adapter.
//! Invariant: 1. a setting that the service did not report is `None`, never a guessed default.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

/// Where a new mapping begins to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartingPosition {
    /// The oldest kept record.
    TrimHorizon,
    /// Only new records.
    Latest,
    /// A time.
    AtTimestamp,
}

/// One mapping from a stream to a function, as the service reports it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MappingSettings {
    /// Id of the mapping.
    pub uuid: String,
    /// The stream.
    pub stream_arn: String,
    /// As in `Enabled`, `Disabled`, `Creating`.
    pub state: String,
    /// Batches of one shard in flight at a time. Must be 1: one position per shard needs order.
    pub parallelization_factor: Option<i32>,
    /// Retries of a batch; -1 is unlimited.
    pub maximum_retry_attempts: Option<i32>,
    /// Age at which records are dropped, seconds; -1 is never.
    pub maximum_record_age_seconds: Option<i32>,
    /// Number of filter patterns. A filtered record never arrives.
    pub filters: usize,
    /// A failing batch is halved and tried again.
    pub bisect_on_error: Option<bool>,
    /// Records per batch at most.
    pub batch_size: Option<i32>,
    /// Longest wait for a batch to fill, seconds.
    pub batching_window_seconds: Option<i32>,
    /// Tumbling window, seconds; anything above 0 makes batches stateful.
    pub tumbling_window_seconds: Option<i32>,
    /// Where the mapping began.
    pub starting_position: Option<StartingPosition>,
    /// Where given-up batches are described.
    pub on_failure_destination: Option<String>,
    /// The function may answer with the position of its first failure.
    pub reports_batch_item_failures: bool,
}

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// No such function.
    #[error("no event source mappings of function {function}: there is no such function ({reason})")]
    NotFound {
        /// The function.
        function: String,
        /// The service's words.
        reason: String,
    },
    /// No permission.
    #[error(
        "event source mappings of function {function}: permission denied; allow lambda:ListEventSourceMappings ({reason})"
    )]
    Denied {
        /// The function.
        function: String,
        /// The service's words.
        reason: String,
    },
    /// No answer now; try again.
    #[error("event source mappings of function {function}: unavailable; try again later ({reason})")]
    Unavailable {
        /// The function.
        function: String,
        /// The service's words.
        reason: String,
    },
}

/// Reads mappings.
#[async_trait]
pub trait EventSourceMappings: Send + Sync + fmt::Debug {
    /// All mappings of a function from Kinesis streams, ascending by uuid. None is an empty list.
    async fn kinesis_mappings(&self, function: &str) -> Result<Vec<MappingSettings>, MappingError>;
}

#[async_trait]
impl<T: EventSourceMappings + ?Sized> EventSourceMappings for Arc<T> {
    async fn kinesis_mappings(&self, function: &str) -> Result<Vec<MappingSettings>, MappingError> {
        (**self).kinesis_mappings(function).await
    }
}
