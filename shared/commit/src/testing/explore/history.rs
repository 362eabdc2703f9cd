//! What each actor was told, as a tree: a machine is a function of its replies, so a place in the tree is the state of an actor.
//!
//! Neighbours: `mod` walks it. A machine cannot be copied; where a second branch leaves a place, a new one is told the same replies again.
//! Invariants: 1. equal replies are one place; 2. digests depend on replies only, never on the order in which places were found.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    rc::Rc,
};

use crate::{
    changes::Outcome,
    error::CommitError,
    io::{Machine, Reply, Request, Step},
};

/// What a run of an actor came to.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A commit's outcome.
    Outcome(Outcome),
    /// Anything else that ended well.
    Done,
}

/// What a machine does next; its result's type forgotten.
#[derive(Debug, Clone)]
pub enum Turn {
    /// It asks for this.
    Do(Rc<Request>),
    /// It ended.
    Done(Result<Answer, CommitError>),
}

/// A machine whose result's type is forgotten.
pub type Running = Box<dyn FnMut(Option<Reply>) -> Turn>;

pub(super) fn running<T: 'static>(mut machine: Machine<T>, answer: fn(T) -> Answer) -> Running {
    Box::new(move |reply| match machine.resume(reply) {
        Step::Do(request) => Turn::Do(Rc::new(request)),
        Step::Done(result) => Turn::Done(result.map(answer)),
    })
}

/// A place in the tree.
pub(super) struct Place {
    before: Option<(usize, Reply)>,
    after: BTreeMap<u128, usize>,
    machine: Option<Running>,
    /// Of all replies so far.
    pub(super) digest: u128,
    /// Ids given to it so far.
    pub(super) uuids: u64,
    pub(super) turn: Turn,
}

/// The tree of one actor.
pub(super) struct Histories<'a> {
    start: &'a dyn Fn() -> Running,
    places: Vec<Place>,
}

impl<'a> Histories<'a> {
    pub(super) fn new(start: &'a dyn Fn() -> Running) -> Self {
        let mut machine = start();
        let turn = machine(None);
        let root = Place { before: None, after: BTreeMap::new(), machine: Some(machine), digest: 0, uuids: 0, turn };
        Self { start, places: vec![root] }
    }

    pub(super) fn at(&self, place: usize) -> &Place {
        &self.places[place]
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// The place after one more reply.
    pub(super) fn advance(&mut self, at: usize, reply: Reply) -> usize {
        let told = digest(&reply);
        if let Some(known) = self.places[at].after.get(&told) {
            return *known;
        }
        let mut machine = match self.places[at].machine.take() {
            Some(machine) => machine,
            None => self.replay(at),
        };
        let turn = machine(Some(reply.clone()));
        let place = Place {
            after: BTreeMap::new(),
            machine: matches!(turn, Turn::Do(_)).then_some(machine),
            digest: digest(&(self.places[at].digest, told)),
            uuids: self.places[at].uuids + u64::from(matches!(reply, Reply::Uuid(_))),
            before: Some((at, reply)),
            turn,
        };
        let next = self.places.len();
        self.places[at].after.insert(told, next);
        self.places.push(place);
        next
    }

    fn replay(&self, at: usize) -> Running {
        let (mut replies, mut place) = (Vec::new(), at);
        while let Some((before, reply)) = &self.places[place].before {
            replies.push(reply.clone());
            place = *before;
        }
        let mut machine = (self.start)();
        machine(None);
        for reply in replies.into_iter().rev() {
            machine(Some(reply));
        }
        machine
    }
}

/// 128 bits that stand for a value.
pub(super) fn digest(value: &impl Hash) -> u128 {
    let mut digest = Digest::default();
    digest.add(value);
    digest.finish()
}

/// SipHash with fixed keys, twice: wide enough that a million states do not meet by chance.
#[derive(Default)]
pub(in crate::testing) struct Digest(DefaultHasher);

impl Digest {
    pub(in crate::testing) fn add(&mut self, value: &impl Hash) {
        value.hash(&mut self.0);
    }

    pub(in crate::testing) fn finish(&self) -> u128 {
        let mut second = self.0.clone();
        second.write_u8(2);
        (u128::from(self.0.finish()) << 64) | u128::from(second.finish())
    }
}
