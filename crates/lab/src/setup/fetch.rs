//! Downloads: resumable, checked by SHA-256, visible.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use sha2::{Digest, Sha256};

use kernel::machine::tools;

/// How often a broken connection is taken up again before we give up, and how often where nothing came yet: perhaps there is no network.
const ATTEMPTS: u32 = 5;
const FIRST_ATTEMPTS: u32 = 2;
/// For how long a server may say nothing within a transfer.
const SILENCE: Duration = Duration::from_secs(60);
/// The longest that a server which is busy can make us wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// An HTTP client for files: system trust store, proxies from the environment, no limit on the
/// whole transfer but one on every silence.
pub fn agent(connect: Duration) -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_connect(Some(connect))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .tls_config(
            ureq::tls::TlsConfig::builder()
                .root_certs(ureq::tls::RootCerts::PlatformVerifier)
                .build(),
        )
        .http_status_as_error(false)
        .build()
        .into()
}

/// Brings `url` to `target`. What an interrupted download left in `<target>.part` is continued;
/// the file takes its name only once its hash is right. With no hash the caller checks the content.
pub fn fetch(agent: &ureq::Agent, url: &str, target: &Path, sha256: Option<&str>) -> Result<()> {
    fetch_within(agent, url, target, sha256, SILENCE)
}

/// [`fetch`] with another limit on silence.
pub fn fetch_within(
    agent: &ureq::Agent,
    url: &str,
    target: &Path,
    sha256: Option<&str>,
    silence: Duration,
) -> Result<()> {
    let name = target
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let part = part_of(target);
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    let mut progress = Progress::new(&name);
    let mut attempt = 1;
    loop {
        let before = length(&part);
        match transfer(agent, url, &part, &mut progress, silence) {
            Ok(()) => break,
            Err(Broken::Local(error)) => return Err(error),
            Err(Broken::Remote(error, wait)) => {
                // A transfer that moved on earns new attempts; one that does not is over soon.
                attempt = if length(&part) > before {
                    1
                } else {
                    attempt + 1
                };
                let most = match length(&part) == 0 && wait.is_none() {
                    true => FIRST_ATTEMPTS,
                    false => ATTEMPTS,
                };
                if attempt > most {
                    return Err(error.context(format!(
                        "cannot download {name}: check the network connection (and HTTPS_PROXY, where a proxy is needed), then run the same command again; it goes on where it stopped"
                    )));
                }
                println!(
                    "  {name}: the connection broke ({error:#}); going on at {}",
                    size(length(&part))
                );
                std::thread::sleep(wait.unwrap_or(Duration::from_millis(200 << attempt)));
            }
        }
    }
    progress.done();
    if let Some(expected) = sha256 {
        let got = tools::sha256_file(&part)?;
        if got != expected {
            let _ = fs::remove_file(&part);
            bail!(
                "{name} is not the file it should be: expected SHA-256 {expected}, got {got}. It was deleted; run the same command again, and if it happens again, look for a proxy or mirror that changes downloads"
            );
        }
    }
    fs::rename(&part, target)
        .with_context(|| format!("cannot rename {} to {}", part.display(), target.display()))
}

/// The name of the unfinished download of `target`.
pub fn part_of(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_os_string();
    name.push(".part");
    target.with_file_name(name)
}

/// The whole text of a small resource.
pub fn text(agent: &ureq::Agent, url: &str, accept: &str) -> Result<String> {
    let mut response = agent
        .get(url)
        .header("Accept", accept)
        .config()
        .timeout_recv_body(Some(SILENCE))
        .build()
        .call()
        .map_err(|error| anyhow!("{error}"))?;
    if !response.status().is_success() {
        bail!("the server answered {}", response.status());
    }
    response
        .body_mut()
        .with_config()
        .limit(64 << 20)
        .read_to_string()
        .map_err(|error| anyhow!("{error}"))
}

/// Why a transfer stopped: whether another try can help, and after how long if the server says so.
enum Broken {
    Remote(anyhow::Error, Option<Duration>),
    Local(anyhow::Error),
}

fn transfer(
    agent: &ureq::Agent,
    url: &str,
    part: &Path,
    progress: &mut Progress,
    silence: Duration,
) -> Result<(), Broken> {
    let have = length(part);
    let mut request = agent.get(url).header("Accept-Encoding", "identity");
    if have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
    }
    let response = request
        .call()
        .map_err(|error| Broken::Remote(anyhow!("{error}"), None))?;
    let (start, append) = match response.status().as_u16() {
        206 => (have, true),
        200 => (0, false),
        // Nothing beyond what we have: the part is the whole file, as its hash will show.
        416 if have > 0 => return Ok(()),
        // Too many requests, or busy: the server may say when to come again.
        status @ (429 | 503) => {
            let after = response.headers().get("retry-after");
            let seconds = after.and_then(|after| after.to_str().ok()?.parse().ok());
            let wait = Duration::from_secs(seconds.unwrap_or(2)).min(LONGEST_WAIT);
            let error = anyhow!("the server is busy (it answered {status})");
            return Err(Broken::Remote(error, Some(wait)));
        }
        status => {
            return Err(Broken::Local(anyhow!(
                "the server answered {status} for {url}"
            )));
        }
    };
    let total = response.body().content_length().map(|rest| start + rest);
    let mut file = open(part, append).map_err(|error| Broken::Local(full_disk(error, part)))?;
    let pieces = in_pieces(response.into_body().into_reader());
    let mut done = start;
    progress.start(start, total);
    loop {
        let piece = match pieces.recv_timeout(silence) {
            Ok(Ok(piece)) => piece,
            Ok(Err(error)) => return Err(Broken::Remote(anyhow!("{error}"), None)),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let error = anyhow!("the server has sent nothing for {} s", silence.as_secs());
                return Err(Broken::Remote(error, None));
            }
        };
        file.write_all(&piece)
            .map_err(|error| Broken::Local(full_disk(error, part)))?;
        done += piece.len() as u64;
        progress.at(done);
    }
    match total {
        Some(total) if done < total => {
            let (done, total) = (size(done), size(total));
            let error = anyhow!("the server closed it after {done} of {total}");
            Err(Broken::Remote(error, None))
        }
        _ => Ok(()),
    }
}

/// What a reader gives, read by a thread of its own, so that one can stop waiting for it.
fn in_pieces(mut reader: impl Read + Send + 'static) -> Receiver<std::io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::sync_channel(4);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let piece = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => Ok(buffer[..count].to_vec()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let last = piece.is_err();
            if sender.send(piece).is_err() || last {
                break;
            }
        }
    });
    receiver
}

fn open(part: &Path, append: bool) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true);
    if append {
        options.append(true)
    } else {
        options.write(true).truncate(true)
    };
    options.open(part)
}

fn length(part: &Path) -> u64 {
    fs::metadata(part).map_or(0, |data| data.len())
}

/// Adds the fix to an error of the file system.
pub fn full_disk(error: std::io::Error, path: &Path) -> anyhow::Error {
    let folder = path.parent().unwrap_or(path).display().to_string();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => anyhow!(
            "the disk is full: no room for {} (set-up needs about 3 GB; make room, or set DIFFUSION_CACHE to a folder on another disk, then run the same command again)",
            path.display()
        ),
        ErrorKind::PermissionDenied => anyhow!(
            "{folder} may not be written ({error}): change its permissions, or set DIFFUSION_CACHE to another folder"
        ),
        _ => anyhow!("cannot write {}: {error}", path.display()),
    }
}

/// SHA-256 of everything `reader` gives while it is written to `path`.
pub fn save(reader: &mut dyn Read, path: &Path) -> Result<String> {
    let mut file = File::create(path).map_err(|error| full_disk(error, path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 17];
    loop {
        let count = reader
            .read(&mut buffer)
            .with_context(|| format!("cannot read what should go to {}", path.display()))?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        file.write_all(&buffer[..count])
            .map_err(|error| full_disk(error, path))?;
    }
    Ok(tools::hex(&hasher.finalize()))
}

/// How far a download is: on a terminal a line that renews itself, elsewhere (a log, a CI job) a
/// new line every few seconds.
struct Progress {
    name: String,
    terminal: bool,
    from: u64,
    total: Option<u64>,
    began: Instant,
    shown: Option<Instant>,
    last: u64,
}

impl Progress {
    fn new(name: &str) -> Progress {
        let terminal = std::io::stdout().is_terminal();
        Progress {
            name: name.to_owned(),
            terminal,
            from: 0,
            total: None,
            began: Instant::now(),
            shown: None,
            last: 0,
        }
    }

    fn start(&mut self, from: u64, total: Option<u64>) {
        (self.from, self.total, self.began, self.last) = (from, total, Instant::now(), from);
    }

    fn at(&mut self, done: u64) {
        self.last = done;
        let pause = Duration::from_millis(if self.terminal { 500 } else { 5000 });
        if self.shown.unwrap_or(self.began).elapsed() >= pause {
            self.show(done);
        }
    }

    fn show(&mut self, done: u64) {
        self.shown = Some(Instant::now());
        let speed = (done - self.from) as f64 / self.began.elapsed().as_secs_f64().max(1e-3);
        let mut line = format!("  {}: {}", self.name, size(done));
        if let Some(total) = self.total.filter(|total| *total > 0) {
            let left = (total.saturating_sub(done)) as f64 / speed.max(1.0);
            line = format!(
                "{line} of {} ({:.0}%), {:.0} s left",
                size(total),
                100.0 * done as f64 / total as f64,
                left
            );
        }
        line = format!("{line}, {}/s", size(speed as u64));
        if self.terminal {
            print!("\r\x1b[2K{line}")
        } else {
            println!("{line}")
        };
        let _ = std::io::stdout().flush();
    }

    fn done(&mut self) {
        if self.shown.is_some() {
            self.show(self.last);
            if self.terminal {
                println!();
            }
        }
    }
}

/// `5.0 MB`.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.0} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}
