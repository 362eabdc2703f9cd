//! The checksum that a data file of ours carries in its footer: the CRC-32 of all of its bytes.
//!
//! Parquet's page checksums are not used: the `parquet` crate reads them and cannot write them, and they would not cover headers and footer.
//! Other readers pass over keys that they do not know. The file's name is not kept with it: a rollback copies files under new names.
//! Neighbours: `writer` seals, `table` compares wherever it holds all bytes. Invariants: 1. the digits of the checksum count as [`OPEN`]; 2. a file without checksum (other engines) is taken as it is.

use parquet::{
    file::metadata::{KeyValue, ParquetMetaData},
    file::reader::ChunkReader,
};

use crate::error::LsmError;

/// Footer key of the checksum: eight hexadecimal digits.
const SUM_KEY: &str = "siltstone.crc32";
/// What stands in place of the digits while the checksum is made.
pub const OPEN: &[u8; 8] = b"00000000";
/// `created_by` of files written by this version, and how that of every version begins.
pub(crate) const CREATED_BY: &str = concat!("siltstone version ", env!("CARGO_PKG_VERSION"));
const CREATED_BY_ANY: &str = "siltstone version ";
/// The last bytes of a file: length of the footer, magic.
const TAIL: u64 = 8;

/// What a footer says of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Offset of the digits in the file.
    pub digits_at: u64,
    /// The CRC-32 that the whole file should have, its digits taken as [`OPEN`].
    pub crc32: u32,
}

impl Claim {
    /// Compares the claim with what the bytes give.
    ///
    /// # Errors
    /// [`LsmError::Corrupt`] naming the file.
    pub fn check(&self, object: &str, crc32: u32) -> Result<(), LsmError> {
        if crc32 == self.crc32 {
            return Ok(());
        }
        Err(LsmError::corrupt(object, "its bytes do not have the checksum that its footer states"))
    }
}

/// The key-value that an open file is closed with.
pub(crate) fn key_value() -> KeyValue {
    KeyValue::new(SUM_KEY.to_owned(), String::from_utf8_lossy(OPEN).into_owned())
}

/// Puts the checksum into the last bytes of a file, footer included; `before` has seen all bytes before them.
pub(crate) fn seal(mut before: crc32fast::Hasher, rest: &mut [u8]) -> Result<(), LsmError> {
    before.update(rest);
    let digits = format!("{:08x}", before.finalize());
    let place = digits_in(rest).and_then(|at| rest.get_mut(at..at + OPEN.len()));
    let place = place.ok_or_else(|| LsmError::encode("the footer has no place for the checksum"))?;
    place.copy_from_slice(digits.as_bytes());
    Ok(())
}

/// The place of the digits: a key-value of Thrift's compact form, which stands behind everything else that could hold such bytes.
fn digits_in(footer: &[u8]) -> Option<usize> {
    const STRING_OF_EIGHT: [u8; 2] = [0x18, 8];
    let pattern = [SUM_KEY.as_bytes(), &STRING_OF_EIGHT].concat();
    let at = footer.windows(pattern.len()).rposition(|window| window == pattern)? + pattern.len();
    (at + OPEN.len() <= footer.len()).then_some(at)
}

/// What a footer says of the checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stated {
    /// This one.
    Sum(Claim),
    /// None, though Siltstone wrote the file: by a version without checksums, or the footer is damaged just there, which no reader minds.
    Missing,
    /// None: another engine's file.
    Nothing,
}

/// The checksum that a file states.
///
/// # Errors
/// [`LsmError::Corrupt`] when there is no footer or the digits are none, [`LsmError::Unavailable`] when bytes cannot be fetched.
pub fn stated<R: ChunkReader>(source: &R, object: &str) -> Result<Stated, LsmError> {
    let length = crate::reader::footer_length(source, object)?;
    let start = source.len().saturating_sub(TAIL + length);
    let wanted = usize::try_from(length).unwrap_or(usize::MAX);
    let footer = source.get_bytes(start, wanted).map_err(|e| LsmError::read(object, &e))?;
    let Some(at) = digits_in(&footer) else {
        let ours = footer.windows(CREATED_BY_ANY.len()).any(|window| window == CREATED_BY_ANY.as_bytes());
        return Ok(if ours { Stated::Missing } else { Stated::Nothing });
    };
    let digits = footer.get(at..at + OPEN.len()).and_then(|digits| std::str::from_utf8(digits).ok());
    let crc32 = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let crc32 = crc32.ok_or_else(|| LsmError::corrupt(object, "the checksum in its footer is no number"))?;
    Ok(Stated::Sum(Claim { digits_at: start + at as u64, crc32 }))
}

/// Checks a file that is in memory as a whole against the checksum that it states, if it states one.
///
/// # Errors
/// As [`stated`] and [`Claim::check`].
pub fn check_whole(bytes: &bytes::Bytes, object: &str) -> Result<(), LsmError> {
    match stated(bytes, object)? {
        Stated::Sum(claim) => claim.check(object, crc32_of(bytes, claim.digits_at)),
        Stated::Missing | Stated::Nothing => Ok(()),
    }
}

/// CRC-32 of bytes whose digits stand at `digits_at`.
#[must_use]
pub fn crc32_of(bytes: &[u8], digits_at: u64) -> u32 {
    let at = usize::try_from(digits_at).unwrap_or(usize::MAX).min(bytes.len());
    let (before, rest) = bytes.split_at(at);
    let mut sum = crc32fast::Hasher::new();
    sum.update(before);
    sum.update(OPEN.get(..rest.len().min(OPEN.len())).unwrap_or_default());
    sum.update(rest.get(OPEN.len()..).unwrap_or_default());
    sum.finalize()
}

/// Whether Siltstone wrote the file: then it carries field ids and its checksum.
pub(crate) fn is_ours(footer: &ParquetMetaData) -> bool {
    footer.file_metadata().created_by().is_some_and(|by| by.starts_with(CREATED_BY_ANY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digits_stand_whole_behind_the_last_name_of_the_checksum() {
        let named = |behind: &str| [b"siltstone.crc32\x18\x08", behind.as_bytes()].concat();
        assert_eq!(digits_in(&named("01234567")), Some(17));
        assert_eq!(digits_in(&named("0123456")), None);
        assert_eq!(digits_in(&[named("01234567"), named("89abcdef")].concat()), Some(42));
        assert_eq!(digits_in(b"siltstone.crc32\x18\x0901234567"), None);
    }
}
