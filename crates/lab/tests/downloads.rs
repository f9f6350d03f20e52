//! Downloads that break, lie, or find no room.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::time::Duration;

use common::{Scratch, names, reply, serve};
use kernel::machine::tools::sha256;
use lab::setup::fetch::{agent, fetch, fetch_within, part_of};
use lab::setup::index::{Wheel, bring_from};

fn content() -> Vec<u8> {
    (0..300_000u32)
        .flat_map(|number| number.to_le_bytes())
        .collect()
}

#[test]
fn an_interrupted_download_goes_on_where_it_was() {
    let scratch = Scratch::new("resume");
    let (address, seen) = serve(Box::new(|number, request, stream| {
        let all = content();
        if number == 0 {
            return reply(stream, "200 OK", "", all.len(), &all[..700_000]);
        }
        let range = request.iter().find_map(|line| {
            line.to_lowercase()
                .strip_prefix("range: bytes=")
                .map(str::to_owned)
        });
        let from: usize = range.unwrap().trim_end_matches('-').parse().unwrap();
        reply(
            stream,
            "206 Partial Content",
            "",
            all.len() - from,
            &all[from..],
        );
    }));
    let target = scratch.0.join("file");
    fetch(
        &agent(Duration::from_secs(2)),
        &address,
        &target,
        Some(&sha256(&content())),
    )
    .unwrap();
    assert_eq!(fs::read(&target).unwrap(), content());
    assert_eq!(names(&scratch.0), ["file"]);
    assert_eq!(seen.lock().unwrap().len(), 2);
}

#[test]
fn what_an_earlier_run_left_is_used_and_a_server_without_ranges_is_borne() {
    let scratch = Scratch::new("restart");
    let (address, seen) = serve(Box::new(|_, _, stream| {
        reply(stream, "200 OK", "", content().len(), &content())
    }));
    let target = scratch.0.join("file");
    fs::write(part_of(&target), b"half of something").unwrap();
    fetch(
        &agent(Duration::from_secs(2)),
        &address,
        &target,
        Some(&sha256(&content())),
    )
    .unwrap();
    assert_eq!(fs::read(&target).unwrap(), content());
    assert!(
        seen.lock().unwrap()[0]
            .iter()
            .any(|line| line.to_lowercase() == "range: bytes=17-")
    );
}

#[test]
fn a_server_that_is_busy_or_drops_the_first_connection_is_asked_again() {
    for first in ["429 Too Many Requests", "503 Service Unavailable", ""] {
        let scratch = Scratch::new("busy");
        let (address, seen) = serve(Box::new(move |number, _, stream| match number {
            0 if first.is_empty() => {}
            0 => reply(stream, first, "Retry-After: 0\r\n", 0, b""),
            _ => reply(stream, "200 OK", "", content().len(), &content()),
        }));
        let target = scratch.0.join("file");
        fetch(&agent(Duration::from_secs(2)), &address, &target, None).unwrap();
        assert_eq!(fs::read(&target).unwrap(), content(), "{first}");
        assert_eq!(seen.lock().unwrap().len(), 2, "{first}");
    }
}

#[test]
fn a_server_that_falls_silent_is_left_and_asked_again() {
    let scratch = Scratch::new("silent");
    let target = scratch.0.join("file.bin");
    let half = content().len() / 2;
    let (url, requests) = serve(Box::new(move |number, _, stream| match number {
        0 => {
            reply(stream, "200 OK", "", content().len(), &content()[..half]);
            std::thread::sleep(Duration::from_secs(4));
        }
        _ => {
            let rest = &content()[half..];
            reply(stream, "206 Partial Content", "", rest.len(), rest);
        }
    }));
    let agent = agent(Duration::from_secs(5));
    let silence = Duration::from_secs(1);
    fetch_within(&agent, &url, &target, None, silence).unwrap();
    assert_eq!(fs::read(target).unwrap(), content());
    assert_eq!(requests.lock().unwrap().len(), 2);
}

#[test]
fn a_server_that_stays_busy_is_one_clear_error() {
    let scratch = Scratch::new("stays-busy");
    let (address, seen) = serve(Box::new(|_, _, stream| {
        reply(
            stream,
            "503 Service Unavailable",
            "Retry-After: 0\r\n",
            0,
            b"",
        );
    }));
    let target = scratch.0.join("file");
    let error = fetch(&agent(Duration::from_secs(2)), &address, &target, None).unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.contains("busy (it answered 503)") && text.contains("run the same command again"),
        "{text}"
    );
    assert_eq!(seen.lock().unwrap().len(), 5);
    assert!(names(&scratch.0).is_empty());
}

#[test]
fn a_wrong_hash_is_named_and_nothing_stays() {
    let scratch = Scratch::new("hash");
    let (address, _) = serve(Box::new(|_, _, stream| {
        reply(stream, "200 OK", "", 5, b"wrong")
    }));
    let error = fetch(
        &agent(Duration::from_secs(2)),
        &address,
        &scratch.0.join("file"),
        Some(&sha256(b"right")),
    )
    .unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.contains(&sha256(b"right")) && text.contains(&sha256(b"wrong")),
        "{text}"
    );
    assert!(names(&scratch.0).is_empty());
}

#[test]
fn no_network_is_one_clear_error() {
    let scratch = Scratch::new("offline");
    let error = fetch(
        &agent(Duration::from_secs(2)),
        "http://127.0.0.1:9/file",
        &scratch.0.join("file"),
        None,
    )
    .unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.contains("check the network connection") && text.contains("refused"),
        "{text}"
    );
    assert!(names(&scratch.0).is_empty());
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_one_clear_error() {
    let scratch = Scratch::new("full");
    let (address, _) = serve(Box::new(|_, _, stream| {
        reply(stream, "200 OK", "", content().len(), &content())
    }));
    let target = scratch.0.join("file");
    std::os::unix::fs::symlink("/dev/full", part_of(&target)).unwrap();
    let error = fetch(&agent(Duration::from_secs(2)), &address, &target, None).unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.contains("the disk is full") && text.contains("DIFFUSION_CACHE"),
        "{text}"
    );
    assert!(!target.exists());
}

const WHEEL: Wheel = Wheel {
    project: "a-package",
    version: "1.0",
    file: "a_package-1.0-py3-none-any.whl",
    // Of `right`.
    sha256: "9c9b2644c5cd3e9d0d5e5e1e3c2d3b0f1ad2d2d9f6f3b3a5c0d7a0a4b3f1e2d3",
};

/// An index that names the file at `/files/…` and serves `body` for it.
fn index(hash: &'static str, body: &'static [u8]) -> String {
    let (address, _) = serve(Box::new(move |_, request, stream| {
        if request[0].starts_with("GET /simple/a-package/ ") {
            let page = format!(
                r#"{{"files": [{{"filename": "{}", "url": "../../files/it", "hashes": {{"sha256": "{hash}"}}}}]}}"#,
                WHEEL.file
            );
            return reply(stream, "200 OK", "", page.len(), page.as_bytes());
        }
        assert!(request[0].starts_with("GET /files/it "), "{}", request[0]);
        reply(stream, "200 OK", "", body.len(), body);
    }));
    format!("{address}/simple/")
}

#[test]
fn a_wheel_comes_from_the_configured_index() {
    let scratch = Scratch::new("wheel");
    let layout = scratch.layout();
    let right: &'static str = Box::leak(sha256(b"right").into_boxed_str());
    let wheel = Wheel {
        sha256: right,
        ..WHEEL
    };
    let target = layout.downloads().join(WHEEL.file);
    bring_from(
        &layout,
        &agent(Duration::from_secs(2)),
        Ok(index(right, b"right")),
        &wheel,
        &target,
    )
    .unwrap();
    assert_eq!(fs::read(target).unwrap(), b"right");
}

#[test]
fn a_wheel_with_a_wrong_hash_is_refused() {
    let scratch = Scratch::new("wrong-wheel");
    let layout = scratch.layout();
    let target = layout.downloads().join(WHEEL.file);
    let bring = |index| {
        bring_from(
            &layout,
            &agent(Duration::from_secs(2)),
            Ok(index),
            &WHEEL,
            &target,
        )
        .unwrap_err()
    };
    // The index promises the right one and serves another.
    let text = format!("{:#}", bring(index(WHEEL.sha256, b"wrong")));
    assert!(
        text.contains(WHEEL.sha256) && text.contains(&sha256(b"wrong")),
        "{text}"
    );
    assert!(names(&layout.downloads()).is_empty());
    // The index says by itself that it has another.
    let text = format!("{:#}", bring(index("00ff", b"wrong")));
    assert!(
        text.contains(WHEEL.sha256) && text.contains("00ff"),
        "{text}"
    );
}
