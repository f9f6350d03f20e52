//! A kernel's `cargo` that answers from memory, with real compilers, in a small directory as a kernel has it.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use common::own::Own;
use common::{names, text};
use kernel::machine::tree;

fn cell(number: u32) -> String {
    format!(
        "#[unsafe(no_mangle)] pub extern \"C\" fn run() -> u32 {{ support::number() + {number} }}"
    )
}

#[test]
fn a_second_cell_is_compiled_by_the_compiler_alone() {
    let own = Own::new("again");
    let (output, real) = own.compile(&cell(1));
    assert!(output.status.success() && real, "{}", text(&output));
    let first = own.library();
    let (output, real) = own.compile(&cell(2));
    assert!(output.status.success() && !real, "{}", text(&output));
    assert_ne!(own.library(), first);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("compiler-artifact") && said.contains("libctx.so"),
        "{said}"
    );
    // Its crates are linked once and for all.
    assert_eq!(own.kept(".so"), 1);
    assert!(String::from_utf8_lossy(&own.library()).contains("libcells-"));
}

#[test]
fn another_kernel_starts_with_the_memory_of_the_first() {
    let mut own = Own::new("heir");
    own.compile(&cell(1));
    let question = ["metadata", "--format-version=1", "--offline"];
    let first = own.ask(&question);
    let built = |path: &Path| path.starts_with("cell/target");
    tree::lend(&own.at("own"), &own.at("other"), &built, &|_| false).unwrap();
    own.name = "other";
    let (output, real) = own.compile(&cell(2));
    assert!(output.status.success() && !real, "{}", text(&output));
    let (old, new) = (own.at("own"), own.at("other"));
    let expected = String::from_utf8_lossy(&first.stdout)
        .replace(&*old.to_string_lossy(), &new.to_string_lossy());
    assert_eq!(
        String::from_utf8_lossy(&own.ask(&question).stdout),
        expected
    );
    // The real cargo was not called, so everything is still lent.
    assert!(own.at("other/lent").is_file());
}

#[test]
fn a_mistake_is_reported_in_cargos_form() {
    let own = Own::new("mistake");
    own.compile(&cell(1));
    let (output, real) = own.compile("pub fn a() -> u32 { \"ten\" }");
    assert!(
        !real && output.status.code() == Some(101),
        "{}",
        text(&output)
    );
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let messages: Vec<serde_json::Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        messages
            .iter()
            .any(|message| message["reason"] == "compiler-message"
                && message["message"]["code"]["code"] == "E0308"),
        "{said}"
    );
    let (output, real) = own.compile(&cell(3));
    assert!(output.status.success() && !real, "{}", text(&output));
    // Nothing else is said: evcxr may take any word for a mistake.
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!said.contains("compiler-message"), "{said}");
}

#[test]
fn a_library_that_cannot_be_made_costs_a_cell_nothing_but_time() {
    let own = Own::new("unmade");
    own.compile(&cell(1));
    // Two crates that offer the same name to C cannot be linked whole; a cell that uses neither name can be.
    for name in ["one", "two"] {
        own.write_crate(&format!("own/{name}"), name, "", "");
        own.write(
            &format!("own/{name}/src/lib.rs"),
            "#[unsafe(no_mangle)] pub extern \"C\" fn same() {} pub fn other() {}",
        );
    }
    let both = format!(
        "{}one = {{ path = {:?} }}\ntwo = {{ path = {:?} }}\n",
        own.dependencies(),
        own.at("own/one"),
        own.at("own/two")
    );
    for (folder, name) in [("cell", "ctx"), ("lock", "lock")] {
        own.write_crate(
            &format!("own/{folder}"),
            name,
            "[lib]\ncrate-type = [\"cdylib\"]\n",
            &both,
        );
    }
    let uses = |number| {
        format!(
            "extern crate two; {} pub fn c() {{ one::other() }}",
            cell(number)
        )
    };
    let (output, real) = own.compile(&uses(1));
    assert!(output.status.success() && real, "{}", text(&output));
    let (output, real) = own.compile(&uses(2));
    assert!(output.status.success() && !real, "{}", text(&output));
    assert_eq!((own.kept(".failed"), own.kept(".so")), (1, 0));
}

#[test]
fn a_changed_support_crate_or_manifest_is_cargos_business() {
    let own = Own::new("changed");
    own.compile(&cell(1));
    own.write(
        "support/src/lib.rs",
        "pub fn number() -> u32 { 1 + 1 }\npub fn more() {}",
    );
    let (output, real) = own.compile(&format!("{} pub fn b() {{ support::more() }}", cell(1)));
    assert!(output.status.success() && real, "{}", text(&output));
    let (output, real) = own.compile(&cell(2));
    assert!(output.status.success() && !real, "{}", text(&output));
    // A crate of the learner's own may change at any time, and only cargo can tell.
    own.write_crate("mine", "mine", "", "");
    let mine = format!("{}mine = {{ path = \"../../mine\" }}\n", own.dependencies());
    own.write_crate(
        "own/cell",
        "ctx",
        "[lib]\ncrate-type = [\"cdylib\"]\n",
        &mine,
    );
    for number in [4, 5] {
        let (output, real) = own.compile(&cell(number));
        assert!(output.status.success() && real, "{}", text(&output));
    }
}

#[test]
fn what_a_learner_sets_for_builds_makes_another_request() {
    let mut own = Own::new("build-env");
    own.compile(&cell(1));
    assert!(!own.compile(&cell(2)).1);
    own.more.push(("FLAVOUR", "sour")); // as `:build_env FLAVOUR=sour` does
    assert!(own.compile(&cell(3)).1);
    assert!(!own.compile(&cell(4)).1);
    own.more[0].1 = "sweet";
    assert!(own.compile(&cell(5)).1);
}

#[test]
fn settings_that_lead_to_other_files_are_cargos_business() {
    for (name, settings) in [("paths", "paths = []"), ("patch", "[patch.crates-io]")] {
        let own = Own::new(name);
        own.compile(&cell(1));
        assert!(!own.compile(&cell(2)).1, "{name}");
        own.write(".cargo/config.toml", settings);
        for number in 3..5 {
            let (output, real) = own.compile(&cell(number));
            assert!(output.status.success() && real, "{}", text(&output));
        }
    }
}

#[test]
fn a_question_is_asked_once_and_cleaning_forgets() {
    let own = Own::new("question");
    let question = ["metadata", "--format-version=1", "--offline"];
    let first = own.ask(&question);
    assert!(first.status.success(), "{}", text(&first));
    assert_eq!(own.kept(".answer"), 1);
    assert_eq!(own.ask(&question).stdout, first.stdout);
    own.compile(&cell(1));
    assert_eq!(own.kept(".command"), 1);
    assert!(own.ask(&["clean"]).status.success());
    assert_eq!((own.kept(".answer"), own.kept(".command")), (0, 0));
    let (output, real) = own.compile(&cell(2));
    assert!(output.status.success() && real, "{}", text(&output));
}

/// With an edited support crate, and without a memory: the real cargo writes into a kernel's copies only.
#[test]
fn what_was_lent_is_copied_before_cargo_writes() {
    let own = Own::new("lent");
    own.compile(&cell(1));
    fs::rename(own.at("own"), own.at("warm")).unwrap();
    let built = |path: &Path| path.starts_with("cell/target");
    tree::lend(&own.at("warm"), &own.at("own"), &built, &|_| false).unwrap();
    let before = files(&own.at("warm/cell/target"));
    assert!(before.len() > 10);
    assert!(
        before
            .iter()
            .all(|(path, _, _)| fs::metadata(path).unwrap().nlink() > 1)
    );
    fs::remove_dir_all(own.at("own/memory")).unwrap();
    own.write("support/src/lib.rs", "pub fn number() -> u32 { 3 }");
    let (output, real) = own.compile(&cell(2));
    assert!(output.status.success() && real, "{}", text(&output));
    assert_eq!(files(&own.at("warm/cell/target")), before);
    tree::take_over(&own.at("own")).unwrap();
}

/// All files below a folder: their times, and what is in them.
fn files(folder: &Path) -> Vec<(PathBuf, SystemTime, Vec<u8>)> {
    let mut found = Vec::new();
    for name in names(folder) {
        let path = folder.join(name);
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let time = fs::metadata(&path).unwrap().modified().unwrap();
            found.push((path.clone(), time, fs::read(&path).unwrap()));
        }
    }
    found
}

#[test]
fn a_compiler_that_fails_for_another_reason_is_no_mistake_of_the_cell() {
    let own = Own::new("another-reason");
    assert!(own.compile(&cell(1)).0.status.success());
    // A note that names a compiler which always fails, with words that have no place in the cell.
    let note = names(&own.at("own/memory"));
    let note = note.iter().find(|name| name.ends_with(".command")).unwrap();
    let path = format!("own/memory/{note}");
    let words = r#"{"$message_type":"diagnostic","message":"No space left on device","level":"error","spans":[],"children":[],"code":null}"#;
    let compiler = own
        .scratch
        .script("compiler", &format!("echo '{words}' >&2; exit 1"));
    let text = fs::read_to_string(own.at(&path)).unwrap();
    let mut known: serde_json::Value = serde_json::from_str(&text).unwrap();
    known["compiler"] = compiler.to_str().unwrap().into();
    own.write(&path, &known.to_string());
    let (output, real) = own.compile(&cell(2));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && real, "{said}");
    assert!(!said.contains("No space left"), "{said}");
}
