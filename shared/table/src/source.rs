//! Bytes of data files for the sync engine: whole objects when small, blocks fetched on demand when large.
//!
//! Neighbours: `lsm::reader` pulls through parquet's `ChunkReader`; `store` answers. Large files are read from a blocking thread: each
//! open column keeps one block, so a bucket of any size is merged in bounded memory (a row group of another engine may be 128 MB).
//! Invariants: 1. a reader sees exactly the size that the manifest entry says; 2. a failed fetch is an I/O error, never short data; 3. columns
//! read side by side fetch each byte once.

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
/// Smaller blocks are requests without end.
pub const BLOCK_BYTES_MIN: u64 = 64 << 10;
/// Blocks beside the one per column: for the footer, and where two columns cross a block at once.
const BLOCKS_MORE: usize = 4;
/// What a file that is read alone may hold.
const ALONE_BYTES: u64 = 24 << 20;

/// What is kept of an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceSizes {
    /// Objects up to this size are fetched whole.
    whole_bytes: u64,
    /// Size of a block of a larger one.
    block_bytes: u64,
    /// Blocks kept.
    blocks: usize,
}

impl SourceSizes {
    /// Sizes for reading `columns` columns side by side within about `bytes`: a block for each, however small.
    #[must_use]
    pub fn new(columns: usize, bytes: u64) -> Self {
        let blocks = columns + BLOCKS_MORE;
        let block_bytes = (bytes / blocks as u64).clamp(BLOCK_BYTES_MIN, BLOCK_BYTES);
        Self { whole_bytes: (block_bytes * blocks as u64).min(WHOLE_BYTES), block_bytes, blocks }
    }

    /// Sizes for a file that is read alone.
    #[must_use]
    pub fn alone(columns: usize) -> Self {
        Self::new(columns, ALONE_BYTES)
    }

    /// Bytes kept at the most.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.block_bytes * self.blocks as u64
    }
}

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
    sizes: SourceSizes,
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
        sizes: SourceSizes,
    ) -> Result<Self, Box<siltstone_store::object::ObjectError>> {
        if size <= sizes.whole_bytes {
            return Ok(Self::Whole(objects.get(key).await?.bytes));
        }
        Ok(Self::Blocks(Arc::new(Blocks {
            objects: objects.clone(),
            key: key.to_owned(),
            size,
            sizes,
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

    /// Block `number`, if it is kept. One that is `left` behind by its column is the next to go.
    fn kept(&self, number: u64, left: bool) -> io::Result<Option<Bytes>> {
        let mut recent = self.recent.lock().map_err(|_| io::Error::other("a reader of this file panicked"))?;
        let Some(place) = recent.iter().position(|(n, _)| *n == number) else { return Ok(None) };
        let hit = recent.remove(place);
        let bytes = hit.1.clone();
        let place = if left { 0 } else { recent.len() };
        recent.insert(place, hit);
        Ok(Some(bytes))
    }

    /// Fetches blocks `first..=last` in one request and keeps the last one, where the next reading goes on.
    fn fetch_blocks(&self, first: u64, last: u64) -> io::Result<Bytes> {
        let size = self.sizes.block_bytes;
        let bytes = self.fetch(first * size..((last + 1) * size).min(self.size))?;
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if let Ok(mut sums) = self.sums.lock() {
            for (number, block) in (first..).zip(bytes.chunks(size)) {
                sums.entry(number).or_insert_with(|| crc32fast::hash(block));
            }
        }
        let at = bytes.len().saturating_sub(1) / size * size;
        // A copy: a slice would keep all that was fetched alive.
        let end =
            if first == last { bytes.clone() } else { Bytes::copy_from_slice(bytes.get(at..).unwrap_or_default()) };
        let mut recent = self.recent.lock().map_err(|_| io::Error::other("a reader of this file panicked"))?;
        if recent.len() >= self.sizes.blocks {
            recent.remove(0);
        }
        recent.push((last, end));
        Ok(bytes)
    }

    fn block(&self, number: u64) -> io::Result<Bytes> {
        match self.kept(number, false)? {
            Some(bytes) => Ok(bytes),
            None => self.fetch_blocks(number, number),
        }
    }

    fn crc32(&self, digits_at: u64) -> io::Result<u32> {
        let size = self.sizes.block_bytes;
        let mut whole = crc32fast::Hasher::new();
        let with_digits = digits_at / size;
        for number in 0..with_digits {
            let known = self.sums.lock().ok().and_then(|sums| sums.get(&number).copied());
            let sum = match known {
                Some(sum) => sum,
                None => crc32fast::hash(&self.block(number)?),
            };
            whole.combine(&crc32fast::Hasher::new_with_initial_len(sum, size));
        }
        // The footer is small, and the digits may stand across two blocks.
        let start = with_digits * size;
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
        let size = self.sizes.block_bytes;
        let (first, last) = (start / size, end.saturating_sub(1) / size);
        // `start..end` of what begins at block `number`.
        let part = |bytes: &Bytes, number: u64| {
            let to = usize::try_from(end - number * size).unwrap_or(usize::MAX).min(bytes.len());
            let from = usize::try_from(start.saturating_sub(number * size)).unwrap_or(usize::MAX).min(to);
            bytes.slice(from..to)
        };
        if first == last {
            return Ok(part(&self.block(first)?, first));
        }
        // A page goes on where the one before it ended: its first block is kept, the others are new.
        let mut out = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        for number in first..=last {
            let Some(bytes) = self.kept(number, number < last)? else {
                out.extend_from_slice(&part(&self.fetch_blocks(number, last)?, number));
                break;
            };
            out.extend_from_slice(&part(&bytes, number));
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
        let size = self.blocks.sizes.block_bytes;
        let block = self.blocks.block(self.position / size)?;
        let offset = usize::try_from(self.position % size).unwrap_or(0);
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

#[cfg(test)]
mod tests {
    use arrow::{
        array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray},
        datatypes::{DataType, Field, Schema},
    };
    use parquet::{
        arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
        file::properties::WriterProperties,
    };
    use siltstone_store::{
        memory::MemoryObjectStore,
        meter::{Meter, Metered, RequestKind},
        object::PutMode,
    };

    use super::*;

    const COLUMNS: usize = 60;

    /// A file of booleans, numbers and texts that compress badly, in row groups of 30,000 rows.
    fn wide_file() -> Bytes {
        let hash = |row: usize, column: usize| (row * COLUMNS + column).wrapping_mul(0x9E37_79B9_7F4A_7C15) as i64;
        let types = [DataType::Boolean, DataType::Int64, DataType::Utf8];
        let fields: Vec<Field> =
            (0..COLUMNS).map(|c| Field::new(format!("c{c}"), types[c % 3].clone(), false)).collect();
        let schema = Arc::new(Schema::new(fields));
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(30_000)).build();
        let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties)).unwrap();
        for first in (0..90_000).step_by(10_000) {
            let rows = || first..first + 10_000;
            let column = |c: usize| -> ArrayRef {
                match c % 3 {
                    0 => Arc::new(rows().map(|r| Some(hash(r, c) % 2 == 0)).collect::<BooleanArray>()),
                    1 => Arc::new(rows().map(|r| hash(r, c)).collect::<Int64Array>()),
                    _ => Arc::new(rows().map(|r| Some(format!("{:032x}", hash(r, c)))).collect::<StringArray>()),
                }
            };
            writer.write(&RecordBatch::try_new(schema.clone(), (0..COLUMNS).map(column).collect()).unwrap()).unwrap();
        }
        writer.into_inner().unwrap().into()
    }

    /// With 24 blocks for any number of columns, each page of 60 fetched a block again that the others had pushed out.
    #[tokio::test(flavor = "multi_thread")]
    async fn sixty_columns_read_side_by_side_fetch_each_byte_about_once() {
        let meter = Meter::new();
        let objects: Arc<dyn ObjectStore> = Arc::new(Metered::new(MemoryObjectStore::new(), meter.clone()));
        let file = wide_file();
        let size = file.len() as u64;
        objects.put("wide.parquet", file, PutMode::Overwrite).await.unwrap();
        let as_before = SourceSizes { whole_bytes: 0, block_bytes: BLOCK_BYTES, blocks: 24 };
        for sizes in [0, 8 << 20, u64::MAX].map(|bytes| SourceSizes::new(COLUMNS, bytes)).into_iter().chain([as_before])
        {
            let before = meter.snapshot();
            let source = FileSource::open(&objects, "wide.parquet", size, sizes).await.unwrap();
            assert!(matches!(source, FileSource::Blocks(_)), "{size}");
            let read = tokio::task::spawn_blocking(move || {
                let reader = ParquetRecordBatchReaderBuilder::try_new(source).unwrap().with_batch_size(1_000).build();
                reader.unwrap().map(|batch| batch.unwrap().num_rows()).sum::<usize>()
            });
            assert_eq!(read.await.unwrap(), 90_000);
            let fetched = meter.snapshot().since(&before).count(RequestKind::S3Get).bytes;
            println!("{sizes:?}: {fetched} bytes of a file of {size}");
            // Where two columns meet in a block, it is fetched for each.
            assert_eq!(fetched < size + size / 4, sizes != as_before, "{sizes:?}: {fetched} bytes of a file of {size}");
        }
    }

    #[test]
    fn blocks_shrink_to_a_minimum_and_there_is_one_for_each_column() {
        let small = SourceSizes::new(60, 0);
        assert_eq!((small.block_bytes, small.blocks), (BLOCK_BYTES_MIN, 64));
        assert_eq!(SourceSizes::new(60, u64::MAX).bytes(), 64 << 20);
        assert!(SourceSizes::alone(12).whole_bytes == WHOLE_BYTES);
    }
}
