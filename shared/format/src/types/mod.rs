//! Paimon's data types (type strings and nested type objects of a schema file; paimon-format.md section 2).
//!
//! Neighbours: `text` reads and prints type strings; `schema` holds them per field, `value` holds values of them, `binary_row` lays values out by them.

mod sql;
mod text;

pub(crate) use self::text::refuse_by_name;
use crate::id::FieldId;

/// A data type with its nullability.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DataType {
    /// What is stored.
    pub kind: TypeKind,
    /// False for `NOT NULL`.
    pub nullable: bool,
}

/// What a column stores, without nullability.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TypeKind {
    /// `BOOLEAN`
    Boolean,
    /// `TINYINT`, i8
    TinyInt,
    /// `SMALLINT`, i16
    SmallInt,
    /// `INT`, i32
    Int,
    /// `BIGINT`, i64
    BigInt,
    /// `FLOAT`, f32
    Float,
    /// `DOUBLE`, f64
    Double,
    /// `DECIMAL(p, s)`, 1 <= p <= 38, 0 <= s <= p
    Decimal {
        /// Digits in all.
        precision: u8,
        /// Digits after the point.
        scale: u8,
    },
    /// `CHAR(n)`: not padded
    Char(u32),
    /// `VARCHAR(n)`; `STRING` is n = [`STRING_LENGTH`]
    VarChar(u32),
    /// `BINARY(n)`
    Binary(u32),
    /// `VARBINARY(n)`; `BYTES` is n = [`STRING_LENGTH`]
    VarBinary(u32),
    /// `DATE`, days since 1970-01-01, i32
    Date,
    /// `TIME(p)`, stored as milliseconds of the day, i32
    Time(u8),
    /// `TIMESTAMP(p)`, without time zone
    Timestamp(u8),
    /// `TIMESTAMP(p) WITH LOCAL TIME ZONE`, an instant
    LocalTimestamp(u8),
    /// `ARRAY`
    Array(Box<DataType>),
    /// `MAP`
    Map(Box<DataType>, Box<DataType>),
    /// `MULTISET`: element to count
    Multiset(Box<DataType>),
    /// `ROW`
    Row(Vec<RowField>),
}

/// The length that makes `VARCHAR` a `STRING` and `VARBINARY` a `BYTES` (Java's `Integer.MAX_VALUE`).
pub const STRING_LENGTH: u32 = i32::MAX as u32;

/// A field of a `ROW` type. Its id shares the counter of the table's columns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RowField {
    /// Id, unique over the table's life.
    pub id: FieldId,
    /// Name in the files written under this schema.
    pub name: String,
    /// Type.
    pub data_type: DataType,
    /// Free text.
    pub description: Option<String>,
}

impl DataType {
    /// A type that takes null.
    #[must_use]
    pub const fn nullable(kind: TypeKind) -> Self {
        Self { kind, nullable: true }
    }

    /// A type that takes no null.
    #[must_use]
    pub const fn not_null(kind: TypeKind) -> Self {
        Self { kind, nullable: false }
    }

    /// True for ARRAY, MAP, MULTISET and ROW: no key, partition column or sequence field can be one.
    #[must_use]
    pub const fn is_nested(&self) -> bool {
        matches!(self.kind, TypeKind::Array(_) | TypeKind::Map(..) | TypeKind::Multiset(_) | TypeKind::Row(_))
    }

    /// The ids of all nested ROW fields, depth first.
    pub(crate) fn nested_ids(&self, into: &mut Vec<FieldId>) {
        match &self.kind {
            TypeKind::Array(element) | TypeKind::Multiset(element) => element.nested_ids(into),
            TypeKind::Map(key, value) => {
                key.nested_ids(into);
                value.nested_ids(into);
            }
            TypeKind::Row(fields) => {
                for field in fields {
                    into.push(field.id);
                    field.data_type.nested_ids(into);
                }
            }
            _ => {}
        }
    }
}
