//! Schema files to [`TableSchema`] and back, nested type objects included (paimon-format.md section 2).
//!
//! Above: `validate`, which runs on everything read here. Below: `types` for type strings.
//! Invariants: 1. what is written has every field that any peer requires, in Java's order, types canonical;
//! 2. a file that says less than version 3 reads as Java reads it: the implied defaults become explicit or are refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::{Field, TableSchema};
use crate::{
    error::{FormatError, Result},
    id::{FieldId, SchemaId},
    types::{DataType, RowField, TypeKind, refuse_by_name},
};

/// Largest schema file that is read: 10,000 columns take about 1 MB.
pub const MAX_SCHEMA_BYTES: usize = 16 << 20;
/// Deepest nesting of a column's type.
const MAX_DEPTH: usize = 32;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SchemaFile {
    // Absent in files of Paimon 0.5 and before, which count as version 1.
    #[serde(default = "oldest_version")]
    version: i32,
    id: i64,
    fields: Vec<FieldFile>,
    highest_field_id: i32,
    partition_keys: Vec<String>,
    primary_keys: Vec<String>,
    options: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    // Required by paimon-rust, defaulted by Java: read leniently, always written.
    #[serde(default)]
    time_millis: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FieldFile {
    id: i32,
    name: String,
    #[serde(rename = "type")]
    data_type: Json,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    default_value: Option<String>,
}

fn oldest_version() -> i32 {
    1
}

impl TableSchema {
    /// Reads a schema file and validates it. `object` names it in errors; a last path segment `schema-<id>` must agree with the id inside.
    ///
    /// # Errors
    /// Corrupt for damaged JSON or broken rules, Unsupported for what this version does not carry.
    pub fn from_json(object: &str, bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_SCHEMA_BYTES {
            return Err(FormatError::corrupt(object, format!("{} bytes are more than a schema file has", bytes.len())));
        }
        let file: SchemaFile =
            serde_json::from_slice(bytes).map_err(|e| FormatError::corrupt(object, e.to_string()))?;
        let named = object
            .rsplit('/')
            .next()
            .and_then(|name| name.strip_prefix("schema-"))
            .and_then(|id| id.parse::<i64>().ok());
        if named.is_some_and(|id| id != file.id) {
            return Err(FormatError::corrupt(object, format!("it says that its id is {}", file.id)));
        }
        let schema = file.into_schema().map_err(|e| e.found_in(object))?;
        schema.validate().map_err(|e| e.found_in(object))?;
        Ok(schema)
    }

    /// The schema file's bytes.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let file = SchemaFile {
            version: self.version,
            id: self.id.0,
            fields: self.fields.iter().map(FieldFile::from_field).collect(),
            highest_field_id: self.highest_field_id,
            partition_keys: self.partition_keys.clone(),
            primary_keys: self.primary_keys.clone(),
            options: self.options.clone(),
            comment: self.comment.clone(),
            time_millis: self.time_millis,
        };
        // Strings, numbers and string-keyed maps only: serialising them cannot fail.
        serde_json::to_vec(&file).unwrap_or_default()
    }
}

impl SchemaFile {
    fn into_schema(self) -> Result<TableSchema> {
        let mut options = self.options;
        if self.version <= 1 {
            // Java's SchemaSerializer does the same: tables that old were made when one bucket was the default.
            options.entry("bucket".to_owned()).or_insert_with(|| "1".to_owned());
        }
        Ok(TableSchema {
            version: self.version,
            id: SchemaId(self.id),
            fields: self.fields.into_iter().map(FieldFile::into_field).collect::<Result<_>>()?,
            highest_field_id: self.highest_field_id,
            partition_keys: self.partition_keys,
            primary_keys: self.primary_keys,
            options,
            comment: self.comment,
            time_millis: self.time_millis,
        })
    }
}

impl FieldFile {
    fn from_field(field: &Field) -> Self {
        Self {
            id: field.id.0,
            name: field.name.clone(),
            data_type: type_to_json(&field.data_type),
            description: field.description.clone(),
            default_value: field.default_value.clone(),
        }
    }

    fn into_field(self) -> Result<Field> {
        let data_type = type_from_json(&self.data_type, 0).map_err(|e| in_column(&self.name, e))?;
        Ok(Field {
            id: FieldId(self.id),
            name: self.name,
            data_type,
            description: self.description,
            default_value: self.default_value,
        })
    }
}

fn in_column(name: &str, error: FormatError) -> FormatError {
    match error {
        FormatError::Unsupported { what, remedy } => {
            FormatError::unsupported(format!("{what} of column `{name}`"), remedy)
        }
        FormatError::Invalid { what, detail } => FormatError::invalid(format!("column `{name}`, {what}"), detail),
        corrupt @ FormatError::Corrupt { .. } => corrupt,
    }
}

/// A type as it stands in a schema file: text for a leaf, an object for a nested type.
#[must_use]
pub fn type_to_json(data_type: &DataType) -> Json {
    let word = |name: &str| if data_type.nullable { name.to_owned() } else { format!("{name} NOT NULL") };
    match &data_type.kind {
        TypeKind::Array(element) => json!({"type": word("ARRAY"), "element": type_to_json(element)}),
        TypeKind::Multiset(element) => json!({"type": word("MULTISET"), "element": type_to_json(element)}),
        TypeKind::Map(key, value) => {
            json!({"type": word("MAP"), "key": type_to_json(key), "value": type_to_json(value)})
        }
        TypeKind::Row(fields) => {
            let fields: Vec<Json> = fields.iter().map(row_field_to_json).collect();
            json!({"type": word("ROW"), "fields": fields})
        }
        _ => Json::String(data_type.to_string()),
    }
}

fn row_field_to_json(field: &RowField) -> Json {
    let mut out = json!({"id": field.id.0, "name": field.name, "type": type_to_json(&field.data_type)});
    if let (Some(description), Some(object)) = (&field.description, out.as_object_mut()) {
        object.insert("description".to_owned(), Json::String(description.clone()));
    }
    out
}

/// Reads a type as it stands in a schema file or a REST request.
///
/// # Errors
/// Unsupported for types that are refused by name, Invalid for anything else that is no type.
pub fn type_from_json(json: &Json, depth: usize) -> Result<DataType> {
    if depth > MAX_DEPTH {
        return Err(FormatError::invalid("type", format!("nested deeper than {MAX_DEPTH}")));
    }
    let object = match json {
        Json::String(text) => return DataType::parse(text),
        Json::Object(object) => object,
        _ => return Err(FormatError::invalid("type", "neither text nor an object")),
    };
    let word = object.get("type").and_then(Json::as_str).unwrap_or_default().to_ascii_uppercase();
    let mut words = word.split_whitespace();
    let name = words.next().unwrap_or_default();
    let nullable = match words.collect::<Vec<_>>().as_slice() {
        [] | ["NULL"] => true,
        ["NOT", "NULL"] => false,
        _ => return Err(FormatError::invalid(format!("type `{word}`"), "only NOT NULL may follow the name")),
    };
    let part = |key: &str| {
        let json = object
            .get(key)
            .ok_or_else(|| FormatError::invalid(format!("type {name}"), format!("`{key}` is missing")))?;
        type_from_json(json, depth + 1).map(Box::new)
    };
    refuse_by_name(name)?;
    let kind = match name {
        "ARRAY" => TypeKind::Array(part("element")?),
        "MULTISET" => TypeKind::Multiset(part("element")?),
        "MAP" => TypeKind::Map(part("key")?, part("value")?),
        "ROW" => {
            let fields = object.get("fields").and_then(Json::as_array);
            let fields = fields.ok_or_else(|| FormatError::invalid("type ROW", "`fields` is missing"))?;
            TypeKind::Row(fields.iter().map(|field| row_field_from_json(field, depth + 1)).collect::<Result<_>>()?)
        }
        _ => return Err(FormatError::invalid(format!("type `{name}`"), "is no nested type of Paimon")),
    };
    Ok(DataType { kind, nullable })
}

fn row_field_from_json(json: &Json, depth: usize) -> Result<RowField> {
    let fault = |key: &str| FormatError::invalid("field of a ROW", format!("`{key}` is missing or of another type"));
    let id = json.get("id").and_then(Json::as_i64).and_then(|id| i32::try_from(id).ok()).ok_or_else(|| fault("id"))?;
    let name = json.get("name").and_then(Json::as_str).ok_or_else(|| fault("name"))?;
    let data_type = type_from_json(json.get("type").ok_or_else(|| fault("type"))?, depth)?;
    let description = json.get("description").and_then(Json::as_str).map(str::to_owned);
    Ok(RowField { id: FieldId(id), name: name.to_owned(), data_type, description })
}
