//! Who may write where, and when.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::machine::layout::Layout;

/// What a clone's own things are made under, one after the other.
pub const SETUP: &str = "setup";

/// One run at a time makes a thing in a folder, in the clone's or in the cache that clones share: `what`, which names the lock.
///
/// # Errors
/// If the folder or its lock cannot be made.
pub fn turn(folder: &Path, what: &str) -> Result<File> {
    let file = file_of_turn(folder, what)?;
    if !is_free(&file) {
        println!(
            "  another run is at work in {} ({what}); waiting for it",
            folder.display()
        );
        alone(&file).with_context(|| format!("cannot lock {what} in {}", folder.display()))?;
    }
    Ok(file)
}

/// [`turn`], where nobody has it.
///
/// # Errors
/// If the folder or its lock cannot be made.
pub fn turn_if_free(folder: &Path, what: &str) -> Result<Option<File>> {
    let file = file_of_turn(folder, what)?;
    Ok(is_free(&file).then_some(file))
}

fn file_of_turn(folder: &Path, what: &str) -> Result<File> {
    fs::create_dir_all(folder).with_context(|| {
        format!(
            "cannot make {}: change its permissions (DIFFUSION_CACHE names another cache)",
            folder.display()
        )
    })?;
    let path = folder.join(format!("{what}.lock"));
    // For nobody else to hold.
    options()
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Waits for a lock that nobody else holds. A file system that knows no locks (some networks' and containers') gives none; there, two
/// who work at the same time are not kept apart.
///
/// # Errors
/// What the system says, if it is something else.
pub fn alone(file: &File) -> io::Result<()> {
    if_there_are_locks(file.lock())
}

/// Whether nobody holds this lock. Without locks that cannot be known, and it counts as free.
pub fn is_free(file: &File) -> bool {
    match file.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(error)) => is_unknown(&error),
    }
}

fn if_there_are_locks(locked: io::Result<()>) -> io::Result<()> {
    match locked {
        Err(error) if is_unknown(&error) => Ok(()),
        other => other,
    }
}

/// `ENOSYS` and `ENOTSUP`, which the standard library has one word for, and `ENOLCK`, for which it has none.
fn is_unknown(error: &io::Error) -> bool {
    const ENOLCK: i32 = if cfg!(target_os = "macos") { 77 } else { 37 };
    error.kind() == io::ErrorKind::Unsupported || error.raw_os_error() == Some(ENOLCK)
}

/// A file for a lock. On a network's file system a lock held alone needs a file that may be written.
///
/// # Errors
/// If it cannot be made.
pub fn file(path: &Path) -> io::Result<File> {
    options().open(path)
}

fn options() -> fs::OpenOptions {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    options
}

/// Waits until nobody else makes or sweeps kernels' directories.
///
/// # Errors
/// If the lock cannot be made or had.
pub fn runs(layout: &Layout) -> Result<File> {
    let runs = layout.runs();
    if let Some(shared) = layout.runs_among_others() {
        private(&shared)?;
    }
    fs::create_dir_all(&runs).with_context(|| format!("cannot make {}", runs.display()))?;
    let path = runs.with_extension("lock");
    let file = file(&path).with_context(|| format!("cannot open {}", path.display()))?;
    alone(&file).with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// Makes a folder in one that everybody may write to, for this user alone.
fn private(folder: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().mode(0o700).create(folder);
    let found = fs::symlink_metadata(folder)
        .with_context(|| format!("cannot make {} ({made:?})", folder.display()))?;
    // Whose processes these are is whose their list is; elsewhere than on Linux the folder above is the user's own.
    let mine = fs::metadata("/proc/self").map_or(true, |me| me.uid() == found.uid());
    ensure!(
        mine && found.is_dir() && found.mode() & 0o077 == 0,
        "{} is not a folder of this user's alone: remove it",
        folder.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_system_without_locks_gives_none_and_other_errors_count() {
        let nosys = io::Error::from_raw_os_error(38);
        assert!(!cfg!(target_os = "linux") || if_there_are_locks(Err(nosys)).is_ok());
        assert!(if_there_are_locks(Err(io::ErrorKind::PermissionDenied.into())).is_err());
    }

    #[test]
    fn a_lock_is_free_once_its_file_is_closed() {
        let path = std::env::temp_dir().join(format!("lab-test-lock-{}", std::process::id()));
        let held = file(&path).unwrap();
        alone(&held).unwrap();
        assert!(!is_free(&file(&path).unwrap()));
        drop(held);
        assert!(is_free(&file(&path).unwrap()));
        fs::remove_file(path).unwrap();
    }
}
