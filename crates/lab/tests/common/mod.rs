//! What several tests need: the workbench on a scratch clone, and a server that can misbehave.
#![allow(dead_code, unused_imports, clippy::unwrap_used)]

#[path = "../../../kernel/tests/common/mod.rs"]
mod of_kernels;

pub use of_kernels::*;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use kernel::machine::layout::Layout;

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
