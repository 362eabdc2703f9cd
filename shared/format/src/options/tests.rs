//! Table options: what is read, what is refused by name.

use super::*;
use crate::{avro::Compression, error::ErrorKind, schema::Column, types::DataType};

fn schema(options: &[(&str, &str)]) -> TableSchema {
    let column = |(name, text): (&str, &str)| Column::new(name, DataType::parse(text).unwrap());
    let columns =
        [("dt", "DATE"), ("k", "BIGINT"), ("op", "STRING"), ("ts", "TIMESTAMP(3)"), ("v", "INT")].map(column).to_vec();
    let keys = vec!["dt".into(), "k".into()];
    let mut schema = TableSchema::create(columns, vec!["dt".into()], keys, BTreeMap::new(), None, 0).unwrap();
    for (key, value) in options {
        if *value == "(absent)" {
            schema.options.remove(*key);
        } else {
            schema.options.insert((*key).into(), (*value).into());
        }
    }
    schema
}

fn read(options: &[(&str, &str)]) -> TableOptions {
    TableOptions::from_schema(&schema(options)).unwrap()
}

use Purpose::{Compact, Expire, Read, Write};

/// What Siltstone does with an option.
enum Row {
    /// Refused by name for these purposes and fine for the others.
    Refused(&'static str, &'static str, &'static [Purpose]),
    /// Read: the check sees the value.
    Honoured(&'static str, &'static str, fn(&TableOptions) -> bool),
    /// Not understood: refused for every purpose.
    Unknown(&'static str, &'static str),
    /// Without effect on what Siltstone writes, for the reason given.
    Free(&'static str, &'static str),
}
use Row::{Free, Honoured, Refused, Unknown};

/// Every row of the table of paimon-format.md section 14 and of the list below it, in order.
const SECTION_14: &[Row] = &[
    // bucket, bucket-key, bucket-function.type
    Honoured("bucket", "7", |o| o.bucket == BucketMode::Fixed(7)),
    Refused("bucket", "-1", &[Write]),
    Refused("bucket", "(absent)", &[Write]),
    Refused("bucket", "-2", &[Write, Compact]),
    Unknown("bucket", "0"),
    Unknown("bucket", "-3"),
    Unknown("bucket", "four"),
    Honoured("bucket-key", "k", |_| true),
    Unknown("bucket-key", "v"),
    Honoured("bucket-function.type", "mod", |o| o.bucket_function == Some(BucketFunction::Mod)),
    Refused("bucket-function.type", "hive", &[Write]),
    Unknown("bucket-function.type", "xx"),
    // merge-engine
    Honoured("merge-engine", "Deduplicate", |o| o.merge_engine == MergeEngine::Deduplicate),
    Refused("merge-engine", "partial-update", &[Read, Write, Compact]),
    Refused("merge-engine", "aggregation", &[Read, Write, Compact]),
    Refused("merge-engine", "first-row", &[Read, Write, Compact]),
    Unknown("merge-engine", "dedupe"),
    // sequence.field, .sort-order
    Honoured("sequence.field", "ts, v", |o| o.sequence_fields == ["ts", "v"]),
    Unknown("sequence.field", "nope"),
    Unknown("sequence.field", "ts,ts"),
    Honoured("sequence.field.sort-order", "descending", |o| o.sequence_descending),
    Unknown("sequence.field.sort-order", "up"),
    // ignore-delete and its old names, ignore-update-before
    Honoured("ignore-delete", "true", |o| o.ignore_delete),
    Honoured("deduplicate.ignore-delete", "TRUE", |o| o.ignore_delete),
    Unknown("ignore-delete", "yes"),
    Honoured("ignore-update-before", "true", |o| o.ignore_update_before),
    // rowkind.field
    Honoured("rowkind.field", "op", |o| o.rowkind_field.as_deref() == Some("op")),
    Unknown("rowkind.field", "v"),
    // fields.*, partial-update.remove-*, aggregation.remove-*
    Refused("fields.v.aggregate-function", "sum", &[Write, Compact]),
    Refused("fields.ts.sequence-group", "v", &[Write, Compact]),
    Refused("fields.v.ignore-retract", "true", &[Write, Compact]),
    Refused("fields.default-aggregate-function", "sum", &[Write, Compact]),
    Refused("partial-update.remove-record-on-delete", "true", &[Write, Compact]),
    Refused("partial-update.remove-record-on-sequence-group", "ts", &[Write, Compact]),
    Refused("aggregation.remove-record-on-delete", "true", &[Write, Compact]),
    // changelog-producer
    Honoured("changelog-producer", "input", |o| o.changelog_producer == ChangelogProducer::Input),
    Honoured("changelog-producer", "none", |o| o.changelog_producer == ChangelogProducer::None),
    Refused("changelog-producer", "lookup", &[Compact]),
    Refused("changelog-producer", "full-compaction", &[Compact]),
    Unknown("changelog-producer", "output"),
    Honoured("changelog-producer.row-deduplicate", "true", |o| o.changelog_row_deduplicate),
    Free("changelog-producer.row-deduplicate-ignore-fields", "v"),
    // deletion vectors
    Refused("deletion-vectors.enabled", "true", &[Read, Write, Compact]),
    Unknown("deletion-vectors.enabled", "perhaps"),
    Free("deletion-vectors.bitmap64", "true"),
    Free("deletion-vectors.merge-on-read", "true"),
    Free("deletion-vectors.modifiable", "true"),
    // force-lookup (first-row: above)
    Refused("force-lookup", "true", &[Compact]),
    // formats
    Honoured("file.format", "Parquet", |_| true),
    Refused("file.format", "orc", &[Read, Write, Compact, Expire]),
    Refused("manifest.format", "orc", &[Read, Write, Compact, Expire]),
    Refused("file.format.per.level", "0:avro,5:parquet", &[Read, Write, Compact, Expire]),
    Refused("changelog-file.format", "avro", &[Read, Write, Compact, Expire]),
    // compression
    Honoured("file.compression", "none", |o| o.files.compression == FileCompression::None),
    Unknown("file.compression", "brotli"),
    Honoured("file.compression.per.level", "0:lz4, 5:zstd", |o| {
        (o.compression_at(0), o.compression_at(1), o.compression_at(5))
            == (FileCompression::Lz4, FileCompression::Zstd(1), FileCompression::Zstd(1))
    }),
    Unknown("file.compression.per.level", "zstd"),
    Honoured("file.compression.zstd-level", "9", |o| o.compression_at(0) == FileCompression::Zstd(9)),
    Unknown("file.compression.zstd-level", "23"),
    Honoured("changelog-file.compression", "snappy", |o| o.files.changelog_compression == FileCompression::Snappy),
    // names and paths
    Honoured("data-file.thin-mode", "true", |o| o.thin_mode),
    Honoured("data-file.prefix", "d-", |o| o.files.data_prefix == "d-"),
    Unknown("data-file.prefix", "a/b"),
    Honoured("changelog-file.prefix", "c-", |o| o.files.changelog_prefix == "c-"),
    Honoured("data-file.path-directory", "/data/", |o| o.files.path_directory.as_deref() == Some("data")),
    Unknown("data-file.path-directory", "../x"),
    Honoured("file.suffix.include.compression", "true", |o| o.files.suffix_includes_compression),
    Refused("data-file.external-paths", "s3://b/x", &[Write, Compact]),
    Refused("data-file.external-paths.strategy", "round-robin", &[Write, Compact]),
    Honoured("partition.default-name", "nil", |o| o.partition_default_name == "nil"),
    Honoured("partition.legacy-name", "false", |o| !o.partition_legacy_name),
    // sizes
    Honoured("target-file-size", "64 MB", |o| o.files.target_size == 64 << 20),
    Unknown("target-file-size", "64 qb"),
    Unknown("target-file-size", "99999999 tb"),
    Honoured("target-file-row-num", "1000", |o| o.files.target_rows == 1000),
    // compaction
    Honoured("num-levels", "4", |o| o.compaction.num_levels == 4),
    Unknown("num-levels", "1"),
    Honoured("num-sorted-run.compaction-trigger", "8", |o| {
        (o.compaction.trigger, o.compaction.num_levels, o.compaction.stop_trigger) == (8, 9, 11)
    }),
    Honoured("num-sorted-run.stop-trigger", "2", |o| o.compaction.stop_trigger == 5),
    Honoured("compaction.max-size-amplification-percent", "50", |o| o.compaction.max_size_amplification_percent == 50),
    Honoured("compaction.size-ratio", "3", |o| o.compaction.size_ratio_percent == 3),
    Honoured("compaction.small-file-ratio", "0.5", |o| o.compaction.small_file_ratio == 0.5),
    Unknown("compaction.small-file-ratio", "7"),
    Honoured("compaction.optimization-interval", "1 h", |o| o.compaction.optimization_interval_ms == Some(3_600_000)),
    Honoured("compaction.total-size-threshold", "1g", |o| o.compaction.total_size_threshold == Some(1 << 30)),
    Honoured("compaction.incremental-size-threshold", "10 kb", |o| {
        o.compaction.incremental_size_threshold == Some(10 << 10)
    }),
    Honoured("compaction.force-up-level-0", "true", |o| o.compaction.force_up_level_0),
    Honoured("compaction.force-rewrite-all-files", "true", |o| o.compaction.force_rewrite_all_files),
    Free("compaction.offpeak.start.hour", "1"),
    Free("compaction.offpeak.end.hour", "5"),
    Unknown("compaction.offpeak.end.hour", "24"),
    Free("compaction.offpeak-ratio", "10"),
    Free("compaction.min.file-num", "7"),
    Free("compaction.file-num-limit", "7"),
    Free("compaction.delete-ratio-threshold", "0.3"),
    Honoured("full-compaction.delta-commits", "10", |o| o.compaction.full_delta_commits == Some(10)),
    // Only lookup tables, whose compaction is refused, listen to these.
    Free("lookup-wait", "false"),
    Free("lookup-compact", "GENTLE"),
    Free("lookup-compact.max-interval", "5"),
    Honoured("write-only", "true", |o| o.write_only),
    // statistics
    Honoured("metadata.stats-mode", "counts", |o| o.stats_mode("v", 0) == StatsMode::Counts),
    Unknown("metadata.stats-mode", "truncate(0)"),
    Honoured("metadata.stats-mode.per.level", "0:none", |o| {
        (o.stats_mode("v", 0), o.stats_mode("v", 1)) == (StatsMode::None, StatsMode::Truncate(16))
    }),
    Honoured("fields.v.stats-mode", "full", |o| {
        (o.stats_mode("v", 0), o.stats_mode("k", 0)) == (StatsMode::Full, StatsMode::Truncate(16))
    }),
    Honoured("metadata.stats-dense-store", "false", |o| !o.files.stats_dense_store),
    Honoured("metadata.stats-keep-first-n-columns", "3", |o| o.files.stats_keep_first_n == Some(3)),
    // manifests
    Honoured("manifest.target-file-size", "1 mb", |o| o.manifests.target_size == 1 << 20),
    Honoured("manifest.full-compaction-threshold-size", "2 mb", |o| o.manifests.full_compaction_threshold == 2 << 20),
    Honoured("manifest.merge-min-count", "5", |o| o.manifests.merge_min_count == 5),
    Honoured("manifest.compression", "none", |o| o.manifests.compression == Compression::None),
    Unknown("manifest.compression", "lz4"),
    Honoured("manifest.delete-file-drop-stats", "true", |o| o.manifests.delete_file_drop_stats),
    // commit
    Honoured("commit.max-retries", "3", |o| o.commit.max_retries == 3),
    Honoured("commit.min-retry-wait", "20 ms", |o| o.commit.min_retry_wait_ms == 20),
    Honoured("commit.max-retry-wait", "5s", |o| o.commit.max_retry_wait_ms == 5000),
    Honoured("commit.timeout", "2 min", |o| o.commit.timeout_ms == Some(120_000)),
    Honoured("commit.user-prefix", "p", |o| o.commit.user_prefix.as_deref() == Some("p")),
    Honoured("commit.force-create-snapshot", "true", |o| o.commit.force_create_snapshot),
    Honoured("commit.discard-duplicate-files", "true", |o| o.commit.discard_duplicate_files),
    // expiry
    Honoured("snapshot.num-retained.min", "2", |o| o.expiry.retain_min == 2),
    Honoured("snapshot.num-retained.max", "20", |o| o.expiry.retain_max == 20),
    Unknown("snapshot.num-retained.max", "5"),
    Honoured("snapshot.time-retained", "7 d", |o| o.expiry.time_retained_ms == 604_800_000),
    Unknown("snapshot.time-retained", "7 lightyears"),
    Honoured("snapshot.expire.limit", "9", |o| o.expiry.limit == 9),
    Honoured("snapshot.clean-empty-directories", "true", |o| o.expiry.clean_empty_directories),
    Refused("changelog.time-retained", "2 h", &[Expire]),
    Refused("changelog.num-retained.min", "11", &[Expire]),
    Honoured("changelog.time-retained", "1 h", |o| !o.expiry.decoupled_changelog),
    Honoured("changelog.num-retained.max", "5", |o| !o.expiry.decoupled_changelog),
    // ignorable, some with a warning
    Honoured("record-level.expire-time", "1 d", |o| o.warnings.len() == 1),
    Free("record-level.time-field", "ts"),
    Honoured("file-index.bloom-filter.columns", "v", |o| o.warnings.len() == 1),
    // branch, path, type
    Honoured("branch", "main", |_| true),
    Refused("branch", "dev", &[Read, Write, Compact, Expire]),
    Free("path", "s3://b/t"),
    Honoured("type", "table", |_| true),
    Refused("type", "format-table", &[Read, Write, Compact, Expire]),
    // not part of the format
    Free("tag.automatic-creation", "process-time"),
    Free("consumer.expiration-time", "1 d"),
    Free("consumer-id", "c"),
    Free("partition.expiration-time", "7 d"),
    Free("metastore.partitioned-table", "true"),
    Free("sink.parallelism", "3"),
    Free("scan.mode", "latest"),
    Free("read.batch-size", "1"),
    Free("write-buffer-size", "1 mb"),
    Honoured("metadata.iceberg.storage", "hadoop-catalog", |o| o.warnings.len() == 1),
    Honoured("metadata.iceberg.storage", "disabled", |o| o.warnings.is_empty()),
    // "Refuse to write or compact"
    Refused("sequence.snapshot-ordering", "true", &[Write, Compact]),
    Refused("pk-clustering-override", "true", &[Write, Compact]),
    Refused("primary-key.nullable", "true", &[Write, Compact]),
    Refused("row-tracking.enabled", "true", &[Write, Compact]),
    Refused("data-evolution.enabled", "true", &[Write, Compact]),
    Refused("chain-table.enabled", "true", &[Write, Compact]),
    Refused("index-file-in-data-file-dir", "true", &[Write, Compact]),
    Refused("pk-vector.columns", "v", &[Write, Compact]),
    Refused("pk-btree.columns", "v", &[Write, Compact]),
    Refused("pk-bitmap.columns", "v", &[Write, Compact]),
    Refused("pk-full-text.columns", "op", &[Write, Compact]),
    Refused("pk-multivalue.columns", "v", &[Write, Compact]),
    Refused("query-auth.enabled", "true", &[Write, Compact]),
    Refused("write.sequence-number-init-mode", "snapshot", &[Write, Compact]),
    Refused("fields.v.map-storage-layout", "columnar", &[Write, Compact]),
    Free("fields.v.map-storage-layout", "default"),
    Free("row-tracking.enabled", "false"),
    Free("my.private.key", "anything"),
];

#[test]
fn every_row_of_section_14_is_honoured_refused_by_name_or_free() {
    for row in SECTION_14 {
        let (key, value) = match row {
            Refused(k, v, _) | Honoured(k, v, _) | Unknown(k, v) | Free(k, v) => (*k, *v),
        };
        let schema = schema(&[(key, value)]);
        let parsed = TableOptions::from_schema(&schema);
        for purpose in [Read, Write, Compact, Expire] {
            let outcome = parsed.clone().and_then(|options| options.check(&schema, purpose));
            let refused = match row {
                Refused(_, _, purposes) => purposes.contains(&purpose),
                Unknown(..) if key == "deletion-vectors.enabled" => true,
                Unknown(..) => true,
                Honoured(..) | Free(..) => false,
            };
            let label = format!("{key} = {value} for {purpose:?}: {outcome:?}");
            assert_eq!(outcome.is_err(), refused, "{label}");
            if let (Err(error), Refused(..)) = (&outcome, row) {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{label}");
                let name = if key.starts_with("changelog.") { "changelog.*-retained" } else { key };
                assert!(
                    error.to_string().starts_with(name) || error.to_string().contains(&format!("({name}")),
                    "{label}"
                );
                assert!(error.to_string().len() > name.len() + 40, "{label}: says what to do");
            }
            if let (Err(error), Unknown(..)) = (&outcome, row) {
                let name = key.trim_end_matches(".max").trim_end_matches(".min");
                assert!(error.to_string().starts_with(name), "{label}");
            }
        }
        if let (Honoured(_, _, seen), Ok(options)) = (row, &parsed) {
            assert!(seen(options), "{key} = {value}");
        }
    }
}

#[test]
fn defaults_are_those_of_paimon() {
    let o = read(&[]);
    assert_eq!((o.merge_engine, o.changelog_producer), (MergeEngine::Deduplicate, ChangelogProducer::None));
    assert_eq!(
        (o.files.compression, o.files.target_size, o.files.target_rows),
        (FileCompression::Zstd(1), 128 << 20, i64::MAX)
    );
    assert_eq!(
        (o.files.data_prefix.as_str(), o.files.changelog_prefix.as_str(), o.files.path_directory.as_deref()),
        ("data-", "changelog-", None)
    );
    assert_eq!(
        (o.stats_mode("v", 0), o.files.stats_dense_store, o.files.stats_keep_first_n),
        (StatsMode::Truncate(16), true, None)
    );
    let expected = CompactionOptions {
        num_levels: 6,
        trigger: 5,
        stop_trigger: 8,
        max_size_amplification_percent: 200,
        size_ratio_percent: 1,
        small_file_ratio: 0.7,
        optimization_interval_ms: None,
        total_size_threshold: None,
        incremental_size_threshold: None,
        force_up_level_0: false,
        force_rewrite_all_files: false,
        full_delta_commits: None,
        offpeak: None,
    };
    assert_eq!(o.compaction, expected);
    assert_eq!(
        (o.manifests.target_size, o.manifests.full_compaction_threshold, o.manifests.merge_min_count),
        (8 << 20, 16 << 20, 30)
    );
    assert_eq!(
        (o.commit.max_retries, o.commit.min_retry_wait_ms, o.commit.max_retry_wait_ms, o.commit.timeout_ms),
        (10, 10, 10_000, None)
    );
    let expected = ExpiryOptions {
        retain_min: 10,
        retain_max: 2_147_483_647,
        time_retained_ms: 3_600_000,
        limit: 50,
        clean_empty_directories: false,
        decoupled_changelog: false,
    };
    assert_eq!(o.expiry, expected);
    assert!(o.warnings.is_empty() && !o.thin_mode && !o.write_only && o.partition_legacy_name);
}

#[test]
fn off_peak_hours_may_pass_midnight() {
    let o = read(&[
        ("compaction.offpeak.start.hour", "22"),
        ("compaction.offpeak.end.hour", "5"),
        ("compaction.offpeak-ratio", "20"),
    ]);
    let off_peak = o.compaction.offpeak.unwrap();
    assert_eq!((0..24).filter(|hour| off_peak.contains(*hour)).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 22, 23]);
    assert_eq!(off_peak.ratio_percent, 20);
    let o = read(&[("compaction.offpeak.start.hour", "1"), ("compaction.offpeak.end.hour", "3")]);
    assert_eq!((0..24).filter(|hour| o.compaction.offpeak.unwrap().contains(*hour)).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(
        read(&[("compaction.offpeak.start.hour", "1"), ("compaction.offpeak.end.hour", "1")]).compaction.offpeak,
        None
    );
}

#[test]
fn cross_partition_tables_are_refused_for_writing_only() {
    let mut schema = schema(&[]);
    schema.primary_keys = vec!["k".into()];
    let refused = |purpose| TableOptions::for_purpose(&schema, purpose).is_err();
    assert_eq!([Read, Write, Compact].map(refused), [false, true, false]);
}

#[test]
fn mod_needs_a_single_integer_key() {
    let ok = schema(&[("bucket-function.type", "mod")]);
    assert!(TableOptions::for_purpose(&ok, Write).is_ok());
    let mut two = ok;
    two.primary_keys.push("v".into());
    assert!(TableOptions::for_purpose(&two, Write).is_err());
}
