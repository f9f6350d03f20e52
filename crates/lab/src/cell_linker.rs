//! The linker of cells: this program under that name, which has most of the work done before.
//!
//! To link a cell, a linker reads the 80 libraries below the support crate and copies what the cell needs: 140 ms, half of what the
//! compiler takes. So they are linked once, all of them and whole, into one shared library of 12 MB in the kernel's memory (200 ms); a
//! cell is linked with that in 37 ms. Cells that are linked so also have one copy of the local crates' state between them, not one each.
//!
//! Where that fails, such as with a symbol that is not in that library, the cell is linked as it always was. A dynamic library made
//! by rustc itself would not do: it hides the C functions below `tch`, which cells call through `tch`'s generic functions.

use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::layout::Layout;
use crate::memory::Memory;
use crate::tools;

/// What rustc itself calls where it is told nothing else.
const REAL: &str = "cc";
/// What `std` is linked with. Other libraries are linked with the shared library already.
const OF_STD: [&str; 7] = [
    "-lgcc_s",
    "-lutil",
    "-lrt",
    "-lpthread",
    "-lm",
    "-ldl",
    "-lc",
];

/// Bytes. The lesson's libraries are 114 MB; with seven times as much, the shared one would take seconds and fill the disk.
const TOO_LARGE: u64 = 800_000_000;

/// Links a cell: the arguments are rustc's to `cc`.
///
/// # Errors
/// If there is no `cc`.
pub fn link(arguments: &[OsString]) -> Result<ExitCode> {
    let quickly = Layout::find().and_then(|layout| quickly(&layout, arguments));
    if quickly.is_ok() {
        return Ok(ExitCode::SUCCESS);
    }
    let error = Command::new(REAL).args(arguments).exec();
    Err(error).with_context(|| format!("cannot start `{REAL}`, which links cells"))
}

fn quickly(layout: &Layout, arguments: &[OsString]) -> Result<()> {
    let words: Option<Vec<&str>> = arguments.iter().map(|word| word.to_str()).collect();
    let words = words.context("an argument is no Unicode")?;
    let libraries: Vec<&str> = words
        .iter()
        .copied()
        .filter(|word| is_crate(word))
        .collect();
    let Some(memory) = Memory::of_this_kernel(layout).filter(|_| !libraries.is_empty()) else {
        bail!("no cell of a kernel, or one without any crate");
    };
    let shared = memory.folder().join(name(&libraries)?);
    let failed = shared.with_extension("failed");
    if failed.is_file() {
        bail!("these libraries cannot be linked into one");
    }
    if !shared.is_file()
        && let Err(error) = make(&shared, &libraries, &words)
    {
        let _ = fs::write(failed, format!("{error:#}"));
        return Err(error);
    }
    tools::output(Command::new(REAL).args(short(&words, &shared, memory.folder()))).map(drop)
}

/// A crate's library; the compiler's own part is linked into every library.
fn is_crate(word: &str) -> bool {
    word.ends_with(".rlib") && !word.contains("compiler_builtins")
}

/// A name for the one library of many: it changes when one of them does.
fn name(libraries: &[&str]) -> Result<String> {
    let (mut text, mut size) = (String::new(), 0);
    for library in libraries {
        let data = fs::metadata(library).with_context(|| format!("no {library}"))?;
        let file = Path::new(library).file_name().unwrap_or_default();
        size += data.len();
        let _ = writeln!(text, "{file:?} {} {:?}", data.len(), data.modified()?);
    }
    if size > TOO_LARGE {
        bail!("{size} bytes of libraries are more than cells should wait for");
    }
    let hash = tools::sha256(text.as_bytes());
    Ok(format!(
        "{}cells-{}{}",
        env::consts::DLL_PREFIX,
        &hash[..16],
        env::consts::DLL_SUFFIX
    ))
}

/// Links all of the libraries' code into one, with everything visible.
fn make(shared: &Path, libraries: &[&str], words: &[&str]) -> Result<()> {
    let half = shared.with_extension(format!("half-{}", std::process::id()));
    let soname = shared.file_name().unwrap_or_default().to_string_lossy();
    let mut cc = Command::new(REAL);
    cc.arg("-Wl,--whole-archive")
        .args(libraries)
        .args(["-Wl,--no-whole-archive", "-Wl,-z,defs"])
        .arg(format!("-Wl,-soname,{soname}"));
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let of_the_cell = word.ends_with(".o")
            || word.starts_with("-Wl,--version-script")
            || ["-Wl,--no-undefined-version", "-Wl,--gc-sections"].contains(word);
        if *word == "-o" {
            rest.next();
            cc.arg("-o").arg(&half);
        } else if !of_the_cell && !is_crate(word) {
            cc.arg(word);
        }
    }
    let made = tools::output(&mut cc)
        .and_then(|_| fs::rename(&half, shared).context("cannot rename the shared library"));
    if made.is_err() {
        let _ = fs::remove_file(&half);
    }
    made
}

/// The arguments that link a cell with the shared library alone.
fn short(words: &[&str], shared: &Path, folder: &Path) -> Vec<OsString> {
    let mut short: Vec<OsString> = vec![PathBuf::from(shared).into(), "-Wl,-z,defs".into()];
    let mut found_at = OsString::from("-Wl,-rpath,");
    found_at.push(folder);
    short.push(found_at);
    for word in words {
        let elsewhere = word.starts_with("-l") && !OF_STD.contains(word);
        match *word {
            // rustc lists what the crates offer to C, which is in the shared library now.
            "-Wl,--no-undefined-version" => short.push("-Wl,--undefined-version".into()),
            word if is_crate(word) || elsewhere => {}
            word => short.push(word.into()),
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_linked_with_the_shared_library_alone() {
        let words = [
            "-Wl,--version-script=/t/list",
            "-Wl,--no-undefined-version",
            "/t/a.o",
            "-Wl,-Bstatic",
            "/d/libdiffusion-1.rlib",
            "/r/libcompiler_builtins-2.rlib",
            "-Wl,-Bdynamic",
            "/r/libstd-3.so",
            "-ltorch_cpu",
            "-lc",
            "-o",
            "/d/libctx.so",
        ];
        let expected = [
            "/m/libcells-4.so",
            "-Wl,-z,defs",
            "-Wl,-rpath,/m",
            "-Wl,--version-script=/t/list",
            "-Wl,--undefined-version",
            "/t/a.o",
            "-Wl,-Bstatic",
            "/r/libcompiler_builtins-2.rlib",
            "-Wl,-Bdynamic",
            "/r/libstd-3.so",
            "-lc",
            "-o",
            "/d/libctx.so",
        ];
        assert_eq!(
            short(&words, Path::new("/m/libcells-4.so"), Path::new("/m")),
            expected.map(OsString::from)
        );
    }
}
