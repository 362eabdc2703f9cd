//! Standard output: JSON lines for machines, aligned columns for people; progress on standard error.
//!
//! Neighbours: every command. Invariants: 1. with `--json`, standard output holds JSON lines only; 2. progress shows only on a terminal, and
//! only after a second.

use std::{
    borrow::Cow,
    fmt::Display,
    io::{self, IsTerminal, Write},
    time::Duration,
};

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

/// Where a command prints.
pub(crate) struct Out {
    pub(crate) json: bool,
    writer: Box<dyn Write + Send>,
}

impl Out {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, writer: Box::new(io::BufWriter::new(io::stdout())) }
    }

    /// A line for people; nothing with `--json`.
    pub(crate) fn say(&mut self, text: impl Display) -> io::Result<()> {
        if self.json { Ok(()) } else { self.line(text) }
    }

    /// A line, in either form.
    pub(crate) fn line(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.writer, "{text}")?;
        self.writer.flush()
    }

    /// A JSON object for machines, or other words for people.
    pub(crate) fn object(&mut self, json: &Value, words: impl Display) -> io::Result<()> {
        if self.json { self.line(json) } else { self.line(words) }
    }

    /// A list: one JSON object a line, or a table.
    pub(crate) fn list(&mut self, header: &[&str], rows: &[(Value, Vec<String>)], empty: &str) -> io::Result<()> {
        if self.json {
            for (json, _) in rows {
                writeln!(self.writer, "{json}")?;
            }
            return self.writer.flush();
        }
        if rows.is_empty() {
            return self.line(empty);
        }
        let cells: Vec<Vec<String>> = rows.iter().map(|(_, cells)| cells.clone()).collect();
        self.line(table(header, &cells))
    }
}

/// Aligned columns with a header. A control character in a cell is shown by its escape: it would move the cursor, or tell the terminal worse.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if !io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    table.set_header(header.iter().copied().map(plain));
    for row in rows {
        table.add_row(row.iter().map(String::as_str).map(plain));
    }
    table.trim_fmt()
}

fn plain(cell: &str) -> Cow<'_, str> {
    if !cell.contains(char::is_control) {
        return Cow::Borrowed(cell);
    }
    let mut shown = String::with_capacity(cell.len());
    for c in cell.chars() {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

/// The most characters of a value in a cell: one long value would make its column as wide in every row.
const CELL_CHARS: usize = 200;

/// A value as a cell: what is longer than a cell may be ends in an ellipsis.
pub(crate) fn cell(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(CELL_CHARS) {
        let kept = text.char_indices().nth(CELL_CHARS - 1).map_or(end, |(at, _)| at);
        text.truncate(kept);
        text.push('…');
    }
    text
}

/// A progress bar of `total` steps on standard error, hidden for its first second and where there is no terminal.
pub(crate) fn progress(what: &'static str, total: Option<u64>) -> ProgressBar {
    bar_of(total, what, if total.is_some() { "{msg} {wide_bar} {pos}/{len} {eta}" } else { "{spinner} {msg} {pos}" })
}

/// Waits for a step whose parts cannot be counted; its time is shown as [`progress`] shows it.
pub(crate) async fn wait_for<T>(what: &'static str, step: impl Future<Output = T>) -> T {
    let bar = bar_of(None, what, "{spinner} {msg} {elapsed}");
    bar.enable_steady_tick(Duration::from_millis(100));
    let done = step.await;
    bar.finish_and_clear();
    done
}

/// Several steps in a row, of which the one that goes on is shown as [`wait_for`] shows its.
pub(crate) struct Steps(ProgressBar);

impl Steps {
    pub(crate) fn new() -> Self {
        let bar = bar_of(None, "", "{spinner} {elapsed} {wide_msg}");
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }

    /// What goes on now.
    pub(crate) fn show(&self, what: impl Into<Cow<'static, str>>) {
        self.0.set_message(what);
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn bar_of(total: Option<u64>, what: &'static str, template: &str) -> ProgressBar {
    // Hidden from its birth: a bar that is hidden later has drawn its first line already, which stays.
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(what);
    if io::stderr().is_terminal() {
        let shown = bar.downgrade();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if let Some(bar) = shown.upgrade()
                && !bar.is_finished()
            {
                bar.set_draw_target(ProgressDrawTarget::stderr());
            }
        });
    }
    bar
}

/// Bytes as people read them.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::HumanBytes(count).to_string()
}

/// Milliseconds since 1970 as UTC text.
pub(crate) fn time(millis: i64) -> String {
    siltstone_table::text::show_timestamp(millis, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_longer_than_a_cell_is_cut_between_characters() {
        let whole = "é".repeat(CELL_CHARS);
        assert_eq!(cell(whole.clone()), whole);
        let cut = cell(whole + "x");
        assert_eq!((cut.chars().count(), cut.chars().last()), (CELL_CHARS, Some('…')));
    }

    #[test]
    fn no_control_character_comes_out_of_a_table() {
        let cells = vec!["\u{1b}[2J\u{9b}31m".to_owned(), "a\tb\r\nc\u{7f}".to_owned()];
        let shown = table(&["one\u{7}", "two"], &[cells]);
        let lines: Vec<&str> = shown.lines().map(str::trim_end).collect();
        assert_eq!(lines.len(), 2, "{shown}");
        assert!(lines.iter().all(|line| !line.contains(char::is_control)), "{shown:?}");
        assert!(lines[1].contains("\\u{1b}[2J\\u{9b}31m") && lines[1].contains("a\\tb\\r\\nc\\u{7f}"), "{shown}");
    }
}
