//! KPL aggregation: several user records in one stream record (awslabs/kinesis-aggregation, `aggregation-format.md`).
//!
//! Neighbours: `table` de-aggregates before decoding; tests and producers aggregate. Layout: magic, protobuf, MD5 of the protobuf.
//! Invariants: 1. a record without the magic is one user record; 2. an aggregate is taken whole or rejected whole;
//! 3. its keys are shared, not copied per record, and its number of records is bounded before they are read.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use md5::{Digest, Md5};
use prost::Message;

use crate::reject::{Reject, RejectCode};

const MAGIC: [u8; 4] = [0xf3, 0x89, 0x9a, 0xc2];
const DIGEST: usize = 16;
/// Most user records and keys of an aggregate: one of 10 MB packs this many records of 80 bytes.
const ENTRIES_MAX: usize = 1 << 17;

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
    pub partition_key: Option<Arc<str>>,
    /// Explicit hash key, where the record came out of an aggregate and its producer gave one.
    pub explicit_hash_key: Option<Arc<str>>,
    /// Payload.
    pub data: Bytes,
}

/// The user records of a stream record.
///
/// # Errors
/// [`RejectCode::BadAggregate`] for bytes that begin like an aggregate and are none.
pub fn deaggregate(record: &Bytes) -> Result<Vec<UserRecord>, Reject> {
    let single =
        || vec![UserRecord { sub_sequence: 0, partition_key: None, explicit_hash_key: None, data: record.clone() }];
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
    if entries(body.clone()).is_none_or(|count| count > ENTRIES_MAX) {
        return Err(damaged("holds more records and keys than any producer packs"));
    }
    let decoded = AggregatedRecord::decode(body).map_err(|_| damaged("its protobuf does not decode"))?;
    let table = |keys: Vec<String>| keys.into_iter().map(Arc::from).collect::<Vec<Arc<str>>>();
    let (keys, hashes) = (table(decoded.partition_key_table), table(decoded.explicit_hash_key_table));
    let at = |table: &[Arc<str>], index: u64| {
        let entry = usize::try_from(index).ok().and_then(|index| table.get(index)).cloned();
        entry.ok_or_else(|| damaged("a record names a key that is not there"))
    };
    let user = |(place, entry): (usize, AggregateEntry)| {
        Ok(UserRecord {
            sub_sequence: place as u64,
            partition_key: Some(at(&keys, entry.partition_key_index)?),
            explicit_hash_key: entry.explicit_hash_key_index.map(|index| at(&hashes, index)).transpose()?,
            data: entry.data,
        })
    };
    decoded.records.into_iter().enumerate().map(user).collect()
}

/// Number of top-level fields of a protobuf message, counted before anything is allocated for them; `None` when it is damaged.
fn entries(mut body: Bytes) -> Option<usize> {
    let mut count = 0;
    while body.has_remaining() {
        let key = prost::encoding::decode_varint(&mut body).ok()?;
        // All known fields are length-delimited (wire type 2); a 64-bit, 32-bit or varint field is one that a newer producer adds.
        let length = match key & 7 {
            0 => prost::encoding::decode_varint(&mut body).ok().map(|_| 0)?,
            1 => 8,
            2 => usize::try_from(prost::encoding::decode_varint(&mut body).ok()?).ok()?,
            5 => 4,
            _ => return None,
        };
        if length > body.remaining() {
            return None;
        }
        body.advance(length);
        count += 1;
    }
    Some(count)
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
    seal(&message.encode_to_vec())
}

fn seal(body: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(MAGIC.len() + body.len() + DIGEST);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(body);
    out.extend_from_slice(Md5::digest(body).as_slice());
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
    fn explicit_hash_keys_are_kept_and_wrong_places_are_rejected() {
        let entry =
            |key, hash| AggregateEntry { partition_key_index: key, explicit_hash_key_index: hash, data: "x".into() };
        let pack = |records| {
            let message = AggregatedRecord {
                partition_key_table: vec!["a".into()],
                explicit_hash_key_table: vec!["17".into()],
                records,
            };
            seal(&message.encode_to_vec())
        };
        let users = deaggregate(&pack(vec![entry(0, Some(0)), entry(0, None)])).unwrap();
        assert_eq!(users[0].explicit_hash_key.as_deref(), Some("17"));
        assert_eq!(users[1].explicit_hash_key, None);
        assert!(deaggregate(&pack(vec![entry(1, None)])).is_err());
        assert!(deaggregate(&pack(vec![entry(0, Some(1))])).is_err());
    }

    #[test]
    fn an_aggregate_of_very_many_empty_records_is_rejected_before_it_takes_memory() {
        let body = [0x1a_u8, 0x00].repeat(ENTRIES_MAX + 1);
        assert_eq!(deaggregate(&seal(&body)).unwrap_err().code, RejectCode::BadAggregate);
        assert_eq!(deaggregate(&seal(&[0x1a, 0x05, 0x00])).unwrap_err().code, RejectCode::BadAggregate);
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
