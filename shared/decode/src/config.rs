//! What a table says about its events: format, mapping, limits. Plain data, checked against the schema at start.
//!
//! Neighbours: `decoder` is built from it; `table` keeps it as JSON beside the pointer. Invariant: 1. all faults are reported together.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// Record formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Plain JSON objects: upserts, with an optional op field.
    #[default]
    Json,
    /// Debezium JSON, with or without schema envelope.
    DebeziumJson,
}

/// Columns of a record that the table does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnknownColumns {
    /// Leave them out.
    #[default]
    Ignore,
    /// Reject the record.
    Quarantine,
}

/// What becomes of a record that cannot be decoded or typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BadRecords {
    /// It is kept beside the table, and the rest goes through.
    #[default]
    Quarantine,
    /// It stops its shard until somebody mends the decoder or chooses the other policy; the stream keeps the records.
    Fail,
}

/// Units of numeric timestamps without a schema to say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeUnit {
    /// Seconds since 1970.
    Seconds,
    /// Milliseconds since 1970.
    Millis,
    /// Microseconds since 1970.
    Micros,
    /// Nanoseconds since 1970.
    Nanos,
}

/// How Debezium wrote decimals, where no schema envelope says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decimals {
    /// Numbers or text (`decimal.handling.mode` = string or double).
    #[default]
    Text,
    /// Base64 of the unscaled value with the column's scale (`decimal.handling.mode` = precise).
    Base64,
}

/// How text is hidden before it is stored. A hash keeps equality and no secret: guessable text can be found again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mask {
    /// Null.
    Null,
    /// Lower-case hex of the SHA-256 of the text.
    Sha256,
    /// All but the last four characters become `*`.
    KeepLast4,
}

/// Where a column's value comes from when it is not the field of its own name.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct ColumnRule {
    /// A JSON pointer (`/customer/id`) into the row: a rename, or a field of a nested object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A constant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constant: Option<Json>,
    /// The day of the timestamp at this JSON pointer, for a DATE column or a STRING (see `format`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date_of: Option<String>,
    /// Minutes east of UTC at which the day of `date-of` begins.
    pub offset_minutes: i32,
    /// How `date-of` is written into a STRING column: `%Y`, `%m`, `%d`, `%H`, `%M` and any other characters; by default `%Y-%m-%d`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Hides the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask: Option<Mask>,
}

/// Partitions that a record may open.
///
/// The defaults let pass what a change stream and the history behind it bring, and stop what clocks and units get wrong: a seconds value
/// read as milliseconds (1970), a device that counts from 1970 or 1980, milliseconds read as seconds (far ahead), and a field with noise in
/// place of a time, of which a batch would open thousands of partitions. Who loads the history of many years in no order of time raises
/// `per-batch` for that table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct PartitionLimits {
    /// A date partition may lie so many days before the record's arrival; by default 40 years.
    pub days_back: i64,
    /// And so many after; by default a year.
    pub days_ahead: i64,
    /// Different partitions that the records of one batch may touch; records beyond are rejected. By default 500, as Firehose has it:
    /// each costs a file, and more runs to compact.
    pub per_batch: usize,
}

impl Default for PartitionLimits {
    fn default() -> Self {
        Self { days_back: 14_610, days_ahead: 366, per_batch: 500 }
    }
}

/// The decoder configuration of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct DecoderConfig {
    /// Format.
    pub format: Format,
    /// Plain JSON: name of the field that holds the operation.
    pub op_field: Option<String>,
    /// Plain JSON: values of the op field that mean a delete (compared without case); all others of `upserts` are upserts.
    pub deletes: Vec<String>,
    /// Plain JSON: values of the op field that mean an insert or update.
    pub upserts: Vec<String>,
    /// Unit of numeric times and timestamps where no schema envelope says. By default ms for `json`; for `debezium-json` what
    /// `time.precision.mode` = adaptive writes: ms up to three digits, µs up to six, ns above. Debezium's mode `connect` is `millis`.
    pub timestamp_unit: Option<TimeUnit>,
    /// Debezium decimals without envelope.
    pub decimals: Decimals,
    /// Sources of columns, by column.
    pub columns: BTreeMap<String, ColumnRule>,
    /// Columns that the table does not have.
    pub unknown_columns: UnknownColumns,
    /// Records that cannot be decoded or typed.
    pub bad_records: BadRecords,
    /// Largest record, bytes after decompression; at most 64 MiB.
    pub max_record_bytes: usize,
    /// Partitions that a record may open.
    pub partitions: PartitionLimits,
}

impl Default for DecoderConfig {
    fn default() -> Self {
        let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect();
        Self {
            format: Format::Json,
            op_field: None,
            deletes: words(&["d", "delete", "-d"]),
            upserts: words(&["c", "create", "i", "insert", "u", "update", "upsert", "r", "read", "+i", "+u"]),
            timestamp_unit: None,
            decimals: Decimals::Text,
            columns: BTreeMap::new(),
            unknown_columns: UnknownColumns::Ignore,
            bad_records: BadRecords::Quarantine,
            max_record_bytes: crate::payload::RECORD_BYTES_MAX,
            partitions: PartitionLimits::default(),
        }
    }
}

/// Something in the configuration that cannot work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault {
    /// Where in the configuration.
    pub at: String,
    /// What is wrong and what to write instead.
    pub problem: String,
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.problem)
    }
}
