//! The form of a quarantined record: one JSON object a line, with everything that a replay needs.
//!
//! Neighbours: `table` writes these lines before it commits, and reads them for `silt quarantine`. Invariants: 1. raw bytes survive exactly
//! (base64); 2. a record is named by its position: shard, sequence number, sub-sequence; 3. a line that is read is bounded;
//! 4. the number that its row would have had is kept: a replay puts the row where the stream had it.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::reject::Reject;

/// Longest line: the largest stream record in base64, and its words.
const LINE_BYTES_MAX: usize = 16 << 20;

/// A record that was not taken, with its place in the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuarantinedRecord {
    /// ARN of the stream.
    pub stream: String,
    /// Shard.
    pub shard: String,
    /// Kinesis sequence number.
    pub sequence: String,
    /// Place in its KPL aggregate, else 0.
    pub sub_sequence: u64,
    /// Arrival, ms since 1970.
    pub arrival_ms: i64,
    /// Partition key.
    pub partition_key: String,
    /// Sequence number of the table's rows that is kept for it: above all before it in its shard, below all after it.
    pub number: i64,
    /// Schema that the record was tried with.
    pub schema_id: i64,
    /// Why.
    pub reject: Reject,
    /// Raw bytes as they stood in the stream (of the user record where it came out of an aggregate).
    #[serde(with = "base64_bytes")]
    pub data: Vec<u8>,
}

mod base64_bytes {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::{Engine, STANDARD};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map_err(D::Error::custom)
    }
}

impl QuarantinedRecord {
    /// One line of JSON, without the line end.
    #[must_use]
    pub fn to_json_line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with the line.
    pub fn from_json_line(line: &str) -> Result<Self, String> {
        if line.len() > LINE_BYTES_MAX {
            return Err(format!("is not a quarantined record: {} bytes are more than one has", line.len()));
        }
        serde_json::from_str(line).map_err(|e| format!("is not a quarantined record: {e}"))
    }

    /// `shard/sequence[.sub]`: the name that people use.
    #[must_use]
    pub fn position(&self) -> String {
        if self.sub_sequence == 0 {
            format!("{}/{}", self.shard, self.sequence)
        } else {
            format!("{}/{}.{}", self.shard, self.sequence, self.sub_sequence)
        }
    }
}
