//! The rules a schema must keep (paimon-format.md section 2), and what follows from it: key, partition and bucket key columns.
//!
//! Neighbours: `json` and `create` call [`TableSchema::validate`]; every writer and reader asks the index functions.
//! Invariants: 1. after `validate`, each key name has exactly one column; 2. the trimmed primary key is not empty; 3. column ids
//! are unique, nested ones included, and none is above `highest_field_id`.

use std::collections::HashSet;

use super::{Field, TableSchema};
use crate::{
    error::{FormatError, Result},
    types::{DataType, TypeKind},
};

/// Newest layout of a schema file that is known.
pub const CURRENT_SCHEMA_VERSION: i32 = 3;
/// Prefix of the key columns of a data file; no user column may start with it.
pub const KEY_COLUMN_PREFIX: &str = "_KEY_";
/// System columns of Paimon; no user column may have one of these names.
const SYSTEM_COLUMNS: [&str; 4] = ["_SEQUENCE_NUMBER", "_VALUE_KIND", "_LEVEL", "_ROW_ID"];

impl TableSchema {
    /// Checks every rule of a primary-key table's schema.
    ///
    /// # Errors
    /// Invalid names the column or key and the rule; Unsupported what this version does not carry.
    pub fn validate(&self) -> Result<()> {
        self.validate_version()?;
        if self.id.0 < 0 || i32::try_from(self.id.0).is_err() {
            return Err(FormatError::invalid(format!("schema id {}", self.id), "must be 0 to 2147483647"));
        }
        self.validate_columns()?;
        self.validate_ids()?;
        self.validate_keys()
    }

    fn validate_version(&self) -> Result<()> {
        match self.version {
            CURRENT_SCHEMA_VERSION => Ok(()),
            1..CURRENT_SCHEMA_VERSION if self.options.contains_key("file.format") => Ok(()),
            v @ 1..CURRENT_SCHEMA_VERSION => {
                let what =
                    format!("schema version {v} (or none) without option `file.format`, which means ORC data files,");
                Err(FormatError::unsupported(
                    what,
                    "set file.format explicitly with Java Paimon and rewrite the data files as parquet",
                ))
            }
            v @ ..1 => Err(FormatError::invalid(format!("schema version {v}"), "versions start at 1")),
            v => {
                let remedy = "use a Siltstone that knows this version, or keep the table's writers on an older Paimon";
                Err(FormatError::unsupported(format!("schema version {v}"), remedy))
            }
        }
    }

    fn validate_columns(&self) -> Result<()> {
        let mut names = HashSet::new();
        for field in &self.fields {
            let fault = |detail: &str| Err(FormatError::invalid(format!("column `{}`", field.name), detail));
            if field.name.is_empty() {
                return fault("a column needs a name");
            }
            if !names.insert(field.name.as_str()) {
                return fault("the name stands twice");
            }
            if field.name.starts_with(KEY_COLUMN_PREFIX) || SYSTEM_COLUMNS.contains(&field.name.as_str()) {
                return fault("the name is reserved by Paimon");
            }
        }
        Ok(())
    }

    fn validate_ids(&self) -> Result<()> {
        let mut ids = Vec::with_capacity(self.fields.len());
        for field in &self.fields {
            ids.push(field.id);
            field.data_type.nested_ids(&mut ids);
        }
        let mut seen = HashSet::with_capacity(ids.len());
        for id in ids {
            let fault = |detail: String| Err(FormatError::invalid(format!("field id {id}"), detail));
            if id.0 < 0 || id.0 > self.highest_field_id {
                return fault(format!("must be 0 to highestFieldId, which is {}", self.highest_field_id));
            }
            if !seen.insert(id) {
                return fault("stands twice".to_owned());
            }
        }
        Ok(())
    }

    fn validate_keys(&self) -> Result<()> {
        if self.primary_keys.is_empty() {
            let remedy = "give the table a primary key; append tables are left to other engines";
            return Err(FormatError::unsupported("a table without a primary key", remedy));
        }
        for (what, keys) in [("primary key", &self.primary_keys), ("partition key", &self.partition_keys)] {
            let mut seen = HashSet::new();
            for name in keys {
                let fault = |detail: &str| Err(FormatError::invalid(format!("{what} `{name}`"), detail));
                let Some(field) = self.field(name) else { return fault("no column has this name") };
                if !seen.insert(name) {
                    return fault("stands twice");
                }
                if field.data_type.is_nested() {
                    return fault("ARRAY, MAP, MULTISET and ROW cannot be keys");
                }
            }
        }
        self.validate_nullability()?;
        if self.trimmed_primary_key().is_empty() {
            return Err(FormatError::invalid("primary key", "nothing is left of it without the partition keys"));
        }
        Ok(())
    }

    fn validate_nullability(&self) -> Result<()> {
        let nullable =
            self.primary_keys.iter().filter_map(|name| self.field(name)).find(|field| field.data_type.nullable);
        match nullable {
            Some(field)
                if self.options.get("primary-key.nullable").is_some_and(|v| v.trim().eq_ignore_ascii_case("true")) =>
            {
                let remedy = "make the key columns NOT NULL and remove the option";
                Err(FormatError::unsupported(format!("primary-key.nullable = true (column `{}`)", field.name), remedy))
            }
            Some(field) => {
                Err(FormatError::invalid(format!("primary key `{}`", field.name), "the column must be NOT NULL"))
            }
            None => Ok(()),
        }
    }

    /// Position of the column of this name.
    #[must_use]
    pub fn field_index(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    /// The column of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// Positions of the trimmed primary key's columns (primary key without partition keys), in primary key order: the LSM key.
    #[must_use]
    pub fn trimmed_primary_key(&self) -> Vec<usize> {
        self.primary_keys
            .iter()
            .filter(|name| !self.partition_keys.contains(name))
            .filter_map(|name| self.field_index(name))
            .collect()
    }

    /// Positions of the whole primary key's columns, in primary key order.
    #[must_use]
    pub fn primary_key_indices(&self) -> Vec<usize> {
        self.primary_keys.iter().filter_map(|name| self.field_index(name)).collect()
    }

    /// Positions of the partition columns, in path order.
    #[must_use]
    pub fn partition_indices(&self) -> Vec<usize> {
        self.partition_keys.iter().filter_map(|name| self.field_index(name)).collect()
    }

    /// Positions of the bucket key's columns: option `bucket-key`, else the trimmed primary key.
    ///
    /// # Errors
    /// Invalid when `bucket-key` names a column that does not exist, is nested, twice there, or outside the trimmed primary key.
    pub fn bucket_key_indices(&self) -> Result<Vec<usize>> {
        let trimmed = self.trimmed_primary_key();
        let Some(text) = self.options.get("bucket-key").filter(|text| !text.trim().is_empty()) else {
            return Ok(trimmed);
        };
        let mut indices = Vec::new();
        for name in text.split(',').map(str::trim) {
            match self.field_index(name) {
                Some(index) if trimmed.contains(&index) && !indices.contains(&index) => indices.push(index),
                _ => {
                    let what = format!("bucket-key column `{name}`");
                    return Err(FormatError::invalid(
                        what,
                        "it must be a column of the primary key outside the partition keys, once",
                    ));
                }
            }
        }
        Ok(indices)
    }

    /// Types of the columns at these positions; positions that do not exist are left out.
    #[must_use]
    pub fn types_at(&self, indices: &[usize]) -> Vec<DataType> {
        indices.iter().filter_map(|i| self.fields.get(*i)).map(|field| field.data_type.clone()).collect()
    }

    /// True when the primary key lacks a partition column: one key may then move between partitions.
    #[must_use]
    pub fn is_cross_partition(&self) -> bool {
        self.partition_keys.iter().any(|name| !self.primary_keys.contains(name))
    }

    /// Refuses partition columns whose directory names other engines cannot find: FLOAT, DOUBLE, BINARY.
    ///
    /// # Errors
    /// Unsupported with the column.
    pub fn refuse_unportable_partitions(&self) -> Result<()> {
        for field in self.partition_keys.iter().filter_map(|name| self.field(name)) {
            if matches!(
                field.data_type.kind,
                TypeKind::Float | TypeKind::Double | TypeKind::Binary(_) | TypeKind::VarBinary(_)
            ) {
                let what = format!("partition column `{}` of type {}", field.name, field.data_type.kind);
                return Err(FormatError::unsupported(what, "partition by STRING, INT, BIGINT, DATE or BOOLEAN"));
            }
        }
        Ok(())
    }
}
