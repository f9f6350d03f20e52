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

use anyhow::{Context, Result, bail};

use crate::machine::layout::Layout;
use crate::machine::{locks, tools, tree};
use crate::speed::{self, SpeedUp};
use crate::{janitor, local, memory, variables, warm, workspace};

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
    let fresh = warm::is_fresh(layout);
    let own = own_directory(layout, fresh && plain.is_none())?;
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
    match plain {
        None => drop(evcxr.env("PATH", path_from(layout.toolchain().join("bin")))),
        Some(reason) => {
            eprintln!("kernel: starting without the speed-ups: {reason}");
            plainly(layout, &mut evcxr);
        }
    }
    if !fresh {
        // A local crate was edited. Cargo compiles it here, now; if it does not compile, the
        // kernel must start all the same, so that the notebook can show the compiler's words.
        eprintln!("kernel: the lesson's crates changed, compiling them for this kernel");
        if let Err(error) = workspace::compile(layout, &own, false) {
            eprintln!(
                "kernel: the lesson's crates do not compile, so the kernel starts without them:\n{error:#}"
            );
            evcxr.env(variables::SETTINGS, layout.plain_settings());
        }
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

/// A directory for this process: what is in the warm one, lent where that is possible.
fn own_directory(layout: &Layout, lent: bool) -> Result<PathBuf> {
    let turn = locks::runs(layout)?;
    janitor::sweep(&layout.runs())?;
    let own = janitor::own_directory(&layout.runs())?;
    drop(turn);
    let _house = locks::house_shared(layout)?;
    // Without their names the local crates' files could not be told from those that may be lent.
    match local::crates(layout) {
        Ok(crates) if lent => {
            SpeedUp::Lent.used();
            tree::lend(
                &layout.seed(),
                &own,
                &|path| warm::may_be_lent(path, &crates),
                &warm::is_only_for_rebuilding,
            )
        }
        _ => tree::clone(&layout.seed(), &own),
    }
    .context("cannot copy the warm build directory")?;
    let memory = own.join(memory::FOLDER);
    if !lent {
        // What is in it was learned about libraries that are about to be replaced.
        tools::remove_dir(&memory)?;
    }
    fs::create_dir_all(&memory).with_context(|| format!("cannot make {}", memory.display()))?;
    Ok(own)
}

/// Without rustup, evcxr takes the first cargo on PATH.
fn path_from(first: PathBuf) -> OsString {
    let mut path = first.into_os_string();
    if let Some(rest) = env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    path
}

/// Leads the kernel to the real toolchain.
fn plainly(layout: &Layout, evcxr: &mut Command) {
    let real = layout.toolchain().join("real");
    evcxr
        .env("PATH", path_from(real.join("bin")))
        .env_remove("RUST_SRC_PATH");
    for (name, value) in [
        ("RUSTUP_TOOLCHAIN", real.clone()),
        ("CARGO", real.join("bin/cargo")),
    ] {
        if env::var_os(name).is_some() {
            evcxr.env(name, value);
        }
    }
}
