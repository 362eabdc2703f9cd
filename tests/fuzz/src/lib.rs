//! Fuzzing of every parser: bytes that nobody vouches for go in, and what must never happen is watched.
//!
//! Below: `corpus` (what real engines wrote), `mutate` (how it is damaged), `targets` (the parsers and what must hold of each), `memory` (what
//! they allocate), `coverage` (what they reached), `driver` (the loop). The decision and its properties: `shared/design/0017-fuzzing.md`.
//! Invariants: 1. a seed and a number of executions always make the same inputs, unless coverage is measured; 2. a fault is shown with its
//! input, made small, and with the command that repeats it.

pub mod corpus;
pub mod coverage;
pub mod driver;
pub mod memory;
pub mod mutate;
pub mod targets;
