//! What begins by itself: records, splits and merges, deliveries, events, the schedule, backups, other engines; and writes that arrive late.
//!
//! Neighbours: `run` decides whose turn it is.

use super::*;

impl Run<'_> {
    pub(super) fn arrivals(&mut self) {
        let now_ms = self.world.now_ms();
        for late in self.world.take_late() {
            let mut r = self.chance.of(Decision::Event, self.history.turns);
            let longest = if r.per_mille(200) { LATE_MS } else { 20_000 };
            let due = now_ms + 500 + i64::try_from(r.below(longest.unsigned_abs())).unwrap_or(0);
            self.late.push((due, late));
        }
        let (due, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.late).into_iter().partition(|(due, _)| *due <= now_ms);
        self.late = rest;
        for (_, late) in due {
            self.say(format!("late: {}", describe(&late)));
            self.world.arrive(late);
        }
        for key in self.world.take_tasks() {
            let mut r = self.chance.of(Decision::Event, self.history.turns ^ 0x7a5c);
            // Lost, once, or twice; now, or much later.
            let copies = if self.calm { 1 } else { [0, 1, 1, 1, 2][usize::try_from(r.below(5)).unwrap_or(1)] };
            for _ in 0..copies {
                let longest = if r.per_mille(100) { 20 * MINUTE_MS } else { 3_000 };
                let due = now_ms + i64::try_from(r.below(longest.unsigned_abs())).unwrap_or(0);
                self.events.push((due, key.clone(), 0));
            }
        }
    }

    /// What begins by itself.
    pub(super) fn outside(&mut self) {
        let now_ms = self.world.now_ms();
        if self.produced < self.profile.records && self.drawn.per_mille(100) {
            self.produce();
        }
        if self.resharded < self.profile.reshards && !self.calm && self.drawn.per_mille(4) {
            self.reshard();
        }
        for shard in self.mapping.ready(now_ms) {
            if self.drawn.per_mille(300) {
                self.start_ingest(shard);
            }
        }
        let due = self.events.iter().position(|(due, ..)| *due <= now_ms);
        if let Some(due) = due {
            let (_, key, attempt) = self.events.swap_remove(due);
            self.start_compact(key, attempt);
        }
        if self.next_schedule_ms <= now_ms {
            self.next_schedule_ms = now_ms + SCHEDULE_MS;
            self.start_maintain();
        }
        if u64::from(self.foreign) < self.profile.foreign && !self.calm && self.drawn.per_mille(3) {
            self.start_foreign();
        }
        self.backups();
        if self.repair_ms.is_some_and(|due| due <= now_ms)
            && !self.actors.iter().any(|a| matches!(a.role, Role::Repair))
        {
            self.start_repair();
        }
        let sleeping = self.actors.iter().all(|actor| actor.frozen_until_ms > now_ms);
        if sleeping && !self.calm && self.drawn.per_mille(15) {
            let minutes = 1 + i64::try_from(self.drawn.below(90)).unwrap_or(0);
            self.say(format!("{minutes} minutes pass"));
            self.world.advance(minutes * MINUTE_MS);
        }
    }

    pub(super) fn produce(&mut self) {
        let many = (1 + self.drawn.below(8)).min(self.profile.records - self.produced);
        for number in self.produced..self.produced + many {
            let mut r = self.chance.of(Decision::Record, number);
            let key = i32::try_from(r.below(self.profile.keys)).unwrap_or(0);
            let what = r.below(1_000);
            let (says, data) = if what < self.profile.bad {
                (Says::Bad, json!({"id": "x", "src": 0, "n": number}))
            } else if what < self.profile.bad + self.profile.deletes {
                (Says::Delete, json!({"id": key, "src": 0, "n": number, "op": "delete"}))
            } else {
                (Says::Upsert, json!({"id": key, "src": 0, "n": number}))
            };
            let record =
                PutRecord { data: data.to_string().into(), partition_key: key.to_string(), explicit_hash_key: None };
            let put = now(self.world.streams().put_records(STREAM, &[record])).unwrap_or_else(|e| panic!("{e}"));
            let Some(Ok(put)) = put.into_iter().next() else { panic!("the stream takes every record") };
            let shard = siltstone_commit::checkpoint::ShardId::new(put.shard).unwrap_or_else(|e| panic!("{e}"));
            let position = put.sequence.parse().unwrap_or_else(|e| panic!("{e:?}"));
            self.world.oracle(|oracle| oracle.produced(Record { number, key, says, shard, position }));
        }
        self.produced += many;
        self.mapping.refresh(self.world.streams());
        self.say(format!("produced up to record {}", self.produced));
    }

    pub(super) fn reshard(&mut self) {
        let open = self.mapping.open_shards();
        let mut r = self.chance.of(Decision::Record, u64::MAX - self.history.turns);
        let Some(shard) = open.get(usize::try_from(r.below(open.len() as u64)).unwrap_or(0)) else { return };
        let beside = open.iter().find(|other| other.hash_start.checked_sub(1) == Some(shard.hash_end));
        let done = match beside.filter(|_| r.per_mille(500)) {
            Some(beside) => now(self.world.streams().merge(STREAM, &shard.id, &beside.id))
                .map(|()| format!("merged with {}", beside.id)),
            None => {
                let half = shard.hash_start + (shard.hash_end - shard.hash_start) / 2 + 1;
                now(self.world.streams().split(STREAM, &shard.id, half)).map(|()| "split".to_owned())
            }
        };
        if let Ok(done) = done {
            self.resharded += 1;
            self.mapping.refresh(self.world.streams());
            self.count("reshards");
            self.say(format!("{} {done}", shard.id));
        }
    }

    /// Now and then a backup of the pointer is made, and later it comes back, the processes of that time gone.
    pub(super) fn backups(&mut self) {
        if self.profile.restores == self.restored || self.calm || self.behind {
            return;
        }
        if self.backup.is_none() && self.drawn.per_mille(5) {
            self.backup = self.world.pointer_item();
            self.say("the pointer is backed up".to_owned());
        } else if self.drawn.per_mille(2)
            && let Some(backup) = self.backup.take().filter(|backup| self.world.reaches(backup))
        {
            self.say(format!("the pointer is restored as of revision {}", backup.rev));
            self.count("restores");
            while let Some(actor) = self.actors.pop() {
                self.give_up(&actor);
                self.drop_sandbox(&actor);
            }
            // An operator restores when nothing is under way any more.
            self.late.clear();
            drop(self.world.take_late());
            self.world.restore_pointer(&backup);
            self.restored += 1;
            self.behind = true;
            self.repair_ms = Some(self.world.now_ms() + 1_000 + i64::try_from(self.drawn.below(300_000)).unwrap_or(0));
        }
    }
}

pub(super) fn describe(late: &Late) -> String {
    match late {
        Late::Put { key, .. } => format!("put {key}"),
        Late::Delete(keys) => format!("delete {} objects", keys.len()),
        Late::PutItem { item, .. } => format!("put_item {} at {}", item.sort, item.rev),
    }
}
