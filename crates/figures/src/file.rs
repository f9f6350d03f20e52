//! Paths and writing files.

use std::borrow::Cow;
use std::env;
use std::fs;
use std::io::Write;
use std::path::{Component, Path};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};

/// The path with `~` at its beginning replaced by the home folder, as a shell does. Other paths stay as they are.
///
/// # Errors
/// Another person's home (`~name`), or a system that does not say where the home folder is.
///
/// ```
/// # fn main() -> anyhow::Result<()> {
/// use std::path::Path;
///
/// assert!(!figures::with_home(Path::new("~/lesson.png"))?.starts_with("~"));
/// assert_eq!(figures::with_home(Path::new("saved/~"))?, Path::new("saved/~"));
/// assert!(figures::with_home(Path::new("~ann/lesson.png")).is_err());
/// # Ok(())
/// # }
/// ```
pub fn with_home(path: &Path) -> Result<Cow<'_, Path>> {
    let mut parts = path.components();
    let Some(Component::Normal(first)) = parts.next() else {
        return Ok(path.into());
    };
    if first == "~" {
        let home = env::home_dir().filter(|home| !home.as_os_str().is_empty());
        let home = home.with_context(|| {
            format!(
                "cannot tell what ~ in {} stands for: set HOME, or write the whole path",
                path.display()
            )
        })?;
        return Ok(home.join(parts.as_path()).into());
    }
    if first.to_string_lossy().starts_with('~') {
        bail!(
            "{} begins with ~, but not with ~/; expected a path below your own home folder, or ./{} for a file of \
             that name",
            path.display(),
            path.display()
        );
    }
    Ok(path.into())
}

/// Writes a file so that it is there whole or not at all, also when the program is killed meanwhile.
/// The folder of the file is made if it does not exist. A path that begins with `~` is one in the home folder.
///
/// # Errors
/// When the folder cannot be made or the file cannot be written; the error names the path.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let path: &Path = &with_home(path)?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let write = || -> Result<()> {
        fs::create_dir_all(folder)?;
        let mut name = path
            .file_name()
            .context("the path names no file")?
            .to_owned();
        static WRITTEN: AtomicUsize = AtomicUsize::new(0);
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
        name.push(format!(".{}-{number}.part", std::process::id()));
        let temporary = folder.join(name);
        let written = fs::File::create(&temporary)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary); // a half-written file is of no use
        }
        Ok(written?)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
