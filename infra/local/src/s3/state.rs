//! The buckets, objects and uploads, and every decision about them, under one lock.
//! Neighbours: `index` (the copy that survives), `body`, `service` (the wire).
//! Invariants: 1. a condition is checked and its write made under the same lock, so a race has one winner; 2. the index is
//! written before memory changes; 3. every object that comes to be is announced once, after it is durable.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use md5::{Digest, Md5};
use s3s::{S3Result, dto::ETagCondition, s3_error};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedSender;

use super::{
    ObjectCreated,
    body::{Bodies, Body},
    index::Index,
};

/// The smallest part, but for the last.
pub(super) const PART_BYTES_MIN: u64 = 5 << 20;

/// What a client stores beside the bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Headers {
    pub(super) content_type: Option<String>,
    pub(super) content_encoding: Option<String>,
    pub(super) content_disposition: Option<String>,
    pub(super) content_language: Option<String>,
    pub(super) cache_control: Option<String>,
    pub(super) user: BTreeMap<String, String>,
    pub(super) sums: Sums,
}

/// Checksums in base64, those that the client sent or asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Sums {
    pub(super) crc32: Option<String>,
    pub(super) crc32c: Option<String>,
    pub(super) crc64nvme: Option<String>,
    pub(super) sha1: Option<String>,
    pub(super) sha256: Option<String>,
}

/// One object, or one part.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) body: Body,
    pub(super) size: u64,
    /// Without quotes.
    pub(super) etag: String,
    pub(super) modified_ms: i64,
    pub(super) headers: Headers,
}

pub(super) type Part = Stored;

/// An upload that is not complete.
#[derive(Debug, Clone)]
pub(super) struct Upload {
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) started_ms: i64,
    pub(super) headers: Headers,
    pub(super) parts: BTreeMap<i32, Arc<Part>>,
}

#[derive(Debug, Default)]
pub(super) struct Bucket {
    pub(super) created_ms: i64,
    pub(super) objects: BTreeMap<String, Arc<Stored>>,
}

/// When a write may happen.
#[derive(Debug, Clone, Default)]
pub(super) struct Condition {
    pub(super) if_none_match: Option<ETagCondition>,
    pub(super) if_match: Option<ETagCondition>,
}

/// Where, when and on whose behalf something is written.
#[derive(Debug, Clone)]
pub(super) struct Write {
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) condition: Condition,
    pub(super) lineage: Option<String>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) buckets: BTreeMap<String, Bucket>,
    pub(super) uploads: BTreeMap<String, Upload>,
    index: Index,
    sequencer: u64,
    events: UnboundedSender<ObjectCreated>,
}

fn broken(error: rusqlite::Error) -> s3s::S3Error {
    tracing::error!(%error, "the index of S3 cannot be written");
    s3_error!(InternalError, "the index cannot be written: {}", error)
}

impl State {
    /// Reads the index, and removes the bodies that it does not name.
    pub(super) fn load(
        index: Index,
        bodies: &Bodies,
        events: UnboundedSender<ObjectCreated>,
    ) -> Result<Self, rusqlite::Error> {
        let mut known = HashSet::new();
        let mut buckets: BTreeMap<String, Bucket> = index
            .buckets()?
            .into_iter()
            .map(|(name, created_ms)| (name, Bucket { created_ms, ..Bucket::default() }))
            .collect();
        let mut stored = |body: String, size, etag, modified_ms, headers| {
            let stored = Stored { body: bodies.known(&body), size, etag, modified_ms, headers };
            known.insert(body);
            Arc::new(stored)
        };
        for row in index.objects()? {
            let object = stored(row.body, row.size, row.etag, row.modified_ms, row.headers);
            if let Some(bucket) = buckets.get_mut(&row.of.0) {
                bucket.objects.insert(row.of.1, object);
            }
        }
        let mut uploads: BTreeMap<String, Upload> = index.uploads()?.into_iter().collect();
        for row in index.parts()? {
            let part = stored(row.body, row.size, row.etag, row.modified_ms, row.headers);
            if let Some(upload) = uploads.get_mut(&row.of.0) {
                upload.parts.insert(row.of.1, part);
            }
        }
        if let Err(error) = bodies.sweep(&known) {
            tracing::warn!(%error, "stale bodies could not be removed");
        }
        let sequencer = index.sequencer()?;
        Ok(Self { buckets, uploads, index, sequencer, events })
    }

    pub(super) fn bucket(&self, name: &str) -> S3Result<&Bucket> {
        self.buckets.get(name).ok_or_else(|| s3_error!(NoSuchBucket, "no bucket {}", name))
    }

    pub(super) fn object(&self, bucket: &str, key: &str) -> S3Result<Arc<Stored>> {
        self.bucket(bucket)?.objects.get(key).cloned().ok_or_else(|| s3_error!(NoSuchKey, "no key {}", key))
    }

    pub(super) fn upload(&self, id: &str, bucket: &str, key: &str) -> S3Result<&Upload> {
        let upload = self.uploads.get(id).filter(|u| u.bucket == bucket && u.key == key);
        upload.ok_or_else(|| s3_error!(NoSuchUpload))
    }

    /// Creating one's own bucket again succeeds, as in us-east-1.
    pub(super) fn create_bucket(&mut self, name: &str, now_ms: i64) -> S3Result<()> {
        if !self.buckets.contains_key(name) {
            self.index.create_bucket(name, now_ms).map_err(broken)?;
            self.buckets.insert(name.to_owned(), Bucket { created_ms: now_ms, ..Bucket::default() });
        }
        Ok(())
    }

    pub(super) fn delete_bucket(&mut self, name: &str) -> S3Result<()> {
        if !self.bucket(name)?.objects.is_empty() {
            return Err(s3_error!(BucketNotEmpty));
        }
        let of = |(id, u): (&String, &Upload)| (u.bucket == name).then(|| id.clone());
        let uploads: Vec<String> = self.uploads.iter().filter_map(of).collect();
        self.index.delete_bucket(name, &uploads).map_err(broken)?;
        uploads.iter().for_each(|id| self.forget_upload(id));
        self.buckets.remove(name);
        Ok(())
    }

    /// The one place where an object comes to be.
    pub(super) fn put(&mut self, write: &Write, object: Stored, ended: Option<&str>) -> S3Result<()> {
        check(self.bucket(&write.bucket)?, &write.key, &write.condition)?;
        let clock = u64::try_from(object.modified_ms).unwrap_or(0) << 16;
        let sequencer = (self.sequencer + 1).max(clock);
        self.index.put((&write.bucket, &write.key), &object, sequencer, ended).map_err(broken)?;
        object.body.keep();
        self.sequencer = sequencer;
        let event = ObjectCreated {
            bucket: write.bucket.clone(),
            key: write.key.clone(),
            size: object.size,
            etag: object.etag.clone(),
            sequencer: format!("{sequencer:016X}"),
            lineage: write.lineage.clone(),
            time_ms: object.modified_ms,
        };
        if let Some(bucket) = self.buckets.get_mut(&write.bucket)
            && let Some(old) = bucket.objects.insert(write.key.clone(), Arc::new(object))
        {
            old.body.discard();
        }
        if let Some(id) = ended {
            self.forget_upload(id);
        }
        // Nobody may listen: a stack without functions.
        self.events.send(event).ok();
        Ok(())
    }

    /// Missing keys are fine. With a condition, one key.
    pub(super) fn delete(&mut self, bucket: &str, keys: &[String], if_match: Option<&ETagCondition>) -> S3Result<()> {
        let known = self.bucket(bucket)?;
        if let (Some(key), Some(_)) = (keys.first(), if_match) {
            check(known, key, &Condition { if_none_match: None, if_match: if_match.cloned() })?;
        }
        self.index.delete(bucket, keys).map_err(broken)?;
        let Some(known) = self.buckets.get_mut(bucket) else { return Ok(()) };
        for old in keys.iter().filter_map(|key| known.objects.remove(key)) {
            old.body.discard();
        }
        Ok(())
    }

    pub(super) fn start_upload(&mut self, id: &str, upload: Upload) -> S3Result<()> {
        self.bucket(&upload.bucket)?;
        self.index.put_upload(id, &upload).map_err(broken)?;
        self.uploads.insert(id.to_owned(), upload);
        Ok(())
    }

    pub(super) fn put_part(&mut self, write: &Write, id: &str, number: i32, part: Part) -> S3Result<()> {
        self.upload(id, &write.bucket, &write.key)?;
        self.index.put_part(id, number, &part).map_err(broken)?;
        part.body.keep();
        if let Some(upload) = self.uploads.get_mut(id)
            && let Some(old) = upload.parts.insert(number, Arc::new(part))
        {
            old.body.discard();
        }
        Ok(())
    }

    pub(super) fn abort(&mut self, id: &str, bucket: &str, key: &str) -> S3Result<()> {
        self.upload(id, bucket, key)?;
        self.index.delete_upload(id).map_err(broken)?;
        self.forget_upload(id);
        Ok(())
    }

    fn forget_upload(&mut self, id: &str) {
        for part in self.uploads.remove(id).into_iter().flat_map(|u| u.parts.into_values()) {
            part.body.discard();
        }
    }
}

/// AWS answers 404 to `If-Match` on what is not there.
fn check(bucket: &Bucket, key: &str, condition: &Condition) -> S3Result<()> {
    let current = bucket.objects.get(key);
    match &condition.if_none_match {
        Some(ETagCondition::Any) if current.is_some() => return Err(s3_error!(PreconditionFailed)),
        Some(ETagCondition::ETag(_)) => return Err(s3_error!(NotImplemented, "If-None-Match of a write takes * only")),
        _ => {}
    }
    let Some(wanted) = &condition.if_match else { return Ok(()) };
    let current = current.ok_or_else(|| s3_error!(NoSuchKey, "no key {}", key))?;
    match wanted.as_etag() {
        Some(tag) if tag.value() != current.etag => Err(s3_error!(PreconditionFailed)),
        _ => Ok(()),
    }
}

/// The parts that a completion names, and the tag of the whole: the MD5 of their MD5s, and their number.
pub(super) fn assemble(upload: &Upload, named: &[(i32, String)]) -> S3Result<(Vec<Arc<Part>>, String)> {
    let mut parts = Vec::with_capacity(named.len());
    let mut tags = Md5::new();
    let mut before = 0;
    for (n, (number, tag)) in named.iter().enumerate() {
        if *number <= before {
            return Err(s3_error!(InvalidPartOrder));
        }
        before = *number;
        let part = upload.parts.get(number).filter(|p| p.etag == *tag).ok_or_else(|| s3_error!(InvalidPart))?;
        if part.size < PART_BYTES_MIN && n + 1 < named.len() {
            return Err(s3_error!(EntityTooSmall));
        }
        for byte in part.etag.as_bytes().chunks(2) {
            let digits = std::str::from_utf8(byte).unwrap_or("00");
            tags.update([u8::from_str_radix(digits, 16).unwrap_or(0)]);
        }
        parts.push(part.clone());
    }
    if parts.is_empty() {
        return Err(s3_error!(MalformedXML, "no parts"));
    }
    Ok((parts, format!("{}-{}", hex(&tags.finalize()), named.len())))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn stored() -> Stored {
        let body = Body::Memory(bytes::Bytes::new());
        Stored { body, size: 0, etag: "e".into(), modified_ms: 1, headers: Headers::default() }
    }

    #[test]
    fn parts_are_put_together_in_ascending_order_each_once() {
        let part = |etag: &str| Arc::new(Stored { size: PART_BYTES_MIN, etag: etag.into(), ..stored() });
        let upload = Upload {
            bucket: "bucket".into(),
            key: "k".into(),
            started_ms: 1,
            headers: Headers::default(),
            parts: BTreeMap::from([(1, part("aa")), (2, part("bb")), (5, part("cc"))]),
        };
        let assembled = |numbers: &[i32]| {
            let named: Vec<_> = numbers.iter().map(|n| (*n, upload.parts[n].etag.clone())).collect();
            let parts =
                assemble(&upload, &named).map(|(parts, _)| parts.iter().map(|p| p.etag.clone()).collect::<String>());
            parts.map_err(|error| error.code().as_str().to_owned())
        };
        assert_eq!(assembled(&[1, 2, 5]), Ok("aabbcc".to_owned()));
        assert_eq!(assembled(&[2, 5]), Ok("bbcc".to_owned()));
        for numbers in [&[2, 1][..], &[1, 5, 2], &[1, 1], &[1, 2, 2]] {
            assert_eq!(assembled(numbers), Err("InvalidPartOrder".to_owned()), "{numbers:?}");
        }
    }

    #[test]
    fn sequencers_grow_when_the_clock_steps_back() {
        let (events, mut seen) = tokio::sync::mpsc::unbounded_channel();
        let bodies = Bodies::new(None).unwrap();
        let mut state = State::load(Index::open(None).unwrap(), &bodies, events).unwrap();
        state.create_bucket("bucket", 1).unwrap();
        let write = Write { bucket: "bucket".into(), key: "k".into(), condition: Condition::default(), lineage: None };
        for modified_ms in [50, 40, 60] {
            state.put(&write, Stored { modified_ms, ..stored() }, None).unwrap();
        }
        let sequencers: Vec<String> = std::iter::from_fn(|| seen.try_recv().ok()).map(|e| e.sequencer).collect();
        assert_eq!(sequencers.len(), 3);
        assert!(sequencers.is_sorted_by(|a, b| a < b), "{sequencers:?}");
    }
}
