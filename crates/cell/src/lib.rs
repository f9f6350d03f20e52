//! What a notebook user takes for granted, and the stock kernel does not give.
//!
//! evcxr runs cells in a process of their own and talks to it by lines: commands come on its standard input, and a cell's end, its
//! pictures and its text go to standard output. This library is loaded into that process before anything else (`LD_PRELOAD`, set by the
//! launcher), and stands between cells and those lines:
//!
//! - **Stop** (`stop`): Jupyter's interrupt sets a flag that loops look at, in place of killing the process and all variables;
//! - **text** (`text`): a line that evcxr must see begins a line, whatever was printed before it; lines of a thread that an earlier cell
//!   started are marked;
//! - **errors** (`errors`): of a panic or an error of libtorch the cause and the cell's line are shown, without stacks;
//! - **keyboard** (`keyboard`): reading standard input ends at once, instead of taking evcxr's next command or waiting for ever.
//!
//! In every other process (the kernel itself, compilers) it does no more than let interrupts pass by. Only glibc's Linux is served; elsewhere
//! the kernel works as it comes.

#![cfg(all(target_os = "linux", target_env = "gnu"))]

mod errors;
mod keyboard;
mod process;
mod stop;
mod text;

use std::ffi::c_void;

use libc::{c_int, iovec, size_t, ssize_t};

/// The file descriptors of a process's standard streams.
const INPUT: c_int = 0;
const OUTPUT: c_int = 1;
const ERRORS: c_int = 2;

/// Runs before the program that this library is loaded into.
extern "C" fn start() {
    stop::let_pass();
    if std::env::var_os("EVCXR_IS_RUNTIME").is_some() {
        process::become_runtime();
        errors::start();
        stop::start();
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = start;

/// The system's `read`, except that a cell has no keyboard.
///
/// # Safety
/// As the system's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn read(file: c_int, bytes: *mut c_void, count: size_t) -> ssize_t {
    if file == INPUT && process::is_runtime() {
        return keyboard::read(bytes, count);
    }
    // SAFETY: The caller promises what the system asks for.
    unsafe { libc::syscall(libc::SYS_read, file, bytes, count) as ssize_t }
}

/// The system's `write`, except for what `text` and `errors` do to a cell's words.
///
/// # Safety
/// As the system's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(file: c_int, bytes: *const c_void, count: size_t) -> ssize_t {
    if matches!(file, OUTPUT | ERRORS) && !bytes.is_null() && process::is_runtime() {
        // SAFETY: The caller promises `count` readable bytes.
        let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), count) };
        say(file, bytes);
        return count as ssize_t;
    }
    // SAFETY: The caller promises what the system asks for.
    unsafe { libc::syscall(libc::SYS_write, file, bytes, count) as ssize_t }
}

/// The system's `writev`, as [`write()`].
///
/// # Safety
/// As the system's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn writev(file: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    if matches!(file, OUTPUT | ERRORS) && process::is_runtime() && count > 0 {
        // SAFETY: The caller promises `count` parts, each of as many readable bytes as it says.
        let parts = unsafe { std::slice::from_raw_parts(parts, count as usize) };
        let bytes: Vec<u8> = parts
            .iter()
            .filter(|part| part.iov_len > 0)
            // SAFETY: As above.
            .flat_map(|part| unsafe {
                std::slice::from_raw_parts(part.iov_base.cast::<u8>(), part.iov_len)
            })
            .copied()
            .collect();
        say(file, &bytes);
        return bytes.len() as ssize_t;
    }
    // SAFETY: The caller promises what the system asks for.
    unsafe { libc::syscall(libc::SYS_writev, file, parts, count) as ssize_t }
}

fn say(file: c_int, bytes: &[u8]) {
    match file {
        OUTPUT => text::say(bytes),
        _ => errors::say(bytes),
    }
}
