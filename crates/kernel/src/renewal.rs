//! The warm directory made anew: by set-up, or by the first kernel that starts after an edit of the local crates. The others wait for it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use crate::machine::layout::Layout;
use crate::machine::{locks, tools, tree};
use crate::warm::{self, Inputs, STAMP};
use crate::{memory, workspace};

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

/// A warm directory that is being made.
pub struct Renewal<'a> {
    layout: &'a Layout,
    inputs: Inputs,
    /// Where. It stays there until it is complete, so that an interrupted build goes on.
    pub folder: PathBuf,
}

/// Makes the warm directory anew for all kernels, unless somebody did so while we waited. What did not compile is not tried again for some
/// minutes, unless it is edited.
///
/// # Errors
/// [`DoesNotCompile`], or if the clone may not be written to.
pub fn for_all(layout: &Layout) -> Result<()> {
    let _turn = locks::turn(&layout.target(), locks::SETUP)?;
    if warm::is_fresh(layout) {
        return Ok(());
    }
    let (inputs, failed) = (
        warm::inputs(layout)?.all,
        layout.kernel().join("does-not-compile"),
    );
    if tools::happened_lately(&failed)
        && let Ok(noted) = fs::read_to_string(&failed)
        && let Some(words) = noted.strip_prefix(&inputs)
    {
        // Whoever starts a kernel meanwhile would wait for the same words.
        let again = "a kernel tried it in the last minutes; `make lab` tries it again at once";
        return Err(anyhow!("{again}:\n{words}")).context(DoesNotCompile);
    }
    let renewed = Renewal::begin(layout)?.compile(false);
    if let Err(error) = &renewed
        && error.is::<DoesNotCompile>()
    {
        // Without the note each kernel tries, as the first one did.
        let _ = tools::write_whole(&failed, format!("{inputs}{error:#}"));
    }
    renewed
}

impl Renewal<'_> {
    /// Starts from the last warm directory of this clone, else from the one that another clone left in the cache. For whoever has the
    /// clone's turn ([`locks::turn`]).
    ///
    /// # Errors
    /// If something cannot be read, copied or written.
    pub fn begin(layout: &Layout) -> Result<Renewal<'_>> {
        let inputs = warm::inputs(layout)?;
        let folder = layout.kernel().join("seed.new");
        let renewal = Renewal {
            layout,
            inputs,
            folder,
        };
        let new = &renewal.folder;
        let start = [layout.seed(), renewal.saved()]
            .into_iter()
            .find(|folder| folder.join(STAMP).is_file());
        if let (false, Some(start)) = (new.exists(), start) {
            let half = layout.kernel().join("seed.half");
            tools::remove_dir(&half)?;
            tree::clone(&start, &half).context("cannot copy the warm build directory")?;
            fs::rename(&half, new).with_context(|| format!("cannot rename {}", half.display()))?;
        }
        let _ = fs::remove_file(new.join(STAMP));
        // What an earlier version of this program kept there would be every kernel's.
        tools::remove_dir(&new.join(memory::FOLDER))?;
        workspace::write_workspace(layout, new)?;
        Ok(renewal)
    }

    /// Where other clones find what the local crates depend on, compiled.
    pub fn saved(&self) -> PathBuf {
        let dependencies = &self.inputs.dependencies[..16];
        self.layout
            .cache
            .join(format!("kernel-deps-{dependencies}"))
    }

    /// Compiles what changed, and publishes it when it is complete.
    ///
    /// # Errors
    /// [`DoesNotCompile`], or if something cannot be written.
    pub fn compile(self, visibly: bool) -> Result<()> {
        let (layout, new) = (self.layout, &self.folder);
        workspace::compile(layout, new, visibly).context(DoesNotCompile)?;
        workspace::check(layout, new, visibly).context(DoesNotCompile)?;
        // Every kernel writes its own cells, in place, and must not share them with others.
        workspace::forget(new, &is_of_cells)?;
        tools::write_whole(&new.join(STAMP), &self.inputs.all)?;
        tools::publish(new, &layout.seed())
    }
}

fn is_of_cells(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name == OF_CELLS_ALONE || OF_CELLS.iter().any(|start| name.starts_with(start))
}
