//! The event source mapping port on Lambda. Neighbours: `certainty` (what a failure proves), `clients`.
//! Invariant: 1. what the service left out is `None`.

use async_trait::async_trait;
use aws_sdk_lambda::{
    Client,
    types::{EventSourceMappingConfiguration, EventSourcePosition, FunctionResponseType},
};
use siltstone_store::mapping::{EventSourceMappings, MappingError, MappingSettings, StartingPosition};

use crate::certainty::{Failure, is_denied};

/// Mappings of all functions of one account and region.
#[derive(Debug, Clone)]
pub struct LambdaMappings {
    client: Client,
}

impl LambdaMappings {
    /// Takes a client. Nothing is sent.
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

#[async_trait]
impl EventSourceMappings for LambdaMappings {
    async fn kinesis_mappings(&self, function: &str) -> Result<Vec<MappingSettings>, MappingError> {
        let mut mappings = Vec::new();
        let mut marker: Option<String> = None;
        loop {
            let request = self.client.list_event_source_mappings().function_name(function);
            let answer = request.set_marker(marker).send().await.map_err(|e| error_of(function, Failure::of(&e)))?;
            let found = answer.event_source_mappings.unwrap_or_default();
            mappings.extend(found.into_iter().filter_map(settings_of));
            marker = answer.next_marker.filter(|m| !m.is_empty());
            if marker.is_none() {
                mappings.sort_by(|a: &MappingSettings, b| a.uuid.cmp(&b.uuid));
                return Ok(mappings);
            }
        }
    }
}

fn error_of(function: &str, failure: Failure) -> MappingError {
    let function = function.to_owned();
    let (status, code) = (failure.status(), failure.code().to_owned());
    let reason = failure.reason();
    match code.as_str() {
        "ResourceNotFoundException" => MappingError::NotFound { function, reason },
        code if is_denied(status, code) => MappingError::Denied { function, reason },
        _ => MappingError::Unavailable { function, reason },
    }
}

/// `None` for a mapping from something that is not a Kinesis stream.
fn settings_of(mapping: EventSourceMappingConfiguration) -> Option<MappingSettings> {
    let stream_arn = mapping.event_source_arn.filter(|arn| arn.split(':').nth(2) == Some("kinesis"))?;
    let destination = mapping.destination_config.and_then(|d| d.on_failure).and_then(|f| f.destination);
    let responses = mapping.function_response_types.unwrap_or_default();
    Some(MappingSettings {
        uuid: mapping.uuid.unwrap_or_default(),
        stream_arn,
        state: mapping.state.unwrap_or_default(),
        parallelization_factor: mapping.parallelization_factor,
        maximum_retry_attempts: mapping.maximum_retry_attempts,
        maximum_record_age_seconds: mapping.maximum_record_age_in_seconds,
        filters: mapping.filter_criteria.and_then(|c| c.filters).map_or(0, |f| f.len()),
        bisect_on_error: mapping.bisect_batch_on_function_error,
        batch_size: mapping.batch_size,
        batching_window_seconds: mapping.maximum_batching_window_in_seconds,
        tumbling_window_seconds: mapping.tumbling_window_in_seconds,
        starting_position: mapping.starting_position.and_then(|position| match position {
            EventSourcePosition::TrimHorizon => Some(StartingPosition::TrimHorizon),
            EventSourcePosition::Latest => Some(StartingPosition::Latest),
            EventSourcePosition::AtTimestamp => Some(StartingPosition::AtTimestamp),
            _ => None,
        }),
        on_failure_destination: destination,
        reports_batch_item_failures: responses.contains(&FunctionResponseType::ReportBatchItemFailures),
    })
}
