//! The Avro schemas that are written, and what is read of a file that another writer laid out (paimon-format.md sections 4 and 5).
//!
//! Above: `entry` and `list`. Invariants: 1. written schemas are Java's, field for field; 2. a plan names each known field once and
//! skips the others by the writer's schema; 3. a field of another shape than the format's is damage, never guessed.

use crate::{
    avro::{cursor::Cursor, schema::Schema},
    error::{FormatError, Result},
};

macro_rules! stats_schema {
    ($name:literal) => {
        concat!(
            r#"{"type":"record","name":""#,
            $name,
            r#"","fields":[{"name":"_MIN_VALUES","type":"bytes"},{"name":"_MAX_VALUES","type":"bytes"},"#,
            r#"{"name":"_NULL_COUNTS","type":["null",{"type":"array","items":["null","long"]}],"default":null}]}"#
        )
    };
}

/// Schema of a written manifest.
pub(super) const MANIFEST_SCHEMA: &str = concat!(
    r#"{"type":"record","name":"record","namespace":"org.apache.paimon.avro.generated","fields":["#,
    r#"{"name":"_VERSION","type":"int"},{"name":"_KIND","type":"int"},{"name":"_PARTITION","type":"bytes"},"#,
    r#"{"name":"_BUCKET","type":"int"},{"name":"_TOTAL_BUCKETS","type":"int"},"#,
    r#"{"name":"_FILE","type":{"type":"record","name":"record__FILE","fields":["#,
    r#"{"name":"_FILE_NAME","type":"string"},{"name":"_FILE_SIZE","type":"long"},{"name":"_ROW_COUNT","type":"long"},"#,
    r#"{"name":"_MIN_KEY","type":"bytes"},{"name":"_MAX_KEY","type":"bytes"},"#,
    r#"{"name":"_KEY_STATS","type":"#,
    stats_schema!("record__FILE__KEY_STATS"),
    r#"},{"name":"_VALUE_STATS","type":"#,
    stats_schema!("record__FILE__VALUE_STATS"),
    r#"},{"name":"_MIN_SEQUENCE_NUMBER","type":"long"},{"name":"_MAX_SEQUENCE_NUMBER","type":"long"},"#,
    r#"{"name":"_SCHEMA_ID","type":"long"},{"name":"_LEVEL","type":"int"},"#,
    r#"{"name":"_EXTRA_FILES","type":{"type":"array","items":"string"}},"#,
    r#"{"name":"_CREATION_TIME","type":["null",{"type":"long","logicalType":"timestamp-millis"}],"default":null},"#,
    r#"{"name":"_DELETE_ROW_COUNT","type":["null","long"],"default":null},"#,
    r#"{"name":"_EMBEDDED_FILE_INDEX","type":["null","bytes"],"default":null},"#,
    r#"{"name":"_FILE_SOURCE","type":["null","int"],"default":null},"#,
    r#"{"name":"_VALUE_STATS_COLS","type":["null",{"type":"array","items":"string"}],"default":null},"#,
    r#"{"name":"_EXTERNAL_PATH","type":["null","string"],"default":null},"#,
    r#"{"name":"_FIRST_ROW_ID","type":["null","long"],"default":null},"#,
    r#"{"name":"_WRITE_COLS","type":["null",{"type":"array","items":"string"}],"default":null}"#,
    r#"]}}]}"#
);

/// Schema of a written manifest list.
pub(super) const LIST_SCHEMA: &str = concat!(
    r#"{"type":"record","name":"record","namespace":"org.apache.paimon.avro.generated","fields":["#,
    r#"{"name":"_VERSION","type":"int"},{"name":"_FILE_NAME","type":"string"},{"name":"_FILE_SIZE","type":"long"},"#,
    r#"{"name":"_NUM_ADDED_FILES","type":"long"},{"name":"_NUM_DELETED_FILES","type":"long"},"#,
    r#"{"name":"_PARTITION_STATS","type":"#,
    stats_schema!("record__PARTITION_STATS"),
    r#"},{"name":"_SCHEMA_ID","type":"long"},"#,
    r#"{"name":"_MIN_BUCKET","type":["null","int"],"default":null},{"name":"_MAX_BUCKET","type":["null","int"],"default":null},"#,
    r#"{"name":"_MIN_LEVEL","type":["null","int"],"default":null},{"name":"_MAX_LEVEL","type":["null","int"],"default":null},"#,
    r#"{"name":"_MIN_ROW_ID","type":["null","long"],"default":null},{"name":"_MAX_ROW_ID","type":["null","long"],"default":null}]}"#
);

/// What a known field must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Number,
    Bytes,
    Texts,
    Stats,
}

/// A field that is known: its name, a tag for the decoder, its shape, and whether old writers may leave it out.
pub(super) struct Known<T> {
    pub(super) name: &'static str,
    pub(super) tag: T,
    pub(super) shape: Shape,
    pub(super) required: bool,
}

/// What to do with one field of the writer's record, in the writer's order.
pub(super) enum Step<'s, T> {
    Read { tag: T, name: &'static str, nullable: bool, stats: Option<StatsPlan<'s>>, nullable_items: bool },
    Skip(&'s Schema),
}

/// Matches a writer's record with the known fields.
pub(super) fn plan<'s, T: Copy>(
    object: &str,
    fields: &'s [(String, Schema)],
    known: &[Known<T>],
) -> Result<Vec<Step<'s, T>>> {
    let fault =
        |name: &str, detail: &str| FormatError::corrupt(object, format!("its Avro schema: field {name} {detail}"));
    for wanted in known {
        match fields.iter().filter(|(name, _)| name == wanted.name).count() {
            0 if wanted.required => return Err(fault(wanted.name, "is missing")),
            0 | 1 => {}
            _ => return Err(fault(wanted.name, "stands twice")),
        }
    }
    let step = |(name, schema): &'s (String, Schema)| {
        let Some(field) = known.iter().find(|field| field.name == name) else { return Ok(Step::Skip(schema)) };
        let (value, nullable) = schema.optional().ok_or_else(|| fault(name, "is a union other than [\"null\", T]"))?;
        let (mut stats, mut nullable_items) = (None, false);
        let fits = match (field.shape, value) {
            (Shape::Number, Schema::Number) | (Shape::Bytes, Schema::Bytes) => true,
            (Shape::Texts, Schema::Array(items)) => {
                let (item, nullable) = items.optional().ok_or_else(|| fault(name, "has items of an unknown union"))?;
                nullable_items = nullable;
                *item == Schema::Bytes
            }
            (Shape::Stats, Schema::Record(fields)) => {
                stats = Some(StatsPlan::new(object, fields)?);
                true
            }
            _ => false,
        };
        if !fits {
            return Err(fault(name, "has another type than Paimon's"));
        }
        Ok(Step::Read { tag: field.tag, name: field.name, nullable, stats, nullable_items })
    };
    fields.iter().map(step).collect()
}

#[derive(Clone, Copy)]
pub(super) enum StatsField {
    Min,
    Max,
    NullCounts,
}

/// How a writer lays out statistics.
pub(super) struct StatsPlan<'s> {
    pub(super) steps: Vec<StatsStep<'s>>,
}

pub(super) enum StatsStep<'s> {
    Read { field: StatsField, nullable: bool, nullable_items: bool },
    Skip(&'s Schema),
}

impl<'s> StatsPlan<'s> {
    fn new(object: &str, fields: &'s [(String, Schema)]) -> Result<Self> {
        let fault = |name: &str, detail: &str| {
            FormatError::corrupt(object, format!("its Avro schema: statistics field {name} {detail}"))
        };
        for name in ["_MIN_VALUES", "_MAX_VALUES", "_NULL_COUNTS"] {
            if fields.iter().filter(|(n, _)| n == name).count() != 1 {
                return Err(fault(name, "must stand there once"));
            }
        }
        let step = |(name, schema): &'s (String, Schema)| {
            let field = match name.as_str() {
                "_MIN_VALUES" => StatsField::Min,
                "_MAX_VALUES" => StatsField::Max,
                "_NULL_COUNTS" => StatsField::NullCounts,
                _ => return Ok(StatsStep::Skip(schema)),
            };
            let (value, nullable) =
                schema.optional().ok_or_else(|| fault(name, "is a union other than [\"null\", T]"))?;
            match (field, value) {
                (StatsField::NullCounts, Schema::Array(items)) => match items.optional() {
                    Some((Schema::Number, nullable_items)) => Ok(StatsStep::Read { field, nullable, nullable_items }),
                    _ => Err(fault(name, "has items of another type than Paimon's")),
                },
                (StatsField::Min | StatsField::Max, Schema::Bytes) if !nullable => {
                    Ok(StatsStep::Read { field, nullable, nullable_items: false })
                }
                _ => Err(fault(name, "has another type than Paimon's")),
            }
        };
        Ok(Self { steps: fields.iter().map(step).collect::<Result<_>>()? })
    }
}

/// An array of strings.
pub(super) fn read_texts(
    cursor: &mut Cursor<'_>,
    nullable_items: bool,
) -> std::result::Result<Vec<String>, &'static str> {
    let mut out = Vec::new();
    cursor.array(|cursor| {
        if nullable_items && !cursor.present()? {
            return Err("a list of names holds a null");
        }
        out.push(cursor.string()?.to_owned());
        Ok(())
    })?;
    Ok(out)
}
