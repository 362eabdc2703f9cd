//! Types as people write them (`ARRAY<INT>`, `MAP<STRING NOT NULL, ROW<x INT, y DATE>>`), nested ones included.
//!
//! Neighbours: `text` reads leaf types; schema files hold nested types as JSON objects (`schema::json`). Above: whoever creates tables.
//! Invariant: 1. what [`DataType`] prints is read back to the same type.

use super::{DataType, RowField, TypeKind, text::refuse_by_name};
use crate::{
    error::{FormatError, Result},
    id::FieldId,
};

/// Longest text that is read.
const MAX_LENGTH: usize = 8_192;
/// Deepest nesting, as in schema files.
const MAX_DEPTH: usize = 32;

impl DataType {
    /// Reads a type as SQL writes it. Fields of a ROW get the id 0: the schema numbers them.
    ///
    /// # Errors
    /// Unsupported for VARIANT, BLOB, VECTOR and the like; Invalid for anything that is not a type.
    pub fn parse_sql(text: &str) -> Result<Self> {
        if text.len() > MAX_LENGTH {
            return Err(fault(text, "longer than any type"));
        }
        read(text, 0)
    }
}

fn fault(text: &str, detail: &str) -> FormatError {
    FormatError::invalid(format!("type `{text:.80}`"), detail)
}

fn read(text: &str, depth: usize) -> Result<DataType> {
    let text = text.trim();
    let Some((head, rest)) = text.split_once('<') else { return DataType::parse(text) };
    if depth >= MAX_DEPTH {
        return Err(fault(text, "nested too deep"));
    }
    let (inner, after) = rest.rsplit_once('>').ok_or_else(|| fault(text, "a `<` is left open"))?;
    let nullable = match after.split_whitespace().map(str::to_ascii_uppercase).collect::<Vec<_>>().join(" ").as_str() {
        "" | "NULL" => true,
        "NOT NULL" => false,
        _ => return Err(fault(text, "only NULL or NOT NULL may follow a `>`")),
    };
    let parts = split(inner).ok_or_else(|| fault(text, "brackets do not match"))?;
    let one = || match parts.as_slice() {
        [element] => read(element, depth + 1).map(Box::new),
        _ => Err(fault(text, "takes one type between its brackets")),
    };
    let head = head.trim().to_ascii_uppercase();
    let kind = match head.as_str() {
        "ARRAY" => TypeKind::Array(one()?),
        "MULTISET" => TypeKind::Multiset(one()?),
        "MAP" => match parts.as_slice() {
            [key, value] => TypeKind::Map(Box::new(read(key, depth + 1)?), Box::new(read(value, depth + 1)?)),
            _ => return Err(fault(text, "takes two types: MAP<key, value>")),
        },
        "ROW" => TypeKind::Row(parts.iter().map(|part| field(part, depth + 1)).collect::<Result<_>>()?),
        name => {
            refuse_by_name(name)?;
            return Err(fault(text, "only ARRAY, MAP, MULTISET and ROW take types between `<` and `>`"));
        }
    };
    Ok(DataType { kind, nullable })
}

/// `name TYPE`
fn field(text: &str, depth: usize) -> Result<RowField> {
    let (name, kind) =
        text.trim().split_once(char::is_whitespace).ok_or_else(|| fault(text, "a field of a ROW is NAME TYPE"))?;
    Ok(RowField { id: FieldId(0), name: name.to_owned(), data_type: read(kind, depth)?, description: None })
}

/// Parts between the commas that stand in no bracket; `None` when brackets do not match.
fn split(text: &str) -> Option<Vec<&str>> {
    let (mut parts, mut open, mut start) = (Vec::new(), Vec::new(), 0);
    for (at, c) in text.char_indices() {
        match c {
            '<' | '(' => open.push(c),
            '>' if open.pop() != Some('<') => return None,
            ')' if open.pop() != Some('(') => return None,
            ',' if open.is_empty() => {
                parts.push(text.get(start..at)?);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text.get(start..)?);
    open.is_empty().then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_types_are_read_as_they_are_printed() {
        for text in [
            "ARRAY<INT>",
            "ARRAY<STRING NOT NULL> NOT NULL",
            "MULTISET<STRING>",
            "MAP<INT NOT NULL, DECIMAL(20, 2)>",
            "ROW<x INT, at TIMESTAMP(6), y ARRAY<DOUBLE>>",
            "ARRAY<ROW<name STRING, tags MAP<STRING NOT NULL, ARRAY<DATE>> NOT NULL>>",
            "TIMESTAMP(3) WITH LOCAL TIME ZONE",
        ] {
            assert_eq!(DataType::parse_sql(text).unwrap().to_string(), text);
        }
        assert_eq!(
            DataType::parse_sql(" map < string , int > not  null").unwrap().to_string(),
            "MAP<STRING, INT> NOT NULL"
        );
        assert_eq!(DataType::parse_sql("ARRAY<INT> null").unwrap().to_string(), "ARRAY<INT>");
    }

    #[test]
    fn what_is_no_type_is_refused_in_words() {
        for (text, words) in [
            ("ARRAY<INT", "left open"),
            ("ARRAY<>", "type name"),
            ("ARRAY<INT, INT>", "one type"),
            ("MAP<INT>", "two types"),
            ("ROW<x>", "NAME TYPE"),
            ("ARRAY<INT>>", "brackets do not match"),
            ("ARRAY<INT> MAYBE", "NOT NULL"),
            ("INT<INT>", "only ARRAY"),
            ("VECTOR<FLOAT, 3>", "VECTOR"),
        ] {
            let error = DataType::parse_sql(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert!(DataType::parse_sql(&"ARRAY<".repeat(100)).is_err());
        for (open, close) in [("ARRAY<", ">"), ("MAP<INT, ", ">"), ("MAP<", ", INT>"), ("ROW<x ", ">")] {
            let nested =
                |depth: usize| DataType::parse_sql(&format!("{}INT{}", open.repeat(depth), close.repeat(depth)));
            assert!(nested(MAX_DEPTH).is_ok(), "{open}");
            assert!(nested(MAX_DEPTH + 1).unwrap_err().to_string().contains("too deep"), "{open}");
        }
        let padded = |length: usize| DataType::parse_sql(&format!("{:length$}", "INT"));
        assert!(padded(MAX_LENGTH).is_ok() && padded(MAX_LENGTH + 1).is_err());
    }
}
