//! An exhaustive explorer of the real protocols: every interleaving of a few actors, effect by effect, with deaths at any of them and a
//! budget of lost, late and echoed answers (design record 0021).
//!
//! Neighbours: `scenario` says who runs on which table, `history` rebuilds machines, `reduction` says which effects need no interleaving,
//! `world` performs, `monitor` stops at the first broken invariant. The clock stands still: whatever takes time was long ago.
//! Invariants: 1. a state is the world, what the monitor remembers, and what each actor was told; equal states are explored once; 2. states are
//! visited in order of distance, so that the first violation has the shortest path; 3. ids are functions of actor and count, so
//! that equal states are equal bytes; 4. wherever all actors are gone, faults stop and one more run of each ends well (1, 2, 23).

mod history;
mod reduction;
mod scenario;
#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
    collections::{BTreeSet, VecDeque},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

pub(super) use self::history::Digest;
use self::scenario::last_number;
pub use self::{
    history::Running,
    scenario::{Actor, Scenario, scenarios},
};
use self::{
    history::{Answer, Histories, Turn, digest},
    reduction::{LATE, Shared},
};
use super::{
    engines::{self, Engine},
    fixture,
    world::{World, is_write},
};
use crate::{
    changes::Outcome,
    checkpoint::Lookup,
    error::{CommitError, ErrorKind},
    io::{Effect, Failure, FailureKind, PutMode, Reply, Request},
    protocol::{self, ExpireOptions, Severity, SweepOptions},
};

/// What an exploration found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Of the scenario.
    pub name: String,
    /// Different states.
    pub states: usize,
    /// Steps between them.
    pub steps: usize,
    /// States in which nobody runs any more.
    pub ends: usize,
    /// Steps of the longest path to a new state.
    pub depth: usize,
    /// Different histories of replies, over all actors: how often a machine of the real code was resumed.
    pub histories: usize,
    /// Rounds until no effect taken for independent was dependent.
    pub rounds: usize,
    /// Keys and prefixes, besides the items, on which effects are interleaved.
    pub shared_keys: usize,
    /// False if the limit of states was reached first.
    pub complete: bool,
    /// The first broken invariant.
    pub violation: Option<Violation>,
}

/// A broken invariant and the shortest way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What the monitor, a machine or the end said.
    pub message: String,
    /// Who did what.
    pub path: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, states, steps, ends, depth, histories, rounds, shared_keys, complete, violation } = self;
        write!(
            f,
            "{name}: {states} states, {steps} steps, {ends} ends, depth {depth}, {histories} histories, \
             {shared_keys} shared keys after {rounds} rounds"
        )?;
        match violation {
            Some(Violation { message, path }) => {
                write!(f, "\n  VIOLATION after {} steps: {message}", path.len())?;
                path.iter().try_for_each(|step| write!(f, "\n    {step}"))
            }
            None if *complete => f.write_str(", exhausted, no violation"),
            None => f.write_str(", no violation SO FAR: the limit of states was reached"),
        }
    }
}

/// What becomes of one loud effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Done; no answer.
    LostAnswer,
    /// Not done; no answer.
    LostRequest,
    /// Done at any later time; no answer.
    Late,
    /// Done; the answer is that of the same request sent again below the port.
    Echo,
}

#[derive(Debug, Clone, Copy)]
enum Choice {
    Step { actor: usize, part: usize, fault: Fault },
    Dies { actor: usize },
    Arrives { index: usize },
}

/// Where an actor is.
#[derive(Debug, Clone, Hash)]
enum Where {
    /// It waits for the open ones of its request's effects.
    At {
        place: usize,
        replies: Vec<Option<Reply>>,
        started: bool,
    },
    Ended {
        acknowledged: bool,
    },
}

struct Seen {
    world: RefCell<World>,
    digest: u128,
}

impl Seen {
    fn new(world: World) -> Rc<Self> {
        let mut digest = Digest::default();
        world.digest(&mut digest);
        Rc::new(Self { world: RefCell::new(world), digest: digest.finish() })
    }
}

#[derive(Clone)]
struct State {
    seen: Rc<Seen>,
    actors: Vec<Where>,
    late: Vec<Effect>,
    faults: usize,
}

/// Explores a scenario until every state is visited, `most_states` are, or an invariant is broken.
#[must_use]
pub fn explore(scenario: &Scenario, most_states: usize) -> Report {
    let mut shared = Shared::default();
    let mut rounds = 0;
    loop {
        rounds += 1;
        let mut round = Round::new(scenario, &mut shared, most_states);
        round.run();
        let mut report = Report { rounds, ..round.report };
        report.shared_keys = shared.len();
        if report.violation.is_some() || !report.complete || !shared.learn() {
            return report;
        }
    }
}

struct Round<'a> {
    scenario: &'a Scenario,
    shared: &'a mut Shared,
    histories: Vec<Histories<'a>>,
    visited: BTreeSet<u128>,
    ended: BTreeSet<u128>,
    /// How each state was first reached: from which one, by what, at which distance.
    trail: Vec<(usize, Choice, usize)>,
    queue: VecDeque<(usize, State)>,
    report: Report,
    most_states: usize,
}

impl<'a> Round<'a> {
    fn new(scenario: &'a Scenario, shared: &'a mut Shared, most_states: usize) -> Self {
        let histories = scenario.actors.iter().map(|actor| Histories::new(&*actor.start)).collect();
        let report = Report {
            name: scenario.name.clone(),
            states: 0,
            steps: 0,
            ends: 0,
            depth: 0,
            histories: 0,
            rounds: 0,
            shared_keys: 0,
            complete: true,
            violation: None,
        };
        let (visited, ended) = (BTreeSet::new(), BTreeSet::new());
        let (trail, queue) = (Vec::new(), VecDeque::new());
        Self { scenario, shared, histories, visited, ended, trail, queue, report, most_states }
    }

    fn run(&mut self) {
        let first = guarded(|| self.first()).map(|state| self.queue.push_back((usize::MAX, state)));
        if let Err(message) = first {
            self.violated(message, usize::MAX, None);
        }
        while let Some((at, state)) = self.queue.pop_front() {
            if let Err((message, choice)) = self.expand(at, &state) {
                self.violated(message, at, choice);
                break;
            }
            if self.visited.len() > self.most_states {
                self.report.complete = false;
                break;
            }
        }
        self.report.states = self.visited.len() + 1;
        self.report.ends = self.ended.len();
        self.report.histories = self.histories.iter().map(Histories::len).sum();
    }

    /// Everybody is about to make the first effect that others can notice.
    fn first(&mut self) -> Result<State, String> {
        let actors = vec![Where::At { place: 0, replies: Vec::new(), started: false }; self.histories.len()];
        let (seen, faults) = (Seen::new(self.scenario.world.clone()), self.scenario.faults);
        let mut state = State { seen, actors, late: self.scenario.late.clone(), faults };
        for actor in 0..self.histories.len() {
            self.arrive(&mut state, actor, 0);
            self.go_on(&mut state, actor)?;
        }
        Ok(state)
    }

    fn expand(&mut self, at: usize, state: &State) -> Result<(), (String, Option<Choice>)> {
        let choices = self.choices(state);
        if choices.is_empty() && self.ended.insert(digest(&(state.seen.digest, &state.actors))) {
            guarded(|| self.end(state)).map_err(|message| (message, None))?;
        }
        let depth = self.trail.get(at).map_or(0, |(_, _, depth)| *depth) + 1;
        for choice in choices {
            self.report.steps += 1;
            let next = guarded(|| self.take(state, choice)).map_err(|message| (message, Some(choice)))?;
            if self.visited.insert(self.digest_of(&next)) {
                self.trail.push((at, choice, depth));
                self.queue.push_back((self.trail.len() - 1, next));
                self.report.depth = depth;
            }
        }
        Ok(())
    }

    fn digest_of(&self, state: &State) -> u128 {
        let mut all = Digest::default();
        all.add(&state.seen.digest);
        all.add(&state.faults);
        all.add(&state.late);
        for (actor, histories) in state.actors.iter().zip(&self.histories) {
            match actor {
                Where::At { place, replies, .. } => {
                    all.add(&histories.at(*place).digest);
                    all.add(replies);
                }
                Where::Ended { acknowledged } => all.add(acknowledged),
            }
        }
        all.finish()
    }

    fn request(&self, state: &State, actor: usize) -> Option<(Rc<Request>, usize)> {
        let Where::At { place, .. } = state.actors[actor] else { return None };
        match &self.histories[actor].at(place).turn {
            Turn::Do(request) => Some((request.clone(), place)),
            Turn::Done(_) => None,
        }
    }

    fn choices(&self, state: &State) -> Vec<Choice> {
        let mut choices: Vec<Choice> = (0..state.late.len()).map(|index| Choice::Arrives { index }).collect();
        for (actor, position) in state.actors.iter().enumerate() {
            let Where::At { replies, started, .. } = position else { continue };
            if !started && self.waits_for_twin(state, actor) {
                continue;
            }
            let Some((request, _)) = self.request(state, actor) else { continue };
            for (part, effect) in parts(&request.effect).iter().enumerate().filter(|(part, _)| replies[*part].is_none())
            {
                let faults = if state.faults > 0 { faults_of(effect) } else { &[] };
                let all = [Fault::None].iter().chain(faults);
                choices.extend(all.map(|fault| Choice::Step { actor, part, fault: *fault }));
            }
            choices.push(Choice::Dies { actor });
        }
        choices
    }

    /// Of actors that differ by their names only, the first one starts first: any other order is the same under other names.
    fn waits_for_twin(&self, state: &State, actor: usize) -> bool {
        let first = self.scenario.twins.iter().find(|(_, second)| *second == actor).map(|(first, _)| *first);
        first.is_some_and(|first| matches!(state.actors[first], Where::At { started: false, .. }))
    }

    fn take(&mut self, state: &State, choice: Choice) -> Result<State, String> {
        let mut next = state.clone();
        match choice {
            Choice::Dies { actor } => next.actors[actor] = Where::Ended { acknowledged: false },
            Choice::Arrives { index } => {
                let effect = next.late.remove(index);
                let reply = apply(&mut next, &effect);
                self.shared.note(&self.scenario.context, LATE, &effect, &reply);
            }
            Choice::Step { actor, part, fault } => {
                if fault != Fault::None {
                    next.faults -= 1;
                }
                self.perform(&mut next, actor, part, fault);
                if let Where::At { started, .. } = &mut next.actors[actor] {
                    *started = true;
                }
                self.go_on(&mut next, actor)?;
            }
        }
        Ok(next)
    }

    /// One effect of an actor's request, and the reply to it.
    fn perform(&mut self, state: &mut State, actor: usize, part: usize, fault: Fault) {
        let Some((request, place)) = self.request(state, actor) else { return };
        let Some(effect) = parts(&request.effect).get(part) else { return };
        let lost = || Reply::Failed(Failure::new(FailureKind::Unknown, "no answer"));
        let reply = match (effect, fault) {
            (Effect::Pause { .. } | Effect::Wait { .. }, _) => Reply::Done,
            (Effect::Uuid, _) => Reply::Uuid(uuid(actor, self.histories[actor].at(place).uuids)),
            (_, Fault::None) => apply(state, effect),
            (_, Fault::LostRequest) => lost(),
            (_, Fault::LostAnswer) => {
                apply(state, effect);
                lost()
            }
            (_, Fault::Late) => {
                state.late.push(effect.clone());
                lost()
            }
            (_, Fault::Echo) => match apply(state, effect) {
                Reply::Failed(failure) => Reply::Failed(failure),
                _ => Reply::Failed(Failure::new(FailureKind::PreconditionFailed, "sent twice")),
            },
        };
        self.shared.note(&self.scenario.context, actor, effect, &reply);
        if let Where::At { replies, .. } = &mut state.actors[actor] {
            replies[part] = Some(reply);
        }
    }

    /// Lets an actor run as far as nobody can notice: quiet effects, and its end.
    fn go_on(&mut self, state: &mut State, actor: usize) -> Result<(), String> {
        while let Where::At { place, replies, .. } = &mut state.actors[actor] {
            let place = *place;
            let request = match &self.histories[actor].at(place).turn {
                Turn::Do(request) => request.clone(),
                Turn::Done(result) => {
                    let result = result.clone();
                    return self.answered(state, actor, result);
                }
            };
            if replies.iter().all(Option::is_some) {
                let replies: Vec<Reply> = replies.drain(..).flatten().collect();
                let reply = match (&request.effect, replies.first()) {
                    (Effect::All(_), _) | (_, None) => Reply::All(replies),
                    (_, Some(reply)) => reply.clone(),
                };
                let next = self.histories[actor].advance(place, reply);
                self.arrive(state, actor, next);
                continue;
            }
            let open = parts(&request.effect).iter().enumerate().filter(|(part, _)| replies[*part].is_none());
            let quiet =
                open.filter(|(_, effect)| self.shared.quiet(&self.scenario.context, effect)).map(|(part, _)| part);
            match quiet.min() {
                Some(part) => self.perform(state, actor, part, Fault::None),
                None => return Ok(()),
            }
        }
        Ok(())
    }

    fn arrive(&self, state: &mut State, actor: usize, at: usize) {
        let Where::At { place, replies, .. } = &mut state.actors[actor] else { return };
        *place = at;
        *replies = match &self.histories[actor].at(at).turn {
            Turn::Do(request) => vec![None; parts(&request.effect).len()],
            Turn::Done(_) => Vec::new(),
        };
    }

    fn answered(&self, state: &mut State, actor: usize, result: Result<Answer, CommitError>) -> Result<(), String> {
        let mut acknowledged = result.is_ok();
        match result {
            Ok(Answer::Done) => {}
            Ok(Answer::Outcome(outcome)) => {
                acknowledged = matches!(outcome, Outcome::Committed { .. });
                if let Some(change) = &self.scenario.actors[actor].change {
                    change_world(state, |world| world.watch(|monitor, w| monitor.answered(w, change, &outcome)));
                }
            }
            Err(error) if self.is_benign(error.kind()) => {}
            Err(error) => return Err(error.to_string()),
        }
        state.actors[actor] = Where::Ended { acknowledged };
        Ok(())
    }

    /// Errors that say "try again later" are part of life; any other is a defect.
    fn is_benign(&self, kind: ErrorKind) -> bool {
        matches!(kind, ErrorKind::Unavailable | ErrorKind::NotFound) || self.scenario.expected.contains(&kind)
    }

    /// Nobody runs: every run that was not acknowledged is made once more, without faults, and the table is looked at from all sides.
    fn end(&self, state: &State) -> Result<(), String> {
        let mut world = state.seen.world.borrow().clone();
        if self.scenario.expected.contains(&ErrorKind::Forked) {
            self.repair(&mut world)?;
        }
        for (actor, position) in self.scenario.actors.iter().zip(&state.actors) {
            if actor.again && matches!(position, Where::Ended { acknowledged: false }) {
                self.run_again(&mut world, actor)?;
            }
        }
        self.judge(&mut world)?;
        // Much later, maintenance takes what it may take: nothing that is needed.
        world.now_ms += 7 * 86_400_000;
        let expiry = ExpireOptions { retain_min: 1, ..ExpireOptions::default() };
        let context = &self.scenario.context;
        ended_well(world.run(protocol::expire(context, expiry)))?;
        ended_well(world.run(protocol::sweep(context, SweepOptions { dry_run: false, ..SweepOptions::default() })))?;
        world.check();
        self.judge(&mut world)
    }

    /// A fork is found by whoever comes next and ends by repair; a pointer that is behind stays so until it is restored.
    fn repair(&self, world: &mut World) -> Result<(), String> {
        drop(world.run(protocol::load(&self.scenario.context, false)));
        match world.run(protocol::repair_fork(&self.scenario.context)) {
            Some(Err(CommitError::PointerBehind { .. })) => Ok(()),
            result => ended_well(result).map(|_| ()),
        }
    }

    fn run_again(&self, world: &mut World, actor: &Actor) -> Result<(), String> {
        let mut machine = (actor.start)();
        let mut reply = None;
        let answer = loop {
            match machine(reply.take()) {
                Turn::Do(request) => reply = world.perform(&request),
                Turn::Done(Err(error)) if self.scenario.expected.contains(&error.kind()) => return Ok(()),
                Turn::Done(result) => break ended_well(Some(result)).map_err(|e| format!("{}: {e}", actor.name))?,
            }
        };
        let Answer::Outcome(outcome) = answer else { return Ok(()) };
        if let Some(change) = &actor.change {
            world.watch(|monitor, world| monitor.answered(world, change, &outcome));
        }
        match (outcome, actor.batch) {
            (Outcome::Committed { .. }, _) | (Outcome::Conflict(_), None) => Ok(()),
            (Outcome::Conflict(_), Some((shard, to))) => self.write_again(world, shard, to),
            (Outcome::Unknown { .. }, _) => Err(format!("invariant 23: {}: unknown without a fault", actor.name)),
        }
    }

    /// The batch is redelivered: what is not covered yet is written into files of its own.
    fn write_again(&self, world: &mut World, shard: u32, to: u64) -> Result<(), String> {
        let context = &self.scenario.context;
        let pointer = world.monitor.read_pointer(world).ok_or("invariant 23: no pointer")?;
        let from = match pointer.checkpoints.get(&fixture::shard(shard)) {
            Lookup::Found(found) => (0..=to).find(|p| found.position == (*p).into()),
            _ => Some(0),
        };
        let last = last_number(world);
        let Some(from) = from.filter(|from| *from < to) else { return Ok(()) };
        let change = fixture::batch(world, context, shard, (from > 0).then_some(from), to, last.max(pointer.floor));
        match ended_well(world.run(protocol::commit(context, change)))? {
            Outcome::Committed { .. } => Ok(()),
            outcome => Err(format!("invariant 23: a redelivered batch of shard {shard} came to {outcome:?}")),
        }
    }

    /// Pointer, snapshots, files, every engine's latest snapshot, and the rows.
    fn judge(&self, world: &mut World) -> Result<(), String> {
        let (scenario, context) = (self.scenario, &self.scenario.context);
        let loaded = ended_well(world.run(protocol::load(context, true)))?;
        let version = loaded.pointer.map(|p| p.version()).ok_or("invariant 23: no pointer")?;
        let findings = ended_well(world.run(protocol::check(context)))?.findings;
        if let Some(finding) = findings.iter().find(|f| f.severity == Severity::Error) {
            return Err(format!("check: {finding}"));
        }
        for engine in Engine::ALL {
            let latest = ended_well(world.run(engines::latest(context, engine)))?;
            if latest != version {
                return Err(format!("invariant 10: {engine:?} finds {latest}, the pointer is at {version}"));
            }
        }
        let (witnessed, needed) = (world.monitor.witnessed(), scenario.needed_rows());
        let extra = scenario.possible_rows();
        if !witnessed.is_superset(&needed) || !witnessed.iter().all(|row| needed.contains(row) || extra.contains(row)) {
            return Err(format!("invariant 1: the table got {witnessed:?}"));
        }
        let newest = world.watch(|monitor, world| monitor.newest(world));
        if scenario.oracle && newest != *world.monitor.newest_witnessed() {
            return Err(format!("invariant 2: the table holds {newest:?}"));
        }
        Ok(())
    }

    fn violated(&mut self, message: String, at: usize, choice: Option<Choice>) {
        let mut choices: Vec<Choice> = choice.into_iter().collect();
        let mut at = at;
        while let Some((before, choice, _)) = self.trail.get(at) {
            choices.push(*choice);
            at = *before;
        }
        choices.reverse();
        let path = self.tell(&choices);
        self.report.violation = Some(Violation { message, path });
    }

    /// A path in words: it is walked once more to see what each step was.
    fn tell(&mut self, choices: &[Choice]) -> Vec<String> {
        let (mut lines, mut state) = (Vec::new(), guarded(|| self.first()).ok());
        for choice in choices {
            let Some(now) = state.take() else { break };
            let name = |actor: usize| &self.scenario.actors[actor].name;
            lines.push(match choice {
                Choice::Dies { actor } => format!("{}: dies", name(*actor)),
                Choice::Arrives { index } => format!("late: {}", target(&now.late[*index])),
                Choice::Step { actor, part, fault } => {
                    let request = self.request(&now, *actor).map(|(request, _)| request);
                    let step = request.as_ref().map_or("", |r| r.step);
                    let effect = request.as_ref().and_then(|r| parts(&r.effect).get(*part)).map(target);
                    let fault = if *fault == Fault::None { String::new() } else { format!(" ({fault:?})") };
                    format!("{}: {step}: {}{fault}", name(*actor), effect.unwrap_or_default())
                }
            });
            state = guarded(|| self.take(&now, *choice)).ok();
        }
        lines
    }
}

fn parts(effect: &Effect) -> &[Effect] {
    match effect {
        Effect::All(effects) => effects,
        effect => std::slice::from_ref(effect),
    }
}

fn faults_of(effect: &Effect) -> &'static [Fault] {
    match effect {
        Effect::SwapItem { .. }
        | Effect::CreateItem { .. }
        | Effect::Put { mode: PutMode::IfAbsent | PutMode::IfMatch(_), .. } => {
            &[Fault::LostAnswer, Fault::LostRequest, Fault::Late, Fault::Echo]
        }
        effect if is_write(effect) => &[Fault::LostAnswer, Fault::LostRequest, Fault::Late],
        _ => &[],
    }
}

fn apply(state: &mut State, effect: &Effect) -> Reply {
    if is_write(effect) {
        change_world(state, |world| world.apply(effect))
    } else {
        state.seen.world.borrow_mut().apply(effect)
    }
}

fn change_world<T>(state: &mut State, change: impl FnOnce(&mut World) -> T) -> T {
    let mut world = state.seen.world.borrow().clone();
    let answer = change(&mut world);
    state.seen = Seen::new(world);
    answer
}

/// The `n`-th id of an actor; the last group alone names it, too.
fn uuid(actor: usize, n: u64) -> String {
    format!("{:08x}-0000-4000-a000-{actor:04x}{n:08x}", 0xac70_0000 + actor)
}

fn ended_well<T>(result: Option<Result<T, CommitError>>) -> Result<T, String> {
    match result {
        Some(Ok(value)) => Ok(value),
        Some(Err(error)) => Err(format!("invariant 23: without faults: {error}")),
        None => Err("invariant 23: it did not end".to_owned()),
    }
}

/// The monitor panics at a broken invariant; here that is a result.
fn guarded<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default())
    })
}

fn target(effect: &Effect) -> String {
    match effect {
        Effect::LoadItem(name) => format!("read item {name}"),
        Effect::CreateItem { name, .. } => format!("create item {name}"),
        Effect::SwapItem { name, expected_rev, .. } => format!("swap item {name} at rev {expected_rev}"),
        Effect::Get { key } => format!("get {key}"),
        Effect::Head { key } => format!("head {key}"),
        Effect::Put { key, mode, body } if body.len() < 16 => {
            format!("put {key} = {} ({mode:?})", String::from_utf8_lossy(body))
        }
        Effect::Put { key, mode, .. } => format!("put {key} ({mode:?})"),
        Effect::Copy { from, to } => format!("copy {from} to {to}"),
        Effect::Delete { keys } => format!("delete {}", keys.join(", ")),
        Effect::List { prefix, .. } => format!("list {prefix}"),
        other => format!("{other:?}"),
    }
}
