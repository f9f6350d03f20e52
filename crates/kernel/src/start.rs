//! `kernel start`: what `kernel.json` starts.
//!
//! Each kernel gets a build directory of its own, made of second names of the warm one's files: two kernels in one
//! directory would overwrite each other's cells. Then this process *becomes* evcxr_jupyter, so that
//! Jupyter's signals and process ids are the kernel's own. The directory is removed by a janitor,
//! a small process in a group of its own that waits for the kernel to end, however it ends.
//!
//! What it costs and saves, in seconds on two cores, from the start of a kernel (Jupyter's question
//! for readiness comes only once a second):
//!
//! | the configuration holds | ready | `:dep` and `use` | first `let` | later cells | first picture if all run at once |
//! | --- | --- | --- | --- | --- | --- |
//! | nothing | 5.0 | 1.3 | 3.9 | 0.3-0.5 | 11.1 |
//! | `:dep` | 5.9 | 0.3 | 3.9 | 0.3-0.5 | 11.0 |
//! | `:dep`, `use` and a `let` | 10.0 | 0.3 | 1.0 | 0.3-0.5 | 12.2 |
//! | the same, and the analyzer sees less ([`crate::packages`]) | 6.0 | 0.4 | 0.9 | 0.3-0.5 | 7.1 |
//!
//! The configuration of the last two lines is what set-up writes: who reads the first paragraph never waits for a cell.
//!
//! Where the rest went, on another machine that takes twice as long for everything (medians of four or five starts, all cells run at
//! once; the machine's own speed moves by a tenth):
//!
//! | | first picture |
//! | --- | --- |
//! | the last line above | 11.4-13.7 |
//! | cargo answers from memory, and compilers run without it ([`crate::cargo`]): 20 calls, 2.5 s | 11.5 |
//! | the warm directory is lent, not copied: of its 2,400 files 1,600 were small copies, 1.5 s ([`tree::lend`]) | 10.0-10.4 |
//! | the standard library without comments, 1.0 s of the analyzer's work | 9.3 |
//! | and without bodies, and the same of `tch` and `ndarray` ([`crate::thin`]) | 7.9 |
//! | cells linked with one shared library ([`crate::cell_linker`]) | 7.7 |
//!
//! Of these 7.7 s the analyzer works for 4: parsing, expanding the standard library's macros, and finding the traits that a `let` needs.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::machine::layout::{Layout, TOOLCHAIN};
use crate::machine::{compilers, locks, tree};
use crate::speed::{self, SpeedUp};
use crate::{janitor, local, memory, renewal, variables, warm};

/// Prepares the directory and becomes the kernel. Returns only if that fails.
///
/// # Errors
/// If there is no warm directory, the kernel's own cannot be made, or the kernel cannot be started.
pub fn kernel(layout: &Layout, connection: &Path) -> Result<()> {
    if !connection.is_file() {
        bail!(
            "no connection file {}: this verb is for Jupyter, which makes one",
            connection.display()
        );
    }
    if !layout.seed().is_dir() {
        bail!(
            "there is no warm build directory in {} yet: run `make lab`",
            layout.seed().display()
        );
    }
    let plain = speed::plain(layout);
    let fresh = warm::is_fresh(layout) || renewed(layout)?;
    let own = own_directory(layout, fresh, plain.is_none())?;
    let mut evcxr = Command::new(layout.evcxr());
    variables::without_theirs(&mut evcxr)
        .arg("--control_file")
        .arg(connection)
        .env(variables::CELLS, own.join("cell"))
        // evcxr "updates" a kernel spec called `rust` that it finds in the user's folder, though it
        // may be somebody else's. In a folder that does not exist it finds none.
        .env("JUPYTER_PATH", own.join("no-kernel-specs"));
    if layout.cell_library().is_file() {
        evcxr.envs(variables::preloaded(layout.cell_library()));
    }
    lead_to_toolchain(layout, &mut evcxr, plain.as_deref())?;
    if !fresh {
        evcxr.env(variables::SETTINGS, layout.plain_settings());
    }
    memory::note_environment(&own, &evcxr)?;
    let error = evcxr.exec();
    Err(error).with_context(|| {
        format!(
            "cannot start the kernel {}: run `make lab`",
            layout.evcxr().display()
        )
    })
}

/// A local crate was edited: it is compiled once, now, for all kernels. If it does not compile, or this user may not write there, the kernel
/// starts without it; then `:dep` in a notebook compiles it, or shows the compiler's words.
fn renewed(layout: &Layout) -> Result<bool> {
    ensure!(
        env::var_os(variables::ON_TRIAL).is_none(),
        "the lesson's crates were edited meanwhile: run the same command again"
    );
    eprintln!("kernel: the lesson's crates changed, compiling them for all kernels");
    let renewed = renewal::for_all(layout);
    if let Err(error) = &renewed {
        eprintln!(
            "kernel: they could not be compiled, so this kernel starts without them:\n{error:#}"
        );
    }
    Ok(renewed.is_ok())
}

/// A directory for this process: what is in the warm one, lent where that is possible.
fn own_directory(layout: &Layout, fresh: bool, lent: bool) -> Result<PathBuf> {
    let turn = locks::runs(layout)?;
    janitor::sweep(&layout.runs())?;
    let own = janitor::own_directory(&layout.runs())?;
    drop(turn);
    // This edition of it, which stays as it is when another takes its place.
    let seed = canonical(layout.seed())?;
    // Without their names the local crates' files could not be told from those that may be lent.
    match local::crates(layout) {
        Ok(crates) if lent => {
            SpeedUp::Lent.used();
            tree::lend(
                &seed,
                &own,
                &|path| warm::may_be_lent(path, &crates),
                &warm::is_only_for_rebuilding,
            )
        }
        _ => tree::clone(&seed, &own),
    }
    .context("cannot copy the warm build directory")?;
    let memory = own.join(memory::FOLDER);
    let learned = layout.memory();
    // What was learned about libraries that are about to be replaced is worth nothing.
    match fresh && lent && memory::belongs_to(&learned, &seed) {
        true => tree::lend(&canonical(learned)?, &memory, &|_| false, &|_| false)?,
        false => fs::create_dir_all(&memory)
            .with_context(|| format!("cannot make {}", memory.display()))?,
    }
    Ok(own)
}

fn canonical(path: PathBuf) -> Result<PathBuf> {
    path.canonicalize()
        .with_context(|| format!("no {}: run `make lab`", path.display()))
}

/// A list of folders that begins with this one.
fn before(first: PathBuf, rest: Option<OsString>) -> OsString {
    let mut path = first.into_os_string();
    if let Some(rest) = rest.filter(|rest| !rest.is_empty()) {
        path.push(":");
        path.push(rest);
    }
    path
}

/// Leads the kernel to its toolchain (without rustup, evcxr takes the first cargo on PATH), in the edition of today; without the speed-ups to the real one that this holds.
fn lead_to_toolchain(layout: &Layout, evcxr: &mut Command, plain: Option<&str>) -> Result<()> {
    let mut toolchain = canonical(layout.toolchain())?;
    evcxr.env(TOOLCHAIN, &toolchain);
    if let Some(reason) = plain {
        eprintln!("kernel: starting without the speed-ups: {reason}");
        toolchain = canonical(toolchain.join("real"))?;
        evcxr.env_remove("RUST_SRC_PATH");
    }
    evcxr.env("PATH", before(toolchain.join("bin"), env::var_os("PATH")));
    // Cells look for the shared standard library relative to where they were made, which need not be where they are.
    let standard = compilers::shared_libraries(&toolchain)?;
    for name in ["LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"] {
        evcxr.env(name, before(standard.clone(), env::var_os(name)));
    }
    // What the kernel's specification has set; what else stands there is a leftover, of `cargo run` for one.
    let specified = layout.toolchain();
    for (name, value) in [
        ("RUSTUP_TOOLCHAIN", toolchain.clone()),
        ("CARGO", toolchain.join("bin/cargo")),
    ] {
        match env::var_os(name) {
            Some(found) if Path::new(&found).starts_with(&specified) => evcxr.env(name, value),
            _ => evcxr.env_remove(name),
        };
    }
    Ok(())
}
