//! Turns usage into US dollars at list prices. Neighbours: `meter` (the usage). Pure.
//! Invariants: 1. prices are AWS's public list prices of one region at one date, both stated in [`PRICES_AS_OF`]; no free tier, discount,
//! volume tier, tax or transfer out is applied; 2. every part of a total is visible.

use std::fmt;

use crate::meter::{RequestKind, Usage};

/// Region and date of every price in this file.
pub const PRICES_AS_OF: &str = "AWS list prices, us-east-1, as recorded on 2026-11-23";

/// Hours of an average month, as AWS counts them.
pub const HOURS_PER_MONTH: f64 = 730.0;
/// Bytes of a GB on AWS bills of storage and transfer.
pub const GB: f64 = 1_073_741_824.0;

/// List prices in US dollars.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prices {
    /// S3 Standard, 1,000 PUT, COPY, POST or LIST requests.
    pub s3_put_per_1000: f64,
    /// S3 Standard, 1,000 GET and all other requests.
    pub s3_get_per_1000: f64,
    /// S3 Standard, GB-month, first 50 TB.
    pub s3_gb_month: f64,
    /// DynamoDB on demand, million write request units.
    pub dynamo_write_per_million: f64,
    /// DynamoDB on demand, million read request units.
    pub dynamo_read_per_million: f64,
    /// Lambda on arm64, GB-second, first tier.
    pub lambda_gb_second: f64,
    /// Lambda, million requests.
    pub lambda_per_million: f64,
    /// Kinesis provisioned, shard-hour.
    pub kinesis_shard_hour: f64,
    /// Kinesis provisioned, shard-hour of extended retention (over 24 hours, up to 7 days).
    pub kinesis_extended_shard_hour: f64,
    /// Kinesis provisioned, million PUT payload units of 25 KB.
    pub kinesis_put_per_million: f64,
    /// Firehose from Kinesis to Iceberg tables, GB.
    pub firehose_iceberg_gb: f64,
    /// S3 Tables, GB-month, first 50 TB.
    pub tables_gb_month: f64,
    /// S3 Tables monitoring, 1,000 objects a month.
    pub tables_monitor_per_1000: f64,
    /// S3 Tables compaction, 1,000 objects processed.
    pub tables_compact_per_1000: f64,
    /// S3 Tables compaction, GB processed (bin-pack).
    pub tables_compact_gb: f64,
    /// S3 Tables, 1,000 PUT requests.
    pub tables_put_per_1000: f64,
}

/// See [`PRICES_AS_OF`].
pub const LIST_PRICES: Prices = Prices {
    s3_put_per_1000: 0.005,
    s3_get_per_1000: 0.0004,
    s3_gb_month: 0.023,
    dynamo_write_per_million: 0.625,
    dynamo_read_per_million: 0.125,
    lambda_gb_second: 0.000_013_333_4,
    lambda_per_million: 0.20,
    kinesis_shard_hour: 0.015,
    kinesis_extended_shard_hour: 0.020,
    kinesis_put_per_million: 0.014,
    firehose_iceberg_gb: 0.045,
    tables_gb_month: 0.0265,
    tables_monitor_per_1000: 0.025,
    tables_compact_per_1000: 0.002,
    tables_compact_gb: 0.005,
    tables_put_per_1000: 0.005,
};

/// A bill in US dollars, by what was paid for.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cost {
    /// S3 PUT-class requests.
    pub s3_put: f64,
    /// S3 GET-class requests.
    pub s3_get: f64,
    /// DynamoDB writes.
    pub dynamo_write: f64,
    /// DynamoDB reads.
    pub dynamo_read: f64,
    /// Lambda memory-time.
    pub lambda_time: f64,
    /// Lambda requests.
    pub lambda_requests: f64,
    /// Kinesis PUT payload units. Paid by whoever has the stream, with or without Siltstone.
    pub stream_put: f64,
}

impl Cost {
    /// What a usage costs.
    pub fn of(usage: &Usage, prices: &Prices) -> Self {
        let million = 1e6;
        let requests = |kind| usage.count(kind).requests as f64;
        Self {
            s3_put: usage.s3_put_class() as f64 / 1e3 * prices.s3_put_per_1000,
            s3_get: usage.s3_get_class() as f64 / 1e3 * prices.s3_get_per_1000,
            dynamo_write: usage.write_units as f64 / million * prices.dynamo_write_per_million,
            dynamo_read: usage.read_units as f64 / million * prices.dynamo_read_per_million,
            lambda_time: usage.gb_seconds() * prices.lambda_gb_second,
            lambda_requests: requests(RequestKind::LambdaInvoke) / million * prices.lambda_per_million,
            stream_put: usage.put_payload_units as f64 / million * prices.kinesis_put_per_million,
        }
    }

    /// What Siltstone adds: everything but the stream, which is there anyway.
    pub fn added(&self) -> f64 {
        self.s3_put + self.s3_get + self.dynamo_write + self.dynamo_read + self.lambda_time + self.lambda_requests
    }

    /// Everything, the stream's puts included.
    pub fn total(&self) -> f64 {
        self.added() + self.stream_put
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "${:.6} = S3 put ${:.6} + S3 get ${:.6} + DynamoDB write ${:.6} + read ${:.6} + Lambda ${:.6}",
            self.added(),
            self.s3_put,
            self.s3_get,
            self.dynamo_write,
            self.dynamo_read,
            self.lambda_time + self.lambda_requests,
        )
    }
}

/// What stands still costs: storage and an open stream.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Standing {
    /// Bytes stored on S3.
    pub stored_bytes: u64,
    /// Open shards.
    pub shards: u64,
    /// The stream keeps records longer than 24 hours (up to 7 days).
    pub extended_retention: bool,
}

impl Standing {
    /// S3 storage, US dollars a month.
    pub fn storage_month(&self, prices: &Prices) -> f64 {
        self.stored_bytes as f64 / GB * prices.s3_gb_month
    }

    /// The stream, US dollars a month.
    pub fn stream_month(&self, prices: &Prices) -> f64 {
        let extended = if self.extended_retention { prices.kinesis_extended_shard_hour } else { 0.0 };
        self.shards as f64 * HOURS_PER_MONTH * (prices.kinesis_shard_hour + extended)
    }
}

/// The same work done by Firehose into S3 Tables (append only, compacted by AWS), for comparison.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ManagedWork {
    /// Bytes ingested. Firehose from Kinesis bills them without rounding per record.
    pub ingested_bytes: u64,
    /// Objects written by ingestion.
    pub objects: u64,
    /// Objects read by compaction.
    pub compacted_objects: u64,
    /// Bytes read by compaction.
    pub compacted_bytes: u64,
    /// Bytes stored.
    pub stored_bytes: u64,
    /// Objects stored, monitored by the month.
    pub stored_objects: u64,
}

/// A bill of Firehose and S3 Tables in US dollars.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ManagedCost {
    /// Firehose ingestion.
    pub firehose: f64,
    /// S3 Tables PUT requests.
    pub put: f64,
    /// S3 Tables compaction.
    pub compaction: f64,
    /// S3 Tables storage and monitoring, a month. Not in [`ManagedCost::work`].
    pub standing_month: f64,
}

impl ManagedCost {
    /// What the work costs.
    pub fn of(work: &ManagedWork, prices: &Prices) -> Self {
        let gb = |bytes: u64| bytes as f64 / GB;
        let thousands = |count: u64| count as f64 / 1e3;
        Self {
            firehose: gb(work.ingested_bytes) * prices.firehose_iceberg_gb,
            put: thousands(work.objects) * prices.tables_put_per_1000,
            compaction: thousands(work.compacted_objects) * prices.tables_compact_per_1000
                + gb(work.compacted_bytes) * prices.tables_compact_gb,
            standing_month: gb(work.stored_bytes) * prices.tables_gb_month
                + thousands(work.stored_objects) * prices.tables_monitor_per_1000,
        }
    }

    /// The work, without what stands still.
    pub fn work(&self) -> f64 {
        self.firehose + self.put + self.compaction
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::meter::Meter;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn a_million_commits_cost_what_the_price_list_says() {
        let meter = Meter::new();
        meter.record(RequestKind::S3Put, 1_000_000, 0);
        meter.record(RequestKind::S3Head, 1_000_000, 0);
        let mut usage = meter.snapshot();
        usage.write_units = 8_000_000;
        usage.read_units = 2_000_000;
        let cost = Cost::of(&usage, &LIST_PRICES);
        assert!(close(cost.s3_put, 5.0) && close(cost.s3_get, 0.4), "{cost}");
        assert!(close(cost.dynamo_write, 5.0) && close(cost.dynamo_read, 0.25), "{cost}");
        assert!(close(cost.added(), 10.65) && close(cost.total(), 10.65), "{cost}");
    }

    #[test]
    fn lambda_is_billed_by_memory_time_and_request() {
        let meter = Meter::new();
        for _ in 0..1_000 {
            meter.invocation(1_024, Duration::from_millis(1_000));
        }
        let cost = Cost::of(&meter.snapshot(), &LIST_PRICES);
        assert!(close(cost.lambda_time, 0.013_333_4) && close(cost.lambda_requests, 0.0002), "{cost}");
    }

    #[test]
    fn standing_cost_counts_storage_and_shards() {
        let standing = Standing { stored_bytes: 100 << 30, shards: 2, extended_retention: true };
        assert!(close(standing.storage_month(&LIST_PRICES), 2.3));
        assert!(close(standing.stream_month(&LIST_PRICES), 2.0 * 730.0 * 0.035));
    }

    #[test]
    fn firehose_and_s3_tables_are_billed_by_gb_and_object() {
        let work = ManagedWork {
            ingested_bytes: 10 << 30,
            objects: 30_000,
            compacted_objects: 30_000,
            compacted_bytes: 10 << 30,
            stored_bytes: 10 << 30,
            stored_objects: 1_000,
        };
        let cost = ManagedCost::of(&work, &LIST_PRICES);
        assert!(close(cost.firehose, 0.45) && close(cost.put, 0.15) && close(cost.compaction, 0.06 + 0.05));
        assert!(close(cost.standing_month, 0.265 + 0.025) && close(cost.work(), 0.71));
    }
}
