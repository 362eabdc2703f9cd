//! The commit protocol of a table: the pointer, its rules, and everything that changes what a table is.
//!
//! Used by `table`, which performs the effects that the machines of [`protocol`] ask for. Pure and sync: no I/O, clock,
//! randomness, environment or runtime here (see [`io`]). Rules and invariants: `shared/design/0004-commit-protocol.md`.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod base64;
pub mod changes;
pub mod checkpoint;
mod codec;
pub mod conflict;
pub mod context;
mod effects;
pub mod error;
pub mod fold;
pub mod io;
pub mod manifests;
pub mod pointer;
pub mod protocol;
pub mod sequence;
pub mod staged;
pub mod steps;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use error::{CommitError, ErrorKind};
