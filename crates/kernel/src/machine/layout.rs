//! Where everything is: the clone, what was built in it, and the cache that all clones of one user share.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::machine::tools;

/// The libtorch that `tch` 0.26 links; no other version does.
pub const LIBTORCH_VERSION: &str = "2.13.0";
/// The kernel that runs the cells.
pub const EVCXR_VERSION: &str = "0.22.0";

/// The crate that notebooks name (`:dep diffusion`), from the clone's root. Which others belong to it says its
/// manifest ([`crate::local`]).
pub const SUPPORT_CRATE: &str = "crates/diffusion";

/// Tells a kernel's programs which toolchain is the kernel's.
pub const TOOLCHAIN: &str = "LAB_TOOLCHAIN";

/// The name of the program that evcxr and the analyzer start as cargo.
pub const CARGO: &str = "cargo";
/// The name under which this program stands between cargo and the compiler.
pub const WITNESS: &str = "rustc-witness";
/// The name under which this program is the linker.
pub const LINKER: &str = "cell-linker";
/// The member of a kernel's workspace that keeps the tested versions: its folder, and its package's name.
pub const LOCK: &str = "lock";

/// The two folders that everything lives in.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The clone.
    pub root: PathBuf,
    /// The per-user cache: big downloads and built tools, keyed by version, so that a second clone
    /// does not pay again.
    pub cache: PathBuf,
}

impl Layout {
    /// The clone that this binary was built in, and the user's cache (`DIFFUSION_CACHE` if set).
    pub fn find() -> Result<Layout> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let root = root.canonicalize().with_context(|| {
            format!("the clone that this program was built in is gone ({}): run `make lab` in the clone as it is now", root.display())
        })?;
        let cache = match env::var_os("DIFFUSION_CACHE").filter(|value| !value.is_empty()) {
            Some(folder) => {
                let folder = PathBuf::from(folder);
                if folder.is_absolute() { folder } else { env::current_dir()?.join(folder) }
            }
            None => dirs::cache_dir()
                .context("no home folder, so no place for the cache: set HOME, or DIFFUSION_CACHE to a folder with 2 GB free")?
                .join("diffusion-lesson"),
        };
        Ok(Layout { root, cache })
    }

    /// What is built here. Kernels must build below the clone's own `target` whatever
    /// `CARGO_TARGET_DIR` says: only there cargo finds `.cargo/config.toml`, and only `target` is
    /// excluded from the workspace.
    pub fn target(&self) -> PathBuf {
        self.root.join("target")
    }

    /// The lesson.
    pub fn notebooks(&self) -> PathBuf {
        self.root.join("notebooks")
    }

    /// The support crate.
    pub fn support_crate(&self) -> PathBuf {
        self.root.join(SUPPORT_CRATE)
    }

    /// The link that `.cargo/config.toml` names; it leads to the libtorch in use.
    pub fn libtorch_link(&self) -> PathBuf {
        self.target().join("libtorch")
    }

    /// Everything about kernels: `seed`, `run`, `config`, the launcher.
    pub fn kernel(&self) -> PathBuf {
        self.target().join("kernel")
    }

    /// The warm build directory that new kernels start from: a link ([`tools::publish`]).
    pub fn seed(&self) -> PathBuf {
        self.kernel().join("seed")
    }

    /// What a kernel on trial learned with that directory: a link.
    pub fn memory(&self) -> PathBuf {
        self.kernel().join("memory")
    }

    /// One directory for each running kernel (below `LAB_RUNS`, if set: a learner's own folder in a class). evcxr cuts the path of a cell's
    /// library at a blank, and linkers take a comma for the end of a word; so where the clone's path has other than plain letters in it,
    /// or is long, kernels build in the system's folder for temporary files.
    pub fn runs(&self) -> PathBuf {
        let usual = self.kernel().join("run");
        let set = env::var_os("LAB_RUNS").filter(|folder| !folder.is_empty());
        match set.map_or(usual, PathBuf::from) {
            wanted if is_plain(&wanted) => wanted,
            wanted => temporary(&wanted).join("run"),
        }
    }

    /// The folder above it, where that lies among other users' files.
    pub fn runs_among_others(&self) -> Option<PathBuf> {
        let runs = self.runs();
        let above = runs.parent()?;
        let name = above.file_name()?.to_str()?;
        name.starts_with(TEMPORARY).then(|| above.to_owned())
    }

    /// The toolchain that new kernels run in: a link.
    pub fn toolchain(&self) -> PathBuf {
        self.kernel().join("toolchain")
    }

    /// The toolchain of the kernel that this process works for: the one that was new when that kernel started.
    pub fn toolchain_in_use(&self) -> PathBuf {
        env::var_os(TOOLCHAIN).map_or_else(|| self.toolchain(), PathBuf::from)
    }

    /// The thin sources of the standard library that a kernel's analyzer reads.
    pub fn standard_library(&self) -> PathBuf {
        self.kernel().join("std")
    }

    /// The copy of `crates/kernel`'s program that `kernel.json` names: `cargo build` must not pull it away from
    /// under a running JupyterLab.
    pub fn launcher(&self) -> PathBuf {
        self.kernel().join("kernel")
    }

    /// The library of `crates/cell`, which is loaded into the process that runs cells.
    pub fn cell_library(&self) -> PathBuf {
        self.kernel().join("libcell.so")
    }

    /// evcxr's settings for a kernel that starts without the lesson.
    pub fn plain_settings(&self) -> PathBuf {
        self.kernel().join("config-plain")
    }

    /// The libtorch in use, as the real directory: every clone of a user then gives torch-sys the same
    /// path, and what one clone compiled is fresh in another.
    ///
    /// # Errors
    /// If there is none yet.
    pub fn libtorch(&self) -> Result<PathBuf> {
        let link = self.libtorch_link();
        link.canonicalize().with_context(|| {
            format!(
                "{} does not lead to a libtorch: run `make lab`",
                link.display()
            )
        })
    }

    /// The libtorch that set-up assembles.
    pub fn cached_libtorch(&self) -> PathBuf {
        self.cache.join(format!("libtorch-{LIBTORCH_VERSION}"))
    }

    /// Where `cargo install` puts the kernel.
    pub fn evcxr_root(&self) -> PathBuf {
        self.cache.join(format!("evcxr_jupyter-{EVCXR_VERSION}"))
    }

    /// The kernel's program.
    pub fn evcxr(&self) -> PathBuf {
        self.evcxr_root().join("bin/evcxr_jupyter")
    }

    /// The four raw MNIST files.
    pub fn mnist(&self) -> PathBuf {
        self.cache.join("mnist")
    }

    /// Unfinished downloads and builds; what is in it can be thrown away at any time.
    pub fn downloads(&self) -> PathBuf {
        self.cache.join("downloads")
    }

    /// The Python environment: the lesson's conda environment where that is active, else the project's own. Any other conda environment
    /// is the user's, and nothing is installed there.
    pub fn python_env(&self) -> PathBuf {
        conda_env().unwrap_or_else(|| self.target().join("python"))
    }

    /// The environment's Python.
    pub fn python(&self) -> PathBuf {
        self.python_env().join("bin/python")
    }
}

/// How the names of kernels' folders begin among other users' files.
const TEMPORARY: &str = "lesson-kernels-";

fn temporary(instead_of: &Path) -> PathBuf {
    let name = tools::sha256(instead_of.as_os_str().as_encoded_bytes());
    env::temp_dir().join(format!("{TEMPORARY}{}", &name[..16]))
}

fn is_plain(path: &Path) -> bool {
    let text = path.as_os_str().as_encoded_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+@~".contains(byte);
    text.len() <= 150 && text.iter().all(plain)
}

/// The name of the conda environment that `environment.yml` makes.
const CONDA_ENV: &str = "diffusion-lesson";

/// The lesson's conda environment, if it is active.
pub fn conda_env() -> Option<PathBuf> {
    let prefix = PathBuf::from(env::var_os("CONDA_PREFIX")?);
    let named = env::var_os("CONDA_DEFAULT_ENV").is_some_and(|name| name == CONDA_ENV);
    (named || prefix.ends_with(CONDA_ENV)).then_some(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_of_a_clone_with_an_unusual_path_build_elsewhere() {
        let runs = |root: &str| {
            let layout = Layout {
                root: root.into(),
                cache: "/c".into(),
            };
            layout.runs()
        };
        assert_eq!(
            runs("/home/ada/lesson-1.0"),
            Path::new("/home/ada/lesson-1.0/target/kernel/run")
        );
        let long = format!("/{}", "a".repeat(150));
        for root in [
            "/a lesson",
            "/a,b",
            "/[a]",
            "/stra\u{df}e",
            "/e\u{301}",
            &long,
        ] {
            let found = runs(root);
            assert!(found.starts_with(env::temp_dir()), "{root}: {found:?}");
            assert_ne!(found, runs("/another one"), "{root}");
        }
    }
}
