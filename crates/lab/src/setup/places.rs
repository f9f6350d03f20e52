//! Where set-up writes: whether it may, whether that place can hold what is made, and whether there is room. Asked first, so that
//! nobody waits for minutes to read it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use kernel::machine::layout::Layout;
use kernel::machine::{locks, tools};

use crate::setup::part::{Finding, Options};
use crate::setup::{analyzer, evcxr, libtorch, python, seed};

const GB: u64 = 1_000_000_000;

/// Where something is to be made: the folder, what for, how much room that takes, and what to do where there is none.
struct Place {
    folder: PathBuf,
    holds: &'static str,
    needs: u64,
    /// Whether compilers work there: without locks they refuse to.
    locked: bool,
    fix: &'static str,
}

/// The places in which something is missing, with what comes there; about twice as much as is kept, because of downloads and builds.
fn wanted(layout: &Layout) -> Vec<Place> {
    type Check = fn(&Layout, bool) -> Result<Finding>;
    let needs = |parts: &[(Check, u64)]| -> u64 {
        let missing = parts
            .iter()
            .filter(|(check, _)| matches!(check(layout, false), Ok(Finding::Missing(_))));
        missing.map(|(_, needs)| needs).sum()
    };
    let cache = Place {
        folder: layout.cache.clone(),
        holds: "downloads and built programs",
        needs: needs(&[(libtorch::check, 2 * GB), (evcxr::check, GB)]),
        locked: false,
        fix: "set DIFFUSION_CACHE to a folder in another place",
    };
    let target = Place {
        folder: layout.target(),
        holds: "what is built for this clone",
        needs: needs(&[
            (python::check, GB),
            (analyzer::check, GB),
            (seed::check, GB),
        ]),
        locked: true,
        fix: "clone the lesson in another place, or make `target` a link to a folder there",
    };
    [cache, target]
        .into_iter()
        .filter(|place| place.needs > 0)
        .collect()
}

/// Can what is missing be made?
pub fn check(layout: &Layout, _deep: bool) -> Result<Finding> {
    let wanted = wanted(layout);
    for place in &wanted {
        if let Err(error) = try_out(&place.folder, place.locked) {
            bail!(
                "{} cannot hold {}: {error:#}; {}",
                place.folder.display(),
                place.holds,
                place.fix
            );
        }
    }
    let mut free = Vec::new();
    for place in &wanted {
        let there = room(&place.folder)?;
        // Both may be on one disk.
        let also = wanted
            .iter()
            .filter(|other| on_one_disk(&place.folder, &other.folder));
        enough(place, also.map(|other| other.needs).sum(), there)?;
        free.push(format!("{} GB in {}", there / GB, place.folder.display()));
    }
    Ok(Finding::Found(match free.as_slice() {
        [] => "nothing is missing that takes room".to_owned(),
        free => format!("there is room: {}", free.join(", ")),
    }))
}

fn on_one_disk(one: &Path, other: &Path) -> bool {
    let disk = |folder| fs::metadata(folder).map(|data| data.dev()).ok();
    disk(one) == disk(other)
}

/// There is nothing to make: the error names the fix.
pub fn make(layout: &Layout, _options: &Options) -> Result<()> {
    check(layout, false).map(drop)
}

/// The bytes that this user may still write.
fn room(folder: &Path) -> Result<u64> {
    let system = rustix::fs::statvfs(folder)
        .with_context(|| format!("cannot ask for the room in {}", folder.display()))?;
    Ok(system.f_bavail * system.f_frsize)
}

/// `needs` is what comes to this place's disk, also in other places.
fn enough(place: &Place, needs: u64, free: u64) -> Result<()> {
    ensure!(
        free >= needs,
        "too little room in {}: {:.1} GB are free on its disk, and set-up takes up to {} GB there: make room, or {}",
        place.folder.display(),
        free as f64 / GB as f64,
        needs / GB,
        place.fix
    );
    Ok(())
}

/// Makes what set-up makes: a folder, a program that runs, a link to it, another name for it, a lock.
fn try_out(folder: &Path, locked: bool) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let place = folder.join(format!(".tried-{}", std::process::id()));
    let tried = try_in(&place, locked);
    let _ = fs::remove_dir_all(&place);
    tried
}

fn try_in(place: &Path, locked: bool) -> Result<()> {
    let (half, program, link) = (
        place.join("half"),
        place.join("program"),
        place.join("link"),
    );
    fs::create_dir(place)
        .and_then(|()| fs::write(&half, "#!/bin/sh\n"))
        .and_then(|()| fs::set_permissions(&half, fs::Permissions::from_mode(0o755)))
        .and_then(|()| fs::rename(&half, &program))
        .context("it cannot be written to")?;
    symlink("program", &link).context("links cannot be made there")?;
    if let Err(error) = tools::output(&mut Command::new(&link)) {
        bail!("programs there cannot be started (is it mounted with `noexec`?): {error:#}");
    }
    if locked {
        let file = locks::file(&place.join("lock")).context("it cannot be written to")?;
        file.lock()
            .context("its file system has no locks, which Rust's compiler needs")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::env;

    use super::*;

    fn place(folder: &Path) -> Place {
        Place {
            folder: folder.to_owned(),
            holds: "downloads",
            needs: GB,
            locked: true,
            fix: "take another disk",
        }
    }

    #[test]
    fn too_little_room_is_said_with_both_numbers_and_the_fix() {
        let here = env::temp_dir();
        assert!(room(&here).unwrap() > 0);
        assert!(on_one_disk(&here, &here));
        assert!(!on_one_disk(&here, Path::new("/proc")));
        let place = place(&here);
        assert!(enough(&place, 2 * GB, 2 * GB).is_ok());
        let error = enough(&place, 3 * GB, 2 * GB - 1).unwrap_err();
        let words = error.to_string();
        for part in ["2.0 GB are free", "up to 3 GB", "take another disk"] {
            assert!(words.contains(part), "{words}");
        }
    }

    #[test]
    fn a_place_that_cannot_be_written_to_is_told_from_one_that_can() {
        try_out(&env::temp_dir(), true).unwrap();
        let error = try_out(Path::new("/dev/null/cache"), true).unwrap_err();
        assert!(error.to_string().contains("cannot make"), "{error:#}");
    }
}
