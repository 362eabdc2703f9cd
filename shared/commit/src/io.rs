//! The only door between a protocol and the world: effects out, replies in, one at a time.
//!
//! Every protocol of this crate is an `async fn` over [`Io`] whose only await points are effects. A [`Machine`] owns that
//! future and is resumed synchronously with the reply to its last effect, so the code reads as numbered steps, needs no
//! runtime, and is a pure function of its replies. The driver (crate `table`, or the test world) performs the effects.
//!
//! Invariants: 1. a machine asks for nothing but through [`Step::Do`], and at most one request is open;
//! 2. the same replies give the same requests, byte for byte; 3. a machine that was told something it cannot use ends with
//! an error of kind `Bug`, it never panics; 4. every request carries the numbered step it belongs to.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;

use crate::error::CommitError;

/// One attribute of an item; mirrors the item port of crate `store`, on which this crate does not depend.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Attr {
    /// Text.
    S(String),
    /// A whole number.
    N(i64),
    /// Bytes.
    B(Vec<u8>),
}

/// A revisioned item of the table in DynamoDB: the pointer, the slot table, the lease, or a staged change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct ItemRecord {
    /// Grows by one with each write; the condition of every write.
    pub rev: u64,
    /// Everything else.
    pub attributes: BTreeMap<String, Attr>,
}

/// Parts over which staged items are spread: DynamoDB writes at most 1,000 of them a second under one partition key.
pub const STAGE_PARTS: u8 = 16;

/// Name of a staged item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StagedName(pub u128);

impl StagedName {
    /// Which of the [`STAGE_PARTS`] it stands in.
    #[must_use]
    pub const fn part(self) -> u8 {
        (self.0 % STAGE_PARTS as u128) as u8
    }

    /// Reads the sort key that [`ItemName::sort`] gives.
    #[must_use]
    pub fn parse(sort: &str) -> Option<Self> {
        u128::from_str_radix(sort, 16).ok().map(Self)
    }
}

/// Which item of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ItemName {
    /// The pointer: [`crate::pointer::Pointer`].
    Pointer,
    /// The reservation of sequence slots: [`crate::sequence::SlotTable`].
    Slots,
    /// The lease of the group commit: [`crate::staged::Lease`].
    Lease,
    /// A staged change and what came of it: [`crate::staged::Staged`].
    Staged(StagedName),
}

impl ItemName {
    /// What is put behind the table's partition key: the pointer and the slots stand under it as it is.
    #[must_use]
    pub fn partition_suffix(self) -> String {
        match self {
            Self::Pointer | Self::Slots => String::new(),
            Self::Lease => "#lease".to_owned(),
            Self::Staged(name) => staged_suffix(name.part()),
        }
    }

    /// The sort key.
    #[must_use]
    pub fn sort(self) -> String {
        match self {
            Self::Pointer => "pointer".to_owned(),
            Self::Slots => "slots".to_owned(),
            Self::Lease => "lease".to_owned(),
            Self::Staged(StagedName(name)) => format!("{name:032x}"),
        }
    }
}

/// What is put behind the table's partition key for one part of the staged items.
#[must_use]
pub fn staged_suffix(part: u8) -> String {
    format!("#staged-{part:02}")
}

impl fmt::Display for ItemName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sort())
    }
}

/// Under which condition a put takes effect.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PutMode {
    /// Always.
    Overwrite,
    /// Only if the key holds nothing (`If-None-Match: *`).
    IfAbsent,
    /// Only if the key holds the content of this tag (`If-Match`).
    IfMatch(String),
}

/// What a machine asks of the world. Keys are whole object keys, the table's prefix included.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Strongly consistent read of an item. Reply: [`Reply::Item`].
    LoadItem(ItemName),
    /// Write an item that must not exist. Reply: [`Reply::Done`], or `PreconditionFailed`.
    CreateItem {
        /// Which.
        name: ItemName,
        /// Content.
        record: ItemRecord,
    },
    /// Replace an item that must have this revision. Reply: [`Reply::Done`], or `PreconditionFailed`.
    SwapItem {
        /// Which.
        name: ItemName,
        /// The revision it must have.
        expected_rev: u64,
        /// Content; its `rev` is stored as given.
        record: ItemRecord,
    },
    /// Write an item whatever is there; only for items that decide nothing. Reply: [`Reply::Done`].
    PutItem {
        /// Which.
        name: ItemName,
        /// Content; its `rev` is stored as given.
        record: ItemRecord,
    },
    /// Delete an item that must have this revision. Reply: [`Reply::Done`], or `PreconditionFailed`.
    DeleteItem {
        /// Which.
        name: ItemName,
        /// The revision it must have.
        expected_rev: u64,
    },
    /// Strongly consistent reading of one part of the staged items, ascending by name, strictly after `start_after`. Reply: [`Reply::Items`].
    ListStaged {
        /// Part, below [`STAGE_PARTS`].
        part: u8,
        /// Where to go on.
        start_after: Option<StagedName>,
        /// At most so many.
        limit: usize,
    },
    /// Read an object. Reply: [`Reply::Object`], or `NotFound`.
    Get {
        /// Key.
        key: String,
    },
    /// Size and time of an object. Reply: [`Reply::Head`], or `NotFound`.
    Head {
        /// Key.
        key: String,
    },
    /// Write an object in one request. Reply: [`Reply::Put`], or `PreconditionFailed`, `Conflict`.
    Put {
        /// Key.
        key: String,
        /// Content.
        body: Bytes,
        /// Condition.
        mode: PutMode,
    },
    /// Copy an object under a new name (a store without copy reads and writes). Reply: [`Reply::Done`], or `NotFound`.
    Copy {
        /// From this key.
        from: String,
        /// To this key, overwriting.
        to: String,
    },
    /// Delete objects; a missing one counts as deleted. Reply: [`Reply::Done`].
    Delete {
        /// Keys, at most 1,000.
        keys: Vec<String>,
    },
    /// Keys below a prefix, in byte order, strictly after `start_after`. Reply: [`Reply::Listed`].
    List {
        /// Prefix.
        prefix: String,
        /// Where to go on.
        start_after: Option<String>,
        /// At most so many, at most 1,000.
        limit: usize,
    },
    /// Milliseconds since 1970. Reply: [`Reply::Now`].
    Now,
    /// A fresh random UUID in its usual form. Reply: [`Reply::Uuid`].
    Uuid,
    /// Wait with jitter before the given attempt (1 is the first repetition). Reply: [`Reply::Done`].
    Pause {
        /// Number of the coming repetition.
        attempt: u32,
    },
    /// Wait so long. Reply: [`Reply::Done`].
    Wait {
        /// How long.
        ms: u64,
    },
    /// Several effects without an order between them; the driver may run them side by side. Reply: [`Reply::All`], same order.
    All(Vec<Effect>),
}

/// An object as read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Object {
    /// Content.
    pub body: Bytes,
    /// Tag of exactly this content.
    pub etag: String,
    /// The store's own time of the write, ms since 1970.
    pub last_modified_ms: i64,
}

/// An object as listed or headed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectHead {
    /// Key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// The store's own time of the write, ms since 1970.
    pub last_modified_ms: i64,
}

/// What a failed effect means to the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// No such object.
    NotFound,
    /// The condition did not hold for this request; an earlier one whose answer was lost may have taken effect.
    PreconditionFailed,
    /// Another conditional request to the key is under way (409): nothing written, try again.
    Conflict,
    /// Asked to slow down: nothing written.
    Throttled,
    /// No answer: it may have happened, and may even still happen.
    Unknown,
    /// Not permitted.
    Denied,
    /// What was read is not what its own checksum says: nothing written.
    Damaged,
    /// The service cannot answer now: nothing written.
    Unavailable,
}

/// A failed effect.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Failure {
    /// What it means.
    pub kind: FailureKind,
    /// The service's own words, for messages.
    pub detail: String,
}

impl Failure {
    /// A failure with the service's words.
    pub fn new(kind: FailureKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

/// What the world answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reply {
    /// The item, or none.
    Item(Option<ItemRecord>),
    /// One page of staged items.
    Items {
        /// Ascending by name.
        items: Vec<(StagedName, ItemRecord)>,
        /// More may follow.
        more: bool,
    },
    /// Done, nothing to say.
    Done,
    /// An object.
    Object(Object),
    /// Metadata of an object.
    Head(ObjectHead),
    /// Written; the tag of what was written.
    Put {
        /// Tag.
        etag: String,
    },
    /// One page of a listing.
    Listed {
        /// Ascending by key.
        objects: Vec<ObjectHead>,
        /// More keys follow.
        more: bool,
    },
    /// The time, ms since 1970.
    Now(i64),
    /// A UUID.
    Uuid(String),
    /// One reply per effect.
    All(Vec<Reply>),
    /// It failed.
    Failed(Failure),
}

/// An effect and the numbered step of the protocol it belongs to, as in `commit/4 put manifests`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Numbered step, from [`crate::steps`].
    pub step: &'static str,
    /// What to do.
    pub effect: Effect,
}

#[derive(Debug, Default)]
struct Slot {
    request: Option<Request>,
    reply: Option<Reply>,
}

/// The context of a protocol: its only way to ask the world for anything.
#[derive(Debug, Clone)]
pub struct Io {
    slot: Arc<Mutex<Slot>>,
}

impl Io {
    /// Performs one effect and returns the world's answer as it is, failures included.
    pub(crate) fn ask(&self, step: &'static str, effect: Effect) -> Ask<'_> {
        Ask { io: self, request: Some(Request { step, effect }) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The await point: hands the request over, then waits for the reply.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    io: &'a Io,
    request: Option<Request>,
}

impl Future for Ask<'_> {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Reply> {
        let request = self.request.take();
        let mut slot = self.io.lock();
        if let Some(request) = request {
            slot.request = Some(request);
            return Poll::Pending;
        }
        slot.reply.take().map_or(Poll::Pending, Poll::Ready)
    }
}

/// What a machine wants next.
#[derive(Debug)]
pub enum Step<T> {
    /// Perform this and resume with the reply.
    Do(Request),
    /// Finished; resuming again is an error.
    Done(Result<T, CommitError>),
}

type Running<T> = Pin<Box<dyn Future<Output = Result<T, CommitError>> + Send>>;

/// A running protocol.
pub struct Machine<T> {
    future: Option<Running<T>>,
    io: Io,
    waiting: bool,
}

impl<T> fmt::Debug for Machine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("waiting", &self.waiting).field("ended", &self.future.is_none()).finish()
    }
}

impl<T> Machine<T> {
    /// A machine that has not started; `protocol` is the numbered code.
    pub(crate) fn new<F>(protocol: impl FnOnce(Io) -> F) -> Self
    where
        F: Future<Output = Result<T, CommitError>> + Send + 'static,
    {
        let io = Io { slot: Arc::default() };
        Self { future: Some(Box::pin(protocol(io.clone()))), io, waiting: false }
    }

    /// Starts the machine (`None`), or goes on with the reply to its last request.
    pub fn resume(&mut self, reply: Option<Reply>) -> Step<T> {
        let Some(future) = self.future.as_mut() else {
            return Step::Done(Err(CommitError::bug("a finished machine was resumed")));
        };
        if reply.is_some() != self.waiting {
            return Step::Done(Err(CommitError::bug("a machine was resumed without the reply it waits for")));
        }
        self.io.lock().reply = reply;
        let mut context = Context::from_waker(Waker::noop());
        match future.as_mut().poll(&mut context) {
            Poll::Ready(result) => {
                self.future = None;
                Step::Done(result)
            }
            Poll::Pending => {
                self.waiting = true;
                match self.io.lock().request.take() {
                    Some(request) => Step::Do(request),
                    None => Step::Done(Err(CommitError::bug("a protocol waited for something that is no effect"))),
                }
            }
        }
    }

    /// Runs to the end with a synchronous performer of effects.
    ///
    /// # Errors
    /// The protocol's own error.
    pub fn run(mut self, mut perform: impl FnMut(Request) -> Reply) -> Result<T, CommitError> {
        let mut reply = None;
        loop {
            match self.resume(reply.take()) {
                Step::Do(request) => reply = Some(perform(request)),
                Step::Done(result) => return result,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_steps() -> Machine<String> {
        Machine::new(|io| async move {
            let Reply::Uuid(first) = io.ask("t/1 first", Effect::Uuid).await else {
                return Err(CommitError::bug("no uuid"));
            };
            let Reply::Now(now) = io.ask("t/2 second", Effect::Now).await else {
                return Err(CommitError::bug("no time"));
            };
            Ok(format!("{first}@{now}"))
        })
    }

    #[test]
    fn machine_asks_in_order_and_returns_what_the_replies_make() {
        let mut steps = Vec::new();
        let result = two_steps().run(|request| {
            steps.push(request.step);
            match request.effect {
                Effect::Uuid => Reply::Uuid("u".into()),
                _ => Reply::Now(7),
            }
        });
        assert_eq!(result.unwrap(), "u@7");
        assert_eq!(steps, ["t/1 first", "t/2 second"]);
    }

    #[test]
    fn machine_resumed_without_its_reply_or_after_its_end_is_a_bug_and_no_panic() {
        let mut machine = two_steps();
        assert!(matches!(machine.resume(Some(Reply::Done)), Step::Done(Err(_))));
        assert!(matches!(machine.resume(None), Step::Do(_)));
        assert!(matches!(machine.resume(None), Step::Done(Err(_))));
        assert!(matches!(machine.resume(Some(Reply::Uuid("u".into()))), Step::Do(_)));
        assert!(matches!(machine.resume(Some(Reply::Now(1))), Step::Done(Ok(_))));
        assert!(matches!(machine.resume(Some(Reply::Now(1))), Step::Done(Err(_))));
    }
}
