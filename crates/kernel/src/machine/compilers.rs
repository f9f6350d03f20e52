//! What a machine must bring: Rust, Python, a C++ compiler; and where its cargo keeps crates.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::machine::tools;

/// The oldest Rust that compiles this workspace.
pub const RUST: (u32, u32) = (1, 95);
/// The oldest Python that the pinned packages support.
pub const PYTHON: (u32, u32) = (3, 10);

/// All three, in one line; the error says which is missing or too old, and what to do.
pub fn check() -> Result<String> {
    Ok(format!("{}, {}, {}", rust()?, python()?.1, compiler()?))
}

/// `rustc 1.95.0`.
pub fn rust() -> Result<String> {
    let fix = "install or update Rust with rustup (`rustup update stable`), or use the conda environment of environment.yml";
    let text = tools::output(Command::new("rustc").arg("-V"))
        .with_context(|| format!("no working Rust compiler `rustc` on PATH: {fix}"))?;
    let found = version(&text).with_context(|| {
        format!("`rustc -V` answered {text:?}, expected something like `rustc 1.95.0`: {fix}")
    })?;
    if found < RUST {
        bail!(
            "Rust is too old: found {}.{}, needed {}.{} or later: {fix}",
            found.0,
            found.1,
            RUST.0,
            RUST.1
        );
    }
    tools::output(Command::new("cargo").arg("-V"))
        .with_context(|| format!("no working `cargo` on PATH: {fix}"))?;
    // Cells are linked with it. Some distributions leave it out, and evcxr says so only after minutes of compiling.
    let libraries = tools::output(Command::new("rustc").args(["--print", "target-libdir"]))?;
    if fs::read_dir(&libraries).is_ok_and(|entries| !holds_shared_std(entries)) {
        bail!(
            "this Rust has no shared standard library, which notebooks need (no libstd-*{} in {libraries}): {fix}",
            env::consts::DLL_SUFFIX
        );
    }
    Ok(text.split(" (").next().unwrap_or(&text).to_owned())
}

/// The folder of a toolchain's shared standard library.
///
/// # Errors
/// If there is none.
pub fn shared_libraries(toolchain: &Path) -> Result<PathBuf> {
    let folder = toolchain.join("lib/rustlib").join(host()?).join("lib");
    let found = fs::read_dir(&folder).is_ok_and(holds_shared_std);
    ensure!(found, "no shared standard library in {}", folder.display());
    Ok(folder)
}

fn holds_shared_std(entries: fs::ReadDir) -> bool {
    let is_std = |name: &str| {
        name.trim_start_matches("lib").starts_with("std-")
            && name.ends_with(env::consts::DLL_SUFFIX)
    };
    let mut names = entries.flatten().map(|entry| entry.file_name());
    names.any(|name| is_std(&name.to_string_lossy()))
}

/// The whole of what `rustc -vV` says: what a build directory depends on. Asked once: it takes a moment of every kernel's start.
///
/// # Errors
/// If there is no working compiler.
pub fn rust_in_full() -> Result<String> {
    static FOUND: OnceLock<String> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found.clone());
    }
    let found = tools::output(Command::new("rustc").arg("-vV"))?;
    Ok(FOUND.get_or_init(|| found).clone())
}

/// The machine as Rust names it, such as `x86_64-unknown-linux-gnu`.
pub fn host() -> Result<String> {
    let text = rust_in_full()?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .with_context(|| format!("`rustc -vV` names no host:\n{text}"))
}

/// A Python that is new enough to make the environment with, and its version.
/// `PYTHON` names one; else the usual names are tried.
pub fn python() -> Result<(PathBuf, String)> {
    let fix = "install Python 3.10 or later (or set PYTHON to one), or use the conda environment of environment.yml";
    if let Some(named) = env::var_os("PYTHON").filter(|name| !name.is_empty()) {
        let named = PathBuf::from(named);
        let version = python_version(&named)?;
        return Ok((named, version));
    }
    let mut too_old = None;
    for name in [
        "python3",
        "python3.14",
        "python3.13",
        "python3.12",
        "python3.11",
        "python3.10",
        "python",
    ] {
        match python_version(&PathBuf::from(name)) {
            Ok(version) => return Ok((PathBuf::from(name), version)),
            Err(error) if error.to_string().contains("too old") => {
                too_old = too_old.or(Some(error))
            }
            Err(_) => {}
        }
    }
    Err(too_old.unwrap_or_else(|| anyhow!("no Python on PATH: {fix}")))
}

fn python_version(python: &PathBuf) -> Result<String> {
    let text = tools::output(Command::new(python).arg("-V"))?;
    let found =
        version(&text).with_context(|| format!("`{} -V` answered {text:?}", python.display()))?;
    if found < PYTHON {
        bail!(
            "Python is too old: found {}.{} (`{}`), needed {}.{} or later: install a newer one (or set PYTHON to one), or use the conda environment of environment.yml",
            found.0,
            found.1,
            python.display(),
            PYTHON.0,
            PYTHON.1
        );
    }
    Ok(text)
}

/// The C++ compiler that torch-sys's build will use.
pub fn compiler() -> Result<String> {
    let name = env::var("CXX")
        .ok()
        .filter(|name| !name.trim().is_empty())
        .unwrap_or_else(|| "c++".to_owned());
    let mut words = name.split_whitespace();
    let text = tools::output(Command::new(words.next().unwrap_or("c++")).args(words).arg("--version")).map_err(|error| {
        anyhow!("no working C++ compiler (`{name}`): install one (Debian and Ubuntu: `apt install g++`; Fedora: `dnf install gcc-c++`; macOS: `xcode-select --install`; conda: the environment of environment.yml), or set CXX [{error:#}]")
    })?;
    Ok(text.lines().next().unwrap_or(&name).to_owned())
}

/// The first `major.minor` in a text.
fn version(text: &str) -> Option<(u32, u32)> {
    text.split_whitespace().find_map(|word| {
        let mut parts = word.split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next()?.parse().ok()?;
        Some((major, minor))
    })
}

/// Where rustup keeps its toolchains, if it is there.
pub fn rustup_home() -> Option<PathBuf> {
    let set = env::var_os("RUSTUP_HOME").filter(|folder| !folder.is_empty());
    let folder = set
        .map(PathBuf::from)
        .or_else(|| Some(dirs::home_dir()?.join(".rustup")))?;
    folder.is_dir().then_some(folder)
}

/// Where cargo keeps the sources of crates.
pub fn cargo_home() -> Option<PathBuf> {
    let set = env::var_os("CARGO_HOME").filter(|folder| !folder.is_empty());
    set.map(PathBuf::from)
        .or_else(|| Some(dirs::home_dir()?.join(".cargo")))
}
