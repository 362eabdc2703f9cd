//! Writes one object from pieces of any size: one put if it stays small, parts of a fixed size if it grows.
//! Above: writers of data files. Below: any `ObjectStore`.
//! Invariants: 1. memory is at most one part and one piece; 2. an object below the part size costs one request; 3. nothing is visible before
//! [`BufferedUpload::finish`].

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::object::{ETag, ObjectResult, ObjectStore, PART_BYTES_MIN, PutMode, Upload};

/// An object being written.
#[derive(Debug)]
pub struct BufferedUpload {
    store: Arc<dyn ObjectStore>,
    key: String,
    part_bytes: usize,
    buffer: BytesMut,
    upload: Option<Box<dyn Upload>>,
    written: u64,
}

impl BufferedUpload {
    /// Sends nothing yet. `part_bytes` is raised to the store's minimum of 5 MiB. With 10,000 parts at most, 8 MiB allow 78 GiB.
    pub fn new(store: Arc<dyn ObjectStore>, key: impl Into<String>, part_bytes: usize) -> Self {
        let part_bytes = part_bytes.max(PART_BYTES_MIN);
        Self { store, key: key.into(), part_bytes, buffer: BytesMut::new(), upload: None, written: 0 }
    }

    /// Bytes taken so far.
    pub fn len(&self) -> u64 {
        self.written
    }

    /// True if nothing was taken.
    pub fn is_empty(&self) -> bool {
        self.written == 0
    }

    /// Appends a piece; sends parts as they fill. After an error the object must be aborted: bytes of the piece may be sent or not.
    pub async fn write(&mut self, piece: Bytes) -> ObjectResult<()> {
        self.written += piece.len() as u64;
        self.buffer.extend_from_slice(&piece);
        while self.buffer.len() > self.part_bytes {
            let part = self.buffer.split_to(self.part_bytes).freeze();
            self.send(part).await?;
        }
        Ok(())
    }

    /// Makes the object visible under a condition; returns its tag and size. Errors as [`ObjectStore::put`]. Parts of what failed are
    /// freed as far as the store answers.
    pub async fn finish(mut self, mode: PutMode) -> ObjectResult<(ETag, u64)> {
        let rest = self.buffer.split().freeze();
        let Some(mut upload) = self.upload.take() else {
            return Ok((self.store.put(&self.key, rest, mode).await?, self.written));
        };
        // The rest is never empty here: `write` sends a part only when there is more.
        let completed = match upload.part(rest).await {
            Ok(()) => upload.complete(mode).await,
            Err(error) => Err(error),
        };
        if completed.is_err() {
            // What failed first is what the caller must hear; parts left behind fall to the bucket's lifecycle rule.
            drop(upload.abort().await);
        }
        Ok((completed?, self.written))
    }

    /// Gives the object up and frees its parts.
    pub async fn abort(self) -> ObjectResult<()> {
        match self.upload {
            Some(mut upload) => upload.abort().await,
            None => Ok(()),
        }
    }

    async fn send(&mut self, part: Bytes) -> ObjectResult<()> {
        let upload = match &mut self.upload {
            Some(upload) => upload,
            none => none.insert(self.store.upload(&self.key).await?),
        };
        upload.part(part).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        memory::{Fault, FaultPlan, Faulty, MemoryObjectStore},
        object::ObjectErrorKind,
    };

    async fn write(store: Arc<dyn ObjectStore>, total: usize, piece: usize) -> ObjectResult<u64> {
        let content: Bytes = (0..total).map(|n| (n % 251) as u8).collect::<Vec<_>>().into();
        let mut upload = BufferedUpload::new(store, "k", 0);
        for from in (0..total).step_by(piece) {
            upload.write(content.slice(from..total.min(from + piece))).await?;
        }
        let (_, size) = upload.finish(PutMode::IfAbsent).await?;
        Ok(size)
    }

    #[tokio::test]
    async fn small_object_is_one_put_and_large_one_is_parts_with_equal_content() {
        let cases = [
            (0, 1, vec!["put"]),
            (PART_BYTES_MIN, 1 << 20, vec!["put"]),
            (PART_BYTES_MIN + 1, 1 << 20, vec!["upload", "part", "part", "complete"]),
            (2 * PART_BYTES_MIN, 3 * PART_BYTES_MIN, vec!["upload", "part", "part", "complete"]),
            (2 * PART_BYTES_MIN + 9, 777_777, vec!["upload", "part", "part", "part", "complete"]),
        ];
        for (total, piece, want) in cases {
            let (memory, plan) = (MemoryObjectStore::new(), FaultPlan::none());
            let size = write(Arc::new(Faulty::new(memory.clone(), plan.clone())), total, piece).await.unwrap();
            assert_eq!(size, total as u64);
            assert_eq!(plan.log().iter().map(|o| o.name).collect::<Vec<_>>(), want, "{total} in {piece}");
            let stored = memory.get("k").await.unwrap().bytes;
            assert!(stored.iter().enumerate().all(|(n, b)| *b == (n % 251) as u8) && stored.len() == total);
        }
    }

    #[tokio::test]
    async fn failed_completion_aborts_the_parts_and_reports_the_first_error() {
        let plan = FaultPlan::none().on("complete", "k", 1, Fault::LoseRequest);
        let store = Arc::new(Faulty::new(MemoryObjectStore::new(), plan.clone()));
        let error = write(store, 2 * PART_BYTES_MIN, 1 << 20).await.unwrap_err();
        assert_eq!(error.kind(), ObjectErrorKind::Unknown);
        assert_eq!(plan.log().last().unwrap().name, "abort");
    }
}
