//! What AWS puts between its services: event source mapping, S3 notifications, schedules, and Lambda itself.
//!
//! Neighbours: `kinesis` and `s3` deliver records and events; `silt` plugs functions in. Every part speaks to a [`Function`], be it a handler in
//! this process or a real `bootstrap` behind a Runtime API.

pub mod control_api;
pub mod function;
pub mod lineage;
pub mod mapping;
pub mod notify;
pub mod process;
pub mod schedule;

pub use function::{Function, FunctionError, InProcess};
pub use mapping::{Mapping, MappingConfig, MappingCounts};
pub use process::{ProcessConfig, ProcessFunction};
