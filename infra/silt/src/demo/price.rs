//! What the demo's work would cost by the month, ours beside Firehose with S3 Tables: the run's own cents say nothing, since a bill is made of
//! batches, and the demo makes twenty where a deployed table makes one.
//!
//! Neighbours: `telemetry` counts, `store`'s price list; `demo` shows the result at its end. Pure.
//! Invariant: 1. what is compared does the same records in the same time, at the same rate; only how often a batch or file is made differs, and
//! each line says it.

use siltstone_store::{
    Cost, LIST_PRICES, PRICES_AS_OF,
    cost::{GB, HOURS_PER_MONTH, ManagedCost, ManagedWork, Standing},
};

const MONTH_SECONDS: f64 = HOURS_PER_MONTH * 3600.0;
/// The batching window of a deployed table unless it is told otherwise, seconds.
const DEPLOYED_WINDOW: f64 = 10.0;
/// Firehose writes a file of a stream at least this often, seconds (its smallest buffer for tables).
const FIREHOSE_BUFFER: f64 = 60.0;
/// A batch of Kinesis goes to Lambda when it has this many bytes, whatever the window.
const BATCH_BYTES: f64 = 6e6;

/// What was done, and how long it took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Run {
    /// How long was produced.
    pub(crate) seconds: u64,
    pub(crate) changes: u64,
    pub(crate) produced_bytes: u64,
    /// Bytes of level-0 files.
    pub(crate) stored_bytes: u64,
    pub(crate) shards: usize,
    pub(crate) batches: u64,
    pub(crate) cost: Cost,
}

/// US dollars of a month at the run's rate, without storage and stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Month {
    /// With as many batches as the run made.
    pub(crate) as_run: f64,
    /// With a batch of each shard in ten seconds.
    pub(crate) deployed: f64,
    /// With a batch of each shard in a minute, as fresh as Firehose.
    pub(crate) by_minute: f64,
    pub(crate) managed: f64,
}

#[expect(clippy::cast_precision_loss, reason = "for a price")]
impl Run {
    /// How often the run fits into a month.
    fn times(&self) -> f64 {
        MONTH_SECONDS / self.seconds.max(1) as f64
    }

    fn shards(&self) -> f64 {
        self.shards.max(1) as f64
    }

    /// Requests grow with the batches, compute time with the records, which are the same in every line.
    pub(crate) fn month(&self) -> Month {
        let requests = (self.cost.added() - self.cost.lambda_time) * self.times();
        let compute = self.cost.lambda_time * self.times();
        let batches = self.batches as f64 * self.times();
        let bytes = self.produced_bytes as f64 * self.times();
        let by_window = |window: f64| {
            let made = (MONTH_SECONDS / window * self.shards()).max(bytes / BATCH_BYTES);
            compute + requests * (made / batches.max(1.0)).min(1.0)
        };
        Month {
            as_run: requests + compute,
            deployed: by_window(DEPLOYED_WINDOW),
            by_minute: by_window(FIREHOSE_BUFFER),
            managed: self.managed(),
        }
    }

    /// Firehose and S3 Tables for a month: a file per buffer and shard, each compacted once.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and whole enough")]
    fn managed(&self) -> f64 {
        let files = (MONTH_SECONDS / FIREHOSE_BUFFER * self.shards()) as u64;
        let bytes = |of_run: u64| (of_run as f64 * self.times()) as u64;
        let work = ManagedWork {
            ingested_bytes: bytes(self.produced_bytes),
            objects: files,
            compacted_objects: files,
            compacted_bytes: bytes(self.stored_bytes),
            ..ManagedWork::default()
        };
        ManagedCost::of(&work, &LIST_PRICES).work()
    }

    /// The run's part of a month of Firehose and S3 Tables.
    pub(crate) fn managed_usd(&self) -> f64 {
        self.managed() / self.times()
    }

    /// For people, in lines that fit a terminal.
    pub(crate) fn words(&self) -> String {
        let month = self.month();
        let gb = self.produced_bytes as f64 * self.times() / GB;
        let stream = Standing { stored_bytes: 0, shards: self.shards as u64, extended_retention: false };
        let line = |what: &str, dollars: f64| format!("  {what:<58} {:>12}\n", format!("${dollars:.2}"));
        let per_batch = self.seconds as f64 * self.shards() / self.batches.max(1) as f64;
        let mut words = format!(
            "Cost. This run's requests and Lambda time are ${:.6}\n({PRICES_AS_OF}).\n\
             A month at this rate ({} changes/s, {gb:.1} GB a month), without storage and\n\
             without the stream's own ${:.2}, which both sides pay:\n\n",
            self.cost.added(),
            self.changes / self.seconds.max(1),
            stream.stream_month(&LIST_PRICES),
        );
        words += &line(&format!("Siltstone, a batch per shard each {per_batch:.1} s, as in this run"), month.as_run);
        words += &line("Siltstone, a batch per shard each 10 s, as deployed", month.deployed);
        words += &line("Siltstone, a batch per shard each minute", month.by_minute);
        words += &line("Firehose + S3 Tables, a file per shard each minute,", month.managed);
        words += "    which only appends: no updates, no deletes, no deduplication\n\n";
        words += "The first line is measured. The others have the same changes in fewer batches\n\
                  or files: a batch takes about as many requests whether it is full or almost\n\
                  empty, so at a low rate a longer window saves most of them.";
        if cfg!(debug_assertions) {
            words += &format!(
                "\nLambda time is ${:.2} of each of our lines: that of this development build, on\n\
                 this machine.",
                self.cost.lambda_time * self.times()
            );
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        let cost = Cost { s3_put: 0.003, lambda_time: 0.001, ..Cost::default() };
        Run {
            seconds: 60,
            changes: 30_000,
            produced_bytes: 6 << 20,
            stored_bytes: 2 << 20,
            shards: 2,
            batches: 240,
            cost,
        }
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-6 * b.abs().max(1.0)
    }

    #[test]
    fn a_month_has_the_runs_compute_and_the_windows_requests() {
        let (month, times) = (run().month(), MONTH_SECONDS / 60.0);
        assert!(close(month.as_run, 0.004 * times), "{month:?}");
        // 12 batches instead of 240, then 2.
        assert!(close(month.deployed, (0.001 + 0.003 / 20.0) * times), "{month:?}");
        assert!(close(month.by_minute, (0.001 + 0.003 / 120.0) * times), "{month:?}");
        let firehose = 6.0 / 1024.0 * 0.045 + 2.0 / 1024.0 * 0.005 + 2.0 * (0.005 + 0.002) / 1e3;
        assert!(close(month.managed, firehose * times), "{month:?}");
    }

    #[test]
    fn a_short_run_is_no_dearer_by_the_month_than_a_long_one() {
        let short = Run { seconds: 10, changes: 5_000, produced_bytes: 1 << 20, batches: 40, ..run() };
        let short = Run {
            stored_bytes: (2 << 20) / 6,
            cost: Cost { s3_put: 0.0005, lambda_time: 0.001 / 6.0, ..Cost::default() },
            ..short
        };
        let (short, long) = (short.month(), run().month());
        assert!((short.managed / long.managed - 1.0).abs() < 1e-3, "{short:?} {long:?}");
        assert!(close(short.deployed, long.deployed) && close(short.as_run, long.as_run), "{short:?} {long:?}");
    }

    #[test]
    fn a_window_never_makes_more_batches_than_the_run_did_and_full_batches_do_not_wait_for_it() {
        let few = Run { batches: 1, ..run() };
        assert!(close(few.month().deployed, few.month().as_run));
        // 600 MB a minute: 100 batches of 6 MB, where a window of a minute would be 2.
        let much = Run { produced_bytes: 600_000_000, ..run() };
        assert!(close(much.month().by_minute, (0.001 + 0.003 * 100.0 / 240.0) * much.times()));
    }

    #[test]
    fn its_lines_fit_a_terminal_and_say_what_is_compared() {
        let words = run().words();
        assert!(words.lines().all(|line| line.chars().count() < 80), "{words}");
        for part in ["A month at this rate (500 changes/s", "as deployed", "no updates", "the stream's own $21.90"] {
            assert!(words.contains(part), "{part}: {words}");
        }
    }
}
