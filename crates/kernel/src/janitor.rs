//! The end of a kernel's directory: whoever ends the kernel, and however.

use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::{CommandExt, parent_id};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::machine::{locks, tools};

/// Where Jupyter tells a kernel the id of the server's process.
const SERVER: &str = "JPY_PARENT_PID";
/// Held locked by the janitor for as long as the directory is in use; says whose directory it is.
const OWNER: &str = "owner";

/// Makes a directory for this process, and starts its janitor.
///
/// # Errors
/// If a directory or file cannot be made, or the janitor not be started.
pub fn own_directory(runs: &Path) -> Result<PathBuf> {
    let id = std::process::id();
    let mut own = runs.join(id.to_string());
    // A process id comes round again; the last one's janitor may still be at work.
    for again in 1.. {
        match fs::create_dir(&own) {
            Ok(()) => break,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                own = runs.join(format!("{id}-{again}"))
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot make {}", own.display()));
            }
        }
    }
    let path = own.join(OWNER);
    let mut owner =
        locks::file(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let whose = format!("{id} {}", born(id).unwrap_or_default());
    owner
        .write_all(whose.as_bytes())
        .and_then(|()| locks::alone(&owner))
        .with_context(|| format!("cannot lock {}", path.display()))?;
    // The lock belongs to the open file, which the janitor holds as its standard input.
    Command::new(env::current_exe()?)
        .args(["janitor", &id.to_string()])
        .arg(&own)
        .args(server().map(|server| server.to_string()))
        .process_group(0)
        .current_dir("/")
        .stdin(Stdio::from(owner))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start the janitor of the kernel's directory")?;
    Ok(own)
}

/// The Jupyter server's process, which started this one. Where the two ids differ, the server counts processes in another way, as one outside a
/// container does, and its id means somebody else here.
fn server() -> Option<u32> {
    let told = env::var(SERVER).ok()?.parse().ok()?;
    (parent_id() == told).then_some(told)
}

/// Removes every directory below `runs` that nobody owns any more: its janitor has let it go, and its kernel has ended.
///
/// # Errors
/// If a directory cannot be read or removed.
pub fn sweep(runs: &Path) -> Result<()> {
    for entry in fs::read_dir(runs)
        .with_context(|| format!("cannot read {}", runs.display()))?
        .flatten()
    {
        let owner = File::options()
            .read(true)
            .write(true)
            .open(entry.path().join(OWNER));
        let free = match owner {
            Ok(owner) => locks::is_free(&owner) && !is_owned(&entry.path()),
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        };
        if free {
            tools::remove_dir(&entry.path())?;
        }
    }
    Ok(())
}

/// Whether the kernel that a directory was made for lives, though its janitor may not.
fn is_owned(folder: &Path) -> bool {
    let whose = fs::read_to_string(folder.join(OWNER)).unwrap_or_default();
    let whose = whose.split_once(' ');
    whose.is_some_and(|(id, birth)| {
        let lives = id.parse().ok().and_then(born);
        !birth.is_empty() && lives.as_deref() == Some(birth)
    })
}

/// When a process was born, as Linux counts it: tells it from a later one of the same id. None where there is none, or no such list.
fn born(process: u32) -> Option<String> {
    let line = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in brackets, may have blanks in it; the time is the 22nd word.
    let (_, rest) = line.rsplit_once(')')?;
    rest.split_whitespace().nth(19).map(str::to_owned)
}

/// Waits until `kernel`, which started this process, has ended, and removes its directory. The system tells by giving this process another
/// parent: that takes no signal, works after any kind of end, and cannot mistake a later process with the same id for the kernel.
///
/// `server` is the Jupyter server that asked for the kernel. evcxr does not notice when that is gone, as after a crash or
/// when a hub ends, and would hold its memory for ever: so the kernel is ended then.
pub fn janitor(kernel: u32, folder: &Path, server: Option<u32>) {
    let (mut looks, mut requests) = (0u32, 0);
    while parent_id() == kernel {
        thread::sleep(Duration::from_millis(250));
        looks += 1;
        if looks.is_multiple_of(8) && server.is_some_and(|server| !lives(server)) {
            end(kernel, if requests < 3 { "TERM" } else { "KILL" });
            requests += 1;
        }
    }
    // A compiler that outlives the kernel may still write.
    for _ in 0..120 {
        if fs::remove_dir_all(folder).is_ok() || !folder.exists() {
            return;
        }
        thread::sleep(Duration::from_millis(500));
    }
}

/// Whether there is a process of this id. Asking takes a shell, since the standard library has no such question.
fn lives(process: u32) -> bool {
    let asked = kill(&["-0".to_owned(), process.to_string()]);
    !asked.is_ok_and(|status| status.code() == Some(1))
}

/// Sends a signal to the kernel and to what it has started: Jupyter gives each kernel a process group of its own.
fn end(kernel: u32, signal: &str) {
    for whom in [format!("-{kernel}"), kernel.to_string()] {
        let _ = kill(&["-s".to_owned(), signal.to_owned(), "--".to_owned(), whom]);
    }
}

/// The shell's own `kill`: not every machine has a program of that name.
fn kill(words: &[String]) -> std::io::Result<std::process::ExitStatus> {
    Command::new("sh")
        .args(["-c", "kill \"$@\"", "sh"])
        .args(words)
        .stderr(Stdio::null())
        .status()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_directory_is_kept_while_its_kernel_lives_though_the_janitor_is_gone() {
        let runs = env::temp_dir().join(format!("lab-test-runs-{}", std::process::id()));
        let id = std::process::id();
        let birth = born(id).unwrap();
        for (name, whose) in [
            ("living", format!("{id} {birth}")),
            ("earlier", format!("{id} 1{birth}")),
            ("unknown", String::new()),
        ] {
            fs::create_dir_all(runs.join(name)).unwrap();
            fs::write(runs.join(name).join(OWNER), whose).unwrap();
        }
        sweep(&runs).unwrap();
        let left: Vec<_> = fs::read_dir(&runs)
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        assert_eq!(left, ["living"]);
        fs::remove_dir_all(runs).unwrap();
    }

    #[test]
    fn a_shell_tells_who_lives() {
        assert!(lives(std::process::id()));
        assert!(!lives(u32::MAX / 2));
    }
}
