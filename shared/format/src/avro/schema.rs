//! An Avro schema, parsed from the header of a file, far enough to read known fields and skip the others.
//!
//! Above: `manifest` asks for fields by name. Invariants: 1. at most [`MAX_NODES`] nodes after named types are put in their places,
//! so that a small text cannot unfold without end; 2. recursive types are refused, hence skipping always ends.

use std::collections::HashMap;

use serde_json::Value as Json;

/// Most nodes of a schema; Paimon's largest has about 60.
const MAX_NODES: usize = 2_000;
/// Deepest nesting of a schema; Paimon's deepest has 6.
const MAX_DEPTH: usize = 24;

/// What one value looks like.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Schema {
    Null,
    Boolean,
    /// `int`, `long` and enums: one variable-length number.
    Number,
    Float,
    Double,
    /// `bytes` and `string`: a length and that many bytes.
    Bytes,
    Fixed(usize),
    Array(Box<Schema>),
    Map(Box<Schema>),
    Union(Vec<Schema>),
    Record(Vec<(String, Schema)>),
}

impl Schema {
    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        let json: Json = serde_json::from_slice(text).map_err(|e| format!("the Avro schema is not JSON: {e}"))?;
        Parser::default().parse(&json, 0)
    }

    /// The fields of a record, also when it is the second branch of a top-level `["null", record]` as paimon-rust writes it.
    pub(crate) fn top_level(&self) -> Option<(&[(String, Schema)], bool)> {
        match self {
            Self::Record(fields) => Some((fields, false)),
            Self::Union(branches) => match branches.as_slice() {
                [Self::Null, Self::Record(fields)] => Some((fields, true)),
                _ => None,
            },
            _ => None,
        }
    }

    /// The value's schema and whether it may be null. Java takes branch 1 as the value of any union, so only `["null", T]` is one.
    pub(crate) fn optional(&self) -> Option<(&Schema, bool)> {
        match self {
            Self::Union(branches) => match branches.as_slice() {
                [Self::Null, value] if !matches!(value, Self::Union(_) | Self::Null) => Some((value, true)),
                _ => None,
            },
            value => Some((value, false)),
        }
    }
}

#[derive(Default)]
struct Parser {
    named: HashMap<String, Schema>,
    nodes: usize,
}

impl Parser {
    fn parse(&mut self, json: &Json, depth: usize) -> Result<Schema, String> {
        self.count(1)?;
        if depth > MAX_DEPTH {
            return Err(format!("the Avro schema is nested deeper than {MAX_DEPTH}"));
        }
        match json {
            Json::String(name) => self.by_name(name),
            Json::Array(branches) => {
                let branches = branches.iter().map(|b| self.parse(b, depth + 1)).collect::<Result<_, _>>()?;
                Ok(Schema::Union(branches))
            }
            Json::Object(object) => self.parse_object(object, depth),
            _ => Err("the Avro schema holds something that is no type".to_owned()),
        }
    }

    fn parse_object(&mut self, object: &serde_json::Map<String, Json>, depth: usize) -> Result<Schema, String> {
        let part = |key: &str| object.get(key).ok_or_else(|| format!("the Avro schema lacks `{key}`"));
        let name = match part("type")? {
            Json::String(name) => name.as_str(),
            nested => return self.parse(nested, depth + 1),
        };
        let schema = match name {
            "array" => return Ok(Schema::Array(Box::new(self.parse(part("items")?, depth + 1)?))),
            "map" => return Ok(Schema::Map(Box::new(self.parse(part("values")?, depth + 1)?))),
            "enum" => Schema::Number,
            "fixed" => {
                let size = part("size")?.as_u64().and_then(|size| usize::try_from(size).ok());
                Schema::Fixed(size.ok_or("the Avro schema has a fixed type without a size")?)
            }
            "record" => {
                let fields = part("fields")?.as_array().ok_or("the Avro schema has a record without fields")?;
                let field = |json: &Json| {
                    let name =
                        json.get("name").and_then(Json::as_str).ok_or("the Avro schema has a field without a name")?;
                    let data_type = json.get("type").ok_or("the Avro schema has a field without a type")?;
                    Ok((name.to_owned(), self.parse(data_type, depth + 1)?))
                };
                Schema::Record(fields.iter().map(field).collect::<Result<_, String>>()?)
            }
            primitive => return self.by_name(primitive),
        };
        // Defined only after its fields: a reference from inside, which would be recursive, finds nothing.
        if let Some(name) = object.get("name").and_then(Json::as_str) {
            self.named.insert(last_part(name).to_owned(), schema.clone());
        }
        Ok(schema)
    }

    fn by_name(&mut self, name: &str) -> Result<Schema, String> {
        Ok(match name {
            "null" => Schema::Null,
            "boolean" => Schema::Boolean,
            "int" | "long" => Schema::Number,
            "float" => Schema::Float,
            "double" => Schema::Double,
            "bytes" | "string" => Schema::Bytes,
            _ => {
                let schema = self.named.get(last_part(name)).cloned();
                let schema = schema
                    .ok_or_else(|| format!("the Avro schema refers to the unknown or recursive type `{name:.64}`"))?;
                self.count(nodes(&schema))?;
                schema
            }
        })
    }

    fn count(&mut self, more: usize) -> Result<(), String> {
        self.nodes += more;
        if self.nodes > MAX_NODES { Err(format!("the Avro schema has more than {MAX_NODES} types")) } else { Ok(()) }
    }
}

/// Type names are told apart by their last part: Paimon keeps all of a file's in one namespace.
fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn nodes(schema: &Schema) -> usize {
    1 + match schema {
        Schema::Array(inner) | Schema::Map(inner) => nodes(inner),
        Schema::Union(branches) => branches.iter().map(nodes).sum(),
        Schema::Record(fields) => fields.iter().map(|(_, schema)| nodes(schema)).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_types_are_put_in_their_places() {
        let text = r#"{"type":"record","name":"a.b","fields":[{"name":"x","type":{"type":"record","name":"S","fields":[{"name":"n","type":["null","int"]}]}},
            {"name":"y","type":"a.S"},{"name":"z","type":{"type":"long","logicalType":"timestamp-millis"}}]}"#;
        let Schema::Record(fields) = Schema::parse(text.as_bytes()).unwrap() else { panic!("a record") };
        assert_eq!(fields[0].1, fields[1].1);
        assert_eq!(fields[2].1, Schema::Number);
    }

    #[test]
    fn types_of_one_name_are_one_type_and_others_are_not() {
        let text = r#"{"type":"record","name":"top","fields":[
            {"name":"a","type":{"type":"fixed","name":"n.A","size":3}},{"name":"b","type":{"type":"fixed","name":"n.B","size":4}},
            {"name":"c","type":"A"}]}"#;
        let Schema::Record(fields) = Schema::parse(text.as_bytes()).unwrap() else { panic!("a record") };
        assert_eq!(fields[2].1, Schema::Fixed(3));
    }

    #[test]
    fn primitive_types_are_known_by_their_names() {
        for (name, schema) in [
            ("null", Schema::Null),
            ("boolean", Schema::Boolean),
            ("int", Schema::Number),
            ("long", Schema::Number),
            ("float", Schema::Float),
            ("double", Schema::Double),
            ("bytes", Schema::Bytes),
            ("string", Schema::Bytes),
        ] {
            assert_eq!(Schema::parse(format!("\"{name}\"").as_bytes()), Ok(schema));
        }
    }

    #[test]
    fn only_null_and_one_other_type_make_an_optional_value() {
        let number = Schema::Number;
        let union = |branches: &[Schema]| Schema::Union(branches.to_vec());
        assert_eq!(number.optional(), Some((&number, false)));
        assert_eq!(union(&[Schema::Null, Schema::Number]).optional(), Some((&number, true)));
        for branches in
            [&[Schema::Null, Schema::Null][..], &[Schema::Null, union(&[])], &[Schema::Number, Schema::Null]]
        {
            assert_eq!(union(branches).optional(), None, "{branches:?}");
        }
    }

    #[test]
    fn every_kind_of_nesting_counts_towards_the_depth() {
        for (open, close) in [
            (r#"{"type":"array","items":"#, "}"),
            (r#"{"type":"map","values":"#, "}"),
            (r#"{"type":"record","name":"r","fields":[{"name":"x","type":"#, "}]}"),
            (r#"{"type":"#, "}"),
            ("[", "]"),
        ] {
            let deep = |n: usize| {
                Schema::parse(format!("{}{}{}", open.repeat(n), r#"{"type":"int"}"#, close.repeat(n)).as_bytes())
            };
            assert!(deep(MAX_DEPTH).is_ok(), "{open}");
            assert!(deep(MAX_DEPTH + 1).unwrap_err().contains("deeper"), "{open}");
        }
    }

    /// A type that is named again counts as if it were written out.
    #[test]
    fn named_types_count_with_all_that_is_inside_them() {
        let named = r#"{"type":"record","name":"N","fields":[{"name":"x","type":{"type":"array","items":{"type":"map","values":["null","int"]}}}]}"#;
        // The record, the named type of six, a hundred references of one and six, and fields of one.
        let parse = |more: usize| {
            let fields: Vec<String> = std::iter::once(named.to_owned())
                .chain(std::iter::repeat_n(r#""N""#.to_owned(), 100))
                .chain(std::iter::repeat_n(r#""int""#.to_owned(), more))
                .map(|kind| format!(r#"{{"name":"f","type":{kind}}}"#))
                .collect();
            Schema::parse(format!(r#"{{"type":"record","name":"top","fields":[{}]}}"#, fields.join(",")).as_bytes())
        };
        assert!(parse(MAX_NODES - 707).is_ok());
        assert!(parse(MAX_NODES - 706).unwrap_err().contains("more than"));
    }

    #[test]
    fn recursive_unfolding_and_deep_schemas_are_refused() {
        let recursive = r#"{"type":"record","name":"R","fields":[{"name":"x","type":["null","R"]}]}"#;
        assert!(Schema::parse(recursive.as_bytes()).unwrap_err().contains("recursive"));
        let mut fields =
            String::from(r#"{"name":"f","type":{"type":"record","name":"A0","fields":[{"name":"x","type":"int"}]}}"#);
        for i in 0..40 {
            fields += &format!(
                r#",{{"name":"g{i}","type":{{"type":"record","name":"A{}","fields":[{{"name":"x","type":"A{i}"}},{{"name":"y","type":"A{i}"}}]}}}}"#,
                i + 1
            );
        }
        let bomb = format!(r#"{{"type":"record","name":"top","fields":[{fields}]}}"#);
        assert!(Schema::parse(bomb.as_bytes()).unwrap_err().contains("more than"));
        let deep = format!("{}\"int\"{}", r#"{"type":"array","items":"#.repeat(60), "}".repeat(60));
        assert!(Schema::parse(deep.as_bytes()).unwrap_err().contains("deeper"));
        for wrong in ["", "7", "{}", r#"{"type":"record"}"#, r#"{"type":"fixed","name":"f"}"#] {
            assert!(Schema::parse(wrong.as_bytes()).is_err());
        }
    }
}
