//! The bytes of a record: decompressed by their magic, bounded, as JSON.
//!
//! Neighbours: `decoder`. Invariants: 1. decompression stops at the limit (a bomb costs its limit, not its size); 2. JSON nested deeper than
//! 128 is a reject, not a stack overflow.

use std::io::Read;

use serde_json::Value as Json;

use crate::reject::{Reject, RejectCode};

/// Largest record taken, after decompression, unless configured otherwise: Kinesis' own maximum.
pub const RECORD_BYTES_MAX: usize = 10 << 20;

/// Unpacks gzip or zstd; other bytes are returned as they are.
///
/// # Errors
/// [`RejectCode::BadCompression`], [`RejectCode::TooLarge`].
pub fn unpack(bytes: &[u8], limit: usize) -> Result<std::borrow::Cow<'_, [u8]>, Reject> {
    let unpacked = match bytes {
        [0x1f, 0x8b, ..] => bounded(flate2::read::MultiGzDecoder::new(bytes), limit)?,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => match zstd::stream::read::Decoder::new(bytes) {
            Ok(decoder) => bounded(decoder, limit)?,
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

/// Parses JSON text.
///
/// # Errors
/// [`RejectCode::NotUtf8`], [`RejectCode::NotJson`], [`RejectCode::TooDeep`], with the place and never the text.
pub fn json(bytes: &[u8]) -> Result<Json, Reject> {
    let text = std::str::from_utf8(bytes)
        .map_err(|e| Reject::new(RejectCode::NotUtf8, format!("is not UTF-8 at byte {}", e.valid_up_to())))?;
    serde_json::from_str(text).map_err(|e| {
        let place = format!("line {}, column {}", e.line(), e.column());
        if e.to_string().starts_with("recursion limit") {
            Reject::new(RejectCode::TooDeep, format!("is nested deeper than 128 levels at {place}"))
        } else if e.is_eof() {
            Reject::new(RejectCode::NotJson, format!("ends in the middle of a JSON value at {place}"))
        } else {
            Reject::new(RejectCode::NotJson, format!("is not JSON at {place}"))
        }
    })
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

    #[test]
    fn broken_json_is_named_by_place() {
        assert_eq!(json(b"\xff").unwrap_err().code, RejectCode::NotUtf8);
        assert_eq!(json(b"{\"a\":").unwrap_err().code, RejectCode::NotJson);
        assert_eq!(json(b"{a}").unwrap_err().code, RejectCode::NotJson);
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        assert_eq!(json(deep.as_bytes()).unwrap_err().code, RejectCode::TooDeep);
    }
}
