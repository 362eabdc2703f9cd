//! Events to typed rows: what a stream record means for a table.
//!
//! Above: `table`'s ingest hands over payloads. Below: `format` for schemas and values. Pure and sync: bytes and an arrival time in, rows,
//! a named "nothing to do", or a reject out. Nothing here knows positions, Arrow, AWS or a clock.
//! Invariants: 1. no input panics, recurses without bound or allocates more than a small multiple of its own size; 2. a value is taken
//! exactly or rejected, never rounded, cut or silently null; 3. a reject's words name column and reason and never the record's contents.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

pub mod aggregate;
pub mod config;
mod convert;
mod debezium;
mod decoder;
mod envelope;
mod guard;
pub mod json;
mod mapping;
mod number;
pub mod payload;
mod plain;
pub mod quarantine;
pub mod reject;
mod rules;
mod time;

pub use aggregate::{UserRecord, deaggregate};
pub use config::{ConfigFault, DecoderConfig};
pub use decoder::{Decoded, Decoder, IgnoredKind, RowChange, RowKind};
pub use guard::BatchGuard;
pub use reject::{Reject, RejectCode};

#[cfg(test)]
mod tests;
