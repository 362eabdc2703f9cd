//! The on-disk contract: bytes to values and back for every object of an Apache Paimon primary-key table.
//!
//! Used by `lsm` (data files), `commit` (snapshots and manifests) and `decode` (typed rows). Sync and pure: no I/O, clock,
//! randomness or environment here; callers fetch the bytes and pass them in.
//!
//! Invariants: 1. everything read is checked before it is returned; 2. what is written is the safe profile that Java,
//! pypaimon and paimon-rust agree on; 3. no input, however damaged, panics or allocates without a bound.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

pub mod avro;
pub mod binary_row;
pub mod bucket;
pub mod calendar;
pub mod compare;
pub mod data_file;
pub mod error;
pub mod id;
pub mod manifest;
pub mod options;
pub mod path;
pub mod schema;
pub mod snapshot;
pub mod stats;
pub mod types;
pub mod value;

pub use error::{ErrorKind, FormatError, Result};
