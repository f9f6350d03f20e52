//! Copies of build directories that share what nobody writes to.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};

use crate::machine::locks;

/// Makes `to` a copy of `from`. What compilers only ever replace (libraries, build scripts) becomes
/// a second name of the same file, which costs neither time nor disk nor page cache; everything
/// else is copied, with its times, because cargo decides by times what is fresh.
///
/// Sharing is safe because rustc, cargo, `cc` and the linkers write such a file anew or rename it
/// into place and never write into it: the test `kernels_do_not_share_what_one_rebuilds` holds
/// them to it.
pub fn clone(from: &Path, to: &Path) -> Result<()> {
    copy_tree(from, to, &way_of_a_clone)
}

fn way_of_a_clone(path: &Path, data: &fs::Metadata) -> Way {
    match immutable(path, data) {
        true => Way::Share,
        false => Way::Copy,
    }
}

/// [`clone`] in which what `lendable` names (by its path below `from`) is shared too, and what `leave_out` names is missing. That is safe as
/// long as nobody writes there who did not [`take_over`] first.
pub fn lend(
    from: &Path,
    to: &Path,
    lendable: &dyn Fn(&Path) -> bool,
    leave_out: &dyn Fn(&Path) -> bool,
) -> Result<()> {
    copy_tree(from, to, &|path, data| match path.strip_prefix(from) {
        _ if leave_out(path) => Way::LeaveOut,
        Ok(below) if lendable(below) => Way::Lend,
        _ if immutable(path, data) => Way::Lend,
        _ => Way::Copy,
    })?;
    let mark = to.join(LENT);
    File::create(&mark).with_context(|| format!("cannot write {}", mark.display()))?;
    Ok(())
}

/// A folder of second names for another's files, without what `leave_out` names; of copies where second names may not be. Whoever replaces
/// files there, as an update does, leaves these as they are.
///
/// # Errors
/// If a folder or file cannot be read or made.
pub fn second_names(from: &Path, to: &Path, leave_out: &dyn Fn(&Path) -> bool) -> Result<()> {
    copy_tree(from, to, &|path, _| match leave_out(path) {
        true => Way::LeaveOut,
        false => Way::Share,
    })
}

/// Makes what was lent to a folder its own, as [`clone`] would have: a quarter of a second for each thousand small files. Does nothing the
/// second time.
pub fn take_over(folder: &Path) -> Result<()> {
    let mark = folder.join(LENT);
    let Ok(turn) = File::options().read(true).write(true).open(&mark) else {
        return Ok(());
    };
    locks::alone(&turn).with_context(|| format!("cannot lock {}", mark.display()))?;
    if !mark.exists() {
        return Ok(()); // another program did it meanwhile
    }
    own_copies(folder)?;
    fs::remove_file(&mark).with_context(|| format!("cannot remove {}", mark.display()))
}

/// The mark of a folder in which something is lent.
const LENT: &str = "lent";

fn own_copies(folder: &Path) -> Result<()> {
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        let path = entry.path();
        let data = match entry.metadata() {
            // A compiler at work beside this one took its own file away.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            data => data.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let shared = data.is_file() && data.nlink() > 1 || data.is_symlink();
        if data.is_dir() {
            own_copies(&path)?;
        } else if let (true, Ok(data)) = (shared, fs::metadata(&path))
            && data.is_file()
            && !immutable(&path, &data)
        {
            let half = path.with_extension("half");
            copy(&path, &half, &data)
                .and_then(|()| fs::rename(&half, &path))
                .with_context(|| failed(&path, &path))?;
        }
    }
    Ok(())
}

enum Way {
    Share,
    /// [`Way::Share`], also by a link, which is of use only as long as the other file is there.
    Lend,
    Copy,
    LeaveOut,
}

fn copy_tree(from: &Path, to: &Path, way: &dyn Fn(&Path, &fs::Metadata) -> Way) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry.with_context(|| format!("cannot read {}", from.display()))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let data = entry
            .metadata()
            .with_context(|| format!("cannot read {}", source.display()))?;
        let way_of_this = way(&source, &data);
        if matches!(way_of_this, Way::LeaveOut) {
            continue;
        }
        if data.is_dir() {
            copy_tree(&source, &target, way)?;
        } else if data.is_symlink() {
            fs::read_link(&source)
                .and_then(|link| std::os::unix::fs::symlink(link, &target))
                .with_context(|| failed(&source, &target))?;
        } else if !has_second_name(&way_of_this, &source, &target) {
            copy(&source, &target, &data).with_context(|| failed(&source, &target))?;
        }
    }
    Ok(())
}

/// Makes `target` a second name of a file, if it shall be one. Where that may not be, as with somebody else's file or on another file system, a
/// link that leads to it does the same for whoever reads it, and for whoever replaces it.
fn has_second_name(way: &Way, source: &Path, target: &Path) -> bool {
    let link = || source.is_absolute() && std::os::unix::fs::symlink(source, target).is_ok();
    match way {
        Way::Share => fs::hard_link(source, target).is_ok(),
        Way::Lend => fs::hard_link(source, target).is_ok() || link(),
        Way::Copy | Way::LeaveOut => false,
    }
}

fn failed(source: &Path, target: &Path) -> String {
    format!("cannot copy {} to {}", source.display(), target.display())
}

fn immutable(path: &Path, data: &fs::Metadata) -> bool {
    let library = path.extension().is_some_and(|end| {
        ["rlib", "rmeta", "so", "dylib", "a", "answer", "command"]
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
