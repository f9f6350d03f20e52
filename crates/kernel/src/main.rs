//! One program with four names: `kernel`, which Jupyter starts; and in a kernel's toolchain `cargo`, the compiler's wrapper and the linker.

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use kernel::machine::layout::{CARGO, LINKER, Layout, WITNESS};
use kernel::{cargo, cell_linker, janitor, recompile, start};

fn main() -> ExitCode {
    let mut arguments = env::args_os();
    let program = arguments.next().unwrap_or_default();
    let arguments: Vec<OsString> = arguments.collect();
    let named = arguments.first().is_some_and(|word| word == "--root");
    let end = match Path::new(&program)
        .file_name()
        .and_then(|name| name.to_str())
    {
        Some(CARGO) => cargo::as_cargo(&program, &arguments),
        Some(WITNESS) => recompile::witness(&arguments),
        Some(LINKER) => cell_linker::link(&arguments),
        _ if named && arguments.len() > 1 => act(&arguments[2..], Some(&arguments[1])),
        _ => act(&arguments, None),
    };
    match end {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `kernel start CONNECTION_FILE` and `kernel janitor KERNEL FOLDER [SERVER]`; after `--root CLONE` for another clone than the one that
/// this program was built in.
fn act(arguments: &[OsString], root: Option<&OsString>) -> Result<ExitCode> {
    let words: Vec<&Path> = arguments.iter().map(Path::new).collect();
    let number = |word: &Path| word.to_str().and_then(|word| word.parse().ok());
    match words.as_slice() {
        [verb, connection] if verb.as_os_str() == "start" => {
            let mut layout = Layout::find()?;
            if let Some(root) = root {
                layout.root = root.into();
            }
            start::kernel(&layout, connection)?;
        }
        [verb, kernel, folder, server @ ..] if verb.as_os_str() == "janitor" => {
            let Some(kernel) = number(kernel) else {
                bail!("{} is no process", kernel.display());
            };
            janitor::janitor(
                kernel,
                folder,
                server.first().and_then(|server| number(server)),
            );
        }
        _ => bail!(
            "this program is for Jupyter, which starts it with `start` and a connection file; `make lab` opens JupyterLab"
        ),
    }
    Ok(ExitCode::SUCCESS)
}
