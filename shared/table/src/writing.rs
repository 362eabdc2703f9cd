//! Table options as the engine's writer and picker understand them.
//!
//! Neighbours: `ingest` and `compact`. Invariant: 1. every option that changes what is written is read from the table, never assumed.

use siltstone_format::{
    id::Level,
    options::{ChangelogProducer, StatsMode},
};
use siltstone_lsm::{picker::PickOptions, writer::WriterSettings};

use crate::table::Table;

/// How data files of `level` are written.
#[must_use]
pub fn writer_settings(table: &Table, level: Level) -> WriterSettings {
    let options = &table.options;
    let mut settings = WriterSettings::defaults(table.schema.fields.len());
    settings.compression = options.compression_at(level.0);
    settings.prefix = options.files.data_prefix.clone();
    settings.suffix = options.files.suffix();
    settings.target_file_rows = options.files.target_rows;
    settings.stats_dense = options.files.stats_dense_store;
    settings.target_file_bytes = u64::try_from(options.files.target_size).unwrap_or(u64::MAX);
    settings.stats = table
        .schema
        .fields
        .iter()
        .enumerate()
        .map(|(place, field)| match options.files.stats_keep_first_n {
            Some(first) if place >= first => StatsMode::None,
            _ => options.stats_mode(&field.name, level.0),
        })
        .collect();
    settings
}

/// How changelog files are written.
#[must_use]
pub fn changelog_settings(table: &Table) -> WriterSettings {
    WriterSettings {
        compression: table.options.files.changelog_compression,
        prefix: table.options.files.changelog_prefix.clone(),
        ..writer_settings(table, Level::ZERO)
    }
}

/// Whether each write also writes its rows as a changelog.
#[must_use]
pub fn writes_changelog(table: &Table) -> bool {
    table.options.changelog_producer == ChangelogProducer::Input
}

/// What the picker is told; `hour` of the day decides about off-peak.
#[must_use]
pub fn pick_options(table: &Table, hour: i32) -> PickOptions {
    let options = &table.options.compaction;
    let off_peak = options.offpeak.filter(|o| o.contains(hour)).map_or(0, |o| o.ratio_percent);
    PickOptions {
        trigger: options.trigger,
        max_size_amplification_percent: options.max_size_amplification_percent,
        size_ratio_percent: options.size_ratio_percent + off_peak,
        optimization_interval_ms: options.optimization_interval_ms,
        total_size_threshold: options.total_size_threshold,
        incremental_size_threshold: options.incremental_size_threshold,
        force_up_level_0: options.force_up_level_0,
    }
}
