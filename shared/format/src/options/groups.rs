//! Options by use: data files, compaction, manifests, commits, expiry; each with Paimon's defaults.
//!
//! Above: `TableOptions`. Below: `text`, `kinds`. Invariant: 1. a field's doc names its key; what has no default in Paimon is an `Option`.

use std::collections::BTreeMap;

use super::{
    kinds::{self, FileCompression, StatsMode},
    text::OptionReader,
};
use crate::{
    avro::Compression,
    error::{FormatError, Result},
};

/// Names, formats and sizes of data files.
#[derive(Debug, Clone, PartialEq)]
pub struct FileOptions {
    /// `file.compression` with `file.compression.zstd-level`
    pub compression: FileCompression,
    /// `file.compression.per.level`
    pub compression_per_level: BTreeMap<i32, FileCompression>,
    /// `changelog-file.compression`, else `file.compression`
    pub changelog_compression: FileCompression,
    /// `data-file.prefix`
    pub data_prefix: String,
    /// `changelog-file.prefix`
    pub changelog_prefix: String,
    /// `data-file.path-directory`
    pub path_directory: Option<String>,
    /// `file.suffix.include.compression`
    suffix_includes_compression: bool,
    /// `target-file-size`, bytes
    pub target_size: i64,
    /// `target-file-row-num`
    pub target_rows: u64,
    /// `metadata.stats-mode`
    pub stats_mode: StatsMode,
    /// `metadata.stats-mode.per.level`
    pub stats_mode_per_level: BTreeMap<i32, StatsMode>,
    /// `metadata.stats-dense-store`
    pub stats_dense_store: bool,
    /// `metadata.stats-keep-first-n-columns`; `None` for all
    pub stats_keep_first_n: Option<usize>,
}

/// What compaction is told.
#[derive(Debug, Clone, PartialEq)]
pub struct CompactionOptions {
    /// `num-levels`; the highest level is one less
    pub num_levels: i32,
    /// `num-sorted-run.compaction-trigger`
    pub trigger: usize,
    /// `compaction.max-size-amplification-percent`
    pub max_size_amplification_percent: i64,
    /// `compaction.size-ratio`, percent
    pub size_ratio_percent: i64,
    /// `compaction.small-file-ratio`
    pub small_file_ratio: f64,
    /// `compaction.optimization-interval`, ms
    pub optimization_interval_ms: Option<i64>,
    /// `compaction.total-size-threshold`, bytes
    pub total_size_threshold: Option<i64>,
    /// `compaction.incremental-size-threshold`, bytes
    pub incremental_size_threshold: Option<i64>,
    /// `compaction.force-up-level-0`
    pub force_up_level_0: bool,
    /// `compaction.force-rewrite-all-files`
    pub force_rewrite_all_files: bool,
    /// `compaction.offpeak.*`
    pub offpeak: Option<OffPeak>,
}

/// `compaction.offpeak.*`: a size ratio added in some hours of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffPeak {
    /// First hour, 0 to 23, inclusive.
    pub start_hour: i32,
    /// Last hour, 0 to 23, exclusive; below the start it is on the next day.
    pub end_hour: i32,
    /// Percent added to the size ratio.
    pub ratio_percent: i64,
}

/// What manifests are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestOptions {
    /// `manifest.target-file-size`, bytes
    pub target_size: i64,
    /// `manifest.full-compaction-threshold-size`, bytes
    pub full_compaction_threshold: i64,
    /// `manifest.merge-min-count`
    pub merge_min_count: usize,
    /// `manifest.compression`
    pub compression: Compression,
}

/// What commits are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitOptions {
    /// `commit.max-retries`
    pub max_retries: u32,
}

/// What expiry keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiryOptions {
    /// `snapshot.num-retained.min`
    pub retain_min: u64,
    /// `snapshot.num-retained.max`
    pub retain_max: u64,
    /// `snapshot.time-retained`, ms
    pub time_retained_ms: i64,
    /// `snapshot.expire.limit`
    pub limit: u64,
    /// True when a `changelog.*-retained` option exceeds its `snapshot.*` twin: expiry must then keep changelogs by themselves.
    pub decoupled_changelog: bool,
}

impl FileOptions {
    pub(super) fn read(o: &OptionReader<'_>) -> Result<Self> {
        let zstd_level = o.in_range("file.compression.zstd-level", 1, -7..=22)?;
        let zstd_level = i32::try_from(zstd_level).unwrap_or(1);
        let compression =
            FileCompression::parse("file.compression", o.text("file.compression").unwrap_or("zstd"), zstd_level)?;
        let per_level = |key, text: &str| FileCompression::parse(key, text, zstd_level);
        let changelog = o.text("changelog-file.compression");
        let keep = o.in_range("metadata.stats-keep-first-n-columns", -1, -1..=i64::from(i32::MAX))?;
        Ok(Self {
            compression,
            compression_per_level: o.per_level("file.compression.per.level", per_level)?,
            changelog_compression: changelog
                .map_or(Ok(compression), |text| per_level("changelog-file.compression", text))?,
            data_prefix: o.name("data-file.prefix", "data-")?,
            changelog_prefix: o.name("changelog-file.prefix", "changelog-")?,
            path_directory: o.directory("data-file.path-directory")?,
            suffix_includes_compression: o.bool("file.suffix.include.compression", false)?,
            target_size: o.size("target-file-size", 128 << 20)?,
            target_rows: o.in_range("target-file-row-num", i64::MAX, 1..=i64::MAX)?.unsigned_abs(),
            stats_mode: StatsMode::parse(
                "metadata.stats-mode",
                o.text("metadata.stats-mode").unwrap_or("truncate(16)"),
            )?,
            stats_mode_per_level: o.per_level("metadata.stats-mode.per.level", StatsMode::parse)?,
            stats_dense_store: o.bool("metadata.stats-dense-store", true)?,
            stats_keep_first_n: usize::try_from(keep).ok(),
        })
    }
}

impl FileOptions {
    /// What file names end in. As in Java, the codec named there is the table's, also in files of levels with one of their own.
    #[must_use]
    pub fn suffix(&self) -> String {
        if self.suffix_includes_compression {
            format!(".{}.parquet", self.compression.name())
        } else {
            ".parquet".to_owned()
        }
    }
}

impl CompactionOptions {
    pub(super) fn read(o: &OptionReader<'_>) -> Result<Self> {
        const MANY: i64 = 1_000_000;
        let count = |key, default, lowest| o.in_range(key, default, lowest..=MANY);
        let trigger = count("num-sorted-run.compaction-trigger", 5, 1)?;
        let num_levels = o.in_range("num-levels", trigger + 1, 2..=MANY + 1)?;
        Ok(Self {
            num_levels: i32::try_from(num_levels).unwrap_or(i32::MAX),
            trigger: usize::try_from(trigger).unwrap_or(usize::MAX),
            max_size_amplification_percent: count("compaction.max-size-amplification-percent", 200, 0)?,
            size_ratio_percent: count("compaction.size-ratio", 1, 0)?,
            small_file_ratio: o.ratio("compaction.small-file-ratio", 0.7)?,
            optimization_interval_ms: o.optional("compaction.optimization-interval", |key| o.duration(key, 0))?,
            total_size_threshold: o.optional("compaction.total-size-threshold", |key| o.size(key, 0))?,
            incremental_size_threshold: o.optional("compaction.incremental-size-threshold", |key| o.size(key, 0))?,
            force_up_level_0: o.bool("compaction.force-up-level-0", false)?,
            force_rewrite_all_files: o.bool("compaction.force-rewrite-all-files", false)?,
            offpeak: OffPeak::read(o)?,
        })
    }
}

impl OffPeak {
    pub(super) fn read(o: &OptionReader<'_>) -> Result<Option<Self>> {
        let hour = |key| o.in_range(key, -1, -1..=23).map(|hour| i32::try_from(hour).unwrap_or(-1));
        let (start_hour, end_hour) = (hour("compaction.offpeak.start.hour")?, hour("compaction.offpeak.end.hour")?);
        let ratio_percent = o.in_range("compaction.offpeak-ratio", 0, 0..=100)?;
        let off = start_hour < 0 || end_hour < 0 || start_hour == end_hour;
        Ok((!off).then_some(Self { start_hour, end_hour, ratio_percent }))
    }

    /// Whether this hour of the day (0 to 23) is off-peak.
    #[must_use]
    pub const fn contains(&self, hour: i32) -> bool {
        if self.start_hour < self.end_hour {
            hour >= self.start_hour && hour < self.end_hour
        } else {
            hour >= self.start_hour || hour < self.end_hour
        }
    }
}

impl ManifestOptions {
    pub(super) fn read(o: &OptionReader<'_>) -> Result<Self> {
        let merge_min_count = o.in_range("manifest.merge-min-count", 30, 1..=i64::from(i32::MAX))?;
        Ok(Self {
            target_size: o.size("manifest.target-file-size", 8 << 20)?,
            full_compaction_threshold: o.size("manifest.full-compaction-threshold-size", 16 << 20)?,
            merge_min_count: usize::try_from(merge_min_count).unwrap_or(30),
            compression: kinds::manifest_compression(o)?,
        })
    }
}

impl CommitOptions {
    pub(super) fn read(o: &OptionReader<'_>) -> Result<Self> {
        let max_retries = o.in_range("commit.max-retries", 10, 0..=i64::from(i32::MAX))?;
        Ok(Self { max_retries: u32::try_from(max_retries).unwrap_or(10) })
    }
}

impl ExpiryOptions {
    pub(super) fn read(o: &OptionReader<'_>) -> Result<Self> {
        let count = |key, default: i64| o.in_range(key, default, 1..=i64::MAX).map(i64::unsigned_abs);
        let (retain_min, retain_max) =
            (count("snapshot.num-retained.min", 10)?, count("snapshot.num-retained.max", i64::from(i32::MAX))?);
        if retain_min > retain_max {
            return Err(FormatError::invalid("snapshot.num-retained.min", "is larger than snapshot.num-retained.max"));
        }
        let time_retained_ms = o.duration("snapshot.time-retained", 3_600_000)?;
        let changelog =
            |key, snapshot: u64| o.optional(key, |key| count(key, 1)).map(|n| n.is_some_and(|n| n > snapshot));
        let changelog_time = o.optional("changelog.time-retained", |key| o.duration(key, 0))?;
        Ok(Self {
            retain_min,
            retain_max,
            time_retained_ms,
            limit: count("snapshot.expire.limit", 50)?,
            decoupled_changelog: changelog("changelog.num-retained.min", retain_min)?
                | changelog("changelog.num-retained.max", retain_max)?
                | changelog_time.is_some_and(|ms| ms > time_retained_ms),
        })
    }
}
