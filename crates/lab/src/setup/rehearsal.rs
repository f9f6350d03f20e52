//! A kernel started on trial, when all the rest is there.
//!
//! It fills the memory of the warm directory ([`kernel::memory`]), so that the first kernel of a class starts as quickly as any other;
//! and it shows before the class that a kernel starts and finds the lesson.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use kernel::machine::layout::{Layout, SUPPORT_CRATE};
use kernel::machine::{locks, tools, tree};
use kernel::speed::{self, SpeedUp};
use kernel::{memory, variables, warm};

use crate::setup::part::{Finding, Options};
use crate::setup::{net, python};

/// Which warm directory a memory belongs to, and which program filled it, with which toolchain.
fn stamp(layout: &Layout) -> Result<String> {
    let toolchain = layout.toolchain();
    let toolchain = toolchain
        .canonicalize()
        .with_context(|| format!("no {}", toolchain.display()))?;
    Ok(format!(
        "{}{} {}\n",
        memory::owner(&layout.seed())?,
        tools::sha256_file(&layout.launcher())?,
        toolchain.display()
    ))
}

/// Has a kernel been started with what is here now?
pub fn check(layout: &Layout, _deep: bool) -> Result<Finding> {
    let memory = layout.memory();
    match fs::read_to_string(memory.join(memory::STAMP)) {
        Ok(found) if found == stamp(layout)? => Ok(Finding::Found(format!(
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

/// Starts one, and stops it. Where it does not work with the speed-ups and does without them, all kernels do without from now on.
pub fn make(layout: &Layout, _options: &Options) -> Result<()> {
    net::loopback_up(layout)?;
    if !warm::is_fresh(layout) {
        bail!("the lesson's crates were edited meanwhile: run the same command again");
    }
    speed::set_plain(layout, None)?;
    let new = layout.kernel().join("memory.new");
    // Where kernels must build elsewhere because of the clone's path, the linker needs its library elsewhere too.
    let trial = layout.runs_among_others().map(|place| place.join("trial"));
    let trial = trial.unwrap_or_else(|| new.clone());
    drop(locks::runs(layout)?); // makes that place
    if rehearse(layout, &trial, false).is_err() {
        let words = layout.kernel().join("rehearsal-failed.log");
        let _ = fs::copy(layout.kernel().join("rehearsal.log"), &words);
        rehearse(layout, &trial, true)
            .context("no kernel could be started, with the speed-ups or without")?;
        let reason = format!(
            "with them a kernel on trial did not work; its words are in {}",
            words.display()
        );
        println!("  kernels start without the speed-ups: {reason}");
        speed::set_plain(layout, Some(&reason))?;
    }
    if trial != new {
        tools::remove_dir(&new)?;
        tree::clone(&trial, &new)?;
        tools::remove_dir(&trial)?;
    }
    tools::write_whole(&new.join(memory::STAMP), stamp(layout)?)?;
    tools::publish(&new, &layout.memory())
}

fn rehearse(layout: &Layout, memory: &Path, plain: bool) -> Result<()> {
    tools::remove_dir(memory)?;
    fs::create_dir_all(memory).with_context(|| format!("cannot make {}", memory.display()))?;
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
        .env(variables::ON_TRIAL, memory);
    match plain {
        true => program.env(variables::PLAIN, "1"),
        false => program.env_remove(variables::PLAIN),
    };
    tools::run_visibly(&mut program, "starting a kernel on trial")
}

/// What [`doctor`](crate::doctor) says about each speed-up.
pub fn speed_ups(layout: &Layout) -> Vec<(&'static str, String)> {
    let memory = layout.memory();
    if let Some(reason) = speed::plain(layout) {
        return vec![("all off", reason)];
    }
    let state = |speed_up: SpeedUp| match speed_up.uses(&memory) {
        0 => "on, but not used by the kernel on trial".to_owned(),
        1 => "on; the kernel on trial used it once".to_owned(),
        uses => format!("on; the kernel on trial used it {uses} times"),
    };
    SpeedUp::ALL
        .map(|speed_up| (speed_up.words(), state(speed_up)))
        .to_vec()
}
