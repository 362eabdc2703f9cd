//! `silt snapshots`: what was committed, when, and by what kind of change.
//!
//! Neighbours: `siltstone_table::state`.

use serde_json::json;
use siltstone_table::{Purpose, state};

use crate::{
    args::{Named, Place},
    failure::{Done, Failure},
    out::{self, Out},
    place::Warehouse,
};

pub(crate) async fn run(place: &Place, args: Named, out: &mut Out) -> Result<Done, Failure> {
    let warehouse = Warehouse::open(place).await?;
    let table = warehouse.table(&args.table, Purpose::Read).await?;
    let ids = state::snapshot_ids(&table).await?;
    let bar = out::progress("snapshots", Some(ids.len() as u64));
    let mut rows = Vec::new();
    for id in ids {
        let snapshot = state::read_snapshot(&table, id).await?;
        bar.inc(1);
        let kind = format!("{:?}", snapshot.commit_kind).to_uppercase();
        let number = |n: Option<i64>| n.map_or_else(String::new, |n| n.to_string());
        rows.push((
            json!({
                "id": id.0, "kind": kind, "time": out::time(snapshot.time_millis), "timeMillis": snapshot.time_millis,
                "schemaId": snapshot.schema_id.0, "user": snapshot.commit_user, "totalRecords": snapshot.total_record_count,
                "deltaRecords": snapshot.delta_record_count, "changelogRecords": snapshot.changelog_record_count}),
            vec![
                id.0.to_string(),
                kind,
                out::time(snapshot.time_millis),
                number(snapshot.delta_record_count),
                number(snapshot.changelog_record_count),
                number(snapshot.total_record_count),
                snapshot.commit_user,
            ],
        ));
    }
    bar.finish_and_clear();
    let header = ["ID", "KIND", "TIME (UTC)", "DELTA ROWS", "CHANGELOG ROWS", "TOTAL ROWS", "USER"];
    out.list(&header, &rows, "no snapshots: nothing was committed yet")?;
    Ok(Done::Well)
}
