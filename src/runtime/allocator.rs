//! The allocator: jemalloc for every binary that links this library, its figures, and its heap profiler.
//!
//! It gives unused memory back within seconds, by a thread of its own, tells what it holds, and can sample where it was asked for. It
//! never unmaps, which a CPU profile relies on: what a stale frame pointer names is still there to be read. Sampling is compiled in and off: nothing is recorded until it is switched on, which needs no restart.
//! Switching and writing a profile block; the profile itself goes through a temporary file.

use tikv_jemalloc_ctl::{epoch, stats};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What jemalloc reads before `main`; `_RJEM_MALLOC_CONF` in the environment comes after it and wins.
///
/// - `prof:true,prof_active:false`: heap profiles can be switched on later, and cost nothing until then.
/// - `lg_prof_sample:19`: one sample each 512 KiB, the usual rate.
/// - `background_thread:true`: unused pages are given back by a thread of their own, not by one that answers requests.
/// - `dirty_decay_ms`, `muzzy_decay_ms`: how long unused pages wait for their next use. Half of what is usual: between 1 and 10 s no
///   difference in processor time was found, and memory is back that much sooner (docs/operations.md).
#[expect(unsafe_code, reason = "jemalloc finds its options by the name of this symbol")]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static OPTIONS: &[u8; 106] =
    b"prof:true,prof_active:false,lg_prof_sample:19,background_thread:true,dirty_decay_ms:5000,muzzy_decay_ms:0\0";

/// Why there is no heap profile.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Started with `prof:false` in the environment.
    #[error("this process was started without heap profiling (prof:false in _RJEM_MALLOC_CONF)")]
    Absent,
    /// Nothing has been sampled.
    #[error("heap profiling is off")]
    Off,
    /// The system, in its words.
    #[error("the heap profile cannot be written: {0}")]
    Failed(String),
}

/// What the allocator holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Asked for and not given back by the program.
    pub allocated: usize,
    /// Whole pages in use by those.
    pub active: usize,
    /// The allocator's own books.
    pub metadata: usize,
    /// In physical memory.
    pub resident: usize,
    /// Mapped from the system.
    pub mapped: usize,
    /// Given back, with the addresses kept for later.
    pub retained: usize,
}

/// What the allocator holds now; none where it does not tell.
#[must_use]
pub fn figures() -> Option<Figures> {
    epoch::advance().ok()?;
    Some(Figures {
        allocated: stats::allocated::read().ok()?,
        active: stats::active::read().ok()?,
        metadata: stats::metadata::read().ok()?,
        resident: stats::resident::read().ok()?,
        mapped: stats::mapped::read().ok()?,
        retained: stats::retained::read().ok()?,
    })
}

/// Begins or ends the sampling of allocations. What was sampled before an end is forgotten. Blocks.
///
/// # Errors
/// When the process was started without heap profiling, or jemalloc refuses.
pub fn set_heap_profiling(active: bool) -> Result<(), Error> {
    let mut profiler = jemalloc_pprof::PROF_CTL.as_ref().ok_or(Error::Absent)?.blocking_lock();
    if profiler.activated() == active {
        return Ok(());
    }
    let switched = if active { profiler.activate() } else { profiler.deactivate() };
    switched.map_err(|error| Error::Failed(error.to_string()))
}

/// Memory in use by who asked for it, since sampling began: gzipped protobuf, as `go tool pprof` reads it. Blocks.
///
/// # Errors
/// When nothing is sampled, or no temporary file can be written.
pub fn heap_profile() -> Result<Vec<u8>, Error> {
    let mut profiler = jemalloc_pprof::PROF_CTL.as_ref().ok_or(Error::Absent)?.blocking_lock();
    if !profiler.activated() {
        return Err(Error::Off);
    }
    let profile = profiler.dump_pprof().map_err(|error| Error::Failed(error.to_string()));
    // What was read of the symbols is more than all else that the process has in memory.
    backtrace::clear_symbol_cache();
    profile
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jemalloc_serves_this_process_with_our_options() {
        let before = figures().expect("figures").allocated;
        let held = vec![1_u8; 64 << 20];
        let during = figures().expect("figures").allocated;
        assert!(during >= before + (32 << 20), "{before} {during}");
        drop(held);
        assert!(tikv_jemalloc_ctl::background_thread::read().expect("an option"));
        assert!(jemalloc_pprof::PROF_CTL.is_some(), "heap profiling is compiled in and allowed");
    }
}
