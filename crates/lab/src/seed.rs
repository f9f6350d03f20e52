//! The warm build directory that new kernels start from.
//!
//! evcxr writes each cell as a crate `ctx` into `EVCXR_TMPDIR`, compiles it with cargo and loads
//! it. We compile the support crate there beforehand, by the same cargo command with the same
//! environment, so that a kernel finds everything fresh.
//!
//! `EVCXR_TMPDIR` is the member `cell` of a workspace of our own, for the sake of the lock file.
//! A kernel's first act is to compile a cell without any dependency, at which cargo would drop
//! everything from a lock file beside that cell; the next `:dep` would then resolve afresh, ask the
//! network, and perhaps take newer crates than the tested ones and compile them all. Here the other
//! member, `lock`, holds on to the support crate, so the tested versions stay. Cargo then takes the
//! profile from the workspace, not from what evcxr writes (`:opt_level` has no effect).

use std::fs;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::layout::{EVCXR_VERSION, Layout};
use crate::parts::{Finding, Options};
use crate::{libtorch, spec, toolchain, tools, tree};

const STAMP: &str = "seed-of";

/// What evcxr writes for a cell with the lesson's one dependency; the profile is evcxr's own, with
/// cells at level 0 (what is computed, is computed in the optimised crates).
const WORKSPACE: &str = r#"[workspace]
members = ["cell", "lock"]
resolver = "3"

[profile.dev]
opt-level = 0
debug = false
strip = "debuginfo"
rpath = true
lto = false
debug-assertions = true
codegen-units = 16
panic = "unwind"
incremental = true
overflow-checks = true
"#;

/// The hashes that a warm directory depends on.
struct Inputs {
    /// Without the support crate's sources: what its dependencies are compiled from and by.
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
        return Ok(Finding::Wrong("the support crate, its dependencies or the tools changed; kernels would compile it each for itself".to_owned()));
    }
    Ok(Finding::Found(format!(
        "warm build directory in {}",
        layout.seed().display()
    )))
}

/// True when the support crate is exactly what the warm directory was compiled from.
pub fn is_fresh(layout: &Layout) -> bool {
    inputs(layout).is_ok_and(|inputs| {
        fs::read_to_string(layout.seed().join(STAMP)).is_ok_and(|stamp| stamp == inputs.all)
    })
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
    write_workspace(layout, &new)?;
    fetch(layout, &new)?;
    compile(layout, &new, true)
        .context("the support crate could not be compiled for the kernels")?;
    // Every kernel writes its own cells, in place, and must not share them with others.
    forget(&new, &["ctx-", "ctx.", "libctx", "libcode_"])?;
    tools::write_whole(&new.join(STAMP), &inputs.all)?;
    swap_in(layout, &new)?;
    save_for_other_clones(layout, &saved)
}

/// Compiles the cell in `folder` by the command and in the environment that evcxr uses (version
/// 0.22.0, `Config::cargo_command`): flags and profile are part of what cargo calls fresh.
pub fn compile(layout: &Layout, folder: &Path, visibly: bool) -> Result<()> {
    let mut flags = "-Cprefer-dynamic".to_owned();
    // evcxr takes `mold` from outside rustc, else `lld` by a flag.
    if !cfg!(target_os = "macos") && !on_path("mold") && on_path("lld") {
        flags.push_str(" -Clink-arg=-fuse-ld=lld");
    }
    let mut cargo = Command::new("cargo");
    tools::without_cargo_variables(&mut cargo);
    cargo
        .args(["build", "--target", &toolchain::host()?])
        .current_dir(folder.join("cell"))
        .envs(spec::environment(layout)?)
        .env("CARGO_TARGET_DIR", "target")
        .env("CARGO_BUILD_BUILD_DIR", "target")
        .env("RUSTFLAGS", flags);
    if visibly {
        tools::run_visibly(&mut cargo, "compiling the support crate for the kernels")
    } else {
        tools::output(&mut cargo).map(drop)
    }
}

/// Compiling downloads what this machine compiles. But the kernel's analyzer asks cargo about all
/// packages, also those for other systems, and about the standard library where its sources are
/// installed; the tests need some more. Bring them all, so that everything runs without a network
/// from now on (and the analyzer does not wait for one at every kernel's start).
fn fetch(layout: &Layout, seed: &Path) -> Result<()> {
    let mut workspaces = vec![layout.root.clone(), seed.to_owned()];
    let sysroot = tools::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let library = Path::new(&sysroot).join("lib/rustlib/src/rust/library");
    workspaces.extend(library.join("Cargo.lock").is_file().then_some(library));
    for workspace in workspaces {
        let mut cargo = Command::new("cargo");
        tools::without_cargo_variables(&mut cargo)
            .arg("fetch")
            .current_dir(workspace);
        tools::run_visibly(&mut cargo, "fetching the sources of all crates").context(
            "some crates could not be downloaded (the network is needed for this once); run the same command again",
        )?;
    }
    Ok(())
}

fn write_workspace(layout: &Layout, folder: &Path) -> Result<()> {
    let lock = layout.root.join("Cargo.lock");
    let versions = fs::read(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    write_changed(&folder.join("Cargo.lock"), &versions)?;
    for (member, name) in [("cell", "ctx"), ("lock", "lock")] {
        let manifest = format!(
            "[package]\nname = \"{name}\"\nversion = \"1.0.0\"\nedition = \"2024\"\n\n[lib]\ncrate-type = [\"cdylib\"]\npath = \"src/lib.rs\"\n\n[dependencies]\ndiffusion = {{ path = {:?} }}\n",
            layout.support_crate()
        );
        write_changed(&folder.join(member).join("Cargo.toml"), manifest.as_bytes())?;
        write_changed(&folder.join(member).join("src/lib.rs"), b"")?;
    }
    write_changed(&folder.join("Cargo.toml"), WORKSPACE.as_bytes())
}

fn write_changed(path: &Path, text: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == text) {
        Ok(())
    } else {
        tools::write_whole(path, text)
    }
}

/// Takes everything whose name begins with one of `starts` out of a build directory.
fn forget(folder: &Path, starts: &[&str]) -> Result<()> {
    let mut folders = vec![folder.join("cell/target")];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder);
        for entry in entries
            .with_context(|| format!("cannot read {}", folder.display()))?
            .flatten()
        {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            match (
                starts.iter().any(|start| name.starts_with(start)),
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

/// Who copies the warm directory holds this lock shared; who swaps it, or makes and sweeps kernels'
/// directories, alone.
pub fn house_lock(layout: &Layout) -> Result<File> {
    let path = layout.kernel().join("lock");
    fs::create_dir_all(layout.kernel())
        .with_context(|| format!("cannot make {}", layout.kernel().display()))?;
    File::create(&path).with_context(|| format!("cannot write {}", path.display()))
}

/// Compiling the dependencies takes minutes; the next clone starts from this copy, in which cargo
/// finds everything fresh but the support crate. The two newest such copies are kept.
fn save_for_other_clones(layout: &Layout, saved: &Path) -> Result<()> {
    if saved.exists() {
        return Ok(());
    }
    let new = layout
        .downloads()
        .join(format!("kernel-deps.{}", std::process::id()));
    tools::remove_dir(&new)?;
    tree::clone(&layout.seed(), &new)?;
    forget(&new, &["diffusion-", "libdiffusion"])?;
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
        "{WORKSPACE}\nevcxr {EVCXR_VERSION}\n{}\n{}\n",
        toolchain::rust_in_full()?,
        libtorch::in_use(layout)?.display()
    );
    text.push_str(&format!(
        "mold {} lld {}\n",
        on_path("mold"),
        on_path("lld")
    ));
    for file in ["Cargo.toml", "Cargo.lock", ".cargo/config.toml"] {
        text.push_str(&tools::sha256_file(&layout.root.join(file))?);
    }
    let dependencies = tools::sha256(text.as_bytes());
    let mut files = Vec::new();
    sources(&layout.support_crate(), &mut files)?;
    files.sort();
    for file in files {
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

/// The files that the support crate's library is compiled from.
fn sources(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !folder.is_dir() {
        bail!("{} is missing: this is no whole clone", folder.display());
    }
    for entry in fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .flatten()
    {
        let (path, name) = (entry.path(), entry.file_name());
        match name.to_string_lossy().as_ref() {
            "tests" | "examples" | "benches" | "target" => {}
            name if name.starts_with('.') => {}
            _ if path.is_dir() => sources(&path, files)?,
            _ => files.push(path),
        }
    }
    Ok(())
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    })
}
