//! The folders of trainings in the background: each has a number, and none is overwritten.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use figures::panel::{PANEL_FILE, STOP_FILE};
use figures::{with_home, write_whole};
use ops::Precision;
use serde::{Deserialize, Serialize};

use super::config::Fit;
use crate::objective::Optimizer;

/// What lies in a training's folder, besides its panel.
const RECORD: &str = "run.json";
pub(super) const FIRST: &str = "first.safetensors";
pub(super) const CHECKPOINT: &str = "checkpoint.safetensors";
pub(super) const END: &str = "end.safetensors";
const LOCK: &str = "lock";
/// What a folder of this lesson's earlier version holds.
const EARLIER: &str = "settings.json";
/// How long a training that is told to stop may take to end its batch and its epoch.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a training was begun with: what goes on with it must be the same.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) model: String,
    /// The layers that training may change.
    pub(super) trainable: Vec<String>,
    pub(super) optimizer: Optimizer,
    /// The name of the loss.
    pub(super) loss: String,
    /// The data in words, and how many there are.
    pub(super) data: String,
    pub(super) images: usize,
    /// Loss and size of the gradients of the first weights, for the first images.
    pub(super) probe: [f64; 2],
    /// What the machine offered.
    pub(super) threads: usize,
    pub(super) precision: Precision,
    pub(super) fit: Fit,
}

/// The folder of a training, which no other training uses as long as this value lives. (Without locks, as far as its panel
/// tells.)
pub(super) struct Run {
    pub(super) folder: PathBuf,
    /// None where the file system has no locks.
    _lock: Option<File>,
}

impl Run {
    /// A new folder with the next number. What still runs in `folder` is stopped first, and a line says so.
    pub(super) fn begin(folder: &Path) -> Result<Run> {
        let folder: &Path = &with_home(folder)?;
        let cannot = || {
            format!(
                "cannot make a folder for the training in {}",
                folder.display()
            )
        };
        ensure!(
            !folder.as_os_str().is_empty(),
            "the folder has no name; expected one such as \"saved/run\""
        );
        fs::create_dir_all(folder).with_context(cannot)?;
        let mut numbers = numbers_in(folder)?;
        for number in &numbers {
            stop(&folder.join(number.to_string()))?;
        }
        loop {
            let next = numbers.last().map_or(1, |last| last + 1);
            let run = folder.join(next.to_string());
            match fs::create_dir(&run) {
                Ok(()) => return Run::lock(run),
                // Another kernel was quicker.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => numbers.push(next),
                Err(error) => return Err(error).with_context(cannot),
            }
        }
    }

    /// The folder of a training that was begun, and what it was begun with: `folder` itself, or the newest one in it.
    pub(super) fn again(folder: &Path) -> Result<(Run, Record)> {
        let folder: &Path = &with_home(folder)?;
        let newest = || -> Result<PathBuf> {
            ensure!(folder.is_dir(), "there is no such folder");
            ensure!(
                !folder.join(LOCK).is_file(),
                "its training ended while it began"
            );
            for number in numbers_in(folder)?.iter().rev() {
                let run = folder.join(number.to_string());
                if run.join(RECORD).is_file() {
                    return Ok(run);
                }
                println!(
                    "{} is skipped: its training ended while it began.",
                    run.display()
                );
            }
            bail!(
                "expected a folder that fit_in_background(…) was given, or one with a number in it"
            )
        };
        let run = match folder.join(RECORD).is_file() {
            true => folder.to_owned(),
            false => newest().with_context(|| format!("{} holds no training", folder.display()))?,
        };
        let path = run.join(RECORD);
        let record = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let record = serde_json::from_slice(&record)
            .with_context(|| format!("{} does not say what was trained", path.display()))?;
        let run = Run::lock(run)?;
        run.remove_parts()?;
        Ok((run, record))
    }

    /// Removes what a process left behind that was killed while it wrote a file.
    fn remove_parts(&self) -> Result<()> {
        for entry in self.folder.read_dir()? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "part")
            {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn lock(folder: PathBuf) -> Result<Run> {
        match Lock::of(&folder)? {
            Lock::Ours(lock) => Ok(Run {
                folder,
                _lock: lock,
            }),
            Lock::Others => bail!(
                "the training in {} is still running: stop it, or wait for it",
                folder.display()
            ),
        }
    }

    /// Written last: a folder without it holds no whole training.
    pub(super) fn write(&self, record: &Record) -> Result<()> {
        write_whole(
            &self.folder.join(RECORD),
            &serde_json::to_vec_pretty(record)?,
        )
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Who holds the lock of a folder, as a training does while it runs.
enum Lock {
    /// This value; without a file where the file system has no locks.
    Ours(Option<File>),
    Others,
}

impl Lock {
    fn of(folder: &Path) -> Result<Lock> {
        let path = folder.join(LOCK);
        let file =
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let tried = file.try_lock();
        Ok(match Lock::after(tried, file) {
            Lock::Ours(None) if seems_to_run(folder) => Lock::Others,
            lock => lock,
        })
    }

    fn after(tried: std::result::Result<(), TryLockError>, file: File) -> Lock {
        match tried {
            Ok(()) => Lock::Ours(Some(file)),
            Err(TryLockError::WouldBlock) => Lock::Others,
            // ENOSYS, ENOLCK, EOPNOTSUPP: numbers keep trainings apart all the same.
            Err(TryLockError::Error(_)) => Lock::Ours(None),
        }
    }
}

/// Whether a training without a lock wrote its panel a moment ago, and it said that it runs.
fn seems_to_run(folder: &Path) -> bool {
    const MOMENT: Duration = Duration::from_secs(10);
    let panel = folder.join(PANEL_FILE);
    let written = fs::metadata(&panel).and_then(|panel| panel.modified());
    let age = written.ok().and_then(|written| written.elapsed().ok());
    let text = fs::read_to_string(&panel).unwrap_or_default();
    age.is_some_and(|age| age < MOMENT) && text.contains("\"running\"")
}

/// The numbers of the trainings in a folder, the smallest first.
fn numbers_in(folder: &Path) -> Result<Vec<u64>> {
    ensure!(
        !folder.join(EARLIER).is_file(),
        "{} holds a training of an earlier version of this lesson: delete the folder, or choose another",
        folder.display()
    );
    let mut numbers = Vec::new();
    for entry in folder.read_dir()? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        match name.parse() {
            Ok(number) if entry.path().is_dir() => numbers.push(number),
            _ if name.starts_with('.') => {} // what file managers and Jupyter leave
            _ => bail!(
                "{} is there already, and holds {name}, which is no training: choose another folder",
                folder.display()
            ),
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Stops the training in this folder, if there is one, and says so.
fn stop(run: &Path) -> Result<()> {
    let started = Instant::now();
    while run.join(LOCK).is_file() && matches!(Lock::of(run)?, Lock::Others) {
        if !run.join(STOP_FILE).exists() {
            println!(
                "The training in {} is still running. It is stopped; the network of its end is {}.",
                run.display(),
                run.join(END).display()
            );
            fs::write(run.join(STOP_FILE), "stop")?;
        }
        ensure!(
            started.elapsed() < PATIENCE,
            "the training in {} does not stop: choose another folder",
            run.display()
        );
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn without_locks_a_folder_is_ours() {
        const ENOSYS: i32 = 38;
        let folder = tempfile::tempdir().unwrap();
        let file = || File::create(folder.path().join(LOCK)).unwrap();
        let missing = TryLockError::Error(io::Error::from_raw_os_error(ENOSYS));
        assert!(matches!(
            Lock::after(Err(missing), file()),
            Lock::Ours(None)
        ));
        let held = Lock::after(Err(TryLockError::WouldBlock), file());
        assert!(matches!(held, Lock::Others));
        // With locks the second one waits.
        let first = Lock::of(folder.path()).unwrap();
        assert!(matches!(first, Lock::Ours(Some(_))));
        assert!(matches!(Lock::of(folder.path()).unwrap(), Lock::Others));
        drop(first);
        assert!(matches!(Lock::of(folder.path()).unwrap(), Lock::Ours(_)));
    }
}
