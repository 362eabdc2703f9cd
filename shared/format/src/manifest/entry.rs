//! Manifests: bytes to entries and back (paimon-format.md sections 4 and 5).
//!
//! Below: `codec`, `layout`, `avro`. Above: `commit` and the readers. Invariants: 1. the top-level fields are the six that Java checks,
//! in order and never null; 2. inside `_FILE` fields go by name, in any order, newer ones skipped and optional ones defaulted;
//! 3. `_VERSION` is 2; 4. what is read and written again has the same identity.

use std::sync::LazyLock;

use super::{
    FileKind, ManifestEntry,
    codec::{
        Damage, ENTRY_VERSION, put_row, put_stats, put_text, put_texts, read_row, read_rows, read_stats, row_fields,
    },
    layout::{Known, MANIFEST_SCHEMA, Shape, Step, plan, read_texts},
};
use crate::{
    avro::{
        Compression,
        container::{Reader, Writer, pack_block, unpack_block},
        cursor::{Cursor, Fault, put_bytes, put_long, put_optional},
        schema::Schema,
    },
    data_file::{DataFileMeta, FileSource, SimpleStats, StoredRow},
    error::{FormatError, Result},
    id::{Bucket, Level, SchemaId, SequenceNumber},
};

/// The top level of a manifest, as Java's reader insists on it.
const TOP_LEVEL: [&str; 6] = ["_VERSION", "_KIND", "_PARTITION", "_BUCKET", "_TOTAL_BUCKETS", "_FILE"];

#[derive(Debug, Clone, Copy)]
enum Tag {
    FileName,
    FileSize,
    RowCount,
    MinKey,
    MaxKey,
    KeyStats,
    ValueStats,
    MinSequence,
    MaxSequence,
    SchemaId,
    Level,
    ExtraFiles,
    CreationTime,
    DeleteRowCount,
    EmbeddedIndex,
    FileSource,
    ValueStatsCols,
    ExternalPath,
    FirstRowId,
    WriteCols,
}

const fn known(name: &'static str, tag: Tag, shape: Shape, required: bool) -> Known<Tag> {
    Known { name, tag, shape, required }
}

const FILE_FIELDS: [Known<Tag>; 20] = [
    known("_FILE_NAME", Tag::FileName, Shape::Bytes, true),
    known("_FILE_SIZE", Tag::FileSize, Shape::Number, true),
    known("_ROW_COUNT", Tag::RowCount, Shape::Number, true),
    known("_MIN_KEY", Tag::MinKey, Shape::Bytes, true),
    known("_MAX_KEY", Tag::MaxKey, Shape::Bytes, true),
    known("_KEY_STATS", Tag::KeyStats, Shape::Stats, true),
    known("_VALUE_STATS", Tag::ValueStats, Shape::Stats, true),
    known("_MIN_SEQUENCE_NUMBER", Tag::MinSequence, Shape::Number, true),
    known("_MAX_SEQUENCE_NUMBER", Tag::MaxSequence, Shape::Number, true),
    known("_SCHEMA_ID", Tag::SchemaId, Shape::Number, true),
    known("_LEVEL", Tag::Level, Shape::Number, true),
    known("_EXTRA_FILES", Tag::ExtraFiles, Shape::Texts, false),
    known("_CREATION_TIME", Tag::CreationTime, Shape::Number, false),
    known("_DELETE_ROW_COUNT", Tag::DeleteRowCount, Shape::Number, false),
    known("_EMBEDDED_FILE_INDEX", Tag::EmbeddedIndex, Shape::Bytes, false),
    known("_FILE_SOURCE", Tag::FileSource, Shape::Number, false),
    known("_VALUE_STATS_COLS", Tag::ValueStatsCols, Shape::Texts, false),
    known("_EXTERNAL_PATH", Tag::ExternalPath, Shape::Bytes, false),
    known("_FIRST_ROW_ID", Tag::FirstRowId, Shape::Number, false),
    known("_WRITE_COLS", Tag::WriteCols, Shape::Texts, false),
];

/// Reads a manifest. `object` is its key, for messages.
///
/// # Errors
/// Corrupt names row and field; Unsupported an unknown codec.
pub fn decode_manifest(object: &str, bytes: &[u8]) -> Result<Vec<ManifestEntry>> {
    let reader = Reader::new(object, bytes)?;
    let schema = reader.schema().clone();
    let (fields, wrapped) = row_fields(object, &schema)?;
    let steps = plan(object, check_top_level(object, fields)?, &FILE_FIELDS)?;
    read_rows(object, reader, wrapped, |cursor| read_entry(cursor, &steps))
}

/// Checks the six fields and gives those of `_FILE`.
fn check_top_level<'s>(object: &str, fields: &'s [(String, Schema)]) -> Result<&'s [(String, Schema)]> {
    let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
    if names != TOP_LEVEL {
        return Err(FormatError::corrupt(
            object,
            format!("its Avro schema has the fields {names:.200?} instead of {TOP_LEVEL:?}"),
        ));
    }
    let kinds: Vec<&Schema> = fields.iter().map(|(_, schema)| schema).collect();
    match kinds.as_slice() {
        [Schema::Number, Schema::Number, Schema::Bytes, Schema::Number, Schema::Number, Schema::Record(file)] => {
            Ok(file)
        }
        _ => Err(FormatError::corrupt(object, "its Avro schema has a top-level field of another type than Paimon's")),
    }
}

fn read_entry(cursor: &mut Cursor<'_>, steps: &[Step<'_, Tag>]) -> std::result::Result<ManifestEntry, Damage> {
    let at = |field: &'static str| move |fault: Fault| Damage { field, fault };
    if cursor.int().map_err(at("_VERSION"))? != ENTRY_VERSION {
        return Err(Damage { field: "_VERSION", fault: "is not 2" });
    }
    let kind = match cursor.int().map_err(at("_KIND"))? {
        0 => FileKind::Add,
        1 => FileKind::Delete,
        _ => return Err(Damage { field: "_KIND", fault: "is neither ADD nor DELETE" }),
    };
    let partition = cursor.bytes().and_then(read_row).map_err(at("_PARTITION"))?;
    let bucket = Bucket(cursor.int().map_err(at("_BUCKET"))?);
    let total_buckets = cursor.int().map_err(at("_TOTAL_BUCKETS"))?;
    let mut draft = Draft::default();
    for step in steps {
        match step {
            Step::Skip(schema) => cursor.skip(schema).map_err(at("an unknown field"))?,
            Step::Read { name, nullable: true, .. } if !cursor.present().map_err(at(name))? => {}
            Step::Read { tag, name, stats, nullable_items, .. } => {
                let stats = match stats {
                    Some(plan) => Some(read_stats(cursor, plan).map_err(at(name))?),
                    None => None,
                };
                draft.read(cursor, *tag, stats, *nullable_items).map_err(at(name))?;
            }
        }
    }
    let file = draft.finish().map_err(at("_FILE"))?;
    Ok(ManifestEntry { kind, partition, bucket, total_buckets, file })
}

/// A file's description while its fields arrive in the writer's order.
#[derive(Default)]
struct Draft {
    file_name: Option<String>,
    file_size: Option<i64>,
    row_count: Option<i64>,
    min_key: Option<StoredRow>,
    max_key: Option<StoredRow>,
    key_stats: Option<SimpleStats>,
    value_stats: Option<SimpleStats>,
    min_sequence: Option<i64>,
    max_sequence: Option<i64>,
    schema_id: Option<i64>,
    level: Option<i32>,
    extra_files: Vec<String>,
    creation_time_ms: Option<i64>,
    delete_row_count: Option<i64>,
    embedded_index: Option<Vec<u8>>,
    file_source: Option<FileSource>,
    value_stats_cols: Option<Vec<String>>,
    external_path: Option<String>,
    first_row_id: Option<i64>,
    write_cols: Option<Vec<String>>,
}

impl Draft {
    fn read(
        &mut self,
        c: &mut Cursor<'_>,
        tag: Tag,
        stats: Option<SimpleStats>,
        nullable_items: bool,
    ) -> std::result::Result<(), Fault> {
        match tag {
            Tag::FileName => self.file_name = Some(c.string()?.to_owned()),
            Tag::FileSize => self.file_size = Some(c.long()?),
            Tag::RowCount => self.row_count = Some(c.long()?),
            Tag::MinKey => self.min_key = Some(read_row(c.bytes()?)?),
            Tag::MaxKey => self.max_key = Some(read_row(c.bytes()?)?),
            Tag::KeyStats => self.key_stats = stats,
            Tag::ValueStats => self.value_stats = stats,
            Tag::MinSequence => self.min_sequence = Some(c.long()?),
            Tag::MaxSequence => self.max_sequence = Some(c.long()?),
            Tag::SchemaId => self.schema_id = Some(c.long()?),
            Tag::Level => self.level = Some(c.int()?),
            Tag::ExtraFiles => self.extra_files = read_texts(c, nullable_items)?,
            Tag::CreationTime => self.creation_time_ms = Some(c.long()?),
            Tag::DeleteRowCount => self.delete_row_count = Some(c.long()?),
            Tag::EmbeddedIndex => self.embedded_index = Some(c.bytes()?.to_vec()),
            Tag::FileSource => self.file_source = Some(file_source(c.int()?)?),
            Tag::ValueStatsCols => self.value_stats_cols = Some(read_texts(c, nullable_items)?),
            Tag::ExternalPath => self.external_path = Some(c.string()?.to_owned()),
            Tag::FirstRowId => self.first_row_id = Some(c.long()?),
            Tag::WriteCols => self.write_cols = Some(read_texts(c, nullable_items)?),
        }
        Ok(())
    }

    fn finish(self) -> std::result::Result<DataFileMeta, Fault> {
        const NULL: Fault = "a field that is never null is null";
        let file = DataFileMeta {
            file_name: self.file_name.ok_or(NULL)?,
            file_size: self.file_size.ok_or(NULL)?,
            row_count: self.row_count.ok_or(NULL)?,
            min_key: self.min_key.ok_or(NULL)?,
            max_key: self.max_key.ok_or(NULL)?,
            key_stats: self.key_stats.ok_or(NULL)?,
            value_stats: self.value_stats.ok_or(NULL)?,
            min_sequence_number: SequenceNumber(self.min_sequence.ok_or(NULL)?),
            max_sequence_number: SequenceNumber(self.max_sequence.ok_or(NULL)?),
            schema_id: SchemaId(self.schema_id.ok_or(NULL)?),
            level: Level(self.level.ok_or(NULL)?),
            extra_files: self.extra_files,
            creation_time_ms: self.creation_time_ms,
            delete_row_count: self.delete_row_count,
            embedded_index: self.embedded_index,
            file_source: self.file_source,
            value_stats_cols: self.value_stats_cols,
            external_path: self.external_path,
            first_row_id: self.first_row_id,
            write_cols: self.write_cols,
        };
        check(&file)?;
        Ok(file)
    }
}

const fn file_source(number: i32) -> std::result::Result<FileSource, Fault> {
    match number {
        0 => Ok(FileSource::Append),
        1 => Ok(FileSource::Compact),
        _ => Err("is neither APPEND nor COMPACT"),
    }
}

/// What every reader of a file relies on. A name with a slash would lead out of the bucket's directory.
fn check(file: &DataFileMeta) -> std::result::Result<(), Fault> {
    let is_name = |name: &String| !name.is_empty() && !name.contains('/');
    if !is_name(&file.file_name) || !file.extra_files.iter().all(is_name) {
        return Err("a file name is empty or holds a slash");
    }
    if file.file_size < 0 || file.row_count < 0 || file.delete_row_count.is_some_and(|count| count < 0) {
        return Err("a size or count is negative");
    }
    if file.level.0 < 0 || file.schema_id.0 < 0 {
        return Err("the level or schema id is negative");
    }
    Ok(())
}

/// Writes a manifest: entries in the order given (a DELETE before the ADD of the same file), zstandard, sealed without name.
///
/// # Errors
/// Invalid when a file's description breaks a rule that readers rely on.
pub fn encode_manifest<'e>(entries: impl IntoIterator<Item = &'e ManifestEntry>) -> Result<Vec<u8>> {
    encode_manifest_with(entries, Compression::Zstandard, "")
}

/// [`encode_manifest`] with the compression of option `manifest.compression`, for an object of this `name` (without path): under another one it
/// is refused.
///
/// # Errors
/// As [`encode_manifest`].
pub fn encode_manifest_with<'e>(
    entries: impl IntoIterator<Item = &'e ManifestEntry>,
    compression: Compression,
    name: &str,
) -> Result<Vec<u8>> {
    let mut writer = Writer::new(MANIFEST_SCHEMA, compression);
    for entry in entries {
        check(&entry.file)
            .map_err(|fault| FormatError::invalid(format!("data file {:.100}", entry.file.file_name), fault))?;
        writer.row(|out| put_entry(out, entry))?;
    }
    writer.finish_as(name)
}

/// The layout of packed entries, parsed once: a fold opens thousands of them.
static PACK_SCHEMA: LazyLock<std::result::Result<Schema, String>> =
    LazyLock::new(|| Schema::parse(MANIFEST_SCHEMA.as_bytes()));
/// First byte of [`pack_entries`]: another layout gets another one.
const PACK_VERSION: u8 = 1;

/// Packs entries without the file around them, whose header alone has 3 KB: for an item that carries a few. Only builds of Siltstone read it.
///
/// # Errors
/// As [`encode_manifest`].
pub fn pack_entries<'e>(entries: impl IntoIterator<Item = &'e ManifestEntry>) -> Result<Vec<u8>> {
    let (mut rows, mut count) = (Vec::new(), 0_usize);
    for entry in entries {
        check(&entry.file)
            .map_err(|fault| FormatError::invalid(format!("data file {:.100}", entry.file.file_name), fault))?;
        put_entry(&mut rows, entry);
        count += 1;
    }
    let mut out = vec![PACK_VERSION];
    put_long(&mut out, count as i64);
    out.extend_from_slice(&pack_block(&rows)?);
    Ok(out)
}

/// Reads what [`pack_entries`] made. `object` is what holds it, for messages.
///
/// # Errors
/// Corrupt, also for entries packed by a build with another layout.
pub fn unpack_entries(object: &str, bytes: &[u8]) -> Result<Vec<ManifestEntry>> {
    let fault = |detail: String| FormatError::corrupt(object, detail);
    let Some((&PACK_VERSION, rest)) = bytes.split_first() else {
        return Err(fault("packed entries of an unknown version".to_owned()));
    };
    let mut cursor = Cursor::new(rest);
    let count = cursor.long().map_err(|e| fault(format!("packed entries: {e}")))?;
    let rows = unpack_block(object, cursor.rest())?;
    let count = usize::try_from(count).ok().filter(|count| *count <= rows.len());
    let count = count.ok_or_else(|| fault(format!("{} bytes of packed entries claim other rows", rows.len())))?;
    let schema = PACK_SCHEMA.as_ref().map_err(|e| fault(e.clone()))?;
    let (fields, _) = row_fields(object, schema)?;
    let steps = plan(object, check_top_level(object, fields)?, &FILE_FIELDS)?;
    let mut cursor = Cursor::new(&rows);
    let entries: Vec<ManifestEntry> = (0..count)
        .map(|row| read_entry(&mut cursor, &steps).map_err(|d| fault(format!("row {row}, {}: {}", d.field, d.fault))))
        .collect::<Result<_>>()?;
    if cursor.is_empty() { Ok(entries) } else { Err(fault("bytes are left over behind the last entry".to_owned())) }
}

fn put_entry(out: &mut Vec<u8>, entry: &ManifestEntry) {
    put_long(out, i64::from(ENTRY_VERSION));
    put_long(out, i64::from(entry.kind == FileKind::Delete));
    put_row(out, &entry.partition);
    put_long(out, i64::from(entry.bucket.0));
    put_long(out, i64::from(entry.total_buckets));
    let file = &entry.file;
    put_text(out, &file.file_name);
    put_long(out, file.file_size);
    put_long(out, file.row_count);
    put_row(out, &file.min_key);
    put_row(out, &file.max_key);
    put_stats(out, &file.key_stats);
    put_stats(out, &file.value_stats);
    put_long(out, file.min_sequence_number.0);
    put_long(out, file.max_sequence_number.0);
    put_long(out, file.schema_id.0);
    put_long(out, i64::from(file.level.0));
    put_texts(out, &file.extra_files);
    put_optional(out, file.creation_time_ms, put_long);
    put_optional(out, file.delete_row_count, put_long);
    put_optional(out, file.embedded_index.as_deref(), put_bytes);
    put_optional(out, file.file_source, |out, source| put_long(out, i64::from(source == FileSource::Compact)));
    put_optional(out, file.value_stats_cols.as_deref(), put_texts);
    put_optional(out, file.external_path.as_deref(), put_text);
    put_optional(out, file.first_row_id, put_long);
    put_optional(out, file.write_cols.as_deref(), put_texts);
}
