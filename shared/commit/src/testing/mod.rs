//! An in-memory world that performs effects, breaks as planned, and watches the invariants: for tests of this crate and of those above.
//!
//! Neighbours: `world` performs, `monitor` watches every write, `fixture` makes tables, files and changes. `schedule` interleaves machines at
//! random, `explore` in every way there is; `engines` are readers beside them.
//! Invariant: 1. the same seed gives the same run, byte for byte: no clock, no randomness, no hashing with a random state.
#![expect(clippy::panic, reason = "a broken invariant stops the test")]

pub mod engines;
pub mod explore;
pub mod fixture;
pub mod monitor;
pub mod schedule;
pub mod world;

/// SplitMix64: small, seeded, and good enough to choose what happens next.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..bound`, 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw().checked_rem(bound).unwrap_or(0)
    }

    /// True so many times in a thousand.
    pub fn per_mille(&mut self, chance: u64) -> bool {
        self.below(1_000) < chance
    }
}
