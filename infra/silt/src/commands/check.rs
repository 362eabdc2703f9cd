//! `silt check`: pointer, snapshots, manifests, files and checkpoints, and the event source mapping as `maintain` saw it.
//!
//! Neighbours: `commit`'s check protocol. It reads only. Exit code 1 when something needs somebody.

use serde_json::json;
use siltstone_commit::protocol::{self, Severity};
use siltstone_table::{Authority, Purpose, TableError, driver::drive, maintain, settings::Feed};

use crate::{
    args::{Named, Place},
    failure::{Done, Failure},
    out::Out,
    place::Warehouse,
};

pub(crate) async fn run(place: &Place, args: Named, out: &mut Out) -> Result<Done, Failure> {
    let warehouse = Warehouse::open(place).await?;
    let table = warehouse.table(&args.table, Purpose::Read).await?;
    let checked = drive(protocol::check(&table.context), &table.ports, &table.at).await?;
    let mut problems = 0u64;
    for finding in &checked.findings {
        problems += u64::from(finding.severity == Severity::Error);
        let severity = if finding.severity == Severity::Error { "error" } else { "note" };
        out.object(&json!({"severity": severity, "object": finding.object, "message": finding.message}), finding)?;
    }
    if warehouse.authority == Authority::Pointer
        && let Ok(feed) = Feed::load(&table.ports, &table.at).await
        && let Err(error) = maintain::require_mapping(&table.ports, &table.at, &feed.stream_arn).await
    {
        if !matches!(error, TableError::Invalid(_)) {
            return Err(error.into());
        }
        problems += 1;
        let json = json!({"severity": "error", "object": "event source mapping", "message": error.to_string()});
        out.object(&json, format!("error: event source mapping: {error}"))?;
    }
    let words = format!(
        "{}: {} snapshots, {} manifests, {} live files; {} problems",
        args.table, checked.snapshots, checked.manifests, checked.live_files, problems
    );
    let json = json!({
        "table": args.table, "snapshots": checked.snapshots, "manifests": checked.manifests, "liveFiles": checked.live_files,
        "findings": checked.findings.len(), "problems": problems});
    out.object(&json, words)?;
    Ok(if problems == 0 { Done::Well } else { Done::Problems })
}
