//! Objects, items and time in memory: performs every effect as S3 and DynamoDB would, faults included.
//!
//! Neighbours: `monitor` is told of every write. Invariants: 1. conditional writes are atomic; 2. a lost answer hides an effect that happened,
//! did not happen, or still will; 3. a blown fuse stops between any two single effects, also inside a combined one.

use std::collections::BTreeMap;

use bytes::Bytes;
use siltstone_format::manifest::ManifestEntry;

use super::{
    Random,
    explore::Digest,
    fixture::{self, Row},
    monitor::{Monitor, View},
};
use crate::{
    checkpoint::ShardId,
    context::TableContext,
    error::CommitError,
    io::{
        Effect, Failure, FailureKind, ItemName, ItemRecord, Machine, Object, ObjectHead, PutMode, Reply, Request,
        StagedName, Step,
    },
};

/// An object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Content.
    pub body: Bytes,
    /// Time of the write, ms.
    pub last_modified_ms: i64,
}

impl Stored {
    fn etag(&self) -> String {
        let hash =
            self.body.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
        format!("{hash:016x}-{}", self.body.len())
    }
}

/// How often what goes wrong, in a thousand effects.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Asked to slow down.
    pub throttle: u64,
    /// 409 on a conditional put.
    pub conflict: u64,
    /// It happened, the answer is lost.
    pub lost_answer: u64,
    /// It never happened, and no answer either.
    pub lost_request: u64,
    /// It will happen later, and no answer now.
    pub late: u64,
}

/// What happens to one effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is performed, the answer is lost.
    LostAnswer,
    /// It is not performed, and there is no answer.
    LostRequest,
    /// It is performed only after the next effects, and there is no answer.
    Late,
    /// It is not performed, and the store says so.
    Refused(FailureKind),
}

/// The world.
#[derive(Debug, Clone)]
pub struct World {
    /// Objects by key.
    pub objects: BTreeMap<String, Stored>,
    /// Items.
    pub items: BTreeMap<ItemName, ItemRecord>,
    /// Time, ms.
    pub now_ms: i64,
    /// What goes wrong.
    pub faults: Faults,
    /// Steps performed, in order.
    pub log: Vec<&'static str>,
    /// Watches.
    pub monitor: Monitor,
    /// Whether the monitor is told of writes. It looks at every live file each time: not where they are a million.
    pub watched: bool,
    /// Bytes of all objects that were put.
    pub put_bytes: u64,
    /// Effects left before everything stops.
    pub fuse: Option<usize>,
    /// What happens to the effect that comes after so many others.
    pub plan: Option<(usize, Fault)>,
    late: Vec<Effect>,
    random: Random,
    uuids: u64,
}

impl World {
    /// An empty world at a fixed time.
    #[must_use]
    pub fn new(context: &TableContext, seed: u64) -> Self {
        Self {
            objects: BTreeMap::new(),
            items: BTreeMap::new(),
            now_ms: 1_800_000_000_000,
            faults: Faults::default(),
            log: Vec::new(),
            monitor: Monitor::new(context.clone()),
            watched: true,
            put_bytes: 0,
            fuse: None,
            plan: None,
            late: Vec::new(),
            random: Random::new(seed),
            uuids: seed.wrapping_mul(1_000_003),
        }
    }

    /// A fresh id.
    pub fn uuid(&mut self) -> String {
        self.uuids = self.uuids.wrapping_add(1);
        let mut random = Random::new(self.uuids);
        let (a, b) = (random.draw(), random.draw());
        format!("{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}", a >> 32, a & 0xffff, (a >> 16) & 0xfff, b & 0xfff, b >> 16)
    }

    /// A copy whose ids differ from what this one will give out.
    #[must_use]
    pub fn elsewhere(&self) -> Self {
        Self { uuids: Random::new(self.uuids).draw(), ..self.clone() }
    }

    /// Writes an object outside any protocol, as ingest and foreign engines do.
    pub fn put(&mut self, key: &str, body: impl Into<Bytes>) {
        self.now_ms += 1;
        self.objects.insert(key.to_owned(), Stored { body: body.into(), last_modified_ms: self.now_ms });
    }

    /// Runs a machine to its end, or until the fuse blows (`None`).
    pub fn run<T>(&mut self, mut machine: Machine<T>) -> Option<Result<T, CommitError>> {
        let mut reply = None;
        loop {
            match machine.resume(reply.take()) {
                Step::Done(result) => return Some(result),
                Step::Do(request) => reply = Some(self.perform(&request)?),
            }
        }
    }

    /// Runs a machine that must end well.
    ///
    /// # Panics
    /// If it does not.
    pub fn ok<T>(&mut self, machine: Machine<T>) -> T {
        match self.run(machine) {
            Some(Ok(value)) => value,
            Some(Err(error)) => panic!("{error} after {:?}", self.log.last()),
            None => panic!("the fuse blew"),
        }
    }

    /// Runs a machine until it asks for a step, and drops it there. The request may be under way still.
    ///
    /// # Panics
    /// If it ends before.
    pub fn stop_before<T>(&mut self, mut machine: Machine<T>, step: &str) -> Request {
        let mut reply = None;
        loop {
            match machine.resume(reply.take()) {
                Step::Do(request) if request.step.starts_with(step) => return request,
                Step::Do(request) => reply = self.perform(&request),
                Step::Done(_) => panic!("it never came to {step}"),
            }
        }
    }

    /// Adds all that can make a difference to what comes: objects, items, time, and what the monitor remembers.
    pub(super) fn digest(&self, digest: &mut Digest) {
        for (key, stored) in &self.objects {
            digest.add(&(key, &stored.body, stored.last_modified_ms));
        }
        digest.add(&(&self.items, self.now_ms));
        self.monitor.digest(digest);
    }

    /// Performs a request; `None` if the fuse blows before it is complete.
    pub fn perform(&mut self, request: &Request) -> Option<Reply> {
        match &request.effect {
            Effect::All(effects) => {
                let mut replies = Vec::new();
                for effect in effects {
                    replies.push(self.one(request.step, effect)?);
                }
                Some(Reply::All(replies))
            }
            effect => self.one(request.step, effect),
        }
    }

    fn one(&mut self, step: &'static str, effect: &Effect) -> Option<Reply> {
        if let Some(fuse) = &mut self.fuse {
            *fuse = fuse.checked_sub(1)?;
        }
        self.log.push(step);
        self.now_ms += 1;
        if !self.late.is_empty() && self.random.per_mille(200) {
            let effect = self.late.remove(0);
            self.apply(&effect);
        }
        Some(self.faulty(effect).unwrap_or_else(|| self.apply(effect)))
    }

    /// Everything that is still under way arrives.
    pub fn settle_late(&mut self) {
        for effect in std::mem::take(&mut self.late) {
            self.apply(&effect);
        }
    }

    fn faulty(&mut self, effect: &Effect) -> Option<Reply> {
        if matches!(effect, Effect::Now | Effect::Uuid | Effect::Pause { .. } | Effect::Wait { .. }) {
            return None;
        }
        if let Some((left, fault)) = self.plan {
            self.plan = left.checked_sub(1).map(|left| (left, fault));
            if left == 0 {
                return Some(self.fault(effect, fault));
            }
        }
        let faults = self.faults;
        let failed = |kind| Some(Reply::Failed(Failure::new(kind, "planned fault")));
        let conditional = matches!(effect, Effect::Put { mode: PutMode::IfAbsent | PutMode::IfMatch(_), .. });
        if self.random.per_mille(faults.throttle) {
            return failed(FailureKind::Throttled);
        }
        if conditional && self.random.per_mille(faults.conflict) {
            return failed(FailureKind::Conflict);
        }
        if self.random.per_mille(faults.lost_answer) {
            self.apply(effect);
            return failed(FailureKind::Unknown);
        }
        if self.random.per_mille(faults.lost_request) {
            return failed(FailureKind::Unknown);
        }
        if is_write(effect) && self.random.per_mille(faults.late) {
            self.late.push(effect.clone());
            return failed(FailureKind::Unknown);
        }
        None
    }

    fn fault(&mut self, effect: &Effect, fault: Fault) -> Reply {
        let kind = match fault {
            Fault::LostAnswer => {
                self.apply(effect);
                FailureKind::Unknown
            }
            Fault::LostRequest => FailureKind::Unknown,
            Fault::Late => {
                if is_write(effect) {
                    self.late.push(effect.clone());
                }
                FailureKind::Unknown
            }
            Fault::Refused(kind) => kind,
        };
        Reply::Failed(Failure::new(kind, "planned fault"))
    }

    /// Performs one single effect without faults.
    pub fn apply(&mut self, effect: &Effect) -> Reply {
        let failed = |kind| Reply::Failed(Failure::new(kind, ""));
        match effect {
            Effect::LoadItem(name) => Reply::Item(self.items.get(name).cloned()),
            Effect::CreateItem { name, record } => {
                if self.items.contains_key(name) {
                    return failed(FailureKind::PreconditionFailed);
                }
                self.set_item(*name, record)
            }
            Effect::SwapItem { name, expected_rev, record } => {
                if self.items.get(name).map(|r| r.rev) != Some(*expected_rev) {
                    return failed(FailureKind::PreconditionFailed);
                }
                self.set_item(*name, record)
            }
            Effect::PutItem { name, record } => self.set_item(*name, record),
            Effect::DeleteItem { name, expected_rev } => {
                if self.items.get(name).map(|r| r.rev) != Some(*expected_rev) {
                    return failed(FailureKind::PreconditionFailed);
                }
                self.items.remove(name);
                Reply::Done
            }
            Effect::ListStaged { part, start_after, limit } => self.list_staged(*part, *start_after, *limit),
            Effect::Get { key } => self.objects.get(key).map_or(failed(FailureKind::NotFound), |o| {
                let (body, etag) = (o.body.clone(), o.etag());
                Reply::Object(Object { body, etag, last_modified_ms: o.last_modified_ms })
            }),
            Effect::Head { key } => {
                self.objects.get(key).map_or(failed(FailureKind::NotFound), |o| Reply::Head(head(key, o)))
            }
            Effect::Put { key, body, mode } => self.put_if(key, body, mode),
            Effect::Copy { from, to } => match self.objects.get(from).map(|o| o.body.clone()) {
                None => failed(FailureKind::NotFound),
                Some(body) => {
                    self.put_if(to, &body, &PutMode::Overwrite);
                    Reply::Done
                }
            },
            Effect::Delete { keys } => {
                let gone: Vec<String> =
                    keys.iter().filter(|key| self.objects.remove(*key).is_some()).cloned().collect();
                self.tell(|monitor, world| monitor.deleted(world, &gone));
                Reply::Done
            }
            Effect::List { prefix, start_after, limit } => self.list(prefix, start_after.as_deref(), *limit),
            Effect::Now => Reply::Now(self.now_ms),
            Effect::Uuid => Reply::Uuid(self.uuid()),
            Effect::Pause { attempt } => {
                self.now_ms += i64::from(*attempt) * 10;
                Reply::Done
            }
            Effect::Wait { ms } => {
                self.now_ms += i64::try_from(*ms).unwrap_or(0);
                Reply::Done
            }
            Effect::All(_) => failed(FailureKind::Denied),
        }
    }

    fn set_item(&mut self, name: ItemName, record: &ItemRecord) -> Reply {
        let before = self.items.insert(name, record.clone());
        match name {
            ItemName::Pointer => self.tell(|monitor, world| monitor.pointer(world, before.as_ref(), record)),
            ItemName::Slots => self.tell(|monitor, world| monitor.slots(world, before.as_ref(), record)),
            ItemName::Staged(_) => self.tell(|monitor, world| monitor.staged(world, before.as_ref(), record)),
            ItemName::Lease => {}
        }
        Reply::Done
    }

    fn list_staged(&self, part: u8, start_after: Option<StagedName>, limit: usize) -> Reply {
        let staged = self.items.iter().filter_map(|(name, record)| match name {
            ItemName::Staged(name) if name.part() == part => Some((*name, record.clone())),
            _ => None,
        });
        let mut items: Vec<_> = staged.filter(|(name, _)| start_after.is_none_or(|after| *name > after)).collect();
        let more = items.len() > limit;
        items.truncate(limit);
        Reply::Items { items, more }
    }

    fn put_if(&mut self, key: &str, body: &Bytes, mode: &PutMode) -> Reply {
        let there = self.objects.get(key).map(Stored::etag);
        let holds = match mode {
            PutMode::Overwrite => true,
            PutMode::IfAbsent => there.is_none(),
            PutMode::IfMatch(etag) => there.as_ref() == Some(etag),
        };
        if !holds {
            let gone = there.is_none() && matches!(mode, PutMode::IfMatch(_));
            let kind = if gone { FailureKind::NotFound } else { FailureKind::PreconditionFailed };
            return Reply::Failed(Failure::new(kind, ""));
        }
        let stored = Stored { body: body.clone(), last_modified_ms: self.now_ms };
        let etag = stored.etag();
        self.objects.insert(key.to_owned(), stored);
        self.put_bytes += body.len() as u64;
        self.tell(|monitor, world| monitor.put(world, key));
        Reply::Put { etag }
    }

    fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Reply {
        let after = |key: &str| start_after.is_none_or(|after| key > after);
        let matching = self.objects.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        let mut objects: Vec<ObjectHead> =
            matching.filter(|(key, _)| after(key)).take(limit + 1).map(|(key, o)| head(key, o)).collect();
        let more = objects.len() > limit;
        objects.truncate(limit);
        Reply::Listed { objects, more }
    }

    fn tell(&mut self, look: impl FnOnce(&mut Monitor, &Self)) {
        if self.watched {
            self.watch(look);
        }
    }

    /// Lets the monitor look at the world as it is.
    pub fn watch<T>(&mut self, look: impl FnOnce(&mut Monitor, &Self) -> T) -> T {
        let blank = Monitor::new(self.monitor.context().clone());
        let mut monitor = std::mem::replace(&mut self.monitor, blank);
        let seen = look(&mut monitor, self);
        self.monitor = monitor;
        seen
    }

    /// Runs a full check of every reachable object now.
    pub fn check(&mut self) {
        self.watch(|monitor, world| monitor.check(world));
    }
}

impl View for World {
    fn object(&self, key: &str) -> Option<Bytes> {
        self.objects.get(key).map(|o| o.body.clone())
    }

    fn keys(&self, prefix: &str) -> Vec<String> {
        let from = self.objects.range(prefix.to_owned()..);
        from.map(|(key, _)| key.clone()).take_while(|key| key.starts_with(prefix)).collect()
    }

    fn pointer(&self) -> Option<ItemRecord> {
        self.items.get(&ItemName::Pointer).cloned()
    }

    fn rows(&self, _: &ManifestEntry, body: &Bytes) -> Vec<Row> {
        fixture::rows(body)
    }

    fn shard_of(&self, row: &Row) -> Option<ShardId> {
        Some(fixture::shard(row.shard))
    }
}

pub(super) fn is_write(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Put { .. }
            | Effect::SwapItem { .. }
            | Effect::CreateItem { .. }
            | Effect::PutItem { .. }
            | Effect::DeleteItem { .. }
            | Effect::Delete { .. }
            | Effect::Copy { .. }
    )
}

fn head(key: &str, stored: &Stored) -> ObjectHead {
    ObjectHead { key: key.to_owned(), size: stored.body.len() as u64, last_modified_ms: stored.last_modified_ms }
}
