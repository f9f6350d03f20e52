//! Running other programs, and small things with files that several parts need.

use std::fmt::Write as _;
use std::fs;
use std::io::IsTerminal;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// How long a failure is remembered.
const FORGOTTEN: Duration = Duration::from_secs(300);

/// Runs a program to its end and returns what it printed. An error carries its last lines.
pub fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("`{name}` could not be started"))?;
    if !output.status.success() {
        bail!(
            "`{}` failed ({}):\n{}",
            shown(command),
            output.status,
            tail(&output)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs a program with its output on the terminal.
pub fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command
        .status()
        .with_context(|| format!("`{name}` could not be started"))?;
    check_status(&shown(command), status)
}

fn check_status(command: &str, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("`{command}` failed ({status}); its own words stand above");
    }
    Ok(())
}

/// The command as one would type it.
pub fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        let _ = write!(text, " {}", argument.to_string_lossy());
    }
    text
}

/// SHA-256 of some bytes, in hex.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of a file, in hex.
pub fn sha256_file(path: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut file =
        fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    std::io::copy(&mut file, &mut HashWriter(&mut hasher))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(hex(&hasher.finalize()))
}

/// Lets `std::io::copy` feed a hash.
pub struct HashWriter<'a>(pub &'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Bytes in hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Writes a file through a temporary neighbour, so that nobody ever reads half of it.
pub fn write_whole(path: &Path, text: impl AsRef<[u8]>) -> Result<()> {
    let folder = path
        .parent()
        .with_context(|| format!("{} has no folder", path.display()))?;
    fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let half = folder.join(format!(".{name}.{}", std::process::id()));
    let written = fs::write(&half, text).and_then(|()| fs::rename(&half, path));
    if written.is_err() {
        let _ = fs::remove_file(&half);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// Removes a directory that may not be there.
pub fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Puts a folder in the place of another, which others may be using: `place` is a link, from now on to this one. The one before stays as it is,
/// for whoever has it open; those before that are removed, as far as that is possible.
///
/// # Errors
/// If it cannot be renamed, or no link be made.
pub fn publish(new: &Path, place: &Path) -> Result<()> {
    let before = place.canonicalize().ok();
    let numbers = editions(place)?;
    let number = numbers.last().map_or(1, |last| last + 1);
    let target = edition(place, number);
    if place.is_dir() && !place.is_symlink() {
        remove_dir(place)?;
    }
    let half = edition(place, 0);
    let _ = fs::remove_file(&half); // of a publication that was interrupted
    fs::rename(new, &target)
        .and_then(|()| symlink(target.file_name().unwrap_or_default(), &half))
        .and_then(|()| fs::rename(&half, place))
        .with_context(|| format!("cannot put {} at {}", new.display(), place.display()))?;
    for number in numbers {
        let old = edition(place, number);
        if old.canonicalize().ok() != before {
            // Somebody else's, or in use on a network's file system: the next one tries again.
            let _ = remove_dir(&old);
        }
    }
    Ok(())
}

fn edition(place: &Path, number: u64) -> PathBuf {
    let mut name = place.as_os_str().to_owned();
    name.push(format!("-{number}"));
    name.into()
}

/// The numbers of the folders that a place has led to, in order.
fn editions(place: &Path) -> Result<Vec<u64>> {
    let folder = place.parent().unwrap_or(place);
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let number = |found: &str| found.strip_prefix(&*name)?.strip_prefix('-')?.parse().ok();
    let mut numbers: Vec<u64> = entries
        .flatten()
        .filter_map(|entry| number(&entry.file_name().to_string_lossy()))
        .filter(|number| *number > 0)
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Whether a failure was noted in the last minutes. It may have been a full disk, so it does not count for ever.
pub fn happened_lately(failed: &Path) -> bool {
    let noted = fs::metadata(failed).and_then(|data| data.modified());
    noted.is_ok_and(|noted| noted.elapsed().is_ok_and(|since| since < FORGOTTEN))
}

/// `3.2 s`, `2 min 05 s`.
pub fn seconds(time: Duration) -> String {
    let whole = time.as_secs();
    if whole < 60 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} min {:02} s", whole / 60, whole % 60)
    }
}

fn tail(output: &Output) -> String {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Runs a program that may take minutes. On a terminal its own progress is enough; elsewhere we
/// say every few seconds that it is still at work.
pub fn run_visibly(command: &mut Command, doing: &str) -> Result<()> {
    let ticks = !std::io::stderr().is_terminal();
    Running::begin(command, doing)?.finish(ticks)
}

/// A program that is at work while we do something else. It is ended, and its compilers with it, where nobody waits for it any more.
pub struct Running {
    child: Child,
    command: String,
    doing: String,
    /// When it was started.
    pub began: Instant,
}

impl Running {
    /// Starts it, and says what it does. It should not say much itself meanwhile.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn begin(command: &mut Command, doing: &str) -> Result<Running> {
        println!("  {doing} …");
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .spawn()
            .with_context(|| format!("`{name}` could not be started"))?;
        Ok(Running {
            child,
            command: shown(command),
            doing: doing.to_owned(),
            began: Instant::now(),
        })
    }

    /// An error if it has failed already.
    ///
    /// # Errors
    /// That one.
    pub fn look(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => check_status(&self.command, status),
            None => Ok(()),
        }
    }

    /// Waits for its end, and says every few seconds that it is still at work.
    ///
    /// # Errors
    /// If it fails.
    pub fn wait(self) -> Result<()> {
        self.finish(true)
    }

    fn finish(mut self, ticks: bool) -> Result<()> {
        let (stop, stopped) = mpsc::channel::<()>();
        let (doing, began) = (self.doing.clone(), self.began);
        let ticker = ticks.then(|| {
            thread::spawn(move || {
                let timeout = Err(mpsc::RecvTimeoutError::Timeout);
                while stopped.recv_timeout(Duration::from_secs(10)) == timeout {
                    println!("  still {doing} [{}]", seconds(began.elapsed()));
                }
            })
        });
        let status = self.child.wait();
        drop(stop);
        if let Some(ticker) = ticker {
            let _ = ticker.join();
        }
        check_status(&self.command, status?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let parent = self.child.id().to_string();
            let _ = Command::new("pkill")
                .args(["-KILL", "-P", &parent])
                .output();
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_failure_is_remembered_for_minutes_only() {
        let file = std::env::temp_dir().join(format!("lab-failed-{}", std::process::id()));
        assert!(!happened_lately(&file));
        fs::write(&file, "no room").unwrap();
        assert!(happened_lately(&file));
        let long_ago = std::time::SystemTime::now() - 2 * FORGOTTEN;
        let opened = fs::File::options().write(true).open(&file).unwrap();
        opened.set_modified(long_ago).unwrap();
        assert!(!happened_lately(&file));
        fs::remove_file(file).unwrap();
    }

    #[test]
    fn a_program_that_nobody_waits_for_is_ended() {
        let program = Running::begin(Command::new("sleep").arg("60"), "sleeping").unwrap();
        let began = program.began;
        drop(program);
        assert!(began.elapsed() < Duration::from_secs(10));
        let error = run_visibly(&mut Command::new("false"), "failing").unwrap_err();
        assert!(error.to_string().contains("`false` failed"), "{error:#}");
    }

    #[test]
    fn the_edition_before_the_last_stays_and_older_ones_go() {
        let folder = std::env::temp_dir().join(format!("lab-test-publish-{}", std::process::id()));
        let place = folder.join("seed");
        let publish_one = |text: &str| {
            write_whole(&folder.join("new/file"), text).unwrap();
            publish(&folder.join("new"), &place).unwrap();
            place.canonicalize().unwrap()
        };
        // What is no link gives way too.
        write_whole(&place.join("file"), "old").unwrap();
        write_whole(&folder.join("seed-notes"), "not an edition").unwrap();
        let first = publish_one("1");
        let second = publish_one("2");
        assert_eq!(fs::read_to_string(first.join("file")).unwrap(), "1");
        assert_eq!(fs::read_to_string(place.join("file")).unwrap(), "2");
        let third = publish_one("3");
        assert!(!first.exists() && second.exists() && third.ends_with("seed-3"));
        assert!(folder.join("seed-notes").exists());
        fs::remove_dir_all(folder).unwrap();
    }
}
