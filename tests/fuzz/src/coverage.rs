//! Which code an execution reached, where the build counts it.
//!
//! Neighbours: `tests/fuzz/guided` builds the workspace's own crates with LLVM's inline counters (stable flags of rustc); `driver` keeps inputs that
//! reach something new. Invariants: 1. without counters everything here says "nothing new", and fuzzing goes on blind; 2. counters
//! are read between executions only, by the thread that runs them.

use std::sync::Mutex;

/// Starts and lengths of the counters of each crate, as the runtime was told at start.
static REGIONS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

/// Called by LLVM's constructors before `main`, once a crate.
///
/// # Safety
/// `start..stop` must be counters that live as long as the program, as LLVM gives them.
#[expect(unsafe_code, reason = "the name and the form are LLVM's")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    let length = (stop as usize).saturating_sub(start as usize);
    if let Ok(mut regions) = REGIONS.lock()
        && length > 0
        && !regions.contains(&(start as usize, length))
    {
        regions.push((start as usize, length));
    }
}

/// Counters that are looked at together.
const CHUNK: usize = 64;

/// What all executions so far reached.
#[derive(Debug)]
pub struct Seen {
    regions: Vec<(usize, usize)>,
    /// Per counter the largest power of two that was reached, so that "ten times" is something else than "once".
    classes: Vec<u8>,
    reached: usize,
}

impl Default for Seen {
    fn default() -> Self {
        let regions = REGIONS.lock().map(|regions| regions.clone()).unwrap_or_default();
        let counters = regions.iter().map(|(_, length)| length).sum();
        Self { regions, classes: vec![0; counters], reached: 0 }
    }
}

impl Seen {
    /// Counters of the build; 0 for one that has none.
    #[must_use]
    pub const fn counters(&self) -> usize {
        self.classes.len()
    }

    /// Counters that were reached.
    #[must_use]
    pub const fn reached(&self) -> usize {
        self.reached
    }

    /// Forgets what ran since the last look.
    pub fn start(&self) {
        for counters in self.live() {
            counters.fill(0);
        }
    }

    /// Whether the code that ran since [`Seen::start`] reached something new.
    pub fn news(&mut self) -> bool {
        let mut news = false;
        let mut classes = std::mem::take(&mut self.classes);
        let mut place = 0;
        for counters in self.live() {
            let known = classes.get_mut(place..place + counters.len()).unwrap_or_default();
            place += counters.len();
            for (counts, known) in counters.chunks(CHUNK).zip(known.chunks_mut(CHUNK)) {
                // Nearly all are 0, and this looks at many at once.
                if counts.iter().fold(0, |all, count| all | count) == 0 {
                    continue;
                }
                for (count, seen) in counts.iter().zip(known) {
                    let class = u8::try_from(u8::BITS - count.leading_zeros()).unwrap_or(0);
                    if class > *seen {
                        self.reached += usize::from(*seen == 0);
                        *seen = class;
                        news = true;
                    }
                }
            }
        }
        self.classes = classes;
        news
    }

    #[expect(unsafe_code, reason = "counters are memory that LLVM lays out")]
    fn live(&self) -> Vec<&'static mut [u8]> {
        // SAFETY: LLVM gave these bounds for counters that live as long as the program; only instrumented code of this thread writes them, and
        // none of it runs while a slice is held, but for this crate's own, whose counts are of no interest.
        self.regions
            .iter()
            .map(|(at, length)| unsafe { std::slice::from_raw_parts_mut(*at as *mut u8, *length) })
            .collect()
    }
}
