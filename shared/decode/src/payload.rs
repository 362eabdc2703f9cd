//! The bytes of a record: decompressed by their magic, bounded.
//!
//! Neighbours: `decoder` calls it, `json` reads the result. Invariants: 1. decompression stops at the limit (a bomb costs its limit, not its
//! size); 2. a zstd frame that asks for a window above 16 MB is refused, so that a small record cannot take a large buffer.

use std::io::Read;

use crate::reject::{Reject, RejectCode};

/// Largest record taken, after decompression, unless configured otherwise: Kinesis' own maximum.
pub const RECORD_BYTES_MAX: usize = 10 << 20;
/// Largest zstd window taken, as a power of two: 16 MB, above the largest record.
const ZSTD_WINDOW_LOG: u32 = 24;

/// Unpacks gzip or zstd; other bytes are returned as they are.
///
/// # Errors
/// [`RejectCode::BadCompression`], [`RejectCode::TooLarge`].
pub fn unpack(bytes: &[u8], limit: usize) -> Result<std::borrow::Cow<'_, [u8]>, Reject> {
    let unpacked = match bytes {
        [0x1f, 0x8b, ..] => bounded(flate2::read::MultiGzDecoder::new(bytes), limit)?,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => match zstd::stream::read::Decoder::new(bytes) {
            Ok(mut decoder) => {
                let window = decoder.window_log_max(ZSTD_WINDOW_LOG);
                window.map_err(|_| Reject::new(RejectCode::BadCompression, "is not a zstd stream"))?;
                bounded(decoder, limit)?
            }
            Err(_) => return Err(Reject::new(RejectCode::BadCompression, "is not a zstd stream")),
        },
        plain if plain.len() > limit => {
            return Err(Reject::new(RejectCode::TooLarge, format!("has {} bytes, {limit} are taken", plain.len())));
        }
        plain => return Ok(std::borrow::Cow::Borrowed(plain)),
    };
    Ok(std::borrow::Cow::Owned(unpacked))
}

fn bounded(reader: impl Read, limit: usize) -> Result<Vec<u8>, Reject> {
    let mut out = Vec::new();
    let wanted = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    match reader.take(wanted).read_to_end(&mut out) {
        Ok(_) if out.len() > limit => {
            Err(Reject::new(RejectCode::TooLarge, format!("unpacks to more than {limit} bytes")))
        }
        Ok(_) => Ok(out),
        Err(_) => Err(Reject::new(RejectCode::BadCompression, "does not decompress")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn packed_payloads_are_unpacked_up_to_the_limit() {
        assert_eq!(unpack(&gzip(b"{}"), 10).unwrap().as_ref(), b"{}");
        assert_eq!(unpack(&zstd::encode_all(&b"{}"[..], 1).unwrap(), 10).unwrap().as_ref(), b"{}");
        assert_eq!(unpack(&gzip(&vec![0; 1 << 20]), 1000).unwrap_err().code, RejectCode::TooLarge);
        assert_eq!(unpack(&gzip(b"abcdef")[..12], 1000).unwrap_err().code, RejectCode::BadCompression);
        assert_eq!(unpack(&[b'x'; 11], 10).unwrap_err().code, RejectCode::TooLarge);
    }
}
