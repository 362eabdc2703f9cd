//! Takes a request's body whole, and checks it against every checksum that came with it.
//! Neighbours: `service`. Invariant: 1. a body whose checksum differs is refused before anything is stored.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use md5::{Digest, Md5};
use s3s::{
    S3Result, TrailingHeaders,
    checksum::ChecksumHasher,
    crypto::Checksum,
    dto::{PutObjectInput, StreamingBlob, UploadPartInput},
    s3_error,
};

use super::state::{Sums, hex};

/// The most that one request may carry: bodies pass through memory.
const BODY_BYTES_MAX: usize = 2 << 30;

/// What the client says about its bytes.
#[derive(Debug, Default)]
pub(super) struct Claims {
    pub(super) md5: Option<String>,
    pub(super) sums: Sums,
    /// The algorithm whose sum follows the body, or shall be computed.
    pub(super) algorithm: Option<String>,
}

/// The bytes, and what was computed over them.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) bytes: Bytes,
    pub(super) md5: String,
    pub(super) sums: Sums,
}

/// `PutObjectInput` and `UploadPartInput` carry the same fields without a common trait.
macro_rules! claims {
    ($input:ident, $type:ty) => {
        impl From<&$type> for Claims {
            fn from($input: &$type) -> Self {
                Self {
                    md5: $input.content_md5.clone(),
                    algorithm: $input.checksum_algorithm.as_ref().map(|a| a.as_str().to_owned()),
                    sums: Sums {
                        crc32: $input.checksum_crc32.clone(),
                        crc32c: $input.checksum_crc32c.clone(),
                        crc64nvme: $input.checksum_crc64nvme.clone(),
                        sha1: $input.checksum_sha1.clone(),
                        sha256: $input.checksum_sha256.clone(),
                    },
                }
            }
        }
    };
}
claims!(input, PutObjectInput);
claims!(input, UploadPartInput);

/// Trailing checksums are known only after the body, so all that may come are computed.
pub(super) async fn receive(
    body: Option<StreamingBlob>,
    mut claims: Claims,
    trailers: Option<TrailingHeaders>,
) -> S3Result<Received> {
    let mut bytes = BytesMut::new();
    let mut hasher = hasher(&claims, trailers.is_some());
    let mut md5 = Md5::new();
    if let Some(mut body) = body {
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|e| s3_error!(IncompleteBody, "{}", e))?;
            if bytes.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(s3_error!(EntityTooLarge, "a body has at most 2 GiB here: upload in parts"));
            }
            md5.update(&chunk);
            hasher.update(&chunk);
            bytes.extend_from_slice(&chunk);
        }
    }
    let trailing = trailers.and_then(|t| t.take()).unwrap_or_default();
    let late = |name: &str| trailing.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let computed = hasher.finalize();
    let sums = &mut claims.sums;
    let all = [
        (&mut sums.crc32, computed.checksum_crc32, "x-amz-checksum-crc32", "CRC32"),
        (&mut sums.crc32c, computed.checksum_crc32c, "x-amz-checksum-crc32c", "CRC32C"),
        (&mut sums.crc64nvme, computed.checksum_crc64nvme, "x-amz-checksum-crc64nvme", "CRC64NVME"),
        (&mut sums.sha1, computed.checksum_sha1, "x-amz-checksum-sha1", "SHA1"),
        (&mut sums.sha256, computed.checksum_sha256, "x-amz-checksum-sha256", "SHA256"),
    ];
    for (claimed, computed, header, algorithm) in all {
        let asked = claims.algorithm.as_deref() == Some(algorithm);
        match claimed.take().or_else(|| late(header)) {
            Some(claim) if Some(&claim) != computed.as_ref() => {
                return Err(s3_error!(BadDigest, "{} differs from the body's", header));
            }
            claim => *claimed = claim.or(computed.filter(|_| asked)),
        }
    }
    let md5 = md5.finalize();
    if claims.md5.is_some_and(|claim| claim != BASE64_STANDARD.encode(md5)) {
        return Err(s3_error!(BadDigest, "Content-MD5 differs from the body's"));
    }
    Ok(Received { bytes: bytes.freeze(), md5: hex(&md5), sums: claims.sums })
}

fn hasher(claims: &Claims, trailers: bool) -> ChecksumHasher {
    // Without a named algorithm a trailer may bring any.
    let any = trailers && claims.algorithm.is_none();
    let on = |claim: &Option<String>, name: &str| any || claim.is_some() || claims.algorithm.as_deref() == Some(name);
    let sums = &claims.sums;
    ChecksumHasher {
        crc32: on(&sums.crc32, "CRC32").then(Checksum::new),
        crc32c: on(&sums.crc32c, "CRC32C").then(Checksum::new),
        crc64nvme: on(&sums.crc64nvme, "CRC64NVME").then(Checksum::new),
        sha1: on(&sums.sha1, "SHA1").then(Checksum::new),
        sha256: on(&sums.sha256, "SHA256").then(Checksum::new),
    }
}
