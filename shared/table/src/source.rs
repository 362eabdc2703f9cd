//! Bytes of data files for the sync engine: whole objects when small, blocks fetched on demand when large.
//!
//! Neighbours: `lsm::reader` pulls through parquet's `ChunkReader`; `store` answers. Large files are read from a blocking thread: each
//! open column keeps one block, so a bucket of any size is merged in bounded memory (a row group of another engine may be 128 MB).
//! Invariants: 1. a reader sees exactly the size that the manifest entry says; 2. a failed fetch is an I/O error, never short data.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    ops::Range,
    sync::{Arc, Mutex},
};

use bytes::{Buf, Bytes};
use parquet::file::reader::{ChunkReader, Length};
use siltstone_lsm::{checksum, error::LsmError};
use siltstone_store::object::ObjectStore;
use tokio::runtime::Handle;

/// Objects up to this size are fetched in one request.
pub const WHOLE_BYTES: u64 = 8 << 20;
/// Size of a block of a large object.
pub const BLOCK_BYTES: u64 = 1 << 20;
/// Blocks kept per file: one per open column and some for the footer.
const BLOCKS: usize = 24;

/// The bytes of one data file.
#[derive(Debug, Clone)]
pub enum FileSource {
    /// In memory.
    Whole(Bytes),
    /// Fetched by range from a blocking thread.
    Blocks(Arc<Blocks>),
}

/// A large object and its recently used blocks.
#[derive(Debug)]
pub struct Blocks {
    objects: Arc<dyn ObjectStore>,
    key: String,
    size: u64,
    runtime: Handle,
    /// Most recently used last.
    recent: Mutex<Vec<(u64, Bytes)>>,
    /// CRC-32 of each block that was fetched, by its number.
    sums: Mutex<BTreeMap<u64, u32>>,
}

impl FileSource {
    /// A source for `key` of `size` bytes. Large ones must then be read outside of the async threads (`spawn_blocking`).
    ///
    /// # Errors
    /// When a small object cannot be fetched.
    pub async fn open(
        objects: &Arc<dyn ObjectStore>,
        key: &str,
        size: u64,
    ) -> Result<Self, Box<siltstone_store::object::ObjectError>> {
        if size <= WHOLE_BYTES {
            return Ok(Self::Whole(objects.get(key).await?.bytes));
        }
        Ok(Self::Blocks(Arc::new(Blocks {
            objects: objects.clone(),
            key: key.to_owned(),
            size,
            runtime: Handle::current(),
            recent: Mutex::new(Vec::new()),
            sums: Mutex::new(BTreeMap::new()),
        })))
    }

    /// Compares an object that is in memory as a whole with the checksum in its footer, if it has one. A large one is fetched by parts, of
    /// which none has a checksum of its own: there a deep check looks.
    ///
    /// # Errors
    /// When they differ.
    pub fn check_whole(&self, name: &str) -> Result<(), LsmError> {
        match self {
            Self::Whole(bytes) => checksum::check_whole(bytes, name),
            Self::Blocks(_) => Ok(()),
        }
    }

    /// The CRC-32 of the whole object, with the checksum's own digits at `digits_at` taken as open. Blocks that were read before are not
    /// fetched again.
    ///
    /// # Errors
    /// When a block cannot be fetched.
    pub fn crc32(&self, digits_at: u64) -> io::Result<u32> {
        match self {
            Self::Whole(bytes) => Ok(checksum::crc32_of(bytes, digits_at)),
            Self::Blocks(blocks) => blocks.crc32(digits_at),
        }
    }
}

impl Blocks {
    fn fetch(&self, range: Range<u64>) -> io::Result<Bytes> {
        let wanted = range.end - range.start;
        let bytes = self
            .runtime
            .block_on(self.objects.get_range(&self.key, range))
            .map_err(|e| io::Error::other(e.to_string()))?;
        if bytes.len() as u64 == wanted {
            Ok(bytes)
        } else {
            Err(io::Error::other(format!("{}: {} bytes instead of {wanted}", self.key, bytes.len())))
        }
    }

    fn block(&self, number: u64) -> io::Result<Bytes> {
        let mut recent = self.recent.lock().map_err(|_| io::Error::other("a reader of this file panicked"))?;
        if let Some(place) = recent.iter().position(|(n, _)| *n == number) {
            let hit = recent.remove(place);
            let bytes = hit.1.clone();
            recent.push(hit);
            return Ok(bytes);
        }
        let start = number * BLOCK_BYTES;
        let bytes = self.fetch(start..(start + BLOCK_BYTES).min(self.size))?;
        if let Ok(mut sums) = self.sums.lock() {
            sums.entry(number).or_insert_with(|| crc32fast::hash(&bytes));
        }
        if recent.len() >= BLOCKS {
            recent.remove(0);
        }
        recent.push((number, bytes.clone()));
        Ok(bytes)
    }

    fn crc32(&self, digits_at: u64) -> io::Result<u32> {
        let mut whole = crc32fast::Hasher::new();
        let with_digits = digits_at / BLOCK_BYTES;
        for number in 0..with_digits {
            let known = self.sums.lock().ok().and_then(|sums| sums.get(&number).copied());
            let sum = match known {
                Some(sum) => sum,
                None => crc32fast::hash(&self.block(number)?),
            };
            whole.combine(&crc32fast::Hasher::new_with_initial_len(sum, BLOCK_BYTES));
        }
        // The footer is small, and the digits may stand across two blocks.
        let start = with_digits * BLOCK_BYTES;
        let rest = self.read(start, self.size - start)?;
        let sum = checksum::crc32_of(&rest, digits_at - start);
        whole.combine(&crc32fast::Hasher::new_with_initial_len(sum, rest.len() as u64));
        Ok(whole.finalize())
    }

    fn read(&self, start: u64, length: u64) -> io::Result<Bytes> {
        let end = start.saturating_add(length);
        if end > self.size {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{}: ends before byte {end}", self.key)));
        }
        let (first, last) = (start / BLOCK_BYTES, end.saturating_sub(1) / BLOCK_BYTES);
        if length > 2 * BLOCK_BYTES {
            return self.fetch(start..end);
        }
        let mut out = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        for number in first..=last {
            let block = self.block(number)?;
            let base = number * BLOCK_BYTES;
            let from = usize::try_from(start.saturating_sub(base)).unwrap_or(0);
            let to = usize::try_from(end - base).unwrap_or(usize::MAX).min(block.len());
            if first == last {
                return Ok(block.slice(from.min(to)..to));
            }
            out.extend_from_slice(block.get(from..to).unwrap_or_default());
        }
        Ok(Bytes::from(out))
    }
}

impl Length for FileSource {
    fn len(&self) -> u64 {
        match self {
            Self::Whole(bytes) => bytes.len() as u64,
            Self::Blocks(blocks) => blocks.size,
        }
    }
}

/// A forward reader over the blocks.
#[derive(Debug)]
pub struct BlockRead {
    blocks: Arc<Blocks>,
    position: u64,
}

impl Read for BlockRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.blocks.size {
            return Ok(0);
        }
        let block = self.blocks.block(self.position / BLOCK_BYTES)?;
        let offset = usize::try_from(self.position % BLOCK_BYTES).unwrap_or(0);
        let mut rest = block.get(offset..).unwrap_or_default();
        let taken = rest.remaining().min(buffer.len());
        if let Some(target) = buffer.get_mut(..taken) {
            rest.copy_to_slice(target);
        }
        self.position += taken as u64;
        Ok(taken)
    }
}

/// Either form of reading.
#[derive(Debug)]
pub enum SourceRead {
    /// Of a whole object.
    Whole(bytes::buf::Reader<Bytes>),
    /// Of blocks.
    Blocks(BlockRead),
}

impl Read for SourceRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Whole(reader) => reader.read(buffer),
            Self::Blocks(reader) => reader.read(buffer),
        }
    }
}

impl ChunkReader for FileSource {
    type T = SourceRead;

    fn get_read(&self, start: u64) -> parquet::errors::Result<SourceRead> {
        match self {
            Self::Whole(bytes) => bytes.get_read(start).map(SourceRead::Whole),
            Self::Blocks(blocks) => Ok(SourceRead::Blocks(BlockRead { blocks: blocks.clone(), position: start })),
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        match self {
            Self::Whole(bytes) => bytes.get_bytes(start, length),
            Self::Blocks(blocks) => {
                blocks.read(start, length as u64).map_err(|e| parquet::errors::ParquetError::External(Box::new(e)))
            }
        }
    }
}
