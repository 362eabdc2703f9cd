//! Sequence numbers of rows: a hybrid clock of arrival time, shard slot and counter, and the reservation of slots.
//!
//! Neighbours: `checkpoint` keeps each shard's last number, `pointer` the floor below which nothing new may start.
//! Layout of the 63 bits: 42 arrival ms since 1970, 12 slot, 9 counter. Slot 0 belongs to nobody: `_MAX_SEQUENCE_NUMBER` is
//! padded to the end of its ms, so that a foreign writer's max + 1 is slot 0, counter 0 of the next ms.
//!
//! Invariants: 1. numbers of one shard strictly ascend in stream order (15); 2. two shards never give out the same number
//! (14, 16); 3. the same records above the same last number get the same numbers; 4. a freed slot starts above its floor.

use std::{collections::BTreeMap, fmt};

use siltstone_format::id::SequenceNumber;

use crate::{
    checkpoint::{SHARD_ID_BYTES, ShardId, put_bytes, put_varint, take_byte, take_bytes, take_varint},
    error::CommitError,
};

const COUNTER_BITS: u32 = 9;
const SLOT_BITS: u32 = 12;
const MS_SHIFT: u32 = COUNTER_BITS + SLOT_BITS;
const COUNTER_MAX: i64 = (1 << COUNTER_BITS) - 1;
/// Largest millisecond that fits, in the year 2109.
pub const MS_MAX: i64 = (1 << 42) - 1;
/// Largest slot.
pub const SLOT_MAX: u16 = (1 << SLOT_BITS) - 1;
/// Largest number of the clock.
pub const LAST: SequenceNumber = SequenceNumber((MS_MAX << MS_SHIFT) | ((1 << MS_SHIFT) - 1));

/// A shard's own part of the sequence numbers, 1 to 4,095.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The millisecond of a number.
#[must_use]
pub const fn millis_of(number: SequenceNumber) -> i64 {
    number.0 >> MS_SHIFT
}

/// The slot of a number.
#[must_use]
pub const fn slot_of(number: SequenceNumber) -> Slot {
    Slot(((number.0 >> COUNTER_BITS) & SLOT_MAX as i64) as u16)
}

/// The last number of the same millisecond: what a data file states as its largest, and what an adopted file raises the floor to.
#[must_use]
pub const fn padded(number: SequenceNumber) -> SequenceNumber {
    SequenceNumber(number.0 | ((1 << MS_SHIFT) - 1))
}

/// The smallest number of a millisecond: every row that arrived before it has a smaller one.
#[must_use]
pub const fn first_of(ms: i64) -> SequenceNumber {
    let ms = if ms < 0 {
        0
    } else if ms > MS_MAX {
        MS_MAX
    } else {
        ms
    };
    SequenceNumber(ms << MS_SHIFT)
}

/// Gives numbers to the records of one shard, in stream order.
#[derive(Debug, Clone)]
pub struct Allocator {
    slot: Slot,
    /// The number before the next one, or the floor.
    last: SequenceNumber,
}

impl Allocator {
    /// Starts above the shard's last number, its parents' and the pointer's floor, whichever is largest.
    ///
    /// # Errors
    /// `InvalidInput` for slot 0 or one above [`SLOT_MAX`].
    pub fn new(slot: Slot, above: impl IntoIterator<Item = SequenceNumber>) -> Result<Self, CommitError> {
        if slot.0 == 0 || slot.0 > SLOT_MAX {
            let reason = format!("slot {slot} is not between 1 and {SLOT_MAX}; reserve one first");
            return Err(CommitError::InvalidChange { reason });
        }
        let last = above.into_iter().max().unwrap_or(SequenceNumber(0)).max(SequenceNumber(0));
        Ok(Self { slot, last })
    }

    /// The number of the next record: its arrival millisecond if that is later than the last number's, else the next counter;
    /// a full counter runs into the next millisecond of the same slot.
    ///
    /// # Errors
    /// `InvalidInput` past the year 2109.
    pub fn next(&mut self, arrival_ms: i64) -> Result<SequenceNumber, CommitError> {
        let earliest = self.at(arrival_ms.max(0), 0);
        let number = if earliest > self.last.0 { earliest } else { self.successor() };
        // Past the last millisecond the shifted number turns negative.
        if arrival_ms > MS_MAX || number <= self.last.0 {
            let reason = format!("arrival time {arrival_ms} ms leaves no sequence number above {}", self.last);
            return Err(CommitError::InvalidChange { reason });
        }
        self.last = SequenceNumber(number);
        Ok(self.last)
    }

    /// The smallest number of this slot above the last one, which may be of another slot (a floor).
    fn successor(&self) -> i64 {
        let ms = millis_of(self.last);
        let own = slot_of(self.last) == self.slot;
        let counter = self.last.0 & COUNTER_MAX;
        if own && counter < COUNTER_MAX {
            return self.last.0 + 1;
        }
        let first = self.at(ms, 0);
        if first > self.last.0 { first } else { self.at(ms + 1, 0) }
    }

    fn at(&self, ms: i64, counter: i64) -> i64 {
        (ms.min(MS_MAX + 1) << MS_SHIFT) | (i64::from(self.slot.0) << COUNTER_BITS) | counter
    }

    /// The last number given out, or the floor.
    #[must_use]
    pub const fn last(&self) -> SequenceNumber {
        self.last
    }
}

/// Numbers for a batch, in order. The same arguments always give the same numbers.
///
/// # Errors
/// As [`Allocator::new`] and [`Allocator::next`].
pub fn allocate(
    slot: Slot,
    above: impl IntoIterator<Item = SequenceNumber>,
    arrivals_ms: impl IntoIterator<Item = i64>,
) -> Result<Vec<SequenceNumber>, CommitError> {
    let mut allocator = Allocator::new(slot, above)?;
    arrivals_ms.into_iter().map(|ms| allocator.next(ms)).collect()
}

/// A slot, and the number that its first use must be above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    /// Slot.
    pub slot: Slot,
    /// Floor left by the slot's earlier owner.
    pub floor: SequenceNumber,
}

/// Which shard owns which slot. Its own item beside the pointer; written only when a shard appears or goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SlotTable {
    taken: BTreeMap<ShardId, Reservation>,
    free: BTreeMap<Slot, SequenceNumber>,
    /// Slots above this one were never used.
    highest: u16,
}

const TABLE_VERSION: u8 = 1;

impl SlotTable {
    /// The slot of a shard.
    #[must_use]
    pub fn get(&self, shard: &ShardId) -> Option<Reservation> {
        self.taken.get(shard).copied()
    }

    /// Every taken slot.
    pub fn taken(&self) -> impl Iterator<Item = (&ShardId, Reservation)> {
        self.taken.iter().map(|(shard, reservation)| (shard, *reservation))
    }

    /// Gives a shard its slot: the one it has, else a never used one, else the freed one with the lowest floor.
    ///
    /// # Errors
    /// `InvalidInput` if all 4,095 are taken.
    pub fn reserve(&mut self, shard: &ShardId) -> Result<Reservation, CommitError> {
        if let Some(reservation) = self.get(shard) {
            return Ok(reservation);
        }
        let reservation = if self.highest < SLOT_MAX {
            self.highest += 1;
            Reservation { slot: Slot(self.highest), floor: SequenceNumber(0) }
        } else {
            let lowest = self.free.iter().min_by_key(|(slot, floor)| (**floor, **slot)).map(|(s, f)| (*s, *f));
            let Some((slot, floor)) = lowest else {
                let reason = format!("all {SLOT_MAX} sequence slots are taken; release those of closed shards");
                return Err(CommitError::InvalidChange { reason });
            };
            self.free.remove(&slot);
            Reservation { slot, floor }
        };
        self.taken.insert(shard.clone(), reservation);
        Ok(reservation)
    }

    /// Gives shards that are about to begin their slots as well, of those that were never used, while at least half of all remain.
    pub fn reserve_ahead(&mut self, shards: &[ShardId]) {
        for shard in shards {
            if self.highest >= SLOT_MAX / 2 || self.reserve(shard).is_err() {
                return;
            }
        }
    }

    /// Frees the slot of a closed shard; the next owner starts above `last`, padded to the end of its millisecond.
    /// Returns false if the shard has none.
    pub fn release(&mut self, shard: &ShardId, last: SequenceNumber) -> bool {
        let Some(reservation) = self.taken.remove(shard) else { return false };
        self.free.insert(reservation.slot, padded(last.max(reservation.floor)));
        true
    }

    /// As bytes, canonical.
    #[must_use]
    pub fn pack(&self) -> Vec<u8> {
        let mut out = vec![TABLE_VERSION];
        put_varint(&mut out, u64::from(self.highest));
        put_varint(&mut out, self.taken.len() as u64);
        for (shard, reservation) in &self.taken {
            put_bytes(&mut out, shard.as_str().as_bytes());
            put_slot(&mut out, reservation.slot, reservation.floor);
        }
        for (slot, floor) in &self.free {
            put_slot(&mut out, *slot, *floor);
        }
        out
    }

    /// Reads what [`Self::pack`] made, and checks that no slot has two owners.
    ///
    /// # Errors
    /// A sentence saying what is wrong.
    pub fn unpack(bytes: &[u8]) -> Result<Self, String> {
        let mut rest = bytes;
        if take_byte(&mut rest)? != TABLE_VERSION {
            return Err("slot table of an unknown version".to_owned());
        }
        let highest =
            u16::try_from(take_varint(&mut rest)?).ok().filter(|h| *h <= SLOT_MAX).ok_or("a slot is too large")?;
        let count = take_varint(&mut rest)?;
        let mut table = Self { highest, ..Self::default() };
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..count.min(u64::from(SLOT_MAX) + 1) {
            let name = String::from_utf8(take_bytes(&mut rest, SHARD_ID_BYTES)?.to_vec());
            let shard = ShardId::new(name.map_err(|_| "a shard id is not UTF-8")?).map_err(|e| e.to_string())?;
            let (slot, floor) = take_slot(&mut rest, highest, &mut seen)?;
            table.taken.insert(shard, Reservation { slot, floor });
        }
        while !rest.is_empty() {
            let (slot, floor) = take_slot(&mut rest, highest, &mut seen)?;
            table.free.insert(slot, floor);
        }
        Ok(table)
    }
}

fn put_slot(out: &mut Vec<u8>, slot: Slot, floor: SequenceNumber) {
    put_varint(out, u64::from(slot.0));
    put_varint(out, floor.0.max(0).unsigned_abs());
}

fn take_slot(
    rest: &mut &[u8],
    highest: u16,
    seen: &mut std::collections::BTreeSet<Slot>,
) -> Result<(Slot, SequenceNumber), String> {
    let slot = u16::try_from(take_varint(rest)?).ok().filter(|s| (1..=highest).contains(s)).map(Slot);
    let slot = slot.ok_or_else(|| format!("a slot is not between 1 and {highest}"))?;
    let floor = i64::try_from(take_varint(rest)?).map_err(|_| "a floor is too large".to_owned())?;
    if !seen.insert(slot) {
        return Err(format!("slot {slot} has two owners"));
    }
    Ok((slot, SequenceNumber(floor)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shard(n: u32) -> ShardId {
        ShardId::new(format!("shardId-{n:012}")).unwrap()
    }

    #[test]
    fn equal_arrival_times_count_up_and_a_full_counter_runs_into_the_next_ms_of_the_same_slot() {
        let numbers = allocate(Slot(7), [], std::iter::repeat_n(1_000, 514)).unwrap();
        assert!(numbers.windows(2).all(|w| w[0] < w[1]));
        assert!(numbers.iter().all(|n| slot_of(*n) == Slot(7)));
        assert_eq!(millis_of(numbers[511]), 1_000);
        assert_eq!(millis_of(numbers[512]), 1_001);
    }

    #[test]
    fn late_arrivals_stay_above_the_last_number_and_the_floor() {
        let floor = padded(SequenceNumber(5_000 << MS_SHIFT));
        let numbers = allocate(Slot(1), [floor, SequenceNumber(3)], [1_000, 4_000, 9_000, 8_000]).unwrap();
        assert!(numbers[0] > floor && numbers.windows(2).all(|w| w[0] < w[1]));
        assert_eq!(numbers.iter().map(|n| millis_of(*n)).collect::<Vec<_>>(), [5_001, 5_001, 9_000, 9_000]);
    }

    #[test]
    fn a_shard_that_begins_reserves_for_those_beside_it_and_half_of_all_slots_stay_free() {
        let mut table = SlotTable::default();
        table.reserve(&shard(5)).unwrap();
        let all: Vec<ShardId> = (0..5_000).map(shard).collect();
        table.reserve_ahead(&all[..10]);
        let before = table.clone();
        table.reserve_ahead(&all[..10]);
        assert_eq!(table, before, "nobody gets a second one");
        assert_eq!(table.get(&shard(5)).map(|r| r.slot), Some(Slot(1)));
        table.reserve_ahead(&all);
        assert_eq!(table.taken().count(), usize::from(SLOT_MAX / 2));
        assert_eq!(SlotTable::unpack(&table.pack()).unwrap(), table, "each slot has one owner");
        assert!(table.reserve(&shard(4_999)).is_ok(), "whoever begins still gets one");
    }

    #[test]
    fn padded_maximum_plus_one_lands_in_no_slot() {
        let number = allocate(Slot(4_095), [], [1_000]).unwrap()[0];
        assert_eq!(slot_of(SequenceNumber(padded(number).0 + 1)), Slot(0));
        assert!(Allocator::new(Slot(0), []).is_err());
    }

    #[test]
    fn past_the_last_millisecond_is_refused() {
        assert!(allocate(Slot(1), [], [MS_MAX]).is_ok());
        assert!(allocate(Slot(1), [], [MS_MAX + 1]).is_err());
        assert!(allocate(Slot(1), [LAST], [1]).is_err());
        assert!(allocate(Slot(1), [], [i64::MAX]).is_err());
    }

    #[test]
    fn freed_slot_goes_to_a_new_shard_only_above_its_floor() {
        let mut table = SlotTable::default();
        for n in 0..u32::from(SLOT_MAX) {
            table.reserve(&shard(n)).unwrap();
        }
        assert!(table.reserve(&shard(9_999)).is_err());
        let last = allocate(Slot(3), [], [77]).unwrap()[0];
        assert!(table.release(&shard(2), last));
        assert!(!table.release(&shard(2), last), "once");
        let again = table.reserve(&shard(9_999)).unwrap();
        assert_eq!(again, Reservation { slot: Slot(3), floor: padded(last) });
        assert_eq!(table.reserve(&shard(9_999)).unwrap(), again);
        assert_eq!(SlotTable::unpack(&table.pack()).unwrap(), table);
    }

    proptest! {
        #[test]
        fn two_shards_never_share_a_number_and_repetition_gives_the_same(
            a in proptest::collection::vec(0_i64..50, 1..600), b in proptest::collection::vec(0_i64..50, 1..600), floor in 0_i64..90_000_000,
        ) {
            let one = allocate(Slot(1), [SequenceNumber(floor)], a.clone()).unwrap();
            let two = allocate(Slot(2), [SequenceNumber(floor)], b).unwrap();
            prop_assert_eq!(&allocate(Slot(1), [SequenceNumber(floor)], a).unwrap(), &one);
            prop_assert!(one.windows(2).all(|w| w[0] < w[1]));
            prop_assert!(one.iter().all(|n| n.0 > floor && !two.contains(n)));
        }

        #[test]
        fn unpacking_any_slot_table_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(table) = SlotTable::unpack(&bytes) {
                prop_assert_eq!(SlotTable::unpack(&table.pack()).unwrap(), table);
            }
        }
    }
}
