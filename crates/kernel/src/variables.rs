//! The environment variables of kernels and builds: what kernels have, what decides a build, what is kept away. One table.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::machine::compilers;
use crate::machine::layout::{Layout, TOOLCHAIN};

/// What a kernel has under a name.
pub enum InKernels {
    /// This value, which is written into the kernel's specification; None where there is no use for it.
    Have(fn(&Layout) -> Result<Option<String>>),
    /// A value that depends on the kernel, which gets it when it starts ([`crate::start`]).
    Own,
    /// Nothing, whatever stands in the environment of whoever starts it: with a shell's own settings the warm directory would be
    /// compiled anew, in every kernel.
    Nothing,
    /// What whoever starts it has.
    Theirs,
}

use InKernels::{Have, Nothing, Own, Theirs};

/// One line of the table.
pub struct Variable {
    /// The name; one that ends with `*` stands for all names that begin so.
    pub name: &'static str,
    /// What kernels have.
    pub in_kernels: InKernels,
    /// Whether the value decides what cargo compiles, so that a known answer holds for this value only ([`crate::memory`]).
    pub decides: bool,
    /// Whether cargo sets it for the compiler, so that a compiler that is called without cargo needs it too ([`crate::recompile`]).
    pub of_calls: bool,
    /// Whether `cargo run` leaves it to the workbench, from where no other program may inherit it ([`without_leftovers`]).
    pub leftover: bool,
    /// Whether it decides how quickly a kernel computes, so that measurements are taken with it.
    pub computes: bool,
}

const fn row(name: &'static str, in_kernels: InKernels) -> Variable {
    Variable {
        name,
        in_kernels,
        decides: false,
        of_calls: false,
        leftover: false,
        computes: false,
    }
}

impl Variable {
    const fn decides(mut self) -> Variable {
        self.decides = true;
        self
    }

    const fn of_calls(mut self) -> Variable {
        self.of_calls = true;
        self
    }

    const fn leftover(mut self) -> Variable {
        self.leftover = true;
        self
    }

    const fn computes(mut self) -> Variable {
        self.computes = true;
        self
    }

    fn fits(&self, name: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == self.name,
        }
    }
}

/// The path of `crates/cell`'s library, which is loaded before a kernel's own.
pub const PRELOAD: &str = "LD_PRELOAD";
/// What [`PRELOAD`] was, so that programs which a cell starts can have it so.
pub const PRELOAD_BEFORE: &str = "LESSON_PRELOAD_BEFORE";
/// Leads a kernel on trial to the memory that later ones start from.
pub const ON_TRIAL: &str = "LAB_MEMORY";
/// The key under which a compiler's call is noted.
pub const WITNESS_KEY: &str = "LAB_WITNESS";
/// Turns all speed-ups off ([`crate::speed`]).
pub const PLAIN: &str = "LAB_PLAIN";
/// evcxr's folder for cells, in the kernel's own directory.
pub const CELLS: &str = "EVCXR_TMPDIR";
/// evcxr's folder with settings.
pub const SETTINGS: &str = "EVCXR_CONFIG_DIR";

/// Large pages for what libtorch allocates, memory that is kept, and one arena for all threads:
/// training is 1.4 times (float32) to 1.9 times (mixed precision) faster than without. What a whole test split takes (10,000 digits: 31 MB)
/// is above the threshold and given back at once; what networks compute with in a batch is below it.
const ALLOCATOR: &str = "glibc.malloc.hugetlb=1:glibc.malloc.trim_threshold=8000000000:glibc.malloc.mmap_threshold=29360128:glibc.malloc.arena_max=1";

/// The table. The first line that fits a name counts.
pub const TABLE: &[Variable] = &[
    // Where libtorch is. torch-sys knows other ways to find one, which would lead it elsewhere.
    row(
        "LIBTORCH",
        Have(|layout| Ok(Some(text(layout.libtorch()?)))),
    )
    .decides(),
    row("LIBTORCH_*", Nothing).decides(),
    row("LD_LIBRARY_PATH", Have(libraries))
        .of_calls()
        .computes(),
    row("DYLD_LIBRARY_PATH", Have(libraries))
        .of_calls()
        .computes(),
    row("DYLD_*", Theirs).of_calls(),
    // Whoever starts the kernel, it must find things where set-up put them. Crates from another CARGO_HOME count as others
    // for cargo, and everything would be compiled again. In a class every learner has another home folder.
    row(
        "CARGO_HOME",
        Have(|_| Ok(compilers::cargo_home().map(text))),
    )
    .decides()
    .of_calls(),
    row(
        "RUSTUP_HOME",
        Have(|_| Ok(compilers::rustup_home().map(text))),
    ),
    row(
        "DIFFUSION_CACHE",
        Have(|layout| Ok(Some(text(layout.cache.clone())))),
    )
    .computes(),
    // These lead evcxr and its analyzer to the kernel's toolchain. The analyzer asks rustup's `cargo`, which obeys the first;
    // where there is no rustup, it asks the second.
    row(
        "RUSTUP_TOOLCHAIN",
        Have(|layout| Ok(rustup().then(|| text(layout.toolchain())))),
    )
    .decides(),
    row(
        "CARGO",
        Have(|layout| Ok((!rustup()).then(|| text(layout.toolchain().join("bin/cargo"))))),
    )
    .decides()
    .of_calls()
    .leftover(),
    row(
        "RUST_SRC_PATH",
        Have(|layout| Ok(Some(text(layout.standard_library())))),
    ),
    row(
        SETTINGS,
        Have(|layout| Ok(Some(text(layout.kernel().join("config"))))),
    ),
    // By these a panic's line is found in the cell; the crates below have none.
    row(
        "CARGO_PROFILE_DEV_DEBUG",
        Have(|_| fixed("line-tables-only")),
    )
    .decides()
    .of_calls(),
    // A failed `?` shows its chain of reasons; the kernel asks for backtraces, which we leave out.
    row("RUST_LIB_BACKTRACE", Have(|_| fixed("0"))).computes(),
    row("GLIBC_TUNABLES", Have(|_| fixed(ALLOCATOR))).computes(),
    // libtorch's threads sleep while they wait for each other. By default they spin, which gains
    // little on a quiet machine and is ruinous on a busy one: with one other program at work on two
    // cores, an epoch took 37 s instead of more than 100 when every operation was shared. Training no
    // longer shares operations; the rest (metrics, single cells) still does.
    row("OMP_WAIT_POLICY", Have(|_| fixed("passive"))).computes(),
    row("PATH", Own),
    row(TOOLCHAIN, Own),
    row("JUPYTER_PATH", Own),
    row(CELLS, Own),
    row(PRELOAD, Own),
    row(PRELOAD_BEFORE, Own),
    row(ON_TRIAL, Theirs),
    row(WITNESS_KEY, Nothing),
    row(PLAIN, Theirs),
    row("LAB_RUNS", Theirs),
    // Where a class's hub learns which exercises were tried (`diffusion::check`).
    row("LESSON_PROGRESS", Theirs),
    // What a shell may have set for its own builds. evcxr sets the first two again for each cell, the same in every kernel.
    row("RUSTFLAGS", Nothing).decides(),
    row("CARGO_TARGET_DIR", Nothing).decides().of_calls(),
    row("CARGO_ENCODED_RUSTFLAGS", Nothing).decides().of_calls(),
    row("RUSTC_WRAPPER", Nothing).decides(),
    // It decides what the compiler knows, not where things are compiled.
    row("RUSTC_BOOTSTRAP", Theirs).decides().of_calls(),
    row("RUSTC_*", Nothing).decides().of_calls(),
    row("RUSTC", Nothing).decides(),
    row("CARGO_BUILD_*", Nothing).decides().of_calls(),
    row("CARGO_PROFILE_*", Nothing).decides().of_calls(),
    row("CARGO_INCREMENTAL", Nothing).decides().of_calls(),
    // By these the jobs of one cargo wait for each other; a compiler that is called without cargo waits for nobody.
    row("CARGO_MAKEFLAGS", Nothing).decides(),
    row("MAKEFLAGS", Nothing),
    row("MFLAGS", Nothing),
    // These only say where the analyzer has its copy of the lock file, and how rustup came to its toolchain.
    row("CARGO_RESOLVER_LOCKFILE_PATH", Theirs).of_calls(),
    row("RUSTUP_TOOLCHAIN_SOURCE", Theirs),
    // What `cargo run` leaves to the program that it starts.
    row("CARGO_PKG_*", Nothing).decides().of_calls().leftover(),
    row("CARGO_MANIFEST_*", Nothing)
        .decides()
        .of_calls()
        .leftover(),
    row("CARGO_CRATE_*", Nothing)
        .decides()
        .of_calls()
        .leftover(),
    row("CARGO_BIN_*", Nothing).decides().of_calls().leftover(),
    row("CARGO_TARGET_TMPDIR", Nothing)
        .decides()
        .of_calls()
        .leftover(),
    row("CARGO_PRIMARY_PACKAGE", Nothing)
        .decides()
        .of_calls()
        .leftover(),
    row("RUST_RECURSION_COUNT", Nothing).leftover(),
    row("OUT_DIR", Nothing).of_calls().leftover(),
    // The linker and flags of one target; after CARGO_TARGET_DIR and CARGO_TARGET_TMPDIR.
    row("CARGO_TARGET_*", Nothing).decides().of_calls(),
    row("CARGO*", Theirs).decides().of_calls(),
];

fn text(path: PathBuf) -> String {
    path.to_string_lossy().into_owned()
}

fn fixed(value: &str) -> Result<Option<String>> {
    Ok(Some(value.to_owned()))
}

fn libraries(layout: &Layout) -> Result<Option<String>> {
    Ok(Some(text(layout.libtorch()?.join("lib"))))
}

fn rustup() -> bool {
    compilers::cargo_home().is_some_and(|home| home.join("bin/cargo").exists())
}

/// The line of a name.
pub fn find(name: &str) -> Option<&'static Variable> {
    TABLE.iter().find(|variable| variable.fits(name))
}

/// The environment that kernels run in and that the warm build directory is compiled in: both must see the same, or cargo compiles
/// everything again.
///
/// # Errors
/// If there is no libtorch.
pub fn of_kernels(layout: &Layout) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for variable in TABLE {
        if let Have(value) = variable.in_kernels
            && let Some(value) = value(layout)?
        {
            found.push((variable.name.to_owned(), value));
        }
    }
    Ok(found)
}

/// The same, of what decides how quickly a kernel computes: what measurements are taken in. A program that cargo compiles before must not
/// have the rest, or cargo would compile everything again.
///
/// # Errors
/// If there is no libtorch.
pub fn of_measurements(layout: &Layout) -> Result<Vec<(String, String)>> {
    let mut found = of_kernels(layout)?;
    found.retain(|(name, _)| computes(name));
    Ok(found)
}

/// Whether a variable of a kernel's environment is one for measurements. What the table does not know may be of another commit's.
pub fn computes(name: &str) -> bool {
    find(name).is_none_or(|variable| variable.computes)
}

/// Takes away what a shell may have set for its own builds, and what `cargo run` left: a kernel, and what is compiled for kernels,
/// has nothing of it.
pub fn without_theirs(command: &mut Command) -> &mut Command {
    without(command, |variable| {
        // What the kernel's specification has set stays.
        matches!(variable.in_kernels, Nothing)
    })
}

/// `cargo run` leaves its own variables (the package's name, the target directory's libraries, …) in the environment of what it starts.
/// Builds of another package would see them and differ from the same build started by JupyterLab; so nothing that we start inherits them.
pub fn without_leftovers(command: &mut Command) -> &mut Command {
    without(command, |variable| variable.leftover)
}

fn without(command: &mut Command, goes: impl Fn(&Variable) -> bool) -> &mut Command {
    for (name, _) in env::vars_os() {
        if find(&name.to_string_lossy()).is_some_and(&goes) {
            command.env_remove(name);
        }
    }
    command
}

/// The variables that load the library of `crates/cell` into a kernel, beside what is loaded already.
pub fn preloaded(library: PathBuf) -> Vec<(&'static str, OsString)> {
    let before = env::var_os(PRELOAD).filter(|before| !before.is_empty());
    let mut all = library.into_os_string();
    if let Some(before) = &before {
        all.push(":");
        all.push(before);
    }
    let before = before.map(|before| (PRELOAD_BEFORE, before));
    std::iter::once((PRELOAD, all)).chain(before).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn names(is: impl Fn(&Variable) -> bool, names: &[&'static str]) -> Vec<&'static str> {
        let fits = |name: &&&str| find(name).is_some_and(&is);
        names.iter().filter(fits).copied().collect()
    }

    #[test]
    fn a_shells_settings_reach_no_kernel() {
        let lost = [
            "CARGO_TARGET_DIR",
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTC",
            "LIBTORCH_USE_PYTORCH",
            "LIBTORCH_LIB",
            "LIBTORCH_BYPASS_VERSION_CHECK",
            "CARGO_PROFILE_DEV_OPT_LEVEL",
            "CARGO_BUILD_JOBS",
            "CARGO_INCREMENTAL",
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER",
            "CARGO_PKG_NAME",
            "OUT_DIR",
        ];
        assert_eq!(names(|it| matches!(it.in_kernels, Nothing), &lost), lost);
        let kept = [
            "CARGO_NET_OFFLINE",
            "CARGO_UNSTABLE_BUILD_DIR_NEW_LAYOUT",
            "CARGO_HTTP_PROXY",
            "LAB_PLAIN",
        ];
        assert_eq!(names(|it| matches!(it.in_kernels, Theirs), &kept), kept);
        for name in [
            "HOME",
            "HTTPS_PROXY",
            "CXX",
            "RUST_BACKTRACE",
            "LESSON_BACKTRACE",
        ] {
            assert!(find(name).is_none(), "{name}");
        }
    }

    #[test]
    fn only_what_decides_is_part_of_a_key() {
        let deciding = [
            "CARGO_HOME",
            "RUSTFLAGS",
            "RUSTC_WRAPPER",
            "LIBTORCH",
            "CARGO_NET_OFFLINE",
            "RUSTUP_TOOLCHAIN",
        ];
        assert_eq!(names(|it| it.decides, &deciding), deciding);
        let others = [
            "PATH",
            "RUST_BACKTRACE",
            "RUSTUP_TOOLCHAIN_SOURCE",
            "CARGO_RESOLVER_LOCKFILE_PATH",
            "MAKEFLAGS",
        ];
        assert!(names(|it| it.decides, &others).is_empty());
    }

    #[test]
    fn a_compiler_without_cargo_gets_what_cargo_sets_but_no_jobs() {
        let set = [
            "CARGO_PKG_NAME",
            "OUT_DIR",
            "LD_LIBRARY_PATH",
            "DYLD_FALLBACK_LIBRARY_PATH",
            "CARGO",
            "CARGO_CRATE_NAME",
        ];
        assert_eq!(names(|it| it.of_calls, &set), set);
        assert!(
            names(
                |it| it.of_calls,
                &["CARGO_MAKEFLAGS", "MAKEFLAGS", "MFLAGS", "RUSTC_WRAPPER"]
            )
            .is_empty()
        );
    }

    #[test]
    fn each_name_stands_once_and_before_what_it_belongs_to() {
        for (at, variable) in TABLE.iter().enumerate() {
            let name = variable.name.replace('*', "X");
            let before = TABLE[..at].iter().find(|other| other.fits(&name));
            let before = before.map(|other| other.name);
            assert_eq!(before, None, "{} never counts", variable.name);
        }
    }
}
