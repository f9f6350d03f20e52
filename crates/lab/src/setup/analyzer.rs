//! What the analyzer inside a kernel gets to see: as little as it needs.
//!
//! evcxr carries rust-analyzer, to find the types of variables and for completion. It loads every package
//! that cargo names, down to the last compression library, and the whole standard library with the
//! intrinsics of all processors: that was 930 MB of memory and 9 seconds of a kernel's start. Notebooks use
//! the support crate, its few public dependencies and `std`. So a kernel runs in a toolchain of its own, made of
//! second names of the real one's files but for one program: its `cargo` is this program ([`kernel::cargo`]), which answers the analyzer's
//! question for the packages with those it needs ([`kernel::packages`]). Compilers see no difference. And an update of Rust, which puts
//! new files in place of the old, changes nothing for kernels until the next set-up; the running ones keep what they have even then.
//!
//! | a kernel on two cores | ready | first picture if all run at once | memory when idle |
//! | --- | --- | --- | --- |
//! | everything | 12-15 s | 14-16 s | 1,090 MB |
//! | without the intrinsics | 11 s | 12 s | 890 MB |
//! | and only the packages below | 5-6 s | 6-7 s | 550 MB |
//!
//! What it still sees, it sees without comments and bodies ([`thin`]). What stays below that is in the table of [`kernel::start`].

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use kernel::machine::layout::{CARGO, LINKER, Layout, WITNESS};
use kernel::machine::{compilers, tools, tree};
use kernel::thin;

use crate::setup::part::{Finding, Options};

/// The parts of the standard library that a notebook's types come from. Beside them, left out, lie the intrinsics of all
/// processors (`stdarch`), as much source as the three together.
const STANDARD: [&str; 3] = ["core", "alloc", "std"];
/// What evcxr and cargo start, besides cargo.
const PROGRAMS: [&str; 2] = ["rustc", "rustdoc"];
/// The folder of the real toolchain, in that of kernels.
const REAL: &str = "real";
/// The sources of the standard library, in a toolchain: many files, which only kernels without speed-ups read.
const SOURCES: &str = "lib/rustlib/src";
/// The file in a toolchain of kernels that says what it was made from.
const STAMP: &str = "of";

fn sysroot() -> Result<PathBuf> {
    let mut rustc = Command::new("rustc");
    let path = tools::output(rustc.args(["--print", "sysroot"]))?;
    // The real folder, also where the toolchain in use is a link, such as one of these.
    fs::canonicalize(&path).with_context(|| format!("there is no toolchain in {path}"))
}

fn sources_of_std(toolchain: &Path) -> PathBuf {
    toolchain.join(SOURCES).join("rust/library")
}

/// Was the toolchain made from the Rust that is here now?
pub fn check(layout: &Layout, _deep: bool) -> Result<Finding> {
    let place = layout.toolchain();
    match fs::read_to_string(place.join(STAMP)) {
        Ok(found) if found == stamp_of_toolchain(layout)? => {}
        Ok(_) => {
            return Ok(Finding::Wrong(format!(
                "{} is of another Rust",
                place.display()
            )));
        }
        Err(_) => return Ok(Finding::Missing(format!("no {} yet", place.display()))),
    }
    let std = match sources_of_std(&sysroot()?).is_dir() {
        true if fs::read_to_string(stamp(layout)).ok() != Some(stamp_text()?) => {
            return Ok(Finding::Missing(
                "no thin copy of this Rust's standard library yet".to_owned(),
            ));
        }
        true => "",
        false => {
            "; without the standard library's sources, so that a variable like `let x = vec![1];` needs its type written down (`rustup component add rust-src`, or the package rust-src of conda, brings them)"
        }
    };
    Ok(Finding::Found(format!(
        "toolchain of the kernels in {}{std}",
        place.display()
    )))
}

/// What the toolchain is made from.
fn stamp_of_toolchain(layout: &Layout) -> Result<String> {
    let real = sysroot()?;
    let place = match parts(&real) {
        [] => real.display().to_string(), // links lead there
        _ => String::new(),
    };
    Ok(format!(
        "{}\n{place}\n{}\nsources: {}\n",
        compilers::rust_in_full()?,
        layout.launcher().display(),
        sources_of_std(&real).is_dir()
    ))
}

/// Says which standard library was made thin, and how.
fn stamp(layout: &Layout) -> PathBuf {
    layout.standard_library().join("thin-of")
}

fn stamp_text() -> Result<String> {
    Ok(format!("{}\n{}\n", compilers::rust_in_full()?, thin::FORM))
}

/// Makes the links and the thin sources anew, after bringing the sources of the standard library where that is possible.
pub fn make(layout: &Layout, _options: &Options) -> Result<()> {
    let real = sysroot()?;
    if !sources_of_std(&real).is_dir() {
        let mut rustup = Command::new("rustup");
        rustup.args(["component", "add", "rust-src"]);
        // Without them the kernel works too; `check` says what is missing then.
        let _ = tools::output(&mut rustup);
    }
    let std = sources_of_std(&real);
    if std.is_dir() && fs::read_to_string(stamp(layout)).ok() != Some(stamp_text()?) {
        let new = layout.standard_library().with_extension("new");
        tools::remove_dir(&new)?;
        for part in STANDARD {
            thin::copy(&std.join(part), &new.join(part))?;
        }
        tools::publish(&new, &layout.standard_library())?;
        tools::write_whole(&stamp(layout), stamp_text()?)?;
    }
    let wanted = stamp_of_toolchain(layout)?;
    if fs::read_to_string(layout.toolchain().join(STAMP)).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    let new = layout.toolchain().with_extension("new");
    tools::remove_dir(&new)?;
    for part in parts(&real) {
        let without = |path: &Path| path.ends_with(SOURCES);
        tree::second_names(&real.join(part), &new.join(REAL).join(part), &without)?;
    }
    for (link, target) in links(layout, &real) {
        let link = new.join(link);
        let made = fs::create_dir_all(link.parent().unwrap_or(&link))
            .and_then(|()| symlink(&target, &link));
        made.with_context(|| format!("cannot make the link {}", link.display()))?;
    }
    tools::write_whole(&new.join(STAMP), wanted)?;
    tools::publish(&new, &layout.toolchain())
}

/// The folders of a toolchain that is rustup's. Others, such as a system's, lie among much else.
fn parts(real: &Path) -> &'static [&'static str] {
    let rustup = compilers::rustup_home().and_then(|home| home.canonicalize().ok());
    match rustup.is_some_and(|home| real.starts_with(home)) {
        true => &["bin", "lib"],
        false => &[],
    }
}

/// The links in a toolchain of kernels: where each one is, and where it leads.
fn links(layout: &Layout, real: &Path) -> Vec<(PathBuf, PathBuf)> {
    let mut links = vec![(PathBuf::from("lib"), Path::new(REAL).join("lib"))];
    match parts(real) {
        [] => links.push((PathBuf::from(REAL), real.to_owned())),
        _ if sources_of_std(real).is_dir() => {
            links.push((Path::new(REAL).join(SOURCES), real.join(SOURCES)))
        }
        _ => {}
    }
    for name in [CARGO, WITNESS, LINKER] {
        links.push((Path::new("bin").join(name), layout.launcher()));
    }
    for program in PROGRAMS {
        let target = Path::new("..").join(REAL).join("bin").join(program);
        links.push((Path::new("bin").join(program), target));
    }
    links
}
