//! The commit protocol of a table: the pointer, its rules, and everything that changes what a table is.
//!
//! Used by `table`, which performs the effects that the machines of [`protocol`] ask for. Pure and sync: no I/O, clock,
//! randomness, environment or runtime here (see [`io`]). Rules and invariants: `shared/design/0004-commit-protocol.md`.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod base64;
pub mod changes;
pub mod checkpoint;
pub mod context;
pub mod error;
pub mod io;
pub mod pointer;
pub mod protocol;
pub mod sequence;

pub use error::{CommitError, ErrorKind};
