//! The Python side: JupyterLab and what the tests need, each package with its hash in `requirements.txt`.
//!
//! `crates/lab/python/requirements.in` names what is wanted; `uv pip compile --universal --python-version 3.10 --generate-hashes
//! --no-emit-index-url --no-header crates/lab/python/requirements.in -o requirements.txt` writes the rest (for the class, the files in
//! `crates/lab/class`, with `-c requirements.txt`).

use std::env;
use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::setup::part::{Finding, Options};
use kernel::machine::layout::{Layout, conda_env};
use kernel::machine::{compilers, tools};
use kernel::variables;

/// Is the environment there, with exactly these requirements?
pub fn check(layout: &Layout, _deep: bool) -> Result<Finding> {
    let python = layout.python();
    if !python.exists() {
        return Ok(Finding::Missing(format!(
            "no Python environment in {} yet",
            layout.python_env().display()
        )));
    }
    let Ok(version) = tools::output(Command::new(&python).arg("-V")) else {
        return Ok(Finding::Wrong(format!(
            "{} does not run: the Python that it was made with may be gone",
            python.display()
        )));
    };
    if fs::read_to_string(stamp_file(layout)).unwrap_or_default() != stamp(layout, &version)? {
        return Ok(Finding::Wrong(format!(
            "{} does not hold what requirements.txt asks for",
            layout.python_env().display()
        )));
    }
    Ok(Finding::Found(format!(
        "{version} with requirements.txt in {}",
        layout.python_env().display()
    )))
}

/// Makes the environment where there is none, and installs.
pub fn make(layout: &Layout, _options: &Options) -> Result<()> {
    if conda_env().is_none() {
        let (python, _) = compilers::python()?;
        let works =
            tools::output(Command::new(layout.python()).args(["-m", "pip", "--version"])).is_ok();
        let here = fs::read_to_string(layout.python_env().join("pyvenv.cfg")).is_ok_and(|text| {
            // A clone that was moved carries scripts that name the old place.
            !text.contains("command =") || text.contains(&*layout.python_env().to_string_lossy())
        });
        if !(works && here) {
            tools::remove_dir(&layout.python_env())?;
            tools::run_visibly(Command::new(&python).args(["-m", "venv"]).arg(layout.python_env()), "making a Python environment")
                .context("Python could not make a virtual environment: install its venv module (Debian and Ubuntu: `apt install python3-venv`), or use the conda environment of environment.yml")?;
        }
    }
    let python = layout.python();
    let version = tools::output(Command::new(&python).arg("-V"))?;
    // On a terminal pip shows a bar for each download; a log is spared its hundred lines.
    let quiet = (!std::io::stdout().is_terminal()).then_some("--quiet");
    let hint = "pip could not install the Python packages (the network is needed for this once; behind a proxy, set HTTPS_PROXY); run the same command again";
    tools::run_visibly(
        locked(&python, &layout.root.join("requirements.txt")).args(quiet),
        "installing the Python packages",
    )
    .context(hint)?;
    tools::write_whole(&stamp_file(layout), stamp(layout, &version)?)
}

/// Pip of this environment, without questions and version notices, and whatever a shell says about installing for the user or elsewhere.
pub fn pip(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.args(["-m", "pip", "--disable-pip-version-check", "--no-input"]);
    for name in [
        "PIP_USER",
        "PIP_TARGET",
        "PIP_PREFIX",
        "PIP_REQUIRE_VIRTUALENV",
        "PIP_NO_BINARY",
        "PYTHONHOME",
        "PYTHONPATH",
    ] {
        command.env_remove(name);
    }
    command.env("PYTHONNOUSERSITE", "1");
    command
}

/// Pip installing exactly what a lock file names, each with its hash.
pub fn locked(python: &Path, file: &Path) -> Command {
    let mut command = pip(python);
    command
        .args(["install", "--require-hashes", "--no-deps", "-r"])
        .arg(file);
    command
}

/// A program of the environment that finds this environment's kernel before one of the same name
/// that the user may have installed for themselves, and its own scripts first on PATH.
pub fn command(layout: &Layout) -> Command {
    let mut command = Command::new(layout.python());
    let mut path = layout.python_env().join("bin").into_os_string();
    if let Some(rest) = env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    variables::without_leftovers(&mut command)
        .env("PATH", path)
        .env("JUPYTER_PREFER_ENV_PATH", "1")
        .env_remove("JUPYTER_PATH")
        .env_remove("PYTHONHOME");
    command
}

fn stamp_file(layout: &Layout) -> PathBuf {
    layout.python_env().join("share/diffusion-lesson.stamp")
}

fn stamp(layout: &Layout, version: &str) -> Result<String> {
    let path = layout.root.join("requirements.txt");
    let wanted = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(format!(
        "{} {version} {}\n",
        tools::sha256(&wanted),
        layout.python_env().display()
    ))
}
