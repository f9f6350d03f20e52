//! The speed-ups of a kernel: their switch, and how often each was used.
//!
//! All of them rest on what was tried with some versions of Rust and evcxr. So set-up starts a kernel on trial; where it does not work
//! with them, and does without, it leaves a note, and every kernel starts plainly: slower, but with the same answers.
//! `LAB_PLAIN=1` has the same effect on one kernel.

use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::machine::layout::Layout;
use crate::machine::tools;
use crate::variables::{ON_TRIAL, PLAIN};

/// What makes kernels quick, each on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpeedUp {
    /// Cargo's answers are known ([`crate::cargo`]).
    Answers,
    /// Cells are compiled by the compiler alone ([`crate::recompile`]).
    Compiler,
    /// Cells are linked with one library ([`crate::cell_linker`]).
    Linker,
    /// The analyzer sees fewer packages, and thin ones ([`crate::packages`]).
    Analyzer,
    /// The warm directory is lent, not copied ([`crate::machine::tree::lend`]).
    Lent,
}

impl SpeedUp {
    /// All, in the order in which a kernel uses them.
    pub const ALL: [SpeedUp; 5] = [
        SpeedUp::Lent,
        SpeedUp::Analyzer,
        SpeedUp::Answers,
        SpeedUp::Compiler,
        SpeedUp::Linker,
    ];

    /// What it is, for a list.
    pub fn words(self) -> &'static str {
        match self {
            SpeedUp::Lent => "warm directory lent, not copied",
            SpeedUp::Analyzer => "packages made thin for the analyzer",
            SpeedUp::Answers => "cargo's answers from memory",
            SpeedUp::Compiler => "cells compiled without cargo",
            SpeedUp::Linker => "cells linked with one library",
        }
    }

    /// Notes a use by a kernel on trial. Other kernels note nothing.
    pub fn used(self) {
        if let Some(memory) = env::var_os(ON_TRIAL) {
            let log = File::options()
                .append(true)
                .create(true)
                .open(used_in(Path::new(&memory)));
            // What is not counted only shows as not used.
            let _ = log.and_then(|mut log| writeln!(log, "{self:?}"));
        }
    }

    /// How often the kernel on trial that filled this memory used it.
    pub fn uses(self, memory: &Path) -> usize {
        let log = fs::read_to_string(used_in(memory)).unwrap_or_default();
        let name = format!("{self:?}");
        log.lines().filter(|line| **line == name).count()
    }
}

fn used_in(memory: &Path) -> PathBuf {
    memory.join("used")
}

/// Why kernels start without the speed-ups; None where they start with them.
pub fn plain(layout: &Layout) -> Option<String> {
    let set = env::var_os(PLAIN).filter(|value| !value.is_empty() && value != "0");
    let set = set.map(|_| format!("{PLAIN} is set"));
    set.or_else(|| fs::read_to_string(note(layout)).ok())
}

/// Notes why kernels of this clone must start plainly from now on, or that they need not.
///
/// # Errors
/// If the note cannot be written or removed.
pub fn set_plain(layout: &Layout, reason: Option<&str>) -> Result<()> {
    let note = note(layout);
    match reason {
        Some(reason) => tools::write_whole(&note, reason),
        None if note.exists() => {
            fs::remove_file(&note).with_context(|| format!("cannot remove {}", note.display()))
        }
        None => Ok(()),
    }
}

fn note(layout: &Layout) -> PathBuf {
    layout.kernel().join("plain")
}
