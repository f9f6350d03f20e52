//! An edit of any local crate reaches a kernel: the support crate's, and those of the crates that it depends on.
//!
//! The tests take the crates from the real manifests, so a new path dependency is covered once it stands there. The quick ones (five
//! seconds) use the real compilers on crates of the same names and with the same dependencies, but with nothing in them; the slow one
//! compiles the real crates, once and again after each edit, which takes about a minute each.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::own::Own;
use common::{Scratch, text};
use kernel::local::{self, LocalCrate};
use kernel::machine::layout::{Layout, SUPPORT_CRATE};
use kernel::machine::{compilers, tools};
use kernel::{variables, warm};
use lab::setup::part::Options;
use lab::setup::{analyzer, seed};
use serde_json::json;

/// The local crates by name, each with the names of the local crates that it depends on.
type Edges = BTreeMap<String, Vec<String>>;

fn real_edges() -> Edges {
    let crates = local::crates(&Layout::find().unwrap()).unwrap();
    for name in ["diffusion", "figures", "networks", "ops"] {
        let found = crates.iter().any(|local| local.name == name);
        assert!(found, "{name} is not among the local crates: {crates:?}");
    }
    let name_of = |folder: PathBuf| {
        let found = crates.iter().find(|local| local.folder == folder);
        found.unwrap().name.clone()
    };
    let edges = crates.iter().map(|local| {
        let named = local::path_dependencies(&local.folder.join("Cargo.toml")).unwrap();
        (local.name.clone(), named.into_iter().map(name_of).collect())
    });
    edges.collect()
}

/// The text of a crate's function `followed`: its own number and those of the crates below it.
fn followed(number: u32, below: &[String]) -> String {
    let below: Vec<String> = below
        .iter()
        .map(|name| format!(" + {}::followed()", name.replace('-', "_")))
        .collect();
    format!(
        "\n/// For a test.\npub fn followed() -> u32 {{\n    {number}{}\n}}\n",
        below.concat()
    )
}

/// Calls the function `run` of a cell's library.
fn call(library: &Path) -> u32 {
    let (python, _) = compilers::python().unwrap();
    let script = "import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).run())";
    let printed = tools::output(Command::new(python).args(["-c", script]).arg(library)).unwrap();
    printed.parse().unwrap()
}

/// Edits each crate in turn, and compiles cells before and after.
fn cells_follow(name: &str, edges: &Edges) {
    let own = Own::on(Scratch::new(name), ("diffusion", SUPPORT_CRATE));
    let write = |name: &str, number: u32| {
        let code = followed(number, &edges[name]);
        own.write(&format!("crates/{name}/src/lib.rs"), &code);
    };
    for (name, below) in edges {
        let below: Vec<String> = below
            .iter()
            .map(|name| format!("{name} = {{ path = \"../{name}\" }}\n"))
            .collect();
        own.write_crate(&format!("crates/{name}"), name, "", &below.concat());
        write(name, 1);
    }
    let mut cells = 0;
    let mut compile = || {
        cells += 1;
        let code = format!(
            "#[unsafe(no_mangle)] pub extern \"C\" fn run() -> u32 {{ diffusion::followed() + 0 * {cells} }}"
        );
        let (output, real) = own.compile(&code);
        assert!(output.status.success(), "{}", text(&output));
        (call(&own.library_path()), real)
    };
    let mut expected = compile().0;
    for (step, name) in edges.keys().enumerate() {
        assert_eq!(compile(), (expected, false), "before {name} is edited");
        write(name, 2 + step as u32);
        expected = compile_after(&mut compile, name, expected);
    }
    assert_eq!(compile(), (expected, false));
}

/// What a cell says after an edit, which only the real cargo can bring about.
fn compile_after(compile: &mut impl FnMut() -> (u32, bool), name: &str, before: u32) -> u32 {
    let (value, real) = compile();
    assert!(
        real,
        "the real cargo was not called after an edit of {name}"
    );
    assert!(value > before, "the edit of {name} did not reach the cell");
    value
}

#[test]
fn cells_follow_an_edit_of_each_real_crate() {
    cells_follow("follow-real", &real_edges());
}

#[test]
fn cells_follow_an_edit_two_crates_below() {
    let edges = [
        ("diffusion", &["figures", "ops"][..]),
        ("figures", &["ops-core"]),
        ("ops", &["ops-core"]),
        ("ops-core", &[]),
    ];
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let edges = edges.map(|(name, below)| (name.to_owned(), owned(below)));
    cells_follow("follow-deep", &Edges::from(edges));
}

/// A copy of this clone's manifests and crates, with its libtorch.
fn copy_of_this_clone(scratch: &Scratch, cache: PathBuf) -> Layout {
    let (real, root) = (Layout::find().unwrap(), scratch.0.join("clone"));
    let layout = Layout { root, cache };
    fs::create_dir_all(layout.kernel()).unwrap();
    for name in ["Cargo.toml", "Cargo.lock", ".cargo", "crates"] {
        copy(&real.root.join(name), &layout.root.join(name));
    }
    symlink(
        real.libtorch_link().canonicalize().unwrap(),
        layout.libtorch_link(),
    )
    .unwrap();
    layout
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let name = entry.unwrap().file_name();
            if name != "target" {
                copy(&from.join(&name), &to.join(&name));
            }
        }
    } else {
        fs::copy(from, to).unwrap();
    }
}

#[test]
fn an_edit_of_each_real_crate_makes_the_warm_directory_stale() {
    if !Layout::find().unwrap().libtorch_link().exists() {
        println!("skipped: no libtorch yet");
        return;
    }
    let scratch = Scratch::new("stale");
    let layout = copy_of_this_clone(&scratch, scratch.0.join("cache"));
    let write_stamp = || {
        let stamp = warm::stamp(&layout).unwrap();
        tools::write_whole(&layout.seed().join(warm::STAMP), stamp).unwrap();
    };
    write_stamp();
    let crates = local::crates(&layout).unwrap();
    for local in &crates {
        assert!(local.folder.starts_with(&layout.root), "{local:?}");
        fs::create_dir_all(local.folder.join("tests")).unwrap();
        fs::write(local.folder.join("tests/more.rs"), "").unwrap();
        assert!(warm::is_fresh(&layout), "a test of {}", local.name);
        append(local, &followed(1, &[]));
        assert!(!warm::is_fresh(&layout), "{}", local.name);
        write_stamp();
        assert!(warm::is_fresh(&layout));
    }
}

fn append(local: &LocalCrate, code: &str) {
    let path = local.folder.join("src/lib.rs");
    let old = fs::read_to_string(&path).unwrap();
    fs::write(&path, old + code).unwrap();
}

/// A real kernel on a copy of this clone, started again after an edit of each crate. It takes about two minutes, and one more for
/// each crate; set-up must be complete.
#[test]
#[ignore = "slow: make test-long"]
fn a_real_kernel_follows_an_edit_of_each_crate() {
    let real = Layout::find().unwrap();
    let scratch = Scratch::new("follow-kernel");
    let layout = copy_of_this_clone(&scratch, real.cache.clone());
    let (edges, crates) = (real_edges(), local::crates(&layout).unwrap());
    for local in &crates {
        append(local, &followed(1, &edges[&local.name]));
    }
    fs::copy(real.launcher(), layout.launcher()).unwrap();
    analyzer::make(&layout, &Options::default()).unwrap();
    seed::make(&layout, &Options::default()).unwrap();
    let kernel = json!({
        "argv": [layout.launcher(), "--root", layout.root, "start", "{connection_file}"],
        "display_name": "Rust",
        "language": "rust",
        "interrupt_mode": "message",
        "env": variables::of_kernels(&layout).unwrap().into_iter().collect::<BTreeMap<_, _>>(),
    });
    let path = scratch.0.join("share/jupyter/kernels/rust/kernel.json");
    tools::write_whole(&path, kernel.to_string()).unwrap();
    let mut expected = number_in_a_kernel(&real, &layout, &scratch);
    for local in &crates {
        let path = local.folder.join("src/lib.rs");
        let code = fs::read_to_string(&path).unwrap();
        let [old, new] = [1, 2].map(|number| followed(number, &edges[&local.name]));
        assert!(code.contains(&old));
        fs::write(&path, code.replace(&old, &new)).unwrap();
        let found = number_in_a_kernel(&real, &layout, &scratch);
        assert!(found > expected, "the edit of {} did not show", local.name);
        expected = found;
    }
}

/// What `followed()` gives in a new kernel.
fn number_in_a_kernel(real: &Layout, layout: &Layout, scratch: &Scratch) -> u32 {
    let script = r#"
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from kernel import Kernel
sys.prefix = sys.argv[2]  # where `Kernel` looks for the kernel spec
with Kernel(Path(sys.argv[2]), Path(sys.argv[2], "kernel.log")) as kernel:
    for cell in (f":dep diffusion = {{ path = {sys.argv[3]!r} }}".replace("'", '"'), 'println!("{}", diffusion::followed());'):
        result = kernel.run(cell, 600)
        if result.status != "ok":
            sys.exit(f"{cell}: {result}")
print(result.text("stdout"))
"#;
    let mut python = Command::new(real.python());
    variables::without_leftovers(&mut python)
        .args(["-B", "-c", script])
        .arg(real.root.join("crates/lab/python"))
        .arg(&scratch.0)
        .arg(layout.support_crate());
    tools::output(&mut python).unwrap().parse().unwrap()
}
