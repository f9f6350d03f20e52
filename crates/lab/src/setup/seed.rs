//! The warm build directory that new kernels start from.
//!
//! evcxr writes each cell as a crate `ctx` into `EVCXR_TMPDIR`, compiles it with cargo and loads
//! it. We compile the local crates ([`kernel::local`]) there beforehand, by the same cargo command with the same
//! environment, so that a kernel finds everything fresh.

use std::fs;
use std::path::Path;

use anyhow::Result;
use kernel::machine::layout::Layout;
use kernel::machine::{tools, tree};
use kernel::renewal::Renewal;
use kernel::warm::{STAMP, inputs};
use kernel::{local, workspace};

use crate::setup::part::{Finding, Options};

/// Is there a warm directory, made from what is here now?
pub fn check(layout: &Layout, _deep: bool) -> Result<Finding> {
    let Ok(stamp) = fs::read_to_string(layout.seed().join(STAMP)) else {
        return Ok(Finding::Missing(format!(
            "no warm build directory in {} yet (a few minutes)",
            layout.seed().display()
        )));
    };
    if stamp != inputs(layout)?.all {
        return Ok(Finding::Wrong("the lesson's crates, their dependencies or the tools changed; the next kernel would compile them".to_owned()));
    }
    Ok(Finding::Found(format!(
        "warm build directory in {}",
        layout.seed().display()
    )))
}

/// Compiles what changed, from sources that are brought first.
pub fn make(layout: &Layout, _options: &Options) -> Result<()> {
    let renewal = Renewal::begin(layout)?;
    workspace::fetch(&[&layout.root, &renewal.folder])?;
    let saved = renewal.saved();
    renewal.compile(true)?;
    save_for_other_clones(layout, &saved)
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
