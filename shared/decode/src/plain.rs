//! Plain JSON objects: each is the newest version of its row; an op field may say that it is deleted.
//!
//! Neighbours: `decoder`, `mapping`. Invariant: 1. an operation that is not configured is a reject, never an upsert by default.

use siltstone_format::types::{DataType, TypeKind};

use crate::{
    convert::{Form, PLAIN},
    decoder::{Decoded, Decoder, IgnoredKind, Read, RowChange, RowKind},
    json::{Kind, Node},
    mapping::{Image, Side},
    reject::{Reject, RejectCode},
    time::Unit,
};

pub(crate) fn decode(decoder: &Decoder, root: Node<'_>) -> Result<Read, Reject> {
    match root.kind() {
        Kind::Null => return Ok(Read::of(Decoded::Ignored(IgnoredKind::Tombstone))),
        Kind::Object => {}
        _ => return Err(Reject::new(RejectCode::NotJson, "is not a JSON object")),
    }
    let (fields, unread) = decoder.mapping.read(root)?;
    let delete = match decoder.mapping.op_slot.and_then(|slot| fields.at(slot)) {
        None => false,
        Some(op) => is_delete(decoder, op).map_err(|r| r.at(decoder.config.op_field.as_deref().unwrap_or_default()))?,
    };
    let (kind, side) = if delete { (RowKind::Delete, Side::Retracted) } else { (RowKind::Insert, Side::Stored) };
    let forms = |_: Option<usize>, data_type: Option<&DataType>| form(decoder, data_type);
    let image = Image { fields: &fields, old: None, placeholders: false, forms: &forms };
    let row = decoder.mapping.row(&image, side)?;
    Ok(Read { decoded: Decoded::Changes(vec![RowChange { kind, row }]), unread, bytes: 0 })
}

fn is_delete(decoder: &Decoder, op: Node<'_>) -> Result<bool, Reject> {
    if op.is_null() {
        return Ok(false);
    }
    let unknown = |detail: &str| Reject::new(RejectCode::UnknownOperation, detail);
    let word = op.string()?.ok_or_else(|| unknown("is not text"))?;
    let named = |list: &[String]| list.iter().any(|known| known.eq_ignore_ascii_case(&word));
    match (named(&decoder.config.deletes), named(&decoder.config.upserts)) {
        (true, _) => Ok(true),
        (false, true) => Ok(false),
        (false, false) => Err(unknown("is neither one of `upserts` nor of `deletes`")),
    }
}

fn form(decoder: &Decoder, data_type: Option<&DataType>) -> Form {
    let dated = data_type.is_some_and(|t| t.kind == TypeKind::Date);
    Form { unit: if dated { None } else { Some(decoder.configured_unit().unwrap_or(Unit::Millis)) }, ..PLAIN }
}
