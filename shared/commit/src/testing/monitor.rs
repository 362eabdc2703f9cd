//! Watches every write of a world and stops at the first broken invariant of architecture.md section 3.
//!
//! Neighbours: `world` calls it, and the simulation of the whole system, each behind a
//! [`View`]; `schedule` tells it what was acknowledged and refused. Numbers in messages are the invariants'.
//! Invariant: 1. it reads only what is in the world, never what a protocol believes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use siltstone_format::{
    id::{CommitIdentifier, SequenceNumber, SnapshotId},
    manifest::{FileKind, ManifestEntry, ManifestFileMeta},
    path::ObjectName,
    snapshot::{CommitKind, Snapshot},
};

use super::{explore::Digest, fixture::Row};
use crate::{
    changes::{Change, Outcome},
    checkpoint::{Checkpoint, Checkpoints, Lookup, Position, ShardId},
    codec, conflict,
    context::{Incarnation, TableContext},
    io::ItemRecord,
    manifests::{FileKey, Live, count, file_key},
    pointer::{POINTER_BYTES, Pointer, TableState},
    protocol::slots,
    staged::{self, Staged, State},
};

/// What is in a world now.
pub trait View {
    /// Content of an object.
    fn object(&self, key: &str) -> Option<Bytes>;
    /// Keys that begin with a prefix, in byte order.
    fn keys(&self, prefix: &str) -> Vec<String>;
    /// The item of the table's pointer.
    fn pointer(&self) -> Option<ItemRecord>;
    /// Rows of a data file with this content.
    fn rows(&self, entry: &ManifestEntry, body: &Bytes) -> Vec<Row>;
    /// The shard that a row came through, if the row tells.
    fn shard_of(&self, row: &Row) -> Option<ShardId>;
}

/// The watcher.
#[derive(Debug, Clone)]
pub struct Monitor {
    context: TableContext,
    /// Set by tests in which foreign engines overwrite what is ours.
    pub foreign: bool,
    manifests: BTreeMap<String, Arc<Vec<ManifestEntry>>>,
    lists: BTreeMap<String, Arc<Vec<ManifestFileMeta>>>,
    /// What a snapshot refers to never changes: read once, looked for at every check.
    contents: BTreeMap<String, Arc<Content>>,
    tips: BTreeSet<SnapshotId>,
    seen: BTreeSet<SnapshotId>,
    names: BTreeMap<SnapshotId, (Option<String>, String, CommitIdentifier)>,
    gone: BTreeSet<String>,
    deleted: BTreeSet<FileKey>,
    added: BTreeSet<String>,
    refused: BTreeSet<String>,
    witnessed: BTreeSet<(u32, u64)>,
    newest: BTreeMap<i32, Row>,
    /// Lives of the pointer that are over.
    lives: BTreeSet<Incarnation>,
    latest: i64,
    /// The packed checkpoints that were read last, with their name.
    packed: (String, BTreeMap<ShardId, Checkpoint>),
}

#[derive(Debug, Clone, Default)]
struct Content {
    keys: Vec<(String, Option<i64>)>,
    live: Live,
}

macro_rules! invariant {
    ($holds:expr, $($message:tt)*) => {
        if !$holds {
            panic!("invariant {}", format_args!($($message)*));
        }
    };
}

impl Monitor {
    /// Watches a table from its creation on.
    #[must_use]
    pub fn new(context: TableContext) -> Self {
        Self {
            context,
            foreign: false,
            manifests: BTreeMap::new(),
            lists: BTreeMap::new(),
            contents: BTreeMap::new(),
            tips: BTreeSet::new(),
            seen: BTreeSet::new(),
            names: BTreeMap::new(),
            gone: BTreeSet::new(),
            deleted: BTreeSet::new(),
            added: BTreeSet::new(),
            refused: BTreeSet::new(),
            witnessed: BTreeSet::new(),
            newest: BTreeMap::new(),
            lives: BTreeSet::new(),
            latest: 0,
            packed: <(String, BTreeMap<_, _>)>::default(),
        }
    }

    /// Adds what is remembered. What was read once and never changes is in the world, too.
    pub(super) fn digest(&self, digest: &mut Digest) {
        digest.add(&(self.foreign, self.latest, &self.gone, &self.added, &self.refused, &self.witnessed));
        digest.add(&self.lives);
        digest.add(&(&self.names, &self.deleted));
    }

    pub(crate) fn context(&self) -> &TableContext {
        &self.context
    }

    /// The pointer as it is in the world.
    pub fn read_pointer(&self, world: &dyn View) -> Option<Pointer> {
        let record = world.pointer()?;
        Some(Pointer::from_record(&record, &self.context.location).unwrap_or_else(|e| panic!("{e}")))
    }

    /// The pointer was written: 3, 4, 8, 22, and what its snapshot says.
    pub fn pointer(&mut self, world: &dyn View, before: Option<&ItemRecord>, after: &ItemRecord) {
        let location = &self.context.location;
        let read = |record| Pointer::from_record(record, location).unwrap_or_else(|e| panic!("{e}"));
        let after = read(after);
        let size = after.to_record(location).map(|r| crate::pointer::record_bytes(&r.attributes));
        invariant!(size.is_ok_and(|s| s <= POINTER_BYTES), "22: pointer too large");
        let Some(before) = before.map(read) else {
            return self.look(world, false);
        };
        if before.incarnation == after.incarnation {
            let successor = before.check_successor(&after);
            invariant!(successor.is_ok(), "3/4: {successor:?}");
        } else {
            invariant!(after.rev > before.rev, "4: a restore must jump above {}", before.rev);
            invariant!(!self.lives.contains(&after.incarnation), "4: incarnation {} is over", after.incarnation);
            self.lives.insert(before.incarnation.clone());
        }
        for (shard, closed) in before.checkpoints.recent().filter(|(_, c)| c.closed) {
            let still = match after.checkpoints.get(shard) {
                Lookup::Found(now) => now.closed && now.position == closed.position,
                Lookup::Absent | Lookup::NotLoaded => true,
            };
            invariant!(still, "15: closed shard {shard} moved");
        }
        if after.version() != before.version() {
            let published = self.snapshot(world, before.version());
            let ours = published.as_ref().map(identity) == before.snapshot.as_ref().map(identity);
            let expired = after.earliest > before.version() && after.published == after.version();
            let excused = before.state == TableState::Forked || before.incarnation != after.incarnation || expired;
            invariant!(ours || excused, "8: {} committed, {} not published", after.version(), before.version());
            if before.incarnation == after.incarnation
                && let Some(snapshot) = &after.snapshot
            {
                if let Some(lost) = before.snapshot.as_ref().filter(|_| before.state == TableState::Forked) {
                    self.forget(world, lost);
                } else {
                    self.order(world, &before, &after, snapshot);
                }
                self.delta(world, snapshot);
            }
        }
        self.look(world, false);
    }

    /// 16: no slot has two owners, and a shard keeps its slot until it is closed; the next owner starts above its numbers.
    pub(crate) fn slots(&mut self, world: &dyn View, before: Option<&ItemRecord>, after: &ItemRecord) {
        let read = |record| slots::read(&self.context, record).unwrap_or_else(|e| panic!("invariant 16: {e}"));
        let (before, after) = (before.map(read).unwrap_or_default(), read(after));
        let checkpoints = self.read_pointer(world).map(|p| p.checkpoints.all()).unwrap_or_default();
        for (shard, reservation) in before.taken().filter(|(shard, _)| after.get(shard).is_none()) {
            let closed = checkpoints.get(shard).filter(|c| c.closed);
            invariant!(closed.is_some(), "16: {shard} lost slot {} and is not closed", reservation.slot);
        }
        for (shard, reservation) in after.taken() {
            let kept = before.get(shard).is_none_or(|b| b.slot == reservation.slot);
            invariant!(kept, "16: {shard} has another slot than before");
        }
    }

    /// 15: new rows are numbered above what their shard, and the parents that it closes, have given out.
    fn order(&mut self, world: &dyn View, before: &Pointer, after: &Pointer, snapshot: &Snapshot) {
        let closed = |shard: &ShardId| matches!(after.checkpoints.get(shard), Lookup::Found(c) if c.closed);
        let parents = before.checkpoints.recent().filter(|(shard, c)| !c.closed && closed(shard));
        let parents = parents.map(|(_, c)| c.last_sequence).max().unwrap_or(SequenceNumber(0));
        if snapshot.commit_kind != CommitKind::Append {
            return;
        }
        for entry in &self.entries(world, &snapshot.delta_manifest_list) {
            for row in self.rows(world, entry) {
                let Some(shard) = world.shard_of(&row) else { continue };
                let own = match before.checkpoints.get(&shard) {
                    Lookup::Found(checkpoint) => checkpoint.last_sequence,
                    Lookup::Absent | Lookup::NotLoaded => SequenceNumber(0),
                };
                let moves = matches!(after.checkpoints.get(&shard), Lookup::Found(_));
                let above = !moves || row.sequence > own.max(parents).0;
                invariant!(above, "15: {row:?} is not above {own} and its parents' {parents}");
            }
        }
    }

    /// A commit's own entries: 6, 19, 20.
    fn delta(&mut self, world: &dyn View, snapshot: &Snapshot) {
        let entries = self.entries(world, &snapshot.delta_manifest_list);
        let first_add = entries.iter().position(|e| e.kind == FileKind::Add).unwrap_or(entries.len());
        let late = entries.iter().skip(first_add).any(|e| e.kind == FileKind::Delete);
        invariant!(!late || self.foreign, "20: DELETE after ADD in snapshot {}", snapshot.id);
        let deletes = entries.iter().any(|e| e.kind == FileKind::Delete);
        invariant!(snapshot.commit_kind != CommitKind::Append || !deletes, "20: APPEND {} deletes", snapshot.id);
        for entry in &entries {
            let key = file_key(entry);
            match entry.kind {
                FileKind::Delete => drop(self.deleted.insert(key)),
                FileKind::Add => {
                    let again = self.deleted.contains(&key);
                    invariant!(!again, "19: {} added again in snapshot {}", entry.file.file_name, snapshot.id);
                    self.added.insert(entry.file.file_name.clone());
                    let path = codec::bucket_file(&self.context, entry, &entry.file.file_name).unwrap_or_default();
                    invariant!(!self.gone.contains(&path), "12: {path} was deleted, snapshot {} names it", snapshot.id);
                    let refused = self.refused.contains(&entry.file.file_name);
                    invariant!(!refused, "7: {} was answered as refused", entry.file.file_name);
                }
            }
            if entry.kind == FileKind::Add && snapshot.commit_kind == CommitKind::Append {
                for row in self.rows(world, entry) {
                    let new = self.witnessed.insert((row.shard, row.position));
                    invariant!(new, "6: {row:?} came twice, in snapshot {}", snapshot.id);
                    let best = self.newest.entry(row.key).or_insert(row);
                    if row.sequence > best.sequence {
                        *best = row;
                    }
                }
            }
        }
    }

    /// A snapshot of ours lost its name to a foreign one, or its pointer before it had one: its delta may come once more.
    pub fn forget(&mut self, world: &dyn View, lost: &Snapshot) {
        for entry in self.entries(world, &lost.delta_manifest_list) {
            for row in self.rows(world, &entry) {
                self.witnessed.remove(&(row.shard, row.position));
            }
        }
    }

    /// An object was put: 9, 10, 12.
    pub fn put(&mut self, world: &dyn View, key: &str) {
        let location = &self.context.location;
        match location.parse(None, key) {
            ObjectName::Snapshot(id) => {
                let Some(snapshot) = self.snapshot(world, id) else { return };
                let before = self.names.insert(id, identity(&snapshot));
                let same = before.is_none_or(|b| b == identity(&snapshot));
                invariant!(same || self.foreign, "9: snapshot-{id} got another uuid");
                invariant!(!self.gone.contains(key), "9/12: deleted name snapshot-{id} came back");
            }
            ObjectName::LatestHint => {
                let body = world.object(key).map(|o| String::from_utf8_lossy(&o).into_owned());
                let id: i64 = body.and_then(|b| b.parse().ok()).unwrap_or(0);
                invariant!(id >= self.latest, "10: LATEST fell from {} to {id}", self.latest);
                invariant!(self.snapshot(world, SnapshotId(id)).is_some(), "10: LATEST names {id}, which is not there");
                self.latest = id;
            }
            // A put that was under way when its object was swept brings back an orphan; naming it would be wrong.
            _ => {}
        }
    }

    /// Objects were deleted: 11, 12.
    pub fn deleted(&mut self, world: &dyn View, keys: &[String]) {
        self.gone.extend(keys.iter().cloned());
        self.check(world);
    }

    /// Everything that is reachable: 10, 11, 12, 13, 14, 20, 9 (contiguous).
    pub fn check(&mut self, world: &dyn View) {
        self.look(world, true);
    }

    /// As [`Self::check`]. Objects go only by deletes, which look at `all` that any snapshot names; other writes at what is new.
    fn look(&mut self, world: &dyn View, all: bool) {
        let Some(pointer) = self.read_pointer(world) else { return };
        let ids = self.snapshot_ids(world);
        let current: Vec<SnapshotId> = ids.iter().copied().filter(|id| *id >= pointer.earliest).collect();
        let contiguous = current.windows(2).all(|w| w[1] == w[0].next());
        invariant!(contiguous, "9: names are not contiguous: {current:?}");
        if pointer.published > SnapshotId(0) && !self.foreign {
            let latest = self.latest.max(1);
            invariant!(ids.contains(&SnapshotId(latest)), "10: LATEST {latest} is gone");
        }
        for id in current {
            if (all || !self.seen.contains(&id))
                && let Some(snapshot) = self.snapshot(world, id)
            {
                self.reachable(world, &snapshot);
                self.seen.insert(id);
            }
        }
        let current = pointer.snapshot.filter(|_| pointer.state != TableState::Forked);
        if let Some(snapshot) = current
            && (self.reachable(world, &snapshot) || self.tips.insert(snapshot.id))
        {
            let live = self.live(&snapshot);
            self.tip(world, &snapshot, &live.live);
        }
    }

    /// 11: the objects that a snapshot names are there, with the sizes on record. True if it was seen for the first time.
    fn reachable(&mut self, world: &dyn View, snapshot: &Snapshot) -> bool {
        let name = format!("{} {}", snapshot.base_manifest_list, snapshot.delta_manifest_list);
        let new = !self.contents.contains_key(&name);
        if new {
            let content = self.read(world, snapshot);
            self.contents.insert(name.clone(), Arc::new(content));
        }
        for (key, size) in self.contents.get(&name).map(|c| c.keys.as_slice()).unwrap_or_default() {
            self.exists(world, key, *size);
        }
        new
    }

    /// Live files of a snapshot.
    pub fn live_files(&mut self, world: &dyn View, snapshot: &Snapshot) -> Vec<ManifestEntry> {
        self.reachable(world, snapshot);
        self.live(snapshot).live.files().cloned().collect()
    }

    /// Entries of all manifests of a list.
    pub fn entries(&mut self, world: &dyn View, list: &str) -> Vec<ManifestEntry> {
        let metas = self.list(world, list);
        metas.iter().flat_map(|meta| self.manifest(world, meta).as_ref().clone()).collect()
    }

    fn live(&self, snapshot: &Snapshot) -> Arc<Content> {
        let name = format!("{} {}", snapshot.base_manifest_list, snapshot.delta_manifest_list);
        self.contents.get(&name).cloned().unwrap_or_default()
    }

    fn read(&mut self, world: &dyn View, snapshot: &Snapshot) -> Content {
        let lists = [
            (&snapshot.base_manifest_list, snapshot.base_manifest_list_size),
            (&snapshot.delta_manifest_list, snapshot.delta_manifest_list_size),
        ];
        let (mut entries, mut keys) = (Vec::new(), Vec::new());
        for (name, size) in lists {
            keys.push((self.context.location.manifest(name), size));
            for meta in self.list(world, name).iter() {
                keys.push((self.context.location.manifest(&meta.file_name), Some(meta.file_size)));
                entries.extend_from_slice(&self.manifest(world, meta));
            }
        }
        let live = Live::replay(entries);
        for entry in live.files() {
            let key = codec::bucket_file(&self.context, entry, &entry.file.file_name).unwrap_or_else(|e| panic!("{e}"));
            keys.push((key, Some(entry.file.file_size)));
        }
        let rows: i64 = live.files().map(|e| e.file.row_count).sum();
        let total = snapshot.total_record_count;
        invariant!(total.is_none_or(|t| t == rows), "20: snapshot {} says {total:?} rows, it has {rows}", snapshot.id);
        Content { keys, live }
    }

    fn exists(&self, world: &dyn View, key: &str, size: Option<i64>) {
        let found = world.object(key).map(|o| i64::try_from(o.len()).unwrap_or(0));
        let fits = found.is_some_and(|f| size.is_none_or(|s| s == f));
        invariant!(fits, "11/12: {key} has {found:?} bytes, {size:?} on record, deleted: {}", self.gone.contains(key));
    }

    fn tip(&self, world: &dyn View, snapshot: &Snapshot, live: &Live) {
        let overlap = conflict::overlap(&self.context, live.files());
        invariant!(overlap.is_none(), "13: in snapshot {}: {overlap:?}", snapshot.id);
        let mut seen = BTreeSet::new();
        for entry in live.files() {
            for row in self.rows(world, entry) {
                let new = seen.insert((entry.partition.clone(), entry.bucket, row.key, row.sequence));
                invariant!(new, "14: {row:?} twice in snapshot {}", snapshot.id);
            }
        }
    }

    /// A staged item was written: an answer is one of something committed and published (5), and no item grows too large.
    pub(crate) fn staged(&mut self, world: &dyn View, before: Option<&ItemRecord>, after: &ItemRecord) {
        let size = crate::pointer::record_bytes(&after.attributes);
        invariant!(size <= staged::STAGED_BYTES, "22: a staged item of {size} bytes");
        let (Some(before), Some(after)) = (before.and_then(Staged::from_record), Staged::from_record(after)) else {
            return;
        };
        let State::Committed { snapshot, rev } = after.state else { return };
        let Some(pointer) = self.read_pointer(world) else { panic!("answered without a pointer") };
        invariant!(rev <= pointer.rev, "5: answered with revision {rev}, the pointer is at {}", pointer.rev);
        let there = snapshot.is_none_or(|id| self.snapshot(world, id).is_some() || id < pointer.earliest);
        invariant!(there, "5: snapshot {snapshot:?} answered, not published");
        let packed = match before.state {
            State::Pending(staged::Content::Inline(packed)) if before.id == after.id => Some(packed),
            State::Pending(staged::Content::Object(name)) if before.id == after.id => {
                world.object(&self.context.key(&name))
            }
            _ => None,
        };
        if let Some(change) = packed.and_then(|packed| staged::unpack(&packed).ok()) {
            self.answered(world, &change, &Outcome::Committed { snapshot, rev, already: false });
        }
    }

    /// A machine answered: 5 and 7.
    pub fn answered(&mut self, world: &dyn View, change: &Change, outcome: &Outcome) {
        let names = change.files.iter().filter(|e| e.kind == FileKind::Add).map(|e| e.file.file_name.clone());
        match outcome {
            Outcome::Unknown { .. } => {}
            Outcome::Conflict(conflict) => {
                for name in names {
                    invariant!(!self.added.contains(&name), "7: {name} is in the table, answered {conflict}");
                    self.refused.insert(name);
                }
            }
            Outcome::Committed { .. } => {
                let Some(pointer) = self.read_pointer(world) else { panic!("committed without a pointer") };
                for range in &change.ranges {
                    let covered = self.position(world, &pointer, &range.shard) >= Some(range.to);
                    invariant!(covered, "5: {range:?} acknowledged, not covered");
                }
                let Outcome::Committed { snapshot: Some(id), .. } = outcome else { return };
                let published = self.snapshot(world, *id);
                let there = published.is_some() || *id < pointer.earliest;
                invariant!(there, "5: snapshot {id} acknowledged, not published");
                let ours = pointer.snapshot.as_ref().filter(|s| s.id == *id).zip(published.as_ref());
                let same = ours.is_none_or(|(ours, there)| identity(ours) == identity(there));
                invariant!(same, "5: snapshot {id} acknowledged, another one stands in its place");
            }
        }
    }

    /// How far a shard is covered, its packed object read once.
    fn position(&mut self, world: &dyn View, pointer: &Pointer, shard: &ShardId) -> Option<Position> {
        match pointer.checkpoints.get(shard) {
            Lookup::Found(checkpoint) => return Some(checkpoint.position),
            Lookup::Absent => return None,
            Lookup::NotLoaded => {}
        }
        let name = pointer.checkpoints.packed_object()?;
        if self.packed.0 != name {
            let body = world.object(&self.context.key(name)).unwrap_or_default();
            let others = Checkpoints::unpack_others(name, &body).unwrap_or_else(|e| panic!("{name}: {e}"));
            self.packed = (name.to_owned(), others);
        }
        self.packed.1.get(shard).map(|checkpoint| checkpoint.position)
    }

    /// Newest row of each key in the current snapshot: compared with an oracle by the caller (1, 2).
    pub fn newest(&mut self, world: &dyn View) -> BTreeMap<i32, Row> {
        let mut newest: BTreeMap<i32, Row> = BTreeMap::new();
        let Some(snapshot) = self.read_pointer(world).and_then(|p| p.snapshot) else { return newest };
        self.reachable(world, &snapshot);
        for entry in self.live(&snapshot).live.files() {
            for row in self.rows(world, entry) {
                let best = newest.entry(row.key).or_insert(row);
                if row.sequence > best.sequence {
                    *best = row;
                }
            }
        }
        newest
    }

    /// Every (shard, position) that some APPEND brought.
    #[must_use]
    pub fn witnessed(&self) -> &BTreeSet<(u32, u64)> {
        &self.witnessed
    }

    /// Newest row of each key that any APPEND brought.
    #[must_use]
    pub fn newest_witnessed(&self) -> &BTreeMap<i32, Row> {
        &self.newest
    }

    fn rows(&self, world: &dyn View, entry: &ManifestEntry) -> Vec<Row> {
        let key = codec::bucket_file(&self.context, entry, &entry.file.file_name).unwrap_or_else(|e| panic!("{e}"));
        world.object(&key).map(|o| world.rows(entry, &o)).unwrap_or_default()
    }

    /// Ids of the snapshots that are there.
    #[must_use]
    pub fn snapshot_ids(&self, world: &dyn View) -> Vec<SnapshotId> {
        let location = &self.context.location;
        let mut ids: Vec<SnapshotId> = world
            .keys(&location.snapshot_prefix())
            .iter()
            .filter_map(|key| match location.parse(None, key) {
                ObjectName::Snapshot(id) => Some(id),
                _ => None,
            })
            .collect();
        ids.sort_unstable();
        ids
    }

    /// A published snapshot.
    #[must_use]
    pub fn snapshot(&self, world: &dyn View, id: SnapshotId) -> Option<Snapshot> {
        let key = self.context.location.snapshot(id);
        let object = world.object(&key)?;
        Some(codec::decode_snapshot(&key, &object).unwrap_or_else(|e| panic!("{e}")))
    }

    fn list(&mut self, world: &dyn View, name: &str) -> Arc<Vec<ManifestFileMeta>> {
        let key = self.context.location.manifest(name);
        let Some(object) = world.object(&key) else { panic!("invariant 11: {key} is not there") };
        let read = || Arc::new(codec::decode_list(&key, &object).unwrap_or_else(|e| panic!("{e}")));
        self.lists.entry(key.clone()).or_insert_with(read).clone()
    }

    fn manifest(&mut self, world: &dyn View, meta: &ManifestFileMeta) -> Arc<Vec<ManifestEntry>> {
        let key = self.context.location.manifest(&meta.file_name);
        self.exists(world, &key, Some(meta.file_size));
        let Some(object) = world.object(&key) else { panic!("invariant 11: {key} is not there") };
        let read = || Arc::new(codec::decode_manifest(&key, &object).unwrap_or_else(|e| panic!("{e}")));
        let entries = self.manifests.entry(key.clone()).or_insert_with(read).clone();
        let counts = (count(&entries, FileKind::Add), count(&entries, FileKind::Delete));
        invariant!(counts == (meta.num_added_files, meta.num_deleted_files), "20: counts of {key}");
        entries
    }
}

fn identity(snapshot: &Snapshot) -> (Option<String>, String, CommitIdentifier) {
    (snapshot.uuid.clone(), snapshot.commit_user.clone(), snapshot.commit_identifier)
}

/// True if the snapshot was committed under a pointer of this product.
#[must_use]
pub fn is_ours(snapshot: &Snapshot) -> bool {
    Incarnation::is_ours(&snapshot.commit_user)
}
