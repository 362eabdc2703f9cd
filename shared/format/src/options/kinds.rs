//! Enum options and what their names mean.
//!
//! Above: `options`. Below: `text`. Invariant: 1. every name that Paimon knows is known here, so that refusing says what it is.

use super::text::{OptionReader, fault, unknown};
use crate::{avro::Compression, bucket::BucketFunction, error::Result};

/// An option whose values are names.
pub(super) trait Named: Copy + 'static {
    const ALL: &'static [(&'static str, Self)];
}

/// Option `bucket`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BucketMode {
    /// A fixed number of buckets.
    Fixed(i32),
    /// -1, the default: a hash index gives each key its bucket.
    Dynamic,
    /// -2: rows wait for a job that makes the buckets.
    Postpone,
}

impl BucketMode {
    pub(super) fn read(o: &OptionReader<'_>) -> Result<Self> {
        match o.in_range("bucket", -1, -2..=i64::from(i32::MAX))? {
            -1 => Ok(Self::Dynamic),
            -2 => Ok(Self::Postpone),
            0 => Err(fault("bucket", "0", "must be at least 1, or -1 or -2")),
            number => Ok(Self::Fixed(i32::try_from(number).unwrap_or(i32::MAX))),
        }
    }

    /// The option's number, which also stands as `_TOTAL_BUCKETS` in manifest entries.
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::Fixed(number) => number,
            Self::Dynamic => -1,
            Self::Postpone => -2,
        }
    }
}

/// Option `merge-engine`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergeEngine {
    /// The newest row of a key wins.
    Deduplicate,
    /// Non-null columns overwrite.
    PartialUpdate,
    /// Columns aggregate.
    Aggregation,
    /// The first row of a key stays.
    FirstRow,
}

impl Named for MergeEngine {
    const ALL: &'static [(&'static str, Self)] = &[
        ("deduplicate", Self::Deduplicate),
        ("partial-update", Self::PartialUpdate),
        ("aggregation", Self::Aggregation),
        ("first-row", Self::FirstRow),
    ];
}

impl MergeEngine {
    /// The option's value.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, engine)| *engine == self).map_or("", |(name, _)| name)
    }
}

/// Option `changelog-producer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangelogProducer {
    /// No changelog files.
    None,
    /// Each write also writes its rows as a changelog file.
    Input,
    /// Compactions to the highest level write what changed there.
    FullCompaction,
    /// Compactions look old values up.
    Lookup,
}

impl Named for ChangelogProducer {
    const ALL: &'static [(&'static str, Self)] = &[
        ("none", Self::None),
        ("input", Self::Input),
        ("full-compaction", Self::FullCompaction),
        ("lookup", Self::Lookup),
    ];
}

/// Compression of a data file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileCompression {
    /// `none`
    None,
    /// `snappy`
    Snappy,
    /// `gzip`
    Gzip,
    /// `lz4`
    Lz4,
    /// `zstd` at a level
    Zstd(i32),
}

impl FileCompression {
    pub(super) fn parse(key: &str, text: &str, zstd_level: i32) -> Result<Self> {
        let names = [
            ("zstd", Self::Zstd(zstd_level)),
            ("none", Self::None),
            ("uncompressed", Self::None),
            ("snappy", Self::Snappy),
            ("gzip", Self::Gzip),
            ("lz4", Self::Lz4),
            ("lz4_raw", Self::Lz4),
        ];
        let found = names.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        found.map(|(_, value)| *value).ok_or_else(|| unknown(key, text, names.iter().map(|(name, _)| *name)))
    }

    /// The name that `file.suffix.include.compression` puts into file names.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Snappy => "snappy",
            Self::Gzip => "gzip",
            Self::Lz4 => "lz4",
            Self::Zstd(_) => "zstd",
        }
    }
}

/// Option `metadata.stats-mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatsMode {
    /// Nothing.
    None,
    /// Null counts.
    Counts,
    /// Null counts, minima and maxima with strings cut to so many characters.
    Truncate(usize),
    /// Null counts, minima and maxima.
    Full,
}

impl StatsMode {
    pub(super) fn parse(key: &str, text: &str) -> Result<Self> {
        let lower = text.to_ascii_lowercase();
        match lower.as_str() {
            "none" => return Ok(Self::None),
            "counts" => return Ok(Self::Counts),
            "full" => return Ok(Self::Full),
            _ => {}
        }
        let length =
            lower.strip_prefix("truncate(").and_then(|rest| rest.strip_suffix(')')).and_then(|n| n.trim().parse().ok());
        match length {
            Some(length @ 1..) => Ok(Self::Truncate(length)),
            _ => Err(unknown(key, text, ["none", "counts", "truncate(n)", "full"].into_iter())),
        }
    }
}

impl Named for Option<BucketFunction> {
    const ALL: &'static [(&'static str, Self)] =
        &[("default", Some(BucketFunction::Murmur)), ("mod", Some(BucketFunction::Mod)), ("hive", None)];
}

/// `None` for `hive`.
pub(super) fn bucket_function(o: &OptionReader<'_>) -> Result<Option<BucketFunction>> {
    o.named("bucket-function.type", Some(BucketFunction::Murmur))
}

/// Option `sequence.field.sort-order`.
#[derive(Clone, Copy)]
struct Descending(bool);

impl Named for Descending {
    const ALL: &'static [(&'static str, Self)] = &[("ascending", Self(false)), ("descending", Self(true))];
}

pub(super) fn is_descending(o: &OptionReader<'_>) -> Result<bool> {
    o.named("sequence.field.sort-order", Descending(false)).map(|order| order.0)
}

impl Named for Compression {
    const ALL: &'static [(&'static str, Self)] = &[
        ("zstd", Self::Zstandard),
        ("zstandard", Self::Zstandard),
        ("none", Self::None),
        ("null", Self::None),
        ("deflate", Self::Deflate),
        ("snappy", Self::Snappy),
    ];
}

pub(super) fn manifest_compression(o: &OptionReader<'_>) -> Result<Compression> {
    o.named("manifest.compression", Compression::Zstandard)
}
