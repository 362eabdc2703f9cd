//! `silt pause` and `silt resume`: stops all commits to a table, or takes them again. Kinesis keeps the records meanwhile.
//!
//! Neighbours: `commit`'s pointer has the state; `ingest` and `compact` refuse before they write.

use serde_json::json;
use siltstone_commit::protocol;
use siltstone_table::{Purpose, driver::drive};

use crate::{
    args::{Named, Place},
    failure::{Done, Failure},
    out::Out,
    place::Warehouse,
};

pub(crate) async fn run(place: &Place, args: Named, paused: bool, out: &mut Out) -> Result<Done, Failure> {
    let warehouse = Warehouse::open(place).await?;
    warehouse.need_pointer(if paused { "pause" } else { "resume" })?;
    let table = warehouse.table(&args.table, Purpose::Read).await?;
    let pointer = drive(protocol::set_paused(&table.context, paused), &table.ports, &table.at).await?;
    let json = json!({"table": args.table, "state": pointer.state.as_str(), "revision": pointer.rev});
    let words = if paused {
        "is paused: nothing is committed until `silt resume`, and its stream keeps the records; watch the retention of the stream"
    } else {
        "takes commits again: the functions go on where they stopped"
    };
    out.object(&json, format!("{} {words}", args.table))?;
    Ok(Done::Well)
}
