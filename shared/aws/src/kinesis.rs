//! The stream ports on Kinesis. Neighbours: `certainty` (what a failure proves), `clients`.
//! Invariant: 1. a record whose hash key or sequence number is not a number of the service's is an error, never a default.

use std::{error::Error, time::Duration};

use async_trait::async_trait;
use aws_sdk_kinesis::{
    Client,
    primitives::{Blob, DateTime},
    types::{PutRecordsRequestEntry, Shard as SdkShard, ShardIteratorType, StreamStatus},
};
use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use bytes::Bytes;
use siltstone_store::stream::{
    PUT_RECORDS_MAX, Put, PutFailure, PutRecord, Records, Shard, ShardIterator, ShardStart, StreamAdmin,
    StreamDescription, StreamError, StreamErrorKind, StreamReader, StreamRecord, StreamResult, StreamState,
    StreamWriter,
};

use crate::certainty::{Failure, is_denied, is_throttled};

/// All streams of one account and region.
#[derive(Debug, Clone)]
pub struct KinesisStream {
    client: Client,
}

impl KinesisStream {
    /// Takes a client. Nothing is sent.
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

fn fail<E>(operation: &'static str, stream: &str, error: &SdkError<E, HttpResponse>) -> StreamError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let failure = Failure::of(error);
    StreamError::new(kind_of(&failure), operation, stream, failure.reason())
}

fn kind_of(failure: &Failure) -> StreamErrorKind {
    use StreamErrorKind as K;
    let (status, code) = match failure {
        Failure::NotBuilt(_) => return K::Invalid,
        Failure::NotSent(_) => return K::Unavailable,
        Failure::Lost(_) => return K::Unknown,
        Failure::Answered { .. } => (failure.status(), failure.code()),
    };
    match (status, code) {
        (_, "ResourceNotFoundException") => K::NotFound,
        // A stream operation at a limit is not one to send again at once.
        (_, "ResourceInUseException" | "LimitExceededException") => K::InUse,
        (_, "ExpiredIteratorException") => K::ExpiredIterator,
        _ if is_throttled(status, code) => K::Throttled,
        _ if is_denied(status, code) => K::Denied,
        (408 | 500..=599, _) => K::Unknown,
        _ => K::Invalid,
    }
}

fn odd(operation: &'static str, stream: &str, what: &str) -> StreamError {
    StreamError::new(StreamErrorKind::Unavailable, operation, stream, format!("the answer is odd: {what}"))
}

fn invalid(operation: &'static str, stream: &str, reason: impl Into<String>) -> StreamError {
    StreamError::new(StreamErrorKind::Invalid, operation, stream, reason)
}

#[async_trait]
impl StreamWriter for KinesisStream {
    async fn put_records(&self, stream: &str, records: &[PutRecord]) -> StreamResult<Vec<Result<Put, PutFailure>>> {
        const OPERATION: &str = "put_records";
        if records.is_empty() || records.len() > PUT_RECORDS_MAX {
            return Err(invalid(OPERATION, stream, format!("{} records, 1 to 500 fit", records.len())));
        }
        let mut request = self.client.put_records().stream_name(stream);
        for record in records {
            let entry = PutRecordsRequestEntry::builder()
                .data(Blob::new(record.data.to_vec()))
                .partition_key(&record.partition_key)
                .set_explicit_hash_key(record.explicit_hash_key.map(|hash| hash.to_string()));
            request = request.records(entry.build().map_err(|e| invalid(OPERATION, stream, e.to_string()))?);
        }
        let answer = request.send().await.map_err(|e| fail(OPERATION, stream, &e))?;
        let results: Vec<_> = answer
            .records
            .into_iter()
            .map(|result| match (result.shard_id, result.sequence_number) {
                (Some(shard), Some(sequence)) => Ok(Put { shard, sequence }),
                _ => Err(PutFailure {
                    code: result.error_code.unwrap_or_default(),
                    message: result.error_message.unwrap_or_default(),
                }),
            })
            .collect();
        if results.len() != records.len() {
            let reason = format!("{} answers for {} records", results.len(), records.len());
            return Err(StreamError::new(StreamErrorKind::Unknown, OPERATION, stream, reason));
        }
        Ok(results)
    }
}

#[async_trait]
impl StreamAdmin for KinesisStream {
    async fn create(&self, stream: &str, shards: u32) -> StreamResult<()> {
        let count = i32::try_from(shards).ok().filter(|n| *n > 0);
        let count = count.ok_or_else(|| {
            invalid("create", stream, "a stream has at least one shard, and no more than 2,147,483,647")
        })?;
        let request = self.client.create_stream().stream_name(stream).shard_count(count);
        request.send().await.map(drop).map_err(|e| fail("create", stream, &e))
    }

    async fn describe(&self, stream: &str) -> StreamResult<StreamDescription> {
        let sent = self.client.describe_stream_summary().stream_name(stream).send().await;
        let answer = sent.map_err(|e| fail("describe", stream, &e))?;
        let summary = answer.stream_description_summary;
        let summary = summary.ok_or_else(|| odd("describe", stream, "no description"))?;
        let hours = u64::try_from(summary.retention_period_hours).unwrap_or_default();
        let state = match summary.stream_status {
            StreamStatus::Creating => StreamState::Creating,
            StreamStatus::Active => StreamState::Active,
            StreamStatus::Updating => StreamState::Updating,
            StreamStatus::Deleting => StreamState::Deleting,
            other => return Err(odd("describe", stream, other.as_str())),
        };
        Ok(StreamDescription {
            name: summary.stream_name,
            arn: summary.stream_arn,
            state,
            retention: Duration::from_secs(hours * 3_600),
            created_ms: summary.stream_creation_timestamp.to_millis().unwrap_or_default(),
            record_bytes_max: summary.max_record_size_in_kib.and_then(|k| u64::try_from(k).ok()).map(|k| k << 10),
        })
    }

    async fn list_shards(&self, stream: &str) -> StreamResult<Vec<Shard>> {
        let mut shards = Vec::new();
        let mut token: Option<String> = None;
        loop {
            // A page after the first is named by its token alone.
            let request = match token.take() {
                Some(token) => self.client.list_shards().next_token(token),
                None => self.client.list_shards().stream_name(stream),
            };
            let answer = request.send().await.map_err(|e| fail("list_shards", stream, &e))?;
            for shard in answer.shards.unwrap_or_default() {
                shards.push(shard_of(stream, shard)?);
            }
            token = answer.next_token;
            if token.is_none() {
                shards.sort_by(|a: &Shard, b| a.id.cmp(&b.id));
                return Ok(shards);
            }
        }
    }

    async fn split(&self, stream: &str, shard: &str, hash_start: u128) -> StreamResult<()> {
        let request = self.client.split_shard().stream_name(stream).shard_to_split(shard);
        let sent = request.new_starting_hash_key(hash_start.to_string()).send().await;
        sent.map(drop).map_err(|e| fail("split", stream, &e))
    }

    async fn merge(&self, stream: &str, shard: &str, adjacent: &str) -> StreamResult<()> {
        let request = self.client.merge_shards().stream_name(stream).shard_to_merge(shard);
        let sent = request.adjacent_shard_to_merge(adjacent).send().await;
        sent.map(drop).map_err(|e| fail("merge", stream, &e))
    }

    async fn delete(&self, stream: &str) -> StreamResult<()> {
        let sent = self.client.delete_stream().stream_name(stream).send().await;
        sent.map(drop).map_err(|e| fail("delete", stream, &e))
    }

    async fn set_retention(&self, stream: &str, retention: Duration) -> StreamResult<()> {
        let hours = retention.as_secs() / 3_600;
        if !retention.as_secs().is_multiple_of(3_600) || !(24..=8_760).contains(&hours) {
            return Err(invalid("set_retention", stream, "retention is 24 to 8760 whole hours"));
        }
        let hours = i32::try_from(hours).unwrap_or(i32::MAX);
        let now = i32::try_from(self.describe(stream).await?.retention.as_secs() / 3_600).unwrap_or(i32::MAX);
        // Two calls for one setting, each refusing what the other does.
        match hours.cmp(&now) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => {
                let request = self.client.increase_stream_retention_period().stream_name(stream);
                let sent = request.retention_period_hours(hours).send().await;
                sent.map(drop).map_err(|e| fail("set_retention", stream, &e))
            }
            std::cmp::Ordering::Less => {
                let request = self.client.decrease_stream_retention_period().stream_name(stream);
                let sent = request.retention_period_hours(hours).send().await;
                sent.map(drop).map_err(|e| fail("set_retention", stream, &e))
            }
        }
    }
}

fn shard_of(stream: &str, shard: SdkShard) -> StreamResult<Shard> {
    let hash = |text: &str| text.parse::<u128>().map_err(|_| odd("list_shards", stream, "a hash key is no number"));
    let range = shard.hash_key_range.ok_or_else(|| odd("list_shards", stream, "a shard has no hash range"))?;
    let sequences = shard.sequence_number_range;
    let sequences = sequences.ok_or_else(|| odd("list_shards", stream, "a shard has no sequence range"))?;
    Ok(Shard {
        id: shard.shard_id,
        parent: shard.parent_shard_id,
        adjacent_parent: shard.adjacent_parent_shard_id,
        hash_start: hash(&range.starting_hash_key)?,
        hash_end: hash(&range.ending_hash_key)?,
        first_sequence: sequences.starting_sequence_number,
        last_sequence: sequences.ending_sequence_number,
    })
}

#[async_trait]
impl StreamReader for KinesisStream {
    async fn iterator(&self, stream: &str, shard: &str, start: ShardStart) -> StreamResult<ShardIterator> {
        let request = self.client.get_shard_iterator().stream_name(stream).shard_id(shard);
        let request = match start {
            ShardStart::TrimHorizon => request.shard_iterator_type(ShardIteratorType::TrimHorizon),
            ShardStart::Latest => request.shard_iterator_type(ShardIteratorType::Latest),
            ShardStart::AtSequence(n) => {
                request.shard_iterator_type(ShardIteratorType::AtSequenceNumber).starting_sequence_number(n)
            }
            ShardStart::AfterSequence(n) => {
                request.shard_iterator_type(ShardIteratorType::AfterSequenceNumber).starting_sequence_number(n)
            }
            ShardStart::AtTimestamp(ms) => {
                request.shard_iterator_type(ShardIteratorType::AtTimestamp).timestamp(DateTime::from_millis(ms))
            }
        };
        let answer = request.send().await.map_err(|e| fail("iterator", stream, &e))?;
        answer.shard_iterator.map(ShardIterator).ok_or_else(|| odd("iterator", stream, "no iterator"))
    }

    async fn get_records(&self, stream: &str, iterator: &ShardIterator, limit: u32) -> StreamResult<Records> {
        let limit = i32::try_from(limit).ok().filter(|n| (1..=10_000).contains(n));
        let limit = limit.ok_or_else(|| invalid("get_records", stream, "limit is 1 to 10000"))?;
        let sent = self.client.get_records().shard_iterator(&iterator.0).limit(limit).send().await;
        let answer = sent.map_err(|e| fail("get_records", stream, &e))?;
        let records = answer.records.into_iter().map(|record| {
            let arrival = record.approximate_arrival_timestamp.and_then(|t| t.to_millis().ok());
            Ok(StreamRecord {
                sequence: record.sequence_number,
                data: Bytes::from(record.data.into_inner()),
                partition_key: record.partition_key.unwrap_or_default(),
                arrival_ms: arrival.ok_or_else(|| odd("get_records", stream, "a record has no arrival time"))?,
            })
        });
        Ok(Records {
            records: records.collect::<StreamResult<_>>()?,
            next: answer.next_shard_iterator.filter(|next| !next.is_empty()).map(ShardIterator),
            behind_ms: answer.millis_behind_latest.unwrap_or_default(),
        })
    }
}
