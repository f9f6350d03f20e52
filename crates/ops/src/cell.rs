//! What the process that runs a notebook's cells offers (`crates/cell`); everywhere else this does nothing.

use std::ffi::{CStr, c_void};
use std::fmt;
use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// The error of a computation that was ended by the notebook's Stop button.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

// A cell that ends with this error shows it so.
impl fmt::Debug for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stopped")
    }
}

impl std::error::Error for Stopped {}

/// Whether Stop was pressed during the cell that runs.
///
/// Only the thread that runs cells heeds it: a training in the background goes on.
pub fn is_stop_asked() -> bool {
    static STOP: OnceLock<Option<&AtomicBool>> = OnceLock::new();
    let stop = STOP.get_or_init(|| {
        let stop = symbol(c"lesson_stop")?;
        // SAFETY: That is its type, and the library that has it is never unloaded.
        Some(unsafe { &*stop.cast::<AtomicBool>() })
    });
    stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) && is_main_thread()
}

/// Ends a computation if Stop was pressed: a loop that may run for longer than a tenth of a second asks this each time.
///
/// # Errors
/// [`Stopped`], if it was.
pub fn check_stop() -> Result<(), Stopped> {
    match is_stop_asked() {
        true => Err(Stopped),
        false => Ok(()),
    }
}

fn is_main_thread() -> bool {
    #[cfg(target_os = "linux")]
    // SAFETY: Two questions without arguments.
    return unsafe { libc::gettid() == libc::getpid() };
    #[cfg(not(target_os = "linux"))]
    return false;
}

/// The address of what a library of this process offers to all.
fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: A valid name; nothing is loaded.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

/// When a cell ends, what it has printed without a line's end is written, as it would otherwise come with the next cell's words.
#[cfg(target_os = "linux")]
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = {
    extern "C" fn write_all() {
        let _ = std::io::stdout().flush(); // a closed notebook is no reason to panic
    }
    extern "C" fn at_load() {
        if let Some(at_end_of_cell) = symbol(c"lesson_at_end_of_cell") {
            type AtEndOfCell = extern "C" fn(extern "C" fn());
            // SAFETY: That is its type.
            unsafe { std::mem::transmute::<*mut c_void, AtEndOfCell>(at_end_of_cell)(write_all) };
        }
    }
    at_load
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_a_notebook_nothing_is_stopped() {
        assert_eq!(check_stop(), Ok(()));
        assert!(symbol(c"lesson_stop").is_none());
        assert!(symbol(c"malloc").is_some());
    }
}
