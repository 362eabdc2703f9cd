//! The `compact` function: S3 events of task objects in, compacted buckets out.
//!
//! `main` reads settings and builds clients once; `handler` decodes the event and calls `siltstone_table::compact`. See README.md.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

pub mod bootstrap;
pub mod event;
pub mod handler;

pub use handler::Handler;
