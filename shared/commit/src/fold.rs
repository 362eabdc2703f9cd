//! Applies changes to an accumulating state, one after the other, before anything is written.
//!
//! Neighbours: `protocol::commit` folds its one change, a lease holder (`protocol::group`) folds many; `conflict` checks files.
//! Invariants: 1. a change applies if and only if every range starts at its checkpoint *of the accumulating state* (6);
//! 2. what was applied before is recognised, never applied twice; 3. kinds never mix (20); 4. a rejected change leaves no trace.

use siltstone_format::{
    id::{SchemaId, SequenceNumber, SnapshotId},
    manifest::{FileKind, ManifestEntry},
};

use crate::{
    changes::{Change, ChangeId, ChangeKind, Conflict, Requirement},
    checkpoint::{Checkpoints, Lookup, RangeFit, ShardId, ShardRange},
    conflict,
    context::TableContext,
    error::CommitError,
    manifests::Live,
    pointer::{Pointer, TableState},
};

/// What [`fold`] says of one change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Folded {
    /// It is part of the state now.
    Applied,
    /// It was committed before.
    Already,
    /// It does not apply; answer its writer.
    Rejected(Conflict),
    /// The packed object with the other checkpoints must be read first.
    NeedsCheckpoints,
}

/// The state that changes are applied to: what the next pointer and the next delta will say.
#[derive(Debug, Clone)]
pub struct Accumulated {
    state: TableState,
    version: SnapshotId,
    known: Vec<ChangeId>,
    floor: SequenceNumber,
    sweep_cutoff_ms: i64,
    /// Live files of the buckets that need checks; `None` if no change of this fold needs any.
    live: Option<Live>,
    /// Changes applied so far.
    pub applied: u64,
    /// Kind of the changes applied so far; `None` while only checkpoints move, which makes no snapshot.
    pub kind: Option<ChangeKind>,
    /// Positions after the changes applied so far.
    pub checkpoints: Checkpoints,
    /// Ids of applied changes without a range.
    pub ids: Vec<ChangeId>,
    /// Delta, DELETEs and ADDs mixed.
    pub files: Vec<ManifestEntry>,
    /// Changelog files.
    pub changelog: Vec<ManifestEntry>,
    /// Latest schema known.
    pub schema_id: SchemaId,
}

impl Accumulated {
    /// Starts from the pointer, with the files that checks need.
    #[must_use]
    pub fn new(pointer: &Pointer, live: Option<Live>) -> Self {
        Self {
            state: pointer.state,
            version: pointer.version(),
            known: pointer.change_ids.clone(),
            floor: pointer.floor,
            sweep_cutoff_ms: pointer.sweep_cutoff_ms,
            live,
            applied: 0,
            kind: None,
            checkpoints: pointer.checkpoints.clone(),
            ids: Vec::new(),
            files: Vec::new(),
            changelog: Vec::new(),
            schema_id: pointer.schema_id,
        }
    }

    /// The same state, with the files that checks need.
    #[must_use]
    pub fn with_live(mut self, live: Live) -> Self {
        self.live = Some(live);
        self
    }

    /// Starts from a snapshot of a bare warehouse, which has neither checkpoints nor a floor.
    #[must_use]
    pub fn bare(version: SnapshotId, schema_id: SchemaId, live: Option<Live>) -> Self {
        let none = crate::context::Incarnation(String::new());
        let mut state = Self::new(&Pointer::new(none, String::new(), schema_id), live);
        state.version = version;
        state
    }
}

/// True if the change needs to know what is live: everything but a plain append.
#[must_use]
pub fn needs_live(change: &Change) -> bool {
    change.kind != ChangeKind::Append || change.files.iter().any(|e| e.kind == FileKind::Delete)
}

/// Applies one change, or says why not.
///
/// # Errors
/// `Corrupt` if a manifest holds keys that cannot be read.
pub fn fold(context: &TableContext, state: &mut Accumulated, change: &Change) -> Result<Folded, CommitError> {
    let folded = fits(context, state, change)?;
    if folded == Folded::Applied {
        apply(state, change);
    }
    Ok(folded)
}

/// Says what [`fold`] would, and changes nothing.
///
/// # Errors
/// As [`fold`].
pub fn fits(context: &TableContext, state: &Accumulated, change: &Change) -> Result<Folded, CommitError> {
    if let Some(folded) = known(state, change) {
        return Ok(folded);
    }
    if state.state == TableState::Paused {
        return Ok(Folded::Rejected(Conflict::Paused));
    }
    let conflict = requirement(state, change)
        .or_else(|| sequences(state, change))
        .or_else(|| too_old(state, change))
        .or_else(|| state.kind.filter(|kind| *kind != change.kind).map(|_| Conflict::OtherKind));
    if let Some(conflict) = conflict {
        return Ok(Folded::Rejected(conflict));
    }
    let Some(live) = state.live.as_ref().filter(|_| needs_live(change)) else { return Ok(Folded::Applied) };
    Ok(conflict::check(context, live, change)?.map_or(Folded::Applied, Folded::Rejected))
}

/// Rule 1: recognises what is committed, and what cannot follow. `None` if the change continues the state.
fn known(state: &Accumulated, change: &Change) -> Option<Folded> {
    if change.ranges.is_empty() {
        let known = state.known.contains(&change.id) || state.ids.contains(&change.id);
        return known.then_some(Folded::Already);
    }
    let fits: Vec<(&ShardRange, RangeFit)> = change.ranges.iter().map(|r| (r, state.checkpoints.fit(r))).collect();
    let parent_unknown =
        change.ranges.iter().flat_map(|r| &r.parents).any(|p| state.checkpoints.get(p) == Lookup::NotLoaded);
    if parent_unknown || fits.iter().any(|(_, fit)| *fit == RangeFit::NotLoaded) {
        return Some(Folded::NeedsCheckpoints);
    }
    let covered: Vec<&ShardId> = fits.iter().filter(|(_, f)| *f == RangeFit::Covered).map(|(r, _)| &r.shard).collect();
    if covered.len() == fits.len() {
        return Some(Folded::Already);
    }
    if let Some(shard) = covered.first() {
        return Some(Folded::Rejected(Conflict::PartlyCovered { shard: (*shard).clone() }));
    }
    fits.into_iter().find_map(|(range, fit)| {
        let shard = range.shard.clone();
        let conflict = match fit {
            RangeFit::Overlaps(covered) => Conflict::Overlap { shard, covered },
            RangeFit::Gap(at) => Conflict::Gap { shard, at },
            RangeFit::Closed(at) => Conflict::ShardClosed { shard, at },
            RangeFit::Fits | RangeFit::Covered | RangeFit::NotLoaded => return None,
        };
        Some(Folded::Rejected(conflict))
    })
}

fn requirement(state: &Accumulated, change: &Change) -> Option<Conflict> {
    let holds = |requirement: &Requirement| match requirement {
        Requirement::SnapshotIs(id) => id.unwrap_or(SnapshotId(0)) == state.version && state.files.is_empty(),
        Requirement::SchemaIs(id) => *id == state.schema_id,
    };
    // Files by an older schema are read well, but that schema may have put their rows into another number of buckets.
    let writes = change.kind == ChangeKind::Append && !change.files.is_empty();
    let own = (writes && change.schema_id < state.schema_id).then_some(Requirement::SchemaIs(change.schema_id));
    change.requirements.iter().find(|r| !holds(r)).copied().or(own).map(Conflict::Requirement)
}

/// Rows of a stream start above the floor, their shard's last number and its parents'. Compactions and imports move old rows.
fn sequences(state: &Accumulated, change: &Change) -> Option<Conflict> {
    let last = |shard: &ShardId| match state.checkpoints.get(shard) {
        Lookup::Found(checkpoint) => checkpoint.last_sequence,
        _ => SequenceNumber(0),
    };
    change.ranges.iter().find_map(|range| {
        let first = range.first_sequence?;
        let above =
            range.parents.iter().chain([&range.shard]).map(last).max().unwrap_or(SequenceNumber(0)).max(state.floor);
        (first <= above).then_some(Conflict::Renumber { above })
    })
}

/// Rule 5.
fn too_old(state: &Accumulated, change: &Change) -> Option<Conflict> {
    let references = change.files.iter().any(|e| e.kind == FileKind::Add) || !change.changelog.is_empty();
    let old = references && change.files_created_after_ms <= state.sweep_cutoff_ms;
    old.then_some(Conflict::OlderThanSweep { cutoff_ms: state.sweep_cutoff_ms })
}

fn apply(state: &mut Accumulated, change: &Change) {
    state.applied += 1;
    for range in &change.ranges {
        state.checkpoints.advance(range);
    }
    if change.ranges.is_empty() {
        state.ids.push(change.id);
    }
    if !change.is_checkpoint_only() {
        state.kind = Some(change.kind);
    }
    if let Some(live) = &mut state.live {
        live.apply(&change.files);
    }
    state.files.extend_from_slice(&change.files);
    state.changelog.extend_from_slice(&change.changelog);
    state.schema_id = state.schema_id.max(change.schema_id);
}

/// Refuses a change that could never be right, whatever the table holds.
///
/// # Errors
/// `InvalidInput`, saying what to do.
pub fn validate(change: &Change) -> Result<(), CommitError> {
    let bad = |reason: String| Err(CommitError::InvalidChange { reason });
    if change.is_checkpoint_only() && change.ranges.is_empty() {
        return bad("it has neither files nor a shard range; there is nothing to commit".to_owned());
    }
    if change.changelog.iter().any(|e| e.kind != FileKind::Add) {
        return bad("a changelog entry is no ADD".to_owned());
    }
    if change.kind == ChangeKind::Append && change.files.iter().any(|e| e.kind == FileKind::Delete) {
        return bad("an APPEND deletes a file; make it a COMPACT or an OVERWRITE".to_owned());
    }
    if change.kind == ChangeKind::Compact && !change.ranges.is_empty() {
        return bad("a COMPACT covers stream positions; commit its rows as an APPEND of their own".to_owned());
    }
    let mut shards = std::collections::BTreeSet::new();
    for range in &change.ranges {
        if !shards.insert(&range.shard) {
            return bad(format!("shard {} is named twice; join its ranges", range.shard));
        }
        if range.from.is_some_and(|from| from >= range.to) {
            return bad(format!("the range of shard {} is empty or runs backwards", range.shard));
        }
        if range.first_sequence.is_some_and(|first| first > range.last_sequence) {
            return bad(format!("sequence numbers of shard {} run backwards", range.shard));
        }
    }
    let mut files = std::collections::BTreeSet::new();
    for entry in &change.files {
        if !files.insert((entry.kind == FileKind::Delete, crate::manifests::file_key(entry))) {
            return bad(format!("file {} is named twice", entry.file.file_name));
        }
    }
    Ok(())
}
