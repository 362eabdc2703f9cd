//! `silt repair`: says what is wrong between pointer and snapshots, and with `--yes` mends it.
//!
//! Neighbours: `siltstone_table::repair`.

use serde_json::json;
use siltstone_table::{
    TableError,
    repair::{self, Plan},
    settings::Feed,
};

use crate::{
    args::{Place, Repair},
    failure::{Done, Failure},
    out::Out,
    place::Warehouse,
};

pub(crate) async fn run(place: &Place, args: Repair, out: &mut Out) -> Result<Done, Failure> {
    let warehouse = Warehouse::open(place).await?;
    warehouse.need_pointer("repair")?;
    let (table, plan) = repair::plan(&warehouse.ports, &warehouse.at(&args.table)?).await?;
    let (name, words) = match plan {
        Plan::Settle => {
            ("settle", "pointer and snapshots agree; a snapshot that is not published yet is published".to_owned())
        }
        Plan::MakePointer(id) => (
            "make-pointer",
            format!("there is no pointer: one is made over snapshot {id}, with the stream positions that it holds"),
        ),
        Plan::RollForward(id) => {
            ("roll-forward", format!("the pointer is behind: it is rolled forward to snapshot {id}, the newest on S3"))
        }
        Plan::EndFork(id) => (
            "end-fork",
            format!(
                "another engine put its snapshot {id} in place of ours: it stays, and our commit is applied again on top of it"
            ),
        ),
    };
    if !args.yes {
        out.object(&json!({"table": args.table, "plan": name, "done": false}), format!("{words}; --yes does it"))?;
        return Ok(if plan == Plan::Settle { Done::Well } else { Done::Problems });
    }
    let pointer = repair::run(&table, plan).await?;
    let fed = !matches!(Feed::load(&warehouse.ports, &table.at).await, Err(TableError::NotFound(_)));
    let json = json!({
        "table": args.table, "plan": name, "done": true, "snapshot": pointer.version().0, "revision": pointer.rev,
        "state": pointer.state.as_str()});
    let now =
        format!("{words}; done: snapshot {}, revision {}, {}", pointer.version(), pointer.rev, pointer.state.as_str());
    let fed = if fed {
        String::new()
    } else {
        format!("; no stream feeds it: `silt table feed {} --stream NAME` sets one", args.table)
    };
    out.object(&json, now + &fed)?;
    Ok(Done::Well)
}
