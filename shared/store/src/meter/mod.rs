//! Counts what is billed: requests and bytes by kind, DynamoDB and Kinesis units, Lambda memory-time.
//! Above: `silt`, functions' metrics, benchmarks. Below: `metered` (the wrappers of the ports). `cost` turns a usage into money.
//! Invariants: 1. put below `retry`, it sees every attempt; 2. counts only grow; 3. a request that the service refused
//! (throttled, unavailable) is counted as refused, not as billed; one without an answer is counted as billed.

mod metered;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub use metered::Metered;

use crate::{
    item::{ItemError, ItemResult},
    object::{ObjectErrorKind, ObjectResult},
};

/// What a request was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestKind {
    /// S3 PutObject (PUT class).
    S3Put,
    /// S3 CreateMultipartUpload (PUT class).
    S3CreateUpload,
    /// S3 UploadPart (PUT class).
    S3Part,
    /// S3 CompleteMultipartUpload (PUT class).
    S3Complete,
    /// S3 CopyObject (PUT class).
    S3Copy,
    /// S3 ListObjectsV2 (PUT class).
    S3List,
    /// S3 GetObject, whole or a range (GET class).
    S3Get,
    /// S3 HeadObject (GET class).
    S3Head,
    /// S3 DeleteObjects and AbortMultipartUpload (free).
    S3Delete,
    /// DynamoDB GetItem and Query.
    DynamoRead,
    /// DynamoDB PutItem, UpdateItem and DeleteItem, failed conditions included.
    DynamoWrite,
    /// Kinesis PutRecords.
    KinesisPut,
    /// Kinesis GetShardIterator and GetRecords (free of charge, five per second and shard).
    KinesisGet,
    /// Kinesis calls of a stream's owner: describe, list, create, split, merge, delete (free of charge, a few per second).
    KinesisAdmin,
    /// A Lambda invocation.
    LambdaInvoke,
}

impl RequestKind {
    /// Billed as an S3 PUT, COPY, POST or LIST request.
    pub fn is_s3_put_class(self) -> bool {
        use RequestKind::{S3Complete, S3Copy, S3CreateUpload, S3List, S3Part, S3Put};
        matches!(self, S3Put | S3CreateUpload | S3Part | S3Complete | S3Copy | S3List)
    }

    /// Billed as an S3 GET (and all other) request.
    pub fn is_s3_get_class(self) -> bool {
        matches!(self, Self::S3Get | Self::S3Head)
    }
}

/// Requests of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Billed requests, also those that failed on a condition or whose answer was lost.
    pub requests: u64,
    /// Refused requests: throttled or unavailable. Not billed.
    pub refused: u64,
    /// Payload bytes, sent for writes, received for reads.
    pub bytes: u64,
}

/// What was used between two moments.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    /// By kind; kinds never used are absent.
    pub counts: BTreeMap<RequestKind, Count>,
    /// DynamoDB read request units: 4 KB, strongly consistent.
    pub read_units: u64,
    /// DynamoDB write request units: 1 KB of the whole item.
    pub write_units: u64,
    /// Kinesis PUT payload units: 25 KB per record.
    pub put_payload_units: u64,
    /// Kinesis record bytes accepted.
    pub stream_bytes: u64,
    /// Lambda memory-time, MB x ms. 1 GB-second is 1,024,000.
    pub lambda_mb_ms: u64,
}

impl Usage {
    /// The count of a kind.
    pub fn count(&self, kind: RequestKind) -> Count {
        self.counts.get(&kind).copied().unwrap_or_default()
    }

    /// Billed requests of all kinds for which `select` holds.
    pub fn requests(&self, select: impl Fn(RequestKind) -> bool) -> u64 {
        self.counts.iter().filter(|(kind, _)| select(**kind)).map(|(_, count)| count.requests).sum()
    }

    /// S3 requests billed as PUT, COPY, POST or LIST.
    pub fn s3_put_class(&self) -> u64 {
        self.requests(RequestKind::is_s3_put_class)
    }

    /// S3 requests billed as GET and all other.
    pub fn s3_get_class(&self) -> u64 {
        self.requests(RequestKind::is_s3_get_class)
    }

    /// DynamoDB requests, reads and writes.
    pub fn dynamo(&self) -> u64 {
        self.requests(|kind| matches!(kind, RequestKind::DynamoRead | RequestKind::DynamoWrite))
    }

    /// Kinesis requests of all kinds.
    pub fn kinesis(&self) -> u64 {
        use RequestKind::{KinesisAdmin, KinesisGet, KinesisPut};
        self.requests(|kind| matches!(kind, KinesisPut | KinesisGet | KinesisAdmin))
    }

    /// Lambda memory-time in GB-seconds.
    pub fn gb_seconds(&self) -> f64 {
        self.lambda_mb_ms as f64 / 1_024_000.0
    }

    /// What was used since an earlier snapshot of the same meter.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let counts = self.counts.iter().map(|(kind, now)| {
            let then = earlier.count(*kind);
            let count = Count {
                requests: now.requests.saturating_sub(then.requests),
                refused: now.refused.saturating_sub(then.refused),
                bytes: now.bytes.saturating_sub(then.bytes),
            };
            (*kind, count)
        });
        Self {
            counts: counts.filter(|(_, count)| *count != Count::default()).collect(),
            read_units: self.read_units.saturating_sub(earlier.read_units),
            write_units: self.write_units.saturating_sub(earlier.write_units),
            put_payload_units: self.put_payload_units.saturating_sub(earlier.put_payload_units),
            stream_bytes: self.stream_bytes.saturating_sub(earlier.stream_bytes),
            lambda_mb_ms: self.lambda_mb_ms.saturating_sub(earlier.lambda_mb_ms),
        }
    }

    /// Adds another usage, as of another function.
    pub fn add(&mut self, other: &Self) {
        for (kind, more) in &other.counts {
            let count = self.counts.entry(*kind).or_default();
            count.requests += more.requests;
            count.refused += more.refused;
            count.bytes += more.bytes;
        }
        self.read_units += other.read_units;
        self.write_units += other.write_units;
        self.put_payload_units += other.put_payload_units;
        self.stream_bytes += other.stream_bytes;
        self.lambda_mb_ms += other.lambda_mb_ms;
    }
}

/// The one meter of a process, shared by all its stores.
#[derive(Default)]
pub struct Meter(Mutex<Usage>);

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meter")
    }
}

/// How a request ended, as far as the bill goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Billing {
    Billed,
    Refused,
}

impl Meter {
    /// At zero, shared.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// All used so far.
    pub fn snapshot(&self) -> Usage {
        self.usage().clone()
    }

    /// Counts one invocation of a function. `billed` is its duration, rounded up to whole milliseconds.
    pub fn invocation(&self, memory_mb: u32, billed: Duration) {
        let ms = u64::try_from(billed.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        let mut usage = self.usage();
        usage.counts.entry(RequestKind::LambdaInvoke).or_default().requests += 1;
        usage.lambda_mb_ms = usage.lambda_mb_ms.saturating_add(ms.saturating_mul(u64::from(memory_mb)));
    }

    /// Counts requests made elsewhere, as by a server that sees every client.
    pub fn record(&self, kind: RequestKind, requests: u64, bytes: u64) {
        let mut usage = self.usage();
        let count = usage.counts.entry(kind).or_default();
        count.requests += requests;
        count.bytes += bytes;
    }

    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(&self, kind: RequestKind, billing: Billing, bytes: usize) {
        let mut usage = self.usage();
        let count = usage.counts.entry(kind).or_default();
        match billing {
            Billing::Billed => {
                count.requests += 1;
                count.bytes += bytes as u64;
            }
            Billing::Refused => count.refused += 1,
        }
    }

    fn object<T>(&self, kind: RequestKind, result: &ObjectResult<T>, bytes: usize) {
        let refused =
            matches!(result, Err(e) if matches!(e.kind(), ObjectErrorKind::Throttled | ObjectErrorKind::Unavailable));
        self.request(kind, if refused { Billing::Refused } else { Billing::Billed }, bytes);
    }

    fn item<T>(&self, kind: RequestKind, result: &ItemResult<T>, bytes: usize, units: u64) {
        use ItemError::{Denied, Invalid, Throttled, TooLarge, Unavailable};
        if matches!(result, Err(Throttled(_) | Unavailable(_) | Denied(_) | Invalid(_) | TooLarge(_))) {
            return self.request(kind, Billing::Refused, 0);
        }
        self.request(kind, Billing::Billed, bytes);
        let mut usage = self.usage();
        match kind {
            RequestKind::DynamoRead => usage.read_units += units,
            _ => usage.write_units += units,
        }
    }
}

/// Read units of so many bytes read with strong consistency: at least one.
pub fn read_units(bytes: usize) -> u64 {
    bytes.div_ceil(4_096).max(1) as u64
}

/// Write units of an item of so many bytes: at least one.
pub fn write_units(bytes: usize) -> u64 {
    bytes.div_ceil(1_024).max(1) as u64
}

#[cfg(test)]
mod tests;
