//! `lab test`: every quick test, in the order in which a failure costs least; `lab test --long`: what takes longer.

use std::env;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use kernel::machine::layout::Layout;
use kernel::machine::tools;
use kernel::variables;

/// How many notebooks lead to the end of the video: Rust in ten minutes, and five that follow it.
const FOLLOW_THE_VIDEO: usize = 6;

/// Formatting, lints, documentation, Rust's tests, the notebooks, the browser.
pub fn test(layout: &Layout) -> Result<()> {
    let lab = Lab::find(layout)?;
    let steps: [(&str, &[&str]); 4] = [
        ("formatting", &["fmt", "--all", "--check"]),
        (
            "lints",
            &[
                "clippy",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ],
        ),
        ("documentation", &["doc", "--workspace", "--no-deps"]),
        ("tests", &["test", "--workspace"]),
    ];
    for (name, arguments) in steps {
        step(layout, name, arguments)?;
    }
    println!("\n== notebooks");
    notebooks(layout, &lab)?;
    println!("\n== browser");
    tools::run(&mut lab.verb("browser")).context("the browser failed")?;
    println!("\nall tests passed");
    Ok(())
}

/// What [`test()`] leaves out because of its time: the tests that are marked `#[ignore = "slow: make test-long"]`, every cell
/// of the notebooks twice in a row, and every notebook in the browser to its end. All of it is run, whatever fails, and what it said
/// is kept in `target/test-long.log`.
pub fn long(layout: &Layout) -> Result<()> {
    let lab = Lab::find(layout)?;
    let log = layout.target().join("test-long.log");
    // Not the examples in the documentation: `ignore` means there that they are not to be run.
    // One after the other: some of them measure how soon a kernel answers.
    let slow = [
        "test",
        "--workspace",
        "--no-fail-fast",
        "--tests",
        "--",
        "--ignored",
        "--test-threads=1",
        "--nocapture",
    ];
    let mut twice = lab.verb("run");
    twice.arg("--twice").args(super::lesson(layout)?);
    let mut browser = lab.verb("browser");
    browser.arg("--every");
    let steps = [
        ("slow tests", cargo(layout, &slow)),
        ("notebooks, each cell twice in a row", twice),
        ("every notebook in the browser", browser),
    ];
    let mut tee = Command::new("tee")
        .arg(&log)
        .stdin(Stdio::piped())
        .spawn()
        .context("`tee` could not be started")?;
    let mut words = tee.stdin.take().context("`tee` takes no words")?;
    let mut failed = Vec::new();
    for (name, mut command) in steps {
        writeln!(words, "\n== {name}")?;
        let copy = || words.as_fd().try_clone_to_owned();
        command.stdout(copy()?).stderr(copy()?);
        match tools::run(&mut command) {
            Ok(()) => writeln!(words, "passed: {name}")?,
            Err(error) => {
                writeln!(words, "FAILED: {name}: {error:#}")?;
                failed.push(name);
            }
        }
    }
    drop(words);
    tee.wait().context("`tee` is lost")?;
    ensure!(
        failed.is_empty(),
        "failed: {}; what was said is in {}",
        failed.join("; "),
        log.display()
    );
    println!(
        "\nall long tests passed; what they said is in {}",
        log.display()
    );
    Ok(())
}

/// One call of cargo.
fn step(layout: &Layout, name: &str, arguments: &[&str]) -> Result<()> {
    println!("\n== {name}");
    let mut cargo = cargo(layout, arguments);
    if name == "documentation" {
        cargo.env("RUSTDOCFLAGS", "-D warnings");
    }
    tools::run(&mut cargo).with_context(|| format!("this step failed: {name}"))
}

fn cargo(layout: &Layout, arguments: &[&str]) -> Command {
    let mut cargo = Command::new("cargo");
    variables::without_leftovers(&mut cargo)
        .args(arguments)
        .current_dir(&layout.root)
        // Cargo puts a library path on the loader's path only if it lies below `target`.
        .env("LIBTORCH", layout.libtorch_link());
    cargo
}

/// The workbench as a process of its own: the runner becomes another program.
struct Lab {
    program: PathBuf,
    root: PathBuf,
}

impl Lab {
    /// Found before the tests, which may build this program anew and put it in this one's place.
    fn find(layout: &Layout) -> Result<Lab> {
        Ok(Lab {
            program: env::current_exe().context("the system does not say where this program is")?,
            root: layout.root.clone(),
        })
    }

    fn verb(&self, verb: &str) -> Command {
        let mut lab = Command::new(&self.program);
        lab.arg(verb).current_dir(&self.root);
        lab
    }
}

/// All notebooks in two rows at once: compiling a cell takes one core, training all, so the two fill each other's
/// gaps. The first row are those that follow the video: each takes up what the one before it saved.
fn notebooks(layout: &Layout, lab: &Lab) -> Result<()> {
    let mut first = super::lesson(layout)?;
    let second = first.split_off(FOLLOW_THE_VIDEO.min(first.len()));
    let mut rows = Vec::new();
    for (name, notebooks) in [("1", first), ("2", second)] {
        if !notebooks.is_empty() {
            let out = layout.target().join("lesson").join(name);
            let mut row = lab.verb("run");
            row.args(notebooks);
            row.arg("--out").arg(out);
            rows.push(row.spawn().context("the notebooks could not be started")?);
        }
    }
    // Both to their end, whatever comes of the first.
    let ends: Vec<_> = rows.iter_mut().map(|row| row.wait()).collect();
    for end in ends {
        ensure!(
            end?.success(),
            "a notebook failed; its own words stand above"
        );
    }
    Ok(())
}
