//! Debezium JSON change events, with and without the schema envelope (Debezium reference, "Data change events"; Kafka Connect's
//! `JsonConverter` with `schemas.enable` true or false).
//!
//! Above: `decoder`. Below: `envelope` says how a field is written, `mapping` makes rows. What `u` means depends on the key: an unchanged key
//! is an upsert, a changed key or partition is a delete of the old row and an insert of the new one.
//! Invariants: 1. messages without rows are named and counted, never guessed at; 2. a left-out value (`__debezium_unavailable_value`) is
//! taken from the old row or the record is rejected: a wrong row is never stored.

use siltstone_format::types::DataType;

use crate::{
    decoder::{Decoded, Decoder, IgnoredKind, Read, RowChange, RowKind},
    envelope::{self, Described},
    json::{Kind, Node},
    mapping::{Fields, Forms, Image, KeyChange, Side},
    reject::{Reject, RejectCode},
};

/// What Debezium writes for a value that the database did not log.
const UNAVAILABLE: &str = "__debezium_unavailable_value";
/// The same in binary columns: base64, URL-safe base64 (equal for this text, padded or not), hex.
const UNAVAILABLE_BINARY: [&str; 3] = [
    "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==",
    "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ",
    "5f5f646562657a69756d5f756e617661696c61626c655f76616c7565",
];
/// Longer than any of the placeholder's forms: values above are not looked into.
const UNAVAILABLE_BYTES_MAX: usize = 400;

/// The parts of a message that decide what it is.
struct Message<'a> {
    op: Option<Node<'a>>,
    before: Option<Node<'a>>,
    after: Option<Node<'a>>,
    /// The record's key, where the producer put it beside the value.
    key: Option<Node<'a>>,
    schema: Option<Node<'a>>,
}

/// A message with the schema of its envelope, if it has one; `None` for a tombstone.
fn open(node: Node<'_>) -> Result<Option<(Node<'_>, Option<Node<'_>>)>, Reject> {
    if node.is_null() {
        return Ok(None);
    }
    match node.fields(["schema", "payload", "op"])? {
        Some([_, Some(payload), None]) if payload.is_null() => Ok(None),
        Some([schema, Some(payload), None]) if payload.kind() == Kind::Object => Ok(Some((payload, schema))),
        _ => Ok(Some((node, None))),
    }
}

pub(crate) fn decode(decoder: &Decoder, root: Node<'_>) -> Result<Read, Reject> {
    let tombstone = || Ok(Read::of(Decoded::Ignored(IgnoredKind::Tombstone)));
    if !matches!(root.kind(), Kind::Null | Kind::Object) {
        return Err(Reject::new(RejectCode::NotJson, "is not a JSON object"));
    }
    // Producers without record keys wrap both: {"key": .., "value": ..}.
    let (key, value) = match root.fields(["key", "value", "op", "payload"])? {
        Some([Some(key), Some(value), None, None]) => (Some(key), value),
        _ => (None, root),
    };
    let Some((message, schema)) = open(value)? else { return tombstone() };
    let Some([op, before, after, beside]) = message.fields(["op", "before", "after", "key"])? else {
        return Err(Reject::new(RejectCode::NotJson, "is not a JSON object"));
    };
    let op_text = op.map_or(Ok(None), Node::string)?;
    if let Some(ignored) = without_rows(op_text.as_deref(), message)? {
        return Ok(Read::of(Decoded::Ignored(ignored)));
    }
    let key = match key.or(beside) {
        Some(key) => open(key)?.map(|(key, _)| key).filter(|key| key.kind() == Kind::Object),
        None => None,
    };
    let some = |node: Option<Node<'_>>| node.is_some_and(|n| !n.is_null());
    let message =
        Message { op, before: before.filter(|b| some(Some(*b))), after: after.filter(|a| some(Some(*a))), key, schema };
    change(decoder, op_text.as_deref(), &message)
}

/// Messages of a connector that carry no row.
fn without_rows(op: Option<&str>, message: Node<'_>) -> Result<Option<IgnoredKind>, Reject> {
    match op {
        Some("t") => return Ok(Some(IgnoredKind::Truncate)),
        Some("m") => return Ok(Some(IgnoredKind::LogicalMessage)),
        Some(_) => return Ok(None),
        None => {}
    }
    let names = ["ddl", "tableChanges", "status", "id", "event_count", "ts_ms", "before", "after"];
    let Some([ddl, changes, status, id, count, time, before, after]) = message.fields(names)? else { return Ok(None) };
    Ok(if ddl.is_some() || changes.is_some() {
        Some(IgnoredKind::SchemaChange)
    } else if status.is_some() && id.is_some() && count.is_some() {
        Some(IgnoredKind::Transaction)
    } else if time.is_some() && before.is_none() && after.is_none() {
        Some(IgnoredKind::Heartbeat)
    } else {
        None
    })
}

fn change(decoder: &Decoder, op: Option<&str>, message: &Message<'_>) -> Result<Read, Reject> {
    let described = envelope::fields(message.schema, &decoder.mapping)?;
    let forms = |slot: Option<usize>, data_type: Option<&DataType>| {
        let said: Option<&Described> = slot.and_then(|slot| described.get(slot)).and_then(Option::as_ref);
        envelope::form(decoder, said, data_type)
    };
    match op {
        Some("c" | "r") => stored(decoder, message, RowKind::Insert, &forms),
        Some("u") => stored(decoder, message, RowKind::UpdateAfter, &forms),
        Some("d") => deleted(decoder, message, &forms),
        Some(_) => Err(Reject::new(RejectCode::UnknownOperation, "is not one of c, u, d, r, t, m").at("op")),
        None if message.op.is_some() => Err(Reject::new(RejectCode::UnknownOperation, "is not text").at("op")),
        None => Err(Reject::new(RejectCode::UnknownOperation, "is missing: this is no Debezium change event").at("op")),
    }
}

fn side<'a>(decoder: &Decoder, node: Node<'a>, name: &str) -> Result<(Fields<'a>, u64), Reject> {
    if node.kind() != Kind::Object {
        return Err(Reject::new(RejectCode::WrongType, "is not an object").at(name));
    }
    decoder.mapping.read(node)
}

fn stored(decoder: &Decoder, message: &Message<'_>, kind: RowKind, forms: Forms<'_>) -> Result<Read, Reject> {
    let after = message
        .after
        .ok_or_else(|| Reject::new(RejectCode::MissingColumn, "is missing: there is no new row").at("after"))?;
    let (after, unread) = side(decoder, after, "after")?;
    let before = message.before.map(|node| side(decoder, node, "before")).transpose()?.map(|(fields, _)| fields);
    let new = Image { fields: &after, old: before.as_ref(), placeholders: true, forms };
    let row = decoder.mapping.row(&new, Side::Stored)?;
    let changes = match before.filter(|_| kind == RowKind::UpdateAfter) {
        None => vec![RowChange { kind, row }],
        Some(before) => {
            let old = Image { fields: &before, old: None, placeholders: true, forms };
            match decoder.mapping.key_change(&old, &row)? {
                KeyChange::Same => vec![RowChange { kind, row }],
                KeyChange::Changed => {
                    let gone = decoder.mapping.row(&old, Side::Retracted)?;
                    vec![RowChange { kind: RowKind::Delete, row: gone }, RowChange { kind: RowKind::Insert, row }]
                }
            }
        }
    };
    Ok(Read { decoded: Decoded::Changes(changes), unread, bytes: 0 })
}

fn deleted(decoder: &Decoder, message: &Message<'_>, forms: Forms<'_>) -> Result<Read, Reject> {
    let old = message.before.map(|node| (node, "before")).or_else(|| message.key.map(|node| (node, "key")));
    let (node, name) = old.ok_or_else(|| {
        let detail = "a delete without its old row or key: have the source log at least the key (REPLICA IDENTITY, before-images)";
        Reject::new(RejectCode::MissingBefore, detail).at("before")
    })?;
    let (fields, unread) = side(decoder, node, name)?;
    let image = Image { fields: &fields, old: None, placeholders: true, forms };
    let row = decoder.mapping.row(&image, Side::Retracted)?;
    Ok(Read { decoded: Decoded::Changes(vec![RowChange { kind: RowKind::Delete, row }]), unread, bytes: 0 })
}

/// True for the placeholder in any of its forms: text, binary, an array of it or of its bytes, a map of it to itself.
pub(crate) fn is_unavailable(node: Node<'_>) -> Result<bool, Reject> {
    if node.raw().len() > UNAVAILABLE_BYTES_MAX {
        return Ok(false);
    }
    let named = |text: &str| text == UNAVAILABLE || UNAVAILABLE_BINARY.contains(&text);
    Ok(match node.kind() {
        Kind::String => node.string()?.is_some_and(|text| named(&text)),
        Kind::Array => {
            let items = node.items()?.unwrap_or_default();
            let bytes = || items.iter().map(|n| n.raw().parse().ok()).eq(UNAVAILABLE.bytes().map(Some));
            match items.as_slice() {
                [one] => one.kind() == Kind::String && one.string()?.is_some_and(|text| named(&text)),
                _ => items.len() == UNAVAILABLE.len() && bytes(),
            }
        }
        Kind::Object => matches!(node.entries()?.as_slice(), [(name, _)] if named(name)),
        _ => false,
    })
}
