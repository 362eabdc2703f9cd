//! The contract suites: what every version of a port must do, as public functions that adapters' tests call.
//! Neighbours: the ports; callers are the tests of `memory`, `fs`, and of the AWS adapters against the local stack.
//! Invariants: 1. each check works under its own prefix, so one store, empty at first, serves a whole suite; 2. a check panics with what it saw.
//! 3. racers are tasks of a runtime: run the suites on a multi-threaded one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a contract is an assertion")]

pub mod fault;
pub mod item;
pub mod object;
pub mod stream;

/// How many writers race in the conditional checks.
pub const RACERS: usize = 16;
/// How often each race is run.
pub const ROUNDS: usize = 12;
