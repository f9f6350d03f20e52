//! `lab test`: every test there is, in the order in which a failure costs least.

use std::process::Command;

use anyhow::{Context, Result};

use crate::layout::Layout;
use crate::tools;

/// Formatting, lints, documentation, Rust's tests, the notebooks, the browser.
pub fn test(layout: &Layout) -> Result<()> {
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
        println!("\n== {name}");
        let mut cargo = Command::new("cargo");
        tools::without_cargo_variables(&mut cargo)
            .args(arguments)
            .current_dir(&layout.root)
            // Cargo puts a library path on the loader's path only if it lies below `target`.
            .env("LIBTORCH", layout.libtorch_link());
        if name == "documentation" {
            cargo.env("RUSTDOCFLAGS", "-D warnings");
        }
        tools::run(&mut cargo).with_context(|| format!("the {name} are not right"))?;
    }
    // Each in a process of its own: the runner becomes another program. It is the copy that set-up
    // made, since the tests may have built this program anew and put it in this one's place.
    for (name, verb) in [("notebooks", "run"), ("browser", "browser")] {
        println!("\n== {name}");
        tools::run(
            Command::new(layout.launcher())
                .arg(verb)
                .current_dir(&layout.root),
        )
        .with_context(|| format!("the {name} failed"))?;
    }
    println!("\nall tests passed");
    Ok(())
}
