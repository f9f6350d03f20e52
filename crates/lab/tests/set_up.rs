//! Machines that lack something: one clear error, with the fix.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use common::{Scratch, lab, text};
use kernel::machine::layout::Layout;
use kernel::machine::tools;
use lab::setup::analyzer;
use lab::setup::part::{Finding, Options};

/// Runs `lab setup` where only these programs exist: name and what they print.
fn setup_with(name: &str, programs: &[(&str, &str)]) -> String {
    let scratch = Scratch::new(name);
    let layout = scratch.layout();
    for (program, prints) in programs {
        scratch.script(&format!("bin/{program}"), &format!("echo '{prints}'"));
    }
    let output = lab(&layout)
        .arg("setup")
        .env("PATH", scratch.0.join("bin"))
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = text(&output);
    assert!(
        text.contains("error: ") && !text.contains("panicked"),
        "{text}"
    );
    text
}

const RUST: (&str, &str) = ("rustc", "rustc 1.95.0 (59807616e 2026-04-14)");
const CARGO: (&str, &str) = ("cargo", "cargo 1.95.0");
const PYTHON: (&str, &str) = ("python3", "Python 3.11.7");

#[test]
fn rust_that_is_missing_or_too_old() {
    let text = setup_with("no-rust", &[]);
    assert!(
        text.contains("no working Rust compiler") && text.contains("rustup"),
        "{text}"
    );
    let text = setup_with(
        "old-rust",
        &[
            ("rustc", "rustc 1.84.1 (e71f9a9a9 2025-01-27)"),
            CARGO,
            PYTHON,
        ],
    );
    assert!(
        text.contains("Rust is too old: found 1.84, needed 1.95") && text.contains("rustup update"),
        "{text}"
    );
}

#[test]
fn rust_without_a_shared_standard_library() {
    let scratch = Scratch::new("no-shared-std");
    let (layout, libraries) = (scratch.layout(), scratch.0.join("libraries"));
    fs::create_dir_all(&libraries).unwrap();
    fs::write(libraries.join("libstd-1.rlib"), "").unwrap();
    let answers = format!(
        "case \"$*\" in *target-libdir*) echo '{}';; *) echo '{}';; esac",
        libraries.display(),
        RUST.1
    );
    scratch.script("bin/rustc", &answers);
    scratch.script("bin/cargo", &format!("echo '{}'", CARGO.1));
    let set_up = || {
        let path = scratch.0.join("bin");
        let output = lab(&layout).arg("setup").env("PATH", path).output();
        text(&output.unwrap())
    };
    let words = set_up();
    assert!(
        words.contains("this Rust has no shared standard library") && words.contains("rustup"),
        "{words}"
    );
    let shared = format!("libstd-1{}", std::env::consts::DLL_SUFFIX);
    fs::write(libraries.join(shared), "").unwrap();
    assert!(set_up().contains("no Python on PATH"));
}

#[test]
fn python_that_is_missing_or_too_old() {
    let text = setup_with("no-python", &[RUST, CARGO]);
    assert!(
        text.contains("no Python on PATH") && text.contains("environment.yml"),
        "{text}"
    );
    let text = setup_with("old-python", &[RUST, CARGO, ("python3", "Python 3.9.18")]);
    assert!(
        text.contains("Python is too old: found 3.9 (`python3`), needed 3.10"),
        "{text}"
    );
}

#[test]
fn a_missing_compiler() {
    let text = setup_with("no-compiler", &[RUST, CARGO, PYTHON]);
    assert!(
        text.contains("no working C++ compiler (`c++`)") && text.contains("apt install g++"),
        "{text}"
    );
}

#[test]
fn no_network_on_the_first_set_up() {
    let scratch = Scratch::new("first");
    let layout = scratch.layout();
    fs::write(
        layout.root.join("requirements.txt"),
        format!("no-such-package==1.0 --hash=sha256:{}\n", "0".repeat(64)),
    )
    .unwrap();
    // The kernel program is being compiled meanwhile, and has to end too.
    let compiling = scratch.0.join("compiling");
    let cargo = format!(
        "case $1 in install) echo $$ > '{}'; exec sleep 300;; fetch) ;; *) echo '{}';; esac",
        compiling.display(),
        CARGO.1
    );
    scratch.script("bin/cargo", &cargo);
    let path = format!(
        "{}:{}",
        scratch.0.join("bin").display(),
        std::env::var("PATH").unwrap()
    );
    let output = lab(&layout)
        .arg("setup")
        .env("PATH", path)
        .env("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
        .env("PIP_RETRIES", "0")
        .env_remove("PIP_FIND_LINKS")
        .output()
        .unwrap();
    let text = text(&output);
    assert!(!output.status.success());
    assert!(
        text.contains("set-up stopped at `python`")
            && text.contains("the network is needed for this once"),
        "{text}"
    );
    let compiler = fs::read_to_string(compiling).unwrap();
    let alive = Command::new("kill").args(["-0", compiler.trim()]).output();
    assert!(!alive.unwrap().status.success(), "{text}");
}

#[test]
fn only_the_lessons_conda_environment_is_used() {
    let scratch = Scratch::new("conda");
    let layout = scratch.layout();
    for (environment, used) in [("mine", false), ("base", false), ("diffusion-lesson", true)] {
        let prefix = scratch.0.join("envs").join(environment);
        let output = lab(&layout)
            .arg("doctor")
            .env("CONDA_PREFIX", &prefix)
            .env("CONDA_DEFAULT_ENV", environment)
            .output()
            .unwrap();
        let expected = match used {
            true => prefix,
            false => layout.target().join("python"),
        };
        let words = format!("no Python environment in {} yet", expected.display());
        assert!(
            text(&output).contains(&words),
            "{environment}: {}",
            text(&output)
        );
    }
}

#[test]
fn a_libtorch_that_is_not_one_or_of_another_version() {
    let scratch = Scratch::new("libtorch");
    let layout = scratch.layout();
    let own = scratch.0.join("own");
    fs::create_dir(&own).unwrap();
    let check = || {
        let output = lab(&layout)
            .arg("doctor")
            .env("LIBTORCH", &own)
            .output()
            .unwrap();
        assert!(!output.status.success());
        text(&output)
    };
    assert!(
        check().contains("is no libtorch: no file `build-version` in it"),
        "{}",
        check()
    );
    fs::write(own.join("build-version"), "2.5.1+cpu\n").unwrap();
    assert!(
        check().contains("is libtorch 2.5.1+cpu, needed is 2.13.0"),
        "{}",
        check()
    );
    fs::write(own.join("build-version"), "2.13.0+cpu\n").unwrap();
    assert!(
        check().contains("own has no lib/libtorch_cpu"),
        "{}",
        check()
    );
    assert!(check().contains("unset it"), "{}", check());
}

#[test]
fn a_port_in_use() {
    let scratch = Scratch::new("port");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = lab(&scratch.layout())
        .args(["jupyter", "--port", &port.to_string()])
        .output()
        .unwrap();
    let text = text(&output);
    assert!(!output.status.success());
    assert!(
        text.contains(&format!("port {port} cannot be used")) && text.contains("make lab PORT="),
        "{text}"
    );
}

#[test]
fn the_doctor_names_every_part_and_the_fix() {
    let scratch = Scratch::new("doctor");
    let layout = scratch.layout();
    let output = lab(&layout).arg("doctor").output().unwrap();
    let text = text(&output);
    assert!(!output.status.success());
    for part in [
        "tools",
        "python",
        "libtorch",
        "evcxr",
        "mnist",
        "kernel",
        "analyzer",
        "seed",
        "rehearsal",
    ] {
        assert!(
            text.lines().any(|line| line.starts_with(part)),
            "{part}: {text}"
        );
    }
    assert!(
        text.contains("MISSING") && text.contains("Fix: `make lab`"),
        "{text}"
    );
}

/// No conda channel can be asked here, but every line must at least be one that conda understands.
#[test]
fn the_conda_environment_is_well_formed() {
    let layout = Layout::find().unwrap();
    let python = layout.python();
    if !python.exists() {
        println!("skipped: no Python environment yet");
        return;
    }
    let script = r#"
import sys, yaml
from rattler import MatchSpec
environment = yaml.safe_load(open(sys.argv[1]))
assert environment["channels"] == ["conda-forge"], environment
specs = [line for line in environment["dependencies"] if isinstance(line, str)]
names = [MatchSpec(spec, strict=True).name.normalized for spec in specs]
assert {"python", "rust", "cxx-compiler", "make", "pip"} <= set(names), names
(pip,) = [line["pip"] for line in environment["dependencies"] if isinstance(line, dict)]
assert pip == ["-r requirements.txt"], pip
"#;
    let output = Command::new(python)
        .args(["-c", script])
        .arg(layout.root.join("environment.yml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

/// The shape of an unpacked libtorch is all that a quick check can see.
#[test]
fn the_doctor_sees_a_truncated_library() {
    let scratch = Scratch::new("truncated");
    let layout = scratch.layout();
    let folder = layout.cached_libtorch();
    let header = folder.join("include/torch/csrc/api/include/torch/torch.h");
    fs::create_dir_all(header.parent().unwrap()).unwrap();
    fs::create_dir_all(folder.join("lib")).unwrap();
    let end = if cfg!(target_os = "macos") {
        "dylib"
    } else {
        "so"
    };
    let files = [
        format!("lib/libtorch_cpu.{end}"),
        format!("lib/libc10.{end}"),
        format!("lib/libtorch.{end}"),
    ];
    files
        .iter()
        .map(|name| folder.join(name))
        .chain([header])
        .for_each(|path| fs::write(path, "abc").unwrap());
    fs::write(folder.join("build-version"), "2.13.0").unwrap();
    fs::write(
        folder.join("unpacked-files"),
        format!("00 438418417 libtorch_cpu.{end}\n"),
    )
    .unwrap();
    symlink(&folder, layout.libtorch_link()).unwrap();
    let output = lab(&layout).arg("doctor").output().unwrap();
    assert!(
        text(&output).contains("has 3 bytes, expected 438418417"),
        "{}",
        text(&output)
    );
    assert!(Path::new(&layout.libtorch_link()).exists());
}

#[test]
fn a_new_toolchain_leaves_the_one_before_to_running_kernels() {
    let scratch = Scratch::new("toolchain");
    let layout = scratch.layout();
    let make = || analyzer::make(&layout, &Options::default()).unwrap();
    let is_right = || matches!(analyzer::check(&layout, false).unwrap(), Finding::Found(_));
    let version = |toolchain: &Path| {
        let rustc = toolchain.join("bin/rustc");
        tools::output(Command::new(rustc).arg("--version")).unwrap()
    };
    make();
    assert!(is_right());
    let first = layout.toolchain().canonicalize().unwrap();
    let rust = version(&first);
    fs::write(first.join("of"), "another Rust").unwrap();
    assert!(!is_right());
    make();
    assert!(is_right());
    assert_ne!(layout.toolchain().canonicalize().unwrap(), first);
    assert_eq!(version(&first), rust);
    assert_eq!(version(&layout.toolchain()), rust);
}
