//! Which requests a kernel's `cargo` had before, and how the real cargo replied.
//!
//! The memory is a folder of small files in the kernel's own directory. Set-up fills the first one by starting a kernel on
//! trial ([`crate::rehearsal`]); every kernel gets a copy of it and adds what it learns. A memory is found under a key, the hash of
//! what it depends on: a request under other circumstances is not found, and the real cargo replies. It is thrown away only when
//! compiled libraries may have changed beneath it.

use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::layout::{LOCK, Layout};
use crate::{local, toolchain, tools};

/// Counts up when what is kept changes its form.
const FORM: u32 = 3;
/// The variable that leads a kernel on trial to the memory that later ones start from.
pub const ON_TRIAL: &str = "LAB_MEMORY";
/// Where a kernel keeps its memory, in its own directory.
pub const FOLDER: &str = "memory";
/// Stands for the kernel's own directory, which is another one for every kernel.
const OWN: &str = "{the kernel's own directory}";
/// The files in that directory that decide what cargo does, besides the lock file, which cargo itself writes.
const MANIFESTS: [&str; 4] = [
    "Cargo.toml",
    "cell/Cargo.toml",
    "cell/.cargo/config.toml",
    "lock/Cargo.toml",
];
/// Variables that decide what is compiled: those that begin so. Rustup's others, and what `cargo run` leaves to its program, differ with
/// whoever started the kernel.
const DECIDING: [&str; 5] = [
    "CARGO_",
    "LIBTORCH",
    "RUSTC",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];
/// But these only say where the analyzer has its copy of the lock file, and how rustup came to its toolchain.
const PASSING: [&str; 2] = ["CARGO_RESOLVER_LOCKFILE_PATH", "RUSTUP_TOOLCHAIN_SOURCE"];

/// The memory of one kernel.
pub struct Memory {
    own: PathBuf,
    folder: PathBuf,
    /// Files outside the kernel's directory that count with their time and size: the tools and the workspace's settings.
    outside: Vec<PathBuf>,
}

/// The directory of the kernel that this process works for.
pub fn own_directory() -> Option<PathBuf> {
    let cell = PathBuf::from(env::var_os("EVCXR_TMPDIR")?);
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
        let tools = layout.toolchain().join("real/bin");
        let mut outside = vec![
            tools.join("cargo"),
            tools.join("rustc"),
            layout.root.join("Cargo.toml"),
            layout.root.join("Cargo.lock"),
        ];
        // Cargo reads the settings of every folder above, and the user's.
        let above = own.ancestors().map(|folder| folder.join(".cargo"));
        for folder in above.chain(toolchain::cargo_home()) {
            outside.extend(["config.toml", "config"].map(|name| folder.join(name)));
        }
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
        let mut variables: Vec<_> = env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
            .filter(|(name, _)| decides(name))
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
            let data = fs::metadata(&file).ok();
            let time = data.as_ref().and_then(|data| data.modified().ok());
            let size = data.map(|data| data.len());
            let name = self.general(&file.to_string_lossy());
            let _ = writeln!(text, "{name} {time:?} {size:?}");
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

fn decides(variable: &str) -> bool {
    DECIDING.iter().any(|start| variable.starts_with(start)) && !PASSING.contains(&variable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_decides_is_part_of_a_key() {
        for name in ["CARGO_HOME", "RUSTFLAGS", "RUSTC_WRAPPER", "LIBTORCH"] {
            assert!(decides(name), "{name}");
        }
        for name in [
            "PATH",
            "RUST_BACKTRACE",
            "RUSTUP_AUTO_INSTALL",
            "RUSTUP_TOOLCHAIN_SOURCE",
            "CARGO_RESOLVER_LOCKFILE_PATH",
        ] {
            assert!(!decides(name), "{name}");
        }
    }
}
