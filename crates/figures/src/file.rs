//! Writing files.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

/// Writes a file so that it is there whole or not at all, also when the program is killed meanwhile.
/// The folder of the file is made if it does not exist.
///
/// # Errors
/// When the folder cannot be made or the file cannot be written; the error names the path.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
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
        name.push(format!(".{}.part", std::process::id()));
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
