//! A kernel started on trial, when all the rest is there.
//!
//! It fills the memory of the warm directory ([`crate::memory`]), so that the first kernel of a class starts as quickly as any other;
//! and it shows before the class that a kernel starts and finds the lesson.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::layout::{Layout, SUPPORT_CRATE};
use crate::parts::{Finding, Options};
use crate::{memory, net, python, seed, tools};

/// The file in a memory that says where it belongs.
const STAMP: &str = "rehearsed";

/// Which warm directory a memory belongs to, and which program filled it.
fn stamp_of_seed(layout: &Layout) -> Result<String> {
    let path = layout.seed().join(seed::STAMP);
    let seed =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(format!(
        "{seed} {}\n",
        tools::sha256_file(&layout.launcher())?
    ))
}

/// Has a kernel been started with what is here now?
pub fn check(layout: &Layout, _deep: bool) -> Result<Finding> {
    let memory = layout.seed().join(memory::FOLDER);
    match fs::read_to_string(memory.join(STAMP)) {
        Ok(found) if found == stamp_of_seed(layout)? => Ok(Finding::Found(format!(
            "a kernel was started on trial; what it learned is in {}",
            memory.display()
        ))),
        Ok(_) => Ok(Finding::Wrong(
            "the kernel changed since one was started on trial".to_owned(),
        )),
        Err(_) => Ok(Finding::Missing(
            "no kernel was started on trial yet".to_owned(),
        )),
    }
}

/// Starts one, and stops it.
pub fn make(layout: &Layout, _options: &Options) -> Result<()> {
    net::loopback_up(layout)?;
    if !seed::is_fresh(layout) {
        bail!("the lesson's crates were edited meanwhile: run the same command again");
    }
    let new = layout.kernel().join("memory.new");
    tools::remove_dir(&new)?;
    fs::create_dir_all(&new).with_context(|| format!("cannot make {}", new.display()))?;
    let mut program = python::command(layout);
    program
        .arg("-B")
        .arg(layout.root.join("crates/lab/python/rehearse.py"))
        .arg("--notebooks")
        .arg(layout.notebooks())
        .arg("--dependency")
        .arg(Path::new("..").join(SUPPORT_CRATE)) // as the notebooks name it
        .arg("--log")
        .arg(layout.kernel().join("rehearsal.log"))
        .env(memory::ON_TRIAL, &new);
    tools::run_visibly(&mut program, "starting a kernel on trial")
        .context("no kernel could be started")?;
    tools::write_whole(&new.join(STAMP), stamp_of_seed(layout)?)?;
    let house = seed::house_lock(layout)?;
    house.lock().context("cannot lock the kernels' folder")?;
    let memory = layout.seed().join(memory::FOLDER);
    tools::remove_dir(&memory)?;
    fs::rename(&new, &memory).with_context(|| format!("cannot make {}", memory.display()))
}
