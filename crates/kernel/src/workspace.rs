//! The workspace that a kernel's cells are compiled in, and the command that compiles them.
//!
//! `EVCXR_TMPDIR` is the member `cell` of a workspace of our own, for the sake of the lock file.
//! A kernel's first act is to compile a cell without any dependency, at which cargo would drop
//! everything from a lock file beside that cell; the next `:dep` would then resolve afresh, ask the
//! network, and perhaps take newer crates than the tested ones and compile them all. Here the other
//! member, `lock`, depends on the support crate, so the tested versions stay. Cargo then takes the
//! profile from the workspace, not from what evcxr writes (`:opt_level` has no effect).

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use toml::{Table, Value};

use crate::machine::layout::{LOCK, Layout};
use crate::machine::{compilers, tools};
use crate::variables;

/// The workspace, and the profile of cells: evcxr's own, but with lines, and at level 0 (what is computed, is computed in the optimised
/// crates).
const WORKSPACE: &str = r#"[workspace]
members = ["cell", "lock"]
resolver = "3"

[profile.dev]
opt-level = 0
debug = "line-tables-only"
strip = "none"
rpath = true
lto = false
debug-assertions = true
codegen-units = 16
panic = "unwind"
incremental = true
overflow-checks = true
"#;

/// The workspace's manifest. The profile of dependencies is that of the clone, whose settings cargo would not find from a directory that
/// lies elsewhere.
///
/// # Errors
/// If the clone has no settings, or they are no TOML.
pub fn of_workspace(layout: &Layout) -> Result<String> {
    let path = layout.root.join(".cargo/config.toml");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let settings: Table = text
        .parse()
        .with_context(|| format!("{} is no TOML", path.display()))?;
    let packages = ["profile", "dev", "package"]
        .iter()
        .try_fold(&Value::Table(settings), |value, name| value.get(*name))
        .cloned()
        .with_context(|| format!("{} has no [profile.dev.package]", path.display()))?;
    let mut workspace: Table = WORKSPACE.parse()?;
    let dev = workspace
        .get_mut("profile")
        .and_then(|profile| profile.get_mut("dev"))
        .and_then(Value::as_table_mut);
    dev.context("the workspace has no profile")?
        .insert("package".to_owned(), packages);
    Ok(workspace.to_string())
}

/// The members: folder and package.
const MEMBERS: [(&str, &str); 2] = [("cell", "ctx"), (LOCK, LOCK)];

/// Compiles the cell in `folder`, so that kernels find the local crates compiled.
///
/// # Errors
/// With the compiler's words, where they were not printed.
pub fn compile(layout: &Layout, folder: &Path, visibly: bool) -> Result<()> {
    let doing = "compiling the lesson's crates for the kernels";
    cargo(layout, folder, "build", visibly.then_some(doing))
}

/// Checks the cell in `folder`: evcxr does so when it cannot find out a variable's type, often because of a
/// mistake in the cell. Unprepared, the first such cell of a class would wait for three quarters of a minute.
///
/// # Errors
/// With the compiler's words, where they were not printed.
pub fn check(layout: &Layout, folder: &Path, visibly: bool) -> Result<()> {
    let doing = "checking it, for quick answers to mistakes";
    cargo(layout, folder, "check", visibly.then_some(doing))
}

/// Runs cargo by the command and in the environment that evcxr uses (version 0.22.0,
/// `Config::cargo_command`): flags and profile are part of what cargo calls fresh.
fn cargo(layout: &Layout, folder: &Path, verb: &str, visibly: Option<&str>) -> Result<()> {
    let mut cargo = Command::new("cargo");
    variables::without_theirs(&mut cargo)
        .args([verb, "--target", &compilers::host()?])
        .current_dir(folder.join("cell"))
        .envs(variables::of_kernels(layout)?)
        .env("CARGO_TARGET_DIR", "target")
        .env("CARGO_BUILD_BUILD_DIR", "target")
        .env("RUSTFLAGS", "-Cprefer-dynamic");
    match visibly {
        Some(doing) => tools::run_visibly(&mut cargo, doing),
        None => tools::output(&mut cargo).map(drop),
    }
}

/// Compiling downloads what this machine compiles. But the kernel's analyzer asks cargo about all
/// packages, also those for other systems, and the tests need some more: bring them all, so that
/// everything runs without a network from now on.
pub fn fetch(workspaces: &[&Path]) -> Result<()> {
    for workspace in workspaces {
        let mut cargo = Command::new("cargo");
        variables::without_leftovers(&mut cargo)
            .arg("fetch")
            .current_dir(workspace);
        tools::run_visibly(&mut cargo, "fetching the sources of all crates").context(
            "some crates could not be downloaded (the network is needed for this once); run the same command again",
        )?;
    }
    // Where the standard library's sources are installed, the analyzer asks about their few
    // dependencies too; offline it would wait 20 s for them, but it can do without.
    let sysroot = tools::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let library = Path::new(&sysroot).join("lib/rustlib/src/rust/library");
    if library.is_dir() {
        let mut cargo = Command::new("cargo");
        // That workspace is for nightly compilers, unless one insists, as the analyzer does.
        variables::without_leftovers(&mut cargo).env("RUSTC_BOOTSTRAP", "1");
        let _ = tools::output(cargo.args(["fetch", "--locked"]).current_dir(library));
    }
    Ok(())
}

/// Writes the workspace; what is right already keeps its time, and so stays fresh for cargo.
pub fn write_workspace(layout: &Layout, folder: &Path) -> Result<()> {
    let lock = layout.root.join("Cargo.lock");
    let versions = fs::read(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    write_changed(&folder.join("Cargo.lock"), &versions)?;
    for (member, package) in MEMBERS {
        let manifest = manifest(package, &layout.support_crate());
        write_changed(&folder.join(member).join("Cargo.toml"), manifest.as_bytes())?;
        write_changed(&folder.join(member).join("src/lib.rs"), b"")?;
    }
    write_changed(&folder.join("Cargo.toml"), of_workspace(layout)?.as_bytes())
}

/// The manifest of a member: evcxr's for a cell with the lesson's one dependency. Of `lock` notebooks see nothing, which its
/// metadata tells the analyzer ([`crate::packages`]).
pub fn manifest(package: &str, support_crate: &Path) -> String {
    let seen = match package {
        LOCK => "\n[package.metadata.notebooks]\npublic = []\n",
        _ => "",
    };
    let dependency = dependency(support_crate);
    format!(
        "[package]\nname = \"{package}\"\nversion = \"1.0.0\"\nedition = \"2024\"\n{seen}\n[lib]\ncrate-type = [\"cdylib\"]\npath = \"src/lib.rs\"\n\n[dependencies]\n{dependency}\n"
    )
}

/// The line of a manifest that names the support crate, as evcxr writes it.
pub fn dependency(support_crate: &Path) -> String {
    let path = support_crate.to_string_lossy();
    let path = path.replace('\\', "\\\\").replace('"', "\\\"");
    format!("diffusion = {{ path = \"{path}\" }}")
}

fn write_changed(path: &Path, text: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == text) {
        Ok(())
    } else {
        tools::write_whole(path, text)
    }
}

/// Takes what `goes` names, by its path below `cell/target`, out of a build directory: a folder with all that is in it.
pub fn forget(folder: &Path, goes: &dyn Fn(&Path) -> bool) -> Result<()> {
    let target = folder.join("cell/target");
    let mut folders = vec![target.clone()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder);
        for entry in entries
            .with_context(|| format!("cannot read {}", folder.display()))?
            .flatten()
        {
            let path = entry.path();
            match (
                goes(path.strip_prefix(&target).unwrap_or(&path)),
                path.is_dir(),
            ) {
                (true, true) => tools::remove_dir(&path)?,
                (true, false) => fs::remove_file(&path)
                    .with_context(|| format!("cannot remove {}", path.display()))?,
                (false, true) => folders.push(path),
                (false, false) => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_path_of_any_letters_is_read_back_as_it_was() {
        for path in [
            "/a b, [c]",
            "/stra\u{df}e",
            "/e\u{301}",
            "/\"quoted\"",
            "/back\\slash",
        ] {
            let found: Table = manifest("ctx", Path::new(path)).parse().unwrap();
            let found = &found["dependencies"]["diffusion"]["path"];
            assert_eq!(found.as_str(), Some(path));
        }
    }
}
