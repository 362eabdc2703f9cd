//! `silt check`: pointer, snapshots, manifests, files and checkpoints, and the event source mapping as `maintain` saw it; with `--deep`
//! also the rows of every file.
//!
//! Neighbours: `siltstone_table::check`. It reads only. Exit code 1 when something needs somebody.

use serde_json::json;
use siltstone_commit::protocol::{Finding, Severity};
use siltstone_table::{Authority, Purpose, TableError, check, maintain, settings::Feed};

use crate::{
    args::{Check, Place},
    failure::{Done, Failure},
    out::{self, Out},
    place::Warehouse,
};

pub(crate) async fn run(place: &Place, args: Check, out: &mut Out) -> Result<Done, Failure> {
    let warehouse = Warehouse::open(place).await?;
    let table = warehouse.table(&args.table, Purpose::Read).await?;
    let checked = out::wait_for("reading manifests", check::check(&table)).await?;
    let mut findings = checked.findings.clone();
    for finding in &findings {
        tell(finding, out)?;
    }
    let deep = if args.deep {
        let files = checked.files.values();
        let bar = out::progress("bytes", Some(files.map(|f| u64::try_from(f.entry.file.file_size).unwrap_or(0)).sum()));
        let deep = check::deep(&table, &checked, |bytes| bar.inc(bytes)).await?;
        bar.finish_and_clear();
        for finding in &deep.findings {
            tell(finding, out)?;
        }
        findings.extend(deep.findings.iter().cloned());
        Some(deep)
    } else {
        None
    };
    if warehouse.authority == Authority::Pointer
        && let Ok(feed) = Feed::load(&table.ports, &table.at).await
        && let Err(error) = maintain::require_mapping(&table.ports, &table.at, &feed.stream_arn).await
    {
        if !matches!(error, TableError::Invalid(_)) {
            return Err(error.into());
        }
        let object = "event source mapping".to_owned();
        let finding = Finding { severity: Severity::Error, object, message: error.to_string() };
        tell(&finding, out)?;
        findings.push(finding);
    }
    let problems = findings.iter().filter(|f| f.severity == Severity::Error).count();
    let read = deep.as_ref().map_or_else(String::new, |deep| {
        format!(", {} files of {} and {} rows read", deep.files, out::bytes(deep.bytes), deep.rows)
    });
    let words = format!(
        "{}: {} snapshots, {} manifests, {} live files{read}; {problems} problems",
        args.table, checked.snapshots, checked.manifests, checked.live_files
    );
    let mut json = json!({
        "table": args.table, "snapshots": checked.snapshots, "manifests": checked.manifests, "liveFiles": checked.live_files,
        "findings": findings.len(), "problems": problems});
    if let (Some(deep), Some(json)) = (deep, json.as_object_mut()) {
        json.insert("filesRead".to_owned(), deep.files.into());
        json.insert("rowsRead".to_owned(), deep.rows.into());
        json.insert("bytesRead".to_owned(), deep.bytes.into());
    }
    out.object(&json, words)?;
    Ok(if problems == 0 { Done::Well } else { Done::Problems })
}

fn tell(finding: &Finding, out: &mut Out) -> std::io::Result<()> {
    let severity = if finding.severity == Severity::Error { "error" } else { "note" };
    out.object(&json!({"severity": severity, "object": finding.object, "message": finding.message}), finding)
}
