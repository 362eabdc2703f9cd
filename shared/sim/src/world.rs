//! Everything outside of the processes: objects, items, streams and time, and who watches them.
//!
//! Neighbours: `ports` changes it, `run` moves its time. The stores are those of `store::memory`, the watcher is `commit`'s monitor over real data
//! files, and [`Oracle`]. Invariants: 1. every change that lasts is watched in the step in which it happens; 2. a broken invariant
//! is kept as the history's violation, the first one counts.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arrow::array::Array;
use bytes::Bytes;
use futures::FutureExt;
use siltstone_commit::{
    checkpoint::ShardId,
    context::{Incarnation, TableContext},
    io::{ItemName, ItemRecord},
    pointer::{Pointer, TableState},
    testing::{
        fixture::Row,
        monitor::{Monitor, View},
    },
};
use siltstone_format::{manifest::ManifestEntry, path::ObjectName, snapshot::Snapshot, value::Value};
use siltstone_lsm::{batch::is_retract, layout::FileLayout, reader, rows::value_at};
use siltstone_store::{
    clock::Clock,
    item::{Item, ItemCondition, ItemResult, ItemStore},
    memory::{ManualClock, MemoryItemStore, MemoryObjectStore, MemoryStreams},
    object::{ETag, ObjectResult, ObjectStore, PutMode, list_all},
};
use siltstone_table::{TableRef, driver::to_record};

use crate::oracle::{Oracle, SimRow};

/// A write that takes effect after its writer has given up waiting.
#[derive(Debug, Clone)]
pub enum Late {
    /// Of an object.
    Put {
        /// Its key.
        key: String,
        /// Its content.
        bytes: Bytes,
        /// Its condition.
        mode: PutMode,
    },
    /// Of objects.
    Delete(Vec<String>),
    /// Of an item.
    PutItem {
        /// What is written.
        item: Item,
        /// Its condition.
        condition: ItemCondition,
    },
}

/// The table that is simulated.
#[derive(Debug)]
pub struct Simulated {
    /// Name.
    pub at: TableRef,
    /// For protocols and the monitor.
    pub context: TableContext,
    /// Shape of its files.
    pub layout: FileLayout,
}

/// Clones share one world.
#[derive(Clone)]
pub struct World(Arc<Shared>);

struct Shared {
    clock: Arc<ManualClock>,
    objects: MemoryObjectStore,
    items: MemoryItemStore,
    streams: MemoryStreams,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    table: Option<Arc<Simulated>>,
    watch: Option<Watch>,
    late: Vec<Late>,
    tasks: Vec<String>,
    violation: Option<String>,
}

struct Watch {
    monitor: Monitor,
    oracle: Oracle,
    files: RefCell<BTreeMap<String, Arc<Vec<SimRow>>>>,
    /// A restored pointer has not caught up with our snapshots on S3: what it adopts of others meanwhile is not the whole table.
    behind: bool,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "World at {}", self.now_ms())
    }
}

/// What the monitor sees.
struct Sight<'a> {
    world: &'a Shared,
    table: &'a Simulated,
    files: &'a RefCell<BTreeMap<String, Arc<Vec<SimRow>>>>,
}

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("a store in memory never waits")
}

impl Sight<'_> {
    fn sim_rows(&self, entry: &ManifestEntry, body: &Bytes) -> Arc<Vec<SimRow>> {
        let name = &entry.file.file_name;
        if let Some(known) = self.files.borrow().get(name) {
            return known.clone();
        }
        let rows = Arc::new(read_rows(self.table, entry, body));
        self.files.borrow_mut().insert(name.clone(), rows.clone());
        rows
    }

    /// Rows of files of the table, which has no partitions.
    fn rows_of(&self, entries: &[ManifestEntry]) -> Vec<SimRow> {
        let mut rows = Vec::new();
        for entry in entries {
            let file = &entry.file.file_name;
            let key = self.table.context.location.bucket_file(None, "", entry.bucket, file);
            let Some(body) = self.object(&key) else { panic!("invariant 11: {key} is not there") };
            rows.extend_from_slice(&self.sim_rows(entry, &body));
        }
        rows
    }
}

fn read_rows(table: &Simulated, entry: &ManifestEntry, body: &Bytes) -> Vec<SimRow> {
    let name = &entry.file.file_name;
    let open = if name.starts_with("changelog-") { reader::open_changelog::<Bytes> } else { reader::open::<Bytes> };
    let batches = open(body.clone(), &entry.file, &table.context.schema, &table.layout);
    let mut rows = Vec::new();
    for batch in batches.unwrap_or_else(|e| panic!("invariant 11: {name}: {e}")) {
        let batch = batch.unwrap_or_else(|e| panic!("invariant 11: {name}: {e}"));
        for row in 0..batch.len() {
            let number = |column: usize| match value_at(batch.values.column(column) as &dyn Array, row) {
                Value::Int(n) => i64::from(n),
                Value::BigInt(n) => n,
                other => panic!("{name} holds {other:?} where a number belongs"),
            };
            rows.push(SimRow {
                key: i32::try_from(number(0)).unwrap_or(-1),
                source: u32::try_from(number(1)).unwrap_or(u32::MAX),
                number: u64::try_from(number(2)).unwrap_or(u64::MAX),
                sequence: batch.sequence.value(row),
                retracts: is_retract(batch.kind.value(row)),
            });
        }
    }
    rows
}

impl View for Sight<'_> {
    fn object(&self, key: &str) -> Option<Bytes> {
        now(self.world.objects.get(key)).ok().map(|object| object.bytes)
    }

    fn keys(&self, prefix: &str) -> Vec<String> {
        let listed = now(list_all(&self.world.objects, prefix)).unwrap_or_default();
        listed.into_iter().map(|object| object.key).collect()
    }

    fn pointer(&self) -> Option<ItemRecord> {
        self.world.pointer(self.table).map(to_record)
    }

    fn rows(&self, entry: &ManifestEntry, body: &Bytes) -> Vec<Row> {
        let row = |r: &SimRow| Row { key: r.key, sequence: r.sequence, shard: r.source, position: r.number };
        self.sim_rows(entry, body).iter().map(row).collect()
    }

    /// A row tells its source; through which shards its records came changes with splits and merges (the oracle compares orders).
    fn shard_of(&self, _: &Row) -> Option<ShardId> {
        None
    }
}

impl Shared {
    fn pointer(&self, table: &Simulated) -> Option<Item> {
        now(self.items.get(&table.at.partition(), &ItemName::Pointer.sort())).ok().flatten()
    }
}

impl World {
    /// An empty world at a time.
    #[must_use]
    pub fn new(now_ms: i64) -> Self {
        let clock = Arc::new(ManualClock::new(now_ms));
        let objects = MemoryObjectStore::with_clock("lake", clock.clone());
        let streams = MemoryStreams::with_clock(clock.clone());
        let items = MemoryItemStore::new();
        Self(Arc::new(Shared { clock, objects, items, streams, state: Mutex::default() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bucket, for reading.
    #[must_use]
    pub fn objects(&self) -> &MemoryObjectStore {
        &self.0.objects
    }

    /// The items, for everything but the pointer.
    #[must_use]
    pub fn items(&self) -> &MemoryItemStore {
        &self.0.items
    }

    /// The streams.
    #[must_use]
    pub fn streams(&self) -> &MemoryStreams {
        &self.0.streams
    }

    /// Time, ms since 1970.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.0.clock.now_ms()
    }

    /// Time goes on.
    pub fn advance(&self, by_ms: i64) {
        self.0.clock.set(self.now_ms() + by_ms.max(0));
    }

    /// From here on the table is watched.
    pub fn watch(&self, table: Simulated) {
        let monitor = Monitor::new(table.context.clone());
        let table = Arc::new(table);
        let mut state = self.state();
        state.watch = Some(Watch { monitor, oracle: Oracle::default(), files: RefCell::default(), behind: false });
        state.table = Some(table);
    }

    /// Lets somebody look at the oracle.
    pub fn oracle<T>(&self, look: impl FnOnce(&mut Oracle) -> T) -> Option<T> {
        self.state().watch.as_mut().map(|watch| look(&mut watch.oracle))
    }

    /// Remembers what is wrong, if nothing was before.
    pub fn violate(&self, what: String) {
        self.state().violation.get_or_insert(what);
    }

    /// What was found wrong.
    #[must_use]
    pub fn violation(&self) -> Option<String> {
        self.state().violation.clone()
    }

    /// Task objects that were put since the last call.
    #[must_use]
    pub fn take_tasks(&self) -> Vec<String> {
        std::mem::take(&mut self.state().tasks)
    }

    /// A write takes effect later.
    pub fn later(&self, late: Late) {
        self.state().late.push(late);
    }

    /// Writes that are still under way.
    #[must_use]
    pub fn take_late(&self) -> Vec<Late> {
        std::mem::take(&mut self.state().late)
    }

    /// A late write takes effect, if its condition still holds; nobody hears of it.
    pub fn arrive(&self, late: Late) {
        match late {
            Late::Put { key, bytes, mode } => drop(self.put(&key, bytes, mode)),
            Late::Delete(keys) => drop(self.delete(&keys)),
            Late::PutItem { item, condition } => drop(self.put_item(&item, condition)),
        }
    }

    /// Puts an object.
    ///
    /// # Errors
    /// As S3.
    pub fn put(&self, key: &str, bytes: Bytes, mode: PutMode) -> ObjectResult<ETag> {
        let tag = now(self.0.objects.put(key, bytes, mode))?;
        if let Some(table) = self.table() {
            if key.starts_with(&table.at.tasks()) {
                self.state().tasks.push(key.to_owned());
            }
            if key.starts_with(table.context.location.root()) {
                self.look(|watch, sight| watch.monitor.put(sight, key));
            }
        }
        Ok(tag)
    }

    /// Deletes objects.
    ///
    /// # Errors
    /// As S3.
    pub fn delete(&self, keys: &[String]) -> ObjectResult<()> {
        let own = |table: &Simulated, key: &String| key.starts_with(table.context.location.root());
        let there = |key: &&String| now(self.0.objects.head(key)).is_ok();
        let gone: Vec<String> = keys.iter().filter(there).cloned().collect();
        now(self.0.objects.delete(keys))?;
        if let Some(table) = self.table() {
            let gone: Vec<String> = gone.into_iter().filter(|key| own(&table, key)).collect();
            if !gone.is_empty() {
                self.look(|watch, sight| watch.monitor.deleted(sight, &gone));
            }
        }
        Ok(())
    }

    /// Puts an item; the pointer is watched.
    ///
    /// # Errors
    /// As DynamoDB.
    pub fn put_item(&self, item: &Item, condition: ItemCondition) -> ItemResult<()> {
        let table = self.table().filter(|_| item.sort == ItemName::Pointer.sort());
        let before = table.as_ref().and_then(|table| self.0.pointer(table)).map(to_record);
        now(self.0.items.put(item, condition))?;
        if table.is_some() {
            let after = to_record(item.clone());
            self.look(|watch, sight| watch.pointer(sight, before.as_ref(), &after));
        }
        Ok(())
    }

    /// The pointer's item comes back as it was, past every condition: a backup is restored. A commit that nobody has published is lost by
    /// that, and was not acknowledged, unless the backup has it, too.
    pub fn restore_pointer(&self, item: &Item) {
        let kept = self.read_pointer(item).and_then(|pointer| pointer.snapshot);
        let lost = self.pointer().and_then(|pointer| pointer.snapshot).filter(|snapshot| !self.stands(snapshot));
        if let Some(lost) = lost.filter(|lost| kept.as_ref() != Some(lost)) {
            self.look(|watch, sight| {
                watch.monitor.forget(sight, &lost);
                let rows = watch.changelog(sight, &lost);
                watch.oracle.forget(&rows);
            });
        }
        drop(now(self.0.items.put(item, ItemCondition::None)));
        self.look(|watch, sight| watch.fell_behind(sight));
    }

    /// Whether a pointer can be rolled forward from a backup: it stands where the pointer stands, or a snapshot of ours is left, which says the
    /// positions. Without one nobody knows what was committed since.
    #[must_use]
    pub fn reaches(&self, backup: &Item) -> bool {
        let Some(table) = self.table() else { return false };
        let same = self.read_pointer(backup).map(|back| back.checkpoints) == self.pointer().map(|now| now.checkpoints);
        let listed = list_all(self.objects(), &table.context.location.snapshot_prefix()).now_or_never();
        let names = listed.and_then(Result::ok).unwrap_or_default();
        same || names.iter().any(|name| {
            let object = now(self.0.objects.get(&name.key)).ok();
            let snapshot = object.and_then(|object| Snapshot::from_json(&name.key, &object.bytes).ok());
            snapshot.is_some_and(|snapshot| Incarnation::is_ours(&snapshot.commit_user))
        })
    }

    /// The table, once it is watched.
    #[must_use]
    pub fn table(&self) -> Option<Arc<Simulated>> {
        self.state().table.clone()
    }

    /// The pointer as an item.
    #[must_use]
    pub fn pointer_item(&self) -> Option<Item> {
        self.0.pointer(self.table()?.as_ref())
    }

    /// The pointer.
    #[must_use]
    pub fn pointer(&self) -> Option<Pointer> {
        self.read_pointer(&self.pointer_item()?)
    }

    fn read_pointer(&self, item: &Item) -> Option<Pointer> {
        Pointer::from_record(&to_record(item.clone()), &self.table()?.context.location).ok()
    }

    /// Whether a snapshot has its name on S3, or had it until it expired.
    #[must_use]
    pub fn published(&self, id: i64) -> bool {
        let Some((table, pointer)) = self.table().zip(self.pointer()) else { return false };
        let key = table.context.location.snapshot(siltstone_format::id::SnapshotId(id));
        id < pointer.earliest.0 || now(self.0.objects.head(&key)).is_ok()
    }

    /// Whether this very snapshot has its name on S3, not another engine's that took it first.
    fn stands(&self, snapshot: &Snapshot) -> bool {
        let Some(table) = self.table() else { return false };
        let name = table.context.location.snapshot(snapshot.id);
        let there = now(self.0.objects.get(&name)).ok().and_then(|there| Snapshot::from_json(&name, &there.bytes).ok());
        there.is_some_and(|there| {
            there.commit_user == snapshot.commit_user && there.commit_identifier == snapshot.commit_identifier
        })
    }

    /// Everything reachable is looked at once more, and the order of each key.
    pub fn check(&self) {
        self.look(|watch, sight| {
            watch.monitor.check(sight);
            watch.oracle.ordered().unwrap_or_else(|broken| panic!("invariant {broken}"));
        });
    }

    fn look(&self, look: impl FnOnce(&mut Watch, &Sight<'_>)) {
        let mut state = self.state();
        let (Some(table), Some(mut watch)) = (state.table.clone(), state.watch.take()) else { return };
        drop(state);
        let files = watch.files.take();
        let files = RefCell::new(files);
        look(&mut watch, &Sight { world: &self.0, table: &table, files: &files });
        watch.files = files;
        state = self.state();
        state.watch = Some(watch);
    }

    /// Name of what a key is, for counting: `snapshot`, `data`, `pointer` and so on.
    #[must_use]
    pub fn kind_of(&self, operation: &str, key: &str) -> &'static str {
        let Some(table) = self.table() else { return "setup" };
        if operation.ends_with("_item") || operation.ends_with("_items") {
            return match key {
                "pointer" => "pointer",
                "slots" => "slots",
                _ if key.starts_with("debt#") => "debt",
                _ => "item",
            };
        }
        if key.starts_with(&table.at.tasks()) {
            return "task";
        }
        if key.starts_with(&table.at.quarantine()) {
            return "quarantine";
        }
        match table.context.location.parse(None, key) {
            ObjectName::Schema(_) => "schema",
            ObjectName::Snapshot(_) => "snapshot",
            ObjectName::LatestHint | ObjectName::EarliestHint => "hint",
            ObjectName::ManifestList(_) => "manifest-list",
            ObjectName::Manifest(_) => "manifest",
            ObjectName::BucketFile { .. } => "data",
            _ => "other",
        }
    }
}

impl Watch {
    /// The pointer was restored: snapshots of others above it may be adopted once more.
    fn fell_behind(&mut self, sight: &Sight<'_>) {
        let Some(record) = sight.pointer() else { return };
        let location = &sight.table.context.location;
        let pointer = Pointer::from_record(&record, location).unwrap_or_else(|e| panic!("{e}"));
        let mut id = pointer.version().next();
        while let Some(object) = sight.object(&location.snapshot(id)) {
            let above = Snapshot::from_json(&location.snapshot(id), &object).unwrap_or_else(|e| panic!("{e}"));
            if Incarnation::is_ours(&above.commit_user) {
                self.behind = true;
            } else {
                self.monitor.forget(sight, &above);
            }
            id = id.next();
        }
    }

    fn pointer(&mut self, sight: &Sight<'_>, before: Option<&ItemRecord>, after: &ItemRecord) {
        self.monitor.pointer(sight, before, after);
        let location = &sight.table.context.location;
        let read = |record| Pointer::from_record(record, location).unwrap_or_else(|e| panic!("{e}"));
        let (before, after) = (before.map(read), read(after));
        let Some(snapshot) = &after.snapshot else { return };
        let same_life = before.as_ref().is_some_and(|before| before.incarnation == after.incarnation);
        if same_life && before.as_ref().and_then(|b| b.snapshot.as_ref()) != Some(snapshot) {
            let forked = before.filter(|before| before.state == TableState::Forked);
            if let Some(lost) = forked.and_then(|before| before.snapshot) {
                let rows = self.changelog(sight, &lost);
                self.oracle.forget(&rows);
            }
            let rows = self.changelog(sight, snapshot);
            self.oracle.log(&rows).unwrap_or_else(|broken| panic!("invariant {broken}"));
        }
        self.behind &= same_life;
        if after.state != TableState::Forked && !self.behind {
            let live = self.monitor.live_files(sight, snapshot);
            let compared = self.oracle.compare(&after.checkpoints.all(), &sight.rows_of(&live));
            compared.unwrap_or_else(|broken| panic!("invariant {broken}, in snapshot {}", snapshot.id));
        }
    }

    fn changelog(&mut self, sight: &Sight<'_>, snapshot: &Snapshot) -> Vec<SimRow> {
        if !Incarnation::is_ours(&snapshot.commit_user) {
            return Vec::new();
        }
        let Some(list) = &snapshot.changelog_manifest_list else { return Vec::new() };
        let entries = self.monitor.entries(sight, list);
        sight.rows_of(&entries)
    }
}
