//! A cell compiled by the compiler alone.
//!
//! The first time, cargo compiles; the compiler is called through this program, which notes the call ([`witness`]) under the key of
//! the circumstances. The next cells differ in nothing but their text, so the same call compiles them, and what the compiler says is passed to
//! evcxr in the form that cargo gives it.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use crate::machine::layout::{LINKER, Layout, WITNESS};
use crate::memory::Memory;
use crate::real_cargo;
use crate::speed::SpeedUp;
use crate::variables::{self, PRELOAD, WITNESS_KEY};

/// evcxr's name for the crate of every cell.
const CELL: &str = "ctx";
/// Cargo's exit code when something does not compile.
const DOES_NOT_COMPILE: u8 = 101;

/// Compiles the cell as it was compiled before, or by the real cargo and with a witness. `bin` is where this program has its other names.
pub fn compile(memory: &Memory, key: &str, bin: &Path, mut real: Command) -> Result<ExitCode> {
    let known = memory.recall(key, "command");
    if let Some(mut call) = known.as_deref().and_then(Call::read) {
        if cfg!(target_os = "linux") && !call.names_a_linker() {
            let linker = bin.join(LINKER);
            call.command.arg(format!("-Clinker={}", linker.display()));
        }
        if let Some(end) = call.again()? {
            SpeedUp::Compiler.used();
            return Ok(end);
        }
    }
    if env::var_os("RUSTC_WRAPPER").is_none_or(|wrapper| wrapper.is_empty()) {
        real.env("RUSTC_WRAPPER", bin.join(WITNESS))
            .env(WITNESS_KEY, key);
    }
    real_cargo::hand_on(real)
}

/// Notes a cell's call and becomes the compiler.
///
/// # Errors
/// If there is no compiler, or it cannot be started.
pub fn witness(arguments: &[OsString]) -> Result<ExitCode> {
    let Some((compiler, words)) = arguments.split_first() else {
        bail!("{WITNESS} is for cargo, which names the compiler");
    };
    let is_cell = words
        .windows(2)
        .any(|pair| pair[0] == "--crate-name" && pair[1] == CELL);
    if let (true, Ok(key)) = (is_cell, env::var(WITNESS_KEY))
        && let Some(memory) = Layout::find()
            .ok()
            .and_then(|layout| Memory::of_this_kernel(&layout))
        && let Some(note) = note(compiler, words)
    {
        // A full disk makes the next cell slower, and no more.
        let _ = memory.keep(&key, "command", &note.to_string());
    }
    let error = Command::new(compiler).args(words).exec();
    Err(error).with_context(|| format!("cannot start {}", Path::new(compiler).display()))
}

/// A call of the compiler as JSON. None if it has other than Unicode in it.
fn note(compiler: &OsString, words: &[OsString]) -> Option<Value> {
    let mut set = Map::new();
    for (name, value) in env::vars_os() {
        let name = name.to_str()?;
        if variables::find(name).is_some_and(|variable| variable.of_calls) {
            set.insert(name.to_owned(), value.to_str()?.into());
        }
    }
    let words: Option<Vec<&str>> = words.iter().map(|word| word.to_str()).collect();
    Some(json!({
        "compiler": compiler.to_str()?,
        "words": words?,
        "folder": env::current_dir().ok()?.to_str()?,
        "set": set,
    }))
}

struct Call {
    command: Command,
    /// Where the library of the cell will be.
    library: PathBuf,
}

impl Call {
    /// A noted call. None if it is not whole, or if what it needs is gone: then cargo may know why.
    fn read(note: &str) -> Option<Call> {
        let note: Value = serde_json::from_str(note).ok()?;
        let words: Option<Vec<&str>> = note["words"]
            .as_array()?
            .iter()
            .map(Value::as_str)
            .collect();
        let words = words?;
        let after = |word: &str| words.iter().skip_while(move |found| **found != word).nth(1);
        let folder = Path::new(after("--out-dir")?);
        let externs = words.iter().filter_map(|word| word.split_once('='));
        let mut crates =
            externs.filter(|(_, path)| path.ends_with(".rlib") || path.ends_with(".rmeta"));
        if !crates.all(|(_, path)| Path::new(path).is_file()) {
            return None;
        }
        // In cargo's newer form of a build directory it is the cell's alone, and not in the warm one.
        fs::create_dir_all(folder).ok()?;
        let mut command = Command::new(note["compiler"].as_str()?);
        command.args(&words).current_dir(note["folder"].as_str()?);
        for (name, value) in note["set"].as_object()? {
            command.env(name, value.as_str()?);
        }
        let name = format!(
            "{}{CELL}{}",
            env::consts::DLL_PREFIX,
            env::consts::DLL_SUFFIX
        );
        Some(Call {
            command,
            library: folder.join(name),
        })
    }

    fn names_a_linker(&self) -> bool {
        self.command
            .get_args()
            .any(|word| word.to_string_lossy().contains("linker="))
    }

    /// Compiles, and passes on what the compiler says. None if it failed for another reason than what stands in the cell, such as a full disk or
    /// a library that is gone: cargo may know what to do, and its words are not taken for the learner's mistake.
    fn again(mut self) -> Result<Option<ExitCode>> {
        let program = Path::new(self.command.get_program()).to_owned();
        // In a group of its own the compiler does not hear Stop, so it needs no library that lets it go on.
        self.command.process_group(0).env_remove(PRELOAD);
        let mut compiler = self
            .command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let in_the_cell = match compiler.stderr.take().map_or(Ok(false), pass_on) {
            Ok(in_the_cell) => in_the_cell,
            Err(error) => {
                let _ = compiler.kill();
                let _ = compiler.wait();
                return Err(error);
            }
        };
        let well = compiler.wait().context("the compiler is lost")?.success();
        if !well && !in_the_cell {
            return Ok(None);
        }
        let mut out = std::io::stdout().lock();
        if well && self.library.is_file() {
            let artifact = json!({"reason": "compiler-artifact", "target": {"name": CELL}, "filenames": [self.library]});
            writeln!(out, "{artifact}")?;
        }
        writeln!(
            out,
            "{}",
            json!({"reason": "build-finished", "success": well})
        )?;
        Ok(Some(match well {
            true => ExitCode::SUCCESS,
            false => ExitCode::from(DOES_NOT_COMPILE),
        }))
    }
}

/// What the compiler says, line by line, in the form that cargo gives it. Returns whether an error has a place in the cell. Errors without a
/// place are kept back until one has: if there is none, cargo will say them.
fn pass_on(words: ChildStderr) -> Result<bool> {
    let mut out = std::io::stdout().lock();
    let (mut in_the_cell, mut kept_back) = (false, Vec::new());
    for line in BufReader::new(words).split(b'\n') {
        let line = line.context("cannot read what the compiler says")?;
        match serde_json::from_slice::<Value>(&line) {
            Ok(said) if said["$message_type"] == "artifact" => {}
            Ok(said) => {
                let has_place = said["spans"]
                    .as_array()
                    .is_some_and(|spans| !spans.is_empty());
                in_the_cell |= has_place && said["level"] == "error";
                let said = in_cargos_words(advised(said));
                match in_the_cell || has_place {
                    true => writeln!(out, "{said}")?,
                    false => kept_back.push(said),
                }
            }
            Err(_) => eprintln!("{}", String::from_utf8_lossy(&line)),
        }
    }
    if in_the_cell {
        for said in kept_back {
            writeln!(out, "{said}")?;
        }
    }
    Ok(in_the_cell)
}

/// The compiler's message, with advice for a notebook where the compiler's own is for a program: a variable that hides a function of the
/// same name stays until it is forgotten.
fn advised(mut message: Value) -> Value {
    if message["code"]["code"] != "E0618" {
        return message;
    }
    let spans = message["spans"].as_array();
    let labels = spans
        .into_iter()
        .flatten()
        .filter_map(|span| span["label"].as_str());
    let name = labels
        .filter_map(|label| label.strip_prefix('`')?.split_once("` has type"))
        .next();
    let Some((name, _)) = name else {
        return message;
    };
    let advice = format!(
        "the variable `{name}` hides the function `{name}`. Call the variable something else; \
         this cell forgets it: let {name} = String::new(); drop({name});"
    );
    if let Some(children) = message["children"].as_array_mut() {
        // evcxr shows a child that has a place, and one outside the cell below the cell's lines.
        children.push(json!({"level": "help", "message": advice, "spans": [{}], "children": []}));
    }
    message
}

/// One of the compiler's messages as cargo passes it on.
fn in_cargos_words(message: Value) -> Value {
    json!({"reason": "compiler-message", "target": {"name": CELL}, "message": message})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hidden_function_is_explained() {
        let message = |code: &str, label: &str| json!({"code": {"code": code}, "spans": [{"label": null}, {"label": label}], "children": []});
        let hidden = advised(message("E0618", "`psnr` has type `f64`"));
        let words = hidden["children"][0]["message"]
            .as_str()
            .unwrap_or_default();
        assert!(words.contains("drop(psnr);"), "{hidden}");
        for other in [
            message("E0618", "call expression"),
            message("E0308", "`x` has type `f64`"),
        ] {
            assert_eq!(advised(other.clone()), other);
        }
    }
}
