//! Plain JSON objects: each is the newest version of its row; an op field may say that it is deleted.
//!
//! Neighbours: `decoder`, `mapping`.

use serde_json::Value as Json;
use siltstone_format::types::{DataType, TypeKind};

use crate::{
    convert::{Form, PLAIN},
    decoder::{Decoded, Decoder, IgnoredKind, RowChange, RowKind},
    mapping::Side,
    reject::{Reject, RejectCode},
};

pub(crate) fn decode(decoder: &Decoder, json: &Json) -> Result<Decoded, Reject> {
    let object = match json {
        Json::Null => return Ok(Decoded::Ignored(IgnoredKind::Tombstone)),
        Json::Object(object) => object,
        _ => return Err(Reject::new(RejectCode::NotJson, "is not a JSON object")),
    };
    let delete = match &decoder.config.op_field {
        None => false,
        Some(name) => match object.get(name) {
            None | Some(Json::Null) => false,
            Some(Json::String(op)) => {
                let named = |list: &[String]| list.iter().any(|known| known.eq_ignore_ascii_case(op));
                if named(&decoder.config.deletes) {
                    true
                } else if named(&decoder.config.upserts) {
                    false
                } else {
                    return Err(Reject::new(RejectCode::UnknownOperation, "is neither an upsert nor a delete").at(name));
                }
            }
            Some(_) => return Err(Reject::new(RejectCode::UnknownOperation, "is not text").at(name)),
        },
    };
    let (kind, side) = if delete { (RowKind::Delete, Side::Retracted) } else { (RowKind::Insert, Side::Stored) };
    let form = |_: &str, data_type: &DataType| {
        let timestamp = matches!(data_type.kind, TypeKind::Timestamp(_) | TypeKind::LocalTimestamp(_));
        Form { unit: if timestamp { decoder.configured_unit() } else { None }, ..PLAIN }
    };
    let row = decoder.mapping.row(object, side, &form)?;
    Ok(Decoded::Changes(vec![RowChange { kind, row }]))
}
