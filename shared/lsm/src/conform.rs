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
