//! Tables of a warehouse: create, list, describe, drop.
//!
//! Neighbours: `silt table` and tests. A table exists once its pointer does; its schema object is put before (see `commit`).
//! Invariant: 1. whatever a drop leaves behind, `create` and `drop` say where it lies, and `drop` with `purge` removes it.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use siltstone_commit::{
    context::TableContext,
    error::CommitError,
    io::{ItemName, STAGE_PARTS, staged_suffix},
    pointer::{Pointer, TableState},
    protocol,
};
use siltstone_format::{
    options::{Purpose, TableOptions},
    path::TableLocation,
    schema::{Column, TableSchema},
    types::DataType,
};
use siltstone_store::{
    item::{Item, ItemCondition, query_all},
    object::list_all,
};

use crate::{
    driver::drive,
    error::{Result, TableError},
    name::{TableName, TableRef},
    ports::Ports,
    settings::Feed,
    table::{load_pointer, read_schema},
};

/// What a new table looks like.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NewTable {
    /// Columns: name and Paimon type text.
    pub columns: Vec<(String, String)>,
    /// Partition columns.
    pub partition_keys: Vec<String>,
    /// Primary key, partition columns included.
    pub primary_keys: Vec<String>,
    /// Options.
    pub options: BTreeMap<String, String>,
    /// Free text.
    pub comment: Option<String>,
}

impl NewTable {
    /// The schema of this table.
    ///
    /// # Errors
    /// Names the column, key or option that does not work.
    pub fn schema(&self, now_ms: i64) -> Result<TableSchema> {
        let columns = self
            .columns
            .iter()
            .map(|(name, text)| {
                let data_type = DataType::parse_sql(text)
                    .map_err(|e| TableError::invalid(format!("column {name}: `{text}` is not a type: {e}")))?;
                Ok(Column::new(name.clone(), data_type))
            })
            .collect::<Result<Vec<_>>>()?;
        let schema = TableSchema::create(
            columns,
            self.partition_keys.clone(),
            self.primary_keys.clone(),
            self.options.clone(),
            self.comment.clone(),
            now_ms,
        )?;
        TableOptions::for_purpose(&schema, Purpose::Write)?;
        Ok(schema)
    }
}

/// Creates a table. One of the same schema that has no feed and no snapshot yet is taken as an earlier run of this that stopped half-way.
///
/// # Errors
/// When it exists, or its schema does not work; nothing was created then.
pub async fn create(ports: &Ports, at: &TableRef, table: &NewTable) -> Result<Pointer> {
    let schema = table.schema(ports.clock.now_ms())?;
    let context = TableContext::new(TableLocation::new(&at.location())?, schema.clone().into())?;
    let created = drive(protocol::create(&context, None), ports, at).await;
    let Err(TableError::Commit(CommitError::TableExists { .. })) = &created else { return created };
    match unfinished(ports, at, &context.location, &schema).await {
        Some(pointer) => Ok(pointer),
        None => match left_behind(ports, at, &context.location).await? {
            Some(words) => Err(TableError::invalid(format!("{} cannot be created: {words}", at.name))),
            None => created,
        },
    }
}

/// What lies where a table without a pointer was, and what to do with it. `None` where there is a pointer, or nothing.
async fn left_behind(ports: &Ports, at: &TableRef, location: &TableLocation) -> Result<Option<String>> {
    match load_pointer(ports, at, location).await {
        Err(TableError::NotFound(_)) => {}
        Err(error) => return Err(error),
        Ok(_) => return Ok(None),
    }
    let (mut places, mut is_table) = (Vec::new(), false);
    for prefix in prefixes(at) {
        let page = ports.objects.list(&prefix, None, COUNTED).await.map_err(|e| *e)?;
        let count = page.objects.len();
        is_table |= page.objects.iter().any(|object| object.key.starts_with(&location.snapshot_prefix()));
        if count > 0 {
            let more = if page.more { "more than " } else { "" };
            places.push(format!("{more}{count} below {prefix}"));
        }
    }
    if places.is_empty() {
        return Ok(None);
    }
    let again = if is_table { format!(", `silt repair {}` makes them a table again", at.name) } else { String::new() };
    Ok(Some(format!(
        "there is no table {} in {}, but objects of one that was dropped or never finished lie there ({}): `silt table drop {} --purge` \
         deletes them{again}",
        at.name,
        ports.items.table(),
        places.join(", "),
        at.name
    )))
}

/// Objects that are counted to say how many lie somewhere: one request.
const COUNTED: usize = 1_000;

/// Where a table has objects.
fn prefixes(at: &TableRef) -> [String; 4] {
    [format!("{}/", at.location()), at.tasks(), at.quarantine(), at.replays()]
}

async fn unfinished(ports: &Ports, at: &TableRef, location: &TableLocation, schema: &TableSchema) -> Option<Pointer> {
    let (pointer, _) = load_pointer(ports, at, location).await.ok()?;
    let there = read_schema(ports, location, pointer.schema_id).await.ok()?;
    let same = TableSchema { time_millis: schema.time_millis, ..there } == *schema;
    let fed = !matches!(Feed::load(ports, at).await, Err(TableError::NotFound(_)));
    (same && !fed && pointer.snapshot.is_none()).then_some(pointer)
}

/// Names of the tables of a warehouse, from its schema objects; sorted.
///
/// # Errors
/// When listing fails.
pub async fn list(ports: &Ports, warehouse: &str) -> Result<Vec<TableName>> {
    let root = warehouse.trim_matches('/');
    let prefix = if root.is_empty() { String::new() } else { format!("{root}/") };
    let mut names = Vec::new();
    for database in ports.objects.list_dirs(&prefix).await.map_err(|e| *e)? {
        let Some(name) = last(&database).strip_suffix(".db") else { continue };
        for table in ports.objects.list_dirs(&database).await.map_err(|e| *e)? {
            let schema = ports.objects.list(&format!("{}/schema/schema-", table.trim_end_matches('/')), None, 1).await;
            if schema.map_err(|e| *e)?.objects.is_empty() {
                continue;
            }
            if let Ok(name) = format!("{name}.{}", last(&table)).parse() {
                names.push(name);
            }
        }
    }
    names.sort();
    Ok(names)
}

/// What a name of [`list`] stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// A table in this state.
    Table(TableState),
    /// Objects without a pointer: of a table that was dropped and not purged, or that never was under one.
    NoPointer,
    /// Its pointer is damaged, or of a newer build.
    Unreadable,
}

impl Standing {
    /// In one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Table(state) => state.as_str(),
            Self::NoPointer => "no-pointer",
            Self::Unreadable => "unreadable",
        }
    }
}

/// What each name stands for, in their order: a read of each one's pointer.
///
/// # Errors
/// When a service refuses or does not answer.
pub async fn standings(ports: &Ports, warehouse: &str, names: Vec<TableName>) -> Result<Vec<(TableName, Standing)>> {
    stream::iter(names)
        .map(|name| async move {
            let at = TableRef::new(warehouse, name);
            let location = TableLocation::new(&at.location())?;
            let standing = match load_pointer(ports, &at, &location).await {
                Ok((pointer, _)) => Standing::Table(pointer.state),
                Err(TableError::NotFound(_)) => Standing::NoPointer,
                // What the item says; a fault of the service is another kind of error.
                Err(TableError::Commit(_)) => Standing::Unreadable,
                Err(error) => return Err(error),
            };
            Ok((at.name, standing))
        })
        .buffered(POINTERS_AT_ONCE)
        .try_collect()
        .await
}

/// Pointers that are read at once.
const POINTERS_AT_ONCE: usize = 16;

fn last(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or(path)
}

async fn drop_items(ports: &Ports, items: Vec<Item>) -> Result<()> {
    for item in items {
        ports.items.delete(&item.partition, &item.sort, ItemCondition::None).await?;
    }
    Ok(())
}

/// Drops a table: its items, and with `purge` all of its objects. Returns how many objects went.
///
/// # Errors
/// When a service refuses or does not answer; repeating it goes on.
pub async fn drop(ports: &Ports, at: &TableRef, purge: bool) -> Result<u64> {
    let partition = at.partition();
    let items = query_all(ports.items.as_ref(), &partition, "").await?;
    // What cannot be listed is not half dropped.
    let mut keys = Vec::new();
    if purge {
        for prefix in prefixes(at) {
            keys.extend(list_all(ports.objects.as_ref(), &prefix).await.map_err(|e| *e)?.into_iter().map(|o| o.key));
        }
    }
    if items.is_empty() && keys.is_empty() {
        let location = TableLocation::new(&at.location())?;
        if let Some(words) = left_behind(ports, at, &location).await? {
            return Err(TableError::NotFound(words));
        }
        return Err(TableError::NotFound(format!("there is no table {} in {}", at.name, ports.items.table())));
    }
    // The pointer's partition goes last: while it is there, dropping again goes on.
    let beside = (0..STAGE_PARTS).map(staged_suffix).chain([ItemName::Lease.partition_suffix()]);
    for partition in beside.map(|suffix| at.partition() + &suffix) {
        drop_items(ports, query_all(ports.items.as_ref(), &partition, "").await?).await?;
    }
    drop_items(ports, items).await?;
    let gone = keys.len() as u64;
    if gone > 0 {
        ports.objects.delete(&keys).await.map_err(|e| *e)?;
    }
    Ok(gone)
}
