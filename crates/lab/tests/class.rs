//! What `lab class` says before it starts anything.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Scratch, lab, text};
use kernel::machine::layout::Layout;

#[test]
fn a_busy_port_is_named_with_the_next_one() {
    let scratch = Scratch::new("busy");
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = lab(&scratch.layout())
        .args(["class", "--port", &port.to_string()])
        .output()
        .unwrap();
    let words = text(&output);
    assert!(!output.status.success(), "{words}");
    assert!(
        words.contains(&format!("127.0.0.1:{port} cannot be listened on"))
            && words.contains(&format!("PORT={}", port + 1)),
        "{words}"
    );
}

#[test]
fn no_threads_a_short_password_and_no_node_are_named() {
    let scratch = Scratch::new("words");
    scratch.script("bin/node", "exit 1");
    let free = TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
        .to_string();
    let path = scratch.0.join("bin");
    let ask = |more: &[&str], password: &str| {
        let output = lab(&scratch.layout())
            .args(["class", "--port", &free])
            .args(more)
            .env("LESSON_PASSWORD", password)
            .env("PATH", &path)
            .output()
            .unwrap();
        assert!(!output.status.success());
        text(&output)
    };
    let words = ask(&["--threads", "0"], "long enough");
    assert!(
        words.contains("0 threads cannot compute; expected 1 or more"),
        "{words}"
    );
    let words = ask(&[], "short");
    assert!(
        words.contains("LESSON_PASSWORD has 5 characters; expected at least 8"),
        "{words}"
    );
    let words = ask(&[], "long enough");
    assert!(
        words.contains("`node` on PATH does not: install Node.js"),
        "{words}"
    );
}

#[test]
fn learners_without_walls_are_not_shown_to_a_network_unless_that_was_said() {
    let scratch = Scratch::new("walls");
    // Nobody but root can make users of the machine.
    scratch.script("bin/id", "echo 1000");
    scratch.script("bin/node", "");
    let output = lab(&scratch.layout())
        .args(["class", "--host", "0.0.0.0", "--port", "0"])
        .env("PATH", scratch.0.join("bin"))
        .output()
        .unwrap();
    let words = text(&output);
    assert!(
        !output.status.success()
            && words.contains("only root can make each learner a user of the machine")
            && words.contains("make class HOST=0.0.0.0 TRUST=1"),
        "{words}"
    );
}

#[test]
#[ignore = "slow: make test-long"]
fn a_kernel_that_does_nothing_ends_and_one_that_computes_does_not() {
    let layout = Layout::find().unwrap();
    let folder = layout.target().join("test-run/idle");
    fs::create_dir_all(&folder).unwrap();
    let script = layout.root.join("crates/lab/tests/python/idle.py");
    let output = Command::new(layout.python())
        .arg("-B")
        .arg(script)
        .arg(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    println!("{}", text(&output));
}

/// Two learners who try what they must not; it needs root, Node.js, and a clone and a cache that everybody can read.
#[test]
#[ignore = "slow: make test-long"]
fn learners_can_change_nothing_that_is_not_theirs() {
    let layout = Layout::find().unwrap();
    let free = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = free.local_addr().unwrap().port().to_string();
    drop(free);
    let log = layout.target().join("test-run/walls.log");
    fs::create_dir_all(log.parent().unwrap()).unwrap();
    let mut hub = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["class", "--port", &port])
        .env("LESSON_PASSWORD", "open-sesame")
        .env("TEACHERS_SECRET", "hush")
        .stdout(fs::File::create(&log).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut words = String::new();
    for _ in 0..600 {
        words = fs::read_to_string(&log).unwrap();
        if words.contains("Ctrl-C ends") || hub.try_wait().unwrap().is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let teacher = words.rsplit("password").next().unwrap_or_default();
    let teacher = teacher.split_whitespace().next().unwrap_or_default();
    let tried = (words.contains("Each learner is a user")).then(|| {
        Command::new(layout.python())
            .arg("-B")
            .arg(layout.root.join("crates/lab/tests/python/walls.py"))
            .args([&format!("http://127.0.0.1:{port}"), "open-sesame", teacher])
            .arg(&layout.root)
            .output()
            .unwrap()
    });
    Command::new("sh")
        .args(["-c", "kill \"$0\"", &hub.id().to_string()])
        .status()
        .unwrap();
    hub.wait().unwrap();
    match tried {
        Some(output) => {
            assert!(output.status.success(), "{}", text(&output));
            println!("{}", text(&output));
        }
        None => {
            assert!(words.contains("no walls between learners"), "{words}");
            println!("skipped: {words}");
        }
    }
}
