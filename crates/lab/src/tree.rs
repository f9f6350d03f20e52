//! Copies of build directories that share what nobody writes to.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// Makes `to` a copy of `from`. What compilers only ever replace (libraries, build scripts) becomes
/// a second name of the same file, which costs neither time nor disk nor page cache; everything
/// else is copied, with its times, because cargo decides by times what is fresh.
///
/// Sharing is safe because rustc, cargo, `cc` and the linkers write such a file anew or rename it
/// into place and never write into it: the test `kernels_do_not_share_what_one_rebuilds` holds
/// them to it.
pub fn clone(from: &Path, to: &Path) -> Result<()> {
    clone_but(from, to, &|_| false)
}

/// [`clone`] without the files and folders that `leave_out` names.
pub fn clone_but(from: &Path, to: &Path, leave_out: &dyn Fn(&Path) -> bool) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry.with_context(|| format!("cannot read {}", from.display()))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if leave_out(&source) {
            continue;
        }
        let data = entry
            .metadata()
            .with_context(|| format!("cannot read {}", source.display()))?;
        if data.is_dir() {
            clone_but(&source, &target, leave_out)?;
        } else if data.is_symlink() {
            fs::read_link(&source)
                .and_then(|link| std::os::unix::fs::symlink(link, &target))
                .with_context(|| failed(&source, &target))?;
        } else if !(immutable(&source, &data) && fs::hard_link(&source, &target).is_ok()) {
            copy(&source, &target, &data).with_context(|| failed(&source, &target))?;
        }
    }
    Ok(())
}

fn failed(source: &Path, target: &Path) -> String {
    format!("cannot copy {} to {}", source.display(), target.display())
}

fn immutable(path: &Path, data: &fs::Metadata) -> bool {
    let library = path.extension().is_some_and(|end| {
        ["rlib", "rmeta", "so", "dylib", "a"]
            .iter()
            .any(|library| end == *library)
    });
    library || data.permissions().mode() & 0o111 != 0
}

fn copy(source: &Path, target: &Path, data: &fs::Metadata) -> std::io::Result<()> {
    fs::copy(source, target)?;
    let times = FileTimes::new()
        .set_modified(data.modified()?)
        .set_accessed(data.accessed()?);
    File::options().write(true).open(target)?.set_times(times)
}
