//! Turns a column as a file has it into a column as the table wants it: other widths, units, names, evolved nested fields.
//!
//! Neighbours: `reader`. Rules: paimon-format.md sections 2 (evolution by field id) and 7 ("others, when reading a file that deviates").
//! Invariant: 1. a value that does not fit the wanted type is an error, never a silent null.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, ListArray, MapArray, StructArray},
    compute::{CastOptions, cast_with_options},
    datatypes::{DataType as Arrow, FieldRef, Fields},
};
use siltstone_format::types::{DataType, TypeKind};

use crate::rows::nulls;

/// `array` (of paimon type `from`) as `field`'s Arrow type (of paimon type `to`).
pub(crate) fn conform(array: &ArrayRef, from: &DataType, to: &DataType, field: &FieldRef) -> Result<ArrayRef, String> {
    if array.data_type() == field.data_type() {
        return Ok(array.clone());
    }
    match (&from.kind, &to.kind, field.data_type()) {
        (TypeKind::Array(a), TypeKind::Array(b), Arrow::List(element)) => list(array, a, b, element),
        (TypeKind::Map(ak, av), TypeKind::Map(bk, bv), Arrow::Map(entries, _)) => {
            map(array, (ak, av), (bk, bv), entries)
        }
        (TypeKind::Multiset(a), TypeKind::Multiset(b), Arrow::Map(entries, _)) => {
            let count = DataType { kind: TypeKind::Int, nullable: false };
            map(array, (a, &count), (b, &count), entries)
        }
        (TypeKind::Row(_), TypeKind::Row(_), Arrow::Struct(fields)) => row(array, from, to, fields),
        (_, _, wanted) => leaf(array, wanted),
    }
}

fn leaf(array: &ArrayRef, wanted: &Arrow) -> Result<ArrayRef, String> {
    let options = CastOptions { safe: false, ..Default::default() };
    let source = match (array.data_type(), wanted) {
        // A fixed-length binary is first plain binary; text stored without annotation likewise.
        (Arrow::FixedSizeBinary(_), Arrow::Utf8 | Arrow::Binary) => {
            cast_with_options(array, &Arrow::Binary, &options).map_err(|e| e.to_string())?
        }
        _ => array.clone(),
    };
    cast_with_options(&source, wanted, &options).map_err(|e| e.to_string())
}

fn list(array: &ArrayRef, from: &DataType, to: &DataType, element: &FieldRef) -> Result<ArrayRef, String> {
    let source = array.as_list_opt::<i32>().ok_or("is not a list")?;
    let child = conform(source.values(), from, to, element)?;
    ListArray::try_new(element.clone(), source.offsets().clone(), child, source.nulls().cloned())
        .map(|a| Arc::new(a) as ArrayRef)
        .map_err(|e| e.to_string())
}

fn map(
    array: &ArrayRef,
    from: (&DataType, &DataType),
    to: (&DataType, &DataType),
    entries: &FieldRef,
) -> Result<ArrayRef, String> {
    let source = array.as_map_opt().ok_or("is not a map")?;
    let Arrow::Struct(pair) = entries.data_type() else { return Err("the table's map has no entries".to_owned()) };
    let [key, value] = pair.as_ref() else { return Err("the table's map has no key and value".to_owned()) };
    let columns = vec![conform(source.keys(), from.0, to.0, key)?, conform(source.values(), from.1, to.1, value)?];
    let child = StructArray::try_new(pair.clone(), columns, None).map_err(|e| e.to_string())?;
    MapArray::try_new(entries.clone(), source.offsets().clone(), child, source.nulls().cloned(), false)
        .map(|a| Arc::new(a) as ArrayRef)
        .map_err(|e| e.to_string())
}

/// Nested fields are matched by id; what the file does not have is null.
fn row(array: &ArrayRef, from: &DataType, to: &DataType, fields: &Fields) -> Result<ArrayRef, String> {
    let (TypeKind::Row(old), TypeKind::Row(new)) = (&from.kind, &to.kind) else {
        return Err("is not a row".to_owned());
    };
    let source = array.as_struct_opt().ok_or("is not a row")?;
    let columns = new
        .iter()
        .zip(fields)
        .map(|(wanted, field)| {
            let place = old.iter().find(|f| f.id == wanted.id);
            match place.and_then(|f| source.column_by_name(&f.name).map(|c| (f, c))) {
                Some((f, column)) => conform(column, &f.data_type, &wanted.data_type, field),
                None => Ok(nulls(field, source.len())),
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    StructArray::try_new_with_length(fields.clone(), columns, source.nulls().cloned(), source.len())
        .map(|a| Arc::new(a) as ArrayRef)
        .map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use arrow::array::{FixedSizeBinaryArray, Int32Array, Int64Array};
    use siltstone_format::value::Value;

    use super::*;
    use crate::{
        layout::arrow_type,
        rows::{array_of, value_at},
    };

    fn field(data_type: &DataType) -> FieldRef {
        Arc::new(arrow::datatypes::Field::new("c", arrow_type(data_type, 0), true))
    }

    fn sql(text: &str) -> DataType {
        DataType::parse_sql(text).unwrap()
    }

    /// Row 0 of one value of type `from`, read as type `to`.
    fn read_as(value: &Value, from: &DataType, to: &DataType) -> Result<Value, String> {
        let array = array_of(&field(from), &[value]).unwrap();
        conform(&array, from, to, &field(to)).map(|array| value_at(&array, 0))
    }

    #[test]
    fn numbers_that_do_not_fit_are_errors_and_never_nulls() {
        let wide: ArrayRef = Arc::new(Int64Array::from(vec![1, 1 << 40]));
        let int = sql("INT");
        assert!(conform(&wide, &sql("BIGINT"), &int, &field(&int)).is_err());
        let fits = conform(&wide.slice(0, 1), &sql("BIGINT"), &int, &field(&int)).unwrap();
        assert_eq!(value_at(&fits, 0), Value::Int(1));
    }

    #[test]
    fn bytes_of_a_fixed_length_read_as_text_and_as_bytes() {
        let fixed: ArrayRef = Arc::new(FixedSizeBinaryArray::try_from_iter([b"abc"].into_iter()).unwrap());
        for (text, value) in [("STRING", Value::String("abc".into())), ("BYTES", Value::Bytes(b"abc".to_vec()))] {
            let wanted = sql(text);
            assert_eq!(value_at(&conform(&fixed, &wanted, &wanted, &field(&wanted)).unwrap(), 0), value);
        }
    }

    #[test]
    fn nested_fields_follow_their_id_and_their_elements_widen() {
        let row = |fields: &[(i32, &str, &str)]| {
            let field = |(id, name, text): &(i32, &str, &str)| siltstone_format::types::RowField {
                id: siltstone_format::id::FieldId(*id),
                name: (*name).to_owned(),
                data_type: sql(text),
                description: None,
            };
            DataType::nullable(TypeKind::Row(fields.iter().map(field).collect()))
        };
        let old = row(&[(1, "a", "INT"), (2, "b", "INT")]);
        let new = row(&[(2, "renamed", "BIGINT"), (3, "a", "STRING")]);
        let value = Value::Row(vec![Value::Int(7), Value::Int(8)]);
        assert_eq!(read_as(&value, &old, &new).unwrap(), Value::Row(vec![Value::BigInt(8), Value::Null]));
        let list = Value::Array(vec![Value::Int(1), Value::Null]);
        let wide = Value::Array(vec![Value::BigInt(1), Value::Null]);
        assert_eq!(read_as(&list, &sql("ARRAY<INT>"), &sql("ARRAY<BIGINT>")).unwrap(), wide);
        let map = |value| Value::Map(vec![(Value::String("k".into()), value)]);
        let (from, to) = (sql("MAP<STRING NOT NULL, INT>"), sql("MAP<STRING NOT NULL, BIGINT>"));
        assert_eq!(read_as(&map(Value::Int(1)), &from, &to).unwrap(), map(Value::BigInt(1)));
    }

    #[test]
    fn a_column_that_is_no_row_is_refused() {
        let plain: ArrayRef = Arc::new(Int32Array::from(vec![1]));
        for text in ["ARRAY<INT>", "MAP<INT NOT NULL, INT>", "MULTISET<INT>", "ROW<x INT>"] {
            let wanted = sql(text);
            assert!(conform(&plain, &wanted, &wanted, &field(&wanted)).is_err(), "{text}");
        }
    }
}
