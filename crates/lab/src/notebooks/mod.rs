//! `lab run` executes notebooks in a real kernel without a browser; `lab browser` drives one in a
//! real JupyterLab in Chromium.
//!
//! Both run on copies in a work folder that looks like a fresh clone, so they never touch what the
//! learner saved. The programs that talk to kernels are Python's (`crates/lab/python`); they *replace*
//! this process, so that Ctrl-C and a polite kill reach whoever has a kernel to shut down.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use kernel::machine::layout::Layout;
use kernel::machine::tools;

use crate::setup::python;

pub mod jupyter;
pub mod suite;

/// Names under which a Chromium may be installed.
const CHROMIUMS: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

/// What `lab run` can be told.
#[derive(clap::Args, Clone, Debug)]
pub struct RunArgs {
    /// The notebooks to run, in this order; without any, all of the lesson's
    pub notebooks: Vec<PathBuf>,
    /// Where executed notebooks, pages and report.json go [default: target/lesson]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// The time limit for one cell, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 900, value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: u64,
    /// When nothing failed, write the executed notebooks over the originals
    #[arg(long)]
    pub update: bool,
    /// Run each cell twice in a row, and fail if it shows something else the second time
    #[arg(long)]
    pub twice: bool,
    /// Make no HTML pages
    #[arg(long)]
    pub no_html: bool,
}

/// What `lab browser` can be told.
#[derive(clap::Args, Clone, Debug)]
pub struct BrowserArgs {
    /// The notebook to drive, by its name in `notebooks`
    #[arg(default_value = "04_denoise.ipynb")]
    pub notebook: String,
    /// Run nothing: show every notebook as it looks after `git clone`, untrusted, and take pictures
    #[arg(long)]
    pub gallery: bool,
    /// Run every notebook to its end in the browser, and no more (about 15 minutes)
    #[arg(long, conflicts_with = "gallery")]
    pub every: bool,
    /// Where the screenshots go [default: target/browser]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// How long all cells together may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: u64,
}

/// Runs notebooks top to bottom. Returns only if it cannot begin: the process becomes the runner,
/// which ends with 0 when every cell was fine, 1 when one failed, 130 when it was interrupted.
pub fn run(layout: &Layout, args: RunArgs) -> Result<()> {
    let notebooks = if args.notebooks.is_empty() {
        lesson(layout)?
    } else {
        args.notebooks
    };
    let out = out_folder(args.out, layout, "lesson")?;
    let (work, originals) = work_folder(layout, &out, &notebooks)?;
    let mut runner = program(layout, "execute.py")?;
    runner
        .arg("--work")
        .arg(work)
        .arg("--out")
        .arg(out)
        .arg("--timeout")
        .arg(args.timeout.to_string());
    runner
        .args(args.update.then_some("--update"))
        .args(args.twice.then_some("--twice"))
        .args(args.no_html.then_some("--no-html"));
    become_program(runner.args(originals))
}

/// Drives a notebook in JupyterLab in Chromium; says so and does nothing where there is none.
pub fn browser(layout: &Layout, args: BrowserArgs) -> Result<()> {
    let Some(chromium) = CHROMIUMS.iter().find_map(|name| on_path(name)) else {
        println!(
            "lab browser: skipped, there is no Chromium on PATH ({})",
            CHROMIUMS.join(", ")
        );
        return Ok(());
    };
    let notebooks = lesson(layout)?;
    let known = notebooks
        .iter()
        .any(|path| path.file_name().is_some_and(|name| *name == *args.notebook));
    if !known && !args.gallery {
        bail!(
            "{}: not one of the lesson's notebooks in {}",
            args.notebook,
            layout.notebooks().display()
        );
    }
    let out = out_folder(args.out, layout, "browser")?;
    let (work, _) = work_folder(layout, &out, &notebooks)?;
    let mut driver = program(layout, "browser.py")?;
    driver
        .arg("--chromium")
        .arg(chromium)
        .arg("--work")
        .arg(work)
        .arg("--out")
        .arg(out);
    driver.arg("--timeout").arg(args.timeout.to_string());
    match (args.gallery, args.every) {
        (true, _) => driver.arg("--gallery"),
        (_, true) => driver.arg("--every"),
        _ => driver.arg(args.notebook),
    };
    become_program(&mut driver)
}

/// The lesson's notebooks in their order: those whose names begin with a digit.
pub fn lesson(layout: &Layout) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = entries(&layout.notebooks())?
        .into_iter()
        .filter(|path| {
            is_notebook(path) && file_name(path).starts_with(|c: char| c.is_ascii_digit())
        })
        .collect();
    found.sort();
    if found.is_empty() {
        bail!(
            "{}: expected the lesson's notebooks (01_….ipynb), found none",
            layout.notebooks().display()
        );
    }
    Ok(found)
}

/// The folder for results, made if need be, as an absolute path.
pub fn out_folder(named: Option<PathBuf>, layout: &Layout, default: &str) -> Result<PathBuf> {
    let out = named.unwrap_or_else(|| layout.target().join(default));
    fs::create_dir_all(&out)
        .with_context(|| format!("cannot make the folder {} for the results", out.display()))?;
    out.canonicalize()
        .with_context(|| format!("cannot find {}", out.display()))
}

/// Makes `out/work` anew: copies of the notebooks beside links to whatever else lies in the lesson's
/// folder, except what the learner saved, and a link to the crates, which the notebooks name as
/// `../crates`. Returns the folder with the copies, and the originals as absolute paths.
fn work_folder(
    layout: &Layout,
    out: &Path,
    notebooks: &[PathBuf],
) -> Result<(PathBuf, Vec<PathBuf>)> {
    let (work, crates) = (out.join("work"), out.join("work/crates"));
    if work.exists() && !crates.is_symlink() {
        bail!(
            "{} was not made by this program, so it is not replaced: move it, or give another --out",
            work.display()
        );
    }
    tools::remove_dir(&work)?;
    let folder = work.join("notebooks");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    link(&layout.root.join("crates"), &crates)?;
    for entry in entries(&layout.notebooks())? {
        let name = file_name(&entry);
        if name != "saved" && !name.starts_with('.') && !is_notebook(&entry) {
            link(&entry, &folder.join(name))?;
        }
    }
    let mut originals = Vec::new();
    for path in notebooks {
        let original = path
            .canonicalize()
            .with_context(|| format!("no notebook {}", path.display()))?;
        let copy = folder.join(file_name(&original));
        if copy.exists() {
            bail!(
                "{}: two notebooks of this name were given; run them one after the other",
                file_name(&original)
            );
        }
        fs::copy(&original, &copy)
            .with_context(|| format!("cannot copy the notebook {}", original.display()))?;
        originals.push(original);
    }
    Ok((folder, originals))
}

/// A program of `crates/lab/python`, to be run by the project's own Python.
pub fn program(layout: &Layout, name: &str) -> Result<Command> {
    if !layout.python().exists() {
        bail!(
            "no Python at {}: `make lesson` and `make test` set it up first",
            layout.python().display()
        );
    }
    let mut command = python::command(layout);
    command
        .arg("-B")
        .arg(layout.root.join("crates/lab/python").join(name));
    Ok(command)
}

/// Goes on as another program; returns only if that cannot be started.
pub fn become_program(command: &mut Command) -> Result<()> {
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", tools::shown(command)))
}

/// A program's full path, looked for as a shell would.
fn on_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = || {
        fs::read_dir(folder)?
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<Vec<PathBuf>>>()
    };
    read().with_context(|| format!("cannot read the folder {}", folder.display()))
}

fn link(to: &Path, at: &Path) -> Result<()> {
    symlink(to, at).with_context(|| format!("cannot link {} to {}", at.display(), to.display()))
}

fn is_notebook(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "ipynb")
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
