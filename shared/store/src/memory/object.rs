//! A bucket in memory. Neighbours: `object` (the port), `contract::object` (what it must satisfy).
//! Invariants: 1. each method holds the lock once, so a conditional put decides and writes in one step;
//! 2. tags are MD5 of the content, as S3's: equal content has equal tags.

use std::{
    collections::BTreeMap,
    ops::{Bound, Range},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use md5::{Digest, Md5};

use super::lock;
use crate::{
    clock::{Clock, SystemClock},
    object::{
        ETag, ListPage, Object, ObjectError, ObjectErrorKind, ObjectMeta, ObjectResult, ObjectStore, PART_BYTES_MIN,
        PARTS_MAX, PutMode, Upload, check_key, check_limit, check_range,
    },
};

type Objects = Arc<Mutex<BTreeMap<String, Object>>>;

/// A bucket in memory. Clones share it.
#[derive(Debug, Clone)]
pub struct MemoryObjectStore {
    bucket: String,
    clock: Arc<dyn Clock>,
    objects: Objects,
}

impl Default for MemoryObjectStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryObjectStore {
    /// An empty bucket named `memory`, dated by the system's clock.
    pub fn new() -> Self {
        Self::with_clock("memory", Arc::new(SystemClock))
    }

    /// An empty bucket dated by a given clock.
    pub fn with_clock(bucket: impl Into<String>, clock: Arc<dyn Clock>) -> Self {
        Self { bucket: bucket.into(), clock, objects: Objects::default() }
    }

    fn err(&self, kind: ObjectErrorKind, operation: &'static str, key: &str, reason: &str) -> Box<ObjectError> {
        ObjectError::new(kind, operation, &self.bucket, key, reason)
    }

    fn read(&self, operation: &'static str, key: &str) -> ObjectResult<Object> {
        check_key(operation, &self.bucket, key)?;
        let found = lock(&self.objects).get(key).cloned();
        found.ok_or_else(|| self.err(ObjectErrorKind::NotFound, operation, key, "no such key"))
    }

    fn commit(
        &self,
        operation: &'static str,
        key: &str,
        bytes: Bytes,
        etag: ETag,
        mode: &PutMode,
    ) -> ObjectResult<ETag> {
        let mut objects = lock(&self.objects);
        match (mode, objects.get(key)) {
            (PutMode::IfAbsent, Some(_)) => {
                return Err(self.err(ObjectErrorKind::PreconditionFailed, operation, key, "the key exists"));
            }
            (PutMode::IfMatch(_), None) => {
                return Err(self.err(ObjectErrorKind::NotFound, operation, key, "no such key"));
            }
            (PutMode::IfMatch(want), Some(now)) if *want != now.meta.etag => {
                return Err(self.err(ObjectErrorKind::PreconditionFailed, operation, key, "the tag differs"));
            }
            _ => {}
        }
        let meta = ObjectMeta {
            key: key.to_owned(),
            size: bytes.len() as u64,
            etag: etag.clone(),
            last_modified_ms: self.clock.now_ms(),
        };
        objects.insert(key.to_owned(), Object { bytes, meta });
        Ok(etag)
    }
}

/// MD5 in hex, as S3 makes the tag of an object put in one request.
fn content_tag(bytes: &[u8]) -> ETag {
    ETag::new(hex(&Md5::digest(bytes)))
}

/// As S3 makes the tag of an object put in parts: MD5 of the parts' MD5s, and their number.
fn multipart_tag(digests: &[[u8; 16]]) -> ETag {
    ETag::new(format!("{}-{}", hex(&Md5::digest(digests.concat())), digests.len()))
}

/// MD5 of one part.
fn part_digest(bytes: &[u8]) -> [u8; 16] {
    Md5::digest(bytes).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[async_trait]
impl ObjectStore for MemoryObjectStore {
    fn bucket(&self) -> &str {
        &self.bucket
    }

    async fn get(&self, key: &str) -> ObjectResult<Object> {
        self.read("get", key)
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> ObjectResult<Bytes> {
        check_range(&self.bucket, key, &range)?;
        let object = self.read("get_range", key)?;
        if range.start >= object.meta.size {
            return Err(self.err(ObjectErrorKind::Invalid, "get_range", key, "the range starts past the end"));
        }
        let end = range.end.min(object.meta.size);
        Ok(object.bytes.slice(range.start as usize..end as usize))
    }

    async fn head(&self, key: &str) -> ObjectResult<ObjectMeta> {
        Ok(self.read("head", key)?.meta)
    }

    async fn put(&self, key: &str, bytes: Bytes, mode: PutMode) -> ObjectResult<ETag> {
        check_key("put", &self.bucket, key)?;
        let etag = content_tag(&bytes);
        self.commit("put", key, bytes, etag, &mode)
    }

    async fn upload(&self, key: &str) -> ObjectResult<Box<dyn Upload>> {
        check_key("upload", &self.bucket, key)?;
        Ok(Box::new(MemoryUpload { store: self.clone(), key: key.to_owned(), parts: Vec::new() }))
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> ObjectResult<ListPage> {
        let limit = check_limit(&self.bucket, prefix, limit)?;
        let from = match start_after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let objects = lock(&self.objects);
        let mut rest = objects.range::<str, _>((from, Bound::Unbounded)).take_while(|(key, _)| key.starts_with(prefix));
        let page = rest.by_ref().take(limit).map(|(_, object)| object.meta.clone()).collect();
        Ok(ListPage { objects: page, more: rest.next().is_some() })
    }

    async fn list_dirs(&self, prefix: &str) -> ObjectResult<Vec<String>> {
        let objects = lock(&self.objects);
        let below = objects
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .map_while(|(key, _)| key.strip_prefix(prefix));
        let mut dirs: Vec<String> =
            below.filter_map(|rest| rest.split_once('/')).map(|(dir, _)| format!("{prefix}{dir}/")).collect();
        // Keys of one directory stand together: each begins with the directory and its slash.
        dirs.dedup();
        Ok(dirs)
    }

    async fn delete(&self, keys: &[String]) -> ObjectResult<()> {
        let mut objects = lock(&self.objects);
        for key in keys {
            objects.remove(key);
        }
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryUpload {
    store: MemoryObjectStore,
    key: String,
    parts: Vec<Bytes>,
}

#[async_trait]
impl Upload for MemoryUpload {
    async fn part(&mut self, bytes: Bytes) -> ObjectResult<()> {
        if bytes.is_empty() || self.parts.len() >= PARTS_MAX {
            return Err(self.store.err(ObjectErrorKind::Invalid, "part", &self.key, "empty part, or too many parts"));
        }
        self.parts.push(bytes);
        Ok(())
    }

    async fn complete(&mut self, mode: PutMode) -> ObjectResult<ETag> {
        let Some((_, all_but_last)) = self.parts.split_last() else {
            return Err(self.store.err(ObjectErrorKind::Invalid, "complete", &self.key, "no parts"));
        };
        if all_but_last.iter().any(|part| part.len() < PART_BYTES_MIN) {
            return Err(self.store.err(
                ObjectErrorKind::Invalid,
                "complete",
                &self.key,
                "a part other than the last is too small",
            ));
        }
        let digests: Vec<[u8; 16]> = self.parts.iter().map(|part| part_digest(part)).collect();
        let mut whole = BytesMut::with_capacity(self.parts.iter().map(Bytes::len).sum());
        self.parts.iter().for_each(|part| whole.extend_from_slice(part));
        let etag = self.store.commit("complete", &self.key, whole.freeze(), multipart_tag(&digests), &mode)?;
        self.parts.clear();
        Ok(etag)
    }

    async fn abort(&mut self) -> ObjectResult<()> {
        self.parts.clear();
        Ok(())
    }
}
