//! The Kinesis event that Lambda delivers, and the answer it takes (Lambda developer guide, "Using Lambda with Kinesis").
//!
//! Neighbours: `handler`. Only the fields that matter are read; arrival times keep their milliseconds.
//! Invariants: 1. an event of two shards or streams is refused; 2. payload bytes are exactly the producer's.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use siltstone_table::{
    TableError,
    ingest::{StreamBatch, StreamRecord},
};

/// An event: records of one shard, in order.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct KinesisEvent {
    /// Records. An event without the field is not from Kinesis and must not be acknowledged.
    #[serde(rename = "Records")]
    pub records: Vec<KinesisEventRecord>,
}

/// One record with where it comes from.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct KinesisEventRecord {
    /// `shardId-...:sequence number`.
    #[serde(rename = "eventID")]
    pub event_id: String,
    /// ARN of the stream.
    #[serde(rename = "eventSourceARN")]
    pub event_source_arn: String,
    /// The record.
    pub kinesis: KinesisRecord,
}

/// The record as Kinesis has it.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KinesisRecord {
    /// Seconds since 1970, with milliseconds.
    pub approximate_arrival_timestamp: f64,
    /// Base64.
    pub data: String,
    /// Partition key.
    pub partition_key: String,
    /// Sequence number, decimal.
    pub sequence_number: String,
}

/// The answer: an empty list acknowledges the batch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchResponse {
    /// Always empty: a batch is committed whole or the invocation fails, and Kinesis redelivers it.
    pub batch_item_failures: Vec<String>,
}

impl KinesisEvent {
    /// The batch of the event; `None` for an event without records.
    ///
    /// # Errors
    /// [`TableError::Invalid`] for an event that is not of one shard, or not as Lambda makes it.
    pub fn into_batch(self) -> Result<Option<StreamBatch>, TableError> {
        let Some(first) = self.records.first() else { return Ok(None) };
        let (stream_arn, shard) = (first.event_source_arn.clone(), shard_of(&first.event_id)?.to_owned());
        let records = self
            .records
            .into_iter()
            .map(|record| {
                if record.event_source_arn != stream_arn || shard_of(&record.event_id)? != shard {
                    return Err(TableError::Invalid(
                        "the event has records of several shards: it is not from an event source mapping".to_owned(),
                    ));
                }
                let kinesis = record.kinesis;
                let data = STANDARD.decode(&kinesis.data).map_err(|_| {
                    TableError::Invalid(format!(
                        "record {} of {shard}: its data is not base64; send the event as the event source mapping made it",
                        kinesis.sequence_number
                    ))
                })?;
                #[expect(clippy::cast_possible_truncation, reason = "milliseconds since 1970 fit 53 bits")]
                let arrival_ms = (kinesis.approximate_arrival_timestamp * 1000.0).round() as i64;
                Ok(StreamRecord {
                    sequence: kinesis.sequence_number,
                    arrival_ms,
                    partition_key: kinesis.partition_key,
                    data: data.into(),
                })
            })
            .collect::<Result<Vec<_>, TableError>>()?;
        Ok(Some(StreamBatch { stream_arn, shard, records }))
    }
}

fn shard_of(event_id: &str) -> Result<&str, TableError> {
    event_id.split_once(':').map(|(shard, _)| shard).ok_or_else(|| {
        let shown: String = event_id.chars().take(80).collect();
        TableError::Invalid(format!(
            "eventID `{shown}` is not `shard:sequence number`: send the event as the event source mapping made it"
        ))
    })
}
