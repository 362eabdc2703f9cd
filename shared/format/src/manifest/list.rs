//! Manifest lists: bytes to rows and back (paimon-format.md section 4).
//!
//! Below: `codec`, `layout`, `avro`. Invariants: 1. fields go by name: lists of older and newer writers are read alike;
//! 2. counts and sizes are never negative: readers skip whole manifests by them.

use super::{
    ManifestFileMeta,
    codec::{Damage, ENTRY_VERSION, put_stats, put_text, read_rows, read_stats, row_fields},
    layout::{Known, LIST_SCHEMA, Shape, Step, plan},
};
use crate::{
    avro::{
        Compression,
        container::{Reader, Writer},
        cursor::{Cursor, Fault, put_long, put_optional},
    },
    data_file::SimpleStats,
    error::{FormatError, Result},
    id::{Bucket, Level, SchemaId},
};

#[derive(Debug, Clone, Copy)]
enum Tag {
    Version,
    FileName,
    FileSize,
    Added,
    Deleted,
    PartitionStats,
    SchemaId,
    MinBucket,
    MaxBucket,
    MinLevel,
    MaxLevel,
}

const fn known(name: &'static str, tag: Tag, shape: Shape, required: bool) -> Known<Tag> {
    Known { name, tag, shape, required }
}

const LIST_FIELDS: [Known<Tag>; 11] = [
    known("_VERSION", Tag::Version, Shape::Number, true),
    known("_FILE_NAME", Tag::FileName, Shape::Bytes, true),
    known("_FILE_SIZE", Tag::FileSize, Shape::Number, true),
    known("_NUM_ADDED_FILES", Tag::Added, Shape::Number, true),
    known("_NUM_DELETED_FILES", Tag::Deleted, Shape::Number, true),
    known("_PARTITION_STATS", Tag::PartitionStats, Shape::Stats, true),
    known("_SCHEMA_ID", Tag::SchemaId, Shape::Number, true),
    known("_MIN_BUCKET", Tag::MinBucket, Shape::Number, false),
    known("_MAX_BUCKET", Tag::MaxBucket, Shape::Number, false),
    known("_MIN_LEVEL", Tag::MinLevel, Shape::Number, false),
    known("_MAX_LEVEL", Tag::MaxLevel, Shape::Number, false),
];

/// Reads a manifest list. `object` is its key, for messages.
///
/// # Errors
/// Corrupt names row and field; Unsupported an unknown codec.
pub fn decode_manifest_list(object: &str, bytes: &[u8]) -> Result<Vec<ManifestFileMeta>> {
    let reader = Reader::new(object, bytes)?;
    let schema = reader.schema().clone();
    let (fields, wrapped) = row_fields(object, &schema)?;
    let steps = plan(object, fields, &LIST_FIELDS)?;
    read_rows(object, reader, wrapped, |cursor| read_meta(cursor, &steps))
}

#[derive(Default)]
struct Draft {
    version: Option<i32>,
    file_name: Option<String>,
    file_size: Option<i64>,
    added: Option<i64>,
    deleted: Option<i64>,
    stats: Option<SimpleStats>,
    schema_id: Option<i64>,
    buckets: (Option<i32>, Option<i32>),
    levels: (Option<i32>, Option<i32>),
}

fn read_meta(cursor: &mut Cursor<'_>, steps: &[Step<'_, Tag>]) -> std::result::Result<ManifestFileMeta, Damage> {
    let at = |field: &'static str| move |fault: Fault| Damage { field, fault };
    let mut draft = Draft::default();
    for step in steps {
        match step {
            Step::Skip(schema) => cursor.skip(schema).map_err(at("an unknown field"))?,
            Step::Read { name, nullable: true, .. } if !cursor.present().map_err(at(name))? => {}
            Step::Read { tag: Tag::PartitionStats, name, stats: Some(plan), .. } => {
                draft.stats = Some(read_stats(cursor, plan).map_err(at(name))?);
            }
            Step::Read { tag, name, .. } => draft.read(cursor, *tag).map_err(at(name))?,
        }
    }
    draft.finish().map_err(at("row"))
}

impl Draft {
    fn read(&mut self, c: &mut Cursor<'_>, tag: Tag) -> std::result::Result<(), Fault> {
        match tag {
            Tag::Version => self.version = Some(c.int()?),
            Tag::FileName => self.file_name = Some(c.string()?.to_owned()),
            Tag::FileSize => self.file_size = Some(c.long()?),
            Tag::Added => self.added = Some(c.long()?),
            Tag::Deleted => self.deleted = Some(c.long()?),
            Tag::SchemaId => self.schema_id = Some(c.long()?),
            Tag::MinBucket => self.buckets.0 = Some(c.int()?),
            Tag::MaxBucket => self.buckets.1 = Some(c.int()?),
            Tag::MinLevel => self.levels.0 = Some(c.int()?),
            Tag::MaxLevel => self.levels.1 = Some(c.int()?),
            Tag::PartitionStats => return Err("statistics without a plan"),
        }
        Ok(())
    }

    fn finish(self) -> std::result::Result<ManifestFileMeta, Fault> {
        const NULL: Fault = "a field that is never null is null";
        if self.version != Some(ENTRY_VERSION) {
            return Err("_VERSION is not 2");
        }
        let meta = ManifestFileMeta {
            file_name: self.file_name.ok_or(NULL)?,
            file_size: self.file_size.ok_or(NULL)?,
            num_added_files: self.added.ok_or(NULL)?,
            num_deleted_files: self.deleted.ok_or(NULL)?,
            partition_stats: self.stats.ok_or(NULL)?,
            schema_id: SchemaId(self.schema_id.ok_or(NULL)?),
            buckets: self.buckets.0.zip(self.buckets.1).map(|(a, b)| (Bucket(a), Bucket(b))),
            levels: self.levels.0.zip(self.levels.1).map(|(a, b)| (Level(a), Level(b))),
        };
        check(&meta)?;
        Ok(meta)
    }
}

fn check(meta: &ManifestFileMeta) -> std::result::Result<(), Fault> {
    if meta.file_name.is_empty() || meta.file_name.contains('/') {
        return Err("the file name is empty or holds a slash");
    }
    if meta.file_size < 0 || meta.num_added_files < 0 || meta.num_deleted_files < 0 || meta.schema_id.0 < 0 {
        return Err("a size, count or id is negative");
    }
    Ok(())
}

/// Writes a manifest list in the order given (older manifests first), zstandard, sealed without name.
///
/// # Errors
/// Invalid when a row breaks a rule that readers rely on.
pub fn encode_manifest_list<'m>(metas: impl IntoIterator<Item = &'m ManifestFileMeta>) -> Result<Vec<u8>> {
    encode_manifest_list_with(metas, Compression::Zstandard, "")
}

/// [`encode_manifest_list`] with the compression of option `manifest.compression`, for an object of this `name` (without path): under another
/// one it is refused.
///
/// # Errors
/// As [`encode_manifest_list`].
pub fn encode_manifest_list_with<'m>(
    metas: impl IntoIterator<Item = &'m ManifestFileMeta>,
    compression: Compression,
    name: &str,
) -> Result<Vec<u8>> {
    let mut writer = Writer::new(LIST_SCHEMA, compression);
    for meta in metas {
        check(meta).map_err(|fault| FormatError::invalid(format!("manifest {:.100}", meta.file_name), fault))?;
        writer.row(|out| put_meta(out, meta))?;
    }
    writer.finish_as(name)
}

fn put_meta(out: &mut Vec<u8>, meta: &ManifestFileMeta) {
    put_long(out, i64::from(ENTRY_VERSION));
    put_text(out, &meta.file_name);
    put_long(out, meta.file_size);
    put_long(out, meta.num_added_files);
    put_long(out, meta.num_deleted_files);
    put_stats(out, &meta.partition_stats);
    put_long(out, meta.schema_id.0);
    let numbers = [
        meta.buckets.map(|b| b.0.0),
        meta.buckets.map(|b| b.1.0),
        meta.levels.map(|l| l.0.0),
        meta.levels.map(|l| l.1.0),
    ];
    for number in numbers {
        put_optional(out, number.map(i64::from), put_long);
    }
    // _MIN_ROW_ID and _MAX_ROW_ID: null on primary-key tables.
    out.extend_from_slice(&[0, 0]);
}
