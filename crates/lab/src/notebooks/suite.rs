//! `lab test`: every quick test, in the order in which a failure costs least; `lab test --long`: what takes longer.

use std::env;
use std::path::PathBuf;
use std::process::Command;

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
    notebooks(layout, &lab, &[])?;
    println!("\n== browser");
    tools::run(&mut lab.verb("browser")).context("the browser failed")?;
    println!("\nall tests passed");
    Ok(())
}

/// What [`test()`] leaves out because of its time: the tests that are marked `#[ignore = "slow: make test-long"]`, every cell
/// of the notebooks twice in a row, and every notebook in the browser to its end.
pub fn long(layout: &Layout) -> Result<()> {
    let lab = Lab::find(layout)?;
    // Not the examples in the documentation: `ignore` means there that they are not to be run.
    // One after the other: some of them measure how soon a kernel answers.
    let slow = [
        "test",
        "--workspace",
        "--tests",
        "--",
        "--ignored",
        "--test-threads=1",
    ];
    step(layout, "slow tests", &slow)?;
    println!("\n== notebooks, each cell twice in a row");
    notebooks(layout, &lab, &["--twice"])?;
    println!("\n== every notebook in the browser");
    tools::run(lab.verb("browser").arg("--every")).context("the browser failed")?;
    println!("\nall long tests passed");
    Ok(())
}

/// One call of cargo.
fn step(layout: &Layout, name: &str, arguments: &[&str]) -> Result<()> {
    println!("\n== {name}");
    let mut cargo = Command::new("cargo");
    variables::without_leftovers(&mut cargo)
        .args(arguments)
        .current_dir(&layout.root)
        // Cargo puts a library path on the loader's path only if it lies below `target`.
        .env("LIBTORCH", layout.libtorch_link());
    if name == "documentation" {
        cargo.env("RUSTDOCFLAGS", "-D warnings");
    }
    tools::run(&mut cargo).with_context(|| format!("this step failed: {name}"))
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
fn notebooks(layout: &Layout, lab: &Lab, flags: &[&str]) -> Result<()> {
    let mut first = super::lesson(layout)?;
    let second = first.split_off(FOLLOW_THE_VIDEO.min(first.len()));
    let mut rows = Vec::new();
    for (name, notebooks) in [("1", first), ("2", second)] {
        if !notebooks.is_empty() {
            let out = layout.target().join("lesson").join(name);
            let mut row = lab.verb("run");
            row.args(notebooks).args(flags);
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
