//! The live view: what happens, redrawn in place on a terminal, a line now and then elsewhere.
//!
//! Neighbours: `demo` feeds it, `telemetry` has the sums.

use std::{
    collections::VecDeque,
    io::{self, IsTerminal, Write},
};

use crossterm::{
    cursor::{MoveToColumn, MoveUp},
    queue,
    terminal::{Clear, ClearType},
};
use siltstone_store::cost::{LIST_PRICES, ManagedCost, ManagedWork};

use super::telemetry::Sums;
use crate::out;

/// Events kept in sight.
const EVENTS: usize = 6;
/// Seconds between lines where nothing can be redrawn.
const LINE_EVERY: u64 = 5;
/// Firehose writes a file of a stream at least this often, seconds (its smallest buffer for tables).
const FIREHOSE_BUFFER: u64 = 60;

/// State of the view.
pub(crate) struct View {
    live: bool,
    quiet: bool,
    drawn: u16,
    last_line: u64,
    events: VecDeque<String>,
}

/// What is shown besides the functions' sums.
#[derive(Debug, Clone, Default)]
pub(crate) struct Moment {
    pub(crate) millis: u64,
    pub(crate) seconds: u64,
    pub(crate) produced: u64,
    pub(crate) produced_bytes: u64,
    /// Runs of each bucket.
    pub(crate) runs: Vec<usize>,
    pub(crate) shards: usize,
    pub(crate) kills: u64,
    pub(crate) injected: u64,
}

impl View {
    pub(crate) fn new(quiet: bool) -> Self {
        Self { live: io::stdout().is_terminal() && !quiet, quiet, drawn: 0, last_line: 0, events: VecDeque::new() }
    }

    /// Something happened.
    pub(crate) fn event(&mut self, millis: u64, text: &str) -> io::Result<()> {
        let text = format!("{:>5.1} s  {text}", seconds(millis));
        if self.quiet {
            return Ok(());
        }
        if !self.live {
            return writeln!(io::stdout(), "{text}");
        }
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(text);
        Ok(())
    }

    /// Shows a moment.
    pub(crate) fn show(&mut self, moment: &Moment, sums: &Sums) -> io::Result<()> {
        if self.quiet {
            return Ok(());
        }
        if !self.live {
            let second = moment.millis / 1000;
            if second < self.last_line + LINE_EVERY {
                return Ok(());
            }
            self.last_line = second;
            let runs: Vec<String> = moment.runs.iter().map(ToString::to_string).collect();
            return writeln!(
                io::stdout(),
                "{:>5.1} s  {} produced, {} in the table's log, freshness p50 {} p99 {}, runs per bucket {}, {} compactions",
                seconds(moment.millis),
                moment.produced,
                sums.records - sums.redelivered,
                millis(sums.freshness(500)),
                millis(sums.freshness(990)),
                runs.join(" "),
                sums.compactions
            );
        }
        let lines = self.lines(moment, sums);
        let mut out = io::stdout().lock();
        if self.drawn > 0 {
            queue!(out, MoveUp(self.drawn), MoveToColumn(0))?;
        }
        for line in &lines {
            queue!(out, Clear(ClearType::CurrentLine))?;
            writeln!(out, "{line}")?;
        }
        queue!(out, Clear(ClearType::FromCursorDown))?;
        self.drawn = u16::try_from(lines.len()).unwrap_or(0);
        out.flush()
    }

    fn lines(&self, moment: &Moment, sums: &Sums) -> Vec<String> {
        let part = (moment.millis * 40 / (moment.seconds * 1000).max(1)).min(40);
        let part = usize::try_from(part).unwrap_or(40);
        let rate = moment.produced * 1000 / moment.millis.max(1);
        let cost = sums.cost();
        let mut lines = vec![
            format!(
                "[{}{}] {:.0} of {} s",
                "=".repeat(part),
                " ".repeat(40 - part),
                seconds(moment.millis),
                moment.seconds
            ),
            format!(
                "stream      {} changes produced, {rate}/s, {} open shards, {} malformed",
                moment.produced, moment.shards, moment.injected
            ),
            format!(
                "ingest      {} batches, {} files, {}; freshness p50 {} p99 {}",
                sums.ingest_batches,
                sums.files,
                out::bytes(sums.bytes),
                millis(sums.freshness(500)),
                millis(sums.freshness(990))
            ),
            format!(
                "faults      {} kills between commit and publication, {} records came again and were skipped",
                moment.kills, sums.redelivered
            ),
            format!("compaction  {} done, {} rows merged", sums.compactions, sums.rows_compacted),
        ];
        for (bucket, runs) in moment.runs.iter().enumerate() {
            lines.push(format!("  bucket {bucket}  {:<2} {}", runs, "\u{2587}".repeat((*runs).min(40))));
        }
        lines.push(format!(
            "requests    S3 {} put {} get, DynamoDB {} write {} read units; ${:.6} so far, Firehose + S3 Tables ${:.6}",
            sums.usage.s3_put_class(),
            sums.usage.s3_get_class(),
            sums.usage.write_units,
            sums.usage.read_units,
            cost.added(),
            managed(moment, sums).work(),
        ));
        lines.push(String::new());
        lines.extend(self.events.iter().cloned());
        lines
    }

    /// Leaves what is drawn where it is.
    pub(crate) fn end(&mut self) {
        self.drawn = 0;
    }
}

/// What Firehose and S3 Tables would charge for the same bytes: a file per buffer and shard, each compacted once.
pub(crate) fn managed(moment: &Moment, sums: &Sums) -> ManagedCost {
    let objects = (moment.millis / 1000 / FIREHOSE_BUFFER + 1) * moment.shards.max(1) as u64;
    let work = ManagedWork {
        ingested_bytes: moment.produced_bytes,
        objects,
        compacted_objects: objects,
        compacted_bytes: sums.bytes,
        stored_bytes: sums.bytes,
        stored_objects: objects,
    };
    ManagedCost::of(&work, &LIST_PRICES)
}

fn millis(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"))
}

#[expect(clippy::cast_precision_loss, reason = "for the eye")]
pub(crate) fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}
