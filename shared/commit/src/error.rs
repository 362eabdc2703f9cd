//! What can go wrong in a protocol, sorted by what the caller does next.
//!
//! Neighbours: every module. A lost race or a refused change is not an error: see [`crate::changes::Outcome`].
//! Invariant: 1. an error never means "committed" or "not committed" by itself; only an outcome says that.

use siltstone_format::{FormatError, id::SnapshotId};

use crate::io::{Failure, FailureKind};

/// What the caller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Try again, from the start: a service did not answer or asked to slow down, others were faster, or the work has become too old.
    Unavailable,
    /// The table, or a needed object, does not exist.
    NotFound,
    /// A permission is missing.
    Denied,
    /// What the caller gave cannot be committed as it is.
    InvalidInput,
    /// An object of the table is damaged or missing: stop, and run `silt check`.
    Corrupt,
    /// Pointer and S3 disagree in a way that needs `silt repair`.
    Forked,
    /// The table is not the one, or not of the version, that the caller knows.
    Mismatch,
    /// A defect of Siltstone.
    Bug,
}

/// A failed protocol run.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommitError {
    /// An effect failed for good.
    #[error("{step}: {target}: {detail}; {advice}", advice = advice(*.kind))]
    Effect {
        /// Numbered step.
        step: &'static str,
        /// Object key or item.
        target: String,
        /// Meaning.
        kind: FailureKind,
        /// The service's words.
        detail: String,
    },
    /// There is no pointer for this table.
    #[error(
        "table {table} has no pointer; create it, or put an existing Paimon table under a pointer with `silt repair`"
    )]
    NoTable {
        /// Location.
        table: String,
    },
    /// A table is already there.
    #[error("table {table} exists already (table uuid {uuid}); drop it first or use another name")]
    TableExists {
        /// Location.
        table: String,
        /// The other table's uuid.
        uuid: String,
    },
    /// The pointer was written by a newer protocol.
    #[error("the pointer of {table} speaks protocol {found}, this build speaks {known}; upgrade Siltstone")]
    Protocol {
        /// Location.
        table: String,
        /// In the pointer.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The pointer belongs to another life of the table than the caller's.
    #[error(
        "the pointer of {table} is incarnation {found}, the caller expects {expected}: the table was re-created or restored; \
         reload it and plan again"
    )]
    Incarnation {
        /// Location.
        table: String,
        /// In the pointer.
        found: String,
        /// The caller's.
        expected: String,
    },
    /// The pointer item cannot be read as a pointer, or would grow too large.
    #[error("pointer of {table}: {reason}; run `silt check`")]
    BadPointer {
        /// Location.
        table: String,
        /// What is wrong.
        reason: String,
    },
    /// An object is damaged.
    #[error("{object}: {reason}; nothing was changed, run `silt check`")]
    Corrupt {
        /// Key.
        object: String,
        /// What is wrong.
        reason: String,
    },
    /// S3 holds newer snapshots of this table than the pointer.
    #[error(
        "the pointer of {table} is at snapshot {pointer} but S3 already holds {found} of the same incarnation: it was restored \
         from a backup; run `silt repair` (restore) before anything is committed"
    )]
    PointerBehind {
        /// Location.
        table: String,
        /// In the pointer, 0 for none.
        pointer: SnapshotId,
        /// On S3.
        found: SnapshotId,
    },
    /// Another writer put its own snapshot in place of ours, or on top of something else than ours.
    #[error(
        "table {table} is forked at snapshot {at} ({table}/snapshot/snapshot-{at}): {reason}; nothing is committed until `silt repair` has run"
    )]
    Forked {
        /// Location.
        table: String,
        /// Where.
        at: SnapshotId,
        /// What was seen.
        reason: String,
    },
    /// A published snapshot is gone: a foreign rollback.
    #[error(
        "snapshot {missing} of {table} was published and is gone: another engine rolled the table back outside Siltstone; \
         roll forward or back with `silt repair` or `silt rollback`"
    )]
    ForeignRollback {
        /// Location.
        table: String,
        /// The missing snapshot.
        missing: SnapshotId,
    },
    /// The caller's change is not well formed.
    #[error("change refused: {reason}")]
    InvalidChange {
        /// What is wrong and what to do.
        reason: String,
    },
    /// Lost every attempt.
    #[error("{protocol}: gave up after {attempts} lost races; try again later")]
    Contended {
        /// Protocol.
        protocol: &'static str,
        /// Attempts.
        attempts: u32,
    },
    /// The run began before the orphan sweep's cutoff: manifests that it wrote may be deleted already.
    #[error(
        "nothing was committed to {table}: this run began at {started_ms} (ms since 1970), and the orphan sweep may have deleted manifests \
         written up to {cutoff_ms}; run the change again, which writes new ones"
    )]
    OlderThanSweep {
        /// Location.
        table: String,
        /// When the run began.
        started_ms: i64,
        /// The pointer's cutoff.
        cutoff_ms: i64,
    },
    /// Bytes or values that are not what the table format says.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A defect of Siltstone.
    #[error("internal error: {reason}; please report it")]
    Bug {
        /// What happened.
        reason: String,
    },
}

fn advice(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::NotFound => "it does not exist; run `silt check`",
        FailureKind::PreconditionFailed | FailureKind::Conflict => "another writer was faster; try again",
        FailureKind::Throttled | FailureKind::Unavailable => "try again later",
        FailureKind::Unknown => "no answer came; it may or may not have happened, try again",
        FailureKind::Denied => "check the role's policy",
        FailureKind::Damaged => "run `silt check --deep`, and restore it from a backup",
    }
}

impl CommitError {
    /// A defect of ours, reported instead of a panic.
    pub(crate) fn bug(reason: impl Into<String>) -> Self {
        Self::Bug { reason: reason.into() }
    }

    pub(crate) fn corrupt(object: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Corrupt { object: object.into(), reason: reason.into() }
    }

    pub(crate) fn effect(step: &'static str, target: impl Into<String>, failure: Failure) -> Self {
        Self::Effect { step, target: target.into(), kind: failure.kind, detail: failure.detail }
    }

    /// What the caller does next.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Effect { kind, .. } => match kind {
                FailureKind::NotFound => ErrorKind::NotFound,
                FailureKind::Denied => ErrorKind::Denied,
                FailureKind::Damaged => ErrorKind::Corrupt,
                _ => ErrorKind::Unavailable,
            },
            Self::NoTable { .. } => ErrorKind::NotFound,
            Self::Protocol { .. } | Self::Incarnation { .. } | Self::TableExists { .. } => ErrorKind::Mismatch,
            Self::BadPointer { .. } | Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::PointerBehind { .. } | Self::Forked { .. } | Self::ForeignRollback { .. } => ErrorKind::Forked,
            Self::InvalidChange { .. } => ErrorKind::InvalidInput,
            Self::Contended { .. } | Self::OlderThanSweep { .. } => ErrorKind::Unavailable,
            Self::Format(error) => match error.kind() {
                siltstone_format::ErrorKind::Corrupt => ErrorKind::Corrupt,
                _ => ErrorKind::InvalidInput,
            },
            Self::Bug { .. } => ErrorKind::Bug,
        }
    }

    /// True if an effect failed because its object does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Effect { kind: FailureKind::NotFound, .. })
    }
}
