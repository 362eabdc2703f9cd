//! Every kind of object of a table, cut off at 50 places, with one bit changed in 50 places, in place of another table's, and missing:
//! each verb answers with an error that names the object and has written nothing, or with exactly what it answers without the damage.
//! A deep check finds the damage, save for what no reader could see ([`is_excused`] says what and why).
//!
//! One table in memory (two partitions of two buckets, a changelog, compacted and not, expired, more shards than the pointer holds) is copied for
//! each case. A verb that does not read the damaged object cannot answer otherwise, so only those that do are asked. Here verbs take turns over
//! the places; `cargo test -p siltstone-table --test damage -- --ignored` asks all of them everywhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::json;
use siltstone_commit::{
    changes::{ChangeId, Outcome},
    manifests::Scope,
    protocol::{self, RollbackTarget},
};
use siltstone_format::id::SnapshotId;
use siltstone_store::{
    ids::SeededIds,
    item::{Attr, Item, ItemCondition, ItemStore, query_all},
    memory::{ManualClock, MemoryItemStore, MemoryObjectStore},
    object::{ETag, ListPage, Object, ObjectMeta, ObjectResult, ObjectStore, PutMode, Upload, list_all},
};
use siltstone_table::{
    Authority, Ports, Purpose, Result, Table, TableRef, Version, check,
    compact::{self, CompactRequest, Compacted},
    driver::drive,
    ingest::Ingest,
    maintain,
    scan::{ScanRequest, changelog, scan},
    settings::{CompactLimits, IngestLimits},
    state,
};
use world::*;

/// Places of a cut, and of a changed bit.
const PLACES: usize = 50;

/// All that is stored for a table.
#[derive(Clone)]
struct State {
    objects: Arc<BTreeMap<String, Object>>,
    items: Vec<Item>,
    now: i64,
}

/// What differs from a state.
#[derive(Debug, Clone, PartialEq, Default)]
struct Changes(BTreeMap<String, Option<Bytes>>);

/// A bucket over a state that is never copied: what is written lies on top. It remembers which keys were read.
#[derive(Debug)]
struct Layered {
    base: Arc<BTreeMap<String, Object>>,
    top: MemoryObjectStore,
    /// Keys that are not the base's any more.
    changed: Mutex<BTreeSet<String>>,
    read: Mutex<BTreeSet<String>>,
}

impl Layered {
    fn new(base: Arc<BTreeMap<String, Object>>, clock: Arc<ManualClock>) -> Self {
        let top = MemoryObjectStore::with_clock("lake", clock);
        Self { base, top, changed: Mutex::default(), read: Mutex::default() }
    }

    /// The object below, unless it was written over or deleted.
    fn below(&self, key: &str) -> Option<&Object> {
        self.read.lock().unwrap().insert(key.to_owned());
        if self.changed.lock().unwrap().contains(key) { None } else { self.base.get(key) }
    }

    async fn changes(&self) -> Changes {
        let keys = self.changed.lock().unwrap().clone();
        let mut changes = BTreeMap::new();
        for key in keys {
            let now = self.top.get(&key).await.ok().map(|o| o.bytes);
            changes.insert(key, now);
        }
        Changes(changes)
    }
}

#[async_trait]
impl ObjectStore for Layered {
    fn bucket(&self) -> &str {
        self.top.bucket()
    }
    async fn get(&self, key: &str) -> ObjectResult<Object> {
        match self.below(key) {
            Some(object) => Ok(object.clone()),
            None => self.top.get(key).await,
        }
    }
    async fn get_range(&self, key: &str, range: Range<u64>) -> ObjectResult<Bytes> {
        match self.below(key) {
            Some(object) => Ok(object.bytes.slice(range.start as usize..range.end as usize)),
            None => self.top.get_range(key, range).await,
        }
    }
    async fn head(&self, key: &str) -> ObjectResult<ObjectMeta> {
        match self.below(key) {
            Some(object) => Ok(object.meta.clone()),
            None => self.top.head(key).await,
        }
    }
    async fn put(&self, key: &str, bytes: Bytes, mode: PutMode) -> ObjectResult<ETag> {
        if mode != PutMode::Overwrite
            && let Some(object) = self.below(key)
        {
            let there = MemoryObjectStore::new();
            there.put(key, object.bytes.clone(), PutMode::Overwrite).await?;
            there.put(key, bytes.clone(), mode).await?;
        } else if mode != PutMode::Overwrite {
            self.top.put(key, bytes.clone(), mode).await?;
        }
        self.changed.lock().unwrap().insert(key.to_owned());
        self.top.put(key, bytes, PutMode::Overwrite).await
    }
    async fn upload(&self, key: &str) -> ObjectResult<Box<dyn Upload>> {
        self.changed.lock().unwrap().insert(key.to_owned());
        self.top.upload(key).await
    }
    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> ObjectResult<ListPage> {
        let mut metas: BTreeMap<String, ObjectMeta> = BTreeMap::new();
        for (key, object) in self.base.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix)) {
            if self.below(key).is_some() {
                metas.insert(key.clone(), object.meta.clone());
            }
        }
        metas.extend(list_all(&self.top, prefix).await?.into_iter().map(|meta| (meta.key.clone(), meta)));
        let mut rest = metas.into_values().filter(|meta| start_after.is_none_or(|after| meta.key.as_str() > after));
        let objects = rest.by_ref().take(limit).collect();
        Ok(ListPage { objects, more: rest.next().is_some() })
    }
    async fn list_dirs(&self, prefix: &str) -> ObjectResult<Vec<String>> {
        self.top.list_dirs(prefix).await
    }
    async fn delete(&self, keys: &[String]) -> ObjectResult<()> {
        self.changed.lock().unwrap().extend(keys.iter().cloned());
        self.top.delete(keys).await
    }
}

/// A copy of a state to work on.
struct Place {
    ports: Ports,
    at: TableRef,
    authority: Authority,
    store: Arc<Layered>,
    clock: Arc<ManualClock>,
}

impl State {
    async fn of(ports: &Ports, at: &TableRef) -> Self {
        let mut objects = BTreeMap::new();
        for meta in list_all(ports.objects.as_ref(), &format!("{}/", at.location())).await.unwrap() {
            objects.insert(meta.key.clone(), ports.objects.get(&meta.key).await.unwrap());
        }
        let items = query_all(ports.items.as_ref(), &at.partition(), "").await.unwrap();
        Self { objects: Arc::new(objects), items, now: ports.clock.now_ms() }
    }

    async fn place(&self, at: &TableRef, authority: Authority, damage: &Changes) -> Place {
        let clock = Arc::new(ManualClock::new(self.now));
        let (store, items) = (Arc::new(Layered::new(self.objects.clone(), clock.clone())), MemoryItemStore::new());
        for (key, bytes) in &damage.0 {
            match bytes {
                Some(bytes) => drop(store.put(key, bytes.clone(), PutMode::Overwrite).await.unwrap()),
                None => store.delete(std::slice::from_ref(key)).await.unwrap(),
            }
        }
        for item in &self.items {
            items.put(item, ItemCondition::None).await.unwrap();
        }
        let ids = Arc::new(SeededIds::new(99));
        let ports = Ports { objects: store.clone(), items: Arc::new(items), clock: clock.clone(), ids };
        Place { ports, at: at.clone(), authority, store, clock }
    }
}

/// What a user can ask of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verb {
    Describe,
    Scan,
    ScanOldest,
    Changelog,
    Files,
    Snapshots,
    Check,
    CheckDeep,
    Compact(usize),
    Expire,
    Rollback,
    Ingest,
}

const VERBS: [Verb; 13] = [
    Verb::Describe,
    Verb::Scan,
    Verb::ScanOldest,
    Verb::Changelog,
    Verb::Files,
    Verb::Snapshots,
    Verb::Check,
    Verb::CheckDeep,
    Verb::Compact(0),
    Verb::Compact(1),
    Verb::Expire,
    Verb::Rollback,
    Verb::Ingest,
];

/// Longer than a name has to be old before its snapshot may expire.
const HOUR: std::time::Duration = std::time::Duration::from_secs(3_600);

/// The oldest snapshot that the table still has, to which it is rolled back too.
const OLDEST: SnapshotId = SnapshotId(73);

impl Verb {
    fn is_for_bare(self) -> bool {
        !matches!(self, Self::Expire | Self::Rollback | Self::Ingest)
    }

    fn writes(self) -> bool {
        matches!(self, Self::Compact(_) | Self::Expire | Self::Rollback | Self::Ingest)
    }
}

async fn rows(table: &Table, snapshot: Option<SnapshotId>) -> Result<String> {
    let mut rows = Vec::new();
    let version = snapshot.map_or(Version::Current, Version::Snapshot);
    let request = ScanRequest { version, ..ScanRequest::default() };
    scan(table, &request, |row| {
        rows.push(format!("{:?}", row.values));
        true
    })
    .await?;
    rows.sort();
    Ok(rows.join("\n"))
}

impl Place {
    async fn table(&self, purpose: Purpose) -> Result<Table> {
        Table::open(&self.ports, &self.at, self.authority, purpose).await
    }

    /// The answer of a verb as text; for those that write, what was done.
    async fn ask(&self, verb: Verb) -> Result<String> {
        match verb {
            Verb::Describe => {
                let table = self.table(Purpose::Read).await?;
                let pointer = match self.authority {
                    Authority::Pointer => Some(table.pointer().await?),
                    Authority::Bare => None,
                };
                let current = table.snapshot(&Version::Current).await?;
                Ok(format!("{:?} {current:?} {pointer:?}", table.schema))
            }
            Verb::Scan => rows(&self.table(Purpose::Read).await?, None).await,
            Verb::ScanOldest => rows(&self.table(Purpose::Read).await?, Some(OLDEST)).await,
            Verb::Changelog => {
                let mut out = String::new();
                changelog(&self.table(Purpose::Read).await?, &ScanRequest::default(), |id, row| {
                    out += &format!("{id} {row:?}\n");
                    true
                })
                .await?;
                Ok(out)
            }
            Verb::Files => {
                let table = self.table(Purpose::Read).await?;
                let Some(snapshot) = table.snapshot(&Version::Current).await? else { return Ok(String::new()) };
                Ok(format!("{:?}", state::live_files(&table, &snapshot, Scope::Everything).await?))
            }
            Verb::Snapshots => {
                let table = self.table(Purpose::Read).await?;
                let mut out = String::new();
                for id in state::snapshot_ids(&table).await? {
                    out += &format!("{:?}\n", state::read_snapshot(&table, id).await?);
                }
                Ok(out)
            }
            Verb::Check | Verb::CheckDeep => {
                let table = self.table(Purpose::Read).await?;
                let mut checked = check::check(&table).await?;
                if verb == Verb::CheckDeep {
                    checked.findings.extend(check::deep(&table, &checked, |_| ()).await?.findings);
                }
                Ok(checked.findings.iter().map(|f| format!("{f}\n")).collect())
            }
            Verb::Compact(number) => {
                let table = self.table(Purpose::Compact).await?;
                let buckets = compact::buckets(&table).await?;
                let (partition, bucket, _) = &buckets[number];
                let limits = CompactLimits { lateness_ms: 0, ..CompactLimits::default() };
                let done =
                    compact::compact_bucket(&table, partition, *bucket, CompactRequest::Full, &limits, FAR).await?;
                Ok(match done {
                    Compacted::Done(report) => format!("{} {}", report.rows_in, report.rows_out),
                    other => format!("{other:?}"),
                })
            }
            Verb::Expire => {
                self.clock.advance(HOUR);
                let expired = maintain::expire(&self.table(Purpose::Expire).await?).await?;
                Ok(format!("{:?} {:?}", expired.snapshots, expired.keys))
            }
            Verb::Rollback => {
                let table = self.table(Purpose::Write).await?;
                let machine = protocol::rollback(&table.context, RollbackTarget::Snapshot(OLDEST), ChangeId(5));
                match drive(machine, &self.ports, &self.at).await? {
                    Outcome::Committed { snapshot, .. } => Ok(format!("{snapshot:?}")),
                    other => Ok(format!("{other:?}")),
                }
            }
            Verb::Ingest => {
                let ingest = Ingest::new(self.ports.clone(), self.at.clone(), None, IngestLimits::default());
                // A shard whose checkpoint is not in the pointer itself.
                let mut more = batch(500, &[row(1, "new"), row(77, "new")]);
                more.shard = shard(1);
                let report = ingest.handle(&more, FAR).await?;
                Ok(format!("{} {} {:?}", report.changes, report.redelivered, report.snapshot))
            }
        }
    }

    /// Whether nothing but the damage itself differs from the state.
    async fn is_untouched(&self, state: &State, damage: &Changes) -> bool {
        let items = query_all(self.ports.items.as_ref(), &self.at.partition(), "").await.unwrap();
        let changes = self.store.changes().await;
        // An upload that was begun and aborted leaves nothing.
        let changes = changes.0.into_iter().filter(|(key, now)| now.is_some() || state.objects.contains_key(key));
        items == state.items && Changes(changes.collect()) == *damage
    }
}

fn shard(n: u64) -> String {
    format!("shardId-{n:012}")
}

/// A table with everything; `salt` makes another one of the same form.
async fn table(salt: i64) -> (State, TableRef) {
    let options = [
        ("bucket", "1"),
        ("changelog-producer", "input"),
        ("snapshot.num-retained.min", "4"),
        ("snapshot.num-retained.max", "5"),
        ("snapshot.time-retained", "1 s"),
        ("file.compression", if salt == 0 { "zstd" } else { "none" }),
    ];
    let world = world_of(true, &options, 7 + salt.unsigned_abs()).await;
    let ingest = world.ingest();
    let on = |id: i64, note: &str, dt: &str| json!({"id": id + salt, "note": format!("{note} {salt}"), "dt": dt});
    // More shards than the pointer holds; what they bring is rejected, and their snapshots, which are without rows, expire.
    for n in 0..70 {
        let mut nothing = raw_batch(1, &[Bytes::from_static(b"nope")]);
        nothing.shard = shard(n);
        ingest.handle(&nothing, FAR).await.unwrap();
    }
    for n in 0..7_u64 {
        let id = n as i64;
        let mut rows: Vec<_> =
            (0..6).map(|i| on(id * 3 + i, &format!("v{n}"), ["2023-11-14", "2023-11-15"][(i % 2) as usize])).collect();
        rows.push(json!({"id": 2 + salt, "op": "delete", "dt": "2023-11-14"}));
        ingest.handle(&batch(1_000 + 10 * n, &rows), FAR).await.unwrap();
        world.clock.advance(std::time::Duration::from_secs(60));
        match n {
            2 => drop(world.compact_all(CompactRequest::Full).await),
            3 => {
                world.clock.advance(HOUR);
                // One run takes no more than `snapshot.expire.limit` of them.
                for _ in 0..2 {
                    maintain::expire(&world.open().await).await.unwrap();
                }
            }
            _ => {}
        }
    }
    (State::of(&world.ports, &world.at).await, world.at)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Schema,
    Snapshot,
    Latest,
    Earliest,
    ManifestList,
    Manifest,
    Data,
    Changelog,
    Checkpoints,
}

fn kind(key: &str) -> Kind {
    let name = key.rsplit('/').next().unwrap();
    match name {
        "LATEST" => Kind::Latest,
        "EARLIEST" => Kind::Earliest,
        _ if name.starts_with("schema-") => Kind::Schema,
        _ if name.starts_with("snapshot-") => Kind::Snapshot,
        _ if name.starts_with("manifest-list-") => Kind::ManifestList,
        _ if name.starts_with("manifest-") => Kind::Manifest,
        _ if name.starts_with("data-") => Kind::Data,
        _ if name.starts_with("changelog-") => Kind::Changelog,
        _ if name.starts_with("checkpoints-") => Kind::Checkpoints,
        _ => panic!("what is {key}?"),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Damage {
    Cut(usize),
    Bit(usize),
    Swapped,
    Missing,
}

impl Damage {
    fn all() -> impl Iterator<Item = Self> {
        (0..PLACES).map(Self::Cut).chain((0..PLACES).map(Self::Bit)).chain([Self::Swapped, Self::Missing])
    }

    /// The bytes that are left; `None` when there are none, or when nothing changes.
    fn apply(self, bytes: &Bytes, other: &Bytes) -> Option<Bytes> {
        let changed = match self {
            Self::Cut(n) => bytes.slice(..bytes.len() * n / PLACES),
            Self::Bit(n) => {
                // Spread over the whole object by the golden ratio.
                let bits = bytes.len() as u64 * 8;
                let bit = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) % bits;
                let mut bytes = bytes.to_vec();
                bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
                bytes.into()
            }
            Self::Swapped => other.clone(),
            Self::Missing => return None,
        };
        Some(changed)
    }

    fn place(self) -> Option<usize> {
        match self {
            Self::Cut(n) | Self::Bit(n) => Some(n),
            Self::Swapped | Self::Missing => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Cut(_) => "cut",
            Self::Bit(_) => "bit",
            Self::Swapped => "swapped",
            Self::Missing => "missing",
        }
    }
}

/// What went wrong, and how often, with one example.
#[derive(Default)]
struct Faults(BTreeMap<String, (usize, String)>);

impl Faults {
    fn add(&mut self, what: impl Into<String>, example: impl Into<String>) {
        self.0.entry(what.into()).or_insert_with(|| (0, example.into())).0 += 1;
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(what, (times, example))| writeln!(f, "{times:>5} {what}\n      e.g. {example}"))
    }
}

/// Expiry leaves what it cannot read about to the sweep, and stays below a hole: what is missing may be what a run that died, or one that runs
/// beside it, has deleted. The rows are compared all the same.
///
/// The oldest snapshot is gone after an expiry by any engine, so its loss cannot be told from one.
fn is_cautious(verb: Verb, damage: Damage, key: &str) -> bool {
    let oldest = key.ends_with(&format!("/snapshot-{OLDEST}"));
    damage == Damage::Missing && (verb == Verb::Expire || oldest && matches!(verb, Verb::Snapshots | Verb::Changelog))
}

/// What a deep check need not find: Siltstone's own objects, of which a bare table knows nothing, and a missing EARLIEST, which other engines do
/// not write and without which every reader lists.
fn is_excused(authority: Authority, damage: Damage, key: &str) -> bool {
    let checkpoints = authority == Authority::Bare && kind(key) == Kind::Checkpoints;
    checkpoints || kind(key) == Kind::Earliest && damage == Damage::Missing
}

/// Whether words name an object; the only schema of a bare table is named by what was looked for.
fn is_named(words: &str, authority: Authority, key: &str) -> bool {
    let looked_for = key.replace("schema-0", "schema-*");
    words.contains(key) || authority == Authority::Bare && words.contains(&looked_for)
}

/// What is asked.
struct Asked {
    state: State,
    at: TableRef,
    authority: Authority,
    /// What each verb answers without damage, the rows after it, and the keys that it reads.
    wanted: BTreeMap<Verb, (String, String, BTreeSet<String>)>,
    /// All verbs at every place.
    all: bool,
}

/// One damaged table against all verbs that read the damaged object.
async fn one(asking: &Asked, damage: &Changes, key: &str, damage_name: Damage, faults: &mut Faults) {
    let Asked { state, at, authority, wanted, all } = asking;
    let (authority, label) = (*authority, format!("{:?} {}", kind(key), damage_name.name()));
    for (verb, (answer, after, read)) in wanted {
        if !read.contains(key) || !all && !takes_turn(*verb, damage_name) {
            continue;
        }
        // A deep check finds what the other one finds: in most places that is enough.
        let shallow = *verb == Verb::CheckDeep && !all && damage_name.place().is_some_and(|n| n % 5 > 0);
        if shallow
            && let Ok(found) = state.place(at, authority, damage).await.ask(Verb::Check).await
            && found.lines().any(|line| is_named(line, authority, key))
        {
            continue;
        }
        let what = |words: &str| format!("{label}: {verb:?} {words}");
        let place = state.place(at, authority, damage).await;
        let (asked, verb) = (Arc::new(place), *verb);
        let runner = asked.clone();
        let answered = tokio::spawn(async move { runner.ask(verb).await }).await;
        let named = |words: &str| is_named(words, authority, key);
        match answered {
            Err(panic) => faults.add(what("panics"), format!("{key}: {panic}")),
            Ok(Err(error)) => {
                let error = error.to_string();
                if !named(&error) {
                    faults.add(what("does not name the object"), format!("{key}: {error}"));
                }
                // The one thing that an error may leave: that nobody is to commit.
                let marked = error.contains("is forked");
                if !marked && !asked.is_untouched(state, damage).await {
                    faults.add(what("fails and has written"), format!("{key}: {error}"));
                }
            }
            Ok(Ok(found)) if matches!(verb, Verb::Check | Verb::CheckDeep) => {
                if !asked.is_untouched(state, damage).await {
                    faults.add(what("has written"), key.to_owned());
                }
                let lines = found.lines().filter(|line| named(line)).count();
                if lines == 0 && verb == Verb::CheckDeep && !is_excused(authority, damage_name, key) {
                    faults.add(what("does not find it"), format!("{key}: {found}"));
                }
            }
            Ok(Ok(found)) => {
                if found != *answer && !is_cautious(verb, damage_name, key) {
                    faults.add(what("answers otherwise"), format!("{key}: {found:.600} instead of {answer:.600}"));
                }
                if verb.writes() {
                    let table = asked.table(Purpose::Read).await;
                    let rows = match table {
                        Ok(table) => rows(&table, None).await,
                        Err(error) => Err(error),
                    };
                    match rows {
                        Ok(rows) if rows == *after => {}
                        Ok(rows) => {
                            faults.add(what("leaves other rows"), format!("{key}: {rows:.600} instead of {after:.600}"))
                        }
                        Err(error) if named(&error.to_string()) => {}
                        Err(error) => {
                            faults.add(what("leaves a table that does not name the object"), error.to_string())
                        }
                    }
                }
            }
        }
    }
}

/// What each verb answers without damage, the rows after it, and what it reads.
async fn wanted(
    state: &State,
    at: &TableRef,
    authority: Authority,
) -> BTreeMap<Verb, (String, String, BTreeSet<String>)> {
    let mut wanted = BTreeMap::new();
    for verb in VERBS.into_iter().filter(|verb| authority == Authority::Pointer || verb.is_for_bare()) {
        let place = state.place(at, authority, &Changes::default()).await;
        let answer = place.ask(verb).await.unwrap_or_else(|e| panic!("{verb:?}: {e}"));
        let read = place.store.read.lock().unwrap().clone();
        let after = rows(&place.table(Purpose::Read).await.unwrap(), None).await.unwrap();
        wanted.insert(verb, (answer, after, read));
    }
    wanted
}

/// The oldest and the newest of each kind, and so many as asked for in all.
fn chosen(state: &State, each: usize) -> Vec<String> {
    let mut kinds: BTreeMap<Kind, Vec<&String>> = BTreeMap::new();
    state.objects.keys().for_each(|key| kinds.entry(kind(key)).or_default().push(key));
    let mut chosen = Vec::new();
    for keys in kinds.values() {
        let step = (keys.len() - 1) as f64 / (each - 1) as f64;
        let places: BTreeSet<usize> = (0..each).map(|i| (i as f64 * step).round() as usize).collect();
        chosen.extend(places.into_iter().map(|i| keys[i].clone()));
    }
    chosen
}

fn quiet() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !siltstone_lsm::reader::is_guarded() {
            before(panic);
        }
    }));
}

/// Which verbs are asked of a cut or a changed bit, unless all are: a deep check always, the others in turns, each at every fifth place.
fn takes_turn(verb: Verb, damage: Damage) -> bool {
    let index = VERBS.iter().position(|v| *v == verb).unwrap();
    verb == Verb::CheckDeep || damage.place().is_none_or(|n| (n + n / 5) % 5 == index % 5)
}

/// Damages objects of a table and asks it everything that reads them.
async fn matrix(authority: Authority, all: bool) -> Faults {
    quiet();
    let ((state, at), (other, _)) = (table(0).await, table(1_000).await);
    let wanted = wanted(&state, &at, authority).await;
    assert_eq!(wanted[&Verb::CheckDeep].0, "", "the table itself is good");
    let others: BTreeMap<Kind, Bytes> =
        other.objects.iter().map(|(key, object)| (kind(key), object.bytes.clone())).collect();
    assert_eq!(others.len(), 9, "every kind of object is there: {:?}", others.keys());
    let keys = chosen(&state, if all { 4 } else { 2 });
    let asking = Arc::new(Asked { state, at, authority, wanted, all });
    let mut jobs = tokio::task::JoinSet::new();
    for key in keys {
        let (asking, others) = (asking.clone(), others.clone());
        jobs.spawn(async move {
            let mut faults = Faults::default();
            let bytes = asking.state.objects[&key].bytes.clone();
            // A bare table differs in who says what is newest, not in how objects are read.
            let every = if authority == Authority::Bare && !all { 5 } else { 1 };
            for damage in Damage::all().filter(|damage| damage.place().is_none_or(|n| n % every == 0)) {
                let left = damage.apply(&bytes, &others[&kind(&key)]);
                if left.as_ref() == Some(&bytes) {
                    continue;
                }
                let damaged = Changes([(key.clone(), left)].into());
                one(&asking, &damaged, &key, damage, &mut faults).await;
            }
            faults
        });
    }
    let mut faults = Faults::default();
    while let Some(found) = jobs.join_next().await {
        for (what, (times, example)) in found.unwrap().0 {
            faults.0.entry(what).or_insert_with(|| (0, example)).0 += times;
        }
    }
    faults
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_of_any_object_is_named_and_changes_no_answer() {
    let faults = matrix(Authority::Pointer, false).await;
    assert!(faults.0.is_empty(), "\n{faults}");
}

/// The same table as other engines have theirs: by its objects alone.
#[tokio::test(flavor = "multi_thread")]
async fn damage_of_a_bare_table_is_named_and_changes_no_answer() {
    let faults = matrix(Authority::Bare, false).await;
    assert!(faults.0.is_empty(), "\n{faults}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: every verb at every place, where the others let the verbs take turns"]
async fn damage_at_every_place_is_named_by_every_verb() {
    for authority in [Authority::Pointer, Authority::Bare] {
        let faults = matrix(authority, true).await;
        assert!(faults.0.is_empty(), "{authority:?}\n{faults}");
    }
}

/// One attribute of the pointer with one thing wrong.
fn damaged_items(item: &Item, other: &Item) -> Vec<(String, Option<Item>)> {
    let mut damaged = vec![("missing".to_owned(), None)];
    let swapped = Item { partition: item.partition.clone(), ..other.clone() };
    damaged.push(("swapped".to_owned(), Some(swapped)));
    for (name, value) in &item.attributes {
        let mut with = |what: String, value: Option<Attr>| {
            let mut item = item.clone();
            item.attributes.remove(name);
            item.attributes.extend(value.map(|value| (name.clone(), value)));
            damaged.push((format!("{name} {what}"), Some(item)));
        };
        with("missing".to_owned(), None);
        for n in 0..PLACES {
            let change = |bytes: &[u8], damage: Damage| {
                let bytes = Bytes::copy_from_slice(bytes);
                damage.apply(&bytes, &bytes).filter(|left| *left != bytes)
            };
            for damage in [Damage::Cut(n), Damage::Bit(n)] {
                let changed = match value {
                    Attr::S(text) if text.is_empty() => None,
                    Attr::B(bytes) if bytes.is_empty() => None,
                    Attr::S(text) => {
                        change(text.as_bytes(), damage).map(|b| Attr::S(String::from_utf8_lossy(&b).into_owned()))
                    }
                    Attr::B(bytes) => change(bytes, damage).map(Attr::B),
                    Attr::N(number) => match damage {
                        Damage::Bit(n) => Some(Attr::N(number ^ (1 << n))),
                        _ => None,
                    },
                };
                if let Some(changed) = changed {
                    with(format!("{damage:?}"), Some(changed));
                }
            }
        }
    }
    damaged
}

/// The pointer is no object; its item is damaged attribute by attribute.
#[tokio::test(flavor = "multi_thread")]
async fn damage_of_the_pointer_is_named_and_writes_nothing() {
    let ((state, at), (other, _)) = (table(0).await, table(1_000).await);
    let pointer = |state: &State| state.items.iter().find(|item| item.sort == "pointer").unwrap().clone();
    let mut faults = Faults::default();
    // Pointers of before the checksum have none.
    let damages =
        damaged_items(&pointer(&state), &pointer(&other)).into_iter().filter(|(what, _)| what != "crc32 missing");
    for (number, (what, item)) in damages.enumerate() {
        let mut damaged = state.clone();
        damaged.items.retain(|item| item.sort != "pointer");
        damaged.items.extend(item);
        damaged.items.sort_by(|a, b| a.sort.cmp(&b.sort));
        for (index, verb) in VERBS.into_iter().enumerate() {
            if (number + index) % 5 > 0 {
                continue;
            }
            let place = damaged.place(&at, Authority::Pointer, &Changes::default()).await;
            match place.ask(verb).await {
                Ok(found) => faults.add(format!("{verb:?} does not mind"), format!("{what}: {found:.300}")),
                Err(error) if error.to_string().contains("pointer") && error.to_string().contains("orders") => {}
                Err(error) => faults.add(format!("{verb:?} does not name the pointer"), format!("{what}: {error}")),
            }
            if !place.is_untouched(&damaged, &Changes::default()).await {
                faults.add(format!("{verb:?} has written"), what.clone());
            }
        }
    }
    assert!(faults.0.is_empty(), "\n{faults}");
}
