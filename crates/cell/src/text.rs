//! A cell's standard output.

use std::sync::{Mutex, PoisonError};

use libc::pid_t;

use crate::{OUTPUT, keyboard, process};

/// The end of a cell. evcxr sees it, as the other marks, only as a line of its own.
const END: &[u8] = b"EVCXR_EXECUTION_COMPLETE\n";
/// How the crate `evcxr_input` asks for a line.
const ASKS: &[u8] = b"EVCXR_INPUT_REQUEST";
const BEGINS_CONTENT: &[u8] = b"EVCXR_BEGIN_CONTENT ";
const ENDS_CONTENT: &[u8] = b"EVCXR_END_CONTENT\n";
const MARKS: [&[u8]; 6] = [
    END,
    BEGINS_CONTENT,
    b"EVCXR_PANIC_NOTIFICATION\n",
    b"EVCXR_ERROR_OCCURRED\n",
    b"EVCXR_VARIABLE_CHANGED_TYPE:",
    ASKS,
];

/// Before a line of a thread that an earlier cell started.
pub const EARLIER: &str = "(from an earlier cell) ";

/// Where the output stands.
struct Output {
    /// Whether the next byte begins a line.
    begins: bool,
    /// Whether it belongs to a picture or another content that evcxr takes whole.
    in_content: bool,
    /// Whose bytes were the last.
    thread: pid_t,
}

static STDOUT: Mutex<Output> = Mutex::new(Output::new());

/// Writes what a cell says.
pub fn say(bytes: &[u8]) {
    let of_cell = process::is_main_thread();
    if of_cell && bytes == END {
        process::cell_ends();
    }
    // What is printed between two cells is read with the next one.
    let earlier = !of_cell && (process::running_cell().is_none() || process::is_of_earlier_cell());
    // SAFETY: A question without arguments.
    let thread = unsafe { libc::gettid() };
    let mut output = STDOUT.lock().unwrap_or_else(PoisonError::into_inner);
    let text = output.arrange(bytes, thread, if earlier { EARLIER } else { "" });
    process::write_to(OUTPUT, &text);
}

impl Output {
    const fn new() -> Output {
        Output {
            begins: true,
            in_content: false,
            thread: 0,
        }
    }

    /// The bytes with every mark on a line of its own, and with something before each other line.
    fn arrange(&mut self, bytes: &[u8], thread: pid_t, before: &str) -> Vec<u8> {
        let mut text = Vec::with_capacity(bytes.len() + before.len() + 1);
        if !self.begins && self.thread != thread && !bytes.is_empty() {
            text.push(b'\n');
            self.begins = true;
        }
        self.thread = thread;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            // A content is long, and only its own end, or the cell's, can follow.
            let mark = match self.in_content {
                true => MARKS.contains(&line).then_some(0),
                false => MARKS.iter().filter_map(|mark| find(line, mark)).min(),
            };
            let (words, mark) = line.split_at(mark.unwrap_or(line.len()));
            if !words.is_empty() {
                if self.begins && !self.in_content {
                    text.extend_from_slice(before.as_bytes());
                }
                text.extend_from_slice(words);
                self.begins = words.ends_with(b"\n");
                self.in_content &= words != ENDS_CONTENT;
            }
            if !mark.is_empty() {
                if !self.begins {
                    text.push(b'\n');
                }
                text.extend_from_slice(mark);
                self.begins = mark.ends_with(b"\n");
                self.in_content = mark.starts_with(BEGINS_CONTENT);
                if mark.starts_with(ASKS) {
                    keyboard::expect_a_line();
                }
            }
        }
        text
    }
}

fn find(line: &[u8], part: &[u8]) -> Option<usize> {
    line.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What evcxr gets of these pieces, each from a thread.
    fn of(pieces: &[(&[u8], pid_t)], before: &str) -> String {
        let mut output = Output::new();
        let text: Vec<u8> = pieces
            .iter()
            .flat_map(|(piece, thread)| output.arrange(piece, *thread, before))
            .collect();
        String::from_utf8_lossy(&text).into_owned()
    }

    fn of_one(pieces: &[&[u8]]) -> String {
        let pieces: Vec<(&[u8], pid_t)> = pieces.iter().map(|piece| (*piece, 1)).collect();
        of(&pieces, "")
    }

    #[test]
    fn a_mark_stands_on_a_line_of_its_own() {
        let end = "EVCXR_EXECUTION_COMPLETE\n";
        assert_eq!(of_one(&[b"50 %", END]), format!("50 %\n{end}"));
        assert_eq!(of_one(&[b"done\n", END]), format!("done\n{end}"));
        assert_eq!(
            of_one(&[b"half", b" line\n", END]),
            format!("half line\n{end}")
        );
        let picture = "EVCXR_BEGIN_CONTENT image/png\nabc\nEVCXR_END_CONTENT\n";
        assert_eq!(
            of_one(&[b"before", picture.as_bytes(), b"after", END]),
            format!("before\n{picture}after\n{end}")
        );
        // A line that was printed, but not yet written, comes in one piece with the mark.
        assert_eq!(
            of_one(&[b"beforeEVCXR_PANIC_NOTIFICATION\n"]),
            "before\nEVCXR_PANIC_NOTIFICATION\n"
        );
        // A content that a panic broke off, in pieces.
        assert_eq!(
            of_one(&[
                b"EVCXR_BEGIN_CONTENT text/plain\n",
                b"a",
                b"\nEVCXR_PANIC_NOTIFICATION\n",
                b"b",
                END
            ]),
            format!("EVCXR_BEGIN_CONTENT text/plain\na\nEVCXR_PANIC_NOTIFICATION\nb\n{end}")
        );
    }

    #[test]
    fn only_text_is_marked() {
        assert_eq!(
            of(&[(b"one\ntwo\nthr", 2), (b"ee\n", 2)], "> "),
            "> one\n> two\n> three\n"
        );
        let picture = "EVCXR_BEGIN_CONTENT text/html\na\nb\nEVCXR_END_CONTENT\n";
        assert_eq!(
            of(&[(picture.as_bytes(), 2), (b"c\n", 2)], "> "),
            format!("{picture}> c\n")
        );
    }

    #[test]
    fn threads_do_not_share_a_line() {
        assert_eq!(of(&[(b"one", 1), (b"two\n", 2)], ""), "one\ntwo\n");
    }
}
