//! One quick measuring from the command line to the report, without peers, and what it says to nonsense.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

fn bench(arguments: &[&str]) -> Output {
    let cache = std::env::var_os("DIFFUSION_CACHE").map(Into::into);
    let cache = cache.unwrap_or_else(|| dirs::cache_dir().unwrap().join("diffusion-lesson"));
    Command::new(env!("CARGO_BIN_EXE_bench"))
        .arg("--mnist")
        .arg(cache.join("mnist"))
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn a_quick_measuring_leaves_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let done = bench(&["--quick", "--only", "mnist_load", "--out", out]);
    let words = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{done:?}");
    assert!(words.contains("absent: keras-float32"), "{words}");

    let report = std::fs::read_to_string(folder.path().join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let result = &report["results"][0];
    assert_eq!(result["name"], "mnist_load");
    assert_eq!(result["rounds"].as_array().unwrap().len(), 2);
    assert!(result["ours"].as_f64().unwrap() > 0.0);
    assert!(
        result["absent"]["keras-float32"]
            .as_str()
            .unwrap()
            .contains("PEERS=1")
    );
    assert!(report["machine"]["cpus"].as_u64().unwrap() >= 1);
    assert!(report["versions"]["libtorch"].is_string());
}

#[test]
fn a_contender_that_dies_is_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    // `sh` takes the peers' script for one of its own, and fails.
    let done = bench(&[
        "--quick",
        "--only",
        "mnist_load",
        "--peers",
        "/bin/sh",
        "--out",
        out,
    ]);
    let words = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{done:?}");
    assert!(
        words.contains("keras-float32 ended (exit status:"),
        "{words}"
    );
    assert!(words.contains("its last words:"), "{words}");
}

#[test]
fn an_unknown_name_is_answered_with_the_names_there_are() {
    let done = bench(&["--only", "unet"]);
    let words = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success());
    assert!(
        words.contains("\"unet\"") && words.contains("cnn_train_mixed"),
        "{words}"
    );
}
