//! The process that runs cells: whether it runs one now, and what it offers the libraries of cells.

use std::cell::Cell;
use std::env;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use libc::{c_int, c_void};

use crate::{errors, stop};

/// Whether this is that process.
static RUNTIME: AtomicBool = AtomicBool::new(false);
/// Whether a cell runs.
static RUNNING: AtomicBool = AtomicBool::new(false);
/// How many cells were begun.
static CELLS: AtomicU64 = AtomicU64::new(0);
/// When the last one was, in the system's ticks since it started.
static BEGAN: AtomicU64 = AtomicU64::new(0);
/// What `lesson_at_end_of_cell` was given.
static AT_END: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// The variable that loads this library, and what it was before, if it was set.
const PRELOAD: &str = "LD_PRELOAD";
const PRELOAD_BEFORE: &str = "LESSON_PRELOAD_BEFORE";

/// Notes that cells run here. Programs that a cell starts are as without this library.
pub fn become_runtime() {
    RUNTIME.store(true, Ordering::Relaxed);
    // SAFETY: The program has not begun, so there is no other thread.
    unsafe {
        match env::var_os(PRELOAD_BEFORE) {
            Some(before) => env::set_var(PRELOAD, before),
            None => env::remove_var(PRELOAD),
        }
        env::remove_var(PRELOAD_BEFORE);
    }
}

pub fn is_runtime() -> bool {
    RUNTIME.load(Ordering::Relaxed)
}

/// evcxr asks for a cell to be run.
pub fn cell_begins() {
    stop::forget();
    BEGAN.store(ticks_now(), Ordering::Relaxed);
    CELLS.fetch_add(1, Ordering::Relaxed);
    RUNNING.store(true, Ordering::Release);
}

/// A cell has ended; evcxr does not know yet.
pub fn cell_ends() {
    let at_end = AT_END.load(Ordering::Acquire);
    if !at_end.is_null() {
        // SAFETY: Only `lesson_at_end_of_cell` writes it, and libraries of cells are never unloaded.
        let at_end = unsafe { std::mem::transmute::<*mut c_void, extern "C" fn()>(at_end) };
        at_end();
    }
    errors::flush();
    RUNNING.store(false, Ordering::Release);
}

/// The number of the cell that runs.
pub fn running_cell() -> Option<u64> {
    RUNNING
        .load(Ordering::Acquire)
        .then(|| CELLS.load(Ordering::Relaxed))
}

/// Lets the library of a cell do something whenever a cell ends.
#[unsafe(no_mangle)]
pub extern "C" fn lesson_at_end_of_cell(action: extern "C" fn()) {
    AT_END.store(action as *mut c_void, Ordering::Release);
}

/// Whether this thread runs cells. No other may take their answers.
pub fn is_main_thread() -> bool {
    // SAFETY: Two questions without arguments.
    unsafe { libc::gettid() == libc::getpid() }
}

/// Whether this thread was started by a cell before the last one.
pub fn is_of_earlier_cell() -> bool {
    thread_local! {
        static STARTED: Cell<Option<u64>> = const { Cell::new(None) };
    }
    if is_main_thread() {
        return false;
    }
    let started = STARTED.get().or_else(|| {
        // SAFETY: A question without arguments.
        let thread = unsafe { libc::gettid() };
        started_at(&fs::read_to_string(format!("/proc/self/task/{thread}/stat")).ok()?)
    });
    STARTED.set(started);
    started.is_some_and(|started| started < BEGAN.load(Ordering::Relaxed))
}

/// When a thread was started, from the system's line about it: the twentieth number after its name, which may have blanks in it.
fn started_at(line: &str) -> Option<u64> {
    line.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

/// The system's ticks, a hundredth of a second each, since it started.
fn ticks_now() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is valid; a constant asks for the number of ticks in a second.
    let ticks = unsafe {
        libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut now);
        libc::sysconf(libc::_SC_CLK_TCK)
    };
    let (ticks, seconds) = (ticks.max(1) as u64, now.tv_sec as u64);
    seconds * ticks + now.tv_nsec as u64 * ticks / 1_000_000_000
}

/// Writes to a file without this library's own `write`.
pub fn write_to(file: c_int, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: A valid slice.
        let written = unsafe { libc::syscall(libc::SYS_write, file, bytes.as_ptr(), bytes.len()) };
        match usize::try_from(written) {
            Ok(written) => bytes = &bytes[written..],
            Err(_) if std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) => {}
            Err(_) => return, // nobody listens any more
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_as_old_as_the_system_says() {
        let read = || fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
        let before = ticks_now();
        let line = std::thread::spawn(read).join().unwrap_or_default();
        let started = started_at(&line);
        assert!(
            started
                .is_some_and(|started| (before.saturating_sub(1)..=ticks_now()).contains(&started)),
            "{started:?} is not between {before} and now: {line}"
        );
        assert_eq!(started_at("7 (a (b) c) S 1 2"), None);
    }
}
