//! A kernel's `cargo`: this program under that name.
//!
//! Until its first picture a kernel calls cargo about twenty times. Cargo reads the manifests of 200 packages each time and looks
//! whether they are fresh, and always finds the same. So the real cargo is called once for each request ([`crate::memory`]):
//!
//! - the analyzer's and evcxr's questions (metadata, configuration, paths) get the answer that they got before, the analyzer's
//!   without the packages that no notebook sees ([`packages::thinned`]);
//! - a cell is compiled by the compiler alone, called as cargo called it before ([`recompile`]).
//!
//! A request that is new under these circumstances, and every other one, goes to the real cargo.
//!
//! The memory rests on three things that only cargo watches otherwise, and that are part of its key: the sources of the
//! local crates ([`crate::local`]), the tools, and the manifests. Crates from a registry never change.
//!
//! | two cores without AVX-512, seconds (median of 20, 95 % within) | cargo each time | from memory | and one library for the linker ([`crate::cell_linker`]) |
//! | --- | --- | --- | --- |
//! | from a changed noise to its picture | 0.61, 0.87 | 0.52, 0.59 | 0.37, 0.47 |
//! | the words about a mistake | 0.70, 0.79 | 0.38, 0.48 | 0.35, 0.40 |
//! | the first cell, 20 s after the start (4 times) | | 0.27, 0.30 | 0.23, 0.24 |

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::machine::layout::Layout;
use crate::memory::Memory;
use crate::real_cargo::{cannot_start, hand_on, take_over};
use crate::speed::SpeedUp;
use crate::{packages, recompile, thin};

enum Request {
    /// Compile or check a cell.
    Cell,
    /// A question that changes nothing.
    Question,
    Other,
}

/// Acts as cargo.
///
/// # Errors
/// If the real cargo, or the compiler, cannot be started.
pub fn as_cargo(program: &OsString, arguments: &[OsString]) -> Result<ExitCode> {
    let layout = Layout::find()?;
    // Where this program's other names are, also when PATH led to this one.
    let bin = match Path::new(program).parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => layout.toolchain_in_use().join("bin"),
    };
    let mut cargo = Command::new(layout.toolchain_in_use().join("real/bin/cargo"));
    cargo.args(arguments);
    let memory = Memory::of_this_kernel(&layout);
    let memory = memory.as_ref();
    let key = || memory.and_then(|memory| Some((memory, memory.key(arguments)?)));
    match request(arguments) {
        Request::Cell => match key() {
            Some((memory, key)) => recompile::compile(memory, &key, &bin, cargo),
            None => hand_on(cargo),
        },
        Request::Question => answer(&layout, key(), arguments, cargo),
        Request::Other => {
            if let Some(memory) = memory {
                memory.forget();
            }
            hand_on(cargo)
        }
    }
}

fn request(arguments: &[OsString]) -> Request {
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    let verb = arguments
        .iter()
        .find(|argument| !argument.to_string_lossy().starts_with('-'));
    let compiles = verb.is_some_and(|verb| verb == "build" || verb == "check");
    if compiles && has("--message-format=json") {
        Request::Cell
    } else if ["metadata", "locate-project", "--version", "--print"]
        .iter()
        .any(|word| has(word))
        || (has("config") && has("get"))
    {
        Request::Question
    } else {
        Request::Other
    }
}

fn answer(
    layout: &Layout,
    memory: Option<(&Memory, String)>,
    arguments: &[OsString],
    mut cargo: Command,
) -> Result<ExitCode> {
    let known = memory
        .as_ref()
        .and_then(|(memory, key)| memory.recall(key, "answer"));
    if let Some(known) = known {
        SpeedUp::Answers.used();
        std::io::stdout().write_all(known.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    take_over()?;
    let output = cargo.output().with_context(|| cannot_start(&cargo))?;
    let mut text = output.stdout;
    // Only the analyzer asks for one platform: what evcxr asks about, it gets whole.
    if arguments
        .iter()
        .any(|argument| argument == "--filter-platform")
        // What is no metadata is cargo's own answer, and stays as it is.
        && let Ok(metadata) = serde_json::from_slice(&text)
    {
        SpeedUp::Analyzer.used();
        let seen = packages::led_to_thin(packages::thinned(metadata)?, &thin::crates(layout));
        text = serde_json::to_vec(&seen)?;
    }
    std::io::stderr().write_all(&output.stderr)?;
    std::io::stdout().write_all(&text)?;
    // A warning that evcxr reads as a failure: an answer that came with it is not kept.
    let clean = !String::from_utf8_lossy(&output.stderr).contains("invalid dependency");
    if let (Some((memory, key)), Ok(text), true, true) = (
        memory,
        std::str::from_utf8(&text),
        clean,
        output.status.success(),
    ) {
        // A full disk makes the next question slower, and no more.
        let _ = memory.keep(&key, "answer", text);
    }
    Ok(as_exit(output.status.code()))
}

/// A program's end as this one's.
fn as_exit(code: Option<i32>) -> ExitCode {
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart() {
        let of = |text: &str| {
            let words: Vec<OsString> = text.split(' ').map(OsString::from).collect();
            match request(&words) {
                Request::Cell => "cell",
                Request::Question => "question",
                Request::Other => "other",
            }
        };
        for text in [
            "build --target x --message-format=json",
            "--offline check --message-format=json",
        ] {
            assert_eq!(of(text), "cell", "{text}");
        }
        for text in [
            "metadata --format-version=1",
            "locate-project --workspace",
            "--version",
            "rustc -Z unstable-options --print cfg -- -O",
            "-Z unstable-options config get --format toml",
        ] {
            assert_eq!(of(text), "question", "{text}");
        }
        for text in ["clean", "update", "build --release", "add rand"] {
            assert_eq!(of(text), "other", "{text}");
        }
    }
}
