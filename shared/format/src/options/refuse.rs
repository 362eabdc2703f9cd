//! What is not done here, by option name, with what to do instead.
//!
//! Above: `TableOptions::check`. Invariants: 1. a refusal names the option and its value; 2. a purpose is refused only where going on
//! would make the table wrong for someone: reading is refused least, compacting most.

use std::collections::BTreeMap;

use super::{BucketMode, ChangelogProducer, MergeEngine, TableOptions, text::parse_bool};
use crate::{
    error::{FormatError, Result},
    schema::TableSchema,
};

/// What is to be done with a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Merge-on-read.
    Read,
    /// New level-0 files.
    Write,
    /// Rewriting and moving files.
    Compact,
    /// Removing old snapshots and what only they hold.
    Expire,
}

/// Remedy for tables without fixed buckets.
pub(super) const FIXED_BUCKETS: &str = "make the table with a fixed number of buckets, such as bucket = 4";
const LEAVE_TO_JAVA: &str = "leave this table to Java Paimon, or make a table without the option";
const COMPACT_ELSEWHERE: &str =
    "let Java Paimon compact this table (Siltstone may go on writing to it), or remove the option";

/// Which purposes an option stands in the way of.
#[derive(Clone, Copy)]
enum For {
    All,
    WriteAndCompact,
    Compact,
}

impl For {
    fn includes(self, purpose: Purpose) -> bool {
        match self {
            Self::All => purpose != Purpose::Expire,
            Self::WriteAndCompact => matches!(purpose, Purpose::Write | Purpose::Compact),
            Self::Compact => purpose == Purpose::Compact,
        }
    }
}

/// Options that are refused when true.
const REFUSED_WHEN_TRUE: [(&str, For, &str); 10] = [
    (
        "deletion-vectors.enabled",
        For::All,
        "read and compact this table with Java Paimon, or make a table without deletion vectors",
    ),
    ("force-lookup", For::Compact, COMPACT_ELSEWHERE),
    ("sequence.snapshot-ordering", For::WriteAndCompact, LEAVE_TO_JAVA),
    ("pk-clustering-override", For::WriteAndCompact, LEAVE_TO_JAVA),
    ("primary-key.nullable", For::WriteAndCompact, "make the key columns NOT NULL and remove the option"),
    ("row-tracking.enabled", For::WriteAndCompact, LEAVE_TO_JAVA),
    ("data-evolution.enabled", For::WriteAndCompact, LEAVE_TO_JAVA),
    ("chain-table.enabled", For::WriteAndCompact, LEAVE_TO_JAVA),
    ("index-file-in-data-file-dir", For::WriteAndCompact, LEAVE_TO_JAVA),
    ("query-auth.enabled", For::WriteAndCompact, "write to this table through a client that the catalog authorises"),
];

/// Options that are refused whatever their value, by the start of their name: indexes tied to compacted files.
pub(super) const REFUSED_PREFIXES: [&str; 8] = [
    "pk-vector.",
    "pk-btree.",
    "pk-bitmap.",
    "pk-full-text.",
    "pk-multivalue.",
    "partial-update.remove-",
    "aggregation.remove-",
    "data-file.external-paths",
];

/// Options `fields.<column>.<this>` of merge engines that are not done here.
pub(super) const REFUSED_FIELD_OPTIONS: [&str; 8] = [
    "aggregate-function",
    "sequence-group",
    "ignore-retract",
    "distinct",
    "list-agg-delimiter",
    "nested-key",
    "count-limit",
    "default-aggregate-function",
];

pub(super) fn check(options: &TableOptions, schema: &TableSchema, purpose: Purpose) -> Result<()> {
    let refused = |scope: For, what: String, remedy: &str| {
        if scope.includes(purpose) { Err(FormatError::unsupported(what, remedy)) } else { Ok(()) }
    };
    if options.merge_engine != MergeEngine::Deduplicate {
        let what = format!("merge-engine = {}", options.merge_engine.name());
        refused(For::All, what, "use merge-engine = deduplicate, or leave this table to Java Paimon")?;
    }
    check_buckets(options, schema, purpose)?;
    check_values(options, schema, purpose)?;
    for (key, scope, remedy) in REFUSED_WHEN_TRUE {
        if schema.options.get(key).map_or(Ok(false), |text| parse_bool(key, text))? {
            refused(scope, format!("{key} = true"), remedy)?;
        }
    }
    for (key, value) in &schema.options {
        if REFUSED_PREFIXES.iter().any(|prefix| key.starts_with(prefix)) && !value.eq_ignore_ascii_case("false") {
            refused(For::WriteAndCompact, format!("{key} = {value:.64}"), LEAVE_TO_JAVA)?;
        }
        if let Some((_, option)) = key.strip_prefix("fields.").map(|rest| rest.rsplit_once('.').unwrap_or(("", rest))) {
            check_field_option(key, option, value, purpose)?;
        }
    }
    match purpose {
        Purpose::Write => schema.refuse_unportable_partitions(),
        Purpose::Expire if options.expiry.decoupled_changelog => {
            let remedy =
                "lower changelog.*-retained to the snapshot.* values, or let Java Paimon expire this table's snapshots";
            Err(FormatError::unsupported("a changelog that outlives its snapshot (changelog.*-retained)", remedy))
        }
        _ => Ok(()),
    }
}

fn check_field_option(key: &str, option: &str, value: &str, purpose: Purpose) -> Result<()> {
    if !For::WriteAndCompact.includes(purpose) {
        return Ok(());
    }
    if option == "map-storage-layout" && !value.trim().eq_ignore_ascii_case("default") {
        return Err(FormatError::unsupported(format!("{key} = {value:.64}"), LEAVE_TO_JAVA));
    }
    if REFUSED_FIELD_OPTIONS.contains(&option) {
        let remedy = "remove the option: it belongs to merge engines other than deduplicate";
        return Err(FormatError::unsupported(format!("{key} = {value:.64}"), remedy));
    }
    Ok(())
}

fn check_buckets(options: &TableOptions, schema: &TableSchema, purpose: Purpose) -> Result<()> {
    let refuse = |what: String, remedy| Err(FormatError::unsupported(what, remedy));
    match (options.bucket, purpose) {
        (BucketMode::Dynamic, Purpose::Write) if !schema.options.contains_key("bucket") => {
            return refuse("bucket = -1 (the default where the option is absent)".to_owned(), FIXED_BUCKETS);
        }
        (BucketMode::Dynamic, Purpose::Write) => return refuse("bucket = -1".to_owned(), FIXED_BUCKETS),
        (BucketMode::Postpone, Purpose::Write | Purpose::Compact) => {
            return refuse("bucket = -2".to_owned(), FIXED_BUCKETS);
        }
        _ => {}
    }
    if purpose != Purpose::Write {
        return Ok(());
    }
    if schema.is_cross_partition() {
        return refuse(
            "a primary key without all partition columns".to_owned(),
            "add the partition columns to the primary key",
        );
    }
    // Also finds a bucket key that `mod` cannot take.
    options.bucketer(schema).map(drop)
}

/// The refusal of Hive's bucket function.
pub(super) fn hive() -> FormatError {
    FormatError::unsupported("bucket-function.type = hive", "make the table with bucket-function.type = default")
}

/// Refusals that depend on a value.
fn check_values(options: &TableOptions, schema: &TableSchema, purpose: Purpose) -> Result<()> {
    let text = |key: &str| schema.options.get(key).map(|text| text.trim()).filter(|text| !text.is_empty());
    let refuse = |what: String, remedy: &str| Err(FormatError::unsupported(what, remedy));
    for key in ["file.format", "changelog-file.format"] {
        if let Some(format) = text(key).filter(|format| !format.eq_ignore_ascii_case("parquet")) {
            return refuse(
                format!("{key} = {format:.64}"),
                "use parquet: set the option and let Java Paimon rewrite the data files",
            );
        }
    }
    if let Some(format) = text("manifest.format").filter(|format| !format.eq_ignore_ascii_case("avro")) {
        return refuse(
            format!("manifest.format = {format:.64}"),
            "use avro, the default: manifests are read and written as Avro",
        );
    }
    if let Some(formats) = text("file.format.per.level") {
        let is_parquet =
            |pair: &str| pair.split_once(':').is_some_and(|(_, format)| format.trim().eq_ignore_ascii_case("parquet"));
        if !formats.split(',').all(is_parquet) {
            return refuse(format!("file.format.per.level = {formats:.64}"), "use parquet at every level");
        }
    }
    if let Some(kind) = text("type").filter(|kind| !kind.eq_ignore_ascii_case("table")) {
        return refuse(
            format!("type = {kind:.64}"),
            "use the table through Java Paimon: only type = table is a Paimon table here",
        );
    }
    if let Some(branch) = text("branch").filter(|branch| *branch != "main") {
        return refuse(format!("branch = {branch:.64}"), "use the main branch");
    }
    let scope = For::WriteAndCompact;
    let sizes = [
        ("target-file-size", options.files.target_size, "a size such as `128 mb`"),
        ("manifest.target-file-size", options.manifests.target_size, "a size such as `8 mb`"),
    ];
    if let Some((key, _, size)) = sizes.into_iter().find(|(_, size, _)| *size == 0 && scope.includes(purpose)) {
        return refuse(format!("{key} = 0"), &format!("no file has so few bytes: set it to {size}"));
    }
    if let Some(mode) = text("write.sequence-number-init-mode")
        .filter(|mode| mode.eq_ignore_ascii_case("snapshot") && scope.includes(purpose))
    {
        return refuse(format!("write.sequence-number-init-mode = {mode}"), LEAVE_TO_JAVA);
    }
    let by_compaction =
        matches!(options.changelog_producer, ChangelogProducer::Lookup | ChangelogProducer::FullCompaction);
    if by_compaction && purpose == Purpose::Compact {
        // Lifting level-0 files without writing the changelog would lose these changes for every stream reader.
        return refuse(
            format!("changelog-producer = {}", text("changelog-producer").unwrap_or_default()),
            COMPACT_ELSEWHERE,
        );
    }
    Ok(())
}

/// What works but should be known.
pub(super) fn warnings(options: &BTreeMap<String, String>) -> Vec<String> {
    let set = |prefix: &str| {
        options.iter().any(|(key, value)| key.starts_with(prefix) && !value.eq_ignore_ascii_case("disabled"))
    };
    let mut out = Vec::new();
    if set("metadata.iceberg.storage") {
        out.push(
            "metadata.iceberg.*: Siltstone writes no Iceberg metadata, so it goes stale until a Java writer commits"
                .to_owned(),
        );
    }
    if set("record-level.expire-time") {
        out.push(
            "record-level.expire-time: Siltstone's compaction keeps expired rows; a Java compaction drops them"
                .to_owned(),
        );
    }
    if set("full-compaction.delta-commits") {
        out.push(
            "full-compaction.delta-commits: Siltstone does not count commits; compaction.optimization-interval makes full compactions \
             regular, and `silt compact --full` makes one"
                .to_owned(),
        );
    }
    if options.keys().any(|key| key.starts_with("file-index.")) {
        out.push(
            "file-index.*: Siltstone writes no file indexes; filters read rewritten files without them".to_owned(),
        );
    }
    out
}
