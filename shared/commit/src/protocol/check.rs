//! Reads everything that is reachable and says what is wrong; changes nothing, and goes on after a finding where it can.
//!
//! Neighbours: `silt check` prints the findings. Invariant: 1. no effect of this protocol writes; 2. a finding names one object and what to do.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use siltstone_format::{
    id::SnapshotId,
    manifest::{FileKind, ManifestEntry, ManifestFileMeta},
    path::{ObjectName, parse_hint},
    snapshot::{Snapshot, is_sealed},
};

use super::{bare, packed, tip};
use crate::{
    codec, conflict,
    context::{Authority, Incarnation, TableContext},
    error::CommitError,
    io::{Io, Object},
    manifests::{self, Live, count},
    pointer::{PROPERTY_SCHEMA, Pointer, TableState},
    steps,
};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Readers or later runs cope; it is mended by the next commit or maintenance.
    Note,
    /// Somebody has to act.
    Error,
}

/// Something that `check` found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Object key or item.
    pub object: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = if self.severity == Severity::Error { "error" } else { "note" };
        write!(f, "{severity}: {}: {}", self.object, self.message)
    }
}

/// A data or changelog file that a snapshot or tag reaches, and that is there with the right size: what a deep check reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReachedFile {
    /// Its description, as the first manifest that was read has it.
    pub entry: ManifestEntry,
    /// Whether it is a changelog file.
    pub changelog: bool,
}

/// What was looked at, and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checked {
    /// What is wrong, in order of discovery.
    pub findings: Vec<Finding>,
    /// Snapshots read.
    pub snapshots: u64,
    /// Manifests read.
    pub manifests: u64,
    /// Live data files of the current snapshot.
    pub live_files: u64,
    /// Files of all snapshots and tags, by object key.
    pub files: BTreeMap<String, ReachedFile>,
}

struct Checker<'a> {
    io: &'a Io,
    context: &'a TableContext,
    /// Sizes of all objects below the table.
    sizes: BTreeMap<String, u64>,
    seen: BTreeMap<String, Vec<ManifestEntry>>,
    /// Checksums of schema objects, by key.
    schemas: BTreeMap<String, String>,
    result: Checked,
}

pub(crate) async fn run(io: Io, context: TableContext) -> Result<Checked, CommitError> {
    let step = steps::CHECK_READ;
    let pointer = match context.authority {
        Authority::Pointer => Some(tip::load_pointer(&io, step, &context).await?),
        Authority::Bare => None,
    };
    let objects = io.list(step, context.key("")).await?;
    let sizes = objects.into_iter().map(|o| (o.key, o.size)).collect();
    let (seen, schemas, result) = (BTreeMap::new(), BTreeMap::new(), Checked::default());
    let mut checker = Checker { io: &io, context: &context, sizes, seen, schemas, result };
    checker.hints();
    let current = match &pointer {
        Some(pointer) => {
            checker.pointer(pointer).await?;
            pointer.snapshot.clone()
        }
        None => bare::latest(&io, &context).await?,
    };
    let first = pointer.as_ref().map_or(SnapshotId::FIRST, |p| p.earliest);
    checker.snapshots(first, current.as_ref()).await?;
    checker.tags().await?;
    Ok(checker.result)
}

impl Checker<'_> {
    fn error(&mut self, object: impl Into<String>, message: impl Into<String>) {
        let finding = Finding { severity: Severity::Error, object: object.into(), message: message.into() };
        if !self.result.findings.iter().any(|f| f.object == finding.object && f.severity == finding.severity) {
            self.result.findings.push(finding);
        }
    }

    fn note(&mut self, object: impl Into<String>, message: impl Into<String>) {
        let (object, message) = (object.into(), message.into());
        self.result.findings.push(Finding { severity: Severity::Note, object, message });
    }

    fn ids(&self) -> Vec<SnapshotId> {
        let mut ids: Vec<SnapshotId> = self
            .sizes
            .keys()
            .filter_map(|key| match self.context.location.parse(None, key) {
                ObjectName::Snapshot(id) => Some(id),
                _ => None,
            })
            .collect();
        ids.sort_unstable();
        ids
    }

    /// A hint that is too low costs readers a listing; a LATEST that names nothing breaks Java and paimon-rust.
    fn hints(&mut self) {
        let latest = self.context.location.latest_hint();
        if !self.sizes.contains_key(&latest) && !self.ids().is_empty() {
            self.note(latest, "it does not exist; the next commit writes it");
        }
    }

    async fn pointer(&mut self, pointer: &Pointer) -> Result<(), CommitError> {
        let version = pointer.version();
        match pointer.state {
            TableState::Forked => self.error("item pointer", "the table is forked; run `silt repair`"),
            TableState::Paused => self.note("item pointer", "the table is paused; no commit is taken"),
            TableState::Active => {}
        }
        let ids = self.ids();
        if let Some(above) = ids.last().filter(|id| **id > version) {
            let message = format!(
                "it is above the pointer's snapshot {version}; the next commit adopts it, or `silt repair` restores"
            );
            self.error(self.context.location.snapshot(*above), message);
        }
        // Others may expire, too: what is missing below the oldest that is left was not rolled back.
        let oldest = ids.first().filter(|oldest| **oldest > pointer.earliest);
        let end = version.0.saturating_add(1);
        if let Some(oldest) = oldest.filter(|_| pointer.earliest <= version) {
            let until = oldest.0.min(end) - 1;
            self.note(
                self.context.location.snapshot(pointer.earliest),
                format!("another engine expired snapshots {} to {until}", pointer.earliest),
            );
        }
        let from = oldest.map_or(pointer.earliest.0, |oldest| oldest.0);
        let missing = (from..end).map(SnapshotId).find(|id| ids.binary_search(id).is_err());
        match missing {
            Some(id) if id == version && pointer.published < version => {
                self.note(
                    self.context.location.snapshot(id),
                    "it is committed and not yet published; the next commit publishes it",
                );
            }
            Some(id) => self.error(
                self.context.location.snapshot(id),
                "it was published and is gone; another engine may have rolled the table back: run `silt repair`",
            ),
            None => {}
        }
        let mut checkpoints = pointer.checkpoints.clone();
        if let Err(error) = packed::load_others(self.io, steps::CHECK_READ, self.context, &mut checkpoints).await {
            self.error("item pointer", format!("its packed checkpoints cannot be read: {error}"));
        }
        Ok(())
    }

    async fn snapshots(&mut self, first: SnapshotId, current: Option<&Snapshot>) -> Result<(), CommitError> {
        let context = self.context;
        for hint in [context.location.latest_hint(), context.location.earliest_hint()] {
            let object = self.get(&hint).await?;
            if object.is_some_and(|o| parse_hint(&o.body).is_none()) {
                self.note(hint, "it holds no snapshot id; readers list the snapshots instead, and the next commit or expiry writes it");
            }
        }
        let hint = self.get(&context.location.latest_hint()).await?.and_then(|o| parse_hint(&o.body));
        let ids: Vec<SnapshotId> = self.ids().into_iter().filter(|id| *id >= first).collect();
        if let Some(id) = hint.filter(|id| !self.sizes.contains_key(&context.location.snapshot(*id))) {
            self.error(
                context.location.latest_hint(),
                format!("it names {}, which does not exist", context.location.snapshot(id)),
            );
        } else if let Some((id, last)) = hint.zip(ids.last()).filter(|(id, last)| *id < **last) {
            let message = format!(
                "it names snapshot {id}, the newest is {last}; readers look on from there, and the next commit writes it"
            );
            self.note(context.location.latest_hint(), message);
        }
        self.earliest(&ids).await?;
        if context.authority == Authority::Bare
            && let Some(pair) = ids.windows(2).find(|pair| matches!(pair, [one, next] if one.next() < *next))
            && let [one, ..] = pair
        {
            self.error(
                context.location.snapshot(one.next()),
                "it does not exist between others; restore it from a backup",
            );
        }
        let mut before: Option<Snapshot> = None;
        for id in ids {
            let key = context.location.snapshot(id);
            let Some(object) = self.get(&key).await? else { continue };
            let Some(snapshot) = self.found(&key, codec::decode_snapshot(&key, &object.body))? else { continue };
            if Incarnation::is_ours(&snapshot.commit_user) && !is_sealed(&object.body) {
                self.note(
                    &key,
                    "it is Siltstone's and has no checksum: it is of before there were any, or damaged just there",
                );
            }
            self.result.snapshots += 1;
            let ours = current.filter(|c| c.id == id);
            if ours.is_some_and(|c| !tip::same_snapshot(c, &snapshot)) {
                self.error(
                    &key,
                    "it is not the one that the pointer names: another engine wrote over it; run `silt repair`",
                );
            }
            if before.as_ref().is_some_and(|b| b.time_millis > snapshot.time_millis) {
                self.note(&key, "it is dated before its predecessor; time travel may miss it");
            }
            let live = self.content(&key, &snapshot).await?;
            if ours.is_some() {
                self.tip(&key, &live);
            }
            before = Some(snapshot);
        }
        Ok(())
    }

    /// Java takes an EARLIEST that exists at its word: one that is too high hides snapshots.
    async fn earliest(&mut self, ids: &[SnapshotId]) -> Result<(), CommitError> {
        let (step, context) = (steps::CHECK_READ, self.context);
        let key = context.location.earliest_hint();
        let hint = self.get(&key).await?.map(|o| parse_hint(&o.body));
        let Some(first) = ids.first() else { return Ok(()) };
        match hint {
            Some(Some(id)) if !self.sizes.contains_key(&context.location.snapshot(id)) => {
                let name = context.location.snapshot(id);
                self.note(key, format!("it names {name}, which does not exist: an expiry was cut off, or it is lost; readers list the snapshots"));
            }
            // Unless an expiry ran since the listing.
            Some(Some(id)) if id > *first && self.io.get(step, context.location.snapshot(*first)).await?.is_some() => {
                let message = format!(
                    "it names snapshot {id}, the earliest is {first}: readers that trust it miss those between; delete it, and the next expiry writes it"
                );
                self.error(key, message);
            }
            _ => {}
        }
        Ok(())
    }

    /// The schema of a snapshot: there, and with the bytes that the snapshot was committed under.
    async fn schema(&mut self, by: &str, snapshot: &Snapshot) -> Result<(), CommitError> {
        let key = self.context.location.schema(snapshot.schema_id);
        if !self.sizes.contains_key(&key) {
            self.error(key, format!("{by} needs it and it does not exist"));
            return Ok(());
        }
        let Some(said) = snapshot.properties.as_ref().and_then(|p| p.get(PROPERTY_SCHEMA)) else { return Ok(()) };
        let sum = match self.schemas.get(&key) {
            Some(sum) => sum.clone(),
            None => {
                let object = self.get(&key).await?;
                object.map_or_else(String::new, |o| format!("{:08x}", crc32fast::hash(&o.body)))
            }
        };
        if sum != *said {
            self.error(
                &key,
                format!("it does not have the checksum that {by} was committed with; restore it from a backup"),
            );
        }
        self.schemas.insert(key, sum);
        Ok(())
    }

    /// Lists, manifests and files of a snapshot.
    async fn content(&mut self, key: &str, snapshot: &Snapshot) -> Result<Live, CommitError> {
        self.schema(key, snapshot).await?;
        let lists = [
            (&snapshot.base_manifest_list, snapshot.base_manifest_list_size),
            (&snapshot.delta_manifest_list, snapshot.delta_manifest_list_size),
        ];
        let mut entries = Vec::new();
        let mut complete = true;
        for (name, size) in lists {
            match self.list(key, name, size).await? {
                Some(metas) => {
                    for meta in metas {
                        match self.manifest(&meta).await? {
                            Some(found) => entries.extend(found),
                            None => complete = false,
                        }
                    }
                }
                None => complete = false,
            }
        }
        let live = Live::replay(entries);
        for entry in live.files() {
            self.file(key, entry, false);
        }
        self.beside(key, snapshot).await?;
        let rows: i64 = live.files().map(|e| e.file.row_count).sum();
        if complete && snapshot.total_record_count.is_some_and(|total| total != rows) {
            let total = snapshot.total_record_count.unwrap_or(0);
            self.error(key, format!("it says {total} records, its files hold {rows}"));
        }
        Ok(live)
    }

    /// What a snapshot names beside its data: changelog, index, statistics.
    async fn beside(&mut self, key: &str, snapshot: &Snapshot) -> Result<(), CommitError> {
        let changelog = snapshot.changelog_manifest_list.as_ref();
        let is_tag = key.starts_with(&self.context.location.tag_prefix());
        if let Some(name) =
            changelog.filter(|name| is_tag && !self.sizes.contains_key(&self.context.location.manifest(name)))
        {
            let message =
                format!("its changelog, {name}, went when another engine expired its snapshot; its rows are all there");
            self.note(key, message);
        } else if let Some(name) = changelog {
            for meta in self.list(key, name, snapshot.changelog_manifest_list_size).await?.unwrap_or_default() {
                for entry in self.manifest(&meta).await?.unwrap_or_default() {
                    self.file(key, &entry, true);
                }
            }
        }
        if let Some(name) = &snapshot.index_manifest {
            self.sized(key, &self.context.location.manifest(name), None);
        }
        if let Some(name) = &snapshot.statistics {
            self.sized(key, &self.context.location.statistics(name), None);
        }
        Ok(())
    }

    /// Tags, and what branches hold: snapshots that are kept for their own sake.
    async fn tags(&mut self) -> Result<(), CommitError> {
        let is_branch = |key: &str| {
            let name = key.rsplit('/').next().unwrap_or_default();
            name.starts_with("snapshot-") || name.starts_with("tag-")
        };
        let (tags, branches) = (self.context.location.tag_prefix(), self.context.key("branch/branch-"));
        let keys: Vec<String> = self
            .sizes
            .keys()
            .filter(|k| k.starts_with(&tags) || (k.starts_with(&branches) && is_branch(k)))
            .cloned()
            .collect();
        for key in keys {
            let Some(object) = self.get(&key).await? else { continue };
            if let Some(tag) = self.found(&key, codec::decode_snapshot(&key, &object.body))? {
                self.content(&key, &tag).await?;
            }
        }
        Ok(())
    }

    fn tip(&mut self, key: &str, live: &Live) {
        self.result.live_files = live.files().count() as u64;
        if let Some(overlap) = conflict::overlap(self.context, live.files()) {
            self.error(key, format!("{overlap}: readers see rows twice; compact the bucket fully"));
        }
        let totals: BTreeSet<_> = live.files().map(|e| (&e.partition, e.total_buckets)).collect();
        let partitions: BTreeSet<_> = live.files().map(|e| &e.partition).collect();
        if totals.len() > partitions.len() {
            self.error(key, "a partition has files of two bucket counts; overwrite it");
        }
    }

    async fn list(
        &mut self,
        snapshot: &str,
        name: &str,
        size: Option<i64>,
    ) -> Result<Option<Vec<ManifestFileMeta>>, CommitError> {
        let key = self.context.location.manifest(name);
        if !self.sized(snapshot, &key, size) {
            return Ok(None);
        }
        match manifests::read_list(self.io, steps::CHECK_READ, self.context, name).await {
            Ok(list) => Ok(list),
            Err(error) => self.found(&key, Err(error)),
        }
    }

    async fn manifest(&mut self, meta: &ManifestFileMeta) -> Result<Option<Vec<ManifestEntry>>, CommitError> {
        if let Some(entries) = self.seen.get(&meta.file_name) {
            return Ok(Some(entries.clone()));
        }
        let key = self.context.location.manifest(&meta.file_name);
        if !self.sized("a manifest list", &key, Some(meta.file_size)) {
            return Ok(None);
        }
        match manifests::read_entries(self.io, steps::CHECK_READ, self.context, std::slice::from_ref(meta)).await {
            Ok(entries) => {
                let entries = entries.concat();
                self.result.manifests += 1;
                self.order(&key, &entries);
                self.seen.insert(meta.file_name.clone(), entries.clone());
                Ok(Some(entries))
            }
            Err(error) => self.found(&key, Err(error)),
        }
    }

    /// Java's expiry deletes the file of an upgrade whose ADD stands before its DELETE.
    fn order(&mut self, key: &str, entries: &[ManifestEntry]) {
        let mut added = BTreeSet::new();
        for entry in entries {
            match entry.kind {
                FileKind::Add => drop(added.insert(&entry.file.file_name)),
                FileKind::Delete if added.contains(&entry.file.file_name) => {
                    let name = entry.file.file_name.clone();
                    let all = count(entries, FileKind::Delete);
                    let message = format!(
                        "the ADD of {name} stands before its DELETE (of {all}); expire with Siltstone, not with Java"
                    );
                    return self.note(key, message);
                }
                FileKind::Delete => {}
            }
        }
    }

    fn file(&mut self, snapshot: &str, entry: &ManifestEntry, changelog: bool) {
        if entry.file.external_path.is_some() {
            return;
        }
        let key = match codec::bucket_file(self.context, entry, &entry.file.file_name) {
            Ok(key) => key,
            Err(error) => {
                return self.error(snapshot, format!("it reaches data file {}: {error}", entry.file.file_name));
            }
        };
        if !self.sized(snapshot, &key, Some(entry.file.file_size)) {
            return;
        }
        match self.result.files.get(&key) {
            Some(known) if known.changelog != changelog || !same_claims(&known.entry, entry) => {
                self.error(&key, "two manifests describe it differently; roll back to a snapshot before the second");
            }
            Some(_) => {}
            None => drop(self.result.files.insert(key, ReachedFile { entry: entry.clone(), changelog })),
        }
    }

    fn sized(&mut self, by: &str, key: &str, size: Option<i64>) -> bool {
        let Some(found) = self.sizes.get(key).copied() else {
            self.error(key, format!("{by} names it and it does not exist; restore it from a backup or roll back"));
            return false;
        };
        let fits = size.is_none_or(|size| u64::try_from(size) == Ok(found));
        if !fits {
            let size = size.unwrap_or(0);
            self.error(key, format!("it has {found} bytes, {by} says {size}; readers fail on it, roll back"));
        }
        fits
    }

    /// An object; one that the store itself finds damaged is a finding, and as good as none.
    async fn get(&mut self, key: &str) -> Result<Option<Object>, CommitError> {
        let read = self.io.get(steps::CHECK_READ, key.to_owned()).await;
        Ok(self.found(key, read)?.flatten())
    }

    fn found<T>(&mut self, key: &str, read: Result<T, CommitError>) -> Result<Option<T>, CommitError> {
        match read {
            Ok(value) => Ok(Some(value)),
            Err(error) => match error.kind() {
                crate::ErrorKind::Corrupt | crate::ErrorKind::NotFound | crate::ErrorKind::InvalidInput => {
                    self.error(key, error.to_string());
                    Ok(None)
                }
                _ => Err(error),
            },
        }
    }
}

/// Whether two entries say the same of a file; its level changes when it is moved.
fn same_claims(one: &ManifestEntry, other: &ManifestEntry) -> bool {
    let mut moved = other.clone();
    (moved.kind, moved.file.level) = (one.kind, one.file.level);
    *one == moved
}
