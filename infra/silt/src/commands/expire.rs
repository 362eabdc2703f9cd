//! `silt expire`: removes snapshots by the table's `snapshot.*` options, and on request files that nothing names.
//!
//! Neighbours: `siltstone_table::maintain`.

use serde_json::json;
use siltstone_table::{Purpose, maintain};

use crate::{
    args::{Expire, Place},
    failure::{Done, Failure},
    out::{self, Out},
    place::Warehouse,
};

pub(crate) async fn run(place: &Place, args: Expire, out: &mut Out) -> Result<Done, Failure> {
    let warehouse = Warehouse::open(place).await?;
    warehouse.need_pointer("expire")?;
    let table = warehouse.table(&args.table, Purpose::Expire).await?;
    if !args.dry_run {
        let expired = out::wait_for("expiring snapshots", maintain::expire(&table)).await?;
        let ids: Vec<i64> = expired.snapshots.iter().map(|id| id.0).collect();
        let json = json!({"expired": ids, "deletedObjects": expired.keys.len(), "earliest": expired.earliest.0});
        let words = format!(
            "{} snapshots expired, {} objects deleted; the earliest snapshot is {}",
            ids.len(),
            expired.keys.len(),
            expired.earliest.0
        );
        out.object(&json, words)?;
    }
    if args.orphans {
        let dry_run = args.dry_run;
        let swept = out::wait_for("looking for orphans", maintain::sweep(&table, dry_run)).await?;
        let json = json!({"orphans": swept.keys, "orphanBytes": swept.bytes, "seen": swept.seen, "deleted": !dry_run});
        let done = if dry_run { "would be deleted" } else { "deleted" };
        let words =
            format!("{} orphans, {}, {done} ({} objects seen)", swept.keys.len(), out::bytes(swept.bytes), swept.seen);
        out.object(&json, words)?;
    }
    Ok(Done::Well)
}
