//! Option texts to numbers, sizes, durations and lists, as Paimon's `Options` reads them.
//!
//! Above: `options`, `kinds`. Invariant: 1. a text that is not understood is an error with the option's name, never a default.

use std::{collections::BTreeMap, ops::RangeInclusive};

use super::Named;
use crate::error::{FormatError, Result};

/// Reads options by name. An empty text counts as not set.
pub(super) struct OptionReader<'o> {
    options: &'o BTreeMap<String, String>,
}

impl<'o> OptionReader<'o> {
    pub(super) const fn new(options: &'o BTreeMap<String, String>) -> Self {
        Self { options }
    }

    pub(super) fn text(&self, key: &str) -> Option<&'o str> {
        self.options.get(key).map(|text| text.trim()).filter(|text| !text.is_empty())
    }

    pub(super) fn bool(&self, key: &str, default: bool) -> Result<bool> {
        self.text(key).map_or(Ok(default), |text| parse_bool(key, text))
    }

    pub(super) fn in_range(&self, key: &str, default: i64, range: RangeInclusive<i64>) -> Result<i64> {
        let Some(text) = self.text(key) else { return Ok(default) };
        text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
            fault(key, text, &format!("must be a whole number from {} to {}", range.start(), range.end()))
        })
    }

    pub(super) fn ratio(&self, key: &str, default: f64) -> Result<f64> {
        let Some(text) = self.text(key) else { return Ok(default) };
        text.parse()
            .ok()
            .filter(|ratio| (0.0..=1.0).contains(ratio))
            .ok_or_else(|| fault(key, text, "must be a number from 0 to 1"))
    }

    /// A memory size in bytes: `128 mb`, `1g`, `4096`.
    pub(super) fn size(&self, key: &str, default: i64) -> Result<i64> {
        const UNITS: [(&[&str], i64); 5] = [
            (&["", "b", "bytes"], 1),
            (&["k", "kb", "kibibytes"], 1 << 10),
            (&["m", "mb", "mebibytes"], 1 << 20),
            (&["g", "gb", "gibibytes"], 1 << 30),
            (&["t", "tb", "tebibytes"], 1 << 40),
        ];
        let Some(text) = self.text(key) else { return Ok(default) };
        with_unit(text, &UNITS).ok_or_else(|| fault(key, text, "must be a size such as `128 mb`"))
    }

    /// A duration in ms: `1 h`, `10ms`, `7 d`; a bare number is ms.
    pub(super) fn duration(&self, key: &str, default: i64) -> Result<i64> {
        const UNITS: [(&[&str], i64); 5] = [
            (&["", "ms", "milli", "millis", "millisecond", "milliseconds"], 1),
            (&["s", "sec", "secs", "second", "seconds"], 1_000),
            (&["m", "min", "minute", "minutes"], 60_000),
            (&["h", "hour", "hours"], 3_600_000),
            (&["d", "day", "days"], 86_400_000),
        ];
        let Some(text) = self.text(key) else { return Ok(default) };
        with_unit(text, &UNITS)
            .ok_or_else(|| fault(key, text, "must be a duration such as `1 h`, not finer than milliseconds"))
    }

    pub(super) fn optional<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&'static str) -> Result<T>,
    ) -> Result<Option<T>> {
        self.text(key).map(|_| read(key)).transpose()
    }

    /// Names between commas.
    pub(super) fn list(&self, key: &str) -> Vec<String> {
        self.text(key).map_or_else(Vec::new, |text| text.split(',').map(|name| name.trim().to_owned()).collect())
    }

    /// `0:zstd,5:none`.
    pub(super) fn per_level<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&'static str, &str) -> Result<T>,
    ) -> Result<BTreeMap<i32, T>> {
        let Some(text) = self.text(key) else { return Ok(BTreeMap::new()) };
        let pair = |pair: &str| {
            let (level, value) =
                pair.split_once(':').ok_or_else(|| fault(key, text, "must be pairs such as `0:zstd,5:none`"))?;
            let level = level.trim().parse().map_err(|_| fault(key, text, "levels must be numbers"))?;
            Ok((level, parse(key, value.trim())?))
        };
        text.split(',').map(pair).collect()
    }

    pub(super) fn named<T: Named>(&self, key: &'static str, default: T) -> Result<T> {
        let Some(text) = self.text(key) else { return Ok(default) };
        let found = T::ALL.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        found.map(|(_, value)| *value).ok_or_else(|| unknown(key, text, T::ALL.iter().map(|(name, _)| *name)))
    }

    /// A part of a file name.
    pub(super) fn name(&self, key: &str, default: &str) -> Result<String> {
        let text = self.text(key).unwrap_or(default);
        if text.contains('/') { Err(fault(key, text, "must not hold a slash")) } else { Ok(text.to_owned()) }
    }

    /// A directory below the table, without slashes at its ends.
    pub(super) fn directory(&self, key: &str) -> Result<Option<String>> {
        let Some(text) = self.text(key).map(|text| text.trim_matches('/')) else { return Ok(None) };
        if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(fault(key, text, "must be a path without empty, `.` or `..` parts"));
        }
        Ok(Some(text.to_owned()))
    }
}

/// The error for a value that no known name of an enum option equals.
pub(super) fn unknown<'n>(key: &str, text: &str, names: impl Iterator<Item = &'n str>) -> FormatError {
    let names = names.collect::<Vec<_>>().join(", ");
    FormatError::unsupported(format!("{key} = {text:.64}"), format!("use one of {names}"))
}

pub(super) fn parse_bool(key: &str, text: &str) -> Result<bool> {
    match text.trim() {
        t if t.eq_ignore_ascii_case("true") => Ok(true),
        t if t.eq_ignore_ascii_case("false") => Ok(false),
        t => Err(fault(key, t, "must be true or false")),
    }
}

pub(super) fn fault(key: &str, text: &str, detail: &str) -> FormatError {
    FormatError::invalid(format!("{key} = {text:.64}"), detail)
}

fn with_unit(text: &str, units: &[(&[&str], i64)]) -> Option<i64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let unit = unit.trim().to_ascii_lowercase();
    let (_, factor) = units.iter().find(|(names, _)| names.contains(&unit.as_str()))?;
    number.parse::<i64>().ok()?.checked_mul(*factor)
}
