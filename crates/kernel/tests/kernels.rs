//! The directories that kernels build in: made, shared safely, and gone when the kernel is.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{Scratch, names, text};
use kernel::machine::layout::Layout;
use kernel::machine::{compilers, tools, tree};
use kernel::{janitor, variables, warm};

/// A clone whose warm directory is tiny and whose kernel only says where it builds, and waits.
fn clone_with_fake_kernel(scratch: &Scratch) -> Layout {
    let layout = scratch.layout();
    fs::create_dir_all(layout.seed().join("cell")).unwrap();
    let libraries = layout
        .toolchain()
        .join("lib/rustlib")
        .join(compilers::host().unwrap())
        .join("lib");
    fs::create_dir_all(&libraries).unwrap();
    let standard = format!("libstd-1{}", std::env::consts::DLL_SUFFIX);
    fs::write(libraries.join(standard), "").unwrap();
    fs::write(layout.seed().join("cell/Cargo.toml"), "").unwrap();
    fs::write(scratch.0.join("connection.json"), "{}").unwrap();
    let program = layout
        .evcxr()
        .strip_prefix(&scratch.0)
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    scratch.script(
        &program,
        "test -f $EVCXR_TMPDIR/Cargo.toml && env > $EVCXR_TMPDIR/env && mv $EVCXR_TMPDIR/env $EVCXR_TMPDIR/started\nsleep 60",
    );
    layout
}

/// The program on a scratch clone.
fn program(layout: &Layout) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_kernel"));
    program
        .arg("--root")
        .arg(&layout.root)
        .env("DIFFUSION_CACHE", &layout.cache);
    program
}

/// Starts a kernel in a process group of its own, as Jupyter does, and waits until it is up.
fn start(scratch: &Scratch, layout: &Layout) -> Child {
    start_for(scratch, layout, None)
}

/// [`start`] on behalf of a server.
fn start_for(scratch: &Scratch, layout: &Layout, server: Option<u32>) -> Child {
    let child = program(layout)
        .arg("start")
        .arg(scratch.0.join("connection.json"))
        .envs(server.map(|id| ("JPY_PARENT_PID", id.to_string())))
        .process_group(0)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = layout
        .runs()
        .join(child.id().to_string())
        .join("cell/started");
    eventually("the kernel starts", || started.exists());
    child
}

fn eventually(what: &str, mut happens: impl FnMut() -> bool) {
    let began = Instant::now();
    while !happens() {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "waited in vain: {what}"
        );
        sleep(Duration::from_millis(50));
    }
}

fn kill_group(child: &mut Child) {
    let group = format!("-{}", child.id());
    assert!(
        Command::new("kill")
            .args(["-9", "--", &group])
            .status()
            .unwrap()
            .success()
    );
    child.wait().unwrap();
}

/// By the link that new kernels follow, or by what `cargo run` left, it would be led elsewhere.
#[test]
fn a_kernel_is_led_to_the_edition_of_its_toolchain() {
    let scratch = Scratch::new("led");
    let layout = clone_with_fake_kernel(&scratch);
    let edition = scratch.0.join("clone/target/kernel/toolchain-7");
    fs::rename(layout.toolchain(), &edition).unwrap();
    symlink("toolchain-7", layout.toolchain()).unwrap();
    let sysroot = tools::output(Command::new("rustc").args(["--print", "sysroot"])).unwrap();
    symlink(Path::new(&sysroot).join("bin"), edition.join("bin")).unwrap();
    let mut child = program(&layout)
        .arg("start")
        .arg(scratch.0.join("connection.json"))
        .env("RUSTUP_TOOLCHAIN", layout.toolchain())
        .env("CARGO", "/somewhere/else/bin/cargo")
        .env("LD_LIBRARY_PATH", "/libtorch")
        .process_group(0)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let id = child.id().to_string();
    let started = layout.runs().join(id).join("cell/started");
    eventually("the kernel starts", || started.exists());
    let environment = fs::read_to_string(started).unwrap();
    kill_group(&mut child);
    let value = |name: &str| {
        let lines = environment.lines();
        let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        values.next()
    };
    let edition = edition.to_str().unwrap();
    assert_eq!(value("RUSTUP_TOOLCHAIN"), Some(edition));
    assert_eq!(value("LAB_TOOLCHAIN"), Some(edition));
    assert_eq!(value("CARGO"), None);
    let first = |name| value(name).and_then(|list| list.split(':').next());
    assert_eq!(first("PATH"), Some(&*format!("{edition}/bin")));
    let libraries = format!(
        "{edition}/lib/rustlib/{}/lib:/libtorch",
        compilers::host().unwrap()
    );
    assert_eq!(value("LD_LIBRARY_PATH"), Some(&*libraries));
}

#[test]
fn a_killed_kernel_leaves_no_directory_and_its_neighbour_stays() {
    let scratch = Scratch::new("kill");
    let layout = clone_with_fake_kernel(&scratch);
    let (mut first, mut second) = (start(&scratch, &layout), start(&scratch, &layout));
    assert_eq!(names(&layout.runs()).len(), 2);
    kill_group(&mut first);
    eventually("the first one's directory goes", || {
        names(&layout.runs()) == [second.id().to_string()]
    });
    assert!(
        layout
            .runs()
            .join(second.id().to_string())
            .join("cell/started")
            .exists()
    );
    kill_group(&mut second);
    eventually("the second one's directory goes", || {
        names(&layout.runs()).is_empty()
    });
}

#[test]
fn a_kernel_ends_when_its_server_is_gone() {
    let scratch = Scratch::new("orphan");
    let layout = clone_with_fake_kernel(&scratch);
    // A server that starts a kernel in a group of its own, and waits.
    let words = "set -m; JPY_PARENT_PID=$$ \"$@\" & wait";
    let kernel = program(&layout);
    let mut server = Command::new("bash")
        .args(["-c", words, "bash"])
        .arg(kernel.get_program())
        .args(kernel.get_args())
        .arg("start")
        .arg(scratch.0.join("connection.json"))
        .env("DIFFUSION_CACHE", &layout.cache)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the kernel starts", || {
        names(&layout.runs())
            .iter()
            .any(|id| layout.runs().join(id).join("cell/started").exists())
    });
    let id: String = names(&layout.runs()).remove(0);
    sleep(Duration::from_secs(3));
    assert_eq!(names(&layout.runs()), [&*id], "its server lives");
    server.kill().unwrap();
    server.wait().unwrap();
    eventually("its directory goes", || names(&layout.runs()).is_empty());
    // One that nobody has asked about yet is still listed, without its words.
    let words = fs::read(Path::new("/proc").join(id).join("cmdline"));
    assert!(words.unwrap_or_default().is_empty(), "the kernel lives");
}

#[test]
fn a_server_in_another_count_of_processes_ends_nobody() {
    let scratch = Scratch::new("namespace");
    let layout = clone_with_fake_kernel(&scratch);
    let mut kernel = start_for(&scratch, &layout, Some(u32::MAX / 2));
    sleep(Duration::from_secs(5));
    assert!(kernel.try_wait().unwrap().is_none());
    kill_group(&mut kernel);
}

#[test]
fn leftovers_of_a_crash_are_swept_and_living_kernels_are_not() {
    let scratch = Scratch::new("sweep");
    let runs = scratch.0.join("run");
    for name in ["crashed", "half-made", "alive"] {
        fs::create_dir_all(runs.join(name).join("cell")).unwrap();
    }
    File::create(runs.join("crashed/owner")).unwrap();
    let alive = File::create(runs.join("alive/owner")).unwrap();
    alive.lock().unwrap();
    janitor::sweep(&runs).unwrap();
    assert_eq!(names(&runs), ["alive"]);
    drop(alive);
    janitor::sweep(&runs).unwrap();
    assert!(names(&runs).is_empty());
}

#[test]
fn a_kernel_says_what_is_missing() {
    let scratch = Scratch::new("bare");
    let layout = scratch.layout();
    let connection = scratch.0.join("connection.json");
    let fails_with = |words: &str| {
        let mut kernel = program(&layout);
        let output = kernel.arg("start").arg(&connection).output().unwrap();
        let said = text(&output);
        assert!(!output.status.success() && said.contains(words), "{said}");
    };
    fails_with("no connection file");
    fs::write(&connection, "{}").unwrap();
    fails_with("no warm build directory");
}

#[test]
fn a_fresh_kernel_copies_nothing_that_only_a_rebuild_reads() {
    let scratch = Scratch::new("thin");
    let (seed, own) = (scratch.0.join("seed"), scratch.0.join("own"));
    fs::create_dir_all(seed.join("debug/incremental/diffusion-1")).unwrap();
    for file in [
        "debug/incremental/diffusion-1/x.bin",
        "debug/a.o",
        "debug/a.rlib",
    ] {
        fs::write(seed.join(file), "").unwrap();
    }
    let lent = |path: &Path| path.starts_with("debug");
    tree::lend(&seed, &own, &lent, &warm::is_only_for_rebuilding).unwrap();
    assert_eq!(names(&own.join("debug")), ["a.rlib"]);
}

/// Real compilers on copies of one warm directory: what one kernel compiles anew must not reach the
/// others through the files that they share.
#[test]
fn kernels_do_not_share_what_one_rebuilds() {
    let scratch = Scratch::new("share");
    let (support, seed) = (scratch.0.join("support"), scratch.0.join("seed"));
    write_crate(&support, "support", "", "pub fn number() -> u32 { 1 }");
    fs::write(
        support.join("build.rs"),
        "fn main() { println!(\"cargo::rerun-if-changed=build.rs\"); }",
    )
    .unwrap();
    write_crate(
        &seed,
        "cell",
        "support = { path = \"../support\" }\n[workspace]",
        "pub fn number() -> u32 { support::number() }",
    );
    assert!(build(&seed).contains("Compiling support"));
    let (one, two) = (scratch.0.join("one"), scratch.0.join("two"));
    tree::clone(&seed, &one).unwrap();
    tree::clone(&seed, &two).unwrap();
    // A copy is warm, and its libraries are the very same files.
    assert!(!build(&one).contains("Compiling support"));
    let before = libraries(&seed);
    assert!(!before.is_empty());
    fs::write(
        support.join("src/lib.rs"),
        "pub fn number() -> u32 { 2 } pub fn more() {}",
    )
    .unwrap();
    fs::write(
        support.join("build.rs"),
        "fn main() { println!(\"cargo::rustc-cfg=more\"); }",
    )
    .unwrap();
    assert!(build(&one).contains("Compiling support"));
    assert_ne!(libraries(&one), before);
    assert_eq!(libraries(&seed), before);
    assert_eq!(libraries(&two), before);
}

fn write_crate(folder: &Path, name: &str, dependencies: &str, code: &str) {
    fs::create_dir_all(folder.join("src")).unwrap();
    let manifest = format!(
        "[package]\nname = \"{name}\"\nedition = \"2024\"\n[dependencies]\n{dependencies}\n"
    );
    fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    fs::write(folder.join("src/lib.rs"), code).unwrap();
}

fn build(folder: &Path) -> String {
    let mut cargo = Command::new("cargo");
    variables::without_leftovers(&mut cargo);
    let output = cargo
        .args(["build", "--offline"])
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", "target")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    text(&output)
}

/// Name and content of everything shared that belongs to the support crate.
fn libraries(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.join("target")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let (path, name) = (
                entry.path(),
                entry.file_name().to_string_lossy().into_owned(),
            );
            if path.is_dir() {
                if name != "incremental" {
                    folders.push(path);
                }
            } else if name.contains("support")
                && (name.ends_with(".rlib") || name.ends_with(".rmeta"))
                || name == "build-script-build"
            {
                found.push((name, fs::read(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}
