//! Index manifests: which index files a snapshot refers to (paimon-format.md section 11).
//!
//! Below: `codec`, `layout`, `avro`. Neighbours: `commit` carries the name of an index manifest over; expiry and sweep must know what
//! it keeps alive. Read only: Siltstone makes no index files. Invariant: 1. a file that any entry names counts as referred to.

use super::{
    codec::{Damage, read_rows, row_fields},
    layout::{Known, Shape, Step, plan},
};
use crate::{
    avro::{
        container::Reader,
        cursor::{Cursor, Fault},
    },
    error::Result,
};

/// An index file that a snapshot refers to: a hash index of a bucket, or a bucket's deletion vectors.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IndexFile {
    /// `HASH` or `DELETION_VECTORS`.
    pub index_type: String,
    /// Name in the directory `index/`, unless `external_path` is set.
    pub file_name: String,
    /// Exact size in bytes.
    pub file_size: i64,
    /// Full path, where the file is not in the table's directory.
    pub external_path: Option<String>,
}

#[derive(Debug, Clone, Copy)]
enum Tag {
    IndexType,
    FileName,
    FileSize,
    ExternalPath,
}

const fn known(name: &'static str, tag: Tag, shape: Shape, required: bool) -> Known<Tag> {
    Known { name, tag, shape, required }
}

const INDEX_FIELDS: [Known<Tag>; 4] = [
    known("_INDEX_TYPE", Tag::IndexType, Shape::Bytes, true),
    known("_FILE_NAME", Tag::FileName, Shape::Bytes, true),
    known("_FILE_SIZE", Tag::FileSize, Shape::Number, true),
    known("_EXTERNAL_PATH", Tag::ExternalPath, Shape::Bytes, false),
];

/// Reads the files that an index manifest names. `object` is its key, for messages.
///
/// # Errors
/// Corrupt names row and field; Unsupported an unknown codec.
pub fn decode_index_manifest(object: &str, bytes: &[u8]) -> Result<Vec<IndexFile>> {
    let reader = Reader::new(object, bytes)?;
    let schema = reader.schema().clone();
    let (fields, wrapped) = row_fields(object, &schema)?;
    let steps = plan(object, fields, &INDEX_FIELDS)?;
    read_rows(object, reader, wrapped, |cursor| read_file(cursor, &steps))
}

fn read_file(cursor: &mut Cursor<'_>, steps: &[Step<'_, Tag>]) -> std::result::Result<IndexFile, Damage> {
    let at = |field: &'static str| move |fault: Fault| Damage { field, fault };
    let (mut index_type, mut file_name, mut file_size, mut external_path) = (None, None, None, None);
    for step in steps {
        match step {
            Step::Skip(schema) => cursor.skip(schema).map_err(at("an unknown field"))?,
            Step::Read { name, nullable: true, .. } if !cursor.present().map_err(at(name))? => {}
            Step::Read { tag, name, .. } => match tag {
                Tag::IndexType => index_type = Some(cursor.string().map_err(at(name))?.to_owned()),
                Tag::FileName => file_name = Some(cursor.string().map_err(at(name))?.to_owned()),
                Tag::FileSize => file_size = Some(cursor.long().map_err(at(name))?),
                Tag::ExternalPath => external_path = Some(cursor.string().map_err(at(name))?.to_owned()),
            },
        }
    }
    match (index_type, file_name, file_size) {
        (Some(index_type), Some(file_name), Some(file_size @ 0..))
            if !file_name.is_empty() && !file_name.contains('/') =>
        {
            Ok(IndexFile { index_type, file_name, file_size, external_path })
        }
        _ => Err(Damage { field: "row", fault: "the file's name, type or size is missing or impossible" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        avro::{
            Compression,
            container::Writer,
            cursor::{put_array, put_bytes, put_long, put_optional},
        },
        data_file::StoredRow,
    };

    /// The fields of paimon-format.md section 11, in Java's order.
    const JAVA: &str = r#"{"type":"record","name":"record","namespace":"org.apache.paimon.avro.generated","fields":[{"name":"_VERSION","type":"int"},
        {"name":"_KIND","type":"int"},{"name":"_PARTITION","type":"bytes"},{"name":"_BUCKET","type":"int"},{"name":"_INDEX_TYPE","type":"string"},
        {"name":"_FILE_NAME","type":"string"},{"name":"_FILE_SIZE","type":"long"},{"name":"_ROW_COUNT","type":"long"},
        {"name":"_DELETIONS_VECTORS_RANGES","type":["null",{"type":"array","items":["null",{"type":"record","name":"record__DV","fields":[
        {"name":"f0","type":"string"},{"name":"f1","type":"int"},{"name":"f2","type":"int"},{"name":"_CARDINALITY","type":["null","long"]}]}]}]},
        {"name":"_EXTERNAL_PATH","type":["null","string"]}]}"#;

    fn file(name: &str) -> Vec<u8> {
        let mut writer = Writer::new(JAVA, Compression::Zstandard);
        writer
            .row(|out| {
                put_long(out, 1);
                put_long(out, 0);
                put_bytes(out, &StoredRow::empty().to_prefixed());
                put_long(out, 3);
                put_bytes(out, b"DELETION_VECTORS");
                put_bytes(out, name.as_bytes());
                put_long(out, 33);
                put_long(out, 1);
                put_optional(out, Some(["data-0.parquet"]), |out, names| {
                    put_array(out, &names, |out, name| {
                        put_optional(out, Some(name), |out, name| {
                            put_bytes(out, name.as_bytes());
                            put_long(out, 1);
                            put_long(out, 24);
                            put_optional(out, Some(2), put_long);
                        });
                    });
                });
                put_optional(out, None, |out, path: &str| put_bytes(out, path.as_bytes()));
            })
            .unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn index_files_are_read_past_their_ranges() {
        let files = decode_index_manifest("i", &file("index-a-0")).unwrap();
        let expected = IndexFile {
            index_type: "DELETION_VECTORS".into(),
            file_name: "index-a-0".into(),
            file_size: 33,
            external_path: None,
        };
        assert_eq!(files, [expected]);
        assert!(decode_index_manifest("i", &file("a/b")).is_err());
        for end in 0..file("i").len() {
            assert!(decode_index_manifest("i", &file("i")[..end]).map_or(true, |files| files.is_empty()));
        }
    }
}
