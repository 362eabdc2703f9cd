//! Deletes files that nothing refers to: outputs of lost races, of dead writers, of refused compactions (rule 5).
//!
//! Neighbours: `fold` refuses a change whose files may be older than the cutoff; `expire` takes what snapshots do name.
//! Invariants: 1. the cutoff is in the pointer before the roots are read, so a file older than it that no root names can never be named again
//! (12); 2. only kinds of files that commits write are touched: schemas, tags, branches, indexes and what users put there stay;
//! 3. roots are read before the listing, snapshots before tags, and what was committed meanwhile after it.

use std::collections::BTreeSet;

use siltstone_format::{id::SnapshotId, path::ObjectName};

use super::{
    group::lease,
    need_pointer,
    roots::{self, MayMiss, Reach},
    tip::{self, Swap},
};
use crate::{
    codec,
    context::{OWN_DIRECTORY, TableContext},
    error::CommitError,
    io::{Io, ObjectHead},
    pointer::Pointer,
    staged::{self, Content, STAGED_PREFIX, Staged, State},
    steps,
};

/// What the sweep may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweepOptions {
    /// Only files older than this, ms. A day by default, as in Paimon: foreign writers must commit within it.
    pub older_than_ms: i64,
    /// How far the clocks of writers and of the store may be apart, ms.
    pub clock_skew_ms: i64,
    /// Only say what would be deleted; the pointer stays as it is, too.
    pub dry_run: bool,
    /// Keys of outputs that unfinished jobs still want. For thrift: what is swept nevertheless is refused at commit.
    pub in_flight: BTreeSet<String>,
}

impl Default for SweepOptions {
    fn default() -> Self {
        Self { older_than_ms: 86_400_000, clock_skew_ms: 600_000, dry_run: true, in_flight: BTreeSet::new() }
    }
}

/// What was, or would be, deleted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Swept {
    /// Keys.
    pub keys: Vec<String>,
    /// Their size together.
    pub bytes: u64,
    /// Objects that were looked at.
    pub seen: u64,
}

pub(crate) async fn run(io: Io, context: TableContext, options: SweepOptions) -> Result<Swept, CommitError> {
    need_pointer(&context)?;
    let (pointer, cutoff) = raise_cutoff(&io, &context, &options).await?;
    let mut reach = Reach::default();
    reach.keys.extend(options.in_flight.iter().cloned());
    reach.keys.extend(pointer.checkpoints.packed_object().map(|name| context.key(name)));
    add_snapshots(&io, &context, &mut reach).await?;
    add_staged(&io, &context, &mut reach).await?;
    for root in roots::pinned(&io, steps::SWEEP_ROOTS, &context).await? {
        reach.add_lists(&io, steps::SWEEP_ROOTS, &context, &root.snapshot, root.may_miss()).await?;
        reach.add_files(&io, steps::SWEEP_ROOTS, &context, root.partial).await?;
    }
    let before = cutoff.saturating_sub(options.clock_skew_ms);
    let orphan =
        |o: &ObjectHead| o.last_modified_ms < before && may_go(&context, &o.key) && !reach.keys.contains(&o.key);
    let (mut candidates, mut seen) = (Vec::new(), 0);
    let (mut last, mut more) = (None, true);
    // Page by page: a table's objects may be many more than its orphans.
    while more {
        let page;
        (page, more) = io.page(steps::SWEEP_LIST, &context.key(""), last).await?;
        last = page.last().map(|o| o.key.clone());
        seen += page.len() as u64;
        candidates.extend(page.into_iter().filter(&orphan));
    }
    if candidates.is_empty() {
        return Ok(Swept { seen, ..Swept::default() });
    }
    add_meanwhile(&io, &context, &pointer, &mut reach).await?;
    candidates.retain(|o| !reach.keys.contains(&o.key));
    let bytes = candidates.iter().map(|o| o.size).sum();
    let keys: Vec<String> = candidates.into_iter().map(|o| o.key).collect();
    if !options.dry_run {
        io.delete(steps::SWEEP_DELETE, &keys).await?;
    }
    Ok(Swept { keys, bytes, seen })
}

async fn raise_cutoff(io: &Io, context: &TableContext, options: &SweepOptions) -> Result<(Pointer, i64), CommitError> {
    for attempt in 1..=context.settings.max_attempts.max(1) {
        let pointer = tip::settle(io, context).await?;
        let cutoff = io.now(steps::SWEEP_TIME).await?.saturating_sub(options.older_than_ms.max(0));
        if options.dry_run || cutoff <= pointer.sweep_cutoff_ms {
            return Ok((pointer, cutoff));
        }
        let next = Pointer { rev: pointer.rev + 1, sweep_cutoff_ms: cutoff, ..pointer.clone() };
        if tip::swap(io, steps::SWEEP_RAISE, context, &pointer, &next).await? == Swap::Swapped {
            return Ok((next, cutoff));
        }
        io.pause(attempt).await;
    }
    Err(CommitError::Contended { protocol: "sweep", attempts: context.settings.max_attempts })
}

/// What writers have staged and no lease holder has answered yet. For thrift, too: what is older than the cutoff is refused by the fold.
async fn add_staged(io: &Io, context: &TableContext, reach: &mut Reach) -> Result<(), CommitError> {
    if !lease::was_taken(io, steps::SWEEP_ROOTS).await? {
        return Ok(());
    }
    let (mut objects, mut packed) = (Vec::new(), Vec::new());
    for (_, record) in io.list_staged(steps::SWEEP_ROOTS).await? {
        match Staged::from_record(&record).map(|staged| staged.state) {
            Some(State::Pending(Content::Inline(bytes))) => packed.push(bytes),
            Some(State::Pending(Content::Object(name))) => objects.push(context.key(&name)),
            _ => {}
        }
    }
    packed.extend(io.get_all(steps::SWEEP_ROOTS, objects.clone()).await?.into_iter().flatten().map(|o| o.body));
    reach.keys.extend(objects);
    for change in packed.iter().filter_map(|bytes| staged::unpack(bytes).ok()) {
        // An entry that no file can have pins none.
        let entries = change.files.iter().chain(&change.changelog);
        reach.keys.extend(entries.filter_map(|entry| codec::files_of(context, entry).ok()).flatten());
    }
    Ok(())
}

/// Every snapshot that has a name. One that expiry takes away meanwhile is expiry's to clean.
async fn add_snapshots(io: &Io, context: &TableContext, reach: &mut Reach) -> Result<(), CommitError> {
    let step = steps::SWEEP_ROOTS;
    let ids: Vec<SnapshotId> = tip::list_snapshots(io, step, context).await?.into_iter().map(|(id, _)| id).collect();
    let snapshots = roots::snapshots(io, step, context, ids).await?;
    for (id, snapshot) in snapshots {
        let read = match reach.add_lists(io, step, context, &snapshot, MayMiss::Nothing).await {
            Ok(()) => reach.add_files(io, step, context, false).await,
            Err(error) => Err(error),
        };
        if let Err(error) = read {
            let earliest = tip::load_pointer(io, step, context).await?.earliest;
            if id >= earliest {
                return Err(error);
            }
            reach.add_lists(io, step, context, &snapshot, MayMiss::Everything).await?;
            reach.add_files(io, step, context, true).await?;
        }
    }
    Ok(())
}

/// What came since the roots were read. Our own commits name only younger files; adopted ones may not.
async fn add_meanwhile(io: &Io, context: &TableContext, then: &Pointer, reach: &mut Reach) -> Result<(), CommitError> {
    let step = steps::SWEEP_AGAIN;
    let now = tip::settle(io, context).await?;
    reach.keys.extend(now.checkpoints.packed_object().map(|name| context.key(name)));
    let ids = (then.version().0 + 1..=now.version().0).map(SnapshotId);
    for snapshot in roots::snapshots(io, step, context, ids).await?.into_values() {
        reach.add_lists(io, step, context, &snapshot, MayMiss::Everything).await?;
        reach.add_files(io, step, context, true).await?;
    }
    Ok(())
}

/// Kinds of objects that a commit writes and that nothing but a snapshot keeps alive.
fn may_go(context: &TableContext, key: &str) -> bool {
    match context.location.parse(context.shape.data_directory.as_deref(), key) {
        ObjectName::Manifest(_) | ObjectName::ManifestList(_) | ObjectName::Statistics(_) => true,
        ObjectName::BucketFile { file_name, .. } => !file_name.is_empty(),
        _ => ["checkpoints-", STAGED_PREFIX]
            .iter()
            .any(|own| key.starts_with(&context.key(&format!("{OWN_DIRECTORY}/{own}")))),
    }
}
