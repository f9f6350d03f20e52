//! The warm build directory that new kernels start from.
//!
//! evcxr writes each cell as a crate `ctx` into `EVCXR_TMPDIR`, compiles it with cargo and loads
//! it. We compile the local crates ([`kernel::local`]) there beforehand, by the same cargo command with the same
//! environment, so that a kernel finds everything fresh.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use kernel::machine::layout::Layout;
use kernel::machine::{locks, tools, tree};
use kernel::warm::{STAMP, inputs};
use kernel::{local, memory, workspace};

use crate::setup::part::{Finding, Options};

/// Why there is no new warm directory, if it is that.
#[derive(Debug)]
pub struct DoesNotCompile;

impl fmt::Display for DoesNotCompile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the lesson's crates could not be compiled for the kernels")
    }
}

/// How the names begin of what is compiled from a cell.
const OF_CELLS: [&str; 4] = ["ctx-", "ctx.", "libctx", "libcode_"];
/// The folder of it in cargo's newer form of a build directory.
const OF_CELLS_ALONE: &str = "ctx";

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
    workspace::write_workspace(layout, &new)?;
    workspace::fetch(&[&layout.root, &new])?;
    workspace::compile(layout, &new, true).context(DoesNotCompile)?;
    workspace::check(layout, &new).context(DoesNotCompile)?;
    // Every kernel writes its own cells, in place, and must not share them with others.
    workspace::forget(&new, &|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name == OF_CELLS_ALONE || OF_CELLS.iter().any(|start| name.starts_with(start))
    })?;
    tools::write_whole(&new.join(STAMP), &inputs.all)?;
    swap_in(layout, &new)?;
    save_for_other_clones(layout, &saved)
}

fn swap_in(layout: &Layout, new: &Path) -> Result<()> {
    let _house = locks::house_alone(layout)?;
    tools::swap_in(new, &layout.seed())
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
    workspace::forget(&new, &|path| local::is_artefact(path, &crates))?;
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
