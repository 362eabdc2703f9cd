//! The first schema of a new table: ids given as Java's `Schema.Builder` gives them, key columns made NOT NULL.
//!
//! Neighbours: `validate` checks the result; `table` writes it as `schema/schema-0`.
//! Invariant: 1. ids ascend depth first (a column before its nested fields), starting at 0.

use std::collections::BTreeMap;

use super::{Field, TableSchema};
use crate::{
    error::{FormatError, Result},
    id::{FieldId, SchemaId},
    schema::CURRENT_SCHEMA_VERSION,
    types::{DataType, TypeKind},
};

/// Java makes no table with this column; pypaimon does, so that reading allows it.
const ROW_KIND_COLUMN: &str = "rowkind";

/// A column of a table to be made; its id and the ids inside its type are given by [`TableSchema::create`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Name.
    pub name: String,
    /// Type and nullability.
    pub data_type: DataType,
    /// Free text.
    pub description: Option<String>,
    /// SQL default.
    pub default_value: Option<String>,
}

impl Column {
    /// A column without description or default.
    #[must_use]
    pub fn new(name: impl Into<String>, data_type: DataType) -> Self {
        Self { name: name.into(), data_type, description: None, default_value: None }
    }
}

impl TableSchema {
    /// Schema 0 of a new table. `bucket` is written as 1 where the options leave it out, since absent means dynamic buckets.
    ///
    /// # Errors
    /// What [`TableSchema::validate`] finds, bucket key and unportable partition types included.
    pub fn create(
        columns: Vec<Column>,
        partition_keys: Vec<String>,
        primary_keys: Vec<String>,
        mut options: BTreeMap<String, String>,
        comment: Option<String>,
        time_millis: i64,
    ) -> Result<Self> {
        let mut last_id = -1;
        let mut fields = Vec::with_capacity(columns.len());
        for column in columns {
            if column.name == ROW_KIND_COLUMN {
                return Err(FormatError::invalid(
                    "column `rowkind`",
                    "Paimon's audit tables have a column of this name",
                ));
            }
            let id = next(&mut last_id);
            let mut data_type = column.data_type;
            assign_ids(&mut data_type, &mut last_id);
            if primary_keys.contains(&column.name) {
                data_type.nullable = false;
            }
            fields.push(Field {
                id,
                name: column.name,
                data_type,
                description: column.description,
                default_value: column.default_value,
            });
        }
        options.entry("bucket".to_owned()).or_insert_with(|| "1".to_owned());
        let schema = Self {
            version: CURRENT_SCHEMA_VERSION,
            id: SchemaId(0),
            fields,
            highest_field_id: last_id,
            partition_keys,
            primary_keys,
            options,
            comment,
            time_millis,
        };
        schema.validate()?;
        schema.bucket_key_indices()?;
        schema.refuse_unportable_partitions()?;
        Ok(schema)
    }
}

fn next(last_id: &mut i32) -> FieldId {
    *last_id = last_id.saturating_add(1);
    FieldId(*last_id)
}

fn assign_ids(data_type: &mut DataType, last_id: &mut i32) {
    match &mut data_type.kind {
        TypeKind::Array(element) | TypeKind::Multiset(element) => assign_ids(element, last_id),
        TypeKind::Map(key, value) => {
            assign_ids(key, last_id);
            assign_ids(value, last_id);
        }
        TypeKind::Row(fields) => {
            for field in fields {
                field.id = next(last_id);
                assign_ids(&mut field.data_type, last_id);
            }
        }
        _ => {}
    }
}
