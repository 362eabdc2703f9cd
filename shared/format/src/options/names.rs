//! Names of options: which are known here, and what a mistyped one may have meant.
//!
//! Above: whoever makes tables. Neighbours: `refuse` (families that are refused), `tests` (what is done with each name).
//! Invariants: 1. known are exactly the names that the tests say something of, but for those that only tune other engines; 2. a table with
//! names that are not known is as good as any: only who sets an option anew is asked whether it is the name they meant.

use std::collections::BTreeMap;

use super::refuse::{REFUSED_FIELD_OPTIONS, REFUSED_PREFIXES};

/// Names that are honoured, refused, or taken though nothing here depends on them.
const KNOWN: &[&str] = &[
    "bucket",
    "bucket-function.type",
    "bucket-key",
    "branch",
    "chain-table.enabled",
    "changelog-file.compression",
    "changelog-file.format",
    "changelog-file.prefix",
    "changelog-producer",
    "changelog-producer.row-deduplicate",
    "changelog-producer.row-deduplicate-ignore-fields",
    "changelog.num-retained.max",
    "changelog.num-retained.min",
    "changelog.time-retained",
    "commit.discard-duplicate-files",
    "commit.force-create-snapshot",
    "commit.max-retries",
    "commit.max-retry-wait",
    "commit.min-retry-wait",
    "commit.timeout",
    "commit.user-prefix",
    "compaction.delete-ratio-threshold",
    "compaction.file-num-limit",
    "compaction.force-rewrite-all-files",
    "compaction.force-up-level-0",
    "compaction.incremental-size-threshold",
    "compaction.max-size-amplification-percent",
    "compaction.min.file-num",
    "compaction.offpeak-ratio",
    "compaction.offpeak.end.hour",
    "compaction.offpeak.start.hour",
    "compaction.optimization-interval",
    "compaction.size-ratio",
    "compaction.small-file-ratio",
    "compaction.total-size-threshold",
    "data-evolution.enabled",
    "data-file.path-directory",
    "data-file.prefix",
    "data-file.thin-mode",
    "deduplicate.ignore-delete",
    "deletion-vectors.bitmap64",
    "deletion-vectors.enabled",
    "deletion-vectors.merge-on-read",
    "deletion-vectors.modifiable",
    "file.compression",
    "file.compression.per.level",
    "file.compression.zstd-level",
    "file.format",
    "file.format.per.level",
    "file.suffix.include.compression",
    "first-row.ignore-delete",
    "force-lookup",
    "full-compaction.delta-commits",
    "ignore-delete",
    "ignore-update-before",
    "index-file-in-data-file-dir",
    "lookup-compact",
    "lookup-compact.max-interval",
    "lookup-wait",
    "manifest.compression",
    "manifest.delete-file-drop-stats",
    "manifest.format",
    "manifest.full-compaction-threshold-size",
    "manifest.merge-min-count",
    "manifest.target-file-size",
    "merge-engine",
    "metadata.stats-dense-store",
    "metadata.stats-keep-first-n-columns",
    "metadata.stats-mode",
    "metadata.stats-mode.per.level",
    "num-levels",
    "num-sorted-run.compaction-trigger",
    "num-sorted-run.stop-trigger",
    "partial-update.ignore-delete",
    "partition.default-name",
    "partition.legacy-name",
    "path",
    "pk-clustering-override",
    "primary-key.nullable",
    "query-auth.enabled",
    "record-level.expire-time",
    "record-level.time-field",
    "row-tracking.enabled",
    "rowkind.field",
    "sequence.field",
    "sequence.field.sort-order",
    "sequence.snapshot-ordering",
    "snapshot.clean-empty-directories",
    "snapshot.expire.limit",
    "snapshot.num-retained.max",
    "snapshot.num-retained.min",
    "snapshot.time-retained",
    "target-file-row-num",
    "target-file-size",
    "type",
    "write-only",
    "write.sequence-number-init-mode",
];

/// Options `fields.<column>.<this>`, besides those that are refused.
const KNOWN_FIELD_OPTIONS: [&str; 2] = ["stats-mode", "map-storage-layout"];

/// Families of which Siltstone does nothing and says so, besides those that are refused.
const KNOWN_PREFIXES: [&str; 2] = ["file-index.", "metadata.iceberg."];

fn field_options() -> impl Iterator<Item = &'static str> {
    REFUSED_FIELD_OPTIONS.into_iter().chain(KNOWN_FIELD_OPTIONS)
}

/// Column and option of a name `fields.<column>.<option>`; a column may hold dots.
fn field_option(name: &str) -> Option<(&str, &str)> {
    let rest = name.strip_prefix("fields.")?;
    Some(rest.rsplit_once('.').unwrap_or(("", rest)))
}

/// Whether an option of this name is honoured here, or refused, or known to change nothing.
#[must_use]
pub fn is_known(name: &str) -> bool {
    KNOWN.contains(&name)
        || REFUSED_PREFIXES.into_iter().chain(KNOWN_PREFIXES).any(|prefix| name.starts_with(prefix))
        || field_option(name).is_some_and(|(_, option)| field_options().any(|known| known == option))
}

/// All names that are written out here.
#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().copied()
}

/// The options of a table that are not known here: private ones, and those of other engines.
pub fn unknown(options: &BTreeMap<String, String>) -> impl Iterator<Item = &str> {
    options.keys().map(String::as_str).filter(|name| !is_known(name))
}

/// The known name that is nearest to one that is not known, if any is near.
#[must_use]
pub fn nearest(name: &str) -> Option<String> {
    let of_column = field_option(name).into_iter().flat_map(|(column, _)| {
        field_options().filter(move |_| !column.is_empty()).map(move |option| format!("fields.{column}.{option}"))
    });
    let candidates = KNOWN.iter().map(|known| (*known).to_owned()).chain(of_column);
    let plain = |text: &str| text.to_ascii_lowercase().replace('_', "-");
    let near = candidates.map(|known| (distance(&plain(name), &known), known)).min()?;
    // What shares less than that is another word.
    (near.0 <= (name.chars().count() / 3).max(1)).then_some(near.1)
}

/// Letters to add, to leave out, to change, or to swap with the next, that make one text of the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // Rows of the table for the last two letters of `a` and this one.
    let mut rows = [Vec::new(), (0..=b.len()).collect::<Vec<usize>>()];
    for (i, x) in a.iter().enumerate() {
        let [before, last] = rows;
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], place: usize| row.get(place).copied().unwrap_or(usize::MAX - 1);
            let mut least = (at(&last, j) + usize::from(x != y)).min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            if i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x) {
                least = least.min(at(&before, j - 1) + 1);
            }
            row.push(least);
        }
        rows = [last, row];
    }
    rows[1].last().copied().unwrap_or(0)
}
