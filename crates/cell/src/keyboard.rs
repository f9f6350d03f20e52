//! Standard input, which is evcxr's line of commands and no keyboard.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{size_t, ssize_t};

use crate::{INPUT, process, text};

const HINT: &str = "A cell has no keyboard to read from: write the value into the cell, as in `let answer: &str = \"7\";`.\n";

/// Whether the cell asked evcxr for a line, by the crate `evcxr_input`.
static ASKED: AtomicBool = AtomicBool::new(false);

/// evcxr was asked for a line, which it will send.
pub fn expect_a_line() {
    ASKED.store(true, Ordering::Relaxed);
}

pub fn read(bytes: *mut c_void, count: size_t) -> ssize_t {
    let in_cell = process::running_cell().is_some();
    if in_cell && !ASKED.load(Ordering::Relaxed) {
        text::say(HINT.as_bytes());
        return 0;
    }
    // SAFETY: The caller promises `count` writable bytes.
    let read = unsafe { libc::syscall(libc::SYS_read, INPUT, bytes, count) as ssize_t };
    let Some(last) = usize::try_from(read)
        .ok()
        .and_then(|read| read.checked_sub(1))
    else {
        return read;
    };
    // SAFETY: So many bytes were read.
    if unsafe { *bytes.cast::<u8>().add(last) } == b'\n' {
        // evcxr sends a line at a time, but not always in one piece.
        ASKED.store(false, Ordering::Relaxed);
        if !in_cell {
            process::cell_begins();
        }
    }
    read
}
