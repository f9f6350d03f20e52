//! What a warm build directory was made from, and what of it a kernel needs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::local::{self, LocalCrate};
use crate::machine::layout::{EVCXR_VERSION, LOCK, Layout};
use crate::machine::{compilers, tools};
use crate::workspace;

/// The file in a warm directory that says what it was made from.
pub const STAMP: &str = "seed-of";

/// The hashes that a warm directory depends on.
pub struct Inputs {
    /// Without the local crates' sources: what their dependencies are compiled from and by.
    pub dependencies: String,
    /// With them.
    pub all: String,
}

/// True when the local crates are exactly what the warm directory was compiled from.
pub fn is_fresh(layout: &Layout) -> bool {
    stamp(layout).is_ok_and(|now| {
        fs::read_to_string(layout.seed().join(STAMP)).is_ok_and(|stamp| stamp == now)
    })
}

/// The hash of everything that a warm directory depends on: the local crates' files with their times, the versions of
/// their dependencies, the tools and their settings.
///
/// # Errors
/// If one of these cannot be read, or there is no libtorch.
pub fn stamp(layout: &Layout) -> Result<String> {
    Ok(inputs(layout)?.all)
}

/// The files outside a kernel's directory that decide what cargo compiles there, besides the local crates and the tools. Not all of them
/// need to be there: cargo reads the settings of every folder above, and the user's.
pub fn settings(layout: &Layout) -> Vec<PathBuf> {
    let mut files = ["Cargo.toml", "Cargo.lock"]
        .map(|name| layout.root.join(name))
        .to_vec();
    let above = layout.root.ancestors();
    files.extend(above.flat_map(|folder| configurations(&folder.join(".cargo"))));
    files.extend(
        compilers::cargo_home()
            .iter()
            .flat_map(|home| configurations(home)),
    );
    files
}

/// The files in which cargo looks for settings in a folder.
pub fn configurations(folder: &Path) -> [PathBuf; 2] {
    ["config.toml", "config"].map(|name| folder.join(name))
}

/// Whether one of these settings leads to more files, which only cargo follows: another file of settings, or a crate in a folder.
pub fn lead_further(settings: &[PathBuf]) -> bool {
    let configs = settings
        .iter()
        .filter(|file| file.ends_with("config.toml") || file.ends_with("config"));
    configs
        .filter_map(|file| fs::read_to_string(file).ok()?.parse::<toml::Table>().ok())
        .any(|config| {
            ["include", "patch", "paths"]
                .iter()
                .any(|key| config.contains_key(*key))
        })
}

/// What a kernel needs only if it has to compile the local crates again: nine tenths of what would be its own.
pub fn is_only_for_rebuilding(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "incremental")
        || path.extension().is_some_and(|end| end == "o")
}

/// What a kernel needs no copy of, by its path in the warm directory, until the real cargo is called: what was built. The files in
/// which cargo notes about the local crates what changes with an edit, and its lock, are never lent: a cargo that
/// we do not see (`:toolchain`) would write them.
pub fn may_be_lent(path: &Path, crates: &[LocalCrate]) -> bool {
    let Ok(below) = path.strip_prefix("cell/target") else {
        return false;
    };
    below.components().count() > 1
        && !local::is_artefact(below, crates)
        && path.file_name().is_none_or(|name| name != ".cargo-lock")
}

/// The hashes of what is here now: the versions of the dependencies, the tools and their settings, the local crates' files with their times.
///
/// # Errors
/// If one of these cannot be read, or there is no libtorch.
pub fn inputs(layout: &Layout) -> Result<Inputs> {
    let mut text = format!(
        "{}\n{}\nevcxr {EVCXR_VERSION}, built, then checked\n{}\n{}\n",
        workspace::of_workspace(layout)?,
        workspace::manifest(LOCK, Path::new("")),
        compilers::rust_in_full()?,
        layout.libtorch()?.display()
    );
    text.push_str(&format!("crates {:?}\n", compilers::cargo_home()));
    for file in settings(layout) {
        if let Ok(hash) = tools::sha256_file(&file) {
            // Not the file's name: another clone, in another folder, can start from what this one compiled.
            text.push_str(&hash);
        }
    }
    let dependencies = tools::sha256(text.as_bytes());
    for file in local::sources(&local::crates(layout)?)? {
        // The time counts too, because for cargo nothing else does: a file that was only touched
        // would be compiled by every kernel for itself.
        let time = fs::metadata(&file).and_then(|data| data.modified());
        let hash = tools::sha256_file(&file)?;
        text.push_str(&format!("{} {hash} {time:?}\n", file.display()));
    }
    Ok(Inputs {
        dependencies,
        all: tools::sha256(text.as_bytes()),
    })
}
