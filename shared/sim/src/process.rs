//! A running function: its future, polled by hand, and the calls at which it stands.
//!
//! Neighbours: `ports` makes calls, `run` decides when each goes on and what becomes of it. A merge reads its inputs on a blocking thread:
//! a process that merges has one of its own, whose calls wait here as well. [`Process::settle`] lets that thread come to its next call
//! or to its end, too, so that never two threads of a history run at once. Invariants: 1. between two decisions every process stands at a call, or has ended; 2. a dead process does nothing any more.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
    thread::ThreadId,
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::runtime::{Builder, Runtime};

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is performed and answered.
    Perform,
    /// It is performed, the answer is lost.
    LoseAnswer,
    /// It is not performed, and there is no answer.
    LoseRequest,
    /// It is performed later, and there is no answer.
    Late,
    /// Refused: slow down.
    Throttle,
    /// Refused: another conditional request is in progress.
    Conflict,
    /// Refused: not available.
    Unavailable,
    /// It is performed, and the process dies before it hears of it.
    PerformAndDie,
    /// A part of it is performed, and the process dies.
    PartAndDie,
    /// The process is dead: nothing happens.
    Dead,
}

/// A call that waits for its verdict.
#[derive(Debug, Clone)]
pub struct Call {
    /// As in `put`, `get_item`, `sleep`.
    pub operation: &'static str,
    /// Key of an object, sort key of an item.
    pub key: String,
    /// Partition key of an item.
    pub partition: String,
    /// Units of an item's request, by its size.
    pub units: u64,
    /// True if it changes something.
    pub write: bool,
    /// True if it is conditional.
    pub conditional: bool,
    /// Not answered before this time, ms.
    pub not_before_ms: i64,
    /// What was decided.
    pub verdict: Option<Verdict>,
}

#[derive(Debug)]
struct Waiting {
    call: Call,
    waker: Option<Waker>,
    given: bool,
    /// Made by the blocking thread.
    threaded: bool,
}

#[derive(Debug, Default)]
struct State {
    waiting: BTreeMap<u64, Waiting>,
    calls: u64,
    woken: bool,
    dead: bool,
    /// The thread that polls.
    poller: Option<ThreadId>,
    /// The last probe that came through the blocking thread's queue: everything before it has ended.
    probe: u64,
}

/// Where a process and the scheduler meet.
#[derive(Debug, Default)]
pub struct Desk {
    state: Mutex<State>,
    moved: Condvar,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a call and waits for its verdict.
    pub fn call(self: &Arc<Self>, call: Call) -> impl Future<Output = Verdict> + Send + use<> {
        Asked { desk: self.clone(), call: Some(call), number: 0 }
    }
}

impl Wake for Desk {
    fn wake(self: Arc<Self>) {
        self.lock().woken = true;
        self.moved.notify_all();
    }
}

struct Asked {
    desk: Arc<Desk>,
    call: Option<Call>,
    number: u64,
}

impl Future for Asked {
    type Output = Verdict;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Verdict> {
        let desk = self.desk.clone();
        let mut state = desk.lock();
        if state.dead {
            return Poll::Ready(Verdict::Dead);
        }
        if let Some(call) = self.call.take() {
            state.calls += 1;
            self.number = state.calls;
            let waker = Some(context.waker().clone());
            let threaded = state.poller != Some(std::thread::current().id());
            state.waiting.insert(self.number, Waiting { call, waker, given: false, threaded });
            desk.moved.notify_all();
            return Poll::Pending;
        }
        let Some(waiting) = state.waiting.get_mut(&self.number) else { return Poll::Ready(Verdict::Dead) };
        if waiting.given {
            let verdict = waiting.call.verdict.unwrap_or(Verdict::Dead);
            state.waiting.remove(&self.number);
            desk.moved.notify_all();
            return Poll::Ready(verdict);
        }
        waiting.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.desk.lock().waiting.remove(&self.number);
    }
}

/// Longest real time that a thread of the runtime may take between two calls.
const PATIENCE: Duration = Duration::from_secs(60);

/// A future under the scheduler's hand. Dropped before its end it is dead: whatever is left of it does nothing any more.
pub struct Process<T> {
    desk: Arc<Desk>,
    // In this order: what the blocking thread waits for is gone before the thread is waited for.
    future: BoxFuture<'static, T>,
    ended: bool,
    probes: u64,
    thread: Option<Runtime>,
    started: bool,
}

impl<T> fmt::Debug for Process<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("desk", &self.desk).finish_non_exhaustive()
    }
}

impl<T> Process<T> {
    /// A process that calls over `desk` and has no blocking thread. It does nothing before [`Self::settle`].
    #[must_use]
    pub fn new(desk: Arc<Desk>, future: BoxFuture<'static, T>) -> Self {
        Self { desk, future, ended: false, probes: 0, thread: None, started: false }
    }

    /// A process that may also call from a blocking thread.
    ///
    /// # Panics
    /// When there can be no such thread.
    #[must_use]
    pub fn with_threads(desk: Arc<Desk>, future: BoxFuture<'static, T>) -> Self {
        let thread = Builder::new_current_thread().max_blocking_threads(1).build().expect("a runtime without drivers");
        Self { desk, future, ended: false, probes: 0, thread: Some(thread), started: false }
    }

    /// The calls at which it stands, by number.
    #[must_use]
    pub fn calls(&self) -> Vec<(u64, Call)> {
        self.desk.lock().waiting.iter().map(|(number, waiting)| (*number, waiting.call.clone())).collect()
    }

    /// Decides about a call, to be answered not before a time.
    pub fn decide(&self, number: u64, verdict: Verdict, not_before_ms: i64) {
        if let Some(waiting) = self.desk.lock().waiting.get_mut(&number) {
            waiting.call.verdict = Some(verdict);
            waiting.call.not_before_ms = not_before_ms;
        }
    }

    /// Answers a call that was decided about, and goes on to the next.
    pub fn answer(&mut self, number: u64) -> Option<T> {
        let waker = self.desk.lock().waiting.get_mut(&number).and_then(|waiting| {
            waiting.given = true;
            waiting.waker.take()
        });
        if let Some(waker) = waker {
            waker.wake();
        }
        self.settle()
    }

    /// Answers a call, and lets it do no more than that.
    pub fn last(&mut self, number: u64, verdict: Verdict) {
        if let Some(waiting) = self.desk.lock().waiting.get_mut(&number) {
            (waiting.given, waiting.call.verdict) = (true, Some(verdict));
        }
        let ended = self.poll();
        debug_assert!(ended.is_pending(), "a call that is the last one is not answered");
    }

    /// Runs until every part of it stands at a call, or it has ended.
    ///
    /// # Panics
    /// If it waits for something that is no call.
    pub fn settle(&mut self) -> Option<T> {
        self.desk.lock().poller = Some(std::thread::current().id());
        // The first poll of all is not asked for by anyone.
        let mut poll = !std::mem::replace(&mut self.started, true);
        loop {
            if poll {
                self.desk.lock().woken = false;
                if let Poll::Ready(end) = self.poll() {
                    self.ended = true;
                    return Some(end);
                }
            }
            let probe = self.probe();
            let state = self.desk.lock();
            let moving = |state: &mut State| !state.woken && !state.stands(probe);
            let (state, waited) =
                self.desk.moved.wait_timeout_while(state, PATIENCE, moving).unwrap_or_else(PoisonError::into_inner);
            assert!(!waited.timed_out(), "a process waits for something that is no call: {state:?}");
            poll = state.woken;
            if !poll {
                return None;
            }
        }
    }

    fn poll(&mut self) -> Poll<T> {
        let _entered = self.thread.as_ref().map(Runtime::enter);
        let waker = Waker::from(self.desk.clone());
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    /// Sends a probe behind everything that the blocking thread has to do.
    fn probe(&mut self) -> Option<u64> {
        let thread = self.thread.as_ref()?;
        self.probes += 1;
        let (desk, number) = (self.desk.clone(), self.probes);
        thread.spawn_blocking(move || {
            desk.lock().probe = number;
            desk.moved.notify_all();
        });
        Some(number)
    }
}

impl State {
    /// Whether all parts stand at a call: no answer is on its way, and the blocking thread, if there is one, stands at a call or has come
    /// to the probe.
    fn stands(&self, probe: Option<u64>) -> bool {
        let answered = self.waiting.values().any(|waiting| waiting.given);
        let thread = match probe {
            Some(probe) => self.probe >= probe || self.waiting.values().any(|waiting| waiting.threaded),
            None => !self.waiting.is_empty(),
        };
        thread && !answered
    }
}

impl<T> Drop for Process<T> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut state = self.desk.lock();
        state.dead = true;
        let waiting: Vec<Waker> = state.waiting.values_mut().filter_map(|waiting| waiting.waker.take()).collect();
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }
}
