//! The verbs, one module each: open the place, call the use-case, print.
//!
//! Neighbours: `main` dispatches; rules are in `siltstone_table`.

pub(crate) mod check;
pub(crate) mod compact;
pub(crate) mod drain;
pub(crate) mod expire;
pub(crate) mod feed;
pub(crate) mod files;
pub(crate) mod local;
pub(crate) mod pause;
pub(crate) mod produce;
pub(crate) mod quarantine;
pub(crate) mod repair;
pub(crate) mod rollback;
pub(crate) mod scan;
pub(crate) mod snapshots;
pub(crate) mod table;
