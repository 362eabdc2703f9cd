//! `silt compact`: compacts buckets of a table from here, with what the functions use.
//!
//! Neighbours: `siltstone_table::compact`. On a bare warehouse this is a dedicated compactor for tables of any engine.

use serde_json::json;
use siltstone_table::{
    Authority, ErrorKind, Purpose,
    compact::{self, CompactRequest, Compacted},
    settings::CompactLimits,
};

use crate::{
    args::{Compact, Place},
    failure::{Done, Failure},
    out::{self, Out},
    place::{BARE, Warehouse},
};

const HEADER: [&str; 7] = ["PARTITION", "BUCKET", "REASON", "FILES", "ROWS", "BYTES", "TIME"];

pub(crate) async fn run(place: &Place, args: Compact, out: &mut Out) -> Result<Done, Failure> {
    let warehouse = Warehouse::open(place).await?;
    if warehouse.authority == Authority::Bare && !out.json {
        out.say(format!("note: {BARE}"))?;
    }
    let table = warehouse.table(&args.table, Purpose::Compact).await?;
    let request = if args.full { CompactRequest::Full } else { CompactRequest::Picked };
    let limits = CompactLimits { memory_bytes: args.memory << 20, ..CompactLimits::default() };
    let mut buckets = compact::buckets(&table).await?;
    let unknown: Vec<String> = args
        .buckets
        .iter()
        .filter(|wanted| !buckets.iter().any(|(_, bucket, _)| bucket.0 == **wanted))
        .map(ToString::to_string)
        .collect();
    if !unknown.is_empty() {
        return Err(Failure::Usage(format!("{} has no files in bucket {}", args.table, unknown.join(", "))));
    }
    buckets.retain(|(_, bucket, _)| args.buckets.is_empty() || args.buckets.contains(&bucket.0));
    let bar = out::progress("buckets", Some(buckets.len() as u64));
    let (mut rows, mut problems) = (Vec::new(), 0);
    for (partition, bucket, runs) in buckets {
        let path = table.partition_path(&table.partition_values(&partition)?)?;
        let started = table.ports.clock.now_ms();
        let done = compact::compact_bucket(&table, &partition, bucket, request, &limits, i64::MAX).await;
        let millis = table.ports.clock.now_ms() - started;
        bar.inc(1);
        let done = match done {
            Ok(done) => done,
            // A service that does not answer would not answer for the next bucket either.
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                bar.finish_and_clear();
                out.list(&HEADER, &rows, "nothing was compacted before this")?;
                return Err(error.into());
            }
            Err(error) => {
                problems += 1;
                let words = format!("this bucket is unchanged: {error}");
                let json = json!({"partition": path, "bucket": bucket.0, "error": words});
                rows.push((json, vec![path, bucket.0.to_string(), words]));
                continue;
            }
        };
        match done {
            Compacted::Nothing => {}
            Compacted::Conflict(reason) => {
                problems += 1;
                let json = json!({"partition": path, "bucket": bucket.0, "conflict": reason});
                rows.push((json, vec![path, bucket.0.to_string(), "lost a race".to_owned()]));
            }
            Compacted::Done(report) => rows.push((
                json!({
                    "partition": path, "bucket": bucket.0, "runs": runs, "reason": format!("{:?}", report.reason),
                    "outputLevel": report.output_level.0, "filesIn": report.files_in, "filesOut": report.files_out,
                    "upgraded": report.upgraded, "bytesIn": report.bytes_in, "bytesOut": report.bytes_out,
                    "rowsIn": report.rows_in, "rowsOut": report.rows_out, "snapshot": report.snapshot, "millis": millis}),
                vec![
                    path,
                    bucket.0.to_string(),
                    format!("{:?}", report.reason),
                    format!("{} -> {}", report.files_in + report.upgraded, report.files_out + report.upgraded),
                    format!("{} -> {}", report.rows_in, report.rows_out),
                    format!("{} -> {}", out::bytes(report.bytes_in), out::bytes(report.bytes_out)),
                    format!("{millis} ms"),
                ],
            )),
        }
    }
    bar.finish_and_clear();
    out.list(&HEADER, &rows, "nothing to compact")?;
    Ok(if problems == 0 { Done::Well } else { Done::Problems })
}
