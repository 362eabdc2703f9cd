//! The LSM engine of one table: runs, levels, picking, merging and writing, over Arrow batches and byte buffers.
//!
//! Above: `table` feeds bytes and uploads what comes out. Below: `format` for the on-disk values. Sync and pure: no I/O of its
//! own, no clock, randomness or environment; "now" and byte sources are arguments.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

pub mod audit;
pub mod batch;
pub mod buffer;
pub mod checksum;
pub mod compact;
mod conform;
pub mod error;
mod footer;
pub mod keys;
pub mod layout;
pub mod levels;
pub mod merge;
pub mod picker;
pub mod reader;
pub mod rows;
pub mod run;
pub mod section;
pub mod stats;
pub mod task;
pub mod writer;

#[cfg(test)]
mod roundtrip_tests;
#[cfg(test)]
mod test_files;
