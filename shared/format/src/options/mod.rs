//! A table's options, typed, with Paimon's defaults (paimon-format.md section 14).
//!
//! Below: `groups` (by use), `text` (sizes, durations, enums), `kinds` (enums), `refuse` (what is not done here),
//! `names` (what is known). Neighbours: `schema` holds the strings.
//! Invariants: 1. an option of section 14 is honoured (a test shows what it does), refused by its name for the purposes it matters to,
//! warned of, or listed with the reason why nothing here depends on it; 2. a value of an honoured option that does not parse is refused,
//! never replaced by the default; 3. unknown keys are let through: users and engines have
//! options of their own (`names` finds them, for whoever sets one).

mod groups;
mod kinds;
pub mod names;
mod refuse;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;

pub use self::{
    groups::{CommitOptions, CompactionOptions, ExpiryOptions, FileOptions, ManifestOptions, OffPeak},
    kinds::{BucketMode, ChangelogProducer, FileCompression, MergeEngine, StatsMode},
    refuse::Purpose,
};
use self::{kinds::Named, text::OptionReader};
use crate::{
    bucket::{BucketFunction, Bucketer},
    error::{FormatError, Result},
    path::{DEFAULT_PARTITION_NAME, PartitionPaths},
    schema::TableSchema,
    types::TypeKind,
};

/// Options of a table that Siltstone acts on. Each field's doc names its key; defaults are Paimon's.
#[derive(Debug, Clone, PartialEq)]
pub struct TableOptions {
    /// `bucket`
    pub bucket: BucketMode,
    /// `bucket-function.type`; `None` for `hive`, which is refused for writing.
    pub bucket_function: Option<BucketFunction>,
    /// `merge-engine`
    pub merge_engine: MergeEngine,
    /// `sequence.field`
    pub sequence_fields: Vec<String>,
    /// `sequence.field.sort-order` = descending
    pub sequence_descending: bool,
    /// `ignore-delete` and its old names
    pub ignore_delete: bool,
    /// `ignore-update-before`
    pub ignore_update_before: bool,
    /// `rowkind.field`
    pub rowkind_field: Option<String>,
    /// `changelog-producer`
    pub changelog_producer: ChangelogProducer,
    /// `write-only`: no compaction and no expiry by writers.
    pub write_only: bool,
    /// Names, formats and sizes of data files.
    pub files: FileOptions,
    /// What compaction is told.
    pub compaction: CompactionOptions,
    /// What manifests are told.
    pub manifests: ManifestOptions,
    /// What commits are told.
    pub commit: CommitOptions,
    /// What expiry keeps.
    pub expiry: ExpiryOptions,
    /// Things that work but whose owner should know, for people.
    pub warnings: Vec<String>,
    partition_default_name: String,
    partition_legacy_name: bool,
    field_stats_modes: BTreeMap<String, StatsMode>,
}

impl TableOptions {
    /// Reads all options of a schema. Nothing is refused yet because of what is done with the table: see [`TableOptions::check`].
    ///
    /// # Errors
    /// Invalid for a value that does not parse, Unsupported for an unknown value of an enum option; both by option name.
    pub fn from_schema(schema: &TableSchema) -> Result<Self> {
        let o = OptionReader::new(&schema.options);
        let options = Self {
            bucket: BucketMode::read(&o)?,
            bucket_function: kinds::bucket_function(&o)?,
            merge_engine: o.named("merge-engine", MergeEngine::Deduplicate)?,
            sequence_fields: o.list("sequence.field"),
            sequence_descending: kinds::is_descending(&o)?,
            ignore_delete: ignore_delete(&o)?,
            ignore_update_before: o.bool("ignore-update-before", false)?,
            rowkind_field: o.text("rowkind.field").map(str::to_owned),
            changelog_producer: o.named("changelog-producer", ChangelogProducer::None)?,
            write_only: o.bool("write-only", false)?,
            files: FileOptions::read(&o)?,
            compaction: CompactionOptions::read(&o)?,
            manifests: ManifestOptions::read(&o)?,
            commit: CommitOptions::read(&o)?,
            expiry: ExpiryOptions::read(&o)?,
            warnings: refuse::warnings(&schema.options),
            partition_default_name: o.text("partition.default-name").unwrap_or(DEFAULT_PARTITION_NAME).to_owned(),
            partition_legacy_name: o.bool("partition.legacy-name", true)?,
            field_stats_modes: field_stats_modes(&schema.options)?,
        };
        options.check_columns(schema)?;
        Ok(options)
    }

    /// [`TableOptions::from_schema`] and [`TableOptions::check`] in one.
    ///
    /// # Errors
    /// As both.
    pub fn for_purpose(schema: &TableSchema, purpose: Purpose) -> Result<Self> {
        let options = Self::from_schema(schema)?;
        options.check(schema, purpose)?;
        Ok(options)
    }

    /// Refuses what is not done here for this purpose, by option name and with what to do.
    ///
    /// # Errors
    /// Unsupported with the first such option.
    pub fn check(&self, schema: &TableSchema, purpose: Purpose) -> Result<()> {
        refuse::check(self, schema, purpose)
    }

    fn check_columns(&self, schema: &TableSchema) -> Result<()> {
        schema.bucket_key_indices()?;
        for name in &self.sequence_fields {
            let fault = |detail: &str| Err(FormatError::invalid(format!("sequence.field column `{name}`"), detail));
            match schema.field(name) {
                None => return fault("no column has this name"),
                Some(field) if field.data_type.is_nested() => {
                    return fault("ARRAY, MAP, MULTISET and ROW have no order");
                }
                Some(_) if self.sequence_fields.iter().filter(|n| *n == name).count() > 1 => {
                    return fault("stands twice");
                }
                Some(_) => {}
            }
        }
        if let Some(name) = &self.rowkind_field {
            let is_text = |kind: &TypeKind| matches!(kind, TypeKind::Char(_) | TypeKind::VarChar(_));
            if !schema.field(name).is_some_and(|field| is_text(&field.data_type.kind)) {
                return Err(FormatError::invalid(
                    format!("rowkind.field = {name}"),
                    "must be a STRING column of the table",
                ));
            }
        }
        Ok(())
    }

    /// The fixed number of buckets.
    ///
    /// # Errors
    /// Unsupported on tables with dynamic or postponed buckets.
    pub fn fixed_buckets(&self) -> Result<i32> {
        match self.bucket {
            BucketMode::Fixed(buckets) => Ok(buckets),
            BucketMode::Dynamic | BucketMode::Postpone => {
                Err(FormatError::unsupported(format!("bucket = {}", self.bucket.number()), refuse::FIXED_BUCKETS))
            }
        }
    }

    /// Finds buckets for this table's rows.
    ///
    /// # Errors
    /// Unsupported without a fixed number of buckets or with `bucket-function.type` = hive; Invalid for an impossible bucket key.
    pub fn bucketer(&self, schema: &TableSchema) -> Result<Bucketer> {
        let function = self.bucket_function.ok_or_else(refuse::hive)?;
        Bucketer::new(schema.types_at(&schema.bucket_key_indices()?), function, self.fixed_buckets()?)
    }

    /// Makes partition directories for this table.
    #[must_use]
    pub fn partition_paths(&self, schema: &TableSchema) -> PartitionPaths {
        PartitionPaths::new(schema, &self.partition_default_name, self.partition_legacy_name)
    }

    /// Names partitions for people: days and times as such, where the directories of `partition.legacy-name` have numbers.
    #[must_use]
    pub fn partition_words(&self, schema: &TableSchema) -> PartitionPaths {
        PartitionPaths::new(schema, &self.partition_default_name, false)
    }

    /// Compression of a data file at a level.
    #[must_use]
    pub fn compression_at(&self, level: i32) -> FileCompression {
        self.files.compression_per_level.get(&level).copied().unwrap_or(self.files.compression)
    }

    /// Statistics mode of a column in a file at a level: `fields.<column>.stats-mode`, the level's mode, `metadata.stats-mode`.
    #[must_use]
    pub fn stats_mode(&self, column: &str, level: i32) -> StatsMode {
        let mode = self.field_stats_modes.get(column).or_else(|| self.files.stats_mode_per_level.get(&level));
        mode.copied().unwrap_or(self.files.stats_mode)
    }
}

/// Whether this table's deletes are no deletes (`ignore-delete`): writers leave them out, and readers pass over those that another
/// writer stored.
///
/// # Errors
/// Invalid for a value that is no boolean.
pub fn ignores_deletes(schema: &TableSchema) -> Result<bool> {
    ignore_delete(&OptionReader::new(&schema.options))
}

fn ignore_delete(o: &OptionReader<'_>) -> Result<bool> {
    const OLD: [&str; 4] =
        ["ignore-delete", "first-row.ignore-delete", "deduplicate.ignore-delete", "partial-update.ignore-delete"];
    // The first name that is set decides, as with Paimon's fallback keys.
    OLD.iter().find(|name| o.text(name).is_some()).map_or(Ok(false), |name| o.bool(name, false))
}

fn field_stats_modes(options: &BTreeMap<String, String>) -> Result<BTreeMap<String, StatsMode>> {
    let named = options.iter().filter_map(|(key, value)| {
        let column = key.strip_prefix("fields.")?.strip_suffix(".stats-mode")?;
        Some((key, column, value))
    });
    named.map(|(key, column, value)| Ok((column.to_owned(), StatsMode::parse(key, value)?))).collect()
}
