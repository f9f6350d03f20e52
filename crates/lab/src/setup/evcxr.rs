//! The kernel program, evcxr_jupyter, built once per user.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::setup::part::{Finding, Options};
use kernel::machine::layout::{EVCXR_VERSION, Layout};
use kernel::machine::tools;
use kernel::{variables, workspace};

/// Is the right version installed in the cache? Cargo's own record of it says so.
pub fn check(layout: &Layout, _deep: bool) -> Result<Finding> {
    let program = layout.evcxr();
    if !program.is_file() {
        return Ok(Finding::Missing(format!(
            "evcxr_jupyter {EVCXR_VERSION} is not built yet (once per machine, about 7 minutes)"
        )));
    }
    let record = layout.evcxr_root().join(".crates.toml");
    let text = fs::read_to_string(&record).unwrap_or_default();
    if !text.contains(&format!("\"evcxr_jupyter {EVCXR_VERSION} ")) {
        return Ok(Finding::Wrong(format!(
            "{} does not say that evcxr_jupyter {EVCXR_VERSION} is installed there",
            record.display()
        )));
    }
    Ok(Finding::Found(format!(
        "evcxr_jupyter {EVCXR_VERSION} in {}",
        layout.evcxr_root().display()
    )))
}

/// `cargo install`, in a build directory that stays until it has succeeded: an interrupted build
/// goes on where it was. It runs in the cache so that the clone's `.cargo/config.toml` is not read.
pub fn make(layout: &Layout, _options: &Options) -> Result<()> {
    let build = layout
        .downloads()
        .join(format!("evcxr_jupyter-{EVCXR_VERSION}-build"));
    fs::create_dir_all(&build).with_context(|| format!("cannot make {}", build.display()))?;
    // What is compiled after this is brought before it: without a network, set-up must not fail after minutes of compiling.
    workspace::fetch(&[&layout.root])?;
    let mut cargo = Command::new("cargo");
    cargo
        .args([
            "install",
            "evcxr_jupyter",
            "--locked",
            "--force",
            "--version",
            EVCXR_VERSION,
            "--root",
        ])
        .arg(layout.evcxr_root())
        .current_dir(&layout.cache);
    variables::without_leftovers(&mut cargo).env("CARGO_TARGET_DIR", &build);
    tools::run_visibly(&mut cargo, "compiling evcxr_jupyter").context(
        "the kernel program could not be built (the network is needed once for its sources; a second run goes on where this one stopped)",
    )?;
    tools::remove_dir(&build)
}
