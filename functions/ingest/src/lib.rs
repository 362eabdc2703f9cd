//! The `ingest` function: a Kinesis event in, a committed batch out.
//!
//! `main` reads settings and builds clients once; `handler` decodes the event, calls the use-case and encodes the answer. Rules are in
//! `siltstone_table::ingest`. See README.md for variables, permissions, failures and metrics.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

pub mod bootstrap;
pub mod event;
pub mod handler;

pub use handler::Handler;
