//! What `lab class` says before it starts anything.

#![allow(clippy::unwrap_used)]

mod common;

use std::net::TcpListener;

use common::{Scratch, lab, text};

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
