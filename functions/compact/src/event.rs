//! The S3 event that starts a compaction (S3 user guide, "Event message structure").
//!
//! Neighbours: `handler`; `infra/cdk` turns EventBridge's events into the same form. S3's own notifications encode the key, EventBridge does not: the
//! source says which it is. Invariant: 1. an event may come twice, late, or for an object that is gone.

use serde::{Deserialize, Serialize};

/// Source of events that came by EventBridge, whose keys are not encoded.
const EVENT_BRIDGE: &str = "aws.s3";

/// An event: one or more objects that were created.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct S3Event {
    /// Records. An event without the field is not a notification of S3 and must not pass for "nothing to do".
    #[serde(rename = "Records")]
    pub records: Vec<S3EventRecord>,
}

/// One created object.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct S3EventRecord {
    /// `aws:s3`, or `aws.s3` for an event that came by EventBridge.
    #[serde(rename = "eventSource", default)]
    pub source: String,
    /// Where.
    pub s3: S3Entity,
}

impl S3EventRecord {
    /// The key as it is in the bucket.
    #[must_use]
    pub fn key(&self) -> String {
        if self.source == EVENT_BRIDGE { self.s3.object.key.clone() } else { self.s3.object.decoded_key() }
    }
}

/// Bucket and object.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct S3Entity {
    /// Bucket.
    pub bucket: S3Bucket,
    /// Object.
    pub object: S3Object,
}

/// The bucket.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct S3Bucket {
    /// Name.
    pub name: String,
}

/// The object.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct S3Object {
    /// Key, URL-encoded with `+` for a space where S3 itself sent it.
    pub key: String,
}

impl S3Object {
    /// The key without the encoding of S3's notifications.
    fn decoded_key(&self) -> String {
        let mut bytes = Vec::with_capacity(self.key.len());
        let mut rest = self.key.as_bytes();
        while let Some((&first, after)) = rest.split_first() {
            let escaped = match (first, after) {
                // The number parser alone would take `+f`.
                (b'%', [high, low, ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                    std::str::from_utf8(&[*high, *low]).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok())
                }
                _ => None,
            };
            match escaped {
                Some(byte) => {
                    bytes.push(byte);
                    rest = after.get(2..).unwrap_or_default();
                }
                None => {
                    bytes.push(if first == b'+' { b' ' } else { first });
                    rest = after;
                }
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_decoded_as_s3_encodes_them() {
        let key = |text: &str| S3Object { key: text.to_owned() }.decoded_key();
        assert_eq!(key("a/dt%3D2026-01-01/b+c%2B.json"), "a/dt=2026-01-01/b c+.json");
        assert_eq!(key("100%"), "100%");
        assert_eq!(key("%C3%A9"), "é");
        assert_eq!(key("%+f"), "% f");
    }

    #[test]
    fn keys_of_event_bridge_are_taken_as_they_are() {
        let record = |source: &str| -> S3EventRecord {
            let text = format!(
                r#"{{"eventSource": "{source}", "s3": {{"bucket": {{"name": "b"}}, "object": {{"key": "p=a%2Fb+c/1"}}}}}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        assert_eq!(record("aws.s3").key(), "p=a%2Fb+c/1");
        assert_eq!(record("aws:s3").key(), "p=a/b c/1");
    }
}
