//! `silt quarantine`: records that could not become rows, with their place in the stream and the reason.
//!
//! Neighbours: `siltstone_table::quarantine` and `replay`. `list` and `replay` show no contents; `show` does, for
//! the one record that was asked for.

use serde_json::json;
use siltstone_decode::quarantine::QuarantinedRecord;
use siltstone_table::{
    Purpose,
    quarantine::{self, Quarantine as Records},
    replay::{self, Replayed},
    settings::Feed,
};

use crate::{
    args::{Place, Quarantine, QuarantineReplay},
    commands::feed::decoder_file,
    failure::{Done, Failure},
    out::{self, Out},
    place::Warehouse,
};

pub(crate) async fn run(place: &Place, args: Quarantine, out: &mut Out) -> Result<Done, Failure> {
    let warehouse = Warehouse::open(place).await?;
    warehouse.need_pointer("quarantine")?;
    match args {
        Quarantine::List(args) => {
            let table = warehouse.table(&args.table, Purpose::Read).await?;
            let quarantine = quarantine::read(&table).await?;
            let rows: Vec<_> = quarantine.open().map(row).collect();
            out.list(&HEADER, &rows, "the quarantine is empty")?;
        }
        Quarantine::Show(args) => {
            let table = warehouse.table(&args.table, Purpose::Read).await?;
            let quarantine = quarantine::read(&table).await?;
            show(&quarantine, quarantine.find(&table, &args.position)?, out)?;
        }
        Quarantine::Replay(args) => return replay(&warehouse, args, out).await,
    }
    Ok(Done::Well)
}

const HEADER: [&str; 5] = ["POSITION", "ARRIVED (UTC)", "CODE", "COLUMN", "REASON"];

fn show(quarantine: &Records, record: &QuarantinedRecord, out: &mut Out) -> Result<(), Failure> {
    let replayed = quarantine.replayed.contains(&record.position());
    let mut json: serde_json::Value = serde_json::from_str(&record.to_json_line()).unwrap_or_default();
    json["replayed"] = replayed.into();
    let state = if replayed { "\nstate          replayed: its rows are in the table" } else { "" };
    Ok(out.object(&json, format!("{}{state}", words(record)))?)
}

async fn replay(warehouse: &Warehouse, args: QuarantineReplay, out: &mut Out) -> Result<Done, Failure> {
    let table = warehouse.table(&args.table, Purpose::Write).await?;
    let decoder = match &args.decoder {
        Some(file) => decoder_file(file)?,
        None => Feed::load(&table.ports, &table.at).await?.decoder,
    };
    let bar = out::progress("replaying", None);
    let done = replay::replay(&table, &args.positions, &decoder, args.lateness.ms.max(0)).await?;
    bar.finish_and_clear();
    let rejected: Vec<_> = done.rejected.iter().map(row).collect();
    let json = json!({
        "table": args.table, "replayed": done.records, "rows": done.rows, "before": done.before, "snapshot": done.snapshot, "late": done.late,
        "rejected": rejected.iter().map(|(json, _)| json).collect::<Vec<_>>()});
    out.object(&json, told(&done))?;
    if !rejected.is_empty() && !out.json {
        out.list(&HEADER, &rejected, "")?;
    }
    Ok(if rejected.is_empty() { Done::Well } else { Done::Problems })
}

/// What a replay did, in words.
fn told(done: &Replayed) -> String {
    let into = done.snapshot.map_or_else(String::new, |id| format!(", in snapshot {id}"));
    let mut text = format!("replayed {} records as {} rows{into}", done.records.len(), done.rows);
    if done.before > 0 {
        text += &format!("; {} had been replayed before", done.before);
    }
    if done.late > 0 {
        text += &format!(
            "\n{} of them are older than the lateness: where a delete came after one and was compacted away since, its row is back",
            done.late
        );
    }
    if !done.rejected.is_empty() {
        text += &format!("\n{} are rejected again and stay in quarantine:", done.rejected.len());
    }
    text
}

fn code(record: &QuarantinedRecord) -> String {
    serde_json::to_value(record.reject.code).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn row(record: &QuarantinedRecord) -> (serde_json::Value, Vec<String>) {
    let reject = &record.reject;
    let json = json!({
        "position": record.position(), "arrivalMs": record.arrival_ms, "code": code(record), "column": reject.column,
        "reason": reject.detail, "bytes": record.data.len()});
    let cells = vec![
        record.position(),
        out::time(record.arrival_ms),
        code(record),
        reject.column.clone().unwrap_or_default(),
        reject.detail.clone(),
    ];
    (json, cells)
}

/// One record in full.
pub(crate) fn words(record: &QuarantinedRecord) -> String {
    let column = record.reject.column.as_ref().map_or_else(String::new, |c| format!(", column {c}"));
    format!(
        "position       {}\nstream         {}\narrived        {}\npartition key  {}\nschema         {}\nreason         {}{column}: {}\nraw bytes      {}",
        record.position(),
        record.stream,
        out::time(record.arrival_ms),
        record.partition_key,
        record.schema_id,
        code(record),
        record.reject.detail,
        shown(&record.data),
    )
}

/// Text as it is; what is none, or would move the cursor, escaped.
fn shown(data: &[u8]) -> String {
    match std::str::from_utf8(data) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => data.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_bytes_are_shown_as_text_where_they_are_text() {
        assert_eq!(shown(br#"{"op":"c"}"#), r#"{"op":"c"}"#);
        assert_eq!(shown(b"a\xff\x1b[2J\n"), r"a\xff\x1b[2J\n");
    }
}
