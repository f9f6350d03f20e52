//! The library that a kernel loads into the process that runs cells: `crates/cell`, which has the words on what it does.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::layout::Layout;
use crate::parts::{Finding, Options};
use crate::{toolchain, tools};

/// The crate, from the clone's root.
const CRATE: &str = "crates/cell";
/// The systems' variable for libraries that are loaded before a program.
pub const PRELOAD: &str = "LD_PRELOAD";
/// What it was, so that programs which a cell starts can have it so.
const PRELOAD_BEFORE: &str = "LESSON_PRELOAD_BEFORE";

/// Whether kernels of this system have one.
pub const IS_USED: bool = cfg!(all(target_os = "linux", target_env = "gnu"));

/// Where kernels find it.
fn library(layout: &Layout) -> PathBuf {
    layout.kernel().join("libcell.so")
}

/// What the library was made from.
fn stamp(layout: &Layout) -> PathBuf {
    layout.kernel().join("libcell.so-of")
}

/// The variables that load it into a kernel.
pub fn variables(layout: &Layout) -> Vec<(&'static str, OsString)> {
    let library = library(layout);
    if !IS_USED || !library.is_file() {
        return vec![];
    }
    let before = std::env::var_os(PRELOAD).filter(|before| !before.is_empty());
    let mut all = library.into_os_string();
    if let Some(before) = &before {
        all.push(":");
        all.push(before);
    }
    let before = before.map(|before| (PRELOAD_BEFORE, before));
    std::iter::once((PRELOAD, all)).chain(before).collect()
}

/// Is it there, of the sources that are here now?
pub fn check(layout: &Layout, _deep: bool) -> Result<Finding> {
    if !IS_USED {
        return Ok(Finding::Found("not needed on this system".to_owned()));
    }
    let (library, made_of) = (library(layout), fs::read_to_string(stamp(layout)));
    match made_of {
        Ok(made_of) if library.is_file() && made_of == inputs(layout)? => Ok(Finding::Found(
            format!("Stop and short errors: {}", library.display()),
        )),
        Ok(_) => Ok(Finding::Wrong(format!(
            "{} is out of date",
            library.display()
        ))),
        Err(_) => Ok(Finding::Missing(format!("no {} yet", library.display()))),
    }
}

/// Compiles it and puts it in its place.
pub fn make(layout: &Layout, _options: &Options) -> Result<()> {
    let (inputs, build) = (inputs(layout)?, layout.kernel().join("cell-library"));
    let mut cargo = Command::new("cargo");
    tools::without_cargo_variables(&mut cargo)
        .args(["build", "--package", "cell", "--target-dir"])
        .arg(&build)
        .current_dir(&layout.root);
    tools::output(&mut cargo).with_context(|| format!("{CRATE} could not be compiled"))?;
    let built = build.join("debug/libcell.so");
    let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    tools::write_whole(&library(layout), bytes)?;
    tools::write_whole(&stamp(layout), inputs)
}

fn inputs(layout: &Layout) -> Result<String> {
    let (mut text, sources) = (
        toolchain::rust_in_full()?,
        layout.root.join(CRATE).join("src"),
    );
    let entries =
        fs::read_dir(&sources).with_context(|| format!("cannot read {}", sources.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.extend(["Cargo.toml", "Cargo.lock"].map(|name| layout.root.join(name)));
    files.push(layout.root.join(CRATE).join("Cargo.toml"));
    files.sort();
    for file in files {
        text.push_str(&tools::sha256_file(&file)?);
    }
    Ok(tools::sha256(text.as_bytes()))
}
