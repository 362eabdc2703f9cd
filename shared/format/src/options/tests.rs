//! Table options: what is read, what is refused by name.

use std::collections::BTreeSet;

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
    /// Read: the check sees the value, and a test of [`SHOWN`] what comes of it.
    Honoured(&'static str, &'static str, fn(&TableOptions) -> bool),
    /// Not understood: refused for every purpose.
    Unknown(&'static str, &'static str),
    /// The one value, or one of those, that is not refused.
    Fine(&'static str, &'static str),
    /// Taken, and its owner is told what it does not do here.
    Warned(&'static str, &'static str),
    /// Nothing that Siltstone does depends on it, for the reason given.
    Free(&'static str, &'static str, &'static str),
}
use Row::{Fine, Free, Honoured, Refused, Unknown, Warned};

/// The tests of `table/tests/options.rs` by what they show: what each honoured option does.
const SHOWN: &[(&str, &[&str])] = &[
    ("buckets_are_as_many_and_as_chosen_as_the_options_say", &["bucket", "bucket-key", "bucket-function.type"]),
    ("the_sequence_field_decides_which_row_of_a_key_stays", &["sequence.field", "sequence.field.sort-order"]),
    (
        "retracts_are_taken_from_a_column_and_left_out_as_the_options_say",
        &["ignore-delete", "deduplicate.ignore-delete", "ignore-update-before", "rowkind.field"],
    ),
    (
        "files_are_compressed_as_the_options_say",
        &[
            "file.compression",
            "file.compression.per.level",
            "file.compression.zstd-level",
            "changelog-file.compression",
            "changelog-producer",
        ],
    ),
    (
        "files_are_named_and_placed_as_the_options_say",
        &["data-file.prefix", "changelog-file.prefix", "data-file.path-directory", "file.suffix.include.compression"],
    ),
    ("partitions_are_named_as_the_options_say", &["partition.default-name", "partition.legacy-name"]),
    ("a_compaction_cuts_its_files_at_the_target", &["target-file-size", "target-file-row-num"]),
    ("levels_and_runs_are_as_many_as_the_options_say", &["num-levels", "num-sorted-run.compaction-trigger"]),
    (
        "sizes_decide_what_is_picked_as_the_options_say",
        &[
            "compaction.max-size-amplification-percent",
            "compaction.size-ratio",
            "compaction.offpeak.start.hour",
            "compaction.offpeak.end.hour",
            "compaction.offpeak-ratio",
        ],
    ),
    (
        "an_early_full_compaction_is_picked_as_the_options_say",
        &[
            "compaction.optimization-interval",
            "compaction.total-size-threshold",
            "compaction.incremental-size-threshold",
        ],
    ),
    ("level_0_is_lifted_where_an_option_says_so", &["compaction.force-up-level-0"]),
    (
        "files_are_moved_or_written_again_as_the_options_say",
        &["compaction.small-file-ratio", "compaction.force-rewrite-all-files"],
    ),
    ("a_write_only_table_asks_for_no_compaction_and_expires_nothing", &["write-only"]),
    (
        "statistics_are_kept_as_the_options_say",
        &[
            "metadata.stats-mode",
            "metadata.stats-mode.per.level",
            "fields.note.stats-mode",
            "metadata.stats-dense-store",
            "metadata.stats-keep-first-n-columns",
        ],
    ),
    (
        "manifests_are_merged_and_compressed_as_the_options_say",
        &[
            "manifest.target-file-size",
            "manifest.full-compaction-threshold-size",
            "manifest.merge-min-count",
            "manifest.compression",
        ],
    ),
    ("a_change_of_the_pointer_gives_up_after_as_many_lost_races_as_the_options_say", &["commit.max-retries"]),
    (
        "snapshots_expire_as_the_options_say",
        &["snapshot.num-retained.min", "snapshot.num-retained.max", "snapshot.time-retained", "snapshot.expire.limit"],
    ),
];

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
    Fine("merge-engine", "Deduplicate"),
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
    Fine("changelog-producer", "none"),
    Refused("changelog-producer", "lookup", &[Compact]),
    Refused("changelog-producer", "full-compaction", &[Compact]),
    Unknown("changelog-producer", "output"),
    Free(
        "changelog-producer.row-deduplicate",
        "true",
        "a rule of lookup and full-compaction changelogs, whose compaction is refused",
    ),
    Free("changelog-producer.row-deduplicate-ignore-fields", "v", "as changelog-producer.row-deduplicate"),
    // deletion vectors
    Refused("deletion-vectors.enabled", "true", &[Read, Write, Compact]),
    Unknown("deletion-vectors.enabled", "perhaps"),
    Free("deletion-vectors.bitmap64", "true", "tables with deletion vectors are refused"),
    Free("deletion-vectors.merge-on-read", "true", "tables with deletion vectors are refused"),
    Free("deletion-vectors.modifiable", "true", "tables with deletion vectors are refused"),
    // force-lookup (first-row: above)
    Refused("force-lookup", "true", &[Compact]),
    // formats
    Fine("file.format", "Parquet"),
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
    Free(
        "data-file.thin-mode",
        "true",
        "files with key columns are what every reader reads, also Java 0.9; thin ones are read",
    ),
    Honoured("data-file.prefix", "d-", |o| o.files.data_prefix == "d-"),
    Unknown("data-file.prefix", "a/b"),
    Honoured("changelog-file.prefix", "c-", |o| o.files.changelog_prefix == "c-"),
    Honoured("data-file.path-directory", "/data/", |o| o.files.path_directory.as_deref() == Some("data")),
    Unknown("data-file.path-directory", "../x"),
    Honoured("file.suffix.include.compression", "true", |o| o.files.suffix() == ".zstd.parquet"),
    Refused("data-file.external-paths", "s3://b/x", &[Write, Compact]),
    Refused("data-file.external-paths.strategy", "round-robin", &[Write, Compact]),
    Honoured("partition.default-name", "nil", |o| o.partition_default_name == "nil"),
    Honoured("partition.legacy-name", "false", |o| !o.partition_legacy_name),
    // sizes
    Honoured("target-file-size", "64 MB", |o| o.files.target_size == 64 << 20),
    Refused("target-file-size", "0", &[Write, Compact]),
    Refused("target-file-size", "0 mb", &[Write, Compact]),
    Fine("target-file-size", "1 b"),
    Unknown("target-file-size", "64 qb"),
    Unknown("target-file-size", "99999999 tb"),
    Honoured("target-file-row-num", "1000", |o| o.files.target_rows == 1000),
    // compaction
    Honoured("num-levels", "4", |o| o.compaction.num_levels == 4),
    Unknown("num-levels", "1"),
    Honoured("num-sorted-run.compaction-trigger", "8", |o| (o.compaction.trigger, o.compaction.num_levels) == (8, 9)),
    Free(
        "num-sorted-run.stop-trigger",
        "2",
        "makes a writer wait for the compactor in its own process; here a waiting batch would hold up its shard",
    ),
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
    Honoured("compaction.offpeak.start.hour", "1", |o| o.compaction.offpeak.is_none()),
    Honoured("compaction.offpeak.end.hour", "5", |o| o.compaction.offpeak.is_none()),
    Unknown("compaction.offpeak.end.hour", "24"),
    Honoured("compaction.offpeak-ratio", "10", |o| o.compaction.offpeak.is_none()),
    Free("compaction.min.file-num", "7", "of append tables"),
    Free("compaction.file-num-limit", "7", "of append tables"),
    Free("compaction.delete-ratio-threshold", "0.3", "of append tables"),
    Warned("full-compaction.delta-commits", "10"),
    Free("lookup-wait", "false", "only lookup tables, whose compaction is refused, listen to it"),
    Free("lookup-compact", "GENTLE", "only lookup tables, whose compaction is refused, listen to it"),
    Free("lookup-compact.max-interval", "5", "only lookup tables, whose compaction is refused, listen to it"),
    Honoured("write-only", "true", |o| o.write_only),
    // statistics
    Honoured("metadata.stats-mode", "counts", |o| o.stats_mode("v", 0) == StatsMode::Counts),
    Unknown("metadata.stats-mode", "truncate(0)"),
    Honoured("metadata.stats-mode.per.level", "0:none", |o| {
        (o.stats_mode("v", 0), o.stats_mode("v", 1)) == (StatsMode::None, StatsMode::Truncate(16))
    }),
    Honoured("fields.note.stats-mode", "full", |o| {
        (o.stats_mode("note", 0), o.stats_mode("k", 0)) == (StatsMode::Full, StatsMode::Truncate(16))
    }),
    Honoured("metadata.stats-dense-store", "false", |o| !o.files.stats_dense_store),
    Honoured("metadata.stats-keep-first-n-columns", "3", |o| o.files.stats_keep_first_n == Some(3)),
    // manifests
    Refused("manifest.target-file-size", "0", &[Write, Compact]),
    Honoured("manifest.target-file-size", "1 mb", |o| o.manifests.target_size == 1 << 20),
    Honoured("manifest.full-compaction-threshold-size", "2 mb", |o| o.manifests.full_compaction_threshold == 2 << 20),
    Honoured("manifest.merge-min-count", "5", |o| o.manifests.merge_min_count == 5),
    Honoured("manifest.compression", "none", |o| o.manifests.compression == Compression::None),
    Unknown("manifest.compression", "lz4"),
    Free(
        "manifest.delete-file-drop-stats",
        "true",
        "saves bytes of entries of deleted files; entries are written whole",
    ),
    // commit
    Honoured("commit.max-retries", "3", |o| o.commit.max_retries == 3),
    Free("commit.min-retry-wait", "20 ms", "waits between attempts are the caller's, who knows the deadline"),
    Free("commit.max-retry-wait", "5s", "waits between attempts are the caller's, who knows the deadline"),
    Free("commit.timeout", "2 min", "the deadline of the invocation bounds a commit"),
    Free("commit.user-prefix", "p", "the user of a snapshot of ours names the incarnation, by which it is known again"),
    Free(
        "commit.force-create-snapshot",
        "true",
        "a rule of Flink's committer; a batch without rows moves its checkpoint in the pointer and needs no snapshot",
    ),
    Free(
        "commit.discard-duplicate-files",
        "true",
        "a change takes effect once by its range or id, so its files are never added twice",
    ),
    // expiry
    Honoured("snapshot.num-retained.min", "2", |o| o.expiry.retain_min == 2),
    Honoured("snapshot.num-retained.max", "20", |o| o.expiry.retain_max == 20),
    Unknown("snapshot.num-retained.max", "5"),
    Honoured("snapshot.time-retained", "7 d", |o| o.expiry.time_retained_ms == 604_800_000),
    Unknown("snapshot.time-retained", "7 lightyears"),
    Honoured("snapshot.expire.limit", "9", |o| o.expiry.limit == 9),
    Free("snapshot.clean-empty-directories", "true", "object stores have no directories"),
    Refused("changelog.time-retained", "2 h", &[Expire]),
    Refused("changelog.num-retained.min", "11", &[Expire]),
    Fine("changelog.time-retained", "1 h"),
    Fine("changelog.num-retained.max", "5"),
    // ignorable, some with a warning
    Warned("record-level.expire-time", "1 d"),
    Free("record-level.time-field", "ts", "warned of with record-level.expire-time"),
    Warned("file-index.bloom-filter.columns", "v"),
    // branch, path, type
    Fine("branch", "main"),
    Refused("branch", "dev", &[Read, Write, Compact, Expire]),
    Free("path", "s3://b/t", "the table is where it was found"),
    Fine("type", "table"),
    Refused("type", "format-table", &[Read, Write, Compact, Expire]),
    // not part of the format
    Free("tag.automatic-creation", "process-time", "tags are made on request"),
    Free("consumer.expiration-time", "1 d", "consumers belong to Flink"),
    Free("consumer-id", "c", "consumers belong to Flink"),
    Free("partition.expiration-time", "7 d", "no part of the format"),
    Free("metastore.partitioned-table", "true", "no part of the format"),
    Free("sink.parallelism", "3", "of Flink's sink"),
    Free("scan.mode", "latest", "of other engines' scans"),
    Free("read.batch-size", "1", "of other engines' scans"),
    Free("write-buffer-size", "1 mb", "of other engines' writers"),
    Warned("metadata.iceberg.storage", "hadoop-catalog"),
    Fine("metadata.iceberg.storage", "disabled"),
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
    Free("fields.v.map-storage-layout", "default", "the default"),
    Free("row-tracking.enabled", "false", "off"),
    Free("my.private.key", "anything", "users keep private options"),
];

#[test]
fn every_row_of_section_14_is_honoured_refused_by_name_warned_of_or_free() {
    for row in SECTION_14 {
        let (key, value) = match row {
            Refused(k, v, _) | Honoured(k, v, _) | Free(k, v, _) => (*k, *v),
            Unknown(k, v) | Fine(k, v) | Warned(k, v) => (*k, *v),
        };
        let schema = schema(&[(key, value)]);
        let parsed = TableOptions::from_schema(&schema);
        for purpose in [Read, Write, Compact, Expire] {
            let outcome = parsed.clone().and_then(|options| options.check(&schema, purpose));
            let refused = match row {
                Refused(_, _, purposes) => purposes.contains(&purpose),
                Unknown(..) => true,
                Honoured(..) | Fine(..) | Warned(..) | Free(..) => false,
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
        match (row, &parsed) {
            (Honoured(_, _, seen), Ok(options)) => assert!(seen(options), "{key} = {value}"),
            (Warned(..), Ok(options)) => {
                let [warning] = options.warnings.as_slice() else { panic!("{key} = {value}: {:?}", options.warnings) };
                let named = warning.split(['*', ':']).next().unwrap();
                assert!(key.starts_with(named), "{key}: {warning}");
            }
            (Free(.., reason), _) => assert!(!reason.is_empty(), "{key} = {value}"),
            _ => {}
        }
    }
}

/// Options that only other engines act on: whoever sets one says so.
const OF_OTHERS: [&str; 10] = [
    "tag.automatic-creation",
    "consumer.expiration-time",
    "consumer-id",
    "partition.expiration-time",
    "metastore.partitioned-table",
    "sink.parallelism",
    "scan.mode",
    "read.batch-size",
    "write-buffer-size",
    "my.private.key",
];

#[test]
fn known_names_are_those_of_section_14_but_for_those_of_other_engines() {
    let rows: BTreeSet<&str> = SECTION_14
        .iter()
        .map(|row| match row {
            Refused(k, ..) | Honoured(k, ..) | Free(k, ..) | Unknown(k, _) | Fine(k, _) | Warned(k, _) => *k,
        })
        .collect();
    for name in &rows {
        assert_eq!(names::is_known(name), !OF_OTHERS.contains(name), "{name}");
    }
    // Read by Paimon's fallback keys as `deduplicate.ignore-delete` is.
    let fallbacks = ["first-row.ignore-delete", "partial-update.ignore-delete"];
    for name in names::all() {
        assert!(rows.contains(name) || fallbacks.contains(&name), "{name}: no row says what is done with it");
    }
}

#[test]
fn a_mistyped_name_leads_to_the_one_that_was_meant() {
    for (name, meant) in [
        ("bukcet", "bucket"),
        ("buckets", "bucket"),
        ("bucket_key", "bucket-key"),
        ("Merge-Engine", "merge-engine"),
        ("snapshot.time-retain", "snapshot.time-retained"),
        ("changelog-producer.row-dedup", "changelog-producer.row-deduplicate"),
        ("fields.v.stat-mode", "fields.v.stats-mode"),
        ("file-compression", "file.compression"),
        ("compaction.trigger", "(none)"),
        ("my.private.key", "(none)"),
        ("", "(none)"),
    ] {
        assert_eq!(names::nearest(name).as_deref().unwrap_or("(none)"), meant, "{name}");
    }
    let options = schema(&[("bukcet", "1"), ("scan.mode", "latest"), ("bucket", "2")]).options;
    assert_eq!(names::unknown(&options).collect::<Vec<_>>(), ["bukcet", "scan.mode"]);
}

/// Reading an option is not yet doing what it says.
#[test]
fn every_honoured_option_is_set_by_the_test_that_shows_what_it_does() {
    let tests = include_str!("../../../table/tests/options.rs");
    let honoured: BTreeSet<&str> =
        SECTION_14.iter().filter_map(|row| if let Honoured(key, ..) = row { Some(*key) } else { None }).collect();
    let shown: BTreeSet<&str> = SHOWN.iter().flat_map(|(_, keys)| keys.iter().copied()).collect();
    assert_eq!(honoured, shown);
    for (name, keys) in SHOWN {
        let start = format!("#[tokio::test(flavor = \"multi_thread\")]\nasync fn {name}() {{\n");
        let (_, body) = tests.split_once(&start).unwrap_or_else(|| panic!("there is no test {name}"));
        let (body, _) = body.split_once("\n}\n").unwrap();
        for key in *keys {
            assert!(body.contains(&format!("\"{key}\"")), "{name} does not set {key}");
        }
    }
}

#[test]
fn defaults_are_those_of_paimon() {
    let o = read(&[]);
    assert_eq!((o.merge_engine, o.changelog_producer), (MergeEngine::Deduplicate, ChangelogProducer::None));
    assert_eq!(
        (o.files.compression, o.files.target_size, o.files.target_rows),
        (FileCompression::Zstd(1), 128 << 20, i64::MAX.unsigned_abs())
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
        max_size_amplification_percent: 200,
        size_ratio_percent: 1,
        small_file_ratio: 0.7,
        optimization_interval_ms: None,
        total_size_threshold: None,
        incremental_size_threshold: None,
        force_up_level_0: false,
        force_rewrite_all_files: false,
        offpeak: None,
    };
    assert_eq!(o.compaction, expected);
    assert_eq!(
        (o.manifests.target_size, o.manifests.full_compaction_threshold, o.manifests.merge_min_count),
        (8 << 20, 16 << 20, 30)
    );
    assert_eq!(o.commit.max_retries, 10);
    let expected = ExpiryOptions {
        retain_min: 10,
        retain_max: 2_147_483_647,
        time_retained_ms: 3_600_000,
        limit: 50,
        decoupled_changelog: false,
    };
    assert_eq!(o.expiry, expected);
    assert!(o.warnings.is_empty() && !o.write_only && o.partition_legacy_name);
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
