//! The files of a snapshot: reading its lists and manifests, replaying them, and keeping the manifests few (paimon-format.md section 4).
//!
//! Neighbours: `codec` for bytes, `conflict` asks what is live, `protocol::commit` writes what [`merge_plan`] says.
//!
//! Invariants: 1. DELETE entries are collected before any ADD counts, whatever the order of manifests; 2. every count and size that is
//! written is the exact one, and one that is read and does not fit names the object (20); 3. merging changes neither the set of
//! live files nor forgets a DELETE whose ADD is outside the group; 4. the result depends on the input's order only.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use siltstone_format::{
    data_file::StoredRow,
    id::{Bucket, Level},
    manifest::{FileKind, ManifestEntry, ManifestFileMeta},
    snapshot::Snapshot,
};

use crate::{
    codec,
    context::{Settings, TableContext},
    error::CommitError,
    io::{Io, Object},
    steps::StepName,
};

/// Identity of a data file in an order: partition, bucket, level, name, side files, embedded index, external path.
pub(crate) type FileKey = (StoredRow, Bucket, Level, String, Vec<String>, Option<Vec<u8>>, Option<String>);

/// Manifests read at a time; each may have some MB.
const MANIFESTS_AT_ONCE: usize = 8;

pub(crate) fn file_key(entry: &ManifestEntry) -> FileKey {
    let id = entry.identity();
    (id.partition, id.bucket, id.level, id.file_name, id.extra_files, id.embedded_index, id.external_path)
}

/// The manifests of a snapshot, older first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifests {
    /// Those of the state before.
    pub base: Vec<ManifestFileMeta>,
    /// Those of its own commit.
    pub delta: Vec<ManifestFileMeta>,
}

impl Manifests {
    /// Base, then delta.
    #[must_use]
    pub fn all(&self) -> Vec<ManifestFileMeta> {
        self.base.iter().chain(&self.delta).cloned().collect()
    }
}

/// Which buckets are asked about; manifests that cannot speak of them are not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    Everything,
    /// These.
    Buckets(BTreeSet<(StoredRow, Bucket)>),
}

impl Scope {
    /// The buckets that the entries touch.
    #[must_use]
    pub fn of(entries: &[ManifestEntry]) -> Self {
        Self::Buckets(entries.iter().map(|e| (e.partition.clone(), e.bucket)).collect())
    }

    fn contains(&self, entry: &ManifestEntry) -> bool {
        match self {
            Self::Everything => true,
            Self::Buckets(buckets) => buckets.contains(&(entry.partition.clone(), entry.bucket)),
        }
    }

    fn may_be_in(&self, context: &TableContext, meta: &ManifestFileMeta) -> Result<bool, CommitError> {
        let Self::Buckets(buckets) = self else { return Ok(true) };
        for (partition, bucket) in buckets {
            let in_range = meta.buckets.is_none_or(|(low, high)| (low..=high).contains(bucket));
            if in_range && codec::partition_may_match(context, meta, partition)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What is live in some buckets, and what was deleted and is still on record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Live {
    files: BTreeMap<FileKey, ManifestEntry>,
    deleted: BTreeSet<FileKey>,
}

impl Live {
    /// Replays entries, all of them, in whatever order.
    #[must_use]
    pub fn replay(entries: impl IntoIterator<Item = ManifestEntry>) -> Self {
        let mut live = Self::default();
        live.extend(entries);
        live.prune();
        live
    }

    fn extend(&mut self, entries: impl IntoIterator<Item = ManifestEntry>) {
        for entry in entries {
            let key = file_key(&entry);
            match entry.kind {
                FileKind::Add => drop(self.files.insert(key, entry)),
                FileKind::Delete => drop(self.deleted.insert(key)),
            }
        }
    }

    fn prune(&mut self) {
        let deleted = &self.deleted;
        self.files.retain(|key, _| !deleted.contains(key));
    }

    /// Adds a commit's entries.
    pub fn apply(&mut self, entries: &[ManifestEntry]) {
        self.extend(entries.iter().cloned());
        self.prune();
    }

    /// The live entry of this very file.
    #[must_use]
    pub fn get(&self, entry: &ManifestEntry) -> Option<&ManifestEntry> {
        self.files.get(&file_key(entry))
    }

    /// True if a DELETE of this very file is on record.
    #[must_use]
    pub fn is_deleted(&self, entry: &ManifestEntry) -> bool {
        self.deleted.contains(&file_key(entry))
    }

    /// The live files, in a fixed order.
    pub fn files(&self) -> impl Iterator<Item = &ManifestEntry> {
        self.files.values()
    }

    /// The live files, in a fixed order.
    #[must_use]
    pub fn into_files(self) -> Vec<ManifestEntry> {
        self.files.into_values().collect()
    }
}

fn sized(step: StepName, key: &str, object: &Object, size: Option<i64>) -> Result<(), CommitError> {
    let found = object.body.len();
    match size {
        Some(size) if i64::try_from(found) != Ok(size) => {
            Err(CommitError::corrupt(key, format!("it has {found} bytes, {size} are on record ({step})")))
        }
        _ => Ok(()),
    }
}

/// Reads the base and the delta list of a snapshot.
pub(crate) async fn read_manifests(
    io: &Io,
    step: StepName,
    context: &TableContext,
    snapshot: &Snapshot,
) -> Result<Manifests, CommitError> {
    let names = [
        (&snapshot.base_manifest_list, snapshot.base_manifest_list_size),
        (&snapshot.delta_manifest_list, snapshot.delta_manifest_list_size),
    ];
    let keys: Vec<String> = names.iter().map(|(name, _)| context.location.manifest(name)).collect();
    let objects = io.get_needed(step, keys.clone()).await?;
    let mut lists = Vec::new();
    for ((object, key), (_, size)) in objects.iter().zip(&keys).zip(names) {
        sized(step, key, object, size)?;
        lists.push(codec::decode_list(key, &object.body)?);
    }
    let delta = lists.pop().unwrap_or_default();
    Ok(Manifests { base: lists.pop().unwrap_or_default(), delta })
}

/// Reads one list.
pub(crate) async fn read_list(
    io: &Io,
    step: StepName,
    context: &TableContext,
    name: &str,
) -> Result<Option<Vec<ManifestFileMeta>>, CommitError> {
    let key = context.location.manifest(name);
    let Some(object) = io.get(step, key.clone()).await? else { return Ok(None) };
    codec::decode_list(&key, &object.body).map(Some)
}

/// Reads the entries of manifests, one vector per manifest, sizes and counts checked.
pub(crate) async fn read_entries(
    io: &Io,
    step: StepName,
    context: &TableContext,
    metas: &[ManifestFileMeta],
) -> Result<Vec<Vec<ManifestEntry>>, CommitError> {
    let mut all = Vec::with_capacity(metas.len());
    for chunk in metas.chunks(MANIFESTS_AT_ONCE) {
        let keys: Vec<String> = chunk.iter().map(|meta| context.location.manifest(&meta.file_name)).collect();
        let objects = io.get_needed(step, keys.clone()).await?;
        for ((object, key), meta) in objects.iter().zip(&keys).zip(chunk) {
            sized(step, key, object, Some(meta.file_size))?;
            let entries = codec::decode_manifest(key, &object.body)?;
            check_counts(key, meta, &entries)?;
            codec::check_keys(context, key, &entries)?;
            all.push(entries);
        }
    }
    Ok(all)
}

/// Java skips a manifest without deletes when it looks for deletes, so a wrong count loses or resurrects files.
fn check_counts(key: &str, meta: &ManifestFileMeta, entries: &[ManifestEntry]) -> Result<(), CommitError> {
    let deleted = count(entries, FileKind::Delete);
    let added = count(entries, FileKind::Add);
    if (added, deleted) == (meta.num_added_files, meta.num_deleted_files) {
        return Ok(());
    }
    let reason = format!(
        "it holds {added} ADD and {deleted} DELETE entries, its list says {} and {}",
        meta.num_added_files, meta.num_deleted_files
    );
    Err(CommitError::corrupt(key, reason))
}

pub(crate) fn count(entries: &[ManifestEntry], kind: FileKind) -> i64 {
    i64::try_from(entries.iter().filter(|e| e.kind == kind).count()).unwrap_or(i64::MAX)
}

/// Reads what is live in a scope. Only manifests that can speak of it are read.
pub(crate) async fn read_live(
    io: &Io,
    step: StepName,
    context: &TableContext,
    manifests: &[ManifestFileMeta],
    scope: &Scope,
) -> Result<Live, CommitError> {
    let mut needed = Vec::new();
    for meta in manifests {
        if scope.may_be_in(context, meta)? {
            needed.push(meta.clone());
        }
    }
    let mut live = Live::default();
    for chunk in needed.chunks(MANIFESTS_AT_ONCE) {
        for entries in read_entries(io, step, context, chunk).await? {
            live.extend(entries.into_iter().filter(|e| scope.contains(e)));
        }
    }
    live.prune();
    Ok(live)
}

/// Gives the names of one run: `manifest-<uuid>-<n>`, `manifest-list-<uuid>-<n>`.
#[derive(Debug)]
pub(crate) struct Names {
    uuid: String,
    next: u32,
}

impl Names {
    pub(crate) fn new(uuid: String) -> Self {
        Self { uuid, next: 0 }
    }

    fn name(&mut self, kind: &str) -> String {
        let name = format!("{kind}-{}-{}", self.uuid, self.next);
        self.next += 1;
        name
    }

    pub(crate) fn data(&mut self) -> String {
        self.name("data")
    }

    fn manifest(&mut self) -> String {
        self.name("manifest")
    }

    pub(crate) fn list(&mut self) -> String {
        self.name("manifest-list")
    }
}

/// Objects to be put, and what a list says of those that are manifests.
#[derive(Debug, Clone, Default)]
pub(crate) struct Written {
    pub(crate) metas: Vec<ManifestFileMeta>,
    pub(crate) objects: Vec<(String, Bytes)>,
}

impl Written {
    /// Makes manifests of entries. All but the last have the target size at least: one that is smaller counts as one to be merged. No entries, no
    /// manifest.
    pub(crate) fn add(
        &mut self,
        context: &TableContext,
        names: &mut Names,
        mut entries: &[ManifestEntry],
    ) -> Result<(), CommitError> {
        let target = usize::try_from(context.settings.manifest_target_size).unwrap_or(usize::MAX).max(1);
        let mut guess = entries.len();
        while !entries.is_empty() {
            let name = names.manifest();
            let mut count = guess.min(entries.len());
            let mut bytes = codec::encode_manifest(context, entries.get(..count).unwrap_or(entries), &name)?;
            // As many as fill the target, by what these take; then some more while that was not enough.
            let fitting = filling(count, bytes.len(), target);
            if fitting < count {
                count = fitting;
                bytes = codec::encode_manifest(context, entries.get(..count).unwrap_or(entries), &name)?;
            }
            while bytes.len() < target && count < entries.len() {
                count = filling(count, bytes.len(), target).max(count + ROLL_EVERY).min(entries.len());
                bytes = codec::encode_manifest(context, entries.get(..count).unwrap_or(entries), &name)?;
            }
            let (chunk, rest) = entries.split_at(count);
            self.push(context, name, chunk, bytes)?;
            (entries, guess) = (rest, count);
        }
        Ok(())
    }

    fn push(
        &mut self,
        context: &TableContext,
        name: String,
        entries: &[ManifestEntry],
        bytes: Vec<u8>,
    ) -> Result<(), CommitError> {
        self.metas.push(codec::describe(context, name.clone(), bytes.len(), entries)?);
        self.objects.push((context.location.manifest(&name), bytes.into()));
        Ok(())
    }
}

/// A manifest is rolled after so many entries at the earliest, as Java checks.
const ROLL_EVERY: usize = 1_000;

/// How many entries fill a target, by the bytes of some: a multiple of the rolling step, rounded up.
fn filling(count: usize, bytes: usize, target: usize) -> usize {
    let wanted = (count as u128 * target as u128).div_ceil(bytes.max(1) as u128);
    usize::try_from(wanted).unwrap_or(usize::MAX).div_ceil(ROLL_EVERY).saturating_mul(ROLL_EVERY)
}

/// What becomes of the manifests of a base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MergePlan {
    /// All stay.
    Keep,
    /// These groups (index ranges, in order) are each rewritten to one; the others stay.
    Minor(Vec<std::ops::Range<usize>>),
    /// Deletes are resolved over the whole list; manifests that must change are marked.
    Full(Vec<bool>),
}

/// Paimon's rules: a full merge once what must change is large enough, else groups that fill a manifest, else a long tail.
#[must_use]
pub fn merge_plan(metas: &[ManifestFileMeta], settings: &Settings) -> MergePlan {
    let size = |meta: &ManifestFileMeta| u64::try_from(meta.file_size).unwrap_or(0);
    let must_change: Vec<bool> =
        metas.iter().map(|m| m.num_deleted_files > 0 || size(m) < settings.manifest_target_size).collect();
    let changing: u64 = metas.iter().zip(&must_change).filter(|(_, must)| **must).map(|(m, _)| size(m)).sum();
    if changing >= settings.manifest_full_threshold && metas.len() > 1 {
        return MergePlan::Full(must_change);
    }
    let (mut groups, mut start, mut total) = (Vec::new(), 0, 0_u64);
    for (index, meta) in metas.iter().enumerate() {
        total += size(meta);
        if total >= settings.manifest_target_size {
            groups.push(start..index + 1);
            (start, total) = (index + 1, 0);
        }
    }
    let (tail, least) = (metas.get(start..).unwrap_or_default(), settings.manifest_merge_min_count.max(2));
    if tail.len() >= least {
        groups.push(start + kept_of_tail(tail, least)..metas.len());
    }
    groups.retain(|group| group.len() > 1);
    if groups.is_empty() { MergePlan::Keep } else { MergePlan::Minor(groups) }
}

/// How many manifests at the front of a long tail stay: those that are larger than all that follow them together, as long as half of what makes a
/// tail long remains. Java rewrites the whole tail each time, and with it all of a table whose files fill less than one manifest.
fn kept_of_tail(tail: &[ManifestFileMeta], least: usize) -> usize {
    let size = |meta: &ManifestFileMeta| u64::try_from(meta.file_size).unwrap_or(0);
    let merged_at_least = (least / 2).max(2);
    let mut after = 0_u64;
    for (index, meta) in tail.iter().enumerate().rev() {
        if tail.len() - 1 - index >= merged_at_least && size(meta) > after {
            return index + 1;
        }
        after = after.saturating_add(size(meta));
    }
    0
}

/// Within a group an ADD and its DELETE cancel; DELETEs of files added elsewhere stay, in front, as in every manifest of ours.
#[must_use]
pub fn merge_group(entries: impl IntoIterator<Item = ManifestEntry>) -> Vec<ManifestEntry> {
    let (mut adds, mut deletes) = (Vec::new(), Vec::new());
    for entry in entries {
        match entry.kind {
            FileKind::Add => adds.push(entry),
            FileKind::Delete => deletes.push(entry),
        }
    }
    let added: BTreeSet<FileKey> = adds.iter().map(file_key).collect();
    let deleted: BTreeSet<FileKey> = deletes.iter().map(file_key).collect();
    deletes.retain(|e| !added.contains(&file_key(e)));
    adds.retain(|e| !deleted.contains(&file_key(e)));
    deletes.into_iter().chain(adds).collect()
}

/// Performs the plan: the manifests of the new base list, and what has to be put for them.
pub(crate) async fn merge_base(
    io: &Io,
    step: StepName,
    context: &TableContext,
    names: &mut Names,
    metas: Vec<ManifestFileMeta>,
) -> Result<Written, CommitError> {
    match merge_plan(&metas, &context.settings) {
        MergePlan::Keep => Ok(Written { metas, objects: Vec::new() }),
        MergePlan::Minor(groups) => merge_minor(io, step, context, names, &metas, groups).await,
        MergePlan::Full(must_change) => merge_full(io, step, context, names, &metas, &must_change).await,
    }
}

async fn merge_minor(
    io: &Io,
    step: StepName,
    context: &TableContext,
    names: &mut Names,
    metas: &[ManifestFileMeta],
    groups: Vec<std::ops::Range<usize>>,
) -> Result<Written, CommitError> {
    let mut written = Written::default();
    let mut next = 0;
    for group in groups {
        written.metas.extend_from_slice(metas.get(next..group.start).unwrap_or_default());
        next = group.end;
        let entries = read_entries(io, step, context, metas.get(group).unwrap_or_default()).await?;
        written.add(context, names, &merge_group(entries.into_iter().flatten()))?;
    }
    written.metas.extend_from_slice(metas.get(next..).unwrap_or_default());
    Ok(written)
}

/// Reads one chunk of manifests at a time, so that memory holds the DELETEs of the list and the ADDs of what is rewritten.
async fn merge_full(
    io: &Io,
    step: StepName,
    context: &TableContext,
    names: &mut Names,
    metas: &[ManifestFileMeta],
    must_change: &[bool],
) -> Result<Written, CommitError> {
    let mut deleted = BTreeMap::new();
    let with_deletes: Vec<ManifestFileMeta> = metas.iter().filter(|m| m.num_deleted_files > 0).cloned().collect();
    for chunk in with_deletes.chunks(MANIFESTS_AT_ONCE) {
        let entries = read_entries(io, step, context, chunk).await?;
        let deletes = entries.into_iter().flatten().filter(|e| e.kind == FileKind::Delete);
        deleted.extend(deletes.map(|e| (file_key(&e), (e.partition, e.bucket))));
    }
    let scope = Scope::Buckets(deleted.values().cloned().collect());
    let mut written = Written::default();
    let mut adds = Vec::new();
    for (meta, must) in metas.iter().zip(must_change) {
        if !must && !scope.may_be_in(context, meta)? {
            written.metas.push(meta.clone());
            continue;
        }
        let entries = read_entries(io, step, context, std::slice::from_ref(meta)).await?.into_iter().flatten();
        let (before, mut kept) = (meta.num_added_files, Vec::new());
        kept.extend(entries.filter(|e| e.kind == FileKind::Add && !deleted.contains_key(&file_key(e))));
        if !must && count(&kept, FileKind::Add) == before {
            written.metas.push(meta.clone());
        } else {
            adds.append(&mut kept);
        }
    }
    written.add(context, names, &adds)?;
    Ok(written)
}

#[cfg(test)]
mod tests {
    use siltstone_format::data_file::SimpleStats;

    use super::*;
    use crate::testing::{
        fixture::{self, Row},
        world::World,
    };

    fn meta(size: i64, deleted: i64) -> ManifestFileMeta {
        ManifestFileMeta {
            file_name: "m".into(),
            file_size: size,
            num_added_files: 1,
            num_deleted_files: deleted,
            partition_stats: SimpleStats::empty(),
            schema_id: siltstone_format::id::SchemaId(0),
            buckets: None,
            levels: None,
        }
    }

    fn minor(group: std::ops::Range<usize>) -> MergePlan {
        MergePlan::Minor(Vec::from([group]))
    }

    fn settings() -> Settings {
        Settings {
            manifest_target_size: 100,
            manifest_full_threshold: 250,
            manifest_merge_min_count: 3,
            ..Settings::default()
        }
    }

    #[test]
    fn few_small_manifests_are_kept_and_a_long_tail_is_merged() {
        let metas = [meta(10, 0), meta(10, 0)];
        assert_eq!(merge_plan(&metas, &settings()), MergePlan::Keep);
        let metas = vec![meta(10, 0); 3];
        assert_eq!(merge_plan(&metas, &settings()), minor(0..3));
        assert_eq!(merge_plan(&[], &settings()), MergePlan::Keep);
    }

    #[test]
    fn manifests_that_fill_a_target_are_merged_in_order_and_a_full_one_is_left_alone() {
        let metas = [meta(60, 0), meta(60, 0), meta(120, 0), meta(10, 0)];
        assert_eq!(merge_plan(&metas, &settings()), minor(0..2));
    }

    #[test]
    fn full_merge_begins_once_what_must_change_is_large() {
        let metas = [meta(120, 1), meta(120, 0), meta(90, 0), meta(60, 0)];
        assert_eq!(merge_plan(&metas, &settings()), MergePlan::Full(vec![true, false, true, true]));
        assert_eq!(merge_plan(&[meta(300, 1)], &settings()), MergePlan::Keep);
    }

    #[test]
    fn group_cancels_pairs_and_keeps_deletes_of_files_added_elsewhere() {
        let context = fixture::context();
        let mut world = World::new(&context, 1);
        let row = Row { key: 1, sequence: 1, shard: 0, position: 1 };
        let mut file = || fixture::data_file(&mut world, &context, None, 0, 0, &[row]);
        let (a, b, c) = (file(), file(), file());
        let merged = merge_group([a.clone(), fixture::delete(&a), b.clone(), fixture::delete(&c)]);
        assert_eq!(merged, [fixture::delete(&c), b.clone()]);
        let live = Live::replay([b.clone(), fixture::delete(&a), a]);
        assert_eq!(live.into_files(), [b]);
    }

    /// They were cut into equal parts just below the target, and merged again by every commit.
    #[test]
    fn manifests_of_a_full_merge_are_not_merged_again() {
        let mut context = fixture::context();
        context.settings.manifest_target_size = 20_000;
        context.settings.manifest_full_threshold = 40_000;
        let mut world = World::new(&context, 1);
        let row = Row { key: 1, sequence: 1, shard: 0, position: 1 };
        let entries: Vec<ManifestEntry> =
            (0..9_500).map(|_| fixture::data_file(&mut world, &context, None, 0, 0, &[row])).collect();
        let mut written = Written::default();
        written.add(&context, &mut Names::new("u".to_owned()), &entries).unwrap();
        let (last, full) = written.metas.split_last().unwrap();
        assert!(full.len() >= 3 && full.iter().all(|meta| meta.file_size >= 20_000), "{:?}", written.metas);
        assert!(full.iter().all(|meta| meta.file_size < 40_000) && last.num_added_files > 0, "{:?}", written.metas);
        assert_eq!(written.metas.iter().map(|meta| meta.num_added_files).sum::<i64>(), 9_500);
        assert_eq!(merge_plan(&written.metas, &context.settings), MergePlan::Keep);
    }

    #[test]
    fn tail_leaves_what_is_larger_than_all_after_it_unless_little_is_left() {
        let settings = Settings { manifest_merge_min_count: 6, manifest_target_size: 10_000, ..settings() };
        let plan = |sizes: &[i64]| {
            let metas: Vec<_> = sizes.iter().map(|size| meta(*size, 0)).collect();
            merge_plan(&metas, &Settings { manifest_full_threshold: 100_000, ..settings.clone() })
        };
        assert_eq!(plan(&[900, 10, 10, 10, 10, 10]), minor(1..6));
        assert_eq!(plan(&[900, 400, 10, 10, 10, 10]), minor(2..6));
        assert_eq!(plan(&[900, 400, 100, 90, 10, 10]), minor(2..6), "three at least, and 100 is less than those");
        assert_eq!(plan(&[900, 84, 40, 20, 12, 11]), minor(2..6), "84 is larger, 40 is not");
        assert_eq!(plan(&[40, 10, 10, 10, 10, 10]), minor(0..6), "not larger than what follows");
        assert_eq!(plan(&[900, 10, 10, 10, 10]), MergePlan::Keep);
    }

    #[test]
    fn large_delta_is_rolled_into_several_manifests() {
        let mut context = fixture::context();
        context.settings.manifest_target_size = 20_000;
        let mut world = World::new(&context, 1);
        let row = Row { key: 1, sequence: 1, shard: 0, position: 1 };
        let entries: Vec<ManifestEntry> =
            (0..2_500).map(|_| fixture::data_file(&mut world, &context, None, 0, 0, &[row])).collect();
        let mut written = Written::default();
        written.add(&context, &mut Names::new("u".into()), &entries).unwrap();
        assert!(written.metas.len() > 1);
        let total: i64 = written.metas.iter().map(|m| m.num_added_files).sum();
        assert_eq!(total, 2_500);
        for (meta, (_, bytes)) in written.metas.iter().zip(&written.objects) {
            assert_eq!(meta.file_size, i64::try_from(bytes.len()).unwrap());
        }
    }
}
