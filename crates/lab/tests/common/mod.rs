//! What several tests need: a scratch folder, and a server that can misbehave.
#![allow(dead_code, clippy::unwrap_used)]

pub mod own;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

use lab::layout::Layout;

/// A folder that goes away with the test.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("lab-test-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Scratch(path.canonicalize().unwrap())
    }

    /// A clone and a cache below it.
    pub fn layout(&self) -> Layout {
        let layout = Layout {
            root: self.0.join("clone"),
            cache: self.0.join("cache"),
        };
        fs::create_dir_all(layout.kernel()).unwrap();
        fs::create_dir_all(&layout.cache).unwrap();
        layout
    }

    /// Writes an executable shell script.
    pub fn script(&self, path: &str, text: &str) -> PathBuf {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The workbench on a scratch clone, with nothing of this machine's own set-up in its environment.
pub fn lab(layout: &Layout) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command
        .arg("--root")
        .arg(&layout.root)
        .env("DIFFUSION_CACHE", &layout.cache);
    for name in [
        "LIBTORCH",
        "CXX",
        "PYTHON",
        "CONDA_PREFIX",
        "DIFFUSION_MNIST",
    ] {
        command.env_remove(name);
    }
    command
}

/// Everything that a program printed.
pub fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// What a server answers to its n-th request: the request's lines, and the connection.
pub type Answer = dyn Fn(usize, &[String], &mut TcpStream) + Send + Sync;

/// A server on a free port of this machine. Returns its address and the requests that it saw.
pub fn serve(answer: Box<Answer>) -> (String, Arc<Mutex<Vec<Vec<String>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let requests = Arc::clone(&seen);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines: Vec<String> = BufReader::new(stream.try_clone().unwrap())
                .lines()
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .collect();
            let number = requests.lock().unwrap().len();
            requests.lock().unwrap().push(lines.clone());
            answer(number, &lines, &mut stream);
        }
    });
    (address, seen)
}

/// Answers with a status line's end, headers and some of a body; then the connection closes.
pub fn reply(stream: &mut TcpStream, status: &str, headers: &str, length: usize, body: &[u8]) {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let _ = stream.write_all(body);
}

/// The names in a folder.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .map(|entries| {
            entries
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect()
        })
        .unwrap_or_default();
    names.sort();
    names
}
