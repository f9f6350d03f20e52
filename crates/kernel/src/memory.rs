//! Which requests a kernel's `cargo` had before, and how the real cargo replied.
//!
//! The memory is a folder of small files in the kernel's own directory. Set-up fills the first one by starting a kernel on
//! trial; every kernel gets a copy of it and adds what it learns. A memory is found under a key, the hash of
//! what it depends on: a request under other circumstances is not found, and the real cargo replies. It is thrown away only when
//! compiled libraries may have changed beneath it.

use std::collections::BTreeSet;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::machine::layout::{LOCK, Layout};
use crate::machine::tools;
use crate::variables::{CELLS, ON_TRIAL};
use crate::{local, variables, warm};

/// Counts up when what is kept changes its form.
const FORM: u32 = 4;
/// Where a kernel keeps its memory, in its own directory.
pub const FOLDER: &str = "memory";
/// The file in the memory of a kernel on trial that says which warm directory it belongs to, and after that which program filled it.
pub const STAMP: &str = "rehearsed";
/// Stands for the kernel's own directory, which is another one for every kernel.
const OWN: &str = "{the kernel's own directory}";
/// The files in that directory that decide what cargo does, besides the lock file, which cargo itself writes.
const MANIFESTS: [&str; 4] = [
    "Cargo.toml",
    "cell/Cargo.toml",
    "cell/.cargo/config.toml",
    "lock/Cargo.toml",
];
/// Where a kernel's directory says what its environment was when it started.
const BEGAN_WITH: &str = "began-with";
/// What differs between calls for no reason that a compiler would know.
const PASSING: [&str; 5] = ["PWD", "OLDPWD", "_", "SHLVL", "PATH"];

/// The memory of one kernel.
pub struct Memory {
    own: PathBuf,
    folder: PathBuf,
    /// Files outside the kernel's directory that count with their time and size: the tools and the workspace's settings.
    outside: Vec<PathBuf>,
}

/// The directory of the kernel that this process works for.
pub fn own_directory() -> Option<PathBuf> {
    let cell = PathBuf::from(env::var_os(CELLS)?);
    cell.parent()?.canonicalize().ok()
}

impl Memory {
    /// The memory of the kernel that this process works for, if it does, in the folder where the kernel builds.
    pub fn of_this_kernel(layout: &Layout) -> Option<Memory> {
        let own = own_directory()?;
        let here = env::current_dir().ok()?;
        if here != own && here != own.join("cell") {
            return None;
        }
        let folder = env::var_os(ON_TRIAL).map_or_else(|| own.join(FOLDER), PathBuf::from);
        let mut outside = warm::settings(layout);
        let above = own.ancestors().skip(1);
        outside.extend(above.flat_map(|folder| warm::configurations(&folder.join(".cargo"))));
        if warm::lead_further(&outside) {
            return None;
        }
        let tools = layout.toolchain_in_use().join("real/bin");
        outside.extend(["cargo", "rustc"].map(|name| tools.join(name)));
        folder.is_dir().then_some(Memory {
            own,
            folder,
            outside,
        })
    }

    /// Where it is kept.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The name of everything that an answer to these arguments depends on. None if that cannot be known: where a cell uses a crate
    /// in a folder of the learner's own, only cargo can tell whether that changed.
    pub fn key(&self, arguments: &[OsString]) -> Option<String> {
        let mut text = format!("{FORM}\n");
        for argument in arguments {
            let _ = writeln!(text, "argument {}", self.general(argument.to_str()?));
        }
        let here = env::current_dir().ok()?;
        let _ = writeln!(text, "in {}", here.strip_prefix(&self.own).ok()?.display());
        let began_with = fs::read_to_string(self.own.join(BEGAN_WITH)).unwrap_or_default();
        let began_with: BTreeSet<&str> = began_with.lines().collect();
        let counts = |name: &str, value: &OsStr| match variables::find(name) {
            Some(variable) => variable.decides,
            None => {
                !PASSING.contains(&name) && !began_with.contains(&*line_of(name.as_ref(), value))
            }
        };
        let mut variables: Vec<_> = env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
            .filter(|(name, value)| counts(name, value))
            .collect();
        variables.sort();
        for (name, value) in variables {
            let _ = writeln!(text, "{name} {}", self.general(value.to_str()?));
        }
        for name in MANIFESTS {
            let manifest = fs::read_to_string(self.own.join(name)).unwrap_or_default();
            let _ = writeln!(text, "{name}\n{manifest}");
        }
        for file in self.outside.iter().cloned().chain(self.local_sources()?) {
            // What is not there says nothing, so that kernels in other folders have the same key.
            let Ok(data) = fs::metadata(&file) else {
                continue;
            };
            let name = self.general(&file.to_string_lossy());
            let _ = writeln!(text, "{name} {:?} {}", data.modified().ok(), data.len());
        }
        Some(tools::sha256(text.as_bytes()))
    }

    /// The files of the local crates, which the workspace's other member leads to. None if the cell uses one more such crate.
    fn local_sources(&self) -> Option<Vec<PathBuf>> {
        let named =
            |member: &str| local::path_dependencies(&self.own.join(member).join("Cargo.toml")).ok();
        let known = local::closure(named(LOCK)?).ok()?;
        let is_known = |folder: &PathBuf| known.iter().any(|local| local.folder == *folder);
        if !named("cell")?.iter().all(is_known) {
            return None;
        }
        local::sources(&known).ok()
    }

    /// What was kept under a key.
    pub fn recall(&self, key: &str, kind: &str) -> Option<String> {
        let text = fs::read_to_string(self.file(key, kind)).ok()?;
        Some(text.replace(OWN, &self.own.to_string_lossy()))
    }

    /// Keeps a text under a key.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn keep(&self, key: &str, kind: &str, text: &str) -> Result<()> {
        tools::write_whole(&self.file(key, kind), self.general(text))
    }

    /// Forgets everything, because a request may change what is compiled.
    pub fn forget(&self) {
        let _ = fs::remove_dir_all(&self.folder);
        let _ = fs::create_dir(&self.folder);
    }

    fn file(&self, key: &str, kind: &str) -> PathBuf {
        self.folder.join(format!("{key}.{kind}"))
    }

    fn general(&self, text: &str) -> String {
        text.replace(&*self.own.to_string_lossy(), OWN)
    }
}

/// Whether what a kernel on trial learned, it learned with this edition of the warm directory.
pub fn belongs_to(memory: &Path, seed: &Path) -> bool {
    let memory = fs::read_to_string(memory.join(STAMP));
    owner(seed).is_ok_and(|seed| memory.is_ok_and(|memory| memory.starts_with(&seed)))
}

/// An edition of the warm directory, as a memory's stamp names it. What it was made from is not enough: made again from the same, its files
/// have other times, under which nothing is remembered.
///
/// # Errors
/// If there is none.
pub fn owner(seed: &Path) -> Result<String> {
    let path = seed.join(warm::STAMP);
    let made_from =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let edition = seed.canonicalize()?;
    Ok(format!("{made_from} {}\n", edition.display()))
}

/// Notes what the environment is when a kernel starts. What a call has besides, the kernel or the learner set since (`:build_env`).
///
/// # Errors
/// If the note cannot be written.
pub fn note_environment(own: &Path, kernel: &Command) -> Result<()> {
    let set = kernel
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
    let lines: Vec<String> = env::vars_os()
        .chain(set)
        .map(|(name, value)| line_of(&name, &value))
        .collect();
    tools::write_whole(&own.join(BEGAN_WITH), lines.join("\n"))
}

/// A variable's line in that note; nobody else shall read a secret in it.
fn line_of(name: &OsStr, value: &OsStr) -> String {
    let hash = tools::sha256(&[name.as_encoded_bytes(), b"=", value.as_encoded_bytes()].concat());
    hash[..16].to_owned()
}
