//! Column ranges of files and manifests, and how text is cut for them (paimon-format.md section 5).
//!
//! Neighbours: `data_file` holds the result, `lsm` fills it from footers, `commit` from partitions. Invariants: 1. a minimum is never
//! above and a maximum never below any value; 2. what is not known stays null and unknown through every merge.

use crate::{
    binary_row::{decode_row, encode_row},
    data_file::{SimpleStats, StoredRow},
    error::{FormatError, Result},
    types::DataType,
    value::Value,
};

/// Characters kept of key columns, whatever `metadata.stats-mode` says.
pub const KEY_STATS_LENGTH: usize = 128;

impl SimpleStats {
    /// Statistics of no columns; with `_VALUE_STATS_COLS` = [] every engine reads it as "nothing known".
    #[must_use]
    pub fn empty() -> Self {
        Self { min: StoredRow::empty(), max: StoredRow::empty(), null_counts: Vec::new() }
    }
}

/// Collects the range of each of some columns.
#[derive(Debug, Clone)]
pub struct ColumnRanges {
    types: Vec<DataType>,
    columns: Vec<Range>,
}

#[derive(Debug, Clone)]
struct Range {
    bounds: Bounds,
    nulls: Option<i64>,
}

#[derive(Debug, Clone)]
enum Bounds {
    /// No value yet that is not null.
    Open,
    Known(Value, Value),
    Unknown,
}

impl ColumnRanges {
    /// For columns of these types, taken as nullable.
    #[must_use]
    pub fn new(types: &[DataType]) -> Self {
        let types: Vec<_> = types.iter().map(|t| DataType::nullable(t.kind.clone())).collect();
        let columns = vec![Range { bounds: Bounds::Open, nulls: Some(0) }; types.len()];
        Self { types, columns }
    }

    /// Takes one row in. Floats that are NaN make their column unknown: engines order them differently. Nested columns stay unknown.
    ///
    /// # Errors
    /// Invalid when the number of values is another one.
    pub fn add(&mut self, row: &[Value]) -> Result<()> {
        self.expect(row.len())?;
        for ((range, value), data_type) in self.columns.iter_mut().zip(row).zip(&self.types) {
            let nan = matches!(value, Value::Float(v) if v.is_nan()) || matches!(value, Value::Double(v) if v.is_nan());
            match value {
                Value::Null => range.nulls = range.nulls.map(|n| n.saturating_add(1)),
                _ if nan || data_type.is_nested() => range.bounds = Bounds::Unknown,
                value => range.widen(value, value),
            }
        }
        Ok(())
    }

    /// Takes in what other statistics of `rows` rows of the same columns know. `object` is where they were read.
    ///
    /// # Errors
    /// Corrupt when they do not decode.
    pub fn add_stats(&mut self, object: &str, stats: &SimpleStats, rows: i64) -> Result<()> {
        let low = decode_row(object, &stats.min, &self.types)?;
        let high = decode_row(object, &stats.max, &self.types)?;
        if stats.null_counts.len() != low.len() {
            return Err(FormatError::corrupt(object, "statistics have other than as many null counts as columns"));
        }
        for (((range, low), high), nulls) in self.columns.iter_mut().zip(&low).zip(&high).zip(&stats.null_counts) {
            match (low.is_null() || high.is_null(), *nulls == Some(rows)) {
                (true, true) => {}
                (true, false) => range.bounds = Bounds::Unknown,
                (false, _) => range.widen(low, high),
            }
            range.nulls = range.nulls.zip(*nulls).map(|(a, b)| a.saturating_add(b));
        }
        Ok(())
    }

    /// The statistics of everything taken in.
    ///
    /// # Errors
    /// Invalid when a value is not of its column's type.
    pub fn finish(&self) -> Result<SimpleStats> {
        let bound = |pick: fn(&(Value, Value)) -> &Value| -> Vec<Value> {
            let of = |range: &Range| match &range.bounds {
                Bounds::Known(low, high) => pick(&(low.clone(), high.clone())).clone(),
                Bounds::Open | Bounds::Unknown => Value::Null,
            };
            self.columns.iter().map(of).collect()
        };
        Ok(SimpleStats {
            min: encode_row(&bound(|b| &b.0), &self.types)?,
            max: encode_row(&bound(|b| &b.1), &self.types)?,
            null_counts: self.columns.iter().map(|range| range.nulls).collect(),
        })
    }

    fn expect(&self, values: usize) -> Result<()> {
        if values == self.types.len() {
            return Ok(());
        }
        Err(FormatError::invalid("statistics", format!("{values} values for {} columns", self.types.len())))
    }
}

impl Range {
    fn widen(&mut self, low: &Value, high: &Value) {
        match &mut self.bounds {
            Bounds::Unknown => {}
            Bounds::Open => self.bounds = Bounds::Known(low.clone(), high.clone()),
            Bounds::Known(min, max) => {
                if low.compare(min).is_lt() {
                    min.clone_from(low);
                }
                if high.compare(max).is_gt() {
                    max.clone_from(high);
                }
            }
        }
    }
}

/// Statistics of the partition columns of a manifest's entries, always real and of full arity: engines skip manifests by them.
///
/// # Errors
/// Corrupt when a partition row does not decode.
pub fn partition_stats<'r>(
    object: &str,
    partitions: impl IntoIterator<Item = &'r StoredRow>,
    types: &[DataType],
) -> Result<SimpleStats> {
    let mut ranges = ColumnRanges::new(types);
    let mut last: Option<(&StoredRow, Vec<Value>)> = None;
    for partition in partitions {
        // Entries of one partition stand together mostly; nulls still count per entry.
        let values = match last.take() {
            Some((row, values)) if row == partition => values,
            _ => decode_row(object, partition, types)?,
        };
        ranges.add(&values)?;
        last = Some((partition, values));
    }
    ranges.finish()
}

/// A minimum cut to `length` characters: a prefix is never above the whole. Other types stay as they are.
#[must_use]
pub fn truncate_min(value: Value, length: usize) -> Value {
    match value {
        Value::String(text) => Value::String(prefix(&text, length).to_owned()),
        other => other,
    }
}

/// A maximum cut to `length` characters and raised at the last character that can be; `None` where none can, and then the minimum
/// has to go as well. Other types stay as they are.
#[must_use]
pub fn truncate_max(value: Value, length: usize) -> Option<Value> {
    let Value::String(text) = value else { return Some(value) };
    let cut = prefix(&text, length);
    if cut.len() == text.len() {
        return Some(Value::String(text));
    }
    let mut chars: Vec<char> = cut.chars().collect();
    while let Some(last) = chars.pop() {
        if let Some(next) = following(last) {
            chars.push(next);
            return Some(Value::String(chars.into_iter().collect()));
        }
    }
    None
}

fn prefix(text: &str, length: usize) -> &str {
    text.char_indices().nth(length).map_or(text, |(at, _)| text.get(..at).unwrap_or(text))
}

/// The next character, past the surrogates that no text holds.
fn following(c: char) -> Option<char> {
    match u32::from(c) {
        0xd7ff => Some('\u{e000}'),
        code => char::from_u32(code + 1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn types(texts: &[&str]) -> Vec<DataType> {
        texts.iter().map(|text| DataType::parse(text).unwrap()).collect()
    }

    fn text(s: &str) -> Value {
        Value::String(s.into())
    }

    #[test]
    fn partition_ranges_cover_all_entries() {
        let types = types(&["STRING", "INT NOT NULL"]);
        let row = |a: Value, b: i32| encode_row(&[a, Value::Int(b)], &types).unwrap();
        let rows = [row(text("b"), 3), row(text("b"), 3), row(Value::Null, -1), row(text("a"), 7)];
        let stats = partition_stats("m", &rows, &types).unwrap();
        assert_eq!(decode_row("m", &stats.min, &types).unwrap(), [text("a"), Value::Int(-1)]);
        assert_eq!(decode_row("m", &stats.max, &types).unwrap(), [text("b"), Value::Int(7)]);
        assert_eq!(stats.null_counts, [Some(1), Some(0)]);
        assert_eq!(partition_stats("m", &[StoredRow::empty()], &[]).unwrap(), SimpleStats::empty());
        assert!(partition_stats("m", &[StoredRow::empty()], &types).is_err());
    }

    #[test]
    fn what_is_unknown_stays_unknown() {
        let types = types(&["INT", "DOUBLE"]);
        let known = |a: Value, b: Value| {
            let mut ranges = ColumnRanges::new(&types);
            ranges.add(&[a, b]).unwrap();
            ranges.finish().unwrap()
        };
        let mut ranges = ColumnRanges::new(&types);
        ranges.add_stats("m", &known(Value::Int(1), Value::Double(f64::NAN)), 1).unwrap();
        ranges.add_stats("m", &known(Value::Int(5), Value::Double(1.0)), 1).unwrap();
        ranges.add_stats("m", &known(Value::Null, Value::Double(1.0)), 1).unwrap();
        let merged = ranges.finish().unwrap();
        assert_eq!(decode_row("m", &merged.min, &types).unwrap(), [Value::Int(1), Value::Null]);
        assert_eq!(decode_row("m", &merged.max, &types).unwrap(), [Value::Int(5), Value::Null]);
        assert_eq!(merged.null_counts, [Some(1), Some(0)]);
        let mut lost = known(Value::Int(1), Value::Double(1.0));
        lost.null_counts[0] = None;
        ranges.add_stats("m", &lost, 1).unwrap();
        assert_eq!(ranges.finish().unwrap().null_counts, [None, Some(0)]);
        assert!(ranges.add(&[Value::Int(1)]).is_err());
    }

    #[test]
    fn statistics_with_one_end_only_are_unknown() {
        let types = types(&["INT"]);
        let row = |value: Value| encode_row(&[value], &types).unwrap();
        for (min, max) in [(Value::Int(1), Value::Null), (Value::Null, Value::Int(1))] {
            let mut ranges = ColumnRanges::new(&types);
            let given = SimpleStats { min: row(min), max: row(max), null_counts: vec![Some(0)] };
            ranges.add_stats("m", &given, 1).unwrap();
            ranges.add(&[Value::Int(5)]).unwrap();
            let merged = ranges.finish().unwrap();
            assert_eq!((merged.min, merged.max), (row(Value::Null), row(Value::Null)));
        }
    }

    #[test]
    fn long_text_is_cut_and_its_maximum_raised() {
        assert_eq!(truncate_min(text("abcdef"), 3), text("abc"));
        assert_eq!(truncate_max(text("abcdef"), 3), Some(text("abd")));
        assert_eq!(truncate_max(text("abc"), 3), Some(text("abc")));
        assert_eq!(truncate_max(text("a\u{10ffff}\u{10ffff}x"), 3), Some(text("b")));
        assert_eq!(truncate_max(text("\u{10ffff}\u{10ffff}"), 1), None);
        assert_eq!(truncate_max(text("\u{d7ff}x"), 1), Some(text("\u{e000}")));
        assert_eq!(
            (truncate_min(Value::Int(1), 1), truncate_max(Value::Int(1), 1)),
            (Value::Int(1), Some(Value::Int(1)))
        );
    }

    proptest! {
        #[test]
        fn cut_ranges_still_hold_the_value(value in "\\PC{0,20}", length in 1_usize..18) {
            let value = text(&value);
            prop_assert!(truncate_min(value.clone(), length).compare(&value).is_le());
            if let Some(max) = truncate_max(value.clone(), length) {
                prop_assert!(max.compare(&value).is_ge());
            }
        }
    }
}
