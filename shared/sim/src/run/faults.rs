//! What becomes of a call: it goes on, or a fault comes, down to the death of its process.
//!
//! Neighbours: `run` decides whose turn it is.

use super::*;

impl Run<'_> {
    pub(super) fn go_on(&mut self, place: usize, number: u64, call: &Call) {
        let fault = if call.verdict.is_none() { self.draw(call) } else { None };
        let actor = &mut self.actors[place];
        let (id, what) = (actor.id, format!("{} {}", call.operation, call.key));
        if let Some(fault) = fault {
            let step = format!("{} {}", call.operation, self.world.kind_of(call.operation, &call.key));
            self.history.hits.push(Hit { turn: self.history.turns, fault, step });
            self.say(format!("#{id} {what}: {}", fault.name()));
            return self.break_it(place, number, fault);
        }
        if call.verdict.is_none() {
            actor.process.decide(number, Verdict::Perform, 0);
        }
        self.say(format!("#{id} {what}"));
        self.answer(place, number);
    }

    pub(super) fn draw(&self, call: &Call) -> Option<Fault> {
        let turn = self.history.turns;
        if self.calm || self.limits.only.as_ref().is_some_and(|only| !only.contains(&turn)) {
            return None;
        }
        let fault = Fault::draw(&mut self.chance.of(Decision::Fault, turn), self.profile.faults)?;
        // Deletes are rare, and so would be those that stop half-way.
        let fault = if call.operation == "delete" && turn.is_multiple_of(4) { Fault::CrashMiddle } else { fault };
        let object = matches!(call.operation, "put" | "delete");
        let fits = match fault {
            Fault::Conflict => call.operation == "put" && call.conditional,
            Fault::Late => object || call.operation == "put_item",
            Fault::CrashMiddle => call.operation == "delete",
            Fault::CrashAfter => call.write,
            _ => true,
        };
        fits.then_some(fault)
    }

    pub(super) fn break_it(&mut self, place: usize, number: u64, fault: Fault) {
        let now_ms = self.world.now_ms();
        let mut r = self.chance.of(Decision::Fault, self.history.turns ^ 0xbad);
        let some = |r: &mut Random, longest: i64| i64::try_from(r.below(longest.unsigned_abs())).unwrap_or(0);
        let verdict = match fault {
            Fault::Throttled => Verdict::Throttle,
            Fault::Conflict => Verdict::Conflict,
            Fault::Unavailable => Verdict::Unavailable,
            Fault::LostRequest => Verdict::LoseRequest,
            Fault::LostAnswer => Verdict::LoseAnswer,
            Fault::Late => Verdict::Late,
            Fault::Slow => {
                let until = now_ms + 500 + some(&mut r, 15_000);
                return self.actors[place].process.decide(number, Verdict::Perform, until);
            }
            Fault::CrashBefore | Fault::TimedOut => return self.die(place),
            Fault::CrashAfter | Fault::CrashMiddle => {
                let middle = fault == Fault::CrashMiddle;
                let verdict = if middle { Verdict::PartAndDie } else { Verdict::PerformAndDie };
                self.actors[place].process.last(number, verdict);
                return self.die(place);
            }
            Fault::Frozen => {
                let longest = if r.per_mille(300) { LIFE_MS } else { 2 * MINUTE_MS };
                self.actors[place].frozen_until_ms = now_ms + 1_000 + some(&mut r, longest);
                return self.abandon(place);
            }
            Fault::Abandoned => return self.abandon(place),
        };
        self.actors[place].process.decide(number, verdict, 0);
        if matches!(fault, Fault::LostRequest | Fault::LostAnswer | Fault::Late) {
            // The caller waits for its answer in vain.
            self.actors[place].frozen_until_ms = now_ms + 1_000 + some(&mut r, 8_000);
        }
        self.answer(place, number);
    }

    pub(super) fn answer(&mut self, place: usize, number: u64) {
        if let Some(end) = self.actors[place].process.answer(number) {
            let actor = self.actors.swap_remove(place);
            self.ended(actor, end);
        }
    }

    /// Nobody waits for it any more.
    pub(super) fn abandon(&mut self, place: usize) {
        let mut actor = self.actors.swap_remove(place);
        self.give_up(&actor);
        if let Role::Ingest { current, .. } = &mut actor.role {
            *current = false;
        }
        actor.stale = true;
        let thawed_ms = actor.frozen_until_ms.max(actor.deadline_ms);
        actor.deadline_ms = (thawed_ms + TIMEOUT_MS).min(actor.started_ms + LIFE_MS);
        self.actors.push(actor);
    }

    /// Whoever called it hears that it failed.
    pub(super) fn give_up(&mut self, actor: &Actor) {
        let now_ms = self.world.now_ms();
        match &actor.role {
            Role::Ingest { handed, current: true, .. } => {
                let handed = handed.clone();
                self.mapping.failed(&handed, now_ms, &mut self.drawn);
            }
            Role::Compact { key, attempt } if !actor.stale => self.retry_event(key.clone(), *attempt),
            Role::Repair if !actor.stale => self.repair_ms = Some(now_ms + MINUTE_MS),
            _ => {}
        }
    }

    /// Asynchronous invocations are tried three times in all.
    pub(super) fn retry_event(&mut self, key: String, attempt: u32) {
        if attempt < 2 {
            self.events.push((self.world.now_ms() + MINUTE_MS, key, attempt + 1));
        }
    }

    pub(super) fn die(&mut self, place: usize) {
        let actor = self.actors.swap_remove(place);
        self.count("deaths");
        self.give_up(&actor);
        self.drop_sandbox(&actor);
    }

    pub(super) fn drop_sandbox(&mut self, actor: &Actor) {
        if let Role::Ingest { sandbox, .. } = actor.role {
            self.sandboxes.remove(&sandbox);
        }
    }

    pub(super) fn deadlines(&mut self) {
        let now_ms = self.world.now_ms();
        let late = |actor: &Actor| actor.deadline_ms < now_ms && actor.frozen_until_ms <= now_ms;
        while let Some(place) = self.actors.iter().position(late) {
            let id = self.actors[place].id;
            self.say(format!("#{id} is out of time"));
            self.history.hits.push(Hit {
                turn: self.history.turns,
                fault: Fault::TimedOut,
                step: "deadline".to_owned(),
            });
            self.die(place);
        }
    }
}
