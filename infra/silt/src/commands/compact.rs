//! `silt compact`: compacts buckets of a table from here, with what the functions use.
//!
//! Neighbours: `siltstone_table::compact`. On a bare warehouse this is a dedicated compactor for tables of any engine. Invariant: 1. what was
//! committed is reported, whatever happens to the buckets after it.

use std::collections::{BTreeMap, VecDeque};

use serde_json::json;
use siltstone_format::id::Bucket;
use siltstone_table::{
    Authority, ErrorKind, Purpose, TableError,
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
    let limits = CompactLimits {
        memory_bytes: args.memory << 20,
        lateness_ms: args.lateness.ms.max(0),
        ..CompactLimits::default()
    };
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
    let buckets = buckets.into_iter().map(|(partition, bucket, runs)| {
        let path = table.partition_words(&table.partition_values(&partition)?)?;
        Ok((path, partition, bucket, runs))
    });
    let mut buckets = buckets.collect::<Result<VecDeque<_>, TableError>>()?;
    let bar = out::progress("buckets", Some(buckets.len() as u64));
    let (mut rows, mut lost, mut failed) = (Vec::new(), false, Failed::default());
    while let Some((path, partition, bucket, runs)) = buckets.pop_front() {
        let started = table.ports.clock.now_ms();
        let done = compact::compact_bucket(&table, &partition, bucket, request, &limits, i64::MAX).await;
        let millis = table.ports.clock.now_ms() - started;
        bar.inc(1);
        let done = match done {
            Ok(done) => {
                failed.answered = true;
                failed.silent = 0;
                done
            }
            Err(error) => {
                let json = json!({"partition": path, "bucket": bucket.0, "error": error.to_string()});
                rows.push((json, vec![path.clone(), bucket.0.to_string(), "failed".to_owned()]));
                failed.add(&path, bucket, &error);
                if failed.away() {
                    break;
                }
                continue;
            }
        };
        match done {
            Compacted::Nothing => {}
            Compacted::Conflict(reason) => {
                lost = true;
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
    failed.end(buckets.len())?;
    Ok(if lost { Done::Problems } else { Done::Well })
}

/// How many buckets in a row a service leaves without an answer before the others are not tried: one alone may be an object that cannot be read.
const SILENT_MAX: u32 = 3;

/// Buckets that could not be compacted, by what went wrong: a fault of the whole table is told once.
#[derive(Default)]
struct Failed {
    /// By the words for one bucket and for several.
    buckets: BTreeMap<(String, &'static str, &'static str), Vec<String>>,
    /// Buckets in a row for which a service gave no answer.
    silent: u32,
    /// Some bucket was compacted, or failed for another reason.
    answered: bool,
}

impl Failed {
    fn add(&mut self, partition: &str, bucket: Bucket, error: &TableError) {
        let name = match partition {
            "" => format!("bucket {}", bucket.0),
            partition => format!("bucket {} of {partition}", bucket.0),
        };
        let unavailable = error.kind() == ErrorKind::Unavailable;
        // A commit without an answer may have taken effect, as its own words say; whatever goes wrong in a merge comes before the commit.
        let (one, several) = if unavailable && !matches!(error, TableError::Lsm(_)) {
            ("", "")
        } else {
            ("; nothing was changed in this bucket", "; nothing was changed in these buckets")
        };
        self.silent = if unavailable { self.silent + 1 } else { 0 };
        self.answered |= !unavailable;
        self.buckets.entry((error.to_string(), one, several)).or_default().push(name);
    }

    /// The service is not there: the next bucket would only take its time.
    fn away(&self) -> bool {
        self.silent >= SILENT_MAX
    }

    /// Names every bucket that failed.
    fn end(self, untried: usize) -> Result<(), Failure> {
        if self.buckets.is_empty() {
            return Ok(());
        }
        let words = self.buckets.iter().map(|((error, one, several), buckets)| {
            format!("{}: {error}{}", buckets.join(", "), if buckets.len() == 1 { one } else { several })
        });
        let mut words: Vec<String> = words.collect();
        if untried > 0 {
            words.push(format!("{untried} more buckets were not tried"));
        }
        let words = words.join("; ");
        Err(if self.away() || !self.answered { Failure::Unavailable(words) } else { Failure::Problem(words) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corrupt(words: &str) -> TableError {
        TableError::Corrupt(words.to_owned())
    }

    #[test]
    fn every_bucket_that_failed_is_named_and_a_fault_of_all_is_told_once() {
        let mut failed = Failed::default();
        failed.add("", Bucket(0), &corrupt("a is damaged"));
        assert_eq!(
            failed.end(0).unwrap_err().to_string(),
            "bucket 0: a is damaged; nothing was changed in this bucket"
        );
        let mut failed = Failed::default();
        failed.add("dt=1", Bucket(0), &corrupt("no"));
        failed.add("dt=2", Bucket(3), &corrupt("no"));
        let Err(Failure::Problem(words)) = failed.end(0) else { panic!("a problem") };
        assert_eq!(words, "bucket 0 of dt=1, bucket 3 of dt=2: no; nothing was changed in these buckets");
        assert!(Failed::default().end(0).is_ok());
    }

    #[test]
    fn a_service_that_stays_away_ends_it_and_nothing_is_said_of_what_it_may_have_done() {
        let away = TableError::Unavailable("away".to_owned());
        let mut failed = Failed::default();
        for bucket in 0..3 {
            assert!(!failed.away());
            failed.add("", Bucket(bucket), &away);
        }
        assert!(failed.away());
        let Err(Failure::Unavailable(words)) = failed.end(2) else { panic!("unavailable") };
        assert_eq!(words, "bucket 0, bucket 1, bucket 2: away; 2 more buckets were not tried");
        let mut failed = Failed { answered: true, ..Failed::default() };
        failed.add("", Bucket(1), &away);
        assert!(matches!(failed.end(0), Err(Failure::Problem(_))));
    }
}
