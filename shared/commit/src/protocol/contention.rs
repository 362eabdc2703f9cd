//! What a pointer says of how many commit at the same time: whether to race for it, and when the next fold is due.
//!
//! Neighbours: `build` writes it into each snapshot, `commit` decides by it, `group` keeps time by it. Invariant: 1. nothing but thrift depends on it: a
//! clock that is wrong, or another engine's snapshot without it, costs requests or time.

use crate::{
    changes::ChangeId,
    pointer::{PROPERTY_CHANGES, Pointer},
};

/// A snapshot of so many changes says that racing for the pointer is a waste.
const BUSY_CHANGES: u64 = 4;
/// For so long, ms.
const BUSY_MS: i64 = 5_000;
/// At most one fold in this time under load, ms.
const FOLD_EVERY_MS: i64 = 1_000;
/// A fold of so many changes costs each next to nothing, so the next one need not wait as long.
const LARGE_FOLD: u64 = 256;
/// At most one fold in this time after a large one, ms.
const LARGE_FOLD_EVERY_MS: i64 = 500;
/// A fold has so many scouts, by what the last one took: the others can wait for their answer, and ask once.
const SCOUTS: u64 = 3;
/// A large fold has more: there they cost each change less than what the fold being late does.
const LARGE_FOLD_SCOUTS: u64 = 8;
/// One change of so many is a scout's at the most: the last fold may have been a small one before a large one.
const SCOUT_OF: u64 = 4;

/// The current snapshot, if it folds many changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LastFold {
    pub(crate) at_ms: i64,
    changes: u64,
}

impl LastFold {
    /// `None` if it does not.
    pub(crate) fn of(pointer: &Pointer) -> Option<Self> {
        let snapshot = pointer.snapshot.as_ref()?;
        let changes: u64 = snapshot.properties.as_ref()?.get(PROPERTY_CHANGES)?.parse().ok()?;
        (changes >= BUSY_CHANGES).then_some(Self { at_ms: snapshot.time_millis, changes })
    }

    /// The next one begins no sooner after it, ms.
    pub(crate) const fn every_ms(self) -> i64 {
        if self.changes < LARGE_FOLD { FOLD_EVERY_MS } else { LARGE_FOLD_EVERY_MS }
    }

    /// Until a fold is due, ms. Folds have gone on since this one was read; a clock that is wrong by less than folds are apart costs one look more.
    pub(crate) const fn due_in_ms(self, now_ms: i64) -> i64 {
        self.every_ms() - now_ms.saturating_sub(self.at_ms).rem_euclid(self.every_ms())
    }

    /// Whether the writer of a change looks early, for the lease as well: someone has to fold.
    pub(crate) fn has_scout(self, id: ChangeId) -> bool {
        let scouts = if self.changes < LARGE_FOLD { SCOUTS } else { LARGE_FOLD_SCOUTS };
        id.0.is_multiple_of(u128::from((self.changes / scouts).max(SCOUT_OF)))
    }
}

/// True if the last snapshot was a fold of many, not long ago.
pub(crate) fn is_busy(pointer: &Pointer, now_ms: i64) -> bool {
    expected(pointer, now_ms) > 0
}

/// How many changes the last snapshot lets expect in a fold; 0 unless it was one of many, not long ago.
pub(crate) fn expected(pointer: &Pointer, now_ms: i64) -> u64 {
    LastFold::of(pointer).filter(|last| now_ms.saturating_sub(last.at_ms) < BUSY_MS).map_or(0, |last| last.changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_is_looked_for_once_the_next_fold_can_have_given_it() {
        let small = LastFold { at_ms: 10_000, changes: 100 };
        assert_eq!(
            [10_000, 10_300, 10_999, 11_000, 13_250].map(|now| small.due_in_ms(now)),
            [1_000, 700, 1, 1_000, 750]
        );
        let large = LastFold { at_ms: 10_000, changes: 256 };
        assert_eq!([10_000, 10_300, 10_600].map(|now| large.due_in_ms(now)), [500, 200, 400]);
        // A holder whose clock is ahead by an hour.
        assert!((1..=500).contains(&LastFold { at_ms: 3_610_000, ..large }.due_in_ms(10_123)));
    }

    #[test]
    fn a_fold_of_any_size_has_some_scouts() {
        for changes in [4, 10, 100, 1_000] {
            let last = LastFold { at_ms: 0, changes };
            let scouts = (0..changes * 100).filter(|n| last.has_scout(ChangeId::derive(&n.to_string()))).count() as u64;
            let of_a_fold = scouts as f64 / 100.0;
            let most = if changes < LARGE_FOLD { SCOUTS } else { LARGE_FOLD_SCOUTS };
            let wanted = (changes as f64 / SCOUT_OF as f64).min(most as f64);
            assert!((wanted * 0.6..=wanted * 1.4).contains(&of_a_fold), "{changes}: {of_a_fold}");
        }
    }
}
