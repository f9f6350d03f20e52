//! The linker of cells: this program under that name, which has most of the work done before.
//!
//! To link a cell, a linker reads the 80 libraries below the support crate and copies what the cell needs: 140 ms, half of what the
//! compiler takes. So they are linked once, all of them and whole, into one shared library of 12 MB in the kernel's memory (200 ms); a
//! cell is linked with that in 37 ms. Cells that are linked so also have one copy of the local crates' state between them, not one each.
//! `cc` takes 6 ms of these to start what starts the linker, so it is asked once what it would start, and from then on that is started.
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

use serde_json::{Value, json};

use crate::machine::layout::Layout;
use crate::machine::tools;
use crate::memory::Memory;
use crate::speed::SpeedUp;

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
        SpeedUp::Linker.used();
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
    if tools::happened_lately(&failed) {
        bail!("these libraries cannot be linked into one");
    }
    if !shared.is_file()
        && let Err(error) = make(&shared, &libraries, &words)
    {
        let _ = fs::write(failed, format!("{error:#}"));
        return Err(error);
    }
    let short = short(&words, &shared, memory.folder());
    let direct = Direct::of(memory.folder(), &words);
    if let Some(mut linker) = direct.and_then(|direct| direct.command(&short))
        && tools::output(&mut linker).is_ok()
    {
        return Ok(());
    }
    tools::output(Command::new(REAL).args(short)).map(drop)
}

/// The linker behind `cc`, and what `cc` gives it around the words that it is given itself.
#[derive(Debug)]
struct Direct {
    linker: PathBuf,
    before: Vec<String>,
    after: Vec<String>,
}

/// Stands for the words in the question to `cc`.
const WORDS: &str = "the-words.o";

impl Direct {
    /// As it was noted, or noted now. None where `cc` is another one than GCC, or the linker is not the compiler's own.
    fn of(folder: &Path, words: &[&str]) -> Option<Direct> {
        let beside = words.iter().find_map(|word| word.strip_prefix("-B"))?;
        let linker = Path::new(beside).parent()?.join("rust-lld");
        let note = folder.join("linker.json");
        if let Ok(text) = fs::read(&note) {
            return Direct::of_note(&serde_json::from_slice(&text).ok()?)
                .filter(|known| known.linker == linker);
        }
        let direct = Direct::ask(linker);
        let noted = direct.as_ref().map(Direct::note).unwrap_or_default();
        // A full disk makes the next cell slower, and no more.
        let _ = tools::write_whole(&note, noted.to_string());
        direct
    }

    fn note(&self) -> Value {
        json!({"linker": self.linker, "before": self.before, "after": self.after})
    }

    fn of_note(note: &Value) -> Option<Direct> {
        let words = |name: &str| -> Option<Vec<String>> {
            let words = note[name].as_array()?.iter();
            words.map(|word| word.as_str().map(str::to_owned)).collect()
        };
        Some(Direct {
            linker: note["linker"].as_str()?.into(),
            before: words("before")?,
            after: words("after")?,
        })
    }

    fn ask(linker: PathBuf) -> Option<Direct> {
        let question = [
            "-###",
            "-shared",
            "-nodefaultlibs",
            "-fuse-ld=lld",
            WORDS,
            "-o",
            "library",
        ];
        let answer = Command::new(REAL).args(question).output().ok()?;
        let answer = String::from_utf8(answer.stderr).ok()?;
        let call = answer.lines().find(|line| line.contains("/collect2"))?;
        Direct::read(linker, call).filter(|direct| {
            let files = direct.before.iter().chain(&direct.after);
            direct.linker.is_file()
                && files
                    .filter(|word| word.starts_with('/'))
                    .all(|file| Path::new(file).is_file())
        })
    }

    /// What stands in a call of GCC's `collect2` before and after the words.
    fn read(linker: PathBuf, call: &str) -> Option<Direct> {
        let mut parts = (Vec::new(), Vec::new());
        let (mut is_after, mut rest) = (false, call.split_whitespace().skip(1));
        while let Some(word) = rest.next() {
            match word.trim_matches('"') {
                "-o" | "-plugin" => drop(rest.next()),
                WORDS => is_after = true,
                word if word.starts_with("-plugin-opt=") || word == "-fuse-ld=lld" => {}
                word if is_after => parts.1.push(word.to_owned()),
                word => parts.0.push(word.to_owned()),
            }
        }
        let (before, after) = parts;
        is_after.then_some(Direct {
            linker,
            before,
            after,
        })
    }

    /// The linker's own call. None if there is a word whose meaning only `cc` knows.
    fn command(&self, words: &[OsString]) -> Option<Command> {
        let mut command = Command::new(&self.linker);
        command.args(["-flavor", "gnu"]).args(&self.before);
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            let text = word.to_str()?;
            match text {
                "-m64" | "-nodefaultlibs" | "-shared" | "-fuse-ld=lld" => {}
                "-o" | "-L" => drop(command.arg(word).arg(rest.next()?)),
                _ if text.starts_with("-B") => {}
                _ if text.starts_with("-Wl,") => drop(command.args(text.split(',').skip(1))),
                _ if text.starts_with("-l") || !text.starts_with('-') => drop(command.arg(word)),
                _ => return None,
            }
        }
        command.args(&self.after);
        Some(command)
    }
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
    fn the_linker_is_called_as_cc_calls_it() {
        let call = " /g/collect2 -plugin /g/lto.so \"-plugin-opt=/g/wrapper\" --build-id -shared \"-fuse-ld=lld\" -o library \
            /g/crti.o -L/g the-words.o /g/crtn.o";
        let direct = Direct::read("/r/rust-lld".into(), call).unwrap();
        assert_eq!(
            direct.before,
            ["--build-id", "-shared", "/g/crti.o", "-L/g"]
        );
        assert_eq!(direct.after, ["/g/crtn.o"]);
        let direct = Direct::of_note(&direct.note()).unwrap();
        let words = [
            "-Wl,-z,defs",
            "-m64",
            "/t/a.o",
            "-lc",
            "-L",
            "/l",
            "-o",
            "/d/x.so",
            "-B/r/gcc-ld",
        ];
        let command = direct.command(&words.map(OsString::from)).unwrap();
        let words: Vec<&str> = command
            .get_args()
            .filter_map(|word| word.to_str())
            .collect();
        let expected = "-flavor gnu --build-id -shared /g/crti.o -L/g -z defs /t/a.o -lc -L /l -o /d/x.so /g/crtn.o";
        assert_eq!(words.join(" "), expected);
        assert!(direct.command(&["-pg".into()]).is_none());
        assert!(Direct::read("/r/rust-lld".into(), "clang -cc1 the-words").is_none());
    }

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
