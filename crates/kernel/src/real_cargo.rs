//! The real cargo, behind the one that a kernel sees ([`crate::cargo`]).

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::machine::tree;
use crate::memory;

/// Becomes the real cargo; returns only if that cannot be started.
///
/// # Errors
/// If it cannot be started, or what was lent cannot be copied.
pub fn hand_on(mut cargo: Command) -> Result<ExitCode> {
    take_over()?;
    let error = cargo.exec();
    Err(error).with_context(|| cannot_start(&cargo))
}

/// Copies what was lent to this kernel: the real cargo writes there, so the files must be the kernel's own first.
///
/// # Errors
/// If they cannot be copied.
pub fn take_over() -> Result<()> {
    memory::own_directory()
        .map_or(Ok(()), |own| tree::take_over(&own))
        .context("cannot copy the warm build directory")
}

/// The error when the real cargo cannot be started.
pub fn cannot_start(cargo: &Command) -> String {
    format!(
        "cannot start {}: run `make lab`",
        Path::new(cargo.get_program()).display()
    )
}
