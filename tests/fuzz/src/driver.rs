//! The loop: take an input, damage it, give it to the parser, watch.
//!
//! Below: `targets`, `mutate`, `memory`, `coverage`. Above: the command line and the tests. Invariants: 1. a panic, too much memory or a value
//! that does not survive writing is a fault, and each kind of it is told once; 2. an input is kept for the next round if it reached something new, or,
//! where nothing is counted, now and then if it was taken.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    sync::Once,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde_json::{Value as Json, json};

use crate::{
    coverage::Seen,
    memory,
    mutate::{Tools, damaged},
    targets::{Outcome, Target},
};

/// Inputs kept at the most.
const POOL_MAX: usize = 20_000;
/// Kinds of faults told of one parser at the most.
const FAULTS_MAX: usize = 20;

/// How long to go on, and from where.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Executions of each parser.
    pub executions: u64,
    /// Where chance starts.
    pub seed: u64,
    /// Time for each parser; what comes first ends it.
    pub time: Option<Duration>,
    /// Write each input here before it runs: what ended the program is there then.
    pub trace: Option<PathBuf>,
}

/// Something that must not happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What happened.
    pub what: String,
    /// The smallest input that was found for it.
    pub input: Vec<u8>,
    /// Times it happened.
    pub times: u64,
}

/// What came of one parser.
#[derive(Debug, Clone)]
pub struct Report {
    /// The parser.
    pub target: &'static str,
    /// Inputs that ran.
    pub executions: u64,
    /// Of these, how many it took.
    pub taken: u64,
    /// Inputs that are worth damaging further.
    pub pool: usize,
    /// Counters of coverage that were reached.
    pub reached: usize,
    /// Most bytes that were held at once, and the length of that input.
    pub peak: (usize, usize),
    /// Time.
    pub seconds: f64,
    /// What must not happen.
    pub faults: Vec<Fault>,
}

impl Report {
    /// As one line of JSON.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let faults = self.faults.iter().map(|f| json!({"what": f.what, "times": f.times, "input": hex(&f.input)}));
        json!({
            "target": self.target, "executions": self.executions, "taken": self.taken, "pool": self.pool, "reached": self.reached,
            "peakBytes": self.peak.0, "peakInputBytes": self.peak.1, "seconds": (self.seconds * 10.0).round() / 10.0,
            "faults": faults.collect::<Vec<_>>(),
        })
    }
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Fuzzes one parser.
#[must_use]
pub fn fuzz(target: &Target, plan: &Plan) -> Report {
    listen();
    let started = Instant::now();
    let mut rng = SmallRng::seed_from_u64(plan.seed ^ crc_of(target.name));
    let mut seen = Seen::default();
    let mut pool = target.seeds.clone();
    let mut found: BTreeMap<String, Fault> = BTreeMap::new();
    let mut report = Report {
        target: target.name,
        executions: 0,
        taken: 0,
        pool: 0,
        reached: 0,
        peak: (0, 0),
        seconds: 0.0,
        faults: Vec::new(),
    };
    let own = target.seeds.len();
    let room = if seen.counters() > 0 { POOL_MAX } else { own * 4 + 256 };
    while report.executions < plan.executions && plan.time.is_none_or(|time| started.elapsed() < time) {
        let fresh = usize::try_from(report.executions).ok().and_then(|i| target.seeds.get(i));
        let input = match fresh {
            Some(seed) => seed.clone(),
            None => {
                let tools = Tools { shape: target.shape, pool: &pool, words: target.words };
                let parent = choose(pool.len(), &mut rng);
                damaged(parent.and_then(|i| pool.get(i)).map_or(&[], Vec::as_slice), tools, &mut rng)
            }
        };
        if let Some(path) = &plan.trace {
            // Losing the trace would lose what it is for.
            if let Err(error) = std::fs::write(path, &input) {
                found.insert(
                    "trace".to_owned(),
                    Fault { what: format!("{}: {error}", path.display()), input, times: 1 },
                );
                break;
            }
        }
        seen.start();
        let run = execute(target, &input);
        report.executions += 1;
        report.taken += u64::from(run.taken);
        if run.peak > report.peak.0 {
            report.peak = (run.peak, input.len());
        }
        let news = seen.news();
        if fresh.is_none()
            && pool.len() < room
            && (news || seen.counters() == 0 && run.taken && rng.random_ratio(1, 64))
        {
            pool.push(input.clone());
        }
        if let Some(what) = run.fault {
            let kind = kind_of(&what);
            if let Some(fault) = found.get_mut(&kind) {
                fault.times += 1;
            } else if found.len() < FAULTS_MAX {
                let input = smaller(target, input, &kind);
                found.insert(kind, Fault { what, input, times: 1 });
            }
        }
    }
    report.pool = pool.len();
    report.reached = seen.reached();
    report.seconds = started.elapsed().as_secs_f64();
    report.faults = found.into_values().collect();
    report
}

/// Half the time one of the newer inputs: they reached what is new.
fn choose(count: usize, rng: &mut SmallRng) -> Option<usize> {
    if count == 0 {
        return None;
    }
    let from = if rng.random_bool(0.5) { count - count.div_ceil(4) } else { 0 };
    Some(rng.random_range(from..count))
}

/// One execution.
#[derive(Debug)]
pub struct Run {
    /// Whether the parser took the input.
    pub taken: bool,
    /// Most bytes that were held at once.
    pub peak: usize,
    /// What must not happen.
    pub fault: Option<String>,
}

/// Runs one input and watches.
#[must_use]
pub fn execute(target: &Target, input: &[u8]) -> Run {
    listen();
    LAST_PANIC.set(String::new());
    WATCHING.set(true);
    let (result, peak) = memory::peak_of(|| panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input))));
    WATCHING.set(false);
    let allowed = target.memory.allows(input.len());
    let fault = match &result {
        Err(_) => Some(format!("panic: {}", LAST_PANIC.take())),
        Ok(Outcome::Broken(what)) => Some(format!("broken: {what}")),
        Ok(_) if peak > allowed => {
            Some(format!("memory: {peak} bytes for an input of {} bytes, {allowed} are allowed", input.len()))
        }
        Ok(_) => None,
    };
    Run { taken: matches!(result, Ok(Outcome::Taken)), peak, fault }
}

/// The words of a fault without its numbers: one fault is told once.
fn kind_of(what: &str) -> String {
    what.chars().filter(|c| !c.is_ascii_digit()).take(100).collect()
}

/// Leaves out whatever can be left out of an input that still has the same fault.
fn smaller(target: &Target, mut input: Vec<u8>, kind: &str) -> Vec<u8> {
    let started = Instant::now();
    let mut step = input.len().div_ceil(2);
    while step > 0 && started.elapsed() < Duration::from_secs(5) {
        let mut at = 0;
        while at < input.len() {
            let mut shorter = input.clone();
            shorter.drain(at..(at + step).min(input.len()));
            if execute(target, &shorter).fault.is_some_and(|what| kind_of(&what) == kind) {
                input = shorter;
            } else {
                at += step;
            }
        }
        step /= 2;
    }
    input
}

fn crc_of(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
    static WATCHING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Panics of parsers are taken down instead of printed; all others go on as before.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if WATCHING.get() {
                LAST_PANIC.set(info.to_string().replace('\n', " "));
            } else {
                before(info);
            }
        }));
    });
}
