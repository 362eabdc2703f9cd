//! The object storage port: one bucket of S3, or something that behaves like it.
//! Above: every use-case. Below: `memory`, `fs` and the S3 adapter; wrappers `retry`, `meter`, `memory::fault`.
//! Invariants: 1. a conditional put takes effect for exactly one of any number of racers;
//! 2. a reader sees a whole object or none, never a torn one; 3. a write that was answered is visible to every later read and listing;
//! 4. an error of kind `Unknown` says nothing about whether the write happened.

use std::{fmt, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

/// Most entries that one [`ObjectStore::list`] call returns, as S3.
pub const LIST_LIMIT: usize = 1_000;
/// Longest key, bytes of UTF-8, as S3.
pub const KEY_BYTES_MAX: usize = 1_024;
/// Smallest part of an upload other than its last one, bytes, as S3.
pub const PART_BYTES_MIN: usize = 5 << 20;
/// Most parts of one upload, as S3.
pub const PARTS_MAX: usize = 10_000;

/// Opaque version of an object's content, without quotes. Equal content may have equal tags: `IfMatch` guards content, not history.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ETag(String);

impl ETag {
    /// Takes a tag with or without the double quotes of HTTP.
    pub fn new(tag: impl Into<String>) -> Self {
        let tag = tag.into();
        match tag.strip_prefix('"').and_then(|t| t.strip_suffix('"')) {
            Some(inner) => Self(inner.to_owned()),
            None => Self(tag),
        }
    }

    /// The tag without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tag as HTTP headers want it, in double quotes.
    pub fn quoted(&self) -> String {
        format!("\"{}\"", self.0)
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is known of an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Full key inside the bucket.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Version of the content.
    pub etag: ETag,
    /// The store's own clock, milliseconds since 1970 UTC. S3 keeps whole seconds only.
    pub last_modified_ms: i64,
}

/// A whole object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The content.
    pub bytes: Bytes,
    /// Size, tag and time of exactly this content.
    pub meta: ObjectMeta,
}

/// Under which condition a put takes effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutMode {
    /// Always.
    Overwrite,
    /// Only if the key holds nothing (`If-None-Match: *`); otherwise `PreconditionFailed`.
    IfAbsent,
    /// Only if the key holds this content (`If-Match`); otherwise `PreconditionFailed`, or `NotFound` if it holds nothing.
    IfMatch(ETag),
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListPage {
    /// Ascending by the bytes of the key.
    pub objects: Vec<ObjectMeta>,
    /// Keys may follow; ask again with the last key as `start_after`.
    pub more: bool,
}

/// What a caller can do about a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectErrorKind {
    /// The key (or the bucket, or the upload) does not exist.
    NotFound,
    /// The condition of a put did not hold (412). Nothing was written by this request; an earlier lost one may have been.
    PreconditionFailed,
    /// Another conditional request to the same key was in progress (409). Nothing was written: try again.
    Conflict,
    /// The store asks to slow down (503 SlowDown, 429). Nothing was written: wait and try again.
    Throttled,
    /// Time-out or lost connection: the write may or may not have happened, now or still to come.
    Unknown,
    /// The caller has no permission; trying again will not help.
    Denied,
    /// The request itself is wrong: bad key, bad range, part too small.
    Invalid,
    /// The store cannot answer now and said so (500, refused connection); nothing was written.
    Unavailable,
    /// The bytes that came are not those that the store took a checksum of.
    Damaged,
}

impl ObjectErrorKind {
    /// True if the same request may be sent again at once or later without a change.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Conflict | Self::Throttled | Self::Unknown | Self::Unavailable)
    }

    fn what(self) -> &'static str {
        match self {
            Self::NotFound => "not found",
            Self::PreconditionFailed => "its condition does not hold",
            Self::Conflict => "another conditional request is in progress; try again",
            Self::Throttled => "the store asks to slow down; wait and try again",
            Self::Unknown => "no answer; it may or may not have taken effect",
            Self::Denied => "permission denied; check the role's policy and the bucket policy",
            Self::Invalid => "the request is not valid",
            Self::Unavailable => "the store is unavailable; try again later",
            Self::Damaged => "its bytes do not have the checksum that the store has for it; restore it from a backup",
        }
    }
}

/// A failed call, with what, where and the store's own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation} s3://{bucket}/{key}: {what} ({reason})", what = kind.what())]
pub struct ObjectError {
    /// What the caller can do about it.
    pub kind: ObjectErrorKind,
    /// The method, as in `put`.
    pub operation: &'static str,
    /// The bucket (or directory) of the store.
    pub bucket: String,
    /// The key or prefix asked for.
    pub key: String,
    /// The text of the underlying error.
    pub reason: String,
}

impl ObjectError {
    /// All fields at once.
    pub fn new(
        kind: ObjectErrorKind,
        operation: &'static str,
        bucket: &str,
        key: &str,
        reason: impl Into<String>,
    ) -> Box<Self> {
        Box::new(Self { kind, operation, bucket: bucket.to_owned(), key: key.to_owned(), reason: reason.into() })
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ObjectErrorKind {
        self.kind
    }
}

/// Result of an object call. The error is boxed: it is large and rare.
pub type ObjectResult<T> = Result<T, Box<ObjectError>>;

/// One bucket. Keys are UTF-8, 1 to 1,024 bytes; `/` has no meaning except to [`ObjectStore::list_dirs`].
/// Every method is one request unless it says otherwise, and none retries: see `retry`.
#[async_trait]
pub trait ObjectStore: Send + Sync + fmt::Debug {
    /// Name of the bucket, for messages.
    fn bucket(&self) -> &str;

    /// Reads a whole object. `NotFound` if there is none.
    async fn get(&self, key: &str) -> ObjectResult<Object>;

    /// Reads bytes `range.start .. range.end`; an end past the object's end is cut to it.
    /// `Invalid` if the range is empty or starts at or past the end.
    async fn get_range(&self, key: &str, range: Range<u64>) -> ObjectResult<Bytes>;

    /// Size, tag and time. `NotFound` if there is none.
    async fn head(&self, key: &str) -> ObjectResult<ObjectMeta>;

    /// Writes a whole object in one request, atomically, under a condition (see [`PutMode`]), and returns its tag.
    /// On `Unknown` the write may have happened, and may even still happen: read, and compare the tag.
    async fn put(&self, key: &str, bytes: Bytes, mode: PutMode) -> ObjectResult<ETag>;

    /// Starts a streamed write. Nothing is visible before [`Upload::complete`]. One request, plus one per part and one to complete.
    async fn upload(&self, key: &str) -> ObjectResult<Box<dyn Upload>>;

    /// Keys that begin with `prefix`, in byte order, strictly after `start_after`, at most `limit` and never more than
    /// [`LIST_LIMIT`]. `Invalid` if `limit` is 0. A prefix that matches nothing is an empty page.
    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> ObjectResult<ListPage>;

    /// What stands between `prefix` and the next `/` of keys below it, as whole prefixes ending in `/`, in byte order, each once.
    /// Objects directly under `prefix` are left out. One request per 1,000 entries.
    async fn list_dirs(&self, prefix: &str) -> ObjectResult<Vec<String>>;

    /// Deletes keys, in batches of 1,000; a key that does not exist counts as deleted. After an error some may be deleted;
    /// doing it again is safe.
    async fn delete(&self, keys: &[String]) -> ObjectResult<()>;
}

/// A streamed write in progress. Dropping it writes nothing but leaves the parts already sent behind and billed: a drop cannot
/// wait for a request, so call [`Upload::abort`], and let a lifecycle rule of the bucket clear what crashed writers left.
#[async_trait]
pub trait Upload: Send + fmt::Debug {
    /// Appends bytes as one part, one request. Every part but the last has at least [`PART_BYTES_MIN`] bytes, no part is empty, and there
    /// are at most [`PARTS_MAX`]; otherwise `Invalid`, here or at [`Upload::complete`]. After an error of any other kind the
    /// same bytes may be sent again.
    async fn part(&mut self, bytes: Bytes) -> ObjectResult<()>;

    /// Makes the whole object visible, atomically, under a condition, and returns its tag. Errors as [`ObjectStore::put`].
    /// After a transient error it may be called again; after a success the upload is spent and every method is `Invalid` or `NotFound`.
    async fn complete(&mut self, mode: PutMode) -> ObjectResult<ETag>;

    /// Gives the upload up and frees its parts. Idempotent.
    async fn abort(&mut self) -> ObjectResult<()>;
}

/// Refuses keys no store takes: empty, longer than [`KEY_BYTES_MAX`], or with a NUL.
pub fn check_key(operation: &'static str, bucket: &str, key: &str) -> ObjectResult<()> {
    let reason = if key.is_empty() {
        "the key is empty"
    } else if key.len() > KEY_BYTES_MAX {
        "the key is longer than 1024 bytes"
    } else if key.contains('\0') {
        "the key contains a NUL"
    } else {
        return Ok(());
    };
    Err(ObjectError::new(ObjectErrorKind::Invalid, operation, bucket, key, reason))
}

/// Refuses an empty byte range.
pub fn check_range(bucket: &str, key: &str, range: &Range<u64>) -> ObjectResult<()> {
    if range.start < range.end {
        return Ok(());
    }
    let reason = format!("range {}..{} is empty", range.start, range.end);
    Err(ObjectError::new(ObjectErrorKind::Invalid, "get_range", bucket, key, reason))
}

/// Refuses a page of nothing, and cuts a page to [`LIST_LIMIT`].
pub fn check_limit(bucket: &str, prefix: &str, limit: usize) -> ObjectResult<usize> {
    if limit == 0 {
        return Err(ObjectError::new(ObjectErrorKind::Invalid, "list", bucket, prefix, "limit is 0"));
    }
    Ok(limit.min(LIST_LIMIT))
}

/// All keys under `prefix`, page by page. For prefixes known to be small: memory grows with the listing.
pub async fn list_all(store: &dyn ObjectStore, prefix: &str) -> ObjectResult<Vec<ObjectMeta>> {
    let mut all: Vec<ObjectMeta> = Vec::new();
    loop {
        let after = all.last().map(|o| o.key.clone());
        let page = store.list(prefix, after.as_deref(), LIST_LIMIT).await?;
        let empty = page.objects.is_empty();
        all.extend(page.objects);
        if !page.more || empty {
            return Ok(all);
        }
    }
}

macro_rules! forward_object_store {
    ($pointer:ident) => {
        #[async_trait]
        impl<T: ObjectStore + ?Sized> ObjectStore for $pointer<T> {
            fn bucket(&self) -> &str {
                (**self).bucket()
            }
            async fn get(&self, key: &str) -> ObjectResult<Object> {
                (**self).get(key).await
            }
            async fn get_range(&self, key: &str, range: Range<u64>) -> ObjectResult<Bytes> {
                (**self).get_range(key, range).await
            }
            async fn head(&self, key: &str) -> ObjectResult<ObjectMeta> {
                (**self).head(key).await
            }
            async fn put(&self, key: &str, bytes: Bytes, mode: PutMode) -> ObjectResult<ETag> {
                (**self).put(key, bytes, mode).await
            }
            async fn upload(&self, key: &str) -> ObjectResult<Box<dyn Upload>> {
                (**self).upload(key).await
            }
            async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> ObjectResult<ListPage> {
                (**self).list(prefix, start_after, limit).await
            }
            async fn list_dirs(&self, prefix: &str) -> ObjectResult<Vec<String>> {
                (**self).list_dirs(prefix).await
            }
            async fn delete(&self, keys: &[String]) -> ObjectResult<()> {
                (**self).delete(keys).await
            }
        }
    };
}
forward_object_store!(Arc);
forward_object_store!(Box);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etag_with_or_without_quotes_is_the_same_tag() {
        assert_eq!(ETag::new("\"abc\""), ETag::new("abc"));
        assert_eq!(ETag::new("abc").quoted(), "\"abc\"");
    }

    #[test]
    fn error_says_what_where_and_what_to_do() {
        let e = ObjectError::new(ObjectErrorKind::Throttled, "put", "b", "k/1", "503 SlowDown");
        assert_eq!(e.to_string(), "put s3://b/k/1: the store asks to slow down; wait and try again (503 SlowDown)");
    }

    #[test]
    fn bad_keys_are_refused_with_kind_invalid() {
        for key in ["", "a\0b", &"x".repeat(1_025)] {
            assert_eq!(check_key("get", "b", key).unwrap_err().kind(), ObjectErrorKind::Invalid);
        }
        check_key("get", "b", &"x".repeat(1_024)).unwrap();
    }
}
