//! How much a parser holds at once: a global allocator that counts, thread by thread.
//!
//! Above: `driver` asks for the peak of one execution. Invariants: 1. counting never allocates; 2. a request beyond [`SINGLE_MAX`] while an
//! execution is watched gets nothing, so that the program ends there and then (`--trace` has its input). Not counted: what C code takes (zstd's windows).

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

/// No parser asks for this much at once.
pub const SINGLE_MAX: usize = 1 << 30;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

/// The system's allocator, counted.
pub struct Counting;

fn changed(by: isize) {
    // A thread that is ending has no counters any more.
    let _ = LIVE.try_with(|live| {
        live.set(live.get().saturating_add(by));
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

fn refused(size: usize) -> bool {
    size > SINGLE_MAX && WATCHED.try_with(Cell::get).unwrap_or(false)
}

fn signed(size: usize) -> isize {
    isize::try_from(size).unwrap_or(isize::MAX)
}

#[expect(
    unsafe_code,
    reason = "an allocator is unsafe by its trait; every call is handed on to the system's unchanged"
)]
// SAFETY: all four methods hand their arguments to `System`, which upholds the contract; counting touches no memory of callers.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if refused(layout.size()) {
            return std::ptr::null_mut();
        }
        changed(signed(layout.size()));
        // SAFETY: the caller's contract is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if refused(layout.size()) {
            return std::ptr::null_mut();
        }
        changed(signed(layout.size()));
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if refused(size) {
            return std::ptr::null_mut();
        }
        changed(signed(size).saturating_sub(signed(layout.size())));
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        changed(-signed(layout.size()));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Runs `work`, and says how many bytes it held at once beyond what was held before.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    PEAK.set(before);
    let watched = WATCHED.replace(true);
    let result = work();
    WATCHED.set(watched);
    (result, usize::try_from(PEAK.get().saturating_sub(before)).unwrap_or(0))
}
