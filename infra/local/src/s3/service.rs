//! S3's wire, operation by operation. Neighbours: `state` (decides), `receive` (bodies), `list` (pages).
//! Invariants: 1. no decision is taken here; 2. a body is stored before the lock is taken, and is nothing until it is kept.

use std::{
    future,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures::stream;
use hyper::StatusCode;
use s3s::{
    Body as HttpBody, S3Error, S3ErrorCode, S3Request, S3Response, S3Result,
    dto::{
        AbortMultipartUploadInput, AbortMultipartUploadOutput, Bucket as BucketDto, CommonPrefix,
        CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CopyObjectInput, CopyObjectOutput,
        CopyObjectResult, CopySource, CreateBucketInput, CreateBucketOutput, CreateMultipartUploadInput,
        CreateMultipartUploadOutput, DeleteBucketInput, DeleteBucketOutput, DeleteObjectInput, DeleteObjectOutput,
        DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, ETag, ETagCondition, GetBucketLocationInput,
        GetBucketLocationOutput, GetObjectInput, GetObjectOutput, HeadBucketInput, HeadBucketOutput, HeadObjectInput,
        HeadObjectOutput, ListBucketsInput, ListBucketsOutput, ListMultipartUploadsInput, ListMultipartUploadsOutput,
        ListObjectsInput, ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output, ListPartsInput, ListPartsOutput,
        Metadata, MetadataDirective, MultipartUpload, Object, Part as PartDto, PutObjectInput, PutObjectOutput,
        StreamingBlob, Timestamp, UploadPartInput, UploadPartOutput,
    },
    s3_error,
};

use super::{
    GateDecision, S3, TRACE_HEADER,
    body::Body,
    list::{Ask, Page, page},
    receive::{Claims, receive},
    state::{Condition, Headers, State, Stored, Upload, Write, assemble},
};

const LIST_LIMIT: i32 = 1_000;
const PARTS_MAX: i32 = 10_000;
/// Longer bodies are sent in pieces of this size.
const CHUNK_BYTES: u64 = 4 << 20;

fn tag(stored: &Stored) -> Option<ETag> {
    Some(ETag::Strong(stored.etag.clone()))
}

fn timestamp(ms: i64) -> Option<Timestamp> {
    Some(Timestamp::from(UNIX_EPOCH + Duration::from_millis(ms.unsigned_abs())))
}

/// HTTP dates have whole seconds; conditions on them compare those.
fn whole_seconds(ms: i64) -> Timestamp {
    Timestamp::from(SystemTime::UNIX_EPOCH + Duration::from_secs(ms.unsigned_abs() / 1_000))
}

fn length(n: u64) -> Option<i64> {
    i64::try_from(n).ok()
}

fn limit(asked: Option<i32>, most: i32) -> S3Result<i32> {
    match asked {
        Some(n) if n < 0 => Err(s3_error!(InvalidArgument, "a limit is 0 or more")),
        n => Ok(n.unwrap_or(most).min(most)),
    }
}

fn failed(error: impl std::fmt::Display) -> S3Error {
    tracing::error!(%error, "a body cannot be read or written");
    s3_error!(InternalError, "{}", error)
}

/// A body that is gone or cut short comes back by no repetition: an `InternalError` would be tried again for long. AWS says this of an object that
/// it has lost; `NoSuchKey` would be another untruth, by which a snapshot looks expired.
fn unread(error: std::io::Error) -> S3Error {
    match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::UnexpectedEof => {
            tracing::warn!(%error, "a body is lost");
            s3_error!(MethodNotAllowed, "the file with the object's bytes is gone or cut short: {}", error)
        }
        _ => failed(error),
    }
}

fn denied(status: u16) -> S3Error {
    let code = match status {
        403 => S3ErrorCode::AccessDenied,
        404 => S3ErrorCode::NoSuchKey,
        409 => S3ErrorCode::ConditionalRequestConflict,
        412 => S3ErrorCode::PreconditionFailed,
        503 => S3ErrorCode::SlowDown,
        _ => S3ErrorCode::InternalError,
    };
    let mut error = S3Error::with_message(code, "denied by the stack's gate");
    error.set_status_code(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    error
}

impl S3 {
    async fn gate(&self, method: &str, bucket: &str, key: &str) -> S3Result<()> {
        let gate = self.inner.gate.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        match gate.map_or(GateDecision::Pass, |gate| gate(method, bucket, key)) {
            GateDecision::Pass => Ok(()),
            GateDecision::Deny(status) => Err(denied(status)),
            GateDecision::Hang => future::pending().await,
        }
    }

    /// Runs what may touch files off the runtime's threads. It runs to its end even when the client is gone by then.
    async fn blocking<T: Send + 'static>(&self, act: impl FnOnce(&S3) -> S3Result<T> + Send + 'static) -> S3Result<T> {
        if !self.inner.files {
            return act(self);
        }
        let s3 = self.clone();
        tokio::task::spawn_blocking(move || act(&s3)).await.map_err(failed)?
    }

    async fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut State) -> S3Result<T> + Send + 'static,
    ) -> S3Result<T> {
        self.blocking(move |s3| act(&mut s3.state())).await
    }

    fn stored(&self, bytes: Bytes, etag: String, headers: Headers) -> S3Result<Stored> {
        let size = bytes.len() as u64;
        let body = self.inner.bodies.store(bytes).map_err(failed)?;
        Ok(Stored { body, size, etag, modified_ms: self.inner.clock.now_ms(), headers })
    }

    async fn find(&self, bucket: String, key: String) -> S3Result<Arc<Stored>> {
        self.state().object(&bucket, &key)
    }

    /// One piece at once, longer bodies as a stream of pieces.
    async fn send(&self, body: Body, range: std::ops::Range<u64>) -> S3Result<StreamingBlob> {
        if range.end - range.start <= CHUNK_BYTES {
            let bytes = self.blocking(move |_| body.read(range).map_err(unread)).await?;
            return Ok(StreamingBlob::from(HttpBody::from(bytes)));
        }
        let (asked, end) = (body.clone(), range.end);
        // While there still is a status to answer with.
        self.blocking(move |_| asked.require(end).map_err(unread)).await?;
        let pieces = stream::unfold((body, range), |(body, range)| async move {
            if range.is_empty() {
                return None;
            }
            let piece = range.start..range.end.min(range.start + CHUNK_BYTES);
            let rest = piece.end..range.end;
            let read = body.clone();
            let bytes = tokio::task::spawn_blocking(move || read.read(piece)).await;
            Some((bytes.unwrap_or_else(|e| Err(std::io::Error::other(e))), (body, rest)))
        });
        Ok(StreamingBlob::wrap(pieces))
    }

    async fn list(&self, bucket: String, ask: Ask) -> S3Result<Page> {
        if ask.limit == 0 {
            return self.state().bucket(&bucket).map(|_| Page::default());
        }
        let state = self.state();
        Ok(page(&state.bucket(&bucket)?.objects, &ask))
    }
}

fn write<T>(req: &S3Request<T>, bucket: &str, key: &str, condition: Condition) -> S3Result<Write> {
    if key.is_empty() || key.len() > 1_024 {
        return Err(s3_error!(KeyTooLongError, "a key has 1 to 1024 bytes"));
    }
    let lineage = req.headers.get(TRACE_HEADER).and_then(|v| v.to_str().ok()).map(str::to_owned);
    Ok(Write { bucket: bucket.to_owned(), key: key.to_owned(), condition, lineage })
}

/// The inputs carry the same fields without a common trait.
macro_rules! headers {
    ($input:expr) => {
        Headers {
            content_type: $input.content_type.clone(),
            content_encoding: $input.content_encoding.clone(),
            content_disposition: $input.content_disposition.clone(),
            content_language: $input.content_language.clone(),
            cache_control: $input.cache_control.clone(),
            user: $input.metadata.clone().unwrap_or_default().into_iter().collect(),
            sums: Default::default(),
        }
    };
}

/// `GetObjectOutput` and `HeadObjectOutput`, but for the body.
macro_rules! described {
    ($output:ident, $stored:expr, $sums:expr) => {{
        let stored: &Stored = $stored;
        let headers = stored.headers.clone();
        let sums = if $sums { headers.sums } else { Default::default() };
        $output {
            accept_ranges: Some("bytes".to_owned()),
            e_tag: tag(stored),
            last_modified: timestamp(stored.modified_ms),
            content_type: headers.content_type.or_else(|| Some("binary/octet-stream".to_owned())),
            content_encoding: headers.content_encoding,
            content_disposition: headers.content_disposition,
            content_language: headers.content_language,
            cache_control: headers.cache_control,
            metadata: Some(headers.user.into_iter().collect::<Metadata>()),
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
            ..Default::default()
        }
    }};
}

/// Conditions of a read, in the order of RFC 9110.
fn check_read(
    stored: &Stored,
    if_match: &Option<ETagCondition>,
    if_none_match: &Option<ETagCondition>,
    (since, until): (&Option<Timestamp>, &Option<Timestamp>),
) -> S3Result<()> {
    let same = |c: &ETagCondition| c.as_etag().is_none_or(|t| t.value() == stored.etag);
    let modified = whole_seconds(stored.modified_ms);
    match (if_match, until) {
        (Some(c), _) if !same(c) => return Err(s3_error!(PreconditionFailed)),
        (None, Some(until)) if modified > *until => return Err(s3_error!(PreconditionFailed)),
        _ => {}
    }
    match (if_none_match, since) {
        (Some(c), _) if same(c) => Err(s3_error!(NotModified)),
        (None, Some(since)) if modified <= *since => Err(s3_error!(NotModified)),
        _ => Ok(()),
    }
}

fn contents(page: &Page) -> Vec<Object> {
    let entry = |(key, stored): &(String, Arc<Stored>)| Object {
        key: Some(key.clone()),
        size: length(stored.size),
        e_tag: tag(stored),
        last_modified: timestamp(stored.modified_ms),
        storage_class: Some(s3s::dto::ObjectStorageClass::from_static("STANDARD")),
        ..Default::default()
    };
    page.objects.iter().map(entry).collect()
}

fn common_prefixes(page: &Page) -> Vec<CommonPrefix> {
    page.prefixes.iter().map(|p| CommonPrefix { prefix: Some(p.clone()) }).collect()
}

#[async_trait::async_trait]
impl s3s::S3 for S3 {
    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        let (name, now_ms) = (req.input.bucket, self.inner.clock.now_ms());
        self.gate("PUT", &name, "").await?;
        let location = Some(format!("/{name}"));
        self.with(move |state| state.create_bucket(&name, now_ms)).await?;
        Ok(S3Response::new(CreateBucketOutput { location }))
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.gate("HEAD", &req.input.bucket, "").await?;
        self.state().bucket(&req.input.bucket)?;
        let bucket_region = Some(crate::REGION.to_owned());
        Ok(S3Response::new(HeadBucketOutput { bucket_region, ..Default::default() }))
    }

    async fn list_buckets(&self, _: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        self.gate("GET", "", "").await?;
        let named = self.state();
        let bucket = |(name, bucket): (&String, &super::state::Bucket)| BucketDto {
            name: Some(name.clone()),
            creation_date: timestamp(bucket.created_ms),
            ..Default::default()
        };
        let buckets = Some(named.buckets.iter().map(bucket).collect());
        Ok(S3Response::new(ListBucketsOutput { buckets, ..Default::default() }))
    }

    async fn delete_bucket(&self, req: S3Request<DeleteBucketInput>) -> S3Result<S3Response<DeleteBucketOutput>> {
        let name = req.input.bucket;
        self.gate("DELETE", &name, "").await?;
        self.with(move |state| state.delete_bucket(&name)).await?;
        Ok(S3Response::with_status(DeleteBucketOutput {}, StatusCode::NO_CONTENT))
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.gate("GET", &req.input.bucket, "").await?;
        self.state().bucket(&req.input.bucket)?;
        // us-east-1 is answered as an empty element.
        Ok(S3Response::new(GetBucketLocationOutput::default()))
    }

    async fn put_object(&self, mut req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let (body, trailers) = (req.input.body.take(), req.trailing_headers.take());
        let input = &req.input;
        let condition = Condition { if_none_match: input.if_none_match.clone(), if_match: input.if_match.clone() };
        let write = write(&req, &input.bucket, &input.key, condition)?;
        let received = receive(body, Claims::from(input), trailers).await?;
        self.gate("PUT", &write.bucket, &write.key).await?;
        let sums = received.sums.clone();
        let headers = Headers { sums: received.sums, ..headers!(input) };
        let e_tag = Some(ETag::Strong(received.md5.clone()));
        self.blocking(move |s3| {
            let object = s3.stored(received.bytes, received.md5, headers)?;
            s3.state().put(&write, object, None)
        })
        .await?;
        Ok(S3Response::new(PutObjectOutput {
            e_tag,
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
            ..Default::default()
        }))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        self.gate("GET", &input.bucket, &input.key).await?;
        let stored = self.find(input.bucket, input.key).await?;
        let dates = (&input.if_modified_since, &input.if_unmodified_since);
        check_read(&stored, &input.if_match, &input.if_none_match, dates)?;
        let range = input.range.map(|range| range.check(stored.size)).transpose()?;
        let part = range.clone().unwrap_or(0..stored.size);
        let mut output = described!(GetObjectOutput, &stored, range.is_none() && input.checksum_mode.is_some());
        output.content_length = length(part.end - part.start);
        output.content_range = range.map(|r| format!("bytes {}-{}/{}", r.start, r.end.saturating_sub(1), stored.size));
        output.content_type = input.response_content_type.or(output.content_type);
        output.content_disposition = input.response_content_disposition.or(output.content_disposition);
        output.body = Some(self.send(stored.body.clone(), part).await?);
        Ok(S3Response::new(output))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = req.input;
        self.gate("HEAD", &input.bucket, &input.key).await?;
        let stored = self.find(input.bucket, input.key).await?;
        let dates = (&input.if_modified_since, &input.if_unmodified_since);
        check_read(&stored, &input.if_match, &input.if_none_match, dates)?;
        let mut output = described!(HeadObjectOutput, &stored, input.checksum_mode.is_some());
        output.content_length = length(stored.size);
        Ok(S3Response::new(output))
    }

    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let input = &req.input;
        let CopySource::Bucket { bucket, key, .. } = &input.copy_source else {
            return Err(s3_error!(NotImplemented, "a copy's source is a bucket and a key"));
        };
        self.gate("GET", bucket, key).await?;
        let source = self.find(bucket.to_string(), key.to_string()).await?;
        check_read(&source, &input.copy_source_if_match, &input.copy_source_if_none_match, (&None, &None))?;
        let write = write(&req, &input.bucket, &input.key, Condition::default())?;
        self.gate("PUT", &write.bucket, &write.key).await?;
        let replace = input.metadata_directive.as_ref().is_some_and(|d| d.as_str() == MetadataDirective::REPLACE);
        let mut headers = if replace { headers!(input) } else { source.headers.clone() };
        headers.sums = source.headers.sums.clone();
        let (e_tag, last_modified) = self
            .blocking(move |s3| {
                let bytes = source.body.read(0..source.size).map_err(unread)?;
                let object = s3.stored(bytes, source.etag.clone(), headers)?;
                let result = (tag(&object), timestamp(object.modified_ms));
                s3.state().put(&write, object, None).map(|()| result)
            })
            .await?;
        let result = CopyObjectResult { e_tag, last_modified, ..Default::default() };
        Ok(S3Response::new(CopyObjectOutput { copy_object_result: Some(result), ..Default::default() }))
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = req.input;
        self.gate("DELETE", &input.bucket, &input.key).await?;
        self.with(move |state| state.delete(&input.bucket, &[input.key], input.if_match.as_ref())).await?;
        Ok(S3Response::with_status(DeleteObjectOutput::default(), StatusCode::NO_CONTENT))
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let (bucket, delete) = (req.input.bucket, req.input.delete);
        let keys: Vec<String> = delete.objects.into_iter().map(|o| o.key).collect();
        if keys.is_empty() || keys.len() > 1_000 {
            return Err(s3_error!(MalformedXML, "1 to 1000 keys fit"));
        }
        let (mut allowed, mut errors) = (Vec::with_capacity(keys.len()), Vec::new());
        for key in keys {
            match self.gate("DELETE", &bucket, &key).await {
                Ok(()) => allowed.push(key),
                Err(error) => errors.push(s3s::dto::Error {
                    code: Some(error.code().as_str().to_owned()),
                    message: error.message().map(str::to_owned),
                    key: Some(key),
                    ..Default::default()
                }),
            }
        }
        let quiet = delete.quiet.unwrap_or(false);
        let deleted = allowed.iter().filter(|_| !quiet);
        let deleted = deleted.map(|key| DeletedObject { key: Some(key.clone()), ..Default::default() }).collect();
        self.with(move |state| state.delete(&bucket, &allowed, None)).await?;
        let output = DeleteObjectsOutput { deleted: Some(deleted), errors: Some(errors), ..Default::default() };
        Ok(S3Response::new(output))
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        self.gate("GET", &input.bucket, "").await?;
        let max_keys = limit(input.max_keys, LIST_LIMIT)?;
        let token = input.continuation_token.as_deref().map(|token| {
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok();
            let after = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
            after.ok_or_else(|| s3_error!(InvalidArgument, "not a continuation token of this server"))
        });
        let ask = Ask {
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone().unwrap_or_default(),
            after: token.transpose()?.or_else(|| input.start_after.clone()).unwrap_or_default(),
            limit: usize::try_from(max_keys).unwrap_or(0),
        };
        let page = self.list(input.bucket.clone(), ask).await?;
        // The encoding is not echoed: keys are sent as they are, and clients decode only what is said to be encoded.
        Ok(S3Response::new(ListObjectsV2Output {
            key_count: i32::try_from(page.objects.len() + page.prefixes.len()).ok(),
            contents: Some(contents(&page)),
            common_prefixes: Some(common_prefixes(&page)),
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next.map(|next| BASE64_URL_SAFE_NO_PAD.encode(next)),
            continuation_token: input.continuation_token,
            name: Some(input.bucket),
            prefix: input.prefix,
            delimiter: input.delimiter,
            start_after: input.start_after,
            max_keys: Some(max_keys),
            ..Default::default()
        }))
    }

    async fn list_objects(&self, req: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        let input = req.input;
        self.gate("GET", &input.bucket, "").await?;
        let max_keys = limit(input.max_keys, LIST_LIMIT)?;
        let ask = Ask {
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone().unwrap_or_default(),
            after: input.marker.clone().unwrap_or_default(),
            limit: usize::try_from(max_keys).unwrap_or(0),
        };
        let page = self.list(input.bucket.clone(), ask).await?;
        Ok(S3Response::new(ListObjectsOutput {
            contents: Some(contents(&page)),
            common_prefixes: Some(common_prefixes(&page)),
            is_truncated: Some(page.next.is_some()),
            next_marker: page.next.filter(|_| input.delimiter.is_some()),
            name: Some(input.bucket),
            prefix: input.prefix,
            delimiter: input.delimiter,
            marker: input.marker,
            max_keys: Some(max_keys),
            ..Default::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = &req.input;
        let at = write(&req, &input.bucket, &input.key, Condition::default())?;
        self.gate("POST", &at.bucket, &at.key).await?;
        let id = uuid::Uuid::new_v4().simple().to_string();
        let started_ms = self.inner.clock.now_ms();
        let (bucket, key, headers) = (at.bucket, at.key, headers!(input));
        let output = CreateMultipartUploadOutput {
            bucket: Some(bucket.clone()),
            key: Some(key.clone()),
            upload_id: Some(id.clone()),
            checksum_algorithm: input.checksum_algorithm.clone(),
            ..Default::default()
        };
        let upload = Upload { bucket, key, started_ms, headers, parts: Default::default() };
        self.with(move |state| state.start_upload(&id, upload)).await?;
        Ok(S3Response::new(output))
    }

    async fn upload_part(&self, mut req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let (body, trailers) = (req.input.body.take(), req.trailing_headers.take());
        let input = &req.input;
        let (number, id) = (input.part_number, input.upload_id.clone());
        if !(1..=PARTS_MAX).contains(&number) {
            return Err(s3_error!(InvalidArgument, "a part number is 1 to 10000"));
        }
        let write = write(&req, &input.bucket, &input.key, Condition::default())?;
        let received = receive(body, Claims::from(input), trailers).await?;
        self.gate("PUT", &write.bucket, &write.key).await?;
        let (sums, e_tag) = (received.sums.clone(), Some(ETag::Strong(received.md5.clone())));
        let headers = Headers { sums: received.sums, ..Headers::default() };
        self.blocking(move |s3| {
            let part = s3.stored(received.bytes, received.md5, headers)?;
            s3.state().put_part(&write, &id, number, part)
        })
        .await?;
        Ok(S3Response::new(UploadPartOutput {
            e_tag,
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
            ..Default::default()
        }))
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = &req.input;
        let condition = Condition { if_none_match: input.if_none_match.clone(), if_match: input.if_match.clone() };
        let write = write(&req, &input.bucket, &input.key, condition)?;
        self.gate("POST", &write.bucket, &write.key).await?;
        let named = input.multipart_upload.as_ref().and_then(|m| m.parts.as_ref()).into_iter().flatten();
        let named: Vec<(i32, String)> = named
            .map(|p| {
                let tag = p.e_tag.as_ref().map(|t| t.value().to_owned()).unwrap_or_default();
                (p.part_number.unwrap_or_default(), tag)
            })
            .collect();
        let id = input.upload_id.clone();
        let (bucket, key) = (Some(write.bucket.clone()), Some(write.key.clone()));
        let location = Some(format!("/{}/{}", write.bucket, write.key));
        let e_tag = self
            .blocking(move |s3| {
                let (parts, etag, headers) = {
                    let state = s3.state();
                    let upload = state.upload(&id, &write.bucket, &write.key)?;
                    let (parts, etag) = assemble(upload, &named)?;
                    (parts, etag, upload.headers.clone())
                };
                let mut whole = Vec::with_capacity(parts.iter().map(|p| p.size as usize).sum());
                for part in &parts {
                    whole.extend_from_slice(&part.body.read(0..part.size).map_err(failed)?);
                }
                let object = s3.stored(whole.into(), etag, headers)?;
                let mut state = s3.state();
                // Two may complete at once: the upload of the second is gone.
                state.upload(&id, &write.bucket, &write.key)?;
                let e_tag = tag(&object);
                state.put(&write, object, Some(&id)).map(|()| e_tag)
            })
            .await?;
        Ok(S3Response::new(CompleteMultipartUploadOutput { bucket, key, location, e_tag, ..Default::default() }))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = req.input;
        self.gate("DELETE", &input.bucket, &input.key).await?;
        self.with(move |state| state.abort(&input.upload_id, &input.bucket, &input.key)).await?;
        Ok(S3Response::with_status(AbortMultipartUploadOutput::default(), StatusCode::NO_CONTENT))
    }

    async fn list_parts(&self, req: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        let input = req.input;
        self.gate("GET", &input.bucket, &input.key).await?;
        let max = limit(input.max_parts, LIST_LIMIT)?;
        let from = input.part_number_marker.unwrap_or(0);
        let state = self.state();
        let upload = state.upload(&input.upload_id, &input.bucket, &input.key)?;
        let mut rest = upload.parts.iter().filter(|(number, _)| **number > from);
        let part = |(number, part): (&i32, &Arc<Stored>)| PartDto {
            part_number: Some(*number),
            size: length(part.size),
            e_tag: tag(part),
            last_modified: timestamp(part.modified_ms),
            checksum_crc32: part.headers.sums.crc32.clone(),
            checksum_crc64nvme: part.headers.sums.crc64nvme.clone(),
            ..Default::default()
        };
        let parts: Vec<PartDto> = rest.by_ref().take(usize::try_from(max).unwrap_or(0)).map(part).collect();
        let more = rest.next().is_some();
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            max_parts: Some(max),
            part_number_marker: Some(from),
            next_part_number_marker: parts.last().and_then(|p| p.part_number),
            is_truncated: Some(more),
            parts: Some(parts),
            ..Default::default()
        }))
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = req.input;
        self.gate("GET", &input.bucket, "").await?;
        let prefix = input.prefix.clone().unwrap_or_default();
        let state = self.state();
        state.bucket(&input.bucket)?;
        let here = state.uploads.iter().filter(|(_, u)| u.bucket == input.bucket && u.key.starts_with(&prefix));
        let uploads = here.map(|(id, upload)| MultipartUpload {
            key: Some(upload.key.clone()),
            upload_id: Some(id.clone()),
            initiated: timestamp(upload.started_ms),
            ..Default::default()
        });
        // All at once: a local stack has few, and clients follow `is_truncated`.
        Ok(S3Response::new(ListMultipartUploadsOutput {
            uploads: Some(uploads.collect()),
            is_truncated: Some(false),
            bucket: Some(input.bucket),
            prefix: input.prefix,
            ..Default::default()
        }))
    }
}
