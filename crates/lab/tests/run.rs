//! The runner on deliberately broken notebooks, one or more for each kind of failure, in real
//! kernels. The notebooks use nothing but std, so that they are quick. `make test` sets up the
//! kernel and the Python environment that these tests need.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lab::layout::Layout;
use serde_json::Value;

fn notebook(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/notebooks").join(name)
}

/// Where a test's results go: below `target`, because kernels build there.
fn out(name: &str) -> PathBuf {
    let out = Layout::find().unwrap().target().join("test-run").join(name);
    let _ = fs::remove_dir_all(&out);
    fs::create_dir_all(&out).unwrap();
    out
}

fn lab(arguments: &[&str], out: &Path, notebooks: &[PathBuf]) -> Output {
    let env = Layout::find().unwrap().python_env();
    assert!(
        env.join("share/jupyter/kernels/rust/kernel.json").exists(),
        "these tests need the kernel and the Python environment, which are not in {}: run `make test`",
        env.display()
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.arg("run").args(arguments).arg("--out").arg(out).args(notebooks).output().unwrap()
}

fn report(out: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(out.join("report.json")).unwrap()).unwrap()
}

/// Asserts that a notebook's failures are exactly these: cell, kind, a part of the text.
fn assert_failures(report: &Value, name: &str, printed: &str, expected: &[(u64, &str, &str)]) {
    let notebooks = report["notebooks"].as_array().unwrap();
    let found = notebooks.iter().find(|n| n["name"] == name).unwrap_or_else(|| panic!("{name} is not in {report}"));
    let failures = found["failures"].as_array().unwrap();
    assert_eq!(failures.len(), expected.len(), "{name}: {failures:#?}");
    for (failure, (cell, kind, text)) in failures.iter().zip(expected) {
        assert_eq!((failure["cell"].as_u64(), failure["kind"].as_str()), (Some(*cell), Some(*kind)), "{failure:#}");
        assert!(failure["text"].as_str().unwrap().contains(text), "{text:?} is not in {failure:#}");
        let line = format!("{name}, code cell {cell}, {kind}:");
        assert!(printed.contains(&line), "{line:?} was not printed:\n{printed}");
    }
}

#[test]
fn every_kind_of_failure_is_found() {
    let out = out("broken");
    let notebooks = ["good", "broken", "exits", "killed", "endless"].map(|name| notebook(&format!("{name}.ipynb")));
    let output = lab(&["--timeout", "20", "--no-html"], &out, &notebooks);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    let report = report(&out);
    let check = |name, expected: &[(u64, &str, &str)]| assert_failures(&report, name, &printed, expected);

    check("good.ipynb", &[]);
    check(
        "broken.ipynb",
        &[
            (2, "compile", "cannot find value `no_such_name`"),
            (3, "panic", "the cell gave up"),
            (4, "error", "InvalidDigit"),
            (5, "error", "tagged raises-exception"),
            (6, "error", "Not yet: the answer is 42"),
            (7, "error", "a warning"),
        ],
    );
    check("exits.ipynb", &[(2, "error", "exit status: 3")]);
    check("killed.ipynb", &[(2, "error", "the kernel died")]);
    check("endless.ipynb", &[(2, "timeout", "limit of 20 s")]);

    // What was printed before a cell was stopped is kept; what comes after lost variables is not run.
    let endless = fs::read_to_string(out.join("endless.ipynb")).unwrap();
    assert!(endless.contains("\"before\\n\"") && !endless.contains("\"never reached\\n\""), "{endless}");
    let names: Vec<&str> = report["notebooks"].as_array().unwrap().iter().map(|n| n["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["good.ipynb", "broken.ipynb", "exits.ipynb", "killed.ipynb", "endless.ipynb"]);
    assert_eq!(report["notebooks"][1]["cells"], 8);
}

#[test]
fn an_update_changes_nothing_the_second_time() {
    let out = out("update");
    let original = out.join("good.ipynb");
    fs::copy(notebook("good.ipynb"), &original).unwrap();
    let results = out.join("results");
    let run = || {
        let output = lab(&["--update"], &results, std::slice::from_ref(&original));
        assert!(output.status.success(), "{output:?}");
        fs::read_to_string(&original).unwrap()
    };
    let (first, second) = (run(), run());
    assert_eq!(first, second);
    assert!(first.contains("half is 0.5") && first.contains("\"execution_count\": 7"), "{first}");

    // The page has the formula and the picture in itself, and asks nobody for anything.
    let page = fs::read_to_string(results.join("good.html")).unwrap();
    assert!(page.contains("<math") && page.contains("alt=\"one dot\"") && page.contains("Show the code"));
    assert!(!page.contains("<script"), "a script, maybe from elsewhere");
}

#[test]
fn bad_arguments_are_named() {
    let out = out("arguments");
    let complains = |arguments: &[&str], notebooks: &[PathBuf], word: &str| {
        let output = lab(arguments, &out, notebooks);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && words.contains(word), "{word:?} is not in {words:?}");
    };
    complains(&[], &[notebook("nowhere.ipynb")], "nowhere.ipynb");
    complains(&[], &[notebook("good.ipynb"), notebook("good.ipynb")], "two notebooks");
    complains(&["--timeout", "0"], &[notebook("good.ipynb")], "0");
    fs::remove_dir_all(out.join("work")).unwrap();
    fs::create_dir(out.join("work")).unwrap();
    complains(&[], &[notebook("good.ipynb")], "was not made by this program");
}
