//! `silt table feed`: what feeds a table, shown and changed; also what `silt table create` needs to set it.
//!
//! Neighbours: `siltstone_table::settings::Feed`. Invariants: 1. a decoder that does not fit the table is refused, and nothing is changed; 2. a
//! table that has taken records of one stream is given no other: streams number their shards and records alike, so that records of the other
//! would be taken for ones that were seen.

use std::{path::Path, time::Duration};

use serde_json::json;
use siltstone_aws::LambdaMappings;
use siltstone_decode::{
    Decoder, DecoderConfig,
    config::{BadRecords, Format as Decoding},
};
use siltstone_format::schema::TableSchema;
use siltstone_store::{
    mapping::EventSourceMappings,
    stream::{StreamAdmin, StreamErrorKind, StreamState},
};
use siltstone_table::{Purpose, Table, TableError, TableRef, settings::Feed};

use crate::{
    args::{Feed as Args, Format},
    failure::{Done, Failure},
    out::{self, Out},
    place::Warehouse,
};

/// How long a local stack takes to see a new table.
const SERVED_WITHIN: Duration = Duration::from_secs(10);

/// When a change is seen by a function that is warm; what [`siltstone_table::settings::IngestLimits`] says.
const SEEN_WITHIN: &str = "a warm `ingest` sees it at most 10 s from now";

impl From<Format> for Decoding {
    fn from(format: Format) -> Self {
        match format {
            Format::Json => Self::Json,
            Format::DebeziumJson => Self::DebeziumJson,
        }
    }
}

pub(crate) async fn run(warehouse: &Warehouse, args: Args, out: &mut Out) -> Result<Done, Failure> {
    warehouse.need_pointer("table feed")?;
    let table = warehouse.table(&args.table, Purpose::Read).await?;
    let before = match Feed::load(&table.ports, &table.at).await {
        Ok(feed) => Some(feed),
        Err(TableError::NotFound(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let asked = args.stream.is_some() || args.format.is_some() || args.op_field.is_some() || args.decoder.is_some();
    if !asked {
        let json = match &before {
            Some(feed) => json!({"table": args.table, "stream": feed.stream_arn, "decoder": config(&feed.decoder)?}),
            None => json!({"table": args.table, "stream": null, "decoder": null}),
        };
        out.object(&json, shown(&args.table, before.as_ref())?)?;
        return Ok(Done::Well);
    }
    let decoder = changed(before.as_ref().map(|feed| feed.decoder.clone()).unwrap_or_default(), &args)?;
    check(&table.schema, &decoder)?;
    let stream_arn = match (&args.stream, &before) {
        (Some(stream), _) => {
            refuse_another(&table, before.as_ref(), stream).await?;
            self::stream_arn(warehouse, stream, args.shards).await?
        }
        (None, Some(feed)) => feed.stream_arn.clone(),
        (None, None) => {
            return Err(Failure::Usage(format!("{} has no stream: name it as well, with --stream", args.table)));
        }
    };
    let feed = Feed { stream_arn, decoder };
    let is_new = before.as_ref() != Some(&feed);
    if is_new {
        feed.save(&table.ports, &table.at).await?;
    }
    if warehouse.served {
        served(warehouse, &table.at, &feed.stream_arn).await?;
    }
    let mut words = shown(&args.table, Some(&feed))?;
    words.push_str(&match (is_new, before.as_ref().is_some_and(|before| before.stream_arn == feed.stream_arn)) {
        (false, _) => "\n\nnothing was changed: it was so before".to_owned(),
        (true, true) => format!("\n\nchanged; {SEEN_WITHIN}"),
        (true, false) if warehouse.local => "\n\nchanged".to_owned(),
        (true, false) => {
            "\n\nchanged; the event source mapping of `ingest` must deliver this stream (infra/cdk)".to_owned()
        }
    });
    if before.is_none() && has_read(&table).await? {
        words.push_str("; the table holds positions of the stream that fed it before: this must be the same one");
    }
    let json = json!({
        "table": args.table, "stream": feed.stream_arn, "decoder": config(&feed.decoder)?, "changed": is_new});
    out.object(&json, words)?;
    Ok(Done::Well)
}

/// A decoder with what the options say in place of what was.
fn changed(before: DecoderConfig, args: &Args) -> Result<DecoderConfig, Failure> {
    if let Some(file) = &args.decoder {
        return decoder_file(file);
    }
    let format = args.format.map_or(before.format, Into::into);
    // Only plain JSON has one: with the format it goes.
    let op_field = before.op_field.filter(|_| format == before.format);
    Ok(DecoderConfig { format, op_field: args.op_field.clone().or(op_field), ..before })
}

/// Refuses the stream of a table that has read of another one.
async fn refuse_another(table: &Table, before: Option<&Feed>, stream: &str) -> Result<(), Failure> {
    let Some(before) = before.filter(|feed| feed.stream_arn.rsplit('/').next() != Some(stream)) else { return Ok(()) };
    if !has_read(table).await? {
        return Ok(());
    }
    let name = &table.at.name;
    Err(Failure::Usage(format!(
        "{name} has taken records of {}, and another stream numbers its shards and records anew: some of them would be taken for records that \
         were seen, and skipped. Make a table of its own for stream {stream}, or drop {name} and create it again",
        before.stream_arn
    )))
}

/// Whether the table has taken records of a stream.
async fn has_read(table: &Table) -> Result<bool, Failure> {
    let checkpoints = table.pointer().await?.checkpoints;
    Ok(checkpoints.recent().next().is_some() || checkpoints.packed_object().is_some())
}

/// A feed as people read it.
fn shown(name: &str, feed: Option<&Feed>) -> Result<String, Failure> {
    let Some(feed) = feed else {
        return Ok(format!("{name} has no stream: `silt table feed {name} --stream NAME` sets one"));
    };
    let decoder = serde_json::to_string_pretty(&config(&feed.decoder)?).map_err(|e| Failure::Problem(e.to_string()))?;
    let rows = [
        vec!["stream".to_owned(), feed.stream_arn.clone()],
        vec!["bad records".to_owned(), bad_records(feed.decoder.bad_records).to_owned()],
    ];
    Ok(format!("{}\n\ndecoder\n{decoder}", out::table(&[name, ""], &rows)))
}

/// What becomes of records that cannot be taken.
fn bad_records(policy: BadRecords) -> &'static str {
    match policy {
        BadRecords::Quarantine => "go to quarantine (silt quarantine list)",
        BadRecords::Fail => "stop their shard until the decoder is mended",
    }
}

fn config(decoder: &DecoderConfig) -> Result<serde_json::Value, Failure> {
    serde_json::to_value(decoder).map_err(|e| Failure::Problem(e.to_string()))
}

/// Refuses a decoder that does not fit.
pub(crate) fn check(schema: &TableSchema, decoder: &DecoderConfig) -> Result<(), Failure> {
    if decoder.op_field.as_deref().is_some_and(|name| name.trim().is_empty()) {
        return Err(Failure::Usage(
            "the field that holds the operation has no name: name it (--op-field op), or leave it out where every record is an upsert".to_owned(),
        ));
    }
    Decoder::new(schema, decoder).map(drop).map_err(|faults| {
        let words: Vec<String> = faults.iter().map(ToString::to_string).collect();
        Failure::Usage(format!("the decoder does not fit the table: {}", words.join("; ")))
    })
}

/// A decoder configuration that a file holds.
pub(crate) fn decoder_file(file: &Path) -> Result<DecoderConfig, Failure> {
    let fault = |e: String| Failure::Usage(format!("--decoder {}: {e}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|e| fault(e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| fault(e.to_string()))
}

/// The ARN of a stream; created in a local stack when missing.
pub(crate) async fn stream_arn(warehouse: &Warehouse, stream: &str, shards: u32) -> Result<String, Failure> {
    let streams = warehouse.streams()?;
    let found = match streams.describe(stream).await {
        Err(error) if error.kind() == StreamErrorKind::NotFound && warehouse.local => {
            streams.create(stream, shards).await?;
            streams.describe(stream).await?
        }
        Err(error) if error.kind() == StreamErrorKind::NotFound => {
            return Err(Failure::Problem(format!("there is no stream {stream}: create it first (`infra/` shows how)")));
        }
        found => found?,
    };
    let mut found = found;
    while found.state == StreamState::Creating {
        tokio::time::sleep(Duration::from_millis(100)).await;
        found = streams.describe(stream).await?;
    }
    Ok(found.arn)
}

/// Waits until the running stack delivers the stream to the table's function.
pub(crate) async fn served(warehouse: &Warehouse, at: &TableRef, stream_arn: &str) -> Result<(), Failure> {
    let Some(clients) = &warehouse.clients else { return Ok(()) };
    let mappings = LambdaMappings::new(clients.lambda.clone());
    let function = format!("{}-{}-ingest", at.name.database, at.name.table);
    let waiting = async {
        loop {
            let seen = mappings.kinesis_mappings(&function).await.unwrap_or_default();
            if seen.iter().any(|m| m.stream_arn == stream_arn) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(SERVED_WITHIN, waiting).await.map_err(|_| {
        Failure::Unavailable(format!("{} was created, but the running stack does not serve it yet", at.name))
    })
}
