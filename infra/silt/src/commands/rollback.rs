//! `silt rollback`: the content of an older snapshot as a new one. Positions in the stream stay: records between are not read again.
//!
//! Neighbours: `commit`'s rollback protocol.

use serde_json::json;
use siltstone_commit::{
    changes::{ChangeId, Conflict, Outcome},
    protocol::{self, RollbackTarget},
};
use siltstone_format::id::SnapshotId;
use siltstone_table::{Purpose, driver::drive};

use crate::{
    args::{Place, Rollback},
    failure::{Done, Failure},
    out::{self, Out},
    place::Warehouse,
};

pub(crate) async fn run(place: &Place, args: Rollback, out: &mut Out) -> Result<Done, Failure> {
    let warehouse = Warehouse::open(place).await?;
    warehouse.need_pointer("rollback")?;
    let table = warehouse.table(&args.table, Purpose::Write).await?;
    let id = ChangeId(table.ports.ids.uuid().as_u128());
    let target = RollbackTarget::Snapshot(SnapshotId(args.to));
    let rollback = drive(protocol::rollback(&table.context, target, id), &table.ports, &table.at);
    match out::wait_for("rolling back", rollback).await? {
        Outcome::Committed { snapshot, .. } => {
            let now = snapshot.map(|s| s.0);
            let words =
                format!("{} is as it was in snapshot {}, as snapshot {}", args.table, args.to, now.unwrap_or(0));
            out.object(&json!({"table": args.table, "from": args.to, "snapshot": now}), words)?;
            Ok(Done::Well)
        }
        // As every verb that finds the table paused.
        Outcome::Conflict(paused @ Conflict::Paused) => Err(Failure::Unavailable(format!(
            "nothing was changed: {paused}, and `silt resume {}` goes on",
            args.table
        ))),
        Outcome::Conflict(conflict) => Err(Failure::Problem(format!("nothing was changed: {conflict}"))),
        Outcome::Unknown { .. } => Err(Failure::Unavailable(
            "the commit got no answer: look at `silt snapshots` before trying again".to_owned(),
        )),
    }
}
