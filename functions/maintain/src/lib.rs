//! The `maintain` function: a schedule's event in; missed work planned, snapshots expired, orphans swept, publication repaired.
//!
//! `main` reads settings and builds clients once; `handler` calls `siltstone_table::maintain`. See README.md.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

pub mod bootstrap;
pub mod handler;

pub use handler::Handler;
