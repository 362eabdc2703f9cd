//! Dates and times from text and numbers, exactly.
//!
//! Neighbours: `convert`. Invariant: 1. what does not fit the wanted precision
//! is refused, not rounded.

use siltstone_format::{
    calendar::{date_of, days_of},
    value::Value,
};

/// Nanoseconds of a day.
const DAY_NANOS: i128 = 86_400_000_000_000;

/// Units of numeric times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Days,
    Seconds,
    Millis,
    Micros,
    Nanos,
}

impl Unit {
    pub(crate) fn nanos(self) -> i128 {
        match self {
            Self::Days => DAY_NANOS,
            Self::Seconds => 1_000_000_000,
            Self::Millis => 1_000_000,
            Self::Micros => 1_000,
            Self::Nanos => 1,
        }
    }
}

/// A minute of a day by a format of `%Y`, `%m`, `%d`, `%H`, `%M` and other characters.
pub(crate) fn show(format: &str, days: i64, minute: i64) -> String {
    let (year, month, day) = date_of(days);
    let mut out = String::with_capacity(format.len() + 6);
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        match (letter, if letter == '%' { letters.next() } else { None }) {
            ('%', Some('Y')) => out.push_str(&format!("{year:04}")),
            ('%', Some('m')) => out.push_str(&format!("{month:02}")),
            ('%', Some('d')) => out.push_str(&format!("{day:02}")),
            ('%', Some('H')) => out.push_str(&format!("{:02}", minute / 60)),
            ('%', Some('M')) => out.push_str(&format!("{:02}", minute % 60)),
            _ => out.push(letter),
        }
    }
    out
}

/// True for a format that [`show`] knows and that tells years apart.
pub(crate) fn is_format(format: &str) -> bool {
    let mut known = true;
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        known &= letter != '%' || matches!(letters.next(), Some('Y' | 'm' | 'd' | 'H' | 'M'));
    }
    known && format.contains("%Y")
}

fn digits(text: &str, min: usize, max: usize) -> Option<i64> {
    ((min..=max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Days since 1970 of `YYYY-MM-DD`.
pub(crate) fn parse_date(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, '-');
    let (y, m, d) = (digits(parts.next()?, 4, 6)?, digits(parts.next()?, 2, 2)?, digits(parts.next()?, 2, 2)?);
    if !(1..=12).contains(&m) {
        return None;
    }
    let days = days_of(y, m, d);
    (date_of(days) == (y, m, d)).then_some(days)
}

/// Nanoseconds of the day of `HH:MM[:SS[.fraction]]`.
pub(crate) fn parse_time(text: &str) -> Option<i128> {
    let (clock, fraction) = text.split_once('.').map_or((text, None), |(c, f)| (c, Some(f)));
    let mut parts = clock.splitn(3, ':');
    let (h, m) = (digits(parts.next()?, 2, 2)?, digits(parts.next()?, 2, 2)?);
    let s = parts.next().map_or(Some(0), |s| digits(s, 2, 2))?;
    let nanos = match fraction {
        None => 0,
        Some(f) => digits(f, 1, 9)? * 10i64.pow(9 - u32::try_from(f.len()).ok()?),
    };
    (h < 24 && m < 60 && s < 60).then(|| i128::from((h * 60 + m) * 60 + s) * 1_000_000_000 + i128::from(nanos))
}

/// Nanoseconds since 1970 of an ISO date-time, with `Z` or an offset where one is given, and whether one was.
pub(crate) fn parse_timestamp(text: &str) -> Option<(i128, bool)> {
    let (date, rest) = text.split_once(['T', ' '])?;
    let (clock, offset_minutes, zoned) = match rest.find(['Z', 'z', '+', '-']) {
        None => (rest, 0, false),
        Some(place) => {
            let (clock, zone) = rest.split_at(place);
            (clock, parse_offset(zone)?, true)
        }
    };
    let nanos = i128::from(parse_date(date)?) * DAY_NANOS + parse_time(clock)?;
    Some((nanos - i128::from(offset_minutes) * 60_000_000_000, zoned))
}

fn parse_offset(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let zone = zone.get(1..)?;
    let (h, m) = match zone.split_once(':') {
        Some((h, m)) => (digits(h, 2, 2)?, digits(m, 2, 2)?),
        None if zone.len() == 4 => (digits(zone.get(..2)?, 2, 2)?, digits(zone.get(2..)?, 2, 2)?),
        None => (digits(zone, 2, 2)?, 0),
    };
    (h <= 18 && m < 60).then_some(sign * (h * 60 + m))
}

/// The nanoseconds that one step of a time of `precision` digits has.
pub(crate) fn step(precision: u8) -> i128 {
    10i128.pow(9u32.saturating_sub(u32::from(precision)))
}

/// A timestamp value of `precision` digits; `None` when digits would be lost or the year is beyond reach.
pub(crate) fn timestamp(nanos: i128, precision: u8) -> Option<Value> {
    if nanos.rem_euclid(step(precision)) != 0 {
        return None;
    }
    let millis = i64::try_from(nanos.div_euclid(1_000_000)).ok()?;
    // What microsecond columns can hold: about the years -290,000 to 294,000; nanosecond columns 1677 to 2262.
    let limit = if precision > 6 { i64::MAX / 1_000_000 } else { i64::MAX / 1_000 };
    (-limit..=limit)
        .contains(&millis)
        .then_some(Value::Timestamp { millis, nanos: u32::try_from(nanos.rem_euclid(1_000_000)).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_checked_against_the_calendar() {
        assert_eq!(parse_date("1970-01-01"), Some(0));
        assert_eq!(parse_date("2024-02-29"), Some(19_782));
        assert_eq!(parse_date("1969-12-31"), Some(-1));
        for days in [-719_468, -1, 0, 59, 19_782, 2_932_896] {
            assert_eq!(parse_date(&show("%Y-%m-%d", days, 0)), Some(days));
        }
        for bad in ["2023-02-29", "2024-13-01", "2024-00-10", "2024-1-1", "24-01-01", "x", "2024-01-01T"] {
            assert_eq!(parse_date(bad), None, "{bad}");
        }
    }

    #[test]
    fn formats_write_days_and_hours() {
        assert_eq!(show("%Y-%m-%d", 19_782, 0), "2024-02-29");
        assert_eq!(show("%Y%m%d%H%M", 19_782, 785), "202402291305");
        assert_eq!(show("day=%d %Y", 3_000_000, 0), "day=21 10183");
        assert!(is_format("%Y/%m") && !is_format("%m") && !is_format("%Y%") && !is_format("%Y%s"));
    }

    #[test]
    fn timestamps_know_offsets_and_refuse_to_lose_digits() {
        let nanos = |t| parse_timestamp(t).map(|(n, _)| n);
        assert_eq!(nanos("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(nanos("1970-01-01 02:00:00+02:00"), Some(0));
        assert_eq!(nanos("1969-12-31T23:59:59.5"), Some(-500_000_000));
        assert_eq!(nanos("1970-01-01T00:00"), Some(0));
        assert_eq!(nanos("1970-01-01T24:00:00"), None);
        assert_eq!(timestamp(-1_000, 6), Some(Value::Timestamp { millis: -1, nanos: 999_000 }));
        assert_eq!(timestamp(1_000, 3), None, "a microsecond does not fit milliseconds");
    }
}
