//! The port for identifiers and randomness, with a random and a seeded version.
//! Neighbours: `clock`, `retry` (jitter). Invariant: 1. the seeded version gives the same answers in the same order for the same seed.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use rand::{Rng, SeedableRng, rngs::SmallRng};
use uuid::{Builder, Uuid};

/// Unique names and jitter.
pub trait Ids: Send + Sync + fmt::Debug {
    /// A version 4 UUID.
    fn uuid(&self) -> Uuid;
    /// Uniform in [0, 1).
    fn jitter(&self) -> f64;
}

/// From the operating system's entropy.
#[derive(Debug, Clone, Copy, Default)]
pub struct RandomIds;

impl Ids for RandomIds {
    #[allow(clippy::disallowed_methods, reason = "the one seam to randomness")]
    fn uuid(&self) -> Uuid {
        Uuid::new_v4()
    }

    #[allow(clippy::disallowed_methods, reason = "the one seam to randomness")]
    fn jitter(&self) -> f64 {
        rand::rng().random()
    }
}

/// From a seed, for tests and simulation.
#[derive(Debug)]
pub struct SeededIds(Mutex<SmallRng>);

impl SeededIds {
    /// Starts the sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(SmallRng::seed_from_u64(seed)))
    }
}

impl Ids for SeededIds {
    fn uuid(&self) -> Uuid {
        let bytes: u128 = self.0.lock().unwrap_or_else(PoisonError::into_inner).random();
        Builder::from_random_bytes(bytes.to_be_bytes()).into_uuid()
    }

    fn jitter(&self) -> f64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).random()
    }
}

impl<T: Ids + ?Sized> Ids for Arc<T> {
    fn uuid(&self) -> Uuid {
        (**self).uuid()
    }
    fn jitter(&self) -> f64 {
        (**self).jitter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_gives_same_ids_and_jitter() {
        let draw = |seed| {
            let ids = SeededIds::new(seed);
            (ids.uuid(), ids.jitter().to_bits(), ids.uuid())
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert_eq!(draw(7).0.get_version_num(), 4);
    }

    #[test]
    fn random_ids_differ() {
        assert_ne!(RandomIds.uuid(), RandomIds.uuid());
        assert!((0.0..1.0).contains(&RandomIds.jitter()));
    }
}
