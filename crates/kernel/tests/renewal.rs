//! An edited support crate is compiled once for all kernels, with real compilers.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::thread;

use common::Scratch;
use kernel::machine::layout::Layout;
use kernel::machine::tools;
use kernel::renewal::{self, DoesNotCompile};
use kernel::warm;

/// A clone with a support crate whose build script notes each time that it is compiled.
fn clone(scratch: &Scratch) -> Layout {
    let layout = scratch.layout();
    let write = |path: &str, text: &str| tools::write_whole(&layout.root.join(path), text).unwrap();
    write("Cargo.toml", "[workspace]\nmembers = [\"crates/*\"]\n");
    write("Cargo.lock", "version = 4\n");
    write(
        ".cargo/config.toml",
        "[profile.dev.package.\"*\"]\nopt-level = 1\n",
    );
    write(
        "crates/diffusion/Cargo.toml",
        "[package]\nname = \"diffusion\"\nversion = \"0.1.0\"\nedition = \"2024\"\n",
    );
    write("crates/diffusion/src/lib.rs", "");
    let log = scratch.0.join("compiled");
    let script = format!(
        "use std::io::Write;\nfn main() {{ println!(\"cargo::rerun-if-changed=src\"); writeln!(std::fs::File::options().append(true).create(true).open({log:?}).unwrap(), \"once\").unwrap(); }}"
    );
    write("crates/diffusion/build.rs", &script);
    fs::create_dir_all(layout.target()).unwrap();
    symlink(&layout.cache, layout.libtorch_link()).unwrap();
    let sysroot = tools::output(Command::new("rustc").args(["--print", "sysroot"])).unwrap();
    symlink(sysroot, layout.toolchain()).unwrap();
    layout
}

fn times_compiled(scratch: &Scratch) -> usize {
    let log = fs::read_to_string(scratch.0.join("compiled"));
    log.unwrap_or_default().lines().count()
}

fn edit(layout: &Layout, code: &str) {
    tools::write_whole(&layout.support_crate().join("src/lib.rs"), code).unwrap();
}

#[test]
fn an_edited_crate_is_compiled_once_for_all_kernels() {
    let scratch = Scratch::new("renewal");
    let layout = clone(&scratch);
    renewal::for_all(&layout).unwrap();
    assert!(warm::is_fresh(&layout));
    let once = times_compiled(&scratch);
    assert_ne!(once, 0);
    edit(&layout, "pub fn one() -> u32 { 1 }");
    assert!(!warm::is_fresh(&layout));
    thread::scope(|kernels| {
        for _ in 0..4 {
            kernels.spawn(|| renewal::for_all(&layout).unwrap());
        }
    });
    assert!(warm::is_fresh(&layout));
    assert_eq!(times_compiled(&scratch), 2 * once);
}

#[test]
fn what_does_not_compile_leaves_the_warm_directory_as_it_was() {
    let scratch = Scratch::new("broken");
    let layout = clone(&scratch);
    renewal::for_all(&layout).unwrap();
    let edition = || layout.seed().canonicalize().unwrap();
    let before = edition();
    edit(&layout, "pub fn one() -> u32 { true }");
    let error = renewal::for_all(&layout).unwrap_err();
    assert!(error.is::<DoesNotCompile>(), "{error:#}");
    assert!(
        format!("{error:#}").contains("mismatched types"),
        "{error:#}"
    );
    assert_eq!(edition(), before);
    assert!(before.join("cell/target").is_dir());
    // The kernels of a class do not try the same one after the other.
    let tried = times_compiled(&scratch);
    let again = renewal::for_all(&layout).unwrap_err();
    assert!(again.is::<DoesNotCompile>(), "{again:#}");
    assert!(
        format!("{again:#}").contains("a kernel tried it")
            && format!("{again:#}").contains("mismatched types"),
        "{again:#}"
    );
    assert_eq!(times_compiled(&scratch), tried);
    edit(&layout, "");
    renewal::for_all(&layout).unwrap();
    assert!(warm::is_fresh(&layout));
    assert_ne!(edition(), before);
}
