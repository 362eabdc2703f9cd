//! The use-cases of Siltstone, async over ports: ingest, compact, maintain, scan, and what `silt` asks.
//!
//! Above: the functions and `silt`, thin. Below: `decode`, `lsm`, `commit`, `format` (pure) and the ports of `store`: here, and only
//! here, engine, protocol and I/O meet.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

pub mod backlog;
pub mod catalog;
pub mod check;
pub mod compact;
pub mod debt;
pub mod driver;
pub mod emf;
pub mod error;
pub mod filter;
pub mod ingest;
mod lease;
mod level_zero;
mod lists;
pub mod maintain;
mod memory;
pub mod name;
mod open_files;
pub mod ports;
pub mod quarantine;
pub mod repair;
pub mod replay;
mod rescale;
pub mod scan;
pub mod settings;
pub mod source;
pub mod state;
pub mod table;
pub mod task;
pub mod text;
pub mod writing;

pub use siltstone_commit::context::Authority;
pub use siltstone_format::options::Purpose;

pub use error::{ErrorKind, Result, TableError};
pub use name::{TableName, TableRef};
pub use ports::Ports;
pub use table::{Table, Version};
