//! Watches what a batch opens and unpacks: a broken timestamp must not open thousands of partitions, nor an aggregate of packed payloads take
//! all memory.
//!
//! Neighbours: `decoder`. Invariants: 1. a rejected record opens nothing; 2. what is rejected depends on the batch alone, so a redelivered
//! batch is rejected alike; 3. the payloads of one stream record, which no smaller batch can part, unpack to a bounded number of bytes.

use std::collections::HashSet;

use siltstone_format::{types::TypeKind, value::Value};

use crate::{
    decoder::{Decoded, Decoder, Read, RowChange},
    reject::{Reject, RejectCode},
    time,
};

/// Bytes of a partition's escaped path at the most. An S3 key has 1,024; warehouse, table, bucket and file name need theirs.
const PARTITION_PATH_BYTES: usize = 700;

/// Bytes to which the payloads of one stream record unpack at the most, or one payload's limit if that is more.
const STREAM_RECORD_BYTES_MAX: usize = 32 << 20;

/// Decodes the records of one batch.
#[derive(Debug)]
pub struct BatchGuard<'d> {
    decoder: &'d Decoder,
    opened: HashSet<String>,
    unread: u64,
    /// Bytes that payloads of the current stream record may still unpack to.
    left: usize,
}

impl<'d> BatchGuard<'d> {
    pub(crate) fn new(decoder: &'d Decoder) -> Self {
        let mut guard = Self { decoder, opened: HashSet::new(), unread: 0, left: 0 };
        guard.begin_stream_record();
        guard
    }

    /// The payloads from here on came in another stream record.
    pub fn begin_stream_record(&mut self) {
        self.left = STREAM_RECORD_BYTES_MAX.max(self.decoder.config.max_record_bytes);
    }

    /// Decodes a payload that arrived at `arrival_ms` (ms since 1970).
    pub fn decode(&mut self, bytes: &[u8], arrival_ms: i64) -> Decoded {
        let limit = self.decoder.config.max_record_bytes.min(self.left);
        let Read { decoded, unread, bytes } = self.decoder.read(bytes, limit);
        self.unread += unread;
        self.left = self.left.saturating_sub(bytes);
        if self.decoder.partitions.is_empty() {
            return decoded;
        }
        match &decoded {
            Decoded::Changes(changes) => match self.admit(changes, arrival_ms) {
                Ok(()) => decoded,
                Err(reject) => Decoded::Rejected(reject),
            },
            _ => decoded,
        }
    }

    /// Fields of the batch's rows that no column reads: they are left out under the policy `ignore`, and counted here.
    #[must_use]
    pub const fn unread_fields(&self) -> u64 {
        self.unread
    }

    fn admit(&mut self, changes: &[RowChange], arrival_ms: i64) -> Result<(), Reject> {
        let limits = self.decoder.config.partitions;
        let mut opened = Vec::new();
        for change in changes {
            let mut values = Vec::with_capacity(self.decoder.partitions.len());
            for (column, data_type, label) in &self.decoder.partitions {
                let Some(value) = change.row.get(*column) else { continue };
                if let Some(day) = day_of(value, &data_type.kind) {
                    let distance = day - arrival_ms.div_euclid(86_400_000);
                    if distance < -limits.days_back || distance > limits.days_ahead {
                        let detail = format!(
                            "lies {distance} days from the record's arrival; {} back and {} ahead are taken: mend the time or its unit \
                             at the source, or raise `partitions.days-back` or `days-ahead` of the table's decoder",
                            limits.days_back, limits.days_ahead
                        );
                        return Err(Reject::new(RejectCode::ImplausiblePartition, detail).at(label));
                    }
                }
                if matches!(value, Value::String(text) if text.contains(['\u{fffe}', '\u{ffff}'])) {
                    let detail = "holds U+FFFE or U+FFFF, which no listing of S3 can name";
                    return Err(Reject::new(RejectCode::OutOfRange, detail).at(label));
                }
                values.push(value.clone());
            }
            let name = self.decoder.paths.path(&values);
            let name = name.map_err(|error| Reject::new(RejectCode::OutOfRange, error.to_string()))?;
            if name.len() > PARTITION_PATH_BYTES {
                let detail = format!(
                    "the partition's path has {} bytes, {PARTITION_PATH_BYTES} fit into an S3 key beside table and file",
                    name.len()
                );
                return Err(Reject::new(RejectCode::OutOfRange, detail));
            }
            if !self.opened.contains(&name) {
                opened.push(name);
            }
        }
        if self.opened.len() + opened.len() > limits.per_batch {
            let detail = format!(
                "its batch touches more than {} partitions: mend the partition's value at the source, or raise `partitions.per-batch` of \
                 the table's decoder while a history is loaded",
                limits.per_batch
            );
            return Err(Reject::new(RejectCode::ImplausiblePartition, detail));
        }
        self.opened.extend(opened);
        Ok(())
    }
}

/// The day that a partition value stands for, where it stands for one.
fn day_of(value: &Value, kind: &TypeKind) -> Option<i64> {
    match (value, kind) {
        (Value::Date(days), _) => Some(i64::from(*days)),
        (Value::Timestamp { millis, .. }, _) => Some(millis.div_euclid(86_400_000)),
        (Value::String(text), _) => time::parse_date(text),
        _ => None,
    }
}
