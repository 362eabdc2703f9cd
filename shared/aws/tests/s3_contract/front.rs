//! S3's wire in front of the in-memory store: only what the adapter uses. One bucket, whatever its name.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use s3s::{
    Body, S3, S3Request, S3Response, S3Result,
    dto::{
        AbortMultipartUploadInput, AbortMultipartUploadOutput, CommonPrefix, CompleteMultipartUploadInput,
        CompleteMultipartUploadOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput, DeleteObjectsInput,
        DeleteObjectsOutput, ETag, ETagCondition, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput,
        ListObjectsV2Input, ListObjectsV2Output, Object, PutObjectInput, PutObjectOutput, StreamingBlob, Timestamp,
        UploadPartInput, UploadPartOutput,
    },
    s3_error,
};
use siltstone_store::{ObjectError, ObjectErrorKind, ObjectMeta, ObjectStore, PutMode, memory::MemoryObjectStore};

/// Parts by number.
type Parts = BTreeMap<i32, Bytes>;

#[derive(Debug, Default)]
pub struct Front {
    store: MemoryObjectStore,
    uploads: Arc<Mutex<BTreeMap<String, Parts>>>,
}

fn error(error: Box<ObjectError>) -> s3s::S3Error {
    match error.kind() {
        ObjectErrorKind::NotFound => s3_error!(NoSuchKey),
        ObjectErrorKind::PreconditionFailed => s3_error!(PreconditionFailed),
        ObjectErrorKind::Invalid if error.reason.contains("too small") => s3_error!(EntityTooSmall),
        _ => s3_error!(InvalidArgument, "{}", error),
    }
}

fn mode(none: &Option<ETagCondition>, same: &Option<ETagCondition>) -> PutMode {
    match (none, same.as_ref().and_then(ETagCondition::as_etag)) {
        (Some(ETagCondition::Any), _) => PutMode::IfAbsent,
        (_, Some(tag)) => PutMode::IfMatch(siltstone_store::ETag::new(tag.value())),
        _ => PutMode::Overwrite,
    }
}

async fn collect(body: Option<StreamingBlob>) -> S3Result<Bytes> {
    let mut bytes = BytesMut::new();
    let Some(mut body) = body else { return Ok(Bytes::new()) };
    while let Some(chunk) = body.next().await {
        bytes.extend_from_slice(&chunk.map_err(|e| s3_error!(IncompleteBody, "{}", e))?);
    }
    Ok(bytes.freeze())
}

fn tag(etag: &siltstone_store::ETag) -> Option<ETag> {
    Some(ETag::Strong(etag.as_str().to_owned()))
}

fn modified(meta: &ObjectMeta) -> Option<Timestamp> {
    let since = Duration::from_millis(meta.last_modified_ms.unsigned_abs());
    Some(Timestamp::from(SystemTime::UNIX_EPOCH + since))
}

#[async_trait::async_trait]
impl S3 for Front {
    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = req.input;
        let mode = mode(&input.if_none_match, &input.if_match);
        let bytes = collect(input.body).await?;
        let etag = self.store.put(&input.key, bytes, mode).await.map_err(error)?;
        Ok(S3Response::new(PutObjectOutput { e_tag: tag(&etag), ..Default::default() }))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let object = self.store.get(&req.input.key).await.map_err(error)?;
        let bytes = match req.input.range {
            None => object.bytes,
            Some(range) => {
                let range = range.check(object.meta.size)?;
                object.bytes.slice(range.start as usize..range.end as usize)
            }
        };
        let output = GetObjectOutput {
            content_length: Some(bytes.len() as i64),
            body: Some(StreamingBlob::from(Body::from(bytes))),
            e_tag: tag(&object.meta.etag),
            last_modified: modified(&object.meta),
            ..Default::default()
        };
        Ok(S3Response::new(output))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let meta = self.store.head(&req.input.key).await.map_err(error)?;
        let output = HeadObjectOutput {
            content_length: Some(meta.size as i64),
            e_tag: tag(&meta.etag),
            last_modified: modified(&meta),
            ..Default::default()
        };
        Ok(S3Response::new(output))
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let keys: Vec<String> = req.input.delete.objects.into_iter().map(|o| o.key).collect();
        assert!(keys.len() <= 1_000, "a batch of {} keys", keys.len());
        self.store.delete(&keys).await.map_err(error)?;
        Ok(S3Response::new(DeleteObjectsOutput::default()))
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        let prefix = input.prefix.unwrap_or_default();
        if input.delimiter.is_some() {
            // Two directories a page, so that paging is exercised.
            let dirs = self.store.list_dirs(&prefix).await.map_err(error)?;
            let from = input.continuation_token.map_or(0, |token| token.parse().unwrap());
            let page = dirs.iter().skip(from).take(2).map(|d| CommonPrefix { prefix: Some(d.clone()) }).collect();
            let more = dirs.len() > from + 2;
            let output = ListObjectsV2Output {
                common_prefixes: Some(page),
                is_truncated: Some(more),
                next_continuation_token: more.then(|| (from + 2).to_string()),
                ..Default::default()
            };
            return Ok(S3Response::new(output));
        }
        let limit = usize::try_from(input.max_keys.unwrap_or(1_000)).unwrap_or(0);
        let page = self.store.list(&prefix, input.start_after.as_deref(), limit).await.map_err(error)?;
        let contents = page.objects.iter().map(|meta| Object {
            key: Some(meta.key.clone()),
            size: Some(meta.size as i64),
            e_tag: tag(&meta.etag),
            last_modified: modified(meta),
            ..Default::default()
        });
        let output = ListObjectsV2Output {
            contents: Some(contents.collect()),
            is_truncated: Some(page.more),
            ..Default::default()
        };
        Ok(S3Response::new(output))
    }

    async fn create_multipart_upload(
        &self,
        _: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let mut uploads = self.uploads.lock().unwrap();
        let id = format!("upload-{:?}", SystemTime::now());
        uploads.insert(id.clone(), Parts::new());
        Ok(S3Response::new(CreateMultipartUploadOutput { upload_id: Some(id), ..Default::default() }))
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let input = req.input;
        let bytes = collect(input.body).await?;
        let mut uploads = self.uploads.lock().unwrap();
        let parts = uploads.get_mut(&input.upload_id).ok_or_else(|| s3_error!(NoSuchUpload))?;
        parts.insert(input.part_number, bytes);
        let e_tag = Some(ETag::Strong(format!("part-{}", input.part_number)));
        Ok(S3Response::new(UploadPartOutput { e_tag, ..Default::default() }))
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = req.input;
        let parts = self.uploads.lock().unwrap().get(&input.upload_id).cloned();
        let parts = parts.ok_or_else(|| s3_error!(NoSuchUpload))?;
        let named = input.multipart_upload.and_then(|m| m.parts).unwrap_or_default();
        let mut upload = self.store.upload(&input.key).await.map_err(error)?;
        for (n, named) in named.into_iter().enumerate() {
            let number = named.part_number.unwrap_or_default();
            assert_eq!(number, n as i32 + 1, "parts are named in order from 1");
            let same = named.e_tag.is_some_and(|t| t.value() == format!("part-{number}"));
            let part = parts.get(&number).filter(|_| same).ok_or_else(|| s3_error!(InvalidPart))?;
            upload.part(part.clone()).await.map_err(error)?;
        }
        let etag = upload.complete(mode(&input.if_none_match, &input.if_match)).await.map_err(error)?;
        self.uploads.lock().unwrap().remove(&input.upload_id);
        Ok(S3Response::new(CompleteMultipartUploadOutput { e_tag: tag(&etag), ..Default::default() }))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let removed = self.uploads.lock().unwrap().remove(&req.input.upload_id);
        removed.ok_or_else(|| s3_error!(NoSuchUpload))?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}
