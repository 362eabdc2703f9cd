//! A local stack in one process on loopback: S3, DynamoDB and Kinesis for unmodified AWS clients.
//! Functions run beside it as on Lambda (`glue`, `host`). Neighbours: `silt` (starts it), the end-to-end tests. Inside: `stack` (start, addresses, directory), one module per service.
//! Invariants: 1. nothing leaves 127.0.0.1; 2. with a directory, what was answered survives the end of the process.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests"))]

pub mod dynamodb;
mod error;
pub mod glue;
pub mod host;
pub mod kinesis;
pub mod s3;
mod stack;

pub use error::{StackError, StackErrorKind};
pub use kinesis::Kinesis;
pub use s3::{Gate, GateDecision, ObjectCreated, S3};
pub use stack::{Endpoints, Stack, StackConfig};

/// The account in every ARN.
pub const ACCOUNT: &str = "000000000000";
/// The one region.
pub const REGION: &str = "us-east-1";
/// What clients sign with.
pub const ACCESS_KEY: &str = "test";
/// What clients sign with.
pub const SECRET_KEY: &str = "test";
