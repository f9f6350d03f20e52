//! Jupyter's interrupt, as a request that loops look at.
//!
//! The first interrupt of a cell sets a flag. The library's loops (`lesson_stop` is what they read) end by it within a second, and all variables
//! stay. A cell that does not look at the flag is told so after two seconds; a second interrupt then ends the process.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use libc::c_int;

use crate::{ERRORS, process};

/// How long a cell may take to heed the flag.
const PATIENCE: Duration = Duration::from_secs(2);
/// What a process says that an interrupt has ended.
const ENDED: c_int = 130;

const HINT: &str = "This cell does not look at Stop. Press Stop once more to end it; all variables are lost then.\n";
const LOST: &str = "Stop has ended the cell, and all variables are lost: run the notebook again from its first cell.\n";

/// Whether the cell that runs should end.
#[unsafe(no_mangle)]
pub static lesson_stop: AtomicBool = AtomicBool::new(false);

/// Through this the handler of the signal wakes the thread that waits for it.
static PRESSES: AtomicI32 = AtomicI32::new(-1);

/// An interrupt goes to all processes of a kernel, and leaves those alone that run no cells. It is blocked besides, since the compiler
/// sets a handler of its own and would give up.
pub fn let_pass() {
    // SAFETY: Nothing of ours is called, and the set is made before it is read.
    unsafe {
        libc::signal(libc::SIGINT, libc::SIG_IGN);
        block(libc::SIG_BLOCK);
    }
}

/// Blocks interrupts, or lets them come again, in this thread and those that it starts.
///
/// # Safety
/// `how` is one of the system's constants for that.
unsafe fn block(how: c_int) {
    // SAFETY: The set is made before it is read.
    unsafe {
        let mut interrupts: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut interrupts);
        libc::sigaddset(&mut interrupts, libc::SIGINT);
        libc::pthread_sigmask(how, &interrupts, std::ptr::null_mut());
    }
}

/// From now on interrupts are requests.
pub fn start() {
    // SAFETY: A call with constants.
    let presses = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    PRESSES.store(presses, Ordering::Relaxed);
    thread::Builder::new()
        .name("stop".to_owned())
        .spawn(watch)
        .ok();
    // SAFETY: The handler does only what a handler may: it reads and writes atomics and writes to a file.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_interrupt as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGINT, &action, std::ptr::null_mut());
        block(libc::SIG_UNBLOCK);
    }
}

/// A request belongs to the cell that ran when it came.
pub fn forget() {
    lesson_stop.store(false, Ordering::Relaxed);
}

extern "C" fn on_interrupt(_: c_int) {
    if process::running_cell().is_some() {
        lesson_stop.store(true, Ordering::Relaxed);
        process::write_to(PRESSES.load(Ordering::Relaxed), &1u64.to_ne_bytes());
    }
}

/// Waits for interrupts, and sees whether they are heeded.
fn watch() {
    loop {
        pressed(None);
        let (cell, first) = (process::running_cell(), Instant::now());
        let (mut again, mut told) = (false, false);
        while cell.is_some() && process::running_cell() == cell {
            again |= pressed(Some(Duration::from_millis(100)));
            if first.elapsed() < PATIENCE {
                continue;
            }
            if again {
                process::write_to(ERRORS, LOST.as_bytes());
                // SAFETY: Ends the process without running anything of it, as its cell may hold any lock.
                unsafe { libc::_exit(ENDED) };
            }
            if !told {
                process::write_to(ERRORS, HINT.as_bytes());
            }
            told = true;
        }
    }
}

/// Whether there was an interrupt within this time, or at all.
fn pressed(within: Option<Duration>) -> bool {
    let file = PRESSES.load(Ordering::Relaxed);
    let mut question = libc::pollfd {
        fd: file,
        events: libc::POLLIN,
        revents: 0,
    };
    let wait = within.map_or(-1, |time| time.as_millis() as c_int);
    let mut count = 0u64;
    // SAFETY: One question, and a number of eight bytes to read into.
    unsafe {
        libc::poll(&mut question, 1, wait);
        libc::syscall(libc::SYS_read, file, &raw mut count, size_of::<u64>()) > 0
    }
}
