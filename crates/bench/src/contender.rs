//! One contender as a process: start, requests, replies, end.
//!
//! The protocol is one JSON object a line, requests on stdin and replies on stdout. A worker says
//! `{"ready": {"name": …, "versions": {…}, "settings": "…"}}` first; then `{"run": "cnn_train", "batch": 128, …}` is
//! answered by `{"value": 2010.4, "loss": 0.21}` (the value in the measurement's unit) or by
//! `{"error": "…"}`; `{"run": "exit"}` or the end of stdin ends it. Whatever else it prints is for people.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::other::Other;
use crate::programs::{Contender, Program};

/// How long a worker may take to import its libraries and to read its data.
const START: Duration = Duration::from_secs(180);
/// How long one answer may take; the first one of a compiler includes its compilation.
const ANSWER: Duration = Duration::from_secs(900);
/// How long a worker that was told to end may take for it.
const END: Duration = Duration::from_secs(15);
/// How many of a worker's last lines stand in an error.
const LAST_LINES: usize = 12;

/// Where contenders find what they need.
#[derive(Clone, Debug)]
pub struct Place {
    /// The first weights.
    pub data: PathBuf,
    /// The four raw MNIST files.
    pub mnist: PathBuf,
    /// Where results and logs go.
    pub out: PathBuf,
    /// The Python that has the peers, if there is one.
    pub peers: Option<PathBuf>,
    /// The Python that has Jupyter, if there is one.
    pub jupyter: Option<PathBuf>,
    /// How many threads a contender may compute on.
    pub threads: usize,
    /// The other commit, if there is one.
    pub against: Option<Other>,
}

impl Place {
    /// How a contender is started. The error says why it cannot be, and the fix.
    fn command(&self, contender: &Contender) -> Result<Command> {
        let other =
            match contender.against {
                true => Some(self.against.as_ref().context(
                    "no other commit was named: `make bench AGAINST=<commit>` names one",
                )?),
                false => None,
            };
        let (program, script) = match contender.program {
            Program::Ours => (
                match other {
                    Some(other) => other.bench.clone(),
                    None => std::env::current_exe()
                        .context("the system does not say where this program is")?,
                },
                None,
            ),
            Program::Peer(script) => (
                self.peers.clone().context(
                    "there is no Python environment with the peers: `make bench PEERS=1` makes it",
                )?,
                Some(script),
            ),
            Program::Jupyter(script) => (
                other
                    .map_or(&self.jupyter, |other| &other.jupyter)
                    .clone()
                    .context(
                        "no Python environment with Jupyter was named: `make bench` does it",
                    )?,
                Some(script),
            ),
        };
        let mut command = Command::new(program);
        for (name, value) in other.iter().flat_map(|other| &other.environment) {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(script) = script {
            let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
            let folder = other.map_or(&ours, |other| &other.scripts);
            command.arg("-B").arg(folder.join(script));
            // Ours are the libtorch and the libraries on this path; theirs bring their own.
            command
                .env_remove("LD_LIBRARY_PATH")
                .env_remove("DYLD_LIBRARY_PATH");
        }
        command.args(contender.arguments);
        if contender.program == Program::Ours {
            // Read once, when libtorch's threads are made.
            command.env("OMP_NUM_THREADS", self.threads.to_string());
        }
        match contender.program {
            Program::Jupyter(_) => command
                .arg("--out")
                .arg(other.map_or(&self.out, |other| &other.out)),
            _ => command
                .arg("--data")
                .arg(other.map_or(&self.data, |other| &other.data))
                .arg("--mnist")
                .arg(&self.mnist)
                .arg("--threads")
                .arg(self.threads.to_string()),
        };
        Ok(command)
    }
}

/// What a worker says when it is ready.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Ready {
    /// The versions of the libraries that it uses.
    #[serde(default)]
    pub versions: BTreeMap<String, String>,
    /// How it uses them.
    #[serde(default)]
    pub settings: String,
}

/// A worker's answer.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Reply {
    /// In the measurement's unit.
    pub value: f64,
    /// The loss that came of it, where there is one.
    pub loss: Option<f64>,
}

/// A contender's process.
#[derive(Debug)]
pub struct Worker {
    name: &'static str,
    child: Child,
    requests: Option<ChildStdin>,
    lines: Receiver<(Instant, Value)>,
    last_lines: Arc<Mutex<VecDeque<String>>>,
    readers: Vec<JoinHandle<()>>,
    /// When it was started.
    pub started: Instant,
}

impl Worker {
    /// Starts a process and waits for nothing.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn start(contender: &Contender, place: &Place, more: &[String]) -> Result<Worker> {
        let mut command = place.command(contender)?;
        command
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().with_context(|| {
            format!(
                "`{}` could not be started",
                command.get_program().to_string_lossy()
            )
        })?;
        let last_lines = Arc::new(Mutex::new(VecDeque::new()));
        let (sender, lines) = channel();
        let mut readers = Vec::new();
        if let Some(output) = child.stdout.take() {
            let last_lines = Arc::clone(&last_lines);
            readers.push(thread::spawn(move || {
                for line in lines_of(output) {
                    match serde_json::from_str(&line) {
                        Ok(value @ Value::Object(_)) => {
                            let _ = sender.send((Instant::now(), value)); // nobody waits any more
                        }
                        _ => remember(&last_lines, line),
                    }
                }
            }));
        }
        if let Some(errors) = child.stderr.take() {
            let last_lines = Arc::clone(&last_lines);
            readers.push(thread::spawn(move || {
                lines_of(errors).for_each(|line| remember(&last_lines, line));
            }));
        }
        Ok(Worker {
            name: contender.name,
            requests: child.stdin.take(),
            child,
            lines,
            last_lines,
            readers,
            started,
        })
    }

    /// Waits until the worker is ready.
    ///
    /// # Errors
    /// When it ends, says something else, or takes too long.
    pub fn ready(&mut self) -> Result<Ready> {
        let line = self.line(START)?;
        let (_, mut line) = line.ok_or_else(|| self.ended("it was to get ready"))?;
        serde_json::from_value(line["ready"].take())
            .with_context(|| format!("{}: expected that it is ready, got {line}", self.name))
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// An error that the worker answers with, or a worker that ended or takes too long.
    pub fn ask(&mut self, request: &Value) -> Result<Reply> {
        self.send(request)?;
        self.answer(request, ANSWER)?
            .with_context(|| format!("{}: no answer", self.name))
    }

    /// Asks and does not wait.
    ///
    /// # Errors
    /// When the worker has ended.
    pub fn send(&mut self, request: &Value) -> Result<()> {
        let sent = match &mut self.requests {
            Some(requests) => writeln!(requests, "{request}").and_then(|()| requests.flush()),
            None => return Err(self.ended("it was to get a request")),
        };
        sent.map_err(|_| self.ended(&format!("it got {request}")))
    }

    /// The answer to a request that was sent: None if there is none within this time and the limit is not reached.
    ///
    /// # Errors
    /// As [`ask`](Worker::ask).
    pub fn answer(&mut self, request: &Value, limit: Duration) -> Result<Option<Reply>> {
        let Some((_, line)) = (match self.lines.recv_timeout(limit) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) if limit < ANSWER => return Ok(None),
            Err(RecvTimeoutError::Timeout) => return Err(self.too_slow(limit)),
        }) else {
            return Err(self.ended(&format!("it did {request}")));
        };
        if let Some(error) = line["error"].as_str() {
            bail!("{} answers: {error}", self.name);
        }
        serde_json::from_value(line.clone())
            .map(Some)
            .with_context(|| format!("{}: expected a value for {request}, got {line}", self.name))
    }

    /// The next line of JSON and when it came; None when there will be no more.
    ///
    /// # Errors
    /// When nothing comes for this long.
    pub fn line(&mut self, limit: Duration) -> Result<Option<(Instant, Value)>> {
        match self.lines.recv_timeout(limit) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(self.too_slow(limit)),
        }
    }

    /// The process's number, to look at its memory.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended, and well.
    pub fn succeeded(&mut self) -> bool {
        self.wait(END).is_some_and(|status| status.success())
    }

    /// The error of a process that sends nothing more.
    pub fn ended(&mut self, doing: &str) -> anyhow::Error {
        let status = match self.wait(END) {
            Some(status) => status.to_string(),
            None => "it closed its output".to_owned(),
        };
        anyhow!(
            "{} ended ({status}) while {doing}{}",
            self.name,
            self.last_words()
        )
    }

    /// Ends the process now.
    pub fn kill(&mut self) {
        self.requests = None;
        let _ = self.child.kill(); // it may have ended by itself
        let _ = self.child.wait();
    }

    fn too_slow(&mut self, limit: Duration) -> anyhow::Error {
        self.kill();
        anyhow!(
            "{} said nothing for {} s and was ended{}",
            self.name,
            limit.as_secs(),
            self.last_words()
        )
    }

    fn last_words(&self) -> String {
        // A process that ended may have left words that are still to be read.
        let deadline = Instant::now() + Duration::from_secs(1);
        while !self.readers.iter().all(JoinHandle::is_finished) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        let lines = self
            .last_lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if lines.is_empty() {
            return "; it printed nothing".to_owned();
        }
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        format!("; its last lines:\n    {}", lines.join("\n    "))
    }

    fn wait(&mut self, limit: Duration) -> Option<std::process::ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(20)),
                _ => return None,
            }
        }
    }
}

impl Drop for Worker {
    /// Requests the worker's end, so that it can end what it has started itself; else kills it.
    fn drop(&mut self) {
        let _ = self.send(&json!({"run": "exit"}));
        self.requests = None;
        if self.wait(END).is_none() {
            self.kill();
        }
    }
}

fn lines_of(stream: impl Read) -> impl Iterator<Item = String> {
    let mut reader = BufReader::new(stream);
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        match reader.read_until(b'\n', &mut line) {
            Ok(read) if read > 0 => Some(String::from_utf8_lossy(&line).trim_end().to_owned()),
            _ => None,
        }
    })
}

fn remember(last_lines: &Mutex<VecDeque<String>>, line: String) {
    let mut lines = last_lines.lock().unwrap_or_else(PoisonError::into_inner);
    if lines.len() == LAST_LINES {
        lines.pop_front();
    }
    lines.push_back(line);
}
