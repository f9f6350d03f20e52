//! What a notebook user takes for granted, in real kernels: Stop, short errors, text that arrives, values that need no type.
//! `make test` sets up the kernel and the Python environment that these tests need.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use kernel::machine::layout::Layout;

/// Runs a part of `python/cells.py` in a folder of its own below `target`, because kernels build there.
fn part(name: &str, times: u32) {
    let layout = Layout::find().unwrap();
    let folder = layout
        .target()
        .join("test-run")
        .join(format!("cells-{name}-{times}"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    symlink(layout.notebooks().join("weights"), folder.join("weights")).unwrap();
    let output = Command::new(layout.python())
        .arg("-B")
        .arg(layout.root.join("crates/lab/tests/python/cells.py"))
        .arg(name)
        .arg(&folder)
        .arg(times.to_string())
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}:\n{words}");
    println!("{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn stop_ends_training_sampling_and_evaluation_and_keeps_all_variables() {
    part("stop", 9);
}

#[test]
#[ignore = "slow: make test-long"]
fn stop_does_so_a_hundred_times() {
    part("stop", 100);
}

#[test]
fn stop_ends_the_waiting_for_a_training_and_not_the_training() {
    part("wait", 0);
}

#[test]
fn a_cell_that_does_not_look_at_stop_ends_at_the_second_press() {
    part("deaf", 0);
}

#[test]
fn an_error_is_short_and_names_the_cause_first() {
    part("short", 0);
}

#[test]
fn a_half_typed_cell_is_answered() {
    part("half", 0);
}

#[test]
fn what_is_printed_arrives() {
    part("text", 0);
}

#[test]
fn every_function_works_in_a_let_without_a_type() {
    part("untyped", 0);
}

#[test]
fn a_hidden_function_is_explained_and_comes_back() {
    part("hidden", 0);
}

#[test]
fn shift_tab_shows_the_documentation_within_a_name_and_a_call() {
    part("shift_tab", 0);
}

#[test]
#[ignore = "slow: make test-long"]
fn tab_and_shift_tab_are_answered_everywhere() {
    part("tab", 0);
}

#[test]
fn a_cell_of_which_the_kernel_makes_nothing_gets_a_word_from_the_server() {
    part("words", 0);
}
