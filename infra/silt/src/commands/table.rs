//! `silt table create|describe|list|drop`.
//!
//! Neighbours: `siltstone_table::catalog`. A decoder that does not fit is refused before anything is created.

use std::{collections::BTreeMap, io::IsTerminal, path::Path, time::Duration};

use serde_json::json;
use siltstone_aws::LambdaMappings;
use siltstone_commit::checkpoint::Checkpoint;
use siltstone_decode::{Decoder, DecoderConfig, config::Format as Decoding};
use siltstone_format::options::TableOptions;
use siltstone_store::{
    mapping::EventSourceMappings,
    stream::{StreamAdmin, StreamErrorKind, StreamState},
};
use siltstone_table::{
    Purpose, TableError, TableRef,
    catalog::{self, NewTable},
    settings::Feed,
};

use crate::{
    args::{Create, Drop, Format, Named, Place, Table as Args},
    failure::{Done, Failure},
    out::{self, Out},
    place::Warehouse,
};

/// How long a local stack takes to see a new table.
const SERVED_WITHIN: Duration = Duration::from_secs(10);

pub(crate) async fn run(place: &Place, args: Args, out: &mut Out) -> Result<Done, Failure> {
    let warehouse = Warehouse::open(place).await?;
    match args {
        Args::Create(args) => create(&warehouse, args, out).await,
        Args::Describe(args) => describe(&warehouse, args, out).await,
        Args::List => {
            let names = catalog::list(&warehouse.ports, warehouse.prefix()).await?;
            let rows: Vec<_> = names.iter().map(|n| (json!({"table": n.to_string()}), vec![n.to_string()])).collect();
            out.list(&["TABLE"], &rows, "no tables")?;
            Ok(Done::Well)
        }
        Args::Drop(args) => remove(&warehouse, args, out).await,
    }
}

/// The table that the options describe.
fn new_table(args: &Create) -> Result<NewTable, Failure> {
    let mut columns = Vec::new();
    for text in &args.columns {
        let (name, data_type) = text.trim().split_once(char::is_whitespace).ok_or_else(|| {
            Failure::Usage(format!("--column '{text}': write NAME TYPE, as in --column 'id BIGINT NOT NULL'"))
        })?;
        columns.push((name.to_owned(), data_type.trim().to_owned()));
    }
    let mut options = BTreeMap::new();
    for text in &args.options {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| Failure::Usage(format!("--option '{text}': write KEY=VALUE, as in --option bucket=4")))?;
        let (key, value) = (key.trim(), value.trim());
        let instead = match key {
            "" => Some("write KEY=VALUE, as in --option bucket=4"),
            "primary-key" => Some("use --primary-key"),
            "partition" => Some("use --partition-by"),
            "path" => Some("the warehouse and the table's name say where it is"),
            _ => None,
        };
        if let Some(instead) = instead {
            return Err(Failure::Usage(format!("--option '{text}': {instead}")));
        }
        if options.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(Failure::Usage(format!("--option {key} is given twice")));
        }
    }
    options.entry("bucket".to_owned()).or_insert_with(|| "1".to_owned());
    Ok(NewTable {
        columns,
        partition_keys: args.partition_by.clone(),
        primary_keys: args.primary_key.clone(),
        options,
        comment: args.comment.clone(),
    })
}

fn decoder(args: &Create) -> Result<DecoderConfig, Failure> {
    let Some(file) = &args.decoder else {
        let format = match args.format {
            Format::Json => Decoding::Json,
            Format::DebeziumJson => Decoding::DebeziumJson,
        };
        return Ok(DecoderConfig { format, op_field: args.op_field.clone(), ..DecoderConfig::default() });
    };
    decoder_file(file)
}

/// A decoder configuration that a file holds.
pub(crate) fn decoder_file(file: &Path) -> Result<DecoderConfig, Failure> {
    let fault = |e: String| Failure::Usage(format!("--decoder {}: {e}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|e| fault(e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| fault(e.to_string()))
}

async fn create(warehouse: &Warehouse, args: Create, out: &mut Out) -> Result<Done, Failure> {
    warehouse.need_pointer("table create")?;
    let at = warehouse.at(&args.table)?;
    let (table, decoder) = (new_table(&args)?, decoder(&args)?);
    let schema = table.schema(warehouse.ports.clock.now_ms())?;
    Decoder::new(&schema, &decoder).map_err(|faults| {
        let words: Vec<String> = faults.iter().map(ToString::to_string).collect();
        Failure::Usage(format!("the decoder does not fit the table: {}", words.join("; ")))
    })?;
    for warning in TableOptions::for_purpose(&schema, Purpose::Write).map_err(TableError::from)?.warnings {
        out.say(format!("warning: {warning}"))?;
    }
    // The table first: one that is there already is refused before its stream is made. What stops after it is finished by the same command.
    catalog::create(&warehouse.ports, &at, &table).await?;
    let arn = match &args.stream {
        Some(stream) => Some(stream_arn(warehouse, stream, args.shards).await?),
        None => None,
    };
    if let Some(stream_arn) = &arn {
        Feed { stream_arn: stream_arn.clone(), decoder }.save(&warehouse.ports, &at).await?;
        if warehouse.served {
            served(warehouse, &at, stream_arn).await?;
        }
    }
    let location = warehouse.location(&at);
    let words = match &args.stream {
        Some(stream) => format!("created {} at {location}, fed by stream {stream}", at.name),
        None => format!("created {} at {location}", at.name),
    };
    out.object(&json!({"table": args.table, "location": location, "stream": arn}), words)?;
    Ok(Done::Well)
}

/// The ARN of a stream; created in a local stack when missing.
async fn stream_arn(warehouse: &Warehouse, stream: &str, shards: u32) -> Result<String, Failure> {
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
async fn served(warehouse: &Warehouse, at: &TableRef, stream_arn: &str) -> Result<(), Failure> {
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

async fn describe(warehouse: &Warehouse, args: Named, out: &mut Out) -> Result<Done, Failure> {
    let table = warehouse.table(&args.table, Purpose::Read).await?;
    let schema = &table.schema;
    let feed = match warehouse.need_pointer("") {
        Ok(()) => Feed::load(&table.ports, &table.at).await.ok(),
        Err(_) => None,
    };
    let pointer = match warehouse.need_pointer("") {
        Ok(()) => Some(table.pointer().await?),
        Err(_) => None,
    };
    let snapshot = table.current().await?;
    let shards: BTreeMap<String, String> = pointer.as_ref().map_or_else(BTreeMap::new, |p| {
        let place = |c: &Checkpoint| c.position.to_string();
        p.checkpoints.recent().map(|(shard, c)| (shard.to_string(), place(c))).collect()
    });
    let columns: Vec<serde_json::Value> =
        schema.fields.iter().map(|f| json!({"id": f.id, "name": f.name, "type": f.data_type.to_string()})).collect();
    let location = warehouse.location(&table.at);
    let json = json!({
        "table": args.table, "location": location, "schemaId": schema.id.0, "columns": columns,
        "partitionKeys": schema.partition_keys, "primaryKeys": schema.primary_keys, "options": schema.options,
        "comment": schema.comment, "stream": feed.as_ref().map(|f| f.stream_arn.clone()),
        "decoder": feed.as_ref().and_then(|f| serde_json::to_value(&f.decoder).ok()),
        "state": pointer.as_ref().map(|p| p.state.as_str()), "revision": pointer.as_ref().map(|p| p.rev),
        "snapshot": snapshot.as_ref().map(|s| s.id.0), "totalRecords": snapshot.as_ref().and_then(|s| s.total_record_count),
        "checkpoints": shards});
    let mut lines = vec![
        vec!["location".to_owned(), location],
        vec!["primary key".to_owned(), schema.primary_keys.join(", ")],
        vec!["partitioned by".to_owned(), schema.partition_keys.join(", ")],
        vec!["stream".to_owned(), feed.map_or_else(|| "none".to_owned(), |f| f.stream_arn)],
    ];
    if let Some(pointer) = &pointer {
        lines.push(vec!["state".to_owned(), format!("{}, revision {}", pointer.state.as_str(), pointer.rev)]);
    }
    let current = snapshot.map_or_else(|| "none".to_owned(), |s| format!("{} of {}", s.id.0, out::time(s.time_millis)));
    lines.push(vec!["snapshot".to_owned(), current]);
    lines.extend(schema.options.iter().map(|(k, v)| vec![format!("option {k}"), v.clone()]));
    lines.extend(shards.iter().map(|(shard, at)| vec![format!("read {shard}"), at.clone()]));
    let columns: Vec<Vec<String>> =
        schema.fields.iter().map(|f| vec![f.id.to_string(), f.name.clone(), f.data_type.to_string()]).collect();
    let words =
        format!("{}\n\n{}", out::table(&[&args.table, ""], &lines), out::table(&["ID", "COLUMN", "TYPE"], &columns));
    out.object(&json, words)?;
    Ok(Done::Well)
}

async fn remove(warehouse: &Warehouse, args: Drop, out: &mut Out) -> Result<Done, Failure> {
    warehouse.need_pointer("table drop")?;
    let at = warehouse.at(&args.table)?;
    if !args.yes {
        if out.json || !std::io::stdin().is_terminal() {
            return Err(Failure::Usage("dropping a table cannot be undone: add --yes".to_owned()));
        }
        let what = if args.purge { "and delete all of its objects" } else { "(its objects stay)" };
        out.line(format!("drop {} {what}? type its name to go on", args.table))?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if answer.trim() != args.table {
            return Err(Failure::Problem("nothing was dropped".to_owned()));
        }
    }
    let deleted = catalog::drop(&warehouse.ports, &at, args.purge).await?;
    let words = format!("dropped {}; {deleted} objects deleted", args.table);
    out.object(&json!({"table": args.table, "deletedObjects": deleted}), words)?;
    Ok(Done::Well)
}

#[cfg(test)]
mod tests {
    use siltstone_local::{Stack, StackConfig};

    use super::*;
    use crate::args::{Cli, Verb};

    #[tokio::test]
    async fn a_table_that_is_there_is_refused_before_its_stream_is_made() {
        let dir = tempfile::tempdir().unwrap();
        Stack::start(StackConfig { dir: Some(dir.path().to_owned()), port: 0 }).await.unwrap().shutdown().await;
        let create_with = |stream: &str| -> Cli {
            let fixed = ["table", "create", "k.t", "--column", "id BIGINT", "--primary-key", "id", "--stream", stream];
            let place = ["silt".into(), "--local".into(), dir.path().into()];
            clap::Parser::try_parse_from(place.into_iter().chain(fixed.map(std::ffi::OsString::from))).unwrap()
        };
        let first = create_with("s1");
        let warehouse = Warehouse::open(&first.place).await.unwrap();
        for (cli, refused) in [(first, false), (create_with("s2"), true)] {
            let Verb::Table(Args::Create(args)) = cli.verb else { panic!("parsed as something else") };
            let ended = create(&warehouse, args, &mut Out::new(false)).await;
            assert_eq!(ended.is_err_and(|e| e.to_string().contains("exists already")), refused);
        }
        let streams = warehouse.streams().unwrap();
        assert!(streams.describe("s1").await.is_ok());
        assert_eq!(streams.describe("s2").await.unwrap_err().kind(), StreamErrorKind::NotFound);
    }
}
