//! The Arrow and Parquet shape of a table's data files (paimon-format.md section 7).
//!
//! Neighbours: `rows` builds value columns, `writer` and `reader` map them to files. Invariants: 1. a file has `_KEY_*` columns in
//! primary-key order, `_SEQUENCE_NUMBER`, `_VALUE_KIND`, then all columns in schema order; 2. key columns are value columns too, so in
//! memory they exist once and are written twice; 3. every column carries its field id, nested ones included.

use std::{collections::HashMap, sync::Arc};

use arrow::datatypes::{DataType as Arrow, Field as ArrowField, Fields, Schema, SchemaRef, TimeUnit};
use siltstone_format::{
    schema::TableSchema,
    types::{DataType, TypeKind},
};

use crate::error::LsmError;

/// Name of the sequence number column.
pub const SEQUENCE_NUMBER: &str = "_SEQUENCE_NUMBER";
/// Name of the row kind column.
pub const VALUE_KIND: &str = "_VALUE_KIND";
/// Prefix of key columns.
pub const KEY_PREFIX: &str = "_KEY_";

const SEQUENCE_NUMBER_ID: i32 = 2_147_483_646;
const VALUE_KIND_ID: i32 = 2_147_483_645;
const KEY_ID_START: i32 = 1_073_741_823;
const NESTED_ID_BASE: i64 = 536_870_911;

/// The Arrow type that holds values of `data_type`; `id` is the field id of the column, for nested elements.
#[must_use]
pub fn arrow_type(data_type: &DataType, id: i32) -> Arrow {
    nested(data_type, i64::from(id), 0)
}

fn nested(data_type: &DataType, id: i64, depth: i64) -> Arrow {
    let child = |name: &str, of: &DataType, sign: i64| {
        let child_id = NESTED_ID_BASE + sign * (1024 * id + depth + 1);
        Arc::new(with_id(ArrowField::new(name, nested(of, id, depth + 1), of.nullable), child_id))
    };
    match &data_type.kind {
        TypeKind::Boolean => Arrow::Boolean,
        TypeKind::TinyInt => Arrow::Int8,
        TypeKind::SmallInt => Arrow::Int16,
        TypeKind::Int => Arrow::Int32,
        TypeKind::BigInt => Arrow::Int64,
        TypeKind::Float => Arrow::Float32,
        TypeKind::Double => Arrow::Float64,
        TypeKind::Decimal { precision, scale } => {
            Arrow::Decimal128(*precision, i8::try_from(*scale).unwrap_or(i8::MAX))
        }
        TypeKind::Char(_) | TypeKind::VarChar(_) => Arrow::Utf8,
        TypeKind::Binary(_) | TypeKind::VarBinary(_) => Arrow::Binary,
        TypeKind::Date => Arrow::Date32,
        TypeKind::Time(_) => Arrow::Time32(TimeUnit::Millisecond),
        TypeKind::Timestamp(p) => Arrow::Timestamp(time_unit(*p), None),
        TypeKind::LocalTimestamp(p) => Arrow::Timestamp(time_unit(*p), Some("UTC".into())),
        TypeKind::Array(element) => Arrow::List(child("element", element, 1)),
        TypeKind::Map(key, value) => map(child("key", key, -1), child("value", value, 1)),
        TypeKind::Multiset(element) => {
            let count = DataType { kind: TypeKind::Int, nullable: false };
            map(child("key", element, -1), child("value", &count, 1))
        }
        TypeKind::Row(fields) => Arrow::Struct(
            fields
                .iter()
                .map(|f| {
                    let arrow = nested(&f.data_type, i64::from(f.id.0), 0);
                    with_id(ArrowField::new(&f.name, arrow, f.data_type.nullable), i64::from(f.id.0))
                })
                .collect(),
        ),
    }
}

/// Map keys are required in Parquet, whatever the table says.
fn map(key: Arc<ArrowField>, value: Arc<ArrowField>) -> Arrow {
    let key = Arc::new(key.as_ref().clone().with_nullable(false));
    let entries = ArrowField::new("key_value", Arrow::Struct(Fields::from(vec![key, value])), false);
    Arrow::Map(Arc::new(entries), false)
}

/// The Java readers trust the table's type for the unit, so it must follow the precision (trap 1).
fn time_unit(precision: u8) -> TimeUnit {
    match precision {
        0..=3 => TimeUnit::Millisecond,
        4..=6 => TimeUnit::Microsecond,
        _ => TimeUnit::Nanosecond,
    }
}

fn with_id(field: ArrowField, id: i64) -> ArrowField {
    field.with_metadata(HashMap::from([(parquet::arrow::PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string())]))
}

/// The shape of the data files of one schema version.
#[derive(Debug, Clone)]
pub struct FileLayout {
    schema: Arc<TableSchema>,
    values: SchemaRef,
    file: SchemaRef,
    key: Vec<usize>,
    order: Vec<usize>,
}

impl FileLayout {
    /// The layout of files written under `schema`.
    ///
    /// # Errors
    /// When a key or `sequence.field` names no column.
    pub fn new(schema: Arc<TableSchema>) -> Result<Self, LsmError> {
        let column = |name: &str| {
            schema.fields.iter().position(|f| f.name == name).ok_or_else(|| LsmError::Schema {
                detail: format!("schema {} names the column `{name}` that it does not have", schema.id),
            })
        };
        let key = schema
            .primary_keys
            .iter()
            .filter(|name| !schema.partition_keys.contains(name))
            .map(|name| column(name))
            .collect::<Result<Vec<_>, _>>()?;
        let order = match schema.options.get("sequence.field") {
            Some(names) => names.split(',').map(|n| column(n.trim())).collect::<Result<Vec<_>, _>>()?,
            None => Vec::new(),
        };
        let values: Vec<ArrowField> = schema
            .fields
            .iter()
            .map(|f| {
                let arrow = arrow_type(&f.data_type, f.id.0);
                with_id(ArrowField::new(&f.name, arrow, f.data_type.nullable), i64::from(f.id.0))
            })
            .collect();
        let mut columns: Vec<ArrowField> = key
            .iter()
            .filter_map(|&i| values.get(i))
            .zip(key.iter().filter_map(|&i| schema.fields.get(i)))
            .map(|(arrow, field)| {
                let id = i64::from(KEY_ID_START) + i64::from(field.id.0);
                with_id(ArrowField::new(format!("{KEY_PREFIX}{}", field.name), arrow.data_type().clone(), false), id)
            })
            .collect();
        columns.push(with_id(ArrowField::new(SEQUENCE_NUMBER, Arrow::Int64, false), SEQUENCE_NUMBER_ID.into()));
        columns.push(with_id(ArrowField::new(VALUE_KIND, Arrow::Int8, false), VALUE_KIND_ID.into()));
        columns.extend(values.iter().cloned());
        Ok(Self { schema, values: Arc::new(Schema::new(values)), file: Arc::new(Schema::new(columns)), key, order })
    }

    /// The table schema.
    #[must_use]
    pub fn table(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    /// Value columns in schema order.
    #[must_use]
    pub fn values(&self) -> &SchemaRef {
        &self.values
    }

    /// All columns of a data file.
    #[must_use]
    pub fn file(&self) -> &SchemaRef {
        &self.file
    }

    /// Indices of the trimmed primary key among the value columns, in key order.
    #[must_use]
    pub fn key(&self) -> &[usize] {
        &self.key
    }

    /// Indices of the `sequence.field` columns among the value columns.
    #[must_use]
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// True for `sequence.field.sort-order` = descending.
    #[must_use]
    pub fn order_descending(&self) -> bool {
        self.schema.options.get("sequence.field.sort-order").is_some_and(|o| o.eq_ignore_ascii_case("descending"))
    }

    /// Types of the trimmed primary key.
    #[must_use]
    pub fn key_types(&self) -> Vec<DataType> {
        self.types_of(&self.key)
    }

    /// Types of the columns at `indices`.
    #[must_use]
    pub fn types_of(&self, indices: &[usize]) -> Vec<DataType> {
        indices.iter().filter_map(|&i| self.schema.fields.get(i)).map(|f| f.data_type.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(field: &ArrowField) -> i64 {
        field.metadata()[parquet::arrow::PARQUET_FIELD_ID_META_KEY].parse().unwrap()
    }

    /// paimon-format.md section 7: 536870911 + or - (1024 x column id + depth).
    #[test]
    fn elements_of_nested_columns_have_the_ids_of_java() {
        let nested = DataType::parse_sql("MAP<STRING, ARRAY<MULTISET<INT>>>").unwrap();
        let Arrow::Map(entries, _) = arrow_type(&nested, 3) else { panic!("a map") };
        let Arrow::Struct(pair) = entries.data_type() else { panic!("of entries") };
        assert_eq!((id_of(&pair[0]), id_of(&pair[1])), (536_867_838, 536_873_984));
        let Arrow::List(element) = pair[1].data_type() else { panic!("of lists") };
        let Arrow::Map(counts, _) = element.data_type() else { panic!("of multisets") };
        let Arrow::Struct(count) = counts.data_type() else { panic!("of counts") };
        assert_eq!((id_of(element), id_of(&count[0]), id_of(&count[1])), (536_873_985, 536_867_836, 536_873_986));
    }

    #[test]
    fn the_unit_of_a_timestamp_follows_its_precision() {
        let unit = |precision| match arrow_type(&DataType::parse(&format!("TIMESTAMP({precision})")).unwrap(), 0) {
            Arrow::Timestamp(unit, None) => unit,
            other => panic!("{other}"),
        };
        let (milli, micro, nano) = (TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond);
        assert_eq!([0, 3, 4, 6, 7, 9].map(unit), [milli, milli, micro, micro, nano, nano]);
    }
}
