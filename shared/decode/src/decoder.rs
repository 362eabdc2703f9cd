//! The decoder of a table: payload in, row changes out.
//!
//! Neighbours: `payload` unpacks bytes, `json` checks them, `plain` and `debezium` read messages, `mapping` makes rows, `guard` watches
//! partitions. Invariant: 1. what a payload decodes to depends on its bytes and the configuration alone.

use std::fmt;

use siltstone_format::{
    path::{DEFAULT_PARTITION_NAME, PartitionPaths},
    schema::TableSchema,
    types::DataType,
    value::Value,
};

use crate::{
    config::{ConfigFault, DecoderConfig, Format, TimeUnit},
    debezium,
    guard::BatchGuard,
    json::Node,
    mapping::Mapping,
    payload, plain,
    reject::Reject,
    time::Unit,
};

/// Kinds of a row change, with Paimon's byte values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i8)]
pub enum RowKind {
    /// +I
    Insert = 0,
    /// -U
    UpdateBefore = 1,
    /// +U
    UpdateAfter = 2,
    /// -D
    Delete = 3,
}

impl RowKind {
    /// The kind of a short name: `+I`, `-U`, `+U`, `-D` (Paimon's `rowkind.field`).
    #[must_use]
    pub fn from_short(text: &str) -> Option<Self> {
        match text {
            "+I" => Some(Self::Insert),
            "-U" => Some(Self::UpdateBefore),
            "+U" => Some(Self::UpdateAfter),
            "-D" => Some(Self::Delete),
            _ => None,
        }
    }
}

/// One change of one row.
#[derive(Debug, Clone, PartialEq)]
pub struct RowChange {
    /// Kind.
    pub kind: RowKind,
    /// Values in schema order.
    pub row: Vec<Value>,
}

/// Messages that say nothing about rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IgnoredKind {
    /// No payload, or JSON null: Debezium's marker after a delete.
    Tombstone,
    /// A connector's sign of life.
    Heartbeat,
    /// A change of the source's schema.
    SchemaChange,
    /// Begin or end of a source transaction.
    Transaction,
    /// The source table was truncated: counted, since the rows stay here.
    Truncate,
    /// A logical decoding message.
    LogicalMessage,
}

impl fmt::Display for IgnoredKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tombstone => "tombstone",
            Self::Heartbeat => "heartbeat",
            Self::SchemaChange => "schema-change",
            Self::Transaction => "transaction",
            Self::Truncate => "truncate",
            Self::LogicalMessage => "logical-message",
        })
    }
}

/// What a payload says.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded {
    /// Rows changed, in this order.
    Changes(Vec<RowChange>),
    /// Nothing to do.
    Ignored(IgnoredKind),
    /// The record is bad.
    Rejected(Reject),
}

/// A checked decoder. Keeps nothing between records.
#[derive(Debug, Clone)]
pub struct Decoder {
    pub(crate) config: DecoderConfig,
    pub(crate) mapping: Mapping,
    pub(crate) partitions: Vec<(usize, DataType, String)>,
    pub(crate) paths: PartitionPaths,
}

impl Decoder {
    /// A decoder of `config` for `schema`.
    ///
    /// # Errors
    /// All faults of the configuration together.
    pub fn new(schema: &TableSchema, config: &DecoderConfig) -> Result<Self, Vec<ConfigFault>> {
        let mapping = Mapping::new(schema, config)?;
        let partitions = schema
            .partition_keys
            .iter()
            .filter_map(|name| schema.fields.iter().position(|f| f.name == *name))
            .filter_map(|i| schema.fields.get(i).map(|f| (i, f.data_type.clone(), f.name.clone())))
            .collect();
        // Only the length of the paths is of interest, and that they exist: the table's own names for null and dates do not matter.
        let paths = PartitionPaths::new(schema, DEFAULT_PARTITION_NAME, true);
        Ok(Self { config: config.clone(), mapping, partitions, paths })
    }

    /// A guard for one batch, which decodes its records and watches which partitions they open.
    #[must_use]
    pub fn batch_guard(&self) -> BatchGuard<'_> {
        BatchGuard::new(self)
    }

    /// Decodes one payload.
    #[must_use]
    pub fn decode(&self, bytes: &[u8]) -> Decoded {
        self.read(bytes, self.config.max_record_bytes).decoded
    }

    /// Decodes one payload of at most `limit` bytes, and counts its bytes and the fields that no column reads.
    pub(crate) fn read(&self, bytes: &[u8], limit: usize) -> Read {
        if bytes.is_empty() {
            return Read::of(Decoded::Ignored(IgnoredKind::Tombstone));
        }
        match payload::unpack(bytes, limit) {
            Ok(unpacked) => {
                let read = self.parse(&unpacked).unwrap_or_else(|reject| Read::of(Decoded::Rejected(reject)));
                Read { bytes: unpacked.len(), ..read }
            }
            Err(reject) => Read::of(Decoded::Rejected(reject)),
        }
    }

    fn parse(&self, unpacked: &[u8]) -> Result<Read, Reject> {
        let root = Node::parse(unpacked)?;
        match self.config.format {
            Format::Json => plain::decode(self, root),
            Format::DebeziumJson => debezium::decode(self, root),
        }
    }

    /// The unit of numeric times that the configuration names.
    pub(crate) fn configured_unit(&self) -> Option<Unit> {
        self.config.timestamp_unit.map(|unit| match unit {
            TimeUnit::Seconds => Unit::Seconds,
            TimeUnit::Millis => Unit::Millis,
            TimeUnit::Micros => Unit::Micros,
            TimeUnit::Nanos => Unit::Nanos,
        })
    }
}

/// What a payload says, how many fields of its row no column reads, and how many bytes it unpacked to.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) decoded: Decoded,
    pub(crate) unread: u64,
    pub(crate) bytes: usize,
}

impl Read {
    pub(crate) const fn of(decoded: Decoded) -> Self {
        Self { decoded, unread: 0, bytes: 0 }
    }
}
