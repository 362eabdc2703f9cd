//! An opened table: where it is, what it looks like, and its current state.
//!
//! Neighbours: every use-case starts with [`Table::open`]; `state` reads snapshots and live files, `driver` runs protocols.
//! Invariants: 1. the schema in use is the newest one on S3: another engine changes it without telling the pointer; 2. options that Siltstone does not honour are refused for the
//! purpose at hand before anything is read or written; 3. what is opened under a pointer is one life of the table: commits into another are refused.

use std::sync::Arc;

use siltstone_commit::{
    context::{Authority, TableContext},
    io::ItemName,
    pointer::{PROPERTY_SCHEMA, PROPERTY_TABLE, Pointer},
};
use siltstone_format::{
    bucket::Bucketer,
    data_file::StoredRow,
    id::{Bucket, SchemaId, SnapshotId},
    options::{Purpose, TableOptions},
    path::{PartitionPaths, TableLocation},
    schema::TableSchema,
    snapshot::Snapshot,
    value::Value,
};
use siltstone_lsm::layout::FileLayout;
use siltstone_store::object::{ObjectErrorKind, list_all};

use crate::{
    driver::to_record,
    error::{Result, TableError},
    name::TableRef,
    ports::Ports,
    state,
};

/// Which state of a table is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Version {
    /// The newest.
    #[default]
    Current,
    /// That of a snapshot.
    Snapshot(SnapshotId),
    /// That of a tag.
    Tag(String),
}

impl From<Option<i64>> for Version {
    fn from(id: Option<i64>) -> Self {
        id.map_or(Self::Current, |id| Self::Snapshot(SnapshotId(id)))
    }
}

/// An opened table. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Table {
    /// The outside.
    pub ports: Ports,
    /// Name and warehouse.
    pub at: TableRef,
    /// Object keys.
    pub location: TableLocation,
    /// Latest schema.
    pub schema: Arc<TableSchema>,
    /// Its options, typed.
    pub options: Arc<TableOptions>,
    /// Shape of data files written now.
    pub layout: FileLayout,
    /// For the protocols.
    pub context: TableContext,
    /// The table, over all its lives, where a pointer says it.
    uuid: Option<String>,
    paths: Arc<PartitionPaths>,
}

impl Table {
    /// Opens a table for a purpose.
    ///
    /// # Errors
    /// [`TableError::NotFound`] without a table; [`TableError::Format`] for a damaged schema or an option that must be refused.
    pub async fn open(ports: &Ports, at: &TableRef, authority: Authority, purpose: Purpose) -> Result<Self> {
        let location = TableLocation::new(&at.location())?;
        let pointer = match authority {
            Authority::Pointer => Some(load_pointer(ports, at, &location).await?.0),
            Authority::Bare => None,
        };
        let schema_id = match &pointer {
            Some(pointer) => newest_schema(ports, &location, pointer.schema_id).await?,
            None => latest_schema_id(ports, at, &location).await?,
        };
        Self::build(ports, at, (authority, purpose), schema_id, pointer).await
    }

    /// Opens a table whose latest schema id is known.
    ///
    /// # Errors
    /// As [`Table::open`].
    pub async fn with_schema(
        ports: &Ports,
        at: &TableRef,
        authority: Authority,
        purpose: Purpose,
        schema_id: SchemaId,
    ) -> Result<Self> {
        Self::build(ports, at, (authority, purpose), schema_id, None).await
    }

    async fn build(
        ports: &Ports,
        at: &TableRef,
        (authority, purpose): (Authority, Purpose),
        schema_id: SchemaId,
        pointer: Option<Pointer>,
    ) -> Result<Self> {
        let location = TableLocation::new(&at.location())?;
        let snapshot = pointer.as_ref().and_then(|p| p.snapshot.as_ref());
        let (schema, sum) = read_schema_and_sum(ports, &location, schema_id, snapshot).await?;
        let schema = Arc::new(schema);
        let options = Arc::new(TableOptions::for_purpose(&schema, purpose)?);
        let layout = FileLayout::new(schema.clone())?;
        let mut context = TableContext::new(location.clone(), schema.clone())?;
        (context.authority, context.schema_sum) = (authority, Some(sum));
        let paths = Arc::new(options.partition_paths(&schema));
        let (uuid, incarnation) = pointer.map(|p| (p.table_uuid, p.incarnation)).unzip();
        context.incarnation = incarnation;
        Ok(Self { ports: ports.clone(), at: at.clone(), location, schema, options, layout, context, uuid, paths })
    }

    /// The pointer as it is now.
    ///
    /// # Errors
    /// [`TableError::NotFound`] without a pointer.
    pub async fn pointer(&self) -> Result<Pointer> {
        Ok(load_pointer(&self.ports, &self.at, &self.location).await?.0)
    }

    /// The current snapshot, `None` for a table without commits: the pointer's, unless other engines have committed since (our next commit
    /// adopts that), or the newest of a bare warehouse.
    ///
    /// # Errors
    /// When pointer or snapshot cannot be read.
    pub async fn current(&self) -> Result<Option<Snapshot>> {
        match self.context.authority {
            Authority::Pointer => {
                let ours = self.pointer().await?.snapshot;
                let version = ours.as_ref().map_or(SnapshotId(0), |snapshot| snapshot.id);
                match state::newer_than(self, version).await? {
                    Some(theirs) => Ok(Some(theirs)),
                    None => Ok(ours),
                }
            }
            Authority::Bare => state::latest_snapshot(self).await,
        }
    }

    /// Whether the schema was changed since this table was opened.
    ///
    /// # Errors
    /// When S3 does not answer.
    pub async fn has_newer_schema(&self) -> Result<bool> {
        exists(&self.ports, &self.location.schema(SchemaId(self.schema.id.0 + 1))).await
    }

    /// The snapshot of a version; `None` for the current one of a table without commits.
    ///
    /// # Errors
    /// [`TableError::NotFound`] when the snapshot or tag asked for does not exist (never did, or expired).
    pub async fn snapshot(&self, version: &Version) -> Result<Option<Snapshot>> {
        match version {
            Version::Current => self.current().await,
            Version::Snapshot(id) => state::read_snapshot(self, *id).await.map(Some),
            Version::Tag(name) => state::read_tag(self, name).await.map(Some),
        }
    }

    /// This table with the columns that it had in a version, as other engines travel in time.
    ///
    /// # Errors
    /// As [`Table::snapshot`] and [`Table::open`].
    pub async fn as_of(&self, version: &Version) -> Result<Self> {
        if *version == Version::Current {
            return Ok(self.clone());
        }
        match self.snapshot(version).await? {
            Some(snapshot) if snapshot.schema_id != self.schema.id => {
                let then = (self.context.authority, Purpose::Read);
                let mut table = Self::build(&self.ports, &self.at, then, snapshot.schema_id, None).await?;
                table.uuid.clone_from(&self.uuid);
                table.context.incarnation.clone_from(&self.context.incarnation);
                Ok(table)
            }
            _ => Ok(self.clone()),
        }
    }

    /// Refuses a snapshot of another table, and one that this table's schema contradicts: ours say which table and schema they are of.
    pub(crate) fn check_snapshot(&self, key: &str, snapshot: &Snapshot) -> Result<()> {
        let said = snapshot.properties.as_ref().and_then(|p| p.get(PROPERTY_TABLE));
        if let (Some(said), Some(uuid)) = (said, &self.uuid)
            && said != uuid
        {
            return Err(TableError::Corrupt(format!(
                "{key} is a snapshot of another table (uuid {said:.40}, this one has {uuid}); run `silt check`"
            )));
        }
        if self.context.authority == Authority::Bare && snapshot.schema_id > self.schema.id {
            let schema = self.location.schema(snapshot.schema_id);
            return Err(TableError::NotFound(format!(
                "schema object {schema} is missing, and {key} was committed under it: restore the object"
            )));
        }
        let sum = self.context.schema_sum.filter(|_| self.schema.id == snapshot.schema_id);
        sum.map_or(Ok(()), |sum| check_schema(snapshot, &self.location, self.schema.id, sum))
    }

    /// Key of a data file.
    ///
    /// # Errors
    /// When the partition's values have no path.
    pub fn data_key(&self, partition: &[Value], bucket: Bucket, file_name: &str) -> Result<String> {
        let path = self.paths.path(partition)?;
        Ok(self.location.bucket_file(self.options.files.path_directory.as_deref(), &path, bucket, file_name))
    }

    /// Finds the bucket of a key.
    ///
    /// # Errors
    /// On tables without a fixed number of buckets.
    pub fn bucketer(&self) -> Result<Bucketer> {
        Ok(self.options.bucketer(&self.schema)?)
    }

    /// The fixed number of buckets, if the table has one.
    #[must_use]
    pub fn bucket_count(&self) -> Option<i32> {
        self.options.fixed_buckets().ok()
    }

    /// Whether compactions of this table are made here: not for a write-only table, nor where its options leave them to other engines.
    #[must_use]
    pub fn compacts_here(&self) -> bool {
        !self.options.write_only && self.options.check(&self.schema, Purpose::Compact).is_ok()
    }

    /// Path of a partition, `k=v/...`, empty without partition keys.
    ///
    /// # Errors
    /// When the partition's values have no path.
    pub fn partition_path(&self, partition: &[Value]) -> Result<String> {
        Ok(self.paths.path(partition)?)
    }

    /// The partition for people, as in `dt=2026-11-20/region=eu`; its directory may have `dt=20777` (`partition.legacy-name`).
    ///
    /// # Errors
    /// For values that no directory can be named by.
    pub fn partition_words(&self, partition: &[Value]) -> Result<String> {
        let words = self.options.partition_words(&self.schema).path(partition);
        // Times with a zone of their own have only the one text.
        Ok(words.or_else(|_| self.paths.path(partition))?.trim_end_matches('/').to_owned())
    }

    /// Values of a partition row.
    ///
    /// # Errors
    /// When the row is damaged.
    pub fn partition_values(&self, row: &StoredRow) -> Result<Vec<Value>> {
        let types = self.schema.types_at(&self.schema.partition_indices());
        Ok(siltstone_format::binary_row::decode_row("partition row of a manifest entry", row, &types)?)
    }
}

/// Reads and checks one schema.
///
/// # Errors
/// [`TableError::NotFound`] naming the object when it is missing.
pub async fn read_schema(ports: &Ports, location: &TableLocation, id: SchemaId) -> Result<TableSchema> {
    Ok(read_schema_and_sum(ports, location, id, None).await?.0)
}

/// Refuses a schema object whose bytes are not those that a snapshot of ours was committed under.
fn check_schema(snapshot: &Snapshot, location: &TableLocation, id: SchemaId, sum: u32) -> Result<()> {
    let said = snapshot.properties.as_ref().and_then(|p| p.get(PROPERTY_SCHEMA));
    match said {
        Some(said) if snapshot.schema_id == id && *said != format!("{sum:08x}") => {
            let (key, by) = (location.schema(id), location.snapshot(snapshot.id));
            Err(TableError::Corrupt(format!(
                "schema object {key} is damaged: it does not have the checksum that {by} was committed with; restore it from a backup"
            )))
        }
        _ => Ok(()),
    }
}

/// A schema, and the CRC-32 of its object, which a snapshot may vouch for.
pub(crate) async fn read_schema_and_sum(
    ports: &Ports,
    location: &TableLocation,
    id: SchemaId,
    snapshot: Option<&Snapshot>,
) -> Result<(TableSchema, u32)> {
    let key = location.schema(id);
    match ports.objects.get(&key).await {
        Ok(object) => {
            let sum = crc32fast::hash(&object.bytes);
            if let Some(snapshot) = snapshot {
                check_schema(snapshot, location, id, sum)?;
            }
            let schema = TableSchema::from_json(&key, &object.bytes).map_err(|error| match error.kind() {
                siltstone_format::ErrorKind::Corrupt => TableError::Format(error),
                _ => TableError::Invalid(format!("schema object {key}: {error}")),
            })?;
            Ok((schema, sum))
        }
        Err(error) if error.kind() == ObjectErrorKind::NotFound => Err(TableError::NotFound(format!(
            "schema object {key} is missing: the table cannot be read without it; restore the object or check the table name"
        ))),
        Err(error) => Err((*error).into()),
    }
}

/// The newest schema from one that exists: ids have no gaps.
async fn newest_schema(ports: &Ports, location: &TableLocation, known: SchemaId) -> Result<SchemaId> {
    let mut newest = known;
    loop {
        let next = SchemaId(newest.0 + 1);
        if !exists(ports, &location.schema(next)).await? {
            return Ok(newest);
        }
        newest = next;
    }
}

/// Whether an object is there.
pub(crate) async fn exists(ports: &Ports, key: &str) -> Result<bool> {
    match ports.objects.head(key).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ObjectErrorKind::NotFound => Ok(false),
        Err(error) => Err((*error).into()),
    }
}

async fn latest_schema_id(ports: &Ports, at: &TableRef, location: &TableLocation) -> Result<SchemaId> {
    let prefix = location.schema_prefix();
    let objects = list_all(ports.objects.as_ref(), &prefix).await.map_err(|e| *e)?;
    objects
        .iter()
        .filter_map(|o| o.key.rsplit('/').next().and_then(siltstone_format::path::parse_schema_name))
        .max()
        .ok_or_else(|| {
            TableError::NotFound(format!(
                "there is no table {} in warehouse {}/{} (no object {prefix}*)",
                at.name,
                ports.objects.bucket(),
                at.warehouse
            ))
        })
}

/// Which life of its name a table is: another one after it was dropped and created again.
///
/// # Errors
/// As [`load_pointer`].
pub async fn life_of(ports: &Ports, at: &TableRef) -> Result<String> {
    let location = TableLocation::new(&at.location())?;
    Ok(load_pointer(ports, at, &location).await?.0.table_uuid)
}

/// The pointer of a table, with the size of its item in bytes.
///
/// # Errors
/// [`TableError::NotFound`] without a pointer.
pub async fn load_pointer(ports: &Ports, at: &TableRef, location: &TableLocation) -> Result<(Pointer, usize)> {
    let item = ports.items.get(&at.partition(), &ItemName::Pointer.sort()).await?.ok_or_else(|| {
        TableError::NotFound(format!(
            "table {} has no pointer in {} (item {}): `silt table create` makes one, or `silt repair` where its objects are there \
             already",
            at.name,
            ports.items.table(),
            at.partition()
        ))
    })?;
    let size = item.size();
    Ok((Pointer::from_record(&to_record(item), location)?, size))
}
