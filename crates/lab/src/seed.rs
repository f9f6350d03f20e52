//! The warm build directory that new kernels start from.
//!
//! evcxr writes each cell as a crate `ctx` into `EVCXR_TMPDIR`, compiles it with cargo and loads
//! it. We compile the local crates ([`crate::local`]) there beforehand, by the same cargo command with the same
//! environment, so that a kernel finds everything fresh.

use std::fs;
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};

use crate::layout::{EVCXR_VERSION, LOCK, Layout};
use crate::local::{self, LocalCrate};
use crate::parts::{Finding, Options};
use crate::{cells, libtorch, memory, toolchain, tools, tree};

/// The file in a warm directory that says what it was made from.
pub const STAMP: &str = "seed-of";

/// How the names begin of what is compiled from a cell.
const OF_CELLS: [&str; 4] = ["ctx-", "ctx.", "libctx", "libcode_"];

/// The hashes that a warm directory depends on.
struct Inputs {
    /// Without the local crates' sources: what their dependencies are compiled from and by.
    dependencies: String,
    /// With them.
    all: String,
}

/// Is there a warm directory, made from what is here now?
pub fn check(layout: &Layout, _deep: bool) -> Result<Finding> {
    let Ok(stamp) = fs::read_to_string(layout.seed().join(STAMP)) else {
        return Ok(Finding::Missing(format!(
            "no warm build directory in {} yet (a few minutes)",
            layout.seed().display()
        )));
    };
    if stamp != inputs(layout)?.all {
        return Ok(Finding::Wrong("the lesson's crates, their dependencies or the tools changed; each kernel would compile them again".to_owned()));
    }
    Ok(Finding::Found(format!(
        "warm build directory in {}",
        layout.seed().display()
    )))
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

/// Compiles what changed, starting from the last warm directory of this clone, else from the one
/// that another clone left in the cache, and swaps it in when it is complete.
pub fn make(layout: &Layout, _options: &Options) -> Result<()> {
    let inputs = inputs(layout)?;
    let saved = layout
        .cache
        .join(format!("kernel-deps-{}", &inputs.dependencies[..16]));
    // It stays where it is until it is complete, so that an interrupted build goes on.
    let new = layout.kernel().join("seed.new");
    let start = [layout.seed(), saved.clone()]
        .into_iter()
        .find(|folder| folder.join(STAMP).is_file());
    if let (false, Some(start)) = (new.exists(), start) {
        let half = layout.kernel().join("seed.half");
        tools::remove_dir(&half)?;
        tree::clone(&start, &half).context("cannot copy the warm build directory")?;
        fs::rename(&half, &new).with_context(|| format!("cannot rename {}", half.display()))?;
    }
    let _ = fs::remove_file(new.join(STAMP));
    tools::remove_dir(&new.join(memory::FOLDER))?;
    cells::write_workspace(layout, &new)?;
    cells::fetch(&[&layout.root, &new])?;
    cells::compile(layout, &new, true)
        .context("the lesson's crates could not be compiled for the kernels")?;
    cells::check(layout, &new)
        .context("the lesson's crates could not be checked for the kernels")?;
    // Every kernel writes its own cells, in place, and must not share them with others.
    cells::forget(&new, &|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        OF_CELLS.iter().any(|start| name.starts_with(start))
    })?;
    tools::write_whole(&new.join(STAMP), &inputs.all)?;
    swap_in(layout, &new)?;
    save_for_other_clones(layout, &saved)
}

fn swap_in(layout: &Layout, new: &Path) -> Result<()> {
    let lock = house_lock(layout)?;
    lock.lock().context("cannot lock the kernels' folder")?;
    let old = layout.kernel().join("seed.old");
    tools::remove_dir(&old)?;
    if layout.seed().exists() {
        fs::rename(layout.seed(), &old)
            .with_context(|| format!("cannot rename {}", layout.seed().display()))?;
    }
    fs::rename(new, layout.seed()).with_context(|| format!("cannot rename {}", new.display()))?;
    drop(lock);
    tools::remove_dir(&old)
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

/// Who copies the warm directory holds this lock shared; who swaps it, or makes and sweeps kernels'
/// directories, alone.
pub fn house_lock(layout: &Layout) -> Result<File> {
    let path = layout.kernel().join("lock");
    fs::create_dir_all(layout.kernel())
        .with_context(|| format!("cannot make {}", layout.kernel().display()))?;
    File::create(&path).with_context(|| format!("cannot write {}", path.display()))
}

/// Compiling the dependencies takes minutes; the next clone starts from this copy, in which cargo
/// finds everything fresh but the local crates. The two newest such copies are kept.
fn save_for_other_clones(layout: &Layout, saved: &Path) -> Result<()> {
    if saved.exists() {
        return Ok(());
    }
    let new = layout
        .downloads()
        .join(format!("kernel-deps.{}", std::process::id()));
    tools::remove_dir(&new)?;
    tree::clone(&layout.seed(), &new)?;
    let crates = local::crates(layout)?;
    cells::forget(&new, &|path| local::is_artefact(path, &crates))?;
    if fs::rename(&new, saved).is_err() {
        // Another clone was faster.
        tools::remove_dir(&new)?;
    }
    let mut copies: Vec<_> = fs::read_dir(&layout.cache)?
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with("kernel-deps-")
        })
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    copies.sort();
    let surplus = copies.len().saturating_sub(2);
    copies
        .drain(..surplus)
        .try_for_each(|(_, path)| tools::remove_dir(&path))
}

fn inputs(layout: &Layout) -> Result<Inputs> {
    let mut text = format!(
        "{}\n{}\nevcxr {EVCXR_VERSION}, built, then checked\n{}\n{}\n",
        cells::WORKSPACE,
        cells::manifest(LOCK, Path::new("")),
        toolchain::rust_in_full()?,
        libtorch::in_use(layout)?.display()
    );
    text.push_str(&format!(
        "linker {} crates {:?}\n",
        cells::linker(),
        toolchain::cargo_home()
    ));
    for file in ["Cargo.toml", "Cargo.lock", ".cargo/config.toml"] {
        text.push_str(&tools::sha256_file(&layout.root.join(file))?);
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
