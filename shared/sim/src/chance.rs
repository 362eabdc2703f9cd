//! What the seed decides: every decision is a function of the seed, of what is decided, and of its number.
//!
//! Neighbours: `profile` and `run` draw. Invariant: 1. leaving one decision out changes no other one's outcome, so that a history can be
//! made smaller by leaving out faults one by one.

use siltstone_commit::testing::Random;

/// What is decided; each has numbers of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// What kind of history this is.
    Profile = 1,
    /// What a producer writes.
    Record,
    /// Who goes on.
    Turn,
    /// What goes wrong with a call.
    Fault,
    /// What happens beside the calls.
    World,
    /// Ids of a process.
    Ids,
    /// How events of S3 travel.
    Event,
}

/// The decisions of a seed.
#[derive(Debug, Clone, Copy)]
pub struct Chance(u64);

impl Chance {
    /// Those of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The numbers behind one decision.
    #[must_use]
    pub fn of(self, decision: Decision, number: u64) -> Random {
        let mut mixed = Random::new(self.0 ^ (decision as u64).wrapping_mul(0xd6e8_feb8_6659_fd93));
        Random::new(mixed.draw() ^ number.wrapping_mul(0xa076_1d64_78bd_642f))
    }
}
