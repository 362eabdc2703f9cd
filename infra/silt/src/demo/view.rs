//! The live view: what happens, redrawn in place on a terminal, a line now and then elsewhere.
//!
//! Neighbours: `demo` feeds it, `telemetry` has the sums. Invariant: 1. a line takes one row of the terminal and all lines fit its rows, or the
//! next moment would be drawn in the wrong place.

use std::{
    collections::VecDeque,
    io::{self, IsTerminal, Write},
};

use crossterm::{
    cursor::{MoveToColumn, MoveUp},
    queue,
    terminal::{Clear, ClearType, size},
};

use super::telemetry::Sums;
use crate::out;

/// Events kept in sight.
const EVENTS: usize = 6;
/// Seconds between lines where nothing can be redrawn.
const LINE_EVERY: u64 = 5;
/// State of the view.
pub(crate) struct View {
    live: bool,
    quiet: bool,
    /// Characters of each line that stands.
    drawn: Vec<usize>,
    last_line: u64,
    /// What goes on, once everything was produced.
    phase: Option<&'static str>,
    events: VecDeque<String>,
}

/// What is shown besides the functions' sums.
#[derive(Debug, Clone, Default)]
pub(crate) struct Moment {
    pub(crate) millis: u64,
    pub(crate) seconds: u64,
    pub(crate) produced: u64,
    /// Runs of each bucket.
    pub(crate) runs: Vec<usize>,
    pub(crate) shards: usize,
    pub(crate) kills: u64,
    pub(crate) injected: u64,
}

impl View {
    pub(crate) fn new(quiet: bool) -> Self {
        Self {
            live: io::stdout().is_terminal() && !quiet,
            quiet,
            drawn: Vec::new(),
            last_line: 0,
            phase: None,
            events: VecDeque::new(),
        }
    }

    /// Production is over, and this goes on.
    pub(crate) fn phase(&mut self, millis: u64, text: &'static str) -> io::Result<()> {
        self.phase = Some(text);
        if self.live { Ok(()) } else { self.event(millis, text) }
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
        // A terminal that does not tell its size is taken for the smallest that there are.
        let (columns, rows) = size().map_or((80, 24), |(columns, rows)| (usize::from(columns), usize::from(rows)));
        let lines = fit(self.lines(moment, sums), columns, rows);
        // In one write: a terminal that shows the half of it flickers.
        let mut frame = Vec::new();
        let up = height(&self.drawn, columns);
        if up > 0 {
            queue!(frame, MoveUp(u16::try_from(up.min(rows)).unwrap_or(u16::MAX)), MoveToColumn(0))?;
        }
        queue!(frame, Clear(ClearType::FromCursorDown))?;
        for line in &lines {
            writeln!(frame, "{line}")?;
        }
        self.drawn = lines.iter().map(|line| line.chars().count()).collect();
        let mut out = io::stdout().lock();
        out.write_all(&frame)?;
        out.flush()
    }

    fn lines(&self, moment: &Moment, sums: &Sums) -> Vec<String> {
        let part = (moment.millis * 20 / (moment.seconds * 1000).max(1)).min(20);
        let part = usize::try_from(part).unwrap_or(20);
        let rate = moment.produced * 1000 / moment.millis.min(moment.seconds * 1000).max(1);
        let (now, all) = (seconds(moment.millis), moment.seconds);
        let phase = match self.phase {
            Some(phase) => format!("{now:.0} s, {phase}"),
            None => format!("{now:.0} of {all} s"),
        };
        let mut lines = vec![
            format!("[{}{}] {phase}", "=".repeat(part), " ".repeat(20 - part)),
            format!(
                "stream      {} changes produced, {rate}/s; {} open shards; {} malformed",
                moment.produced, moment.shards, moment.injected
            ),
            format!("ingest      {} batches, {} files, {}", sums.ingest_batches, sums.files, out::bytes(sums.bytes)),
            format!(
                "freshness   p50 {}, p99 {}, from record to commit",
                millis(sums.freshness(500)),
                millis(sums.freshness(990))
            ),
            format!(
                "faults      {} kills after a commit; {} records came again, skipped",
                moment.kills, sums.redelivered
            ),
            format!("compaction  {} done, {} rows merged", sums.compactions, sums.rows_compacted),
        ];
        for (bucket, runs) in moment.runs.iter().enumerate() {
            lines.push(format!("  bucket {bucket}  {:<2} {}", runs, "\u{2587}".repeat((*runs).min(40))));
        }
        lines.push(format!(
            "requests    S3 {} put, {} get; DynamoDB {} write, {} read units",
            sums.usage.s3_put_class(),
            sums.usage.s3_get_class(),
            sums.usage.write_units,
            sums.usage.read_units,
        ));
        lines.push(format!("list price  ${:.6} so far; by the month, and compared, at the end", sums.cost().added()));
        lines.push(String::new());
        lines.extend(self.events.iter().cloned());
        lines
    }

    /// Leaves what is drawn where it is.
    pub(crate) fn end(&mut self) {
        self.drawn.clear();
    }
}

/// Cuts lines to what a terminal shows in a row each; what has no room below is left out.
fn fit(mut lines: Vec<String>, columns: usize, rows: usize) -> Vec<String> {
    // The row after the last line is the cursor's.
    lines.truncate(rows.saturating_sub(1));
    // A line of all columns would leave it to the terminal where the next one begins.
    let width = columns.saturating_sub(1);
    for line in &mut lines {
        if let Some((end, _)) = line.char_indices().nth(width) {
            line.truncate(end);
            if line.pop().is_some() {
                line.push('\u{2026}');
            }
        }
    }
    lines
}

/// Rows that lines take on a terminal that may have become narrower since.
fn height(lines: &[usize], columns: usize) -> usize {
    lines.iter().map(|characters| characters.div_ceil(columns.max(1)).max(1)).sum()
}

fn millis(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"))
}

#[expect(clippy::cast_precision_loss, reason = "for the eye")]
pub(crate) fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn many() -> (View, Moment, Sums) {
        let mut view = View { live: true, ..View::new(false) };
        for number in 0..9 {
            let text = "killed (SIGKILL) between commit and publication; Lambda delivers the batch again";
            view.event(10_000 * number + 300_000, text).unwrap();
        }
        let moment = Moment {
            millis: 3_600_000,
            seconds: 3_600,
            produced: 72_000_000,
            runs: vec![7, 90, 5, 4],
            shards: 16,
            kills: 7,
            injected: 8,
        };
        let sums = Sums { freshness: vec![123_456], redelivered: 12_345_678, ..Sums::default() };
        (view, moment, sums)
    }

    #[test]
    fn every_line_takes_one_row_and_all_fit_the_terminal() {
        let (mut view, moment, sums) = many();
        view.phase = Some("waiting until the last records are committed");
        for (columns, rows) in [(80, 24), (40, 10), (132, 50), (1, 1), (0, 0)] {
            let lines = fit(view.lines(&moment, &sums), columns, rows);
            assert!(lines.len() < rows.max(1), "{columns}x{rows}: {lines:?}");
            assert!(lines.iter().all(|l| l.chars().count() < columns.max(1)), "{columns}x{rows}: {lines:?}");
        }
    }

    #[test]
    fn eighty_columns_lose_nothing_but_the_end_of_an_event() {
        let (mut view, moment, sums) = many();
        for phase in [None, Some("waiting until the last records are committed")] {
            view.phase = phase;
            let lines = fit(view.lines(&moment, &sums), 80, 24);
            let cut: Vec<&String> = lines.iter().filter(|line| line.ends_with('\u{2026}')).collect();
            assert!(cut.iter().all(|line| line.contains("killed")), "{cut:?}");
            assert_eq!(lines.len(), 19, "{lines:?}");
        }
    }

    #[test]
    fn a_terminal_that_became_narrower_is_redrawn_from_the_top() {
        assert_eq!(height(&[79, 0, 40, 41], 80), 4);
        assert_eq!(height(&[79, 0, 40, 41], 40), 2 + 1 + 1 + 2);
    }
}
