//! A cell's standard error: of a panic or an error of libtorch the cause and the cell's line, without stacks.
//!
//! Rust's own words about a panic name a place in `tch` and carry libtorch's stack within a quoted text; evcxr asks for Rust's stack besides.
//! `LESSON_BACKTRACE=1` in the environment of JupyterLab shows all of that.

use std::env;
use std::ffi::{CStr, c_void};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use libc::c_int;

use crate::text::EARLIER;
use crate::{ERRORS, process};

/// libtorch's stack begins so, on a line or in a quoted text.
const STACK: &str = "Exception raised from ";
/// What evcxr calls the libraries of cells.
const OF_CELL: &str = "libcode_";
/// What Rust's stacks begin with.
const BACKTRACE: &str = "stack backtrace:";

/// Whether stacks are left out.
static SHORT: AtomicBool = AtomicBool::new(false);
/// What has come of a line that has not ended, and what the lines before say about it.
static STDERR: Mutex<(Vec<u8>, Filter)> = Mutex::new((Vec::new(), Filter::Words));

/// Before the process's own program begins, and so before any other thread.
pub fn start() {
    if env::var_os("LESSON_BACKTRACE").is_some_and(|value| value == "1") {
        return;
    }
    SHORT.store(true, Ordering::Relaxed);
    // SAFETY: There is no other thread yet.
    unsafe { env::set_var("RUST_BACKTRACE", "0") };
}

/// Writes what a cell says about a failure.
pub fn say(bytes: &[u8]) {
    if !SHORT.load(Ordering::Relaxed) {
        return process::write_to(ERRORS, bytes);
    }
    let earlier = !process::is_main_thread() && process::is_of_earlier_cell();
    let mut stderr = STDERR.lock().unwrap_or_else(PoisonError::into_inner);
    let (rest, filter) = &mut *stderr;
    rest.extend_from_slice(bytes);
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line: Vec<u8> = rest.drain(..=end).collect();
        let line = String::from_utf8_lossy(&line[..end]).into_owned();
        for line in filter.lines(&line, &line_of_cell) {
            let mark = if earlier { EARLIER } else { "" };
            process::write_to(ERRORS, format!("{mark}{line}\n").as_bytes());
        }
    }
}

/// Writes a line that has not ended: evcxr shows whole lines only.
pub fn flush() {
    let begun = {
        let mut stderr = STDERR.lock().unwrap_or_else(PoisonError::into_inner);
        stderr.1 = Filter::Words;
        !stderr.0.is_empty()
    };
    if begun {
        say(b"\n");
    }
}

/// What the next line is.
enum Filter {
    Words,
    /// What a panic says; the line of the cell that it happened in.
    Panic(Option<String>),
    /// A stack of libtorch, or of Rust: left out as long as it looks like one.
    Stack,
    /// What follows a crash, to the end of the process.
    Crash,
}

impl Filter {
    /// What is shown of a line. `line_of_cell` is asked where a panic happened, and is given the place that Rust names.
    fn lines(&mut self, line: &str, line_of_cell: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
        let before = std::mem::replace(self, Filter::Words);
        if let Filter::Crash = before {
            *self = Filter::Crash;
            return vec![];
        }
        if let Some(place) = place_of_panic(line) {
            let line = line_of_cell(place);
            *self = Filter::Panic(Some(line.unwrap_or_else(|| place.to_owned())));
            return vec![];
        }
        if line.starts_with(STACK) || line == BACKTRACE {
            *self = Filter::Stack;
            return vec![];
        }
        match before {
            Filter::Panic(place) => {
                let mut lines = vec![cause(line)];
                lines.extend(place.map(|place| format!("panicked at: {place}")));
                lines
            }
            Filter::Stack if is_of_stack(line) => {
                *self = Filter::Stack;
                vec![]
            }
            _ if line.starts_with("note: run with `RUST_BACKTRACE") => vec![],
            _ if ["Segmentation fault.", "Illegal instruction.", "Bus error."].contains(&line) => {
                *self = Filter::Crash;
                vec![line.to_owned()]
            }
            // Rust leaves a line free before a panic, evcxr takes it for text.
            _ if line.is_empty() => vec![],
            _ => vec![without_stack(line)],
        }
    }
}

/// The place that Rust names in the first line about a panic.
fn place_of_panic(line: &str) -> Option<&str> {
    let (_, place) = line.strip_prefix("thread '")?.split_once(" panicked at ")?;
    place.strip_suffix(':')
}

/// Whether this continues a stack: `frame #3: …`, `   3: …`, `      at …`.
fn is_of_stack(line: &str) -> bool {
    let words = line.trim_start();
    let number = words
        .split_once(": ")
        .is_some_and(|(number, _)| number.parse::<u32>().is_ok());
    line.is_empty() || words.starts_with("frame #") || words.starts_with("at ") || number
}

/// What a panic says, without the words around an error that was not handled.
fn cause(line: &str) -> String {
    let unwrapped = "called `Result::unwrap()` on an `Err` value: ";
    let error = line.strip_prefix(unwrapped).unwrap_or(line);
    match error.strip_prefix("Torch(\"") {
        Some(quoted) => unquoted(quoted),
        None => without_stack(error),
    }
}

/// The text of a quoted one up to libtorch's stack.
fn unquoted(quoted: &str) -> String {
    let text = without_stack(quoted);
    let text = text.strip_suffix("\")").unwrap_or(&text);
    let text = text
        .replace("\\n", "\n")
        .replace("\\\"", "\"")
        .replace("\\'", "'");
    text.replace("\\\\", "\\").trim_end().to_owned()
}

/// A line without libtorch's stack, which an error that is shown as Rust's source has in the same line.
fn without_stack(line: &str) -> String {
    match line.split_once(&format!("\\n{STACK}")) {
        Some((words, _)) if words.contains("Torch(\"") => format!("{words}\")"),
        Some((words, _)) => words.to_owned(),
        None => line.to_owned(),
    }
}

/// The text of the cell's line that this thread is in, if the cell still runs and its code was compiled with lines.
fn line_of_cell(place: &str) -> Option<String> {
    let source = PathBuf::from(env::var_os("EVCXR_TMPDIR")?).join("src/lib.rs");
    let number = match line_of(place, &source) {
        Some(number) => number,
        // The source of an earlier cell is gone.
        None if !process::is_of_earlier_cell() => innermost_line(&source)?,
        None => return None,
    };
    let text = fs::read_to_string(&source).ok()?;
    Some(as_written(text.lines().nth(number.checked_sub(1)?)?))
}

/// The number of a line, if the place is in this source: `path:line:column`.
fn line_of(place: &str, source: &Path) -> Option<usize> {
    let mut parts = place.rsplitn(3, ':');
    let (_column, line, path) = (parts.next()?, parts.next()?, parts.next()?);
    is_source(Path::new(path), source).then(|| line.parse().ok())?
}

/// Whether this is the source, which the compiler names from where it was started.
fn is_source(path: &Path, source: &Path) -> bool {
    let path = path.strip_prefix("./").unwrap_or(path);
    path.ends_with("src/lib.rs") && source.ends_with(path)
}

/// The innermost line of this source that is in the stack of this thread.
fn innermost_line(source: &Path) -> Option<usize> {
    const DEEPEST: usize = 200;
    let mut calls = [std::ptr::null_mut(); DEEPEST];
    // SAFETY: It writes as many addresses as there is room for.
    let count = unsafe { libc::backtrace(calls.as_mut_ptr(), DEEPEST as c_int) };
    let calls = calls.iter().take(usize::try_from(count).ok()?);
    calls.filter_map(|call| line_of_call(*call, source)).next()
}

/// The line of this source that a return address leads back to.
fn line_of_call(address: *const c_void, source: &Path) -> Option<usize> {
    // SAFETY: The system looks the address up, and writes where it belongs.
    let library = unsafe {
        let mut library: libc::Dl_info = std::mem::zeroed();
        if libc::dladdr(address, &mut library) == 0 || library.dli_fname.is_null() {
            return None;
        }
        library
    };
    // SAFETY: It is the name of a library that is loaded.
    let name = unsafe { CStr::from_ptr(library.dli_fname) }.to_str().ok()?;
    // Other libraries are large, and hold no cell.
    if !Path::new(name).file_name()?.to_str()?.starts_with(OF_CELL) {
        return None;
    }
    // The call is before the address that it returns to.
    let at = (address as u64).checked_sub(library.dli_fbase as u64 + 1)?;
    let lines = addr2line::Loader::new(name).ok()?;
    let place = lines.find_location(at).ok()??;
    match is_source(Path::new(place.file?), source) {
        true => usize::try_from(place.line?).ok(),
        false => None,
    }
}

/// The line without what evcxr puts around a cell's last expression.
fn as_written(line: &str) -> String {
    let line = line.trim();
    match line.strip_suffix(").evcxr_display();") {
        Some(inner) => inner.strip_prefix('(').unwrap_or(inner).to_owned(),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown of these lines, for a panic in the cell's line `let x = …`.
    fn shown(lines: &[&str]) -> Vec<String> {
        let mut filter = Filter::Words;
        let of_cell = |place: &str| (place != "/tch.rs:1:2").then(|| "let x = f();".to_owned());
        lines
            .iter()
            .flat_map(|line| filter.lines(line, &of_cell))
            .collect()
    }

    #[test]
    fn a_panic_is_its_cause_and_its_line() {
        let panic = [
            "",
            "thread 'main' (7) panicked at src/lib.rs:12:3:",
            "index out of bounds: the len is 3 but the index is 5",
            "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace",
        ];
        let expected = [
            "index out of bounds: the len is 3 but the index is 5",
            "panicked at: let x = f();",
        ];
        assert_eq!(shown(&panic), expected);
        let panic = [
            "thread '<unnamed>' panicked at /tch.rs:1:2:",
            "no line is known",
        ];
        assert_eq!(
            shown(&panic),
            ["no line is known", "panicked at: /tch.rs:1:2"]
        );
        let panic = [
            "thread 'main' (7) panicked at src/lib.rs:12:3:",
            "assertion `left == right` failed",
            "  left: 1",
            " right: 2",
        ];
        let expected = [
            "assertion `left == right` failed",
            "panicked at: let x = f();",
            "  left: 1",
            " right: 2",
        ];
        assert_eq!(shown(&panic), expected);
    }

    #[test]
    fn of_libtorch_only_the_cause_is_shown() {
        let cause = "shape '[7, 7]' is invalid for input of size 7840";
        let quoted = r#"called `Result::unwrap()` on an `Err` value: Torch("shape '[7, 7]' is invalid for input of size 7840\nException raised from infer_size_impl at InferSize.h:33 (most recent call first):\nframe #0: c10::Error::Error()\n")"#;
        let panic = ["thread 'main' (7) panicked at src/lib.rs:12:3:", quoted];
        assert_eq!(shown(&panic), [cause, "panicked at: let x = f();"]);
        let error = [
            "cannot reshape",
            "",
            "Caused by:",
            "    shape '[7, 7]' is invalid for input of size 7840",
            "Exception raised from infer_size_impl at InferSize.h:33 (most recent call first):",
            "frame #0: c10::Error::Error() + 0x1 (0x7f in libc10.so)",
            "<omitting python frames>",
            "after it",
        ];
        let expected = [error[0], error[2], error[3], error[6], error[7]];
        assert_eq!(shown(&error), expected);
        let debug =
            r#"Torch("it is so\nException raised from f (most recent call first):\nframe #0")"#;
        assert_eq!(shown(&[debug]), [r#"Torch("it is so")"#]);
    }

    #[test]
    fn a_stack_is_left_out_and_what_follows_it_is_not() {
        let lines = [
            "no such file",
            "stack backtrace:",
            "   0: core::panicking::panic",
            "             at /rustc/core/src/panicking.rs:1:2",
            "  11: main",
            "done",
        ];
        assert_eq!(shown(&lines), ["no such file", "done"]);
        assert_eq!(
            shown(&["Segmentation fault.", "   0: f", "anything"]),
            ["Segmentation fault."]
        );
    }

    #[test]
    fn the_cells_line_is_found_and_shown_as_it_was_written() {
        let source = Path::new("/k/cell/src/lib.rs");
        for path in ["src/lib.rs", "./src/lib.rs", "cell/src/lib.rs"] {
            assert_eq!(line_of(&format!("{path}:12:3"), source), Some(12));
        }
        assert_eq!(line_of("/r/tch/src/lib.rs:12:3", source), None);
        assert_eq!(line_of("nonsense", source), None);
        assert_eq!(
            as_written("(x.reshape(&[7, 7])).evcxr_display();"),
            "x.reshape(&[7, 7])"
        );
        assert_eq!(as_written("   let x = 1; "), "let x = 1;");
    }
}
