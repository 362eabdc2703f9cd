//! Avro object container files: header, blocks, sync marks, compression.
//!
//! Below: `cursor`, `schema`. Above: `manifest`. Invariants: 1. the same rows always give the same file, as the sync mark comes from
//! the content; 2. a block opens to at most [`MAX_BLOCK_BYTES`], however small it is when compressed; 3. every byte is accounted for;
//! 4. no byte of a file of ours can change, and no file can stand in place of another, without being refused: see [`Seal`].

use std::io::Read;

use super::{
    cursor::{Cursor, put_bytes, put_long},
    schema::Schema,
};
use crate::error::{FormatError, Result};

/// Largest manifest or manifest list that is read. Paimon writes manifests of about 8 MB.
pub const MAX_FILE_BYTES: usize = 512 << 20;
/// Most bytes of one block when opened. Java closes a block at 64 KB, paimon-rust and pypaimon may put a whole manifest in one.
pub const MAX_BLOCK_BYTES: usize = 256 << 20;
/// Size at which a written block is closed: Java's.
const BLOCK_BYTES: usize = 64_000;
const MAGIC: &[u8] = b"Obj\x01";
/// First half of the sync mark of a file of ours.
const SEAL: &[u8; 8] = b"siltseal";
/// Level of written blocks: Paimon's `file.compression.zstd-level` default.
const ZSTD_LEVEL: i32 = 1;

/// Compression of the blocks; what is written is zstandard unless option `manifest.compression` says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// `null`
    None,
    /// `deflate`
    Deflate,
    /// `zstandard`
    #[default]
    Zstandard,
    /// `snappy`: Java Paimon 0.9 cannot read it, so it is written only where the table's option asks for it.
    Snappy,
}

impl Compression {
    fn parse(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"null" | b"" => Self::None,
            b"deflate" => Self::Deflate,
            b"zstandard" => Self::Zstandard,
            b"snappy" => Self::Snappy,
            _ => return None,
        })
    }

    const fn name(self) -> &'static str {
        match self {
            Self::None => "null",
            Self::Deflate => "deflate",
            Self::Zstandard => "zstandard",
            Self::Snappy => "snappy",
        }
    }
}

/// The second half of the sync mark of a file of ours: CRC-32 of the file's own name and its header, then of all blocks without their marks. A sync
/// mark may be any 16 bytes, so no other engine sees a difference. A file may be sealed without name.
#[derive(Debug, Clone, Default)]
struct Seal {
    blocks: crc32fast::Hasher,
}

impl Seal {
    fn mark(self, name: &str, header: &[u8]) -> [u8; 16] {
        let halves = [Self::head(name, header), self.blocks.finalize()].map(u32::to_be_bytes);
        let mut mark = [0; 16];
        for (to, from) in mark.iter_mut().zip(SEAL.iter().chain(halves.as_flattened())) {
            *to = *from;
        }
        mark
    }

    fn head(name: &str, header: &[u8]) -> u32 {
        let mut sum = crc32fast::Hasher::new();
        sum.update(name.as_bytes());
        sum.update(header);
        sum.finalize()
    }

    /// Whether a mark is that of a file of this name, or of one sealed without name; only the header's part.
    fn fits_header(mark: &[u8], object: &str, header: &[u8]) -> bool {
        let name = object.rsplit('/').next().unwrap_or_default();
        let said = mark.get(8..12);
        ["", name].iter().any(|name| said == Some(Self::head(name, header).to_be_bytes().as_slice()))
    }

    fn fits_blocks(&self, mark: &[u8]) -> bool {
        mark.get(12..) == Some(self.blocks.clone().finalize().to_be_bytes().as_slice())
    }
}

/// A container file being read.
pub(crate) struct Reader<'a> {
    object: &'a str,
    cursor: Cursor<'a>,
    compression: Compression,
    sync: &'a [u8],
    /// Of what was read so far, where the file is sealed.
    seal: Option<Seal>,
    schema: Schema,
}

/// One opened block.
pub(crate) struct Block {
    pub(crate) rows: usize,
    pub(crate) bytes: Vec<u8>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(object: &'a str, bytes: &'a [u8]) -> Result<Self> {
        let fault = |detail: String| FormatError::corrupt(object, detail);
        if bytes.len() > MAX_FILE_BYTES {
            return Err(fault(format!("{} bytes are more than the {MAX_FILE_BYTES} that are read", bytes.len())));
        }
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| fault("not an Avro data file (or cut off)".to_owned()))?;
        let mut cursor = Cursor::new(rest);
        let (mut schema, mut codec) = (None, b"".as_slice());
        let header = cursor.array(|cursor| {
            let key = cursor.bytes()?;
            let value = cursor.bytes()?;
            match key {
                b"avro.schema" => schema = Some(value),
                b"avro.codec" => codec = value,
                _ => {}
            }
            Ok(())
        });
        header.map_err(|e| fault(format!("Avro header: {e}")))?;
        let header = bytes.get(..bytes.len() - cursor.remaining()).unwrap_or_default();
        let sync = cursor.take(16).map_err(|e| fault(format!("Avro header: {e}")))?;
        let seal = sync.starts_with(SEAL).then(Seal::default);
        if seal.is_some() && !Seal::fits_header(sync, object, header) {
            return Err(fault(
                "its header does not have the checksum that its sync mark states: it is damaged, or another file's content".to_owned(),
            ));
        }
        let schema =
            Schema::parse(schema.ok_or_else(|| fault("the Avro header has no schema".to_owned()))?).map_err(fault)?;
        let compression = Compression::parse(codec).ok_or_else(|| {
            let codec = String::from_utf8_lossy(codec).chars().take(32).collect::<String>();
            FormatError::unsupported(format!("Avro codec `{codec}` of {object}"), "set manifest.compression to zstd")
        })?;
        Ok(Self { object, cursor, compression, sync, seal, schema })
    }

    pub(crate) const fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The next block, or `None` at the end of the file.
    pub(crate) fn next_block(&mut self) -> Result<Option<Block>> {
        if self.cursor.is_empty() {
            return match &self.seal {
                Some(seal) if !seal.fits_blocks(self.sync) => {
                    let detail =
                        "its blocks do not have the checksum that its sync mark states: it is damaged or cut off";
                    Err(FormatError::corrupt(self.object, detail))
                }
                _ => Ok(None),
            };
        }
        let (rows, body) = self.frame().map_err(|e| FormatError::corrupt(self.object, format!("Avro block: {e}")))?;
        let bytes = decompress(self.compression, body)
            .map_err(|e| FormatError::corrupt(self.object, format!("Avro block: {e}")))?;
        // A row of ours takes tens of bytes; one byte each is enough to keep a damaged count from being believed.
        if rows > bytes.len() {
            return Err(FormatError::corrupt(
                self.object,
                format!("an Avro block of {} bytes claims {rows} rows", bytes.len()),
            ));
        }
        Ok(Some(Block { rows, bytes }))
    }

    fn frame(&mut self) -> std::result::Result<(usize, &'a [u8]), &'static str> {
        let frame = self.cursor.rest();
        let rows = usize::try_from(self.cursor.long()?).map_err(|_| "the row count is negative")?;
        let body = self.cursor.bytes()?;
        if let Some(seal) = &mut self.seal {
            seal.blocks.update(frame.get(..frame.len() - self.cursor.remaining()).unwrap_or_default());
        }
        if self.cursor.take(16)? != self.sync {
            return Err("the sync mark behind it is another one");
        }
        Ok((rows, body))
    }
}

fn decompress(compression: Compression, body: &[u8]) -> std::result::Result<Vec<u8>, String> {
    match compression {
        Compression::None => Ok(body.to_vec()),
        Compression::Deflate => read_bounded(flate2::read::DeflateDecoder::new(body)),
        Compression::Zstandard => {
            read_bounded(zstd::stream::read::Decoder::with_buffer(body).map_err(|e| e.to_string())?)
        }
        Compression::Snappy => {
            let (body, sum) = body.split_last_chunk::<4>().ok_or("a snappy block has no checksum")?;
            let length = snap::raw::decompress_len(body).map_err(|e| e.to_string())?;
            // Snappy's own limit: a byte of input makes at most 64/3 bytes of output.
            if length > MAX_BLOCK_BYTES || length > body.len().saturating_mul(22) {
                return Err(format!("it claims to open to {length} bytes"));
            }
            let out = snap::raw::Decoder::new().decompress_vec(body).map_err(|e| e.to_string())?;
            if crc32fast::hash(&out) != u32::from_be_bytes(*sum) {
                return Err("its checksum is another one".to_owned());
            }
            Ok(out)
        }
    }
}

/// Compresses rows that stand outside of a file.
pub(crate) fn pack_block(rows: &[u8]) -> Result<Vec<u8>> {
    compress(Compression::Zstandard, rows).map_err(|e| FormatError::invalid("packed rows", e.to_string()))
}

/// Opens what [`pack_block`] made.
pub(crate) fn unpack_block(object: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    decompress(Compression::Zstandard, bytes).map_err(|e| FormatError::corrupt(object, format!("packed rows: {e}")))
}

fn read_bounded(reader: impl Read) -> std::result::Result<Vec<u8>, String> {
    let mut out = Vec::new();
    reader.take(MAX_BLOCK_BYTES as u64 + 1).read_to_end(&mut out).map_err(|e| e.to_string())?;
    if out.len() > MAX_BLOCK_BYTES { Err(format!("it opens to more than {MAX_BLOCK_BYTES} bytes")) } else { Ok(out) }
}

/// A container file being written.
pub(crate) struct Writer {
    schema: &'static str,
    compression: Compression,
    blocks: Vec<(usize, Vec<u8>)>,
    rows: usize,
    open: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(schema: &'static str, compression: Compression) -> Self {
        Self { schema, compression, blocks: Vec::new(), rows: 0, open: Vec::with_capacity(BLOCK_BYTES + 4096) }
    }

    /// Appends one row.
    pub(crate) fn row(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        write(&mut self.open);
        self.rows += 1;
        if self.open.len() >= BLOCK_BYTES { self.close_block() } else { Ok(()) }
    }

    fn close_block(&mut self) -> Result<()> {
        let body =
            compress(self.compression, &self.open).map_err(|e| FormatError::invalid("Avro block", e.to_string()))?;
        self.blocks.push((self.rows, body));
        self.open.clear();
        self.rows = 0;
        Ok(())
    }

    /// The file, sealed without name.
    #[cfg(test)]
    pub(crate) fn finish(self) -> Result<Vec<u8>> {
        self.finish_as("")
    }

    /// The file that is stored under this name.
    pub(crate) fn finish_as(mut self, name: &str) -> Result<Vec<u8>> {
        if self.rows > 0 {
            self.close_block()?;
        }
        let bodies = self.blocks.iter().map(|(_, body)| body.len()).sum::<usize>();
        let mut out = Vec::with_capacity(bodies + 40 * self.blocks.len() + self.schema.len() + 128);
        out.extend_from_slice(MAGIC);
        put_long(&mut out, 2);
        for (key, value) in [("avro.schema", self.schema), ("avro.codec", self.compression.name())] {
            put_bytes(&mut out, key.as_bytes());
            put_bytes(&mut out, value.as_bytes());
        }
        put_long(&mut out, 0);
        let mut seal = Seal::default();
        for (rows, body) in &self.blocks {
            let mut frame = Vec::with_capacity(20);
            put_long(&mut frame, *rows as i64);
            put_long(&mut frame, body.len() as i64);
            seal.blocks.update(&frame);
            seal.blocks.update(body);
        }
        let sync = seal.mark(name, &out);
        out.extend_from_slice(&sync);
        for (rows, body) in &self.blocks {
            put_long(&mut out, *rows as i64);
            put_bytes(&mut out, body);
            out.extend_from_slice(&sync);
        }
        Ok(out)
    }
}

/// The same file with another engine's sync mark: nothing vouches for its bytes.
#[cfg(test)]
pub(crate) fn unsealed(mut file: Vec<u8>) -> Vec<u8> {
    let at = file.windows(SEAL.len()).position(|w| w == SEAL).unwrap();
    let sync = file[at..at + 16].to_vec();
    while let Some(at) = file.windows(16).position(|w| w == sync) {
        file[at..at + 16].copy_from_slice(&[7; 16]);
    }
    file
}

fn compress(compression: Compression, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    match compression {
        Compression::None => Ok(bytes.to_vec()),
        Compression::Deflate => {
            let mut out = Vec::new();
            flate2::read::DeflateEncoder::new(bytes, flate2::Compression::default()).read_to_end(&mut out)?;
            Ok(out)
        }
        Compression::Zstandard => zstd::bulk::compress(bytes, ZSTD_LEVEL),
        Compression::Snappy => {
            let mut out = snap::raw::Encoder::new().compress_vec(bytes).map_err(std::io::Error::other)?;
            out.extend_from_slice(&crc32fast::hash(bytes).to_be_bytes());
            Ok(out)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Compression; 4] =
        [Compression::None, Compression::Deflate, Compression::Zstandard, Compression::Snappy];

    fn file(compression: Compression) -> Vec<u8> {
        let mut writer =
            Writer::new(r#"{"type":"record","name":"r","fields":[{"name":"x","type":"bytes"}]}"#, compression);
        for i in 0..300_u32 {
            writer.row(|out| put_bytes(out, &i.to_le_bytes().repeat(100))).unwrap();
        }
        writer.finish().unwrap()
    }

    fn rows(bytes: &[u8]) -> Result<usize> {
        let mut reader = Reader::new("m", bytes)?;
        let mut rows = 0;
        while let Some(block) = reader.next_block()? {
            let mut cursor = Cursor::new(&block.bytes);
            for _ in 0..block.rows {
                cursor.bytes().map_err(|e| FormatError::corrupt("m", e))?;
            }
            rows += block.rows;
        }
        Ok(rows)
    }

    #[test]
    fn every_codec_survives_a_round_trip_and_is_deterministic() {
        for compression in ALL {
            assert_eq!(rows(&file(compression)).unwrap(), 300, "{compression:?}");
            assert_eq!(file(compression), file(compression));
        }
    }

    #[test]
    fn rows_share_blocks_of_64_000_bytes_and_no_rows_make_no_block() {
        let bytes = file(Compression::None);
        let mut reader = Reader::new("m", &bytes).unwrap();
        let blocks: Vec<usize> = std::iter::from_fn(|| reader.next_block().unwrap().map(|block| block.rows)).collect();
        // 402 bytes each.
        assert_eq!(blocks, [160, 140]);
        let empty = Writer::new(r#"{"type":"record","name":"r","fields":[]}"#, Compression::None).finish().unwrap();
        assert!(Reader::new("m", &empty).unwrap().next_block().unwrap().is_none());
    }

    #[test]
    fn cut_or_changed_files_never_panic() {
        for compression in ALL {
            let bytes = file(compression);
            let whole_blocks =
                (0..=bytes.len()).step_by(7).filter(|end| rows(&bytes[..*end]).is_ok_and(|n| n == 300)).count();
            assert!(whole_blocks <= 1);
            for at in (0..bytes.len()).step_by(5) {
                let mut changed = bytes.clone();
                changed[at] ^= 0x55;
                assert!(rows(&changed).is_err(), "byte {at} of a file of ours");
            }
        }
    }

    #[test]
    fn a_file_in_place_of_another_is_refused_and_one_without_name_fits_everywhere() {
        let schema = r#"{"type":"record","name":"r","fields":[]}"#;
        let sealed = |name| Writer::new(schema, Compression::None).finish_as(name).unwrap();
        assert!(Reader::new("t/manifest/m-1", &sealed("m-1")).is_ok());
        let error = Reader::new("t/manifest/m-2", &sealed("m-1")).err().unwrap().to_string();
        assert!(error.contains("another file's content"), "{error}");
        assert!(Reader::new("t/manifest/m-2", &sealed("")).is_ok());
    }

    #[test]
    fn sync_marks_of_other_engines_are_taken_as_they_are() {
        let mut foreign = unsealed(file(Compression::None));
        assert_eq!(rows(&foreign).unwrap(), 300);
        let at = foreign.len() - 100;
        foreign[at] ^= 1;
        assert_eq!(rows(&foreign).unwrap(), 300, "nobody can tell");
    }

    #[test]
    fn a_block_that_opens_without_end_is_refused() {
        let mut bomb = zstd::bulk::compress(&vec![0; 1 << 20], 1).unwrap();
        bomb = bomb.repeat(MAX_BLOCK_BYTES / (1 << 20) + 1);
        let error = decompress(Compression::Zstandard, &bomb).unwrap_err();
        assert!(error.contains("opens to more than"), "{error}");
        let claims = |body: &[u8]| decompress(Compression::Snappy, body).unwrap_err().contains("claims to open to");
        assert!(claims(&[0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0]), "more than so few bytes can");
        // 256 MiB and one byte, which twelve MiB could open to.
        assert!(claims(&[&[0x81, 0x80, 0x80, 0x80, 0x01][..], &vec![0; 13 << 20]].concat()));
        assert!(decompress(Compression::Snappy, &[1, 2]).is_err());
    }

    #[test]
    fn unknown_codecs_are_refused_by_name() {
        let bytes = file(Compression::Zstandard);
        let at = bytes.windows(9).position(|w| w == b"zstandard").unwrap();
        let mut other = bytes;
        other[at..at + 9].copy_from_slice(b"brotli123");
        let mark = other.windows(8).position(|w| w == SEAL).unwrap();
        other[mark] = b'S';
        assert!(Reader::new("m", &other).err().unwrap().to_string().contains("codec `brotli123`"));
    }
}
