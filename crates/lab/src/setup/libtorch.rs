//! libtorch, CPU only, assembled from the Python wheels.
//!
//! The Linux wheel of torch is a CUDA build, but its `libtorch_cpu.so` needs only two small CUDA
//! libraries; the 470 MB of CUDA kernels are not unpacked. There must be no `libtorch_cuda.so` in
//! `lib`, or torch-sys links it; `libtorch.so`, which would need it, is a linker script instead.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::setup::fetch;
use crate::setup::index::{self, Wheel};
use crate::setup::part::{Finding, Options};
use kernel::machine::layout::{LIBTORCH_VERSION, Layout};
use kernel::machine::tools;

/// What the copy in the cache was unpacked as: `sha256 size name` of each library. Its presence
/// says that the unpacking came to its end.
const RECORD: &str = "unpacked-files";

/// The wheels of a machine, and which of their files become `lib/…`.
struct Recipe {
    wheels: &'static [Wheel],
    libraries: &'static [&'static str],
}

const LINUX_X86_64: Recipe = Recipe {
    wheels: &[
        Wheel {
            project: "torch",
            version: LIBTORCH_VERSION,
            file: "torch-2.13.0-cp312-cp312-manylinux_2_28_x86_64.whl",
            sha256: "796633c4cdf0fe2cdced72d8f88f22e73dbcfce83132763162f6d4bff13b820b",
        },
        Wheel {
            project: "nvidia-cuda-runtime",
            version: "13.0.96",
            file: "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
            sha256: "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
        },
        Wheel {
            project: "nvidia-cuda-cupti",
            version: "13.0.85",
            file: "nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl",
            sha256: "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
        },
    ],
    libraries: &[
        "torch/lib/libtorch_cpu.so",
        "torch/lib/libc10.so",
        "torch/lib/libgomp.so.1",
        "torch/lib/libshm.so",
        "nvidia/cu13/lib/libcudart.so.13",
        "nvidia/cu13/lib/libcupti.so.13",
    ],
};

/// This wheel is CPU-only already, so all its libraries are taken. Not tried by its authors.
const MACOS_ARM64: Recipe = Recipe {
    wheels: &[Wheel {
        project: "torch",
        version: LIBTORCH_VERSION,
        file: "torch-2.13.0-cp312-cp312-macosx_14_0_arm64.whl",
        sha256: "2fe228aba290d14b9f31b049be550dbd469c3fd3013d7a19705b30454da97027",
    }],
    libraries: &["torch/lib/*.dylib"],
};

fn recipe() -> Result<&'static Recipe> {
    match (env::consts::OS, env::consts::ARCH) {
        ("linux", "x86_64") => Ok(&LINUX_X86_64),
        ("macos", "aarch64") => Ok(&MACOS_ARM64),
        (system, machine) => bail!(
            "there is no ready libtorch for {system} on {machine} here: set LIBTORCH to a libtorch {LIBTORCH_VERSION} of your own"
        ),
    }
}

/// The `LIBTORCH` that the person set. The value that `.cargo/config.toml` gives to everything
/// under `cargo run` is not theirs.
fn own_libtorch(layout: &Layout) -> Option<PathBuf> {
    let path = PathBuf::from(env::var_os("LIBTORCH").filter(|value| !value.is_empty())?);
    (path != layout.libtorch_link()).then_some(path)
}

/// Is it there, and does `target/libtorch` lead to it?
pub fn check(layout: &Layout, deep: bool) -> Result<Finding> {
    let wanted = match own_libtorch(layout) {
        Some(own) => {
            usable(&own).context("LIBTORCH is set, but not to a usable libtorch: unset it to let set-up bring its own")?;
            own
        }
        None => match check_cached(layout, deep)? {
            Finding::Found(_) => layout.cached_libtorch(),
            other => return Ok(other),
        },
    };
    let wanted = wanted
        .canonicalize()
        .with_context(|| format!("cannot find {}", wanted.display()))?;
    if layout.libtorch_link().canonicalize().ok().as_ref() != Some(&wanted) {
        return Ok(Finding::Missing(format!(
            "{} does not lead to {} yet",
            layout.libtorch_link().display(),
            wanted.display()
        )));
    }
    let own = if own_libtorch(layout).is_some() {
        " (your LIBTORCH)"
    } else {
        ""
    };
    Ok(Finding::Found(format!(
        "libtorch {LIBTORCH_VERSION} in {}{own}",
        wanted.display()
    )))
}

/// Assembles it unless the person has their own, and links it.
pub fn make(layout: &Layout, _options: &Options) -> Result<()> {
    let wanted = own_libtorch(layout).unwrap_or_else(|| layout.cached_libtorch());
    if own_libtorch(layout).is_none() && !matches!(check_cached(layout, false)?, Finding::Found(_))
    {
        assemble(layout)?;
    }
    let wanted = wanted
        .canonicalize()
        .with_context(|| format!("cannot find {}", wanted.display()))?;
    fs::create_dir_all(layout.target())
        .with_context(|| format!("cannot make {}", layout.target().display()))?;
    let (link, new) = (layout.libtorch_link(), layout.target().join(".libtorch"));
    let _ = fs::remove_file(&new);
    symlink(&wanted, &new)
        .and_then(|()| fs::rename(&new, &link))
        .with_context(|| format!("cannot link {} to {}", link.display(), wanted.display()))
}

/// Has this directory the right version, and what torch-sys needs?
fn usable(folder: &Path) -> Result<()> {
    let file = folder.join("build-version");
    let version = fs::read_to_string(&file).with_context(|| {
        format!(
            "{} is no libtorch: no file `build-version` in it",
            folder.display()
        )
    })?;
    // The official archives say `2.13.0+cpu`.
    if version.trim().split('+').next() != Some(LIBTORCH_VERSION) {
        bail!(
            "{} is libtorch {}, needed is {LIBTORCH_VERSION}",
            folder.display(),
            version.trim()
        );
    }
    let end = if cfg!(target_os = "macos") {
        "dylib"
    } else {
        "so"
    };
    for name in [
        format!("lib/libtorch_cpu.{end}"),
        format!("lib/libc10.{end}"),
        format!("lib/libtorch.{end}"),
        "include/torch/csrc/api/include/torch/torch.h".to_owned(),
    ] {
        if !folder.join(&name).exists() {
            bail!("{} has no {name}", folder.display());
        }
    }
    Ok(())
}

fn check_cached(layout: &Layout, deep: bool) -> Result<Finding> {
    let folder = layout.cached_libtorch();
    let Ok(record) = fs::read_to_string(folder.join(RECORD)) else {
        recipe()?;
        return Ok(Finding::Missing(format!(
            "libtorch {LIBTORCH_VERSION} is not in the cache yet (a download of 540 MB, 450 MB when done)"
        )));
    };
    if let Err(error) = usable(&folder) {
        return Ok(Finding::Wrong(format!("{error:#}")));
    }
    for line in record.lines() {
        let [hash, size, name] = line.split(' ').collect::<Vec<_>>()[..] else {
            return Ok(Finding::Wrong(format!(
                "{} is damaged",
                folder.join(RECORD).display()
            )));
        };
        let path = folder.join("lib").join(name);
        let found = fs::metadata(&path).map_or(0, |data| data.len());
        if found.to_string() != size {
            return Ok(Finding::Wrong(format!(
                "{} has {found} bytes, expected {size}",
                path.display()
            )));
        }
        if deep && tools::sha256_file(&path)? != hash {
            return Ok(Finding::Wrong(format!(
                "{} is not what was unpacked: its SHA-256 is not {hash}",
                path.display()
            )));
        }
    }
    Ok(Finding::Found(String::new()))
}

fn assemble(layout: &Layout) -> Result<()> {
    let recipe = recipe()?;
    let agent = fetch::agent(Duration::from_secs(10));
    let new = layout
        .downloads()
        .join(format!("libtorch-{LIBTORCH_VERSION}"));
    tools::remove_dir(&new)?;
    let mut record = BTreeMap::new();
    for wheel in recipe.wheels {
        let file = layout.downloads().join(wheel.file);
        index::bring(layout, &agent, wheel, &file)?;
        println!("  unpacking {}", wheel.project);
        unpack(&file, &new, recipe.libraries, &mut record)
            .with_context(|| format!("cannot unpack {}", file.display()))?;
    }
    if cfg!(target_os = "linux") {
        symlink("libgomp.so.1", new.join("lib/libgomp.so")).context("cannot link libgomp.so")?;
        tools::write_whole(&new.join("lib/libtorch.so"), "INPUT(-ltorch_cpu)\n")?;
    }
    tools::write_whole(&new.join("build-version"), LIBTORCH_VERSION)?;
    let lines: String = record
        .into_iter()
        .map(|(name, (hash, size))| format!("{hash} {size} {name}\n"))
        .collect();
    tools::write_whole(&new.join(RECORD), lines)?;
    usable(&new).context("the wheels do not hold what was expected")?;
    tools::remove_dir(&layout.cached_libtorch())?;
    fs::rename(&new, layout.cached_libtorch())
        .with_context(|| format!("cannot rename {}", new.display()))?;
    for wheel in recipe.wheels {
        let _ = fs::remove_file(layout.downloads().join(wheel.file));
    }
    Ok(())
}

/// Unpacks the headers and the libraries asked for; notes hash and size of each library.
fn unpack(
    wheel: &Path,
    into: &Path,
    libraries: &[&str],
    record: &mut BTreeMap<String, (String, u64)>,
) -> Result<()> {
    let file = File::open(wheel)?;
    let mut archive = zip::ZipArchive::new(file)?;
    for position in 0..archive.len() {
        let mut member = archive.by_index(position)?;
        let name = member.name()?.into_owned();
        let library = libraries.iter().any(|wanted| matches(wanted, &name));
        let target = match name.strip_prefix("torch/include/") {
            Some(header) => into.join("include").join(header),
            None if library => into
                .join("lib")
                .join(name.rsplit('/').next().unwrap_or(&name)),
            None => continue,
        };
        if name.ends_with('/') || name.contains("..") {
            continue;
        }
        let folder = target.parent().unwrap_or(into);
        fs::create_dir_all(folder).map_err(|error| fetch::full_disk(error, folder))?;
        let size = member.size();
        let hash = fetch::save(&mut member, &target)?;
        if library {
            let name = target
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            record.insert(name, (hash, size));
        }
    }
    Ok(())
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        Some((start, end)) => name
            .strip_prefix(start)
            .and_then(|rest| rest.strip_suffix(end))
            .is_some_and(|middle| !middle.contains('/')),
        None => pattern == name,
    }
}
