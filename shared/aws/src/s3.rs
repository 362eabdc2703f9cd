//! The object port on S3. Neighbours: `certainty` (what a failure proves), `clients`.
//! Invariants: 1. conditions travel as `If-None-Match: *` and `If-Match` on PutObject and CompleteMultipartUpload;
//! 2. a write answered by anything but a clear refusal is `Unknown`.

use std::{error::Error, ops::Range};

use async_trait::async_trait;
use aws_sdk_s3::{
    Client,
    operation::{get_object::GetObjectOutput, put_object::builders::PutObjectFluentBuilder},
    primitives::{ByteStream, DateTime},
    types::{CompletedMultipartUpload, CompletedPart, Delete, ObjectIdentifier},
};
use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use bytes::Bytes;
use siltstone_store::object::{
    ETag, LIST_LIMIT, ListPage, Object, ObjectError, ObjectErrorKind, ObjectMeta, ObjectResult, ObjectStore,
    PART_BYTES_MIN, PARTS_MAX, PutMode, Upload, check_key, check_limit, check_range,
};

use crate::certainty::{Failure, in_words, is_denied, is_throttled};

/// One bucket of S3.
#[derive(Debug, Clone)]
pub struct S3Store {
    client: Client,
    bucket: String,
}

impl S3Store {
    /// Binds a bucket. Nothing is sent.
    pub fn new(client: Client, bucket: impl Into<String>) -> Self {
        Self { client, bucket: bucket.into() }
    }

    fn fail<E>(&self, call: Call<'_>, error: &SdkError<E, HttpResponse>) -> Box<ObjectError>
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let failure = Failure::of(error);
        let kind = kind_of(&failure, call.write);
        ObjectError::new(kind, call.operation, &self.bucket, call.key, failure.reason())
    }

    fn err(&self, call: Call<'_>, kind: ObjectErrorKind, reason: impl Into<String>) -> Box<ObjectError> {
        ObjectError::new(kind, call.operation, &self.bucket, call.key, reason)
    }

    async fn body(&self, call: Call<'_>, output: GetObjectOutput) -> ObjectResult<Object> {
        let (etag, modified) = (output.e_tag, output.last_modified);
        let body = output.body.collect().await;
        let bytes = body.map_err(|e| self.err(call, body_kind(&e), in_words(&e)))?.into_bytes();
        let meta = self.meta(call, call.key, bytes.len() as u64, etag, modified)?;
        Ok(Object { bytes, meta })
    }

    fn meta(
        &self,
        call: Call<'_>,
        key: &str,
        size: u64,
        etag: Option<String>,
        modified: Option<DateTime>,
    ) -> ObjectResult<ObjectMeta> {
        let last_modified_ms = modified.and_then(|t| t.to_millis().ok()).unwrap_or_default();
        Ok(ObjectMeta { key: key.to_owned(), size, etag: self.tag(call, etag)?, last_modified_ms })
    }

    /// An answer without a tag cannot be used in a condition; it is not trusted at all.
    fn tag(&self, call: Call<'_>, etag: Option<String>) -> ObjectResult<ETag> {
        etag.map(ETag::new).ok_or_else(|| self.err(call, ObjectErrorKind::Unknown, "the answer has no ETag"))
    }

    async fn delete_batch(&self, keys: &[String]) -> ObjectResult<()> {
        let call = Call { operation: "delete", key: keys.first().map_or("", String::as_str), write: true };
        let invalid = |e: aws_sdk_s3::error::BuildError| self.err(call, ObjectErrorKind::Invalid, e.to_string());
        let mut delete = Delete::builder().quiet(true);
        for key in keys {
            delete = delete.objects(ObjectIdentifier::builder().key(key).build().map_err(invalid)?);
        }
        let delete = delete.build().map_err(invalid)?;
        let sent = self.client.delete_objects().bucket(&self.bucket).delete(delete).send().await;
        let answer = sent.map_err(|e| self.fail(call, &e))?;
        let first = answer.errors().iter().find(|e| e.code() != Some("NoSuchKey"));
        let Some(error) = first else { return Ok(()) };
        let code = error.code().unwrap_or_default().to_owned();
        let reason = format!("{code} {}", error.message().unwrap_or_default());
        let kind = kind_of(&Failure::Answered { status: 0, code, reason: String::new() }, true);
        Err(self.err(Call { key: error.key().unwrap_or_default(), ..call }, kind, reason))
    }
}

/// What is being asked, for errors.
#[derive(Debug, Clone, Copy)]
struct Call<'a> {
    operation: &'static str,
    key: &'a str,
    write: bool,
}

fn read<'a>(operation: &'static str, key: &'a str) -> Call<'a> {
    Call { operation, key, write: false }
}

fn write<'a>(operation: &'static str, key: &'a str) -> Call<'a> {
    Call { operation, key, write: true }
}

/// The port's kind of a failure. The code goes before the status: S3 may answer 200 and then send an error.
fn kind_of(failure: &Failure, write: bool) -> ObjectErrorKind {
    use ObjectErrorKind as K;
    let (status, code) = match failure {
        Failure::NotBuilt(_) => return K::Invalid,
        Failure::NotSent(_) => return K::Unavailable,
        Failure::Lost(_) => return K::Unknown,
        Failure::Answered { status, code, .. } => (*status, code.as_str()),
    };
    match (status, code) {
        (_, "PreconditionFailed") => K::PreconditionFailed,
        (_, "ConditionalRequestConflict" | "OperationAborted") => K::Conflict,
        (_, "NoSuchKey" | "NoSuchBucket" | "NoSuchUpload" | "NotFound") => K::NotFound,
        // What is said of an object whose bytes are lost.
        (405, "MethodNotAllowed") => K::Damaged,
        _ if is_throttled(status, code) => K::Throttled,
        _ if is_denied(status, code) => K::Denied,
        (503, "ServiceUnavailable") => K::Throttled,
        (503, _) if !write => K::Throttled,
        (_, "InternalError" | "RequestTimeout") | (408 | 500..=599, _) => {
            if write {
                K::Unknown
            } else {
                K::Unavailable
            }
        }
        (404, _) => K::NotFound,
        (409, "") => K::Conflict,
        (412, _) => K::PreconditionFailed,
        (200..=299, _) if write => K::Unknown,
        _ => K::Invalid,
    }
}

fn conditional(put: PutObjectFluentBuilder, mode: &PutMode) -> PutObjectFluentBuilder {
    match mode {
        PutMode::Overwrite => put,
        PutMode::IfAbsent => put.if_none_match("*"),
        PutMode::IfMatch(tag) => put.if_match(tag.quoted()),
    }
}

/// A body that did not come: the SDK has compared it with the object's checksum, which is no public type of error.
fn body_kind(error: &(dyn std::error::Error + 'static)) -> ObjectErrorKind {
    if in_words(error).contains("checksum mismatch") { ObjectErrorKind::Damaged } else { ObjectErrorKind::Unknown }
}

#[async_trait]
impl ObjectStore for S3Store {
    fn bucket(&self) -> &str {
        &self.bucket
    }

    async fn get(&self, key: &str) -> ObjectResult<Object> {
        check_key("get", &self.bucket, key)?;
        let call = read("get", key);
        let sent = self.client.get_object().bucket(&self.bucket).key(key).send().await;
        self.body(call, sent.map_err(|e| self.fail(call, &e))?).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> ObjectResult<Bytes> {
        check_key("get_range", &self.bucket, key)?;
        check_range(&self.bucket, key, &range)?;
        let call = read("get_range", key);
        let header = format!("bytes={}-{}", range.start, range.end - 1);
        let sent = self.client.get_object().bucket(&self.bucket).key(key).range(header).send().await;
        let bytes = self.body(call, sent.map_err(|e| self.fail(call, &e))?).await?.bytes;
        if bytes.len() as u64 > range.end - range.start {
            return Err(self.err(call, ObjectErrorKind::Unavailable, "the answer is longer than the range"));
        }
        Ok(bytes)
    }

    async fn head(&self, key: &str) -> ObjectResult<ObjectMeta> {
        check_key("head", &self.bucket, key)?;
        let call = read("head", key);
        let sent = self.client.head_object().bucket(&self.bucket).key(key).send().await;
        let answer = sent.map_err(|e| self.fail(call, &e))?;
        let size = answer.content_length.and_then(|n| u64::try_from(n).ok());
        let size = size.ok_or_else(|| self.err(call, ObjectErrorKind::Unavailable, "the answer has no length"))?;
        self.meta(call, key, size, answer.e_tag, answer.last_modified)
    }

    async fn put(&self, key: &str, bytes: Bytes, mode: PutMode) -> ObjectResult<ETag> {
        check_key("put", &self.bucket, key)?;
        let call = write("put", key);
        let put = self.client.put_object().bucket(&self.bucket).key(key).body(ByteStream::from(bytes));
        let answer = conditional(put, &mode).send().await.map_err(|e| self.fail(call, &e))?;
        self.tag(call, answer.e_tag)
    }

    async fn upload(&self, key: &str) -> ObjectResult<Box<dyn Upload>> {
        check_key("upload", &self.bucket, key)?;
        let call = write("upload", key);
        let sent = self.client.create_multipart_upload().bucket(&self.bucket).key(key).send().await;
        let answer = sent.map_err(|e| self.fail(call, &e))?;
        let id = answer.upload_id.ok_or_else(|| self.err(call, ObjectErrorKind::Unknown, "the answer has no id"))?;
        let (store, key) = (self.clone(), key.to_owned());
        Ok(Box::new(S3Upload { store, key, id, parts: Vec::new(), small_part: false, spent: false }))
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> ObjectResult<ListPage> {
        let limit = check_limit(&self.bucket, prefix, limit)?;
        let call = read("list", prefix);
        let mut request = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix);
        if let Some(after) = start_after.filter(|after| !after.is_empty()) {
            request = request.start_after(after);
        }
        let sent = request.max_keys(i32::try_from(limit).unwrap_or(1_000)).send().await;
        let answer = sent.map_err(|e| self.fail(call, &e))?;
        let more = answer.is_truncated.unwrap_or(false);
        let mut objects = Vec::with_capacity(answer.contents().len());
        for entry in answer.contents.unwrap_or_default() {
            let key = entry.key.unwrap_or_default();
            let size = entry.size.and_then(|n| u64::try_from(n).ok()).unwrap_or_default();
            objects.push(self.meta(call, &key, size, entry.e_tag, entry.last_modified)?);
        }
        Ok(ListPage { objects, more })
    }

    async fn list_dirs(&self, prefix: &str) -> ObjectResult<Vec<String>> {
        let call = read("list_dirs", prefix);
        let mut dirs: Vec<String> = Vec::new();
        let mut token = None;
        loop {
            let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).delimiter("/");
            let answer = request.set_continuation_token(token).send().await.map_err(|e| self.fail(call, &e))?;
            dirs.extend(answer.common_prefixes.unwrap_or_default().into_iter().filter_map(|p| p.prefix));
            token = answer.next_continuation_token;
            if token.is_none() {
                dirs.sort_unstable();
                dirs.dedup();
                return Ok(dirs);
            }
        }
    }

    async fn delete(&self, keys: &[String]) -> ObjectResult<()> {
        for key in keys {
            check_key("delete", &self.bucket, key)?;
        }
        for batch in keys.chunks(LIST_LIMIT) {
            self.delete_batch(batch).await?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct S3Upload {
    store: S3Store,
    key: String,
    id: String,
    parts: Vec<CompletedPart>,
    /// A part below the minimum was sent: it must have been the last.
    small_part: bool,
    spent: bool,
}

impl S3Upload {
    fn invalid(&self, operation: &'static str, reason: &str) -> Box<ObjectError> {
        self.store.err(write(operation, &self.key), ObjectErrorKind::Invalid, reason)
    }
}

#[async_trait]
impl Upload for S3Upload {
    async fn part(&mut self, bytes: Bytes) -> ObjectResult<()> {
        if bytes.is_empty() || self.small_part || self.spent || self.parts.len() >= PARTS_MAX {
            return Err(
                self.invalid("part", "empty part, spent upload, too many parts, or a part after one below 5 MiB")
            );
        }
        let call = write("part", &self.key);
        let small = bytes.len() < PART_BYTES_MIN;
        // The number moves only after an answer, so that sending again replaces a part whose answer was lost.
        let number = i32::try_from(self.parts.len() + 1).unwrap_or(i32::MAX);
        let request = self.store.client.upload_part().bucket(&self.store.bucket).key(&self.key).upload_id(&self.id);
        let sent = request.part_number(number).body(ByteStream::from(bytes)).send().await;
        let answer = sent.map_err(|e| self.store.fail(call, &e))?;
        let tag = answer.e_tag.ok_or_else(|| self.store.err(call, ObjectErrorKind::Unknown, "no ETag"))?;
        let part = CompletedPart::builder()
            .part_number(number)
            .e_tag(tag)
            .set_checksum_crc32(answer.checksum_crc32)
            .set_checksum_crc32_c(answer.checksum_crc32_c)
            .set_checksum_crc64_nvme(answer.checksum_crc64_nvme);
        self.parts.push(part.build());
        self.small_part = small;
        Ok(())
    }

    async fn complete(&mut self, mode: PutMode) -> ObjectResult<ETag> {
        if self.parts.is_empty() || self.spent {
            return Err(self.invalid("complete", "no parts, or a spent upload"));
        }
        let call = write("complete", &self.key);
        let parts = CompletedMultipartUpload::builder().set_parts(Some(self.parts.clone())).build();
        let request = self.store.client.complete_multipart_upload().bucket(&self.store.bucket).key(&self.key);
        let request = request.upload_id(&self.id).multipart_upload(parts);
        let request = match &mode {
            PutMode::Overwrite => request,
            PutMode::IfAbsent => request.if_none_match("*"),
            PutMode::IfMatch(tag) => request.if_match(tag.quoted()),
        };
        let answer = request.send().await.map_err(|e| self.store.fail(call, &e))?;
        self.spent = true;
        self.store.tag(call, answer.e_tag)
    }

    async fn abort(&mut self) -> ObjectResult<()> {
        if self.spent {
            return Ok(());
        }
        let call = write("abort", &self.key);
        let request = self.store.client.abort_multipart_upload().bucket(&self.store.bucket).key(&self.key);
        match request.upload_id(&self.id).send().await.map_err(|e| self.store.fail(call, &e)) {
            Err(e) if e.kind() != ObjectErrorKind::NotFound => Err(e),
            _ => {
                self.spent = true;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_whose_bytes_are_lost_is_damaged_and_not_absent() {
        let answered = |status, code: &str| Failure::Answered { status, code: code.to_owned(), reason: String::new() };
        for write in [false, true] {
            assert_eq!(kind_of(&answered(405, "MethodNotAllowed"), write), ObjectErrorKind::Damaged);
            assert_eq!(kind_of(&answered(404, "NoSuchKey"), write), ObjectErrorKind::NotFound);
        }
    }
}
