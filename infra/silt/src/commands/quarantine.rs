//! `silt quarantine`: records that could not become rows, with their place in the stream and the reason.
//!
//! Neighbours: `siltstone_table::quarantine`. `list` shows no contents; `show` does, for the one record that was asked for.

use serde_json::json;
use siltstone_decode::quarantine::QuarantinedRecord;
use siltstone_table::{Purpose, quarantine};

use crate::{
    args::{Place, Quarantine},
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
            let rows: Vec<_> = quarantine::list(&table).await?.iter().map(row).collect();
            out.list(&["POSITION", "ARRIVED (UTC)", "CODE", "COLUMN", "REASON"], &rows, "the quarantine is empty")?;
        }
        Quarantine::Show(args) => {
            let table = warehouse.table(&args.table, Purpose::Read).await?;
            let record = quarantine::find(&table, &args.position).await?;
            let words = words(&record);
            out.object(&serde_json::from_str(&record.to_json_line()).unwrap_or_default(), words)?;
        }
    }
    Ok(Done::Well)
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
