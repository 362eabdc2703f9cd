//! Puts a data file: one request when it is small, a multipart upload while it is still being written when it is large.
//!
//! Neighbours: `ingest` and `compact`. Invariants: 1. a file's bytes are put once, in order; 2. memory is one part; 3. an upload that is
//! not finished leaves no object (its parts are aborted, or removed by the bucket's lifecycle rule).

use bytes::{Bytes, BytesMut};
use siltstone_store::object::{ObjectStore, PutMode, Upload};

use crate::error::Result;

/// Bytes of a part. S3 wants 5 MiB at least; fewer, larger parts cost fewer requests.
const PART_BYTES: usize = 8 << 20;

/// A data file on its way to the store.
#[derive(Debug)]
pub(crate) struct FileUpload<'a> {
    objects: &'a dyn ObjectStore,
    key: String,
    buffered: BytesMut,
    multipart: Option<Box<dyn Upload>>,
}

impl<'a> FileUpload<'a> {
    pub(crate) fn new(objects: &'a dyn ObjectStore, key: String) -> Self {
        Self { objects, key, buffered: BytesMut::new(), multipart: None }
    }

    /// Takes more of the file.
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.buffered.extend_from_slice(&bytes);
        while self.buffered.len() >= 2 * PART_BYTES {
            let part = self.buffered.split_to(PART_BYTES).freeze();
            let upload = match &mut self.multipart {
                Some(upload) => upload,
                none => none.insert(self.objects.upload(&self.key).await.map_err(|e| *e)?),
            };
            upload.part(part).await.map_err(|e| *e)?;
        }
        Ok(())
    }

    /// Puts the rest; the object exists afterwards.
    pub(crate) async fn finish(self) -> Result<()> {
        let rest = self.buffered.freeze();
        match self.multipart {
            None => {
                self.objects.put(&self.key, rest, PutMode::Overwrite).await.map_err(|e| *e)?;
            }
            Some(mut upload) => {
                upload.part(rest).await.map_err(|e| *e)?;
                upload.complete(PutMode::Overwrite).await.map_err(|e| *e)?;
            }
        }
        Ok(())
    }

    /// Gives up: what was uploaded is dropped.
    pub(crate) async fn abort(self) {
        if let Some(upload) = self.multipart
            && let Err(error) = upload.abort().await
        {
            tracing::warn!(key = self.key, %error, "an unfinished upload could not be aborted; the bucket's lifecycle rule removes it");
        }
    }
}
