//! Watches every write of a [`World`] and stops at the first broken invariant of architecture.md section 3.
//!
//! Neighbours: `world` calls it; `schedule` tells it what was acknowledged and refused. Numbers in messages are the invariants'.
//! Invariant: 1. it reads only what is in the world, never what a protocol believes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use siltstone_format::{
    id::{CommitIdentifier, SequenceNumber, SnapshotId},
    manifest::{FileKind, ManifestEntry, ManifestFileMeta},
    path::ObjectName,
    snapshot::{CommitKind, Snapshot},
};

use super::{
    explore::Digest,
    fixture::{self, Row},
    world::World,
};
use crate::{
    changes::{Change, Outcome},
    checkpoint::{Checkpoints, Lookup, RangeFit, ShardId},
    codec, conflict,
    context::{Incarnation, TableContext},
    io::{ItemName, ItemRecord},
    manifests::{FileKey, Live, count, file_key},
    pointer::{POINTER_BYTES, Pointer, TableState},
    protocol::slots,
};

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
    pub(crate) fn new(context: TableContext) -> Self {
        Self {
            context,
            foreign: false,
            manifests: BTreeMap::new(),
            lists: BTreeMap::new(),
            contents: BTreeMap::new(),
            tips: BTreeSet::new(),
            names: BTreeMap::new(),
            gone: BTreeSet::new(),
            deleted: BTreeSet::new(),
            added: BTreeSet::new(),
            refused: BTreeSet::new(),
            witnessed: BTreeSet::new(),
            newest: BTreeMap::new(),
            lives: BTreeSet::new(),
            latest: 0,
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
    pub fn read_pointer(&self, world: &World) -> Option<Pointer> {
        let record = world.items.get(&ItemName::Pointer)?;
        Some(Pointer::from_record(record, &self.context.location).unwrap_or_else(|e| panic!("{e}")))
    }

    pub(crate) fn pointer(&mut self, world: &World, before: Option<&ItemRecord>, after: &ItemRecord) {
        let location = &self.context.location;
        let read = |record| Pointer::from_record(record, location).unwrap_or_else(|e| panic!("{e}"));
        let after = read(after);
        let size = after.to_record(location).map(|r| crate::pointer::record_bytes(&r.attributes));
        invariant!(size.is_ok_and(|s| s <= POINTER_BYTES), "22: pointer too large");
        let Some(before) = before.map(read) else {
            return self.check(world);
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
        self.check(world);
    }

    /// 16: no slot has two owners, and a shard keeps its slot until it is closed; the next owner starts above its numbers.
    pub(crate) fn slots(&mut self, world: &World, before: Option<&ItemRecord>, after: &ItemRecord) {
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
    fn order(&mut self, world: &World, before: &Pointer, after: &Pointer, snapshot: &Snapshot) {
        let closed = |shard: &ShardId| matches!(after.checkpoints.get(shard), Lookup::Found(c) if c.closed);
        let parents = before.checkpoints.recent().filter(|(shard, c)| !c.closed && closed(shard));
        let parents = parents.map(|(_, c)| c.last_sequence).max().unwrap_or(SequenceNumber(0));
        for meta in self.list(world, &snapshot.delta_manifest_list).iter() {
            for entry in self.manifest(world, meta).iter().filter(|_| snapshot.commit_kind == CommitKind::Append) {
                for row in self.rows(world, entry) {
                    let own = match before.checkpoints.get(&fixture::shard(row.shard)) {
                        Lookup::Found(checkpoint) => checkpoint.last_sequence,
                        Lookup::Absent | Lookup::NotLoaded => SequenceNumber(0),
                    };
                    let moves = matches!(after.checkpoints.get(&fixture::shard(row.shard)), Lookup::Found(_));
                    let above = !moves || row.sequence > own.max(parents).0;
                    invariant!(above, "15: {row:?} is not above {own} and its parents' {parents}");
                }
            }
        }
    }

    /// A commit's own entries: 6, 19, 20.
    fn delta(&mut self, world: &World, snapshot: &Snapshot) {
        let metas = self.list(world, &snapshot.delta_manifest_list);
        let mut entries = Vec::new();
        for meta in metas.iter() {
            entries.extend_from_slice(&self.manifest(world, meta));
        }
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

    /// A snapshot of ours lost its name to a foreign one: its delta may come once more.
    fn forget(&mut self, world: &World, lost: &Snapshot) {
        for meta in self.list(world, &lost.delta_manifest_list).iter() {
            for entry in self.manifest(world, meta).iter() {
                for row in self.rows(world, entry) {
                    self.witnessed.remove(&(row.shard, row.position));
                }
            }
        }
    }

    pub(crate) fn put(&mut self, world: &World, key: &str) {
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
                let body = world.objects.get(key).map(|o| String::from_utf8_lossy(&o.body).into_owned());
                let id: i64 = body.and_then(|b| b.parse().ok()).unwrap_or(0);
                invariant!(id >= self.latest, "10: LATEST fell from {} to {id}", self.latest);
                invariant!(self.snapshot(world, SnapshotId(id)).is_some(), "10: LATEST names {id}, which is not there");
                self.latest = id;
            }
            _ => invariant!(!self.gone.contains(key), "12: {key} was deleted and is written again"),
        }
    }

    pub(crate) fn deleted(&mut self, world: &World, keys: &[String]) {
        self.gone.extend(keys.iter().cloned());
        self.check(world);
    }

    /// Everything that is reachable: 10, 11, 12, 13, 14, 20, 9 (contiguous).
    pub fn check(&mut self, world: &World) {
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
            if let Some(snapshot) = self.snapshot(world, id) {
                self.reachable(world, &snapshot);
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
    fn reachable(&mut self, world: &World, snapshot: &Snapshot) -> bool {
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

    fn live(&self, snapshot: &Snapshot) -> Arc<Content> {
        let name = format!("{} {}", snapshot.base_manifest_list, snapshot.delta_manifest_list);
        self.contents.get(&name).cloned().unwrap_or_default()
    }

    fn read(&mut self, world: &World, snapshot: &Snapshot) -> Content {
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

    fn exists(&self, world: &World, key: &str, size: Option<i64>) {
        let found = world.objects.get(key).map(|o| i64::try_from(o.body.len()).unwrap_or(0));
        let fits = found.is_some_and(|f| size.is_none_or(|s| s == f));
        invariant!(fits, "11/12: {key} has {found:?} bytes, {size:?} on record, deleted: {}", self.gone.contains(key));
    }

    fn tip(&self, world: &World, snapshot: &Snapshot, live: &Live) {
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

    /// A machine answered: 5 and 7.
    pub fn answered(&mut self, world: &World, change: &Change, outcome: &Outcome) {
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
                let mut checkpoints = pointer.checkpoints.clone();
                let packed = checkpoints.packed_object().map(str::to_owned);
                if let Some(name) = packed
                    && let Some(object) = world.objects.get(&self.context.key(&name))
                {
                    checkpoints.load_others(Checkpoints::unpack_others(&name, &object.body).unwrap_or_default());
                }
                for range in &change.ranges {
                    invariant!(checkpoints.fit(range) == RangeFit::Covered, "5: {range:?} acknowledged, not covered");
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

    /// Newest row of each key in the current snapshot: compared with an oracle by the caller (1, 2).
    pub fn newest(&mut self, world: &World) -> BTreeMap<i32, Row> {
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

    fn rows(&self, world: &World, entry: &ManifestEntry) -> Vec<Row> {
        let key = codec::bucket_file(&self.context, entry, &entry.file.file_name).unwrap_or_else(|e| panic!("{e}"));
        world.objects.get(&key).map(|o| fixture::rows(&o.body)).unwrap_or_default()
    }

    /// Ids of the snapshots that are there.
    #[must_use]
    pub fn snapshot_ids(&self, world: &World) -> Vec<SnapshotId> {
        let location = &self.context.location;
        let mut ids: Vec<SnapshotId> = world
            .objects
            .range(location.snapshot_prefix()..)
            .take_while(|(key, _)| key.starts_with(&location.snapshot_prefix()))
            .filter_map(|(key, _)| match location.parse(None, key) {
                ObjectName::Snapshot(id) => Some(id),
                _ => None,
            })
            .collect();
        ids.sort_unstable();
        ids
    }

    /// A published snapshot.
    #[must_use]
    pub fn snapshot(&self, world: &World, id: SnapshotId) -> Option<Snapshot> {
        let key = self.context.location.snapshot(id);
        let object = world.objects.get(&key)?;
        Some(codec::decode_snapshot(&key, &object.body).unwrap_or_else(|e| panic!("{e}")))
    }

    fn list(&mut self, world: &World, name: &str) -> Arc<Vec<ManifestFileMeta>> {
        let key = self.context.location.manifest(name);
        let Some(object) = world.objects.get(&key) else { panic!("invariant 11: {key} is not there") };
        let read = || Arc::new(codec::decode_list(&key, &object.body).unwrap_or_else(|e| panic!("{e}")));
        self.lists.entry(key.clone()).or_insert_with(read).clone()
    }

    fn manifest(&mut self, world: &World, meta: &ManifestFileMeta) -> Arc<Vec<ManifestEntry>> {
        let key = self.context.location.manifest(&meta.file_name);
        self.exists(world, &key, Some(meta.file_size));
        let Some(object) = world.objects.get(&key) else { panic!("invariant 11: {key} is not there") };
        let read = || Arc::new(codec::decode_manifest(&key, &object.body).unwrap_or_else(|e| panic!("{e}")));
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
