//! `silt table create|describe|list|drop`; `feed` has a module of its own.
//!
//! Neighbours: `siltstone_table::catalog`. A decoder that does not fit is refused before anything is created.

use std::{collections::BTreeMap, io::IsTerminal};

use serde_json::json;
use siltstone_commit::checkpoint::Checkpoint;
use siltstone_decode::DecoderConfig;
use siltstone_format::options::{TableOptions, names};
use siltstone_table::{
    Authority, Purpose, TableError,
    catalog::{self, NewTable, Standing},
    settings::Feed,
};

use super::feed;
use crate::{
    args::{Create, Drop, Named, Place, Table as Args},
    failure::{Done, Failure},
    out::{self, Out},
    place::Warehouse,
};

pub(crate) async fn run(place: &Place, args: Args, out: &mut Out) -> Result<Done, Failure> {
    let warehouse = Warehouse::open(place).await?;
    match args {
        Args::Create(args) => create(&warehouse, args, out).await,
        Args::Describe(args) => describe(&warehouse, args, out).await,
        Args::List => list(&warehouse, out).await,
        Args::Feed(args) => feed::run(&warehouse, args, out).await,
        Args::Drop(args) => remove(&warehouse, args, out).await,
    }
}

/// Names alone of a bare warehouse; elsewhere also the state of each, and of what lies there without a pointer that it is no table (any more).
async fn list(warehouse: &Warehouse, out: &mut Out) -> Result<Done, Failure> {
    let names = catalog::list(&warehouse.ports, warehouse.prefix()).await?;
    if warehouse.authority == Authority::Bare {
        let rows: Vec<_> = names.iter().map(|n| (json!({"table": n.to_string()}), vec![n.to_string()])).collect();
        out.list(&["TABLE"], &rows, "no tables")?;
        return Ok(Done::Well);
    }
    let states = catalog::standings(&warehouse.ports, warehouse.prefix(), names).await?;
    let rows = states.into_iter().map(|(name, standing)| {
        let json = json!({"table": name.to_string(), "state": standing.as_str()});
        let words = match standing {
            Standing::NoPointer => format!("no pointer: dropped, or never under one (`silt repair {name}`)"),
            Standing::Unreadable => format!("its pointer cannot be read (`silt check {name}`)"),
            Standing::Table(state) => state.as_str().to_owned(),
        };
        (json, vec![name.to_string(), words])
    });
    out.list(&["TABLE", "STATE"], &rows.collect::<Vec<_>>(), "no tables")?;
    Ok(Done::Well)
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
    let given = args.options.iter().map(|text| (text, true)).chain(args.other_options.iter().map(|text| (text, false)));
    for (text, ours) in given {
        let (key, value) = option(text, ours)?;
        if options.insert(key.clone(), value).is_some() {
            return Err(Failure::Usage(format!("the option {key} is given twice")));
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
        return Ok(DecoderConfig {
            format: args.format.into(),
            op_field: args.op_field.clone(),
            ..DecoderConfig::default()
        });
    };
    feed::decoder_file(file)
}

/// Name and value of an option. One of ours must have a name that is known, so that a mistyped one is not kept and never read.
fn option(text: &str, ours: bool) -> Result<(String, String), Failure> {
    let flag = if ours { "--option" } else { "--other-option" };
    let fault = |words: String| Err(Failure::Usage(format!("{flag} '{text}': {words}")));
    let Some((key, value)) = text.split_once('=').map(|(key, value)| (key.trim(), value.trim())) else {
        return fault(format!("write KEY=VALUE, as in {flag} bucket=4"));
    };
    let instead = match key {
        "" => Some("write KEY=VALUE, as in --option bucket=4"),
        "primary-key" => Some("use --primary-key"),
        "partition" => Some("use --partition-by"),
        "path" => Some("the warehouse and the table's name say where it is"),
        _ => None,
    };
    if let Some(instead) = instead {
        return fault(instead.to_owned());
    }
    match (ours, names::is_known(key)) {
        (true, true) | (false, false) => Ok((key.to_owned(), value.to_owned())),
        (false, true) => fault(format!("Siltstone knows {key}: write --option {key}={value}")),
        (true, false) => {
            let meant = names::nearest(key).map_or_else(String::new, |near| format!(" Did you mean {near}?"));
            fault(format!(
                "Siltstone knows no option {key}.{meant} One that only other engines read is kept by --other-option {key}={value}"
            ))
        }
    }
}

async fn create(warehouse: &Warehouse, args: Create, out: &mut Out) -> Result<Done, Failure> {
    warehouse.need_pointer("table create")?;
    let at = warehouse.at(&args.table)?;
    let (table, decoder) = (new_table(&args)?, decoder(&args)?);
    let schema = table.schema(warehouse.ports.clock.now_ms())?;
    feed::check(&schema, &decoder)?;
    for warning in TableOptions::for_purpose(&schema, Purpose::Write).map_err(TableError::from)?.warnings {
        out.say(format!("warning: {warning}"))?;
    }
    // The table first: one that is there already is refused before its stream is made. What stops after it is finished by the same command.
    catalog::create(&warehouse.ports, &at, &table).await?;
    let arn = match &args.stream {
        Some(stream) => Some(feed::stream_arn(warehouse, stream, args.shards).await?),
        None => None,
    };
    if let Some(stream_arn) = &arn {
        Feed { stream_arn: stream_arn.clone(), decoder }.save(&warehouse.ports, &at).await?;
        if warehouse.served {
            feed::served(warehouse, &at, stream_arn).await?;
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
        "optionsNotKnown": names::unknown(&schema.options).collect::<Vec<_>>(),
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
    lines.extend(schema.options.iter().map(|(k, v)| {
        let known =
            if names::is_known(k) { "" } else { " (not known to Siltstone, which keeps it and does nothing with it)" };
        vec![format!("option {k}"), format!("{v}{known}")]
    }));
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
    let (name, location) = (&args.table, warehouse.location(&at));
    let words = if args.purge {
        format!("dropped {name}; {deleted} objects deleted")
    } else {
        format!(
            "dropped {name}; its objects stay at {location}: `silt table drop {name} --purge` deletes them, `silt repair {name} --yes` makes them a table again"
        )
    };
    out.object(&json!({"table": name, "location": location, "deletedObjects": deleted}), words)?;
    Ok(Done::Well)
}

#[cfg(test)]
mod tests {
    use siltstone_local::{Stack, StackConfig};
    use siltstone_store::stream::{StreamAdmin, StreamErrorKind};

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
