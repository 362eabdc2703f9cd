//! What can be wrong with a decoder's configuration, found before the first record.
//!
//! Neighbours: `config` (the data), `mapping` (built when there is no fault).
//! Invariants: 1. all faults are reported together; 2. a setting that would do nothing is a fault.

use serde_json::Value as Json;
use siltstone_format::{
    schema::{Field, TableSchema},
    types::{DataType, TypeKind},
    value::Value,
};

use crate::{
    config::{ColumnRule, ConfigFault, Decimals, DecoderConfig, Format, Mask},
    convert::{PLAIN, convert},
    json::Node,
    reject::Reject,
    time,
};

/// Largest `max-record-bytes`: several records are in memory at once.
const RECORD_BYTES_LIMIT: usize = 64 << 20;
/// Time zones reach from -12:00 to +14:00; a little room beyond.
const OFFSET_MINUTES_LIMIT: i32 = 18 * 60;

/// All faults of a configuration for a table.
pub(crate) fn faults(schema: &TableSchema, config: &DecoderConfig) -> Vec<ConfigFault> {
    let mut out = Vec::new();
    let mut fault = |at: &str, problem: &str| out.push(ConfigFault { at: at.to_owned(), problem: problem.to_owned() });
    whole(config, &mut fault);
    for (name, rule) in &config.columns {
        let at = format!("columns.{name}");
        match schema.field(name) {
            None => fault(&at, "the table has no such column"),
            Some(field) => {
                let key = schema.primary_keys.contains(name) || schema.partition_keys.contains(name);
                column(field, key, rule, &mut |problem| fault(&at, problem));
            }
        }
    }
    out
}

/// A constant as a value of the column.
pub(crate) fn constant(json: &Json, data_type: &DataType) -> Result<Value, Reject> {
    convert(Node::parse(json.to_string().as_bytes())?, data_type, PLAIN)
}

fn whole(config: &DecoderConfig, fault: &mut dyn FnMut(&str, &str)) {
    let plain = config.format == Format::Json;
    if config.op_field.is_some() && !plain {
        fault("op-field", "only the format `json` has one: Debezium's operations are known");
    }
    if config.op_field.is_some() {
        let same = |word: &&String| config.upserts.iter().any(|other| other.eq_ignore_ascii_case(word));
        if config.deletes.iter().any(|word| same(&word)) {
            fault("deletes", "a word stands in `upserts` too: each must mean one thing");
        }
        if config.deletes.is_empty() && config.upserts.is_empty() {
            fault("op-field", "name its values in `upserts` and `deletes`");
        }
    }
    if config.decimals == Decimals::Base64 && plain {
        fault("decimals", "`base64` is for the format `debezium-json`");
    }
    if !(1..=RECORD_BYTES_LIMIT).contains(&config.max_record_bytes) {
        fault("max-record-bytes", "must be 1 to 67108864 (64 MiB)");
    }
    if config.partitions.per_batch == 0 {
        fault("partitions.per-batch", "must be at least 1: no record could be taken");
    }
    if config.partitions.days_back < 0 || config.partitions.days_ahead < 0 {
        fault("partitions", "`days-back` and `days-ahead` are numbers of days from 0");
    }
}

fn column(field: &Field, key: bool, rule: &ColumnRule, fault: &mut dyn FnMut(&str)) {
    let sources = [rule.path.is_some(), rule.constant.is_some(), rule.date_of.is_some()];
    if sources.iter().filter(|given| **given).count() > 1 {
        fault("give one of `path`, `constant` and `date-of`");
    }
    for pointer in [&rule.path, &rule.date_of].into_iter().flatten() {
        if !pointer.starts_with('/') || pointer.len() < 2 {
            fault("a path is a JSON pointer like `/customer/id`");
        }
    }
    let text = matches!(field.data_type.kind, TypeKind::Char(_) | TypeKind::VarChar(_));
    computed(field, text, rule, fault);
    match rule.mask {
        Some(Mask::Sha256 | Mask::KeepLast4) if !text => fault("this mask needs a STRING column"),
        Some(Mask::KeepLast4) if key => fault("this mask makes different keys equal: take `sha256`"),
        Some(Mask::Null) if !field.data_type.nullable => fault("the mask `null` needs a nullable column"),
        _ => {}
    }
    match rule.constant.as_ref().map(|json| constant(json, &field.data_type)) {
        Some(Err(reject)) => fault(&format!("the constant does not fit the column: {reject}")),
        Some(Ok(Value::Null)) if !field.data_type.nullable => fault("the constant is null and the column is NOT NULL"),
        _ => {}
    }
}

fn computed(field: &Field, text: bool, rule: &ColumnRule, fault: &mut dyn FnMut(&str)) {
    if rule.date_of.is_none() {
        if rule.offset_minutes != 0 {
            fault("`offset-minutes` needs `date-of`");
        }
        if rule.format.is_some() {
            fault("`format` needs `date-of`");
        }
        return;
    }
    if !text && field.data_type.kind != TypeKind::Date {
        fault("`date-of` needs a DATE or STRING column");
    }
    if rule.offset_minutes.abs() > OFFSET_MINUTES_LIMIT {
        fault("`offset-minutes` is at most 18 hours");
    }
    match &rule.format {
        Some(_) if !text => fault("`format` needs a STRING column"),
        Some(format) if !time::is_format(format) => fault("`format` knows %Y, %m, %d, %H and %M, and must have %Y"),
        _ => {}
    }
}
