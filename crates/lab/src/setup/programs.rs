//! What kernels are made of besides evcxr: the program that Jupyter starts (`crates/kernel`), and the library that is loaded into the process
//! that runs cells (`crates/cell`).

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use kernel::machine::layout::Layout;
use kernel::machine::{compilers, tools};
use kernel::variables;

use crate::setup::part::{Finding, Options};

/// Whether kernels of this system have a library of ours in the process that runs cells.
pub const HAVE_LIBRARY: bool = cfg!(all(target_os = "linux", target_env = "gnu"));

/// The crates, by their folders and packages.
const CRATES: [&str; 2] = ["kernel", "cell"];

/// What they were made from.
fn stamp(layout: &Layout) -> PathBuf {
    layout.kernel().join("programs-of")
}

/// Are they there, of the sources that are here now?
pub fn check(layout: &Layout, _deep: bool) -> Result<Finding> {
    let wanted = [layout.launcher(), layout.cell_library()];
    let wanted = &wanted[..if HAVE_LIBRARY { 2 } else { 1 }];
    if let Some(missing) = wanted.iter().find(|file| !file.is_file()) {
        return Ok(Finding::Missing(format!("no {} yet", missing.display())));
    }
    if fs::read_to_string(stamp(layout)).ok() != Some(inputs(layout)?) {
        return Ok(Finding::Wrong(format!(
            "{} is out of date",
            layout.launcher().display()
        )));
    }
    let also = if HAVE_LIBRARY {
        ", Stop and short errors"
    } else {
        ""
    };
    Ok(Finding::Found(format!(
        "quick kernels{also}: {}",
        layout.launcher().display()
    )))
}

/// Compiles them and puts them in their places.
pub fn make(layout: &Layout, _options: &Options) -> Result<()> {
    let inputs = inputs(layout)?;
    let mut cargo = Command::new("cargo");
    variables::without_leftovers(&mut cargo).arg("build");
    for name in &CRATES[..if HAVE_LIBRARY { 2 } else { 1 }] {
        cargo.args(["--package", name]);
    }
    // Where the workbench was compiled, so that what both need is there.
    cargo
        .arg("--target-dir")
        .arg(layout.target())
        .current_dir(&layout.root);
    tools::run_visibly(&mut cargo, "compiling the programs of kernels")
        .context("crates/kernel and crates/cell could not be compiled")?;
    put(&layout.target().join("debug/kernel"), &layout.launcher())?;
    if HAVE_LIBRARY {
        let built = layout.target().join("debug/libcell.so");
        put(&built, &layout.cell_library())?;
    }
    tools::write_whole(&stamp(layout), inputs)
}

/// Copies a file, with its permissions, so that running kernels keep the one that they have.
fn put(from: &PathBuf, to: &PathBuf) -> Result<()> {
    let half = to.with_extension("half");
    let folder = to.parent().unwrap_or(to);
    fs::create_dir_all(folder)
        .and_then(|()| fs::copy(from, &half))
        .and_then(|_| fs::rename(&half, to))
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

fn inputs(layout: &Layout) -> Result<String> {
    let mut files = ["Cargo.toml", "Cargo.lock", ".cargo/config.toml"]
        .map(|name| layout.root.join(name))
        .to_vec();
    for name in CRATES {
        let folder = layout.root.join("crates").join(name);
        files.push(folder.join("Cargo.toml"));
        collect(&folder.join("src"), &mut files)?;
    }
    files.sort();
    // The place of the clone is compiled into the program.
    let mut text = format!("{} {}", compilers::rust_in_full()?, layout.root.display());
    for file in files {
        text.push_str(&tools::sha256_file(&file)?);
    }
    Ok(tools::sha256(text.as_bytes()))
}

fn collect(folder: &PathBuf, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        match path.is_dir() {
            true => collect(&path, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}
