//! The whole system in one thread under one seed: the use-cases of `table` over simulated ports, with faults at every call, and an oracle.
//!
//! Above: `tests/sim-long` and the tests of this crate. Below: `table` and what it stands on. No clock, no randomness but the seed's. Design:
//! `shared/design/0020-simulation.md`. Invariant: 1. a seed is one history, byte for byte, and replays with any of its faults left out.
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "a broken invariant stops the history; `run` catches it and keeps the seed"
)]

pub mod actors;
pub mod chance;
pub mod load;
pub mod mapping;
pub mod oracle;
pub mod ports;
pub mod process;
pub mod profile;
pub mod report;
pub mod run;
pub mod shrink;
pub mod world;
