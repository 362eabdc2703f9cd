//! The operations, from JSON to JSON. No I/O; the time is passed in. Neighbours: `state` (what they do), `http` (the wire).
//! Invariants: 1. a field of the wrong type is refused by its name; 2. tokens of iterators and pages carry all that is needed,
//! so nothing is remembered between calls.

use std::collections::BTreeMap;

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use super::state::{
    Answer, Entry, HOUR_MS, READ_BYTES_MAX, READ_RECORDS_MAX, RECORD_BYTES_MAX, Record, Sequence, Shard, Stream,
    Streams, invalid, refuse,
};

const PUT_RECORDS_MAX: usize = 500;
const PUT_BYTES_MAX: usize = 10 << 20;
const ITERATOR_MS: i64 = 300_000;
const ON_DEMAND_SHARDS: u32 = 4;

/// Fields of one request.
struct Input<'a>(&'a Value);

impl Input<'_> {
    fn text(&self, name: &str) -> Answer<Option<String>> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => refuse("SerializationException", format!("{name} is not a string")),
        }
    }

    fn needed(&self, name: &str) -> Answer<String> {
        self.text(name)?.map_or_else(|| refuse("ValidationException", format!("{name} is missing")), Ok)
    }

    fn number(&self, name: &str) -> Answer<Option<i64>> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value
                .as_i64()
                .map_or_else(|| refuse("SerializationException", format!("{name} is not an integer")), |n| Ok(Some(n))),
        }
    }

    fn limit(&self, name: &str, default: usize, most: usize) -> Answer<usize> {
        let Some(n) = self.number(name)? else { return Ok(default) };
        match usize::try_from(n) {
            Ok(n) if (1..=most).contains(&n) => Ok(n),
            _ => invalid(format!("{name} is 1 to {most}")),
        }
    }

    fn hash(&self, name: &str) -> Answer<Option<u128>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        text.parse().map_or_else(|_| invalid(format!("{name} {text:?} is not 0 to 2^128-1")), |n| Ok(Some(n)))
    }

    fn millis(&self, name: &str) -> Answer<Option<i64>> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64() {
                Some(seconds) if seconds.is_finite() => Ok(Some((seconds * 1e3).round() as i64)),
                _ => refuse("SerializationException", format!("{name} is not a timestamp")),
            },
        }
    }

    /// By name, or by ARN.
    fn stream(&self) -> Answer<String> {
        if let Some(name) = self.text("StreamName")? {
            return Ok(name);
        }
        match self.text("StreamARN")? {
            Some(arn) => arn.rsplit_once(":stream/").map_or_else(
                || invalid(format!("{arn:?} is not the ARN of a stream")),
                |(_, name)| Ok(name.to_owned()),
            ),
            None => invalid("StreamName or StreamARN is missing"),
        }
    }
}

/// Answers one request.
pub(super) fn call(streams: &mut Streams, operation: &str, input: &Value, now_ms: i64) -> Answer<Value> {
    let input = Input(input);
    match operation {
        "CreateStream" => create_stream(streams, &input, now_ms),
        "DeleteStream" => streams.delete(&input.stream()?).map(|()| json!({})),
        "DescribeStream" => describe_stream(streams, &input),
        "DescribeStreamSummary" => {
            let name = input.stream()?;
            let stream = streams.stream(&name)?;
            let mut summary = description(&name, stream);
            summary.insert("OpenShardCount".into(), stream.open_shards().count().into());
            summary.insert("ConsumerCount".into(), 0.into());
            Ok(json!({ "StreamDescriptionSummary": summary }))
        }
        "ListStreams" => list_streams(streams, &input),
        "ListShards" => list_shards(streams, &input, now_ms),
        "PutRecord" => put_record(streams, &input, now_ms),
        "PutRecords" => put_records(streams, &input, now_ms),
        "GetShardIterator" => get_shard_iterator(streams, &input, now_ms),
        "GetRecords" => get_records(streams, &input, now_ms),
        "SplitShard" => {
            let at = input.hash("NewStartingHashKey")?;
            let Some(at) = at else { return refuse("ValidationException", "NewStartingHashKey is missing") };
            streams.split(&input.stream()?, &input.needed("ShardToSplit")?, at, now_ms).map(|()| json!({}))
        }
        "MergeShards" => {
            let (a, b) = (input.needed("ShardToMerge")?, input.needed("AdjacentShardToMerge")?);
            streams.merge(&input.stream()?, &a, &b, now_ms).map(|()| json!({}))
        }
        "UpdateShardCount" => update_shard_count(streams, &input, now_ms),
        "IncreaseStreamRetentionPeriod" | "DecreaseStreamRetentionPeriod" => {
            let hours = input.number("RetentionPeriodHours")?.unwrap_or_default();
            let grow = operation.starts_with("Increase");
            streams.set_retention(&input.stream()?, hours, grow).map(|()| json!({}))
        }
        "AddTagsToStream" => {
            let tags: BTreeMap<String, String> = fields(&input, "Tags")?;
            streams.tag(&input.stream()?, tags, &[]).map(|()| json!({}))
        }
        "RemoveTagsFromStream" => {
            let keys: Vec<String> = fields(&input, "TagKeys")?;
            streams.tag(&input.stream()?, BTreeMap::new(), &keys).map(|()| json!({}))
        }
        "ListTagsForStream" => {
            let stream = streams.stream(&input.stream()?)?;
            let tags: Vec<Value> = stream.tags.iter().map(|(k, v)| json!({ "Key": k, "Value": v })).collect();
            Ok(json!({ "Tags": tags, "HasMoreTags": false }))
        }
        other => refuse("UnknownOperationException", format!("{other} is not an operation of this server")),
    }
}

fn fields<T: DeserializeOwned>(input: &Input<'_>, name: &str) -> Answer<T> {
    let value = input.0.get(name).cloned().unwrap_or_default();
    serde_json::from_value(value).or_else(|e| refuse("SerializationException", format!("{name}: {e}")))
}

pub(super) fn arn(name: &str) -> String {
    format!("arn:aws:kinesis:{}:{}:stream/{name}", crate::REGION, crate::ACCOUNT)
}

fn seconds(ms: i64) -> Value {
    json!(ms as f64 / 1e3)
}

/// Tokens are opaque to clients.
fn seal(token: &impl Serialize) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(token).unwrap_or_default())
}

fn unseal<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

fn create_stream(streams: &mut Streams, input: &Input<'_>, now_ms: i64) -> Answer<Value> {
    let name = input.needed("StreamName")?;
    let mode = input.0.get("StreamModeDetails").and_then(|m| m.get("StreamMode")).and_then(Value::as_str);
    let on_demand = mode == Some("ON_DEMAND");
    let shards = match input.number("ShardCount")? {
        Some(n) => u32::try_from(n).unwrap_or(0),
        // Neither a count nor a mode is on-demand, as in AWS; provisioned needs a count.
        None if mode == Some("PROVISIONED") => 0,
        None => ON_DEMAND_SHARDS,
    };
    let on_demand = on_demand || mode.is_none() && input.number("ShardCount")?.is_none();
    streams.create(&name, shards, on_demand, now_ms)?;
    if input.0.get("Tags").is_some_and(|t| !t.is_null()) {
        streams.tag(&name, fields(input, "Tags")?, &[])?;
    }
    Ok(json!({}))
}

fn description(name: &str, stream: &Stream) -> Map<String, Value> {
    let description = json!({
        "StreamName": name,
        "StreamARN": arn(name),
        "StreamStatus": "ACTIVE",
        "StreamModeDetails": { "StreamMode": mode(stream) },
        "RetentionPeriodHours": stream.retention_hours,
        "StreamCreationTimestamp": seconds(stream.created_ms),
        "EnhancedMonitoring": [{ "ShardLevelMetrics": [] }],
        "EncryptionType": "NONE",
    });
    match description {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn mode(stream: &Stream) -> &'static str {
    if stream.on_demand { "ON_DEMAND" } else { "PROVISIONED" }
}

fn describe_stream(streams: &Streams, input: &Input<'_>) -> Answer<Value> {
    let name = input.stream()?;
    let stream = streams.stream(&name)?;
    let limit = input.limit("Limit", 100, 10_000)?;
    let after = input.text("ExclusiveStartShardId")?.unwrap_or_default();
    let mut rest = stream.shards.iter().filter(|s| s.id > after);
    let shards: Vec<Value> = rest.by_ref().take(limit).map(shard_json).collect();
    let mut description = description(&name, stream);
    description.insert("Shards".into(), shards.into());
    description.insert("HasMoreShards".into(), rest.next().is_some().into());
    Ok(json!({ "StreamDescription": description }))
}

fn shard_json(shard: &Shard) -> Value {
    let mut sequences = json!({ "StartingSequenceNumber": shard.first.text() });
    if let Some(last) = shard.last {
        sequences["EndingSequenceNumber"] = last.text().into();
    }
    let mut value = json!({
        "ShardId": shard.id,
        "HashKeyRange": hash_range(shard),
        "SequenceNumberRange": sequences,
    });
    for (name, parent) in ["ParentShardId", "AdjacentParentShardId"].iter().zip(&shard.parents) {
        value[*name] = parent.as_str().into();
    }
    value
}

fn hash_range(shard: &Shard) -> Value {
    json!({ "StartingHashKey": shard.start_hash.to_string(), "EndingHashKey": shard.end_hash.to_string() })
}

fn list_streams(streams: &Streams, input: &Input<'_>) -> Answer<Value> {
    let limit = input.limit("Limit", 100, 10_000)?;
    let token = input.text("NextToken")?.and_then(|t| unseal::<String>(&t));
    let after = input.text("ExclusiveStartStreamName")?.or(token).unwrap_or_default();
    let mut rest = streams.streams.iter().filter(|(name, _)| **name > after);
    let page: Vec<(&String, &Stream)> = rest.by_ref().take(limit).collect();
    let summary = |(name, stream): &(&String, &Stream)| {
        json!({
            "StreamName": name, "StreamARN": arn(name), "StreamStatus": "ACTIVE",
            "StreamModeDetails": { "StreamMode": mode(stream) },
            "StreamCreationTimestamp": seconds(stream.created_ms),
        })
    };
    let more = rest.next().is_some();
    let names: Vec<&String> = page.iter().map(|(name, _)| *name).collect();
    let mut answer = json!({
        "StreamNames": names, "HasMoreStreams": more,
        "StreamSummaries": page.iter().map(summary).collect::<Vec<_>>(),
    });
    if let Some(last) = names.last().filter(|_| more) {
        answer["NextToken"] = seal(last).into();
    }
    Ok(answer)
}

/// A page of `ListShards`: of which stream, after which shard, with which filter.
#[derive(Serialize, Deserialize)]
struct ShardPage {
    stream: String,
    after: String,
    filter: Value,
}

fn list_shards(streams: &Streams, input: &Input<'_>, now_ms: i64) -> Answer<Value> {
    let limit = input.limit("MaxResults", 1_000, 10_000)?;
    let page = match input.text("NextToken")? {
        Some(_) if input.text("StreamName")?.is_some() => {
            return invalid("NextToken and StreamName cannot be provided together.");
        }
        Some(token) => match unseal(&token) {
            Some(page) => page,
            None => return invalid("NextToken is not of this server"),
        },
        None => ShardPage {
            stream: input.stream()?,
            after: input.text("ExclusiveStartShardId")?.unwrap_or_default(),
            filter: input.0.get("ShardFilter").cloned().unwrap_or_default(),
        },
    };
    let stream = streams.stream(&page.stream)?;
    let mut shards = Vec::new();
    for shard in stream.shards.iter().filter(|s| s.id > page.after) {
        if passes(stream, shard, &page.filter, now_ms)? {
            shards.push(shard);
        }
    }
    let mut answer = json!({ "Shards": shards.iter().take(limit).map(|s| shard_json(s)).collect::<Vec<_>>() });
    if let (true, Some(last)) = (shards.len() > limit, shards.get(limit - 1)) {
        answer["NextToken"] = seal(&ShardPage { after: last.id.clone(), ..page }).into();
    }
    Ok(answer)
}

fn passes(stream: &Stream, shard: &Shard, filter: &Value, now_ms: i64) -> Answer<bool> {
    if filter.is_null() {
        return Ok(true);
    }
    let input = Input(filter);
    let horizon = (now_ms - stream.retention_hours * HOUR_MS).max(stream.created_ms);
    let open_after = |ms: i64| shard.closed_ms.is_none_or(|closed| closed > ms);
    let at = || match input.millis("Timestamp")? {
        Some(ms) => Ok(ms.max(horizon)),
        None => invalid("ShardFilter.Timestamp is missing"),
    };
    match input.needed("Type")?.as_str() {
        "AFTER_SHARD_ID" => Ok(shard.id > input.needed("ShardId")?),
        "AT_LATEST" => Ok(!shard.closed()),
        "AT_TRIM_HORIZON" => Ok(shard.created_ms <= horizon && open_after(horizon)),
        "FROM_TRIM_HORIZON" => Ok(open_after(horizon)),
        "AT_TIMESTAMP" => at().map(|ms| shard.created_ms <= ms && open_after(ms)),
        "FROM_TIMESTAMP" => at().map(open_after),
        other => refuse("ValidationException", format!("ShardFilter.Type {other:?} is unknown")),
    }
}

fn entry(input: &Input<'_>) -> Answer<Entry> {
    let Ok(data) = BASE64_STANDARD.decode(input.needed("Data")?) else {
        return refuse("SerializationException", "Data is not base64");
    };
    let partition_key = input.needed("PartitionKey")?;
    if !(1..=256).contains(&partition_key.chars().count()) {
        return refuse("ValidationException", "PartitionKey has 1 to 256 characters");
    }
    if data.len() + partition_key.len() > RECORD_BYTES_MAX {
        return refuse("ValidationException", "a record, its partition key included, has at most 1048576 bytes");
    }
    Ok(Entry { data: data.into(), partition_key, explicit_hash: input.hash("ExplicitHashKey")? })
}

fn put_record(streams: &mut Streams, input: &Input<'_>, now_ms: i64) -> Answer<Value> {
    let results = streams.put(&input.stream()?, vec![entry(input)?], now_ms)?;
    match results.into_iter().next() {
        Some(Ok((shard, sequence))) => {
            Ok(json!({ "ShardId": shard, "SequenceNumber": sequence.text(), "EncryptionType": "NONE" }))
        }
        Some(Err(refusal)) => Err(refusal),
        None => refuse("InternalFailure", "no result"),
    }
}

fn put_records(streams: &mut Streams, input: &Input<'_>, now_ms: i64) -> Answer<Value> {
    let records = input.0.get("Records").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if records.is_empty() || records.len() > PUT_RECORDS_MAX {
        return refuse("ValidationException", format!("{} records, 1 to {PUT_RECORDS_MAX} fit", records.len()));
    }
    let entries: Vec<Entry> = records.iter().map(|r| entry(&Input(r))).collect::<Answer<_>>()?;
    if entries.iter().map(|e| e.data.len() + e.partition_key.len()).sum::<usize>() > PUT_BYTES_MAX {
        return invalid(format!("Records has more than {PUT_BYTES_MAX} bytes"));
    }
    let results = streams.put(&input.stream()?, entries, now_ms)?;
    let failed = results.iter().filter(|r| r.is_err()).count();
    let result = |result: Answer<(String, Sequence)>| match result {
        Ok((shard, sequence)) => json!({ "ShardId": shard, "SequenceNumber": sequence.text() }),
        Err(refusal) => json!({ "ErrorCode": refusal.code, "ErrorMessage": refusal.message }),
    };
    let results: Vec<Value> = results.into_iter().map(result).collect();
    Ok(json!({ "FailedRecordCount": failed, "Records": results, "EncryptionType": "NONE" }))
}

/// Where a reader is.
#[derive(Serialize, Deserialize)]
struct Position {
    stream: String,
    /// When the stream was made: another of the same name is not this one.
    of: i64,
    shard: String,
    from: Sequence,
    issued_ms: i64,
}

fn get_shard_iterator(streams: &Streams, input: &Input<'_>, now_ms: i64) -> Answer<Value> {
    let name = input.stream()?;
    let stream = streams.stream(&name)?;
    let shard = stream.shard(&input.needed("ShardId")?)?;
    let number = || {
        let text = input.needed("StartingSequenceNumber")?;
        let wrong = || invalid(format!("StartingSequenceNumber {text} is not one of shard {}", shard.id));
        Sequence::parse(&text).filter(|s| *s >= shard.first).map_or_else(wrong, Ok)
    };
    let latest = streams.sequence.next();
    let from = match input.needed("ShardIteratorType")?.as_str() {
        "TRIM_HORIZON" => shard.first,
        "LATEST" => latest,
        "AT_SEQUENCE_NUMBER" => number()?,
        "AFTER_SEQUENCE_NUMBER" => number()?.next(),
        "AT_TIMESTAMP" => match input.millis("Timestamp")? {
            Some(ms) => {
                let at = shard.records.partition_point(|r| r.arrival_ms < ms);
                shard.records.get(at).map_or(latest, |r| r.sequence)
            }
            None => return invalid("Timestamp is missing"),
        },
        other => return refuse("ValidationException", format!("ShardIteratorType {other:?} is unknown")),
    };
    let (of, shard) = (stream.created_ms, shard.id.clone());
    Ok(json!({ "ShardIterator": seal(&Position { stream: name, of, shard, from, issued_ms: now_ms }) }))
}

fn get_records(streams: &mut Streams, input: &Input<'_>, now_ms: i64) -> Answer<Value> {
    let limit = input.limit("Limit", READ_RECORDS_MAX, READ_RECORDS_MAX)?;
    let Some(position) = unseal::<Position>(&input.needed("ShardIterator")?) else {
        return invalid("ShardIterator is not of this server");
    };
    if now_ms - position.issued_ms > ITERATOR_MS {
        return refuse("ExpiredIteratorException", "the iterator is older than five minutes");
    }
    streams.trim(&position.stream, now_ms)?;
    let stream = streams.stream(&position.stream)?;
    if stream.created_ms != position.of {
        return refuse("ResourceNotFoundException", "the stream of the iterator is gone");
    }
    let shard = stream.shard(&position.shard)?;
    let (records, rest) = take(shard, position.from, limit, READ_BYTES_MAX);
    let mut answer = json!({
        "Records": records.iter().map(|r| record_json(r)).collect::<Vec<_>>(),
        "MillisBehindLatest": rest.map_or(0, |next| (now_ms - next.arrival_ms).max(1)),
    });
    if rest.is_none() && shard.closed() {
        answer["NextShardIterator"] = Value::Null;
        let child = |s: &Shard| json!({ "ShardId": s.id, "ParentShards": s.parents, "HashKeyRange": hash_range(s) });
        answer["ChildShards"] = stream.children(&shard.id).map(child).collect::<Vec<_>>().into();
    } else {
        let from = records.last().map_or(position.from, |r| r.sequence.next());
        answer["NextShardIterator"] = seal(&Position { from, issued_ms: now_ms, ..position }).into();
    }
    Ok(answer)
}

/// Records from a sequence on, at least one if there is any, and the first that did not fit.
pub(super) fn take(shard: &Shard, from: Sequence, limit: usize, bytes_max: usize) -> (Vec<&Record>, Option<&Record>) {
    let (mut taken, mut bytes) = (Vec::new(), 0);
    for record in shard.records.range(shard.at(from)..) {
        bytes += record.data.len() + record.partition_key.len();
        if taken.len() >= limit || bytes > bytes_max && !taken.is_empty() {
            return (taken, Some(record));
        }
        taken.push(record);
    }
    (taken, None)
}

fn record_json(record: &Record) -> Value {
    json!({
        "SequenceNumber": record.sequence.text(),
        "ApproximateArrivalTimestamp": seconds(record.arrival_ms),
        "Data": BASE64_STANDARD.encode(&record.data),
        "PartitionKey": record.partition_key,
        "EncryptionType": "NONE",
    })
}

fn update_shard_count(streams: &mut Streams, input: &Input<'_>, now_ms: i64) -> Answer<Value> {
    let name = input.stream()?;
    let target = u32::try_from(input.number("TargetShardCount")?.unwrap_or_default()).unwrap_or(0);
    let before = streams.stream(&name)?.open_shards().count();
    streams.rescale(&name, target, now_ms)?;
    Ok(json!({
        "StreamName": name, "StreamARN": arn(&name), "CurrentShardCount": before, "TargetShardCount": target,
    }))
}
