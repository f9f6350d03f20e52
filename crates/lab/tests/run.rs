//! The runner on deliberately broken notebooks, one or more for each kind of failure, in real
//! kernels. The notebooks use nothing but std, so that they are quick. `make test` sets up the
//! kernel and the Python environment that these tests need.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kernel::machine::layout::Layout;
use serde_json::Value;

fn notebook(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/notebooks")
        .join(name)
}

/// Where a test's results go: below `target`, because kernels build there.
fn out(name: &str) -> PathBuf {
    let out = Layout::find().unwrap().target().join("test-run").join(name);
    let _ = fs::remove_dir_all(&out);
    fs::create_dir_all(&out).unwrap();
    out
}

fn lab(arguments: &[&str], out: &Path, notebooks: &[PathBuf]) -> Output {
    lab_with(&[], arguments, out, notebooks)
}

fn lab_with(
    variables: &[(&str, &str)],
    arguments: &[&str],
    out: &Path,
    notebooks: &[PathBuf],
) -> Output {
    let env = Layout::find().unwrap().python_env();
    assert!(
        env.join("share/jupyter/kernels/rust/kernel.json").exists(),
        "these tests need the kernel and the Python environment, which are not in {}: run `make test`",
        env.display()
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command
        .arg("run")
        .args(arguments)
        .arg("--out")
        .arg(out)
        .args(notebooks)
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn report(out: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(out.join("report.json")).unwrap()).unwrap()
}

/// Asserts that a notebook's failures are exactly these: cell, kind, a part of the text.
fn assert_failures(report: &Value, name: &str, printed: &str, expected: &[(u64, &str, &str)]) {
    let notebooks = report["notebooks"].as_array().unwrap();
    let found = notebooks
        .iter()
        .find(|n| n["name"] == name)
        .unwrap_or_else(|| panic!("{name} is not in {report}"));
    let failures = found["failures"].as_array().unwrap();
    assert_eq!(failures.len(), expected.len(), "{name}: {failures:#?}");
    for (failure, (cell, kind, text)) in failures.iter().zip(expected) {
        assert_eq!(
            (failure["cell"].as_u64(), failure["kind"].as_str()),
            (Some(*cell), Some(*kind)),
            "{failure:#}"
        );
        assert!(
            failure["text"].as_str().unwrap().contains(text),
            "{text:?} is not in {failure:#}"
        );
        let line = format!("{name}, code cell {cell}, {kind}:");
        assert!(
            printed.contains(&line),
            "{line:?} was not printed:\n{printed}"
        );
    }
}

/// Runs copies of these notebooks with these variables, and returns the first one as it was executed.
fn executed(name: &str, variables: &[(&str, &str)], notebooks: &[&str]) -> String {
    let out = out(name);
    let copy = |name: &&str| {
        fs::copy(notebook(name), out.join(name)).unwrap();
        out.join(name)
    };
    let copies: Vec<PathBuf> = notebooks.iter().map(copy).collect();
    let arguments = ["--no-html", "--update"];
    let output = lab_with(variables, &arguments, &out.join("results"), &copies);
    assert!(output.status.success(), "{output:?}");
    fs::read_to_string(&copies[0]).unwrap()
}

/// A new kernel sends only requests that the kernel on trial has sent, so its `cargo` answers from memory, whoever starts it.
#[test]
fn a_kernel_asks_the_real_cargo_nothing() {
    let executed = executed("remembers", &[], &["remembers.ipynb"]);
    assert!(
        executed.contains("still lent: true"),
        "the real cargo was called (if the lesson's crates were edited, run `make setup` first): {executed}"
    );
}

/// What a shell has set for its own builds reaches no kernel, so the warm directory stays warm.
#[test]
fn a_kernel_stays_warm_whatever_the_shell_has_set() {
    let shell = [
        ("CARGO_TARGET_DIR", "/nowhere"),
        ("CARGO_BUILD_TARGET_DIR", "/nowhere"),
        ("CARGO_ENCODED_RUSTFLAGS", "-g"),
        ("CARGO_PROFILE_DEV_OPT_LEVEL", "2"),
        ("CARGO_INCREMENTAL", "0"),
        ("RUSTFLAGS", "-g"),
        ("RUSTC_WRAPPER", "/nowhere/sccache"),
        ("RUSTC_WORKSPACE_WRAPPER", "/nowhere/wrapper"),
        ("LIBTORCH_USE_PYTORCH", "1"),
        ("LIBTORCH_LIB", "/nowhere"),
        ("PIP_USER", "1"),
    ];
    let executed = executed("shell", &shell, &["remembers.ipynb"]);
    assert!(executed.contains("still lent: true"), "{executed}");
}

#[test]
fn a_kernel_without_its_speed_ups_gives_the_same_answers() {
    let notebooks = ["remembers.ipynb", "shows.ipynb"];
    let executed = executed("plain", &[("LAB_PLAIN", "1")], &notebooks);
    assert!(executed.contains("still lent: false"), "{executed}");
}

#[test]
fn a_cell_shows_all_that_it_displays_in_order() {
    let out = out("shows");
    let output = lab(&["--no-html"], &out, &[notebook("shows.ipynb")]);
    assert!(output.status.success(), "{output:?}");
    let executed = fs::read_to_string(out.join("shows.ipynb")).unwrap();
    let executed: Value = serde_json::from_str(&executed).unwrap();
    let outputs_of = |cell: usize| {
        executed["cells"][cell]["outputs"]
            .as_array()
            .unwrap()
            .clone()
    };
    let text_of = |value: &Value| match value {
        Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect(),
        other => other.as_str().unwrap_or_default().to_owned(),
    };
    let html_of = |cell: usize| -> String {
        let outputs = outputs_of(cell);
        outputs
            .iter()
            .map(|output| text_of(&output["data"]["text/html"]))
            .collect()
    };
    let html = html_of(1);
    let places =
        ["two dark squares", "in a table", "two bright squares"].map(|part| html.find(part));
    assert!(
        places.iter().all(Option::is_some) && places.is_sorted(),
        "{html}"
    );
    assert_eq!(html.matches("<img").count(), 2, "{html}");
    let printed: String = outputs_of(1)
        .iter()
        .map(|output| text_of(&output["text"]))
        .collect();
    assert!(printed.contains("a line between"), "{printed}");
    // The next cell begins anew.
    let html = html_of(2);
    assert!(
        html.contains("dark again") && !html.contains("two dark squares"),
        "{html}"
    );
}

#[test]
fn the_site_has_a_page_for_every_notebook_and_asks_nobody() {
    let out = out("site");
    let made = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["site", "--out"])
        .arg(&out)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    let index = read("index.html");
    let notebooks = lab::notebooks::lesson(&Layout::find().unwrap()).unwrap();
    for path in &notebooks {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        assert!(index.contains(&format!("href=\"{stem}.html\"")), "{stem}");
        let page = read(&format!("{stem}.html"));
        assert!(page.contains("Find on this page"), "{stem}");
        for asks in ["src=\"http", "<link", "url(http"] {
            assert!(!page.contains(asks), "{stem}: {asks}");
        }
        assert!(out.join(path.file_name().unwrap()).is_file());
    }
    assert!(read("01_what_is_diffusion.html").contains("href=\"02_build_the_model.html\""));
    assert!(index.contains("teaching.html") && out.join("teaching.html").is_file());
}

#[test]
fn another_root_is_where_notebooks_are_looked_for() {
    let root = out("another-root");
    fs::create_dir_all(root.join("notebooks")).unwrap();
    for verb in ["run", "site", "slides"] {
        let output = Command::new(env!("CARGO_BIN_EXE_lab"))
            .arg("--root")
            .arg(&root)
            .arg(verb)
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{verb}: {words}");
        assert!(words.contains(root.to_str().unwrap()), "{verb}: {words}");
    }
}

#[test]
fn an_odd_notebook_is_named_and_the_site_and_the_slides_are_made_without_it() {
    let layout = Layout::find().unwrap();
    let folder = out("odd");
    let good = layout.notebooks().join("05_fine_tune.ipynb");
    fs::copy(&good, folder.join("05_fine_tune.ipynb")).unwrap();
    fs::copy(&good, folder.join("05_fine_tune-Copy1.ipynb")).unwrap();
    for text in ["GLOSSARY.md", "TEACHING.md", "SERVER.md"] {
        fs::copy(layout.notebooks().join(text), folder.join(text)).unwrap();
    }
    fs::write(folder.join("06_empty.ipynb"), "").unwrap();
    fs::write(folder.join("07_broken.ipynb"), "{\"cells\": [").unwrap();
    let new = "{\"cells\": [], \"metadata\": {}, \"nbformat\": 4, \"nbformat_minor\": 5}";
    fs::write(folder.join("08_new.ipynb"), new).unwrap();
    for maker in ["site_pages.py", "slides.py"] {
        let made = Command::new(layout.python_env().join("bin/python"))
            .arg("-B")
            .arg(layout.root.join("crates/lab/python").join(maker))
            .arg("--notebooks")
            .arg(&folder)
            .arg("--out")
            .arg(folder.join("out"))
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&made.stdout).into_owned();
        assert!(made.status.success(), "{maker}: {made:?}");
        for (name, reason) in [
            ("05_fine_tune-Copy1.ipynb", "it is a copy"),
            ("06_empty.ipynb", "it is no notebook"),
            ("07_broken.ipynb", "it is no notebook"),
            ("08_new.ipynb", "it does not begin with a title"),
        ] {
            let line = format!("left out: {name}: {reason}");
            assert!(words.contains(&line), "{maker}: {words}");
        }
        assert!(folder.join("out/05_fine_tune.html").is_file());
        assert!(!folder.join("out/08_new.html").exists());
    }
}

#[test]
fn failures_of_every_kind_are_found() {
    let out = out("broken");
    let notebooks = ["broken.ipynb", "exits.ipynb", "killed.ipynb", "torn.ipynb"];
    let output = lab(
        &["--timeout", "60", "--no-html"],
        &out,
        &notebooks.map(notebook),
    );
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        output.status.code(),
        Some(1),
        "{printed}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report = report(&out);
    let check =
        |name, expected: &[(u64, &str, &str)]| assert_failures(&report, name, &printed, expected);
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
    check("torn.ipynb", &[(0, "error", "not a notebook")]);

    let reported = report["notebooks"].as_array().unwrap();
    let names: Vec<&str> = reported
        .iter()
        .map(|n| n["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, notebooks);
    assert_eq!(reported[0]["cells"], 8);
    assert!(report["seconds"].as_f64().unwrap() > 0.0);
    // What a notebook defined before its cell failed is still there after it; what was lost is not run.
    let executed = |name| fs::read_to_string(out.join(name)).unwrap();
    assert!(executed("broken.ipynb").contains("kept = 7\\n"));
    assert!(!executed("exits.ipynb").contains("never reached\\n"));
}

#[test]
fn a_cell_over_its_time_limit_is_stopped() {
    let out = out("endless");
    let output = lab(
        &["--timeout", "15", "--no-html"],
        &out,
        &[notebook("endless.ipynb")],
    );
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        output.status.code(),
        Some(1),
        "{printed}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_failures(
        &report(&out),
        "endless.ipynb",
        &printed,
        &[(2, "timeout", "limit of 15 s")],
    );
    // What it had printed is kept.
    let executed = fs::read_to_string(out.join("endless.ipynb")).unwrap();
    assert!(
        executed.contains("before\\n") && !executed.contains("never reached\\n"),
        "{executed}"
    );
}

#[test]
fn a_cell_that_shows_something_else_when_it_is_run_again_is_found() {
    let out = out("again");
    let output = lab(&["--twice", "--no-html"], &out, &[notebook("again.ipynb")]);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert_failures(
        &report(&out),
        "again.ipynb",
        &printed,
        &[
            (2, "error", "run again, it shows something else"),
            (5, "error", "without a reason"),
            (7, "compile", "cannot find value `text`"),
        ],
    );
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
    assert!(
        first.contains("half is 0.5") && first.contains("\"execution_count\": 7"),
        "{first}"
    );

    // The page has the formula and the picture in itself, and asks nobody for anything.
    let page = fs::read_to_string(results.join("good.html")).unwrap();
    assert!(
        page.contains("<math")
            && page.contains("alt=\"one dot\"")
            && page.contains("Show the code")
    );
    assert!(!page.contains("<script"), "a script, maybe from elsewhere");
}

#[test]
fn bad_arguments_are_named() {
    let out = out("arguments");
    let complains = |arguments: &[&str], notebooks: &[PathBuf], word: &str| {
        let output = lab(arguments, &out, notebooks);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && words.contains(word),
            "{word:?} is not in {words:?}"
        );
    };
    complains(&[], &[notebook("nowhere.ipynb")], "nowhere.ipynb");
    complains(
        &[],
        &[notebook("good.ipynb"), notebook("good.ipynb")],
        "two notebooks",
    );
    complains(&["--timeout", "0"], &[notebook("good.ipynb")], "0");
    fs::remove_dir_all(out.join("work")).unwrap();
    fs::create_dir(out.join("work")).unwrap();
    complains(
        &[],
        &[notebook("good.ipynb")],
        "was not made by this program",
    );
}

/// Ctrl-C in the middle of a cell: the kernel and everything it started are gone when `lab` is.
#[test]
#[cfg(target_os = "linux")]
fn an_interrupted_run_leaves_no_process() {
    let out = out("interrupted");
    let mut running = Command::new(env!("CARGO_BIN_EXE_lab"));
    let running = running
        .arg("run")
        .arg("--out")
        .arg(&out)
        .arg(notebook("endless.ipynb"));
    let mut running = running.stdout(std::process::Stdio::null()).spawn().unwrap();
    let inside = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        processes
            .filter(|p| fs::read_link(p.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&out)))
            .count()
    };
    // The endless cell leaves this file when it begins.
    let start = std::time::Instant::now();
    while !out.join("work/notebooks/started").exists() {
        let ended = running.try_wait().unwrap();
        let late = start.elapsed().as_secs() > 600;
        assert!(
            ended.is_none() && !late,
            "the cell did not begin in {}: run `make test`",
            out.display()
        );
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    // The kernel, and the process that runs its cells.
    assert!(inside() >= 2);
    let asked = Command::new("kill")
        .args(["-INT", &running.id().to_string()])
        .status()
        .unwrap();
    assert!(asked.success());
    assert_eq!(running.wait().unwrap().code(), Some(130));
    assert_eq!(inside(), 0, "processes were left behind");
}
