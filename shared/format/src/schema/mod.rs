//! A table's schema file (`schema/schema-<id>`; paimon-format.md section 2).
//!
//! Below: `json` (bytes), `validate` (rules and key columns), `create` (new tables). Neighbours: `types` for column types, `options` for the meaning of `options`.

mod create;
mod json;
#[cfg(test)]
mod tests;
mod validate;

use std::collections::BTreeMap;

use crate::{
    id::{FieldId, SchemaId},
    types::DataType,
};

pub use self::{
    create::Column,
    json::{MAX_SCHEMA_BYTES, type_from_json, type_to_json},
    validate::{CURRENT_SCHEMA_VERSION, KEY_COLUMN_PREFIX},
};

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Id, unique over the table's life; data files are matched to columns by it.
    pub id: FieldId,
    /// Name in the files written under this schema.
    pub name: String,
    /// Type and nullability.
    pub data_type: DataType,
    /// Free text.
    pub description: Option<String>,
    /// SQL default, kept verbatim.
    pub default_value: Option<String>,
}

/// One version of a table's schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSchema {
    /// Layout version of the schema file: 3 is current.
    pub version: i32,
    /// Id, equal to the file name's.
    pub id: SchemaId,
    /// Columns in order.
    pub fields: Vec<Field>,
    /// Highest field id ever given, dropped and nested fields included.
    pub highest_field_id: i32,
    /// Partition columns, in path order.
    pub partition_keys: Vec<String>,
    /// Primary key columns, partition keys included.
    pub primary_keys: Vec<String>,
    /// Table options as strings.
    pub options: BTreeMap<String, String>,
    /// Free text.
    pub comment: Option<String>,
    /// Creation time, ms since 1970.
    pub time_millis: i64,
}
