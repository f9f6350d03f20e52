//! The kernel program, evcxr_jupyter, built once per user.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::setup::part::Finding;
use kernel::machine::layout::{EVCXR_VERSION, Layout};
use kernel::machine::tools::{self, Running};
use kernel::{variables, workspace};

/// What the kernel program hardly uses while cells run: parts of the analyzer for editors, the messages to and from Jupyter, the layout of
/// error messages, times. Compiled quickly, which spares everybody's first set-up an eighth of the time that the program takes; a kernel
/// is as quick. (With its allocator, its JSON or its regular expressions among these, it would start a tenth later.)
const COMPILED_QUICKLY: [&str; 20] = [
    "addr2line",
    "ariadne",
    "chrono",
    "futures-util",
    "gimli",
    "object",
    "pulldown-cmark",
    "pulldown-cmark-to-cmark",
    "ra_ap_ide",
    "ra_ap_ide_assists",
    "ra_ap_ide_completion",
    "ra_ap_ide_diagnostics",
    "ra_ap_ide_ssr",
    "ra_ap_test_fixture",
    "ra_ap_test_utils",
    "scc",
    "tokio",
    "tokio-util",
    "uuid",
    "zeromq",
];

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
///
/// # Errors
/// If the sources of what is compiled later cannot be fetched, or cargo cannot be started.
pub fn begin(layout: &Layout) -> Result<Running> {
    let build = build_folder(layout);
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
            "--quiet",
            "--version",
            EVCXR_VERSION,
            "--root",
        ])
        .arg(layout.evcxr_root())
        .args(COMPILED_QUICKLY.into_iter().flat_map(quickly))
        .current_dir(&layout.cache);
    variables::without_leftovers(&mut cargo).env("CARGO_TARGET_DIR", &build);
    Running::begin(&mut cargo, "compiling evcxr_jupyter")
}

/// Waits for it.
///
/// # Errors
/// If it could not be compiled.
pub fn end(layout: &Layout, program: Running) -> Result<()> {
    program.wait().context(
        "the kernel program could not be built (the network is needed once for its sources; a second run goes on where this one stopped)",
    )?;
    tools::remove_dir(&build_folder(layout))
}

fn quickly(package: &str) -> [String; 2] {
    let setting = format!("profile.release.package.{package}.opt-level=0");
    ["--config".to_owned(), setting]
}

fn build_folder(layout: &Layout) -> PathBuf {
    let name = format!("evcxr_jupyter-{EVCXR_VERSION}-build");
    layout.downloads().join(name)
}
