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

/// This program stands for the other commit's, too.
#[test]
fn another_commit_takes_its_turns() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    // What an earlier measuring leaves: the first weights.
    assert!(
        bench(&["--quick", "--only", "mnist_load", "--out", out])
            .status
            .success()
    );
    let description = folder.path().join("against.json");
    let other = serde_json::json!({
        "commit": "0123456789abcdef",
        "bench": env!("CARGO_BIN_EXE_bench"),
        "scripts": "/nowhere",
        "jupyter": null,
        "data": folder.path().join("data"),
        "out": folder.path().join("other"),
        "environment": {"GLIBC_TUNABLES": "glibc.malloc.arena_max=1", "OMP_WAIT_POLICY": null},
    });
    std::fs::write(&description, other.to_string()).unwrap();
    let description = description.to_str().unwrap();
    let done = bench(&[
        "--only",
        "mnist_load",
        "--rounds",
        "6",
        "--against",
        description,
        "--out",
        out,
    ]);
    let words = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{done:?}");
    assert!(
        words.contains("against 01234567") && words.contains("95 % interval"),
        "{words}"
    );
    assert!(!words.contains("absent"), "{words}");
    let report = std::fs::read_to_string(folder.path().join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let against = &report["results"][0]["against"];
    assert_eq!(against["commit"], "0123456789abcdef");
    assert_eq!(against["rounds"].as_array().unwrap().len(), 6);
    let [low, high] = [0, 1].map(|end| against["interval"][end].as_f64().unwrap());
    let ratio = against["ratio"].as_f64().unwrap();
    assert!(0.0 < low && low <= ratio && ratio <= high, "{against}");
}

#[test]
fn the_measurements_that_need_a_kernel_are_known() {
    let names = |arguments: &[&str]| {
        let done = Command::new(env!("CARGO_BIN_EXE_bench"))
            .arg("kernels")
            .args(arguments)
            .output();
        String::from_utf8(done.unwrap().stdout).unwrap()
    };
    assert!(names(&[]).contains("kernel_memory\n") && !names(&[]).contains("mnist_load"));
    assert_eq!(names(&["mnist_load", "explorer"]), "explorer\n");
    assert_eq!(names(&["mnist_load"]), "");
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
    assert!(words.contains("its last lines:"), "{words}");
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
