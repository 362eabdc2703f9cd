//! Partition values to directory names (paimon-format.md section 8).
//!
//! Above: `path` and every writer. Invariants: 1. equal to Java's text for every type, both for `partition.legacy-name` true and
//! false; 2. types whose text the engines disagree on are refused here, so that no file is put where nobody finds it.

use crate::{
    calendar::date_of,
    error::{FormatError, Result},
    schema::TableSchema,
    types::{DataType, TypeKind},
    value::Value,
};

/// Default of option `partition.default-name`.
pub const DEFAULT_PARTITION_NAME: &str = "__DEFAULT_PARTITION__";

/// Makes partition paths for one table.
#[derive(Debug, Clone)]
pub struct PartitionPaths {
    columns: Vec<(String, DataType)>,
    default_name: String,
    legacy_name: bool,
}

impl PartitionPaths {
    /// For a schema's partition columns and the options `partition.default-name` and `partition.legacy-name`.
    #[must_use]
    pub fn new(schema: &TableSchema, default_name: &str, legacy_name: bool) -> Self {
        let field = |name: &String| schema.field(name).map(|f| (f.name.clone(), f.data_type.clone()));
        let columns = schema.partition_keys.iter().filter_map(field).collect();
        Self { columns, default_name: default_name.to_owned(), legacy_name }
    }

    /// `a=1/b=x` for these values, escaped; empty on tables without partitions.
    ///
    /// # Errors
    /// Invalid when the values are not of the columns' types, Unsupported for types without an agreed text.
    pub fn path(&self, values: &[Value]) -> Result<String> {
        if values.len() != self.columns.len() {
            return Err(FormatError::invalid(
                "partition",
                format!("{} values for {} columns", values.len(), self.columns.len()),
            ));
        }
        let mut out = String::new();
        for ((name, data_type), value) in self.columns.iter().zip(values) {
            if !out.is_empty() {
                out.push('/');
            }
            escape(name, &mut out);
            out.push('=');
            escape(&self.text(name, value, &data_type.kind)?, &mut out);
        }
        Ok(out)
    }

    /// The (name, text) pairs of these values, unescaped: what people and REST clients see.
    ///
    /// # Errors
    /// As [`PartitionPaths::path`].
    pub fn spec(&self, values: &[Value]) -> Result<Vec<(String, String)>> {
        let pairs = self.columns.iter().zip(values);
        pairs.map(|((name, t), value)| Ok((name.clone(), self.text(name, value, &t.kind)?))).collect()
    }

    fn text(&self, name: &str, value: &Value, kind: &TypeKind) -> Result<String> {
        let text = match (value, kind) {
            (Value::Null, _) => String::new(),
            (Value::Boolean(v), TypeKind::Boolean) => v.to_string(),
            (Value::TinyInt(v), TypeKind::TinyInt) => v.to_string(),
            (Value::SmallInt(v), TypeKind::SmallInt) => v.to_string(),
            (Value::Int(v), TypeKind::Int) => v.to_string(),
            (Value::BigInt(v), TypeKind::BigInt) => v.to_string(),
            (Value::String(v), TypeKind::Char(_) | TypeKind::VarChar(_)) => v.clone(),
            (Value::Date(v), TypeKind::Date) | (Value::Time(v), TypeKind::Time(_)) if self.legacy_name => v.to_string(),
            (Value::Date(v), TypeKind::Date) => date_text(i64::from(*v)),
            (Value::Time(v), TypeKind::Time(p)) => time_text(*v, *p),
            (Value::Decimal(v), TypeKind::Decimal { scale, .. }) => decimal_text(*v, *scale),
            (Value::Timestamp { .. }, TypeKind::LocalTimestamp(_)) if !self.legacy_name => {
                let what = format!("partition column `{name}` of type {kind} with partition.legacy-name = false");
                return Err(FormatError::unsupported(
                    what,
                    "its directory depends on each writer's time zone: partition by DATE instead",
                ));
            }
            (Value::Timestamp { millis, nanos }, TypeKind::Timestamp(p) | TypeKind::LocalTimestamp(p)) => {
                if self.legacy_name { legacy_timestamp(*millis, *nanos) } else { timestamp_text(*millis, *nanos, *p) }
            }
            (Value::Float(_) | Value::Double(_) | Value::Bytes(_), _) => {
                let remedy =
                    "partition by STRING, INT, BIGINT, DATE or BOOLEAN: the engines disagree on this type's directory";
                return Err(FormatError::unsupported(format!("partition column `{name}` of type {kind}"), remedy));
            }
            _ => {
                return Err(FormatError::invalid(
                    format!("partition value {value:.40?}"),
                    format!("is not of type {kind} of `{name}`"),
                ));
            }
        };
        let blank = text.chars().all(is_java_whitespace);
        Ok(if blank { self.default_name.clone() } else { text })
    }
}

/// Java's `Character.isWhitespace`: no no-break spaces, but the four separators below the space.
fn is_java_whitespace(c: char) -> bool {
    matches!(c, '\u{1c}'..='\u{1f}')
        || (c.is_whitespace() && !matches!(c, '\u{85}' | '\u{a0}' | '\u{2007}' | '\u{202f}'))
}

/// Escapes as Java's `PartitionPathUtils.escapePathName`: `%XX` for control characters and the listed ones, nothing else.
fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        let special = matches!(
            c,
            '\0'..='\u{1f}'
                | '\u{7f}'
                | '"'
                | '#'
                | '%'
                | '\''
                | '*'
                | '/'
                | ':'
                | '='
                | '?'
                | '\\'
                | '{'
                | '}'
                | '['
                | ']'
                | '^'
        );
        if special {
            out.push_str(&format!("%{:02X}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
}

fn date_text(days: i64) -> String {
    let (year, month, day) = date_of(days);
    // Java's LocalDate: four digits at least, a plus sign beyond 9999.
    let year = match year {
        10_000.. => format!("+{year}"),
        0..=9_999 => format!("{year:04}"),
        _ => format!("-{:04}", -year),
    };
    format!("{year}-{month:02}-{day:02}")
}

fn clock(millis_of_day: i64) -> (i64, i64, i64) {
    let seconds = millis_of_day / 1000;
    (seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn time_text(millis_of_day: i32, precision: u8) -> String {
    let (h, m, s) = clock(i64::from(millis_of_day));
    let mut out = format!("{h:02}:{m:02}:{s:02}");
    let mut millis = millis_of_day % 1000;
    if precision > 0 {
        out.push('.');
        for _ in 0..precision {
            out.push_str(&(millis / 100).to_string());
            millis = millis % 100 * 10;
            if millis == 0 {
                break;
            }
        }
    }
    out
}

/// Java's `LocalDateTime.toString`: seconds left out when zero, the fraction in groups of three digits.
fn legacy_timestamp(millis: i64, nanos: u32) -> String {
    let (day, of_day) = (millis.div_euclid(86_400_000), millis.rem_euclid(86_400_000));
    let (h, m, s) = clock(of_day);
    let fraction = of_day % 1000 * 1_000_000 + i64::from(nanos);
    let mut out = format!("{}T{h:02}:{m:02}", date_text(day));
    if s != 0 || fraction != 0 {
        out.push_str(&format!(":{s:02}"));
    }
    match fraction {
        0 => {}
        f if f % 1_000_000 == 0 => out.push_str(&format!(".{:03}", f / 1_000_000)),
        f if f % 1_000 == 0 => out.push_str(&format!(".{:06}", f / 1_000)),
        f => out.push_str(&format!(".{f:09}")),
    }
    out
}

/// Java's cast to STRING: at least `precision` digits of fraction, more only where they are not zero.
fn timestamp_text(millis: i64, nanos: u32, precision: u8) -> String {
    let (day, of_day) = (millis.div_euclid(86_400_000), millis.rem_euclid(86_400_000));
    let (h, m, s) = clock(of_day);
    let mut fraction = format!("{:09}", of_day % 1000 * 1_000_000 + i64::from(nanos));
    while fraction.len() > usize::from(precision) && fraction.ends_with('0') {
        fraction.pop();
    }
    let dot = if fraction.is_empty() { "" } else { "." };
    format!("{} {h:02}:{m:02}:{s:02}{dot}{fraction}", date_text(day))
}

/// Java's `BigDecimal.toString`: plain, except for numbers that start more than six places behind the point.
pub(crate) fn decimal_text(unscaled: i128, scale: u8) -> String {
    let sign = if unscaled < 0 { "-" } else { "" };
    let digits = unscaled.unsigned_abs().to_string();
    let scale = usize::from(scale);
    if scale == 0 {
        return format!("{sign}{digits}");
    }
    if scale + 1 > digits.len() + 6 {
        let exponent = scale + 1 - digits.len();
        let (first, rest) = digits.split_at(1);
        let dot = if rest.is_empty() { "" } else { "." };
        return format!("{sign}{first}{dot}{rest}E-{exponent}");
    }
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn paths(types: &[&str], legacy: bool) -> PartitionPaths {
        let column = |(i, text): (usize, &&str)| (format!("p{i}"), DataType::parse(text).unwrap());
        PartitionPaths {
            columns: types.iter().enumerate().map(column).collect(),
            default_name: DEFAULT_PARTITION_NAME.into(),
            legacy_name: legacy,
        }
    }

    /// The table of paimon-format.md section 8, seen from Java.
    #[test]
    fn golden_partition_texts_equal_java() {
        let ts = |millis, nanos| Value::Timestamp { millis, nanos };
        let cases = [
            ("DATE", Value::Date(19_700), "19700", "2023-12-09"),
            ("TIMESTAMP(3)", ts(1_700_000_000_000, 0), "2023-11-14T22%3A13%3A20", "2023-11-14 22%3A13%3A20.000"),
            (
                "TIMESTAMP(6)",
                ts(1_700_000_000_123, 456_000),
                "2023-11-14T22%3A13%3A20.123456",
                "2023-11-14 22%3A13%3A20.123456",
            ),
            ("TIMESTAMP(0)", ts(1_699_920_000_000, 0), "2023-11-14T00%3A00", "2023-11-14 00%3A00%3A00"),
            ("TIMESTAMP(0)", ts(1_700_000_000_500, 0), "2023-11-14T22%3A13%3A20.500", "2023-11-14 22%3A13%3A20.5"),
            ("TIMESTAMP(9)", ts(60_000, 7), "1970-01-01T00%3A01%3A00.000000007", "1970-01-01 00%3A01%3A00.000000007"),
            ("TIME(0)", Value::Time(3_723_000), "3723000", "01%3A02%3A03"),
            ("TIME(3)", Value::Time(3_723_000), "3723000", "01%3A02%3A03.0"),
            ("TIME(3)", Value::Time(3_723_120), "3723120", "01%3A02%3A03.12"),
            ("TIME(3)", Value::Time(3_723_005), "3723005", "01%3A02%3A03.005"),
            ("TIME(2)", Value::Time(3_723_129), "3723129", "01%3A02%3A03.12"),
            ("DECIMAL(10, 2)", Value::Decimal(150), "1.50", "1.50"),
            ("BOOLEAN", Value::Boolean(true), "true", "true"),
            ("TINYINT", Value::TinyInt(-5), "-5", "-5"),
            ("SMALLINT", Value::SmallInt(5), "5", "5"),
            ("BIGINT", Value::BigInt(5), "5", "5"),
            ("INT", Value::Int(5), "5", "5"),
            ("STRING", Value::String("a/b=c d%é".into()), "a%2Fb%3Dc d%25é", "a%2Fb%3Dc d%25é"),
            ("STRING", Value::String("  ".into()), DEFAULT_PARTITION_NAME, DEFAULT_PARTITION_NAME),
            ("STRING", Value::String(String::new()), DEFAULT_PARTITION_NAME, DEFAULT_PARTITION_NAME),
            ("STRING", Value::String("\u{1c}".into()), DEFAULT_PARTITION_NAME, DEFAULT_PARTITION_NAME),
            ("STRING", Value::String("\0".into()), "%00", "%00"),
            ("STRING", Value::String("\u{a0}".into()), "\u{a0}", "\u{a0}"),
            ("INT", Value::Null, DEFAULT_PARTITION_NAME, DEFAULT_PARTITION_NAME),
            ("DATE", Value::Date(-1), "-1", "1969-12-31"),
        ];
        for (name, value, legacy, new) in cases {
            for (expected, flag) in [(legacy, true), (new, false)] {
                let path = paths(&[name], flag).path(std::slice::from_ref(&value)).unwrap();
                assert_eq!(path, format!("p0={expected}"), "{name} {flag}");
            }
        }
    }

    #[test]
    fn several_columns_make_several_directories() {
        let path = paths(&["STRING", "INT"], true).path(&[Value::String("x".into()), Value::Int(-1)]).unwrap();
        assert_eq!(path, "p0=x/p1=-1");
        let spec = paths(&["STRING", "INT"], true).spec(&[Value::String("x/y".into()), Value::Null]).unwrap();
        let expected = [("p0", "x/y"), ("p1", DEFAULT_PARTITION_NAME)];
        assert_eq!(spec, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
        assert_eq!(paths(&[], true).path(&[]).unwrap(), "");
    }

    #[test]
    fn unportable_or_mistyped_values_are_refused() {
        for (name, value, kind) in [
            ("DOUBLE", Value::Double(1.0), ErrorKind::Unsupported),
            ("BYTES", Value::Bytes(vec![1]), ErrorKind::Unsupported),
            ("INT", Value::BigInt(1), ErrorKind::Invalid),
        ] {
            assert_eq!(paths(&[name], true).path(&[value]).unwrap_err().kind(), kind, "{name}");
        }
        assert!(paths(&["INT"], true).path(&[]).is_err());
        let zoned = [Value::Timestamp { millis: 0, nanos: 0 }];
        assert_eq!(paths(&["TIMESTAMP_LTZ(3)"], true).path(&zoned).unwrap(), "p0=1970-01-01T00%3A00");
        assert!(paths(&["TIMESTAMP_LTZ(3)"], false).path(&zoned).is_err());
    }

    #[test]
    fn decimals_print_as_big_decimal() {
        let cases = [
            (0, 2, "0.00"),
            (-5, 2, "-0.05"),
            (123_456, 3, "123.456"),
            (1, 6, "0.000001"),
            (1, 7, "1E-7"),
            (-12, 9, "-1.2E-8"),
            (7, 0, "7"),
        ];
        for (unscaled, scale, text) in cases {
            assert_eq!(decimal_text(unscaled, scale), text);
        }
    }

    #[test]
    fn calendar_is_right_at_its_corners() {
        for (days, text) in [
            (0, "1970-01-01"),
            (11_016, "2000-02-29"),
            (-719_162, "0001-01-01"),
            (-719_528, "0000-01-01"),
            (2_932_897, "+10000-01-01"),
            (-719_529, "-0001-12-31"),
        ] {
            assert_eq!(date_text(days), text);
        }
        // Day by day through two eras of 400 years, from 401 BC on.
        let (mut year, mut month, mut day) = (-400, 1, 1);
        for days in -865_625_i64..-865_625 + 2 * 146_097 {
            assert_eq!(crate::calendar::date_of(days), (year, month, day), "{days}");
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 if leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
        assert_eq!(legacy_timestamp(-1, 0), "1969-12-31T23:59:59.999");
        assert_eq!(timestamp_text(-1, 0, 3), "1969-12-31 23:59:59.999");
        for millis in [i64::MIN, i64::MAX] {
            assert!(legacy_timestamp(millis, 0).len() > 10);
        }
    }
}
