//! The `paimon` crate as a peer: one JSON command a line on standard input, one JSON answer a line on standard output.
//!
//! Neighbours: `tests/interop/peers.py` starts it once. Rows travel as Arrow IPC files, so that one piece of Python renders what this crate
//! and pypaimon read. Invariant: 1. nothing is decided here: the crate plans, merges, routes rows to buckets and commits.

use std::{collections::HashMap, error::Error, fs::File, io::BufRead};

use arrow_ipc::{reader::FileReader, writer::FileWriter};
use futures::StreamExt;
use paimon::{
    Catalog, CatalogFactory, Options, Table,
    catalog::Identifier,
    spec::{DataField, DataType, Datum, Predicate, PredicateBuilder},
};
use serde::Deserialize;
use serde_json::{Value as Json, json};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A command; tables are `database.table`.
#[derive(Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
enum Command {
    /// Reads all rows, or those of a filter [column, operator, cell], into an Arrow file; `options` may name a snapshot or a tag.
    Read {
        table: String,
        out: String,
        filter: Option<(String, String, Json)>,
        columns: Option<Vec<String>>,
        options: HashMap<String, String>,
    },
    /// Writes an Arrow file (columns of the table and, unless one of them tells the kind, `_VALUE_KIND`) as one commit.
    Write { table: String, rows: String },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let mut options = Options::new();
    options.set("warehouse", std::env::args().nth(1).ok_or("usage: paimon-peer WAREHOUSE_DIRECTORY < commands")?);
    let catalog = CatalogFactory::create(options).await?;
    for line in std::io::stdin().lock().lines() {
        let answer = match answer(catalog.as_ref(), &line?).await {
            Ok(rows) => json!({"rows": rows}),
            Err(error) => json!({"error": error.to_string()}),
        };
        println!("{answer}");
    }
    Ok(())
}

async fn answer(catalog: &dyn Catalog, line: &str) -> Outcome<usize> {
    match serde_json::from_str(line)? {
        Command::Read { table, out, filter, columns, options } => {
            let table = open(catalog, &table).await?.copy_with_time_travel_strict(options).await?;
            read(&table, &out, filter, columns).await
        }
        Command::Write { table, rows } => write(&open(catalog, &table).await?, &rows).await,
    }
}

async fn open(catalog: &dyn Catalog, name: &str) -> Outcome<Table> {
    let (database, table) = name.split_once('.').ok_or("a table is database.table")?;
    Ok(catalog.get_table(&Identifier::new(database, table)).await?)
}

async fn read(
    table: &Table,
    out: &str,
    filter: Option<(String, String, Json)>,
    columns: Option<Vec<String>>,
) -> Outcome<usize> {
    let mut builder = table.new_read_builder();
    if let Some(columns) = &columns {
        builder.with_projection(&columns.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    if let Some((column, operator, cell)) = filter {
        builder.with_filter(predicate(table.schema().fields(), &column, &operator, &cell)?);
    }
    let plan = builder.new_scan().plan().await?;
    let mut batches = builder.new_read()?.to_arrow(plan.splits())?;
    let (mut writer, mut rows) = (None, 0);
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        rows += batch.num_rows();
        if writer.is_none() {
            writer = Some(FileWriter::try_new(File::create(out)?, &batch.schema())?);
        }
        if let Some(writer) = &mut writer {
            writer.write(&batch)?;
        }
    }
    // No file at all stands for no batch.
    if let Some(mut writer) = writer {
        writer.finish()?;
    }
    Ok(rows)
}

fn predicate(fields: &[DataField], column: &str, operator: &str, cell: &Json) -> Outcome<Predicate> {
    let field = fields.iter().find(|f| f.name() == column).ok_or("no such column")?;
    let whole = || cell.as_i64().ok_or("not a whole number");
    let literal = match field.data_type() {
        DataType::Boolean(_) => Datum::Bool(cell.as_bool().ok_or("not true or false")?),
        DataType::TinyInt(_) => Datum::TinyInt(whole()?.try_into()?),
        DataType::SmallInt(_) => Datum::SmallInt(whole()?.try_into()?),
        DataType::Time(_) => Datum::Time(whole()?.try_into()?),
        DataType::Timestamp(_) | DataType::LocalZonedTimestamp(_) => {
            let nanos: i128 = cell.to_string().parse()?;
            let (millis, nanos) = (nanos.div_euclid(1_000_000).try_into()?, nanos.rem_euclid(1_000_000).try_into()?);
            match field.data_type() {
                DataType::Timestamp(_) => Datum::Timestamp { millis, nanos },
                _ => Datum::LocalZonedTimestamp { millis, nanos },
            }
        }
        DataType::Decimal(decimal) => {
            let digits: String = cell.as_str().ok_or("not text")?.chars().filter(|c| *c != '.').collect();
            Datum::Decimal { unscaled: digits.parse()?, precision: decimal.precision(), scale: decimal.scale() }
        }
        DataType::BigInt(_) => Datum::Long(whole()?),
        DataType::Int(_) => Datum::Int(whole()?.try_into()?),
        DataType::Date(_) => Datum::Date(whole()?.try_into()?),
        DataType::Char(_) | DataType::VarChar(_) => Datum::String(cell.as_str().ok_or("not text")?.to_owned()),
        other => return Err(format!("no literals of {other:?}").into()),
    };
    let builder = PredicateBuilder::new(fields);
    Ok(match operator {
        "=" => builder.equal(column, literal)?,
        ">=" => builder.greater_or_equal(column, literal)?,
        "<" => builder.less_than(column, literal)?,
        other => return Err(format!("no such operator: {other}").into()),
    })
}

async fn write(table: &Table, rows: &str) -> Outcome<usize> {
    let builder = table.new_write_builder();
    let mut write = builder.new_write()?;
    let mut count = 0;
    for batch in FileReader::try_new(File::open(rows)?, None)? {
        let batch = batch?;
        count += batch.num_rows();
        write.write_arrow_batch(&batch).await?;
    }
    let messages = write.prepare_commit().await?;
    builder.new_commit().commit(messages).await?;
    Ok(count)
}
