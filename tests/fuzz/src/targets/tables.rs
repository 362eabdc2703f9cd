//! The metadata of a table: snapshots and tags, schemas, manifest lists, manifests, index manifests, hints, consumers, keys of objects.
//!
//! Below: `format`, `lsm`. Invariant: 1. of a schema that is taken everything that is built from schemas must be taken or refused, too.

use std::sync::Arc;

use siltstone_decode::{Decoder, DecoderConfig};
use siltstone_format::{
    manifest::{decode_index_manifest, decode_manifest, decode_manifest_list, encode_manifest, encode_manifest_list},
    options::{Purpose, TableOptions},
    path::{TableLocation, parse_hint, parse_schema_name, parse_snapshot_name},
    schema::TableSchema,
    snapshot::{Snapshot, consumer_position},
    stats::ColumnRanges,
};
use siltstone_lsm::layout::FileLayout;

use super::{Memory, Outcome, Target, always, survives, texts_of};
use crate::{
    corpus::Corpus,
    mutate::{Shape, container, unpacked, varint},
};

/// A tree of JSON values takes some hundred bytes for "[]," or "0,".
pub(super) const JSON: Memory = Memory { per_byte: 400, constant: 64 << 10 };
/// Rows as they stand, twice, and the form they are written in.
const AVRO: Memory = Memory { per_byte: 400, constant: 1 << 20 };
const TEXT: Memory = Memory { per_byte: 100, constant: 16 << 10 };

const SNAPSHOT_WORDS: &[&str] = &[
    "version",
    "uuid",
    "id",
    "schemaId",
    "baseManifestList",
    "baseManifestListSize",
    "deltaManifestList",
    "deltaManifestListSize",
    "changelogManifestList",
    "changelogManifestListSize",
    "indexManifest",
    "commitUser",
    "commitIdentifier",
    "commitKind",
    "timeMillis",
    "totalRecordCount",
    "deltaRecordCount",
    "changelogRecordCount",
    "watermark",
    "statistics",
    "properties",
    "nextRowId",
    "logOffsets",
    "tagCreateTime",
    "tagTimeRetained",
    "APPEND",
    "COMPACT",
    "OVERWRITE",
    "ANALYZE",
    "null",
    "../",
    "siltstone.checkpoints",
];

const SCHEMA_WORDS: &[&str] = &[
    "version",
    "id",
    "fields",
    "name",
    "type",
    "description",
    "defaultValue",
    "highestFieldId",
    "partitionKeys",
    "primaryKeys",
    "options",
    "comment",
    "timeMillis",
    "element",
    "key",
    "value",
    "ARRAY",
    "MAP",
    "MULTISET",
    "ROW",
    "ARRAY NOT NULL",
    "ROW NOT NULL",
    "INT",
    "BIGINT NOT NULL",
    "STRING",
    "DECIMAL(10, 2)",
    "DECIMAL(38, 38)",
    "TIMESTAMP(9)",
    "TIMESTAMP(3) WITH LOCAL TIME ZONE",
    "TIME(3)",
    "CHAR(5)",
    "VARBINARY(9)",
    "VARIANT",
    "BLOB",
    "bucket",
    "bucket-key",
    "sequence.field",
    "rowkind.field",
    "merge-engine",
    "_KEY_id",
    "_SEQUENCE_NUMBER",
    "_VALUE_KIND",
];

const AVRO_WORDS: &[&str] = &[
    "Obj\u{1}",
    "avro.schema",
    "avro.codec",
    "null",
    "deflate",
    "zstandard",
    "snappy",
    "record",
    "array",
    "bytes",
    "string",
    "long",
    "int",
    "boolean",
    "double",
    "fixed",
    "enum",
    "map",
    "items",
    "fields",
    "name",
    "type",
    "symbols",
    "size",
    "values",
    "default",
    "_VERSION",
    "_KIND",
    "_PARTITION",
    "_BUCKET",
    "_TOTAL_BUCKETS",
    "_FILE",
    "_FILE_NAME",
    "_FILE_SIZE",
    "_NUM_ADDED_FILES",
    "_NUM_DELETED_FILES",
    "_PARTITION_STATS",
    "_SCHEMA_ID",
    "_MIN_VALUES",
    "_MAX_VALUES",
    "_NULL_COUNTS",
    "_ROW_COUNT",
    "_MIN_KEY",
    "_MAX_KEY",
    "_KEY_STATS",
    "_VALUE_STATS",
    "_LEVEL",
    "_EXTRA_FILES",
    "_CREATION_TIME",
    "_DELETE_ROW_COUNT",
    "_EMBEDDED_FILE_INDEX",
    "_FILE_SOURCE",
    "_VALUE_STATS_COLS",
    "_EXTERNAL_PATH",
    "_FIRST_ROW_ID",
    "_WRITE_COLS",
    "_MIN_BUCKET",
    "_MAX_LEVEL",
    "_INDEX_TYPE",
    "HASH",
    "DELETION_VECTORS",
    "[\"null\",\"long\"]",
];

pub(super) fn targets(corpus: &Corpus) -> Vec<Target> {
    let target = |name, shape, words, memory, seeds, run| Target { name, shape, words, memory, seeds, run };
    let numbered =
        |name: &str, start: &str| name.strip_prefix(start).is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()));
    let snapshots = corpus.named(|name| numbered(name, "snapshot-") || name.starts_with("tag-"));
    let avro = |files: Vec<Vec<u8>>| {
        let opened: Vec<Vec<u8>> = files.iter().filter_map(|bytes| unpacked(bytes)).collect();
        [opened, files].concat()
    };
    let manifests = corpus.named(|name| name.starts_with("manifest-") && !name.starts_with("manifest-list-"));
    let indexes = corpus.named(|name| name.starts_with("index-manifest-"));
    let consumers = texts_of(&["{\"nextSnapshot\": 7, \"x\": 1}", "{\"nextSnapshot\":9223372036854775807}"]);
    vec![
        target("snapshot", Shape::Json, SNAPSHOT_WORDS, JSON, snapshots, Box::new(snapshot)),
        target(
            "schema",
            Shape::Json,
            SCHEMA_WORDS,
            // Options, layouts and decoders are made from it: some kilobytes a column.
            Memory { per_byte: 2_000, constant: 1 << 20 },
            corpus.named(|name| numbered(name, "schema-")),
            Box::new(schema),
        ),
        target(
            "manifest-list",
            Shape::Avro,
            AVRO_WORDS,
            AVRO,
            avro(corpus.named(|name| name.starts_with("manifest-list-"))),
            Box::new(|bytes| {
                survives(
                    decode_manifest_list("list", bytes),
                    |v| encode_manifest_list(v),
                    |b| decode_manifest_list("list", b),
                )
            }),
        ),
        target("manifest", Shape::Avro, AVRO_WORDS, AVRO, avro(manifests), Box::new(manifest)),
        target(
            "index-manifest",
            Shape::Avro,
            AVRO_WORDS,
            AVRO,
            [vec![index_manifest()], avro(indexes)].concat(),
            Box::new(|bytes| decode_index_manifest("index", bytes).map_or(Outcome::Refused, |_| Outcome::Taken)),
        ),
        target(
            "hint",
            Shape::Bytes,
            &["snapshot-", "schema-", "\n", "0", "9223372036854775807", "007"],
            TEXT,
            [
                corpus.named(|name| name == "LATEST" || name == "EARLIEST"),
                texts_of(&["7", " 12\n", "snapshot-3", "schema-0"]),
            ]
            .concat(),
            Box::new(hint),
        ),
        target(
            "consumer",
            Shape::Json,
            &["nextSnapshot"],
            JSON,
            consumers,
            Box::new(|bytes| consumer_position("c", bytes).map_or(Outcome::Refused, |_| Outcome::Taken)),
        ),
        target(
            "object-key",
            Shape::Bytes,
            &[
                "snapshot/",
                "schema/",
                "manifest/",
                "bucket-",
                "bucket-postpone",
                "tag/tag-",
                "index/",
                "branch/",
                "=",
                "/",
                "data",
                "w/db.db/t/",
            ],
            TEXT,
            texts_of(&[
                "w/db.db/t/snapshot/snapshot-1",
                "w/db.db/t/dt=2024-01-01/region=a%2Fb/bucket-3/data-0.parquet",
                "w/db.db/t/manifest/manifest-list-a-0",
                "w/db.db/t/manifest/index-manifest-a-0",
                "w/db.db/t/data/bucket-postpone/data-0.parquet",
                "w/db.db/t/tag/tag-v1",
                "w/db.db/t/schema/schema-12",
            ]),
            Box::new(object_key),
        ),
    ]
}

/// An index manifest as Java lays it out: a hash index, and a deletion vector with its ranges. No golden table has one: they are refused.
fn index_manifest() -> Vec<u8> {
    const SCHEMA: &str = r#"{"type":"record","name":"record","namespace":"org.apache.paimon.avro.generated","fields":[{"name":"_VERSION","type":"int"},
        {"name":"_KIND","type":"int"},{"name":"_PARTITION","type":"bytes"},{"name":"_BUCKET","type":"int"},{"name":"_INDEX_TYPE","type":"string"},
        {"name":"_FILE_NAME","type":"string"},{"name":"_FILE_SIZE","type":"long"},{"name":"_ROW_COUNT","type":"long"},
        {"name":"_DELETIONS_VECTORS_RANGES","type":["null",{"type":"array","items":["null",{"type":"record","name":"record__DV","fields":[
        {"name":"f0","type":"string"},{"name":"f1","type":"int"},{"name":"f2","type":"int"},{"name":"_CARDINALITY","type":["null","long"]}]}]}]},
        {"name":"_EXTERNAL_PATH","type":["null","string"]}]}"#;
    let text = |text: &str| [varint(text.len() as i64), text.as_bytes().to_vec()].concat();
    let start = |kind: &str| {
        [varint(1), varint(0), varint(12), vec![0; 12], varint(3), text(kind), text("index-a-0"), varint(33), varint(1)]
            .concat()
    };
    let range = [varint(1), text("data-0.parquet"), varint(1), varint(24), varint(1), varint(2)].concat();
    let ranges = [varint(1), varint(1), range, varint(0)].concat();
    let path = [varint(1), text("s3://b/index-a-0")].concat();
    let body = [start("HASH"), varint(0), varint(0), start("DELETION_VECTORS"), ranges, path].concat();
    container(SCHEMA, 2, body)
}

fn snapshot(bytes: &[u8]) -> Outcome {
    survives(Snapshot::from_json("s", bytes), always(Snapshot::to_json), |b| Snapshot::from_json("s", b))
}

fn schema(bytes: &[u8]) -> Outcome {
    let first = TableSchema::from_json("s", bytes);
    if let Ok(schema) = &first {
        build_from(schema);
    }
    survives(first, always(TableSchema::to_json), |b| TableSchema::from_json("s", b))
}

/// Everything that is made of a schema before a row is read.
pub(super) fn build_from(schema: &TableSchema) {
    for purpose in [Purpose::Read, Purpose::Write, Purpose::Compact, Purpose::Expire] {
        let _ = TableOptions::for_purpose(schema, purpose);
    }
    if let Ok(options) = TableOptions::from_schema(schema) {
        let _ = (options.bucketer(schema), options.partition_paths(schema), options.fixed_buckets());
        for level in [-1, 0, 5, i32::MAX] {
            let _ = options.compression_at(level);
            for field in &schema.fields {
                let _ = options.stats_mode(&field.name, level);
            }
        }
    }
    let _ = (schema.refuse_unportable_partitions(), schema.is_cross_partition(), schema.trimmed_primary_key());
    let _ = FileLayout::new(Arc::new(schema.clone()));
    let _ = Decoder::new(schema, &DecoderConfig::default());
}

fn manifest(bytes: &[u8]) -> Outcome {
    let first = decode_manifest("m", bytes);
    if let Ok(entries) = &first {
        let mut identities: Vec<_> = entries.iter().map(siltstone_format::manifest::ManifestEntry::identity).collect();
        identities.dedup();
        for entry in entries {
            // Statistics of unknown columns: whatever their bytes are, taking them in must end in an error or not.
            let _ = ColumnRanges::new(&[]).add_stats("m", &entry.file.value_stats, entry.file.row_count);
        }
    }
    survives(first, |v| encode_manifest(v), |b| decode_manifest("m", b))
}

fn hint(bytes: &[u8]) -> Outcome {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let snapshot = parse_snapshot_name(text).is_some_and(|id| format!("snapshot-{id}") != text);
        let schema = parse_schema_name(text).is_some_and(|id| format!("schema-{id}") != text);
        if snapshot || schema {
            return Outcome::Broken("two names for one object".to_owned());
        }
    }
    let first = parse_hint(bytes).ok_or(());
    survives(first, always(|id: &siltstone_format::id::SnapshotId| id.to_string().into_bytes()), |b| {
        parse_hint(b).ok_or(())
    })
}

fn object_key(bytes: &[u8]) -> Outcome {
    let Ok(text) = std::str::from_utf8(bytes) else { return Outcome::Refused };
    let _ = TableLocation::new(text);
    let Ok(location) = TableLocation::new("w/db.db/t") else { return Outcome::Broken("no such table".to_owned()) };
    let (plain, inside) = (location.parse(None, text), location.parse(Some("data"), text));
    if plain == siltstone_format::path::ObjectName::Other && inside == plain {
        Outcome::Refused
    } else {
        Outcome::Taken
    }
}
