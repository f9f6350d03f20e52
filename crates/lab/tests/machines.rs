//! Set-up and a kernel on odd machines; what each is stands in `python/machines.py`. Each takes two to five minutes.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod common;

use std::process::Command;

use common::text;
use kernel::machine::layout::Layout;
use kernel::variables;

fn machine(name: &str) {
    let layout = Layout::find().unwrap();
    let mut python = Command::new(layout.python());
    let output = variables::without_leftovers(&mut python)
        .arg("-B")
        .arg(layout.root.join("crates/lab/tests/python/machines.py"))
        .arg(env!("CARGO_BIN_EXE_lab"))
        .arg(&layout.root)
        .arg(name)
        .output()
        .unwrap();
    println!("{}", text(&output));
    assert!(output.status.success(), "{name}");
}

/// Everything from nothing, which takes a quarter of an hour; it needs root and debootstrap.
#[test]
#[ignore = "slow: make test-long"]
fn a_bare_debian() {
    let layout = Layout::find().unwrap();
    let mut script = Command::new("sh");
    let status = variables::without_leftovers(&mut script)
        .arg(layout.root.join("crates/lab/tests/bare_debian.sh"))
        .status();
    assert!(status.unwrap().success());
}

macro_rules! machines {
    ($($name:ident)*) => {
        $(#[test]
        #[ignore = "slow: make test-long"]
        fn $name() {
            machine(stringify!($name));
        })*
    };
}

machines! {
    another_file_system
    no_hard_links_and_no_locks
    locks_of_a_network
    a_home_that_cannot_be_written_to
    a_full_disk
    settings_of_ones_own
    an_update_of_rust
}
