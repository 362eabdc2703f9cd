//! KPL aggregation: several user records in one stream record (awslabs/kinesis-aggregation, `aggregation-format.md`).
//!
//! Neighbours: `table` de-aggregates before decoding; tests and producers aggregate. Layout: magic, protobuf, MD5 of the protobuf.
//! Invariants: 1. a record without the magic is one user record; 2. an aggregate is taken whole or rejected whole.

use bytes::Bytes;
use md5::{Digest, Md5};
use prost::Message;

use crate::reject::{Reject, RejectCode};

const MAGIC: [u8; 4] = [0xf3, 0x89, 0x9a, 0xc2];
const DIGEST: usize = 16;

#[derive(Clone, PartialEq, Message)]
struct AggregatedRecord {
    #[prost(string, repeated, tag = "1")]
    partition_key_table: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    explicit_hash_key_table: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    records: Vec<AggregateEntry>,
}

#[derive(Clone, PartialEq, Message)]
struct AggregateEntry {
    #[prost(uint64, required, tag = "1")]
    partition_key_index: u64,
    #[prost(uint64, optional, tag = "2")]
    explicit_hash_key_index: Option<u64>,
    #[prost(bytes = "bytes", required, tag = "3")]
    data: Bytes,
}

/// A record as its producer made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRecord {
    /// Place in its aggregate, from 0.
    pub sub_sequence: u64,
    /// Partition key, where the record came out of an aggregate.
    pub partition_key: Option<String>,
    /// Payload.
    pub data: Bytes,
}

/// The user records of a stream record.
///
/// # Errors
/// [`RejectCode::BadAggregate`] for bytes that begin like an aggregate and are none.
pub fn deaggregate(record: &Bytes) -> Result<Vec<UserRecord>, Reject> {
    let single = || vec![UserRecord { sub_sequence: 0, partition_key: None, data: record.clone() }];
    if !record.starts_with(&MAGIC) {
        return Ok(single());
    }
    let damaged = |detail: &str| Reject::new(RejectCode::BadAggregate, detail);
    let end = record.len().checked_sub(DIGEST).filter(|end| *end >= MAGIC.len());
    let end = end.ok_or_else(|| damaged("is too short for an aggregate"))?;
    let (body, digest) = (record.slice(MAGIC.len()..end), record.slice(end..));
    if Md5::digest(&body).as_slice() != digest.as_ref() {
        return Err(damaged("its MD5 does not match"));
    }
    let decoded = AggregatedRecord::decode(body).map_err(|_| damaged("its protobuf does not decode"))?;
    let keys = &decoded.partition_key_table;
    decoded
        .records
        .into_iter()
        .enumerate()
        .map(|(place, entry)| {
            let index = usize::try_from(entry.partition_key_index).unwrap_or(usize::MAX);
            let key = keys.get(index).ok_or_else(|| damaged("a record names a partition key that is not there"))?;
            Ok(UserRecord { sub_sequence: place as u64, partition_key: Some(key.clone()), data: entry.data })
        })
        .collect()
}

/// Packs user records (partition key and payload) as the KPL does.
#[must_use]
pub fn aggregate(records: &[(String, Bytes)]) -> Bytes {
    let mut message = AggregatedRecord::default();
    for (key, data) in records {
        let known = message.partition_key_table.iter().position(|k| k == key);
        let index = known.unwrap_or_else(|| {
            message.partition_key_table.push(key.clone());
            message.partition_key_table.len() - 1
        });
        message.records.push(AggregateEntry {
            partition_key_index: index as u64,
            explicit_hash_key_index: None,
            data: data.clone(),
        });
    }
    let body = message.encode_to_vec();
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&body);
    out.extend_from_slice(Md5::digest(&body).as_slice());
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed() -> Bytes {
        aggregate(&[("a".into(), "1".into()), ("b".into(), "22".into()), ("a".into(), "".into())])
    }

    #[test]
    fn what_is_aggregated_comes_apart_in_order() {
        let users = deaggregate(&packed()).unwrap();
        let shown: Vec<_> =
            users.iter().map(|u| (u.sub_sequence, u.partition_key.as_deref().unwrap(), u.data.as_ref())).collect();
        assert_eq!(shown, [(0, "a", &b"1"[..]), (1, "b", b"22"), (2, "a", b"")]);
    }

    #[test]
    fn a_plain_record_is_one_user_record() {
        assert_eq!(deaggregate(&Bytes::from_static(b"{}")).unwrap()[0].data.as_ref(), b"{}");
        assert_eq!(deaggregate(&Bytes::new()).unwrap().len(), 1);
    }

    #[test]
    fn a_damaged_aggregate_is_rejected_whole() {
        let good = packed();
        for cut in 4..good.len() {
            assert!(deaggregate(&good.slice(..cut)).is_err(), "cut at {cut}");
        }
        let mut flipped = good.to_vec();
        flipped[6] ^= 1;
        assert_eq!(deaggregate(&flipped.into()).unwrap_err().code, RejectCode::BadAggregate);
    }
}
