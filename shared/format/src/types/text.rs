//! Type strings (`DECIMAL(10, 2) NOT NULL`) to types and back (paimon-format.md section 2).
//!
//! Neighbours: `schema::json` calls it for every leaf type and for the word of a nested type object.
//! Invariants: 1. what is printed is canonical (upper case, explicit precision), since paimon-rust reads nothing else;
//! 2. reading takes what Java and pypaimon take: any case, aliases, free spacing; 3. types without a BinaryRow here are refused by name.

use std::fmt;

use super::{DataType, STRING_LENGTH, TypeKind};
use crate::error::{FormatError, Result};

/// Longest type string that is read; the longest canonical one has 48 characters.
const MAX_LENGTH: usize = 256;

impl fmt::Display for DataType {
    /// The canonical form. A nested type prints as SQL text (`ARRAY<INT>`), which schema files do not hold: see `schema::json`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)?;
        if self.nullable { Ok(()) } else { f.write_str(" NOT NULL") }
    }
}

impl fmt::Display for TypeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("BOOLEAN"),
            Self::TinyInt => f.write_str("TINYINT"),
            Self::SmallInt => f.write_str("SMALLINT"),
            Self::Int => f.write_str("INT"),
            Self::BigInt => f.write_str("BIGINT"),
            Self::Float => f.write_str("FLOAT"),
            Self::Double => f.write_str("DOUBLE"),
            Self::Decimal { precision, scale } => write!(f, "DECIMAL({precision}, {scale})"),
            Self::Char(n) => write!(f, "CHAR({n})"),
            Self::VarChar(STRING_LENGTH) => f.write_str("STRING"),
            Self::VarChar(n) => write!(f, "VARCHAR({n})"),
            Self::Binary(n) => write!(f, "BINARY({n})"),
            Self::VarBinary(STRING_LENGTH) => f.write_str("BYTES"),
            Self::VarBinary(n) => write!(f, "VARBINARY({n})"),
            Self::Date => f.write_str("DATE"),
            Self::Time(p) => write!(f, "TIME({p})"),
            Self::Timestamp(p) => write!(f, "TIMESTAMP({p})"),
            Self::LocalTimestamp(p) => write!(f, "TIMESTAMP({p}) WITH LOCAL TIME ZONE"),
            Self::Array(element) => write!(f, "ARRAY<{element}>"),
            Self::Map(key, value) => write!(f, "MAP<{key}, {value}>"),
            Self::Multiset(element) => write!(f, "MULTISET<{element}>"),
            Self::Row(fields) => {
                f.write_str("ROW<")?;
                for (i, field) in fields.iter().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    write!(f, "{comma}{} {}", field.name, field.data_type)?;
                }
                f.write_str(">")
            }
        }
    }
}

impl DataType {
    /// Reads a type string of a leaf type, canonical or as Java and pypaimon take it.
    ///
    /// # Errors
    /// Unsupported for VARIANT, BLOB, VECTOR and the like; Invalid for anything that is not a type.
    pub fn parse(text: &str) -> Result<Self> {
        let fault = |detail: &str| FormatError::invalid(format!("type `{}`", shorten(text)), detail);
        if text.len() > MAX_LENGTH {
            return Err(fault("longer than any type"));
        }
        let words = tokens(text).map_err(fault)?;
        let mut words = words.as_slice();
        let nullable = take_nullability(&mut words);
        let (Some(Token::Word(name)), rest) = (words.first(), words.get(1..).unwrap_or_default()) else {
            return Err(fault("does not start with a type name"));
        };
        refuse_by_name(name)?;
        refuse_nested(name).map_err(fault)?;
        let (parameters, suffix) = take_parameters(rest).map_err(fault)?;
        let kind = leaf(name, &parameters, &suffix).map_err(|detail| fault(&detail))?;
        Ok(Self { kind, nullable })
    }
}

/// Nested types without their parts, or with them in parentheses.
fn refuse_nested(name: &str) -> std::result::Result<(), &'static str> {
    match name {
        "ARRAY" | "MULTISET" => Err("takes the type of its elements in angle brackets: ARRAY<INT>, MULTISET<INT>"),
        "MAP" => Err("takes the types of its keys and values in angle brackets: MAP<STRING, INT>"),
        "ROW" => Err("takes its fields in angle brackets: ROW<a INT, b STRING>"),
        _ => Ok(()),
    }
}

/// Refuses the types that Paimon has and this version does not carry.
///
/// # Errors
/// Unsupported with the type's name.
pub(crate) fn refuse_by_name(name: &str) -> Result<()> {
    const REFUSED: [&str; 7] = ["VARIANT", "BLOB", "BLOB_DESCRIPTOR", "VECTOR", "GEOMETRY", "GEOGRAPHY", "INTERVAL"];
    if REFUSED.contains(&name) {
        let remedy = "leave this table to Java Paimon, or keep the column as STRING or BYTES";
        return Err(FormatError::unsupported(format!("column type {name}"), remedy));
    }
    Ok(())
}

#[derive(Debug, PartialEq)]
enum Token {
    Word(String),
    Number(u32),
    Open,
    Close,
    Comma,
}

fn tokens(text: &str) -> std::result::Result<Vec<Token>, &'static str> {
    let mut out = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => {}
            '(' => out.push(Token::Open),
            ')' => out.push(Token::Close),
            ',' => out.push(Token::Comma),
            c if c.is_ascii_alphanumeric() || c == '_' => {
                let mut word = String::from(c);
                while let Some(next) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    word.push(next);
                }
                if word.bytes().all(|b| b.is_ascii_digit()) {
                    out.push(Token::Number(word.parse().map_err(|_| "a number is too large")?));
                } else {
                    out.push(Token::Word(word.to_ascii_uppercase()));
                }
            }
            _ => return Err("has a character that no type has"),
        }
    }
    Ok(out)
}

/// Cuts a trailing `NOT NULL` or `NULL` off and says whether null is taken.
fn take_nullability(words: &mut &[Token]) -> bool {
    let is = |token: Option<&Token>, text: &str| matches!(token, Some(Token::Word(w)) if w == text);
    if !is(words.last(), "NULL") {
        return true;
    }
    *words = words.get(..words.len() - 1).unwrap_or_default();
    let not = is(words.last(), "NOT");
    if not {
        *words = words.get(..words.len() - 1).unwrap_or_default();
    }
    !not
}

/// Splits what follows the name into the numbers in parentheses and the words behind (or before) them.
fn take_parameters(rest: &[Token]) -> std::result::Result<(Vec<u32>, String), &'static str> {
    let (mut numbers, mut words, mut inside, mut seen) = (Vec::new(), Vec::new(), false, false);
    let mut expect_number = false;
    for token in rest {
        match token {
            Token::Open if !inside && !seen => (inside, seen, expect_number) = (true, true, true),
            Token::Close if inside && !expect_number => inside = false,
            Token::Number(n) if inside && expect_number => {
                numbers.push(*n);
                expect_number = false;
            }
            Token::Comma if inside && !expect_number => expect_number = true,
            Token::Word(w) if !inside => words.push(w.as_str()),
            _ => return Err("parentheses and numbers do not match"),
        }
    }
    if inside { Err("a parenthesis is left open") } else { Ok((numbers, words.join(" "))) }
}

fn leaf(name: &str, parameters: &[u32], suffix: &str) -> std::result::Result<TypeKind, String> {
    let plain = |kind: TypeKind| {
        if parameters.is_empty() { Ok(kind) } else { Err(format!("{name} takes no parameters")) }
    };
    let kind = match name {
        "BOOLEAN" => plain(TypeKind::Boolean),
        "TINYINT" => plain(TypeKind::TinyInt),
        "SMALLINT" => plain(TypeKind::SmallInt),
        "INT" | "INTEGER" => plain(TypeKind::Int),
        "BIGINT" => plain(TypeKind::BigInt),
        "FLOAT" => plain(TypeKind::Float),
        "DOUBLE" => plain(TypeKind::Double),
        "DATE" => plain(TypeKind::Date),
        "STRING" => plain(TypeKind::VarChar(STRING_LENGTH)),
        "BYTES" => plain(TypeKind::VarBinary(STRING_LENGTH)),
        "CHAR" => length(parameters).map(TypeKind::Char),
        "VARCHAR" => length(parameters).map(TypeKind::VarChar),
        "BINARY" => length(parameters).map(TypeKind::Binary),
        "VARBINARY" => length(parameters).map(TypeKind::VarBinary),
        "DECIMAL" | "NUMERIC" | "DEC" => decimal(parameters),
        "TIME" => fraction(parameters, 0).map(TypeKind::Time),
        "TIMESTAMP" if suffix == "WITH LOCAL TIME ZONE" => fraction(parameters, 6).map(TypeKind::LocalTimestamp),
        "TIMESTAMP_LTZ" => fraction(parameters, 6).map(TypeKind::LocalTimestamp),
        "TIMESTAMP" => fraction(parameters, 6).map(TypeKind::Timestamp),
        _ => Err("is no type of Paimon".to_owned()),
    }?;
    let allowed: &[&str] = match kind {
        TypeKind::Double => &["", "PRECISION"],
        TypeKind::Time(_) | TypeKind::Timestamp(_) => &["", "WITHOUT TIME ZONE"],
        TypeKind::LocalTimestamp(_) if name == "TIMESTAMP" => &["WITH LOCAL TIME ZONE"],
        _ => &[""],
    };
    if allowed.contains(&suffix) { Ok(kind) } else { Err(format!("`{suffix}` does not follow {name}")) }
}

fn length(parameters: &[u32]) -> std::result::Result<u32, String> {
    match parameters {
        [] => Ok(1),
        [n @ 1..=STRING_LENGTH] => Ok(*n),
        _ => Err("the length must be one number from 1 to 2147483647".to_owned()),
    }
}

fn decimal(parameters: &[u32]) -> std::result::Result<TypeKind, String> {
    let (precision, scale) = match parameters {
        [] => (10, 0),
        [p] => (*p, 0),
        [p, s] => (*p, *s),
        _ => return Err("DECIMAL takes a precision and a scale".to_owned()),
    };
    match (u8::try_from(precision), u8::try_from(scale)) {
        (Ok(precision @ 1..=38), Ok(scale)) if scale <= precision => Ok(TypeKind::Decimal { precision, scale }),
        _ => Err("the precision must be 1 to 38 and the scale 0 to the precision".to_owned()),
    }
}

fn fraction(parameters: &[u32], default: u8) -> std::result::Result<u8, String> {
    match parameters {
        [] => Ok(default),
        [p @ 0..=9] => u8::try_from(*p).map_err(|e| e.to_string()),
        _ => Err("the precision must be one number from 0 to 9".to_owned()),
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const CANONICAL: [&str; 26] = [
        "BOOLEAN",
        "TINYINT",
        "SMALLINT",
        "INT",
        "BIGINT",
        "FLOAT",
        "DOUBLE",
        "DECIMAL(10, 2)",
        "DECIMAL(38, 38)",
        "CHAR(1)",
        "CHAR(5)",
        "VARCHAR(20)",
        "STRING",
        "BINARY(3)",
        "VARBINARY(9)",
        "BYTES",
        "DATE",
        "TIME(0)",
        "TIME(3)",
        "TIMESTAMP(0)",
        "TIMESTAMP(6)",
        "TIMESTAMP(9)",
        "TIMESTAMP(3) WITH LOCAL TIME ZONE",
        "INT NOT NULL",
        "DECIMAL(1, 0) NOT NULL",
        "TIMESTAMP(6) WITH LOCAL TIME ZONE NOT NULL",
    ];

    #[test]
    fn nested_types_without_angle_brackets_are_refused_with_how_to_write_them() {
        for (text, words) in [
            ("ARRAY", "ARRAY<INT>"),
            ("MULTISET INT", "MULTISET<INT>"),
            ("MAP(STRING, INT)", "MAP<STRING, INT>"),
            ("ROW(a INT)", "ROW<a INT"),
        ] {
            let error = DataType::parse(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn canonical_type_strings_print_as_they_were_read() {
        for text in CANONICAL {
            assert_eq!(DataType::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn lenient_type_strings_read_as_java_reads_them() {
        let cases = [
            ("int not null", "INT NOT NULL"),
            ("INTEGER", "INT"),
            ("string", "STRING"),
            ("VARCHAR(2147483647)", "STRING"),
            ("VARBINARY(2147483647)", "BYTES"),
            ("decimal(10,2)", "DECIMAL(10, 2)"),
            ("NUMERIC( 7 )", "DECIMAL(7, 0)"),
            ("DECIMAL", "DECIMAL(10, 0)"),
            ("TIMESTAMP", "TIMESTAMP(6)"),
            ("TIME", "TIME(0)"),
            ("CHAR", "CHAR(1)"),
            ("DOUBLE PRECISION", "DOUBLE"),
            ("TIMESTAMP (3) WITHOUT TIME ZONE", "TIMESTAMP(3)"),
            ("BIGINT NULL", "BIGINT"),
            ("timestamp_ltz(3)", "TIMESTAMP(3) WITH LOCAL TIME ZONE"),
            ("  INT   NOT  NULL ", "INT NOT NULL"),
            ("TIMESTAMP WITH LOCAL TIME ZONE", "TIMESTAMP(6) WITH LOCAL TIME ZONE"),
        ];
        for (text, canonical) in cases {
            assert_eq!(DataType::parse(text).unwrap().to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn wrong_type_strings_are_refused() {
        for text in [
            "",
            "NOT NULL",
            "INTT",
            "INT(3)",
            "DECIMAL(39, 0)",
            "DECIMAL(3, 4)",
            "DECIMAL(0)",
            "CHAR(0)",
            "CHAR(1,2)",
            "TIMESTAMP(10)",
            "DECIMAL(1",
            "DECIMAL 1)",
            "DECIMAL((1))",
            "DECIMAL(,1)",
            "DECIMAL(1,)",
            "INT ZONE",
            "ARRAY<INT>",
            "ARRAY",
            "VARCHAR(2147483648)",
            "VARCHAR(99999999999999)",
            "TIMESTAMP(3) WITH ZONE",
            "INT\u{0}",
            "DECIMAL(5)(2)",
            "DECIMAL((5)",
            "DECIMAL)",
            "DECIMAL()",
            "DECIMAL 5",
            "DECIMAL(5 2)",
            "DECIMAL,",
            "TIMESTAMP(3 WITHOUT TIME ZONE)",
        ] {
            assert_eq!(DataType::parse(text).unwrap_err().kind(), ErrorKind::Invalid, "{text}");
        }
        assert!(DataType::parse("INT\u{0}").unwrap_err().to_string().contains("a character that no type has"));
        assert!(DataType::parse("nope").unwrap_err().to_string().contains("type `nope`"));
        let padded = |length: usize| DataType::parse(&format!("{:length$}", "INT"));
        assert!(padded(MAX_LENGTH).is_ok() && padded(MAX_LENGTH + 1).is_err());
        assert!(DataType::parse(&"(".repeat(100_000)).is_err());
    }

    #[test]
    fn types_without_support_are_refused_by_name() {
        for text in ["VARIANT", "BLOB NOT NULL", "VECTOR(3)", "geometry", "GEOGRAPHY"] {
            let error = DataType::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{text}");
        }
        assert!(DataType::parse("BLOB").unwrap_err().to_string().contains("column type BLOB is not supported"));
    }
}
