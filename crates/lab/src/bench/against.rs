//! `lab bench --against <commit>`: another commit, checked out, built and described for `bench`.
//!
//! The commit gets a folder of its own below `target/against`, and there everything that this clone has: its own program, and for kernels
//! its own set-up with its own Python environment. It shares the cache with all clones. The first time takes some minutes; the folder
//! stays, so that a second run finds everything there. `make clean` removes it. The other commit's warm directory is not a copy of this
//! clone's. It starts from the compiled dependencies in the cache where those are the same, else from nothing.
//!
//! Cargo reads the settings in `.cargo/config.toml` of the folders above, too: a setting that this clone has and the other commit does
//! not have counts for both.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use kernel::machine::layout::Layout;
use kernel::machine::{locks, tools};
use kernel::variables;
use serde_json::{Value, json};

/// Variables that would lead the other commit's cargo and set-up into this clone or into an environment that this clone uses.
const OURS_ALONE: [&str; 8] = [
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_BUILD_DIR",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CONDA_PREFIX",
    "CONDA_DEFAULT_ENV",
    "VIRTUAL_ENV",
    "LIBTORCH",
];

/// A commit in a folder of its own.
pub struct Against {
    /// The commit's full name.
    pub commit: String,
    /// Where it is checked out, as a clone.
    other: Layout,
}

impl Against {
    /// Finds the commit by any name that git knows.
    ///
    /// # Errors
    /// If there is no such commit, or this clone has no history.
    pub fn find(layout: &Layout, name: &str) -> Result<Against> {
        let mut git = git(layout);
        git.args(["rev-parse", "--verify", "--quiet", "--end-of-options"]);
        let commit = tools::output(git.arg(format!("{name}^{{commit}}"))).with_context(|| {
            format!(
                "{} has no commit {name:?}: give a hash, branch or tag that `git log` knows there (a shallow clone knows few)",
                layout.root.display()
            )
        })?;
        let root = layout.target().join("against").join(&commit);
        let cache = layout.cache.clone();
        Ok(Against {
            commit,
            other: Layout { root, cache },
        })
    }

    /// Checks the commit out, builds it, sets it up where `kernels` are measured, and writes what `bench` has to know. Returns the
    /// path of that file. `environment` is what this clone's contenders run in.
    ///
    /// # Errors
    /// If one of these steps fails.
    pub fn prepare(
        &self,
        layout: &Layout,
        environment: &[(String, String)],
        kernels: bool,
    ) -> Result<PathBuf> {
        let folder = layout.target().join("against");
        let _turn = locks::turn(&folder, "against")?;
        println!(
            "preparing commit {} in {}",
            self.commit,
            self.other.root.display()
        );
        self.check_out(layout)?;
        if !self.other.libtorch_link().exists() {
            let link = self.other.libtorch_link();
            let _ = fs::remove_file(&link); // one that leads nowhere
            fs::create_dir_all(self.other.target())
                .and_then(|()| symlink(layout.libtorch_link().canonicalize()?, &link))
                .with_context(|| format!("cannot make the link {}", link.display()))?;
        }
        let bench = ["build", "--quiet", "--package", "bench"];
        tools::run_visibly(self.cargo(layout).args(bench), "compiling its `bench`")
            .context("the other commit could not be compiled")?;
        if kernels {
            let setup = ["run", "--quiet", "--package", "lab", "--", "setup"];
            tools::run(self.cargo(layout).args(setup))
                .context("the other commit could not be set up")?;
        }
        let environment = match kernels {
            true => self.environment(environment)?,
            false => BTreeMap::new(),
        };
        self.try_out(layout, &environment)?;
        let description = json!({
            "commit": self.commit,
            "bench": self.program(),
            "scripts": self.other.root.join("crates/bench/python"),
            "jupyter": kernels.then(|| self.python()),
            "data": self.out().join("data"),
            "out": self.out(),
            "environment": environment,
        });
        let path = folder.join(format!("{}.json", self.commit));
        tools::write_whole(&path, format!("{description:#}\n"))?;
        Ok(path)
    }

    /// The commit's files, whole or not at all.
    fn check_out(&self, layout: &Layout) -> Result<()> {
        let root = &self.other.root;
        if root.is_dir() {
            return Ok(());
        }
        let half = root.with_extension("half");
        tools::remove_dir(&half)?;
        let archive = git(layout)
            .args(["archive", "--format=tar", &self.commit])
            .output()
            .context("`git` could not be started")?;
        if !archive.status.success() {
            bail!(
                "git cannot give the files of commit {}: {}",
                self.commit,
                String::from_utf8_lossy(&archive.stderr).trim()
            );
        }
        tar::Archive::new(&archive.stdout[..])
            .unpack(&half)
            .and_then(|()| fs::rename(&half, root))
            .with_context(|| format!("cannot write {}", root.display()))
    }

    /// What differs in the environment of its contenders from ours, by name; null where a variable is not set there. Its own settings
    /// stand in its kernel spec; without a set-up it has none, and runs in ours.
    fn environment(&self, ours: &[(String, String)]) -> Result<BTreeMap<String, Option<String>>> {
        let path = self
            .other
            .target()
            .join("python/share/jupyter/kernels/rust/kernel.json");
        let text = fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
        let spec: Value = serde_json::from_str(&text)
            .with_context(|| format!("{} is no kernel spec", path.display()))?;
        let theirs = spec["env"].as_object().into_iter().flatten();
        let theirs: Vec<(String, String)> = theirs
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .filter(|(name, _)| variables::computes(name))
            .collect();
        Ok(differences(ours, &theirs))
    }

    /// Runs its `bench` for a moment: that shows whether it works, and leaves its first weights.
    fn try_out(
        &self,
        layout: &Layout,
        environment: &BTreeMap<String, Option<String>>,
    ) -> Result<()> {
        let mut bench = Command::new(self.program());
        bench
            .args(["--quick", "--only", "mnist_load", "--mnist"])
            .arg(layout.mnist())
            .arg("--out")
            .arg(self.out())
            .current_dir(&self.other.root)
            .env("LD_LIBRARY_PATH", self.other.libtorch_link().join("lib"))
            .env("DYLD_LIBRARY_PATH", self.other.libtorch_link().join("lib"));
        for (name, value) in environment {
            match value {
                Some(value) => bench.env(name, value),
                None => bench.env_remove(name),
            };
        }
        tools::output(&mut bench)
            .map(drop)
            .context("the other commit's `bench` does not work")
    }

    /// Cargo in the other folder, with nothing that leads to this one.
    fn cargo(&self, layout: &Layout) -> Command {
        let mut cargo = Command::new("cargo");
        variables::without_leftovers(&mut cargo).current_dir(&self.other.root);
        for name in OURS_ALONE {
            cargo.env_remove(name);
        }
        // A libtorch of the person's own is for both.
        if let Some(own) = std::env::var_os("LIBTORCH").map(PathBuf::from)
            && own != layout.libtorch_link()
        {
            cargo.env("LIBTORCH", own);
        }
        cargo.env("DIFFUSION_CACHE", &self.other.cache);
        cargo
    }

    fn program(&self) -> PathBuf {
        self.other.target().join("debug/bench")
    }

    fn python(&self) -> PathBuf {
        self.other.target().join("python/bin/python")
    }

    fn out(&self) -> PathBuf {
        self.other.target().join("bench")
    }
}

fn git(layout: &Layout) -> Command {
    let mut git = Command::new("git");
    git.arg("-C").arg(&layout.root);
    git
}

/// What has another value among `theirs` than among `ours`; None for what is among ours alone.
fn differences(
    ours: &[(String, String)],
    theirs: &[(String, String)],
) -> BTreeMap<String, Option<String>> {
    let value = |list: &[(String, String)], name: &str| {
        let found = list.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.clone())
    };
    let names: BTreeSet<&String> = ours.iter().chain(theirs).map(|(name, _)| name).collect();
    names
        .into_iter()
        .filter(|name| value(ours, name) != value(theirs, name))
        .map(|name| (name.clone(), value(theirs, name)))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use super::*;

    #[test]
    fn only_what_differs_is_another_environment() {
        let list = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            pairs.iter().map(owned).collect()
        };
        let ours = list(&[("SAME", "1"), ("OTHER", "2"), ("OURS", "3")]);
        let theirs = list(&[("SAME", "1"), ("OTHER", "4"), ("THEIRS", "5")]);
        let text = |text: &str| Some(text.to_owned());
        let expected = [("OTHER", text("4")), ("OURS", None), ("THEIRS", text("5"))];
        let expected = expected.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(differences(&ours, &theirs), BTreeMap::from(expected));
    }

    #[test]
    fn a_commit_is_found_by_its_name_and_an_unknown_one_is_named() {
        let layout = Layout::find().unwrap();
        if !layout.root.join(".git").exists() {
            println!("skipped: this is no clone, but a copy without history");
            return;
        }
        let head = Against::find(&layout, "HEAD").unwrap();
        assert_eq!(head.commit.len(), 40);
        assert!(
            head.other
                .root
                .ends_with(Path::new("against").join(&head.commit))
        );
        for name in ["no-such-commit", "--all", "0000000", ""] {
            let error = Against::find(&layout, name).err().unwrap().to_string();
            assert!(error.contains(&format!("no commit {name:?}")), "{error}");
        }
    }

    #[test]
    fn a_folder_without_history_is_named_with_the_reason_of_git() {
        let folder = std::env::temp_dir().join(format!("no-clone-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let layout = Layout {
            root: folder.clone(),
            cache: folder.clone(),
        };
        let error = Against::find(&layout, "HEAD").err().unwrap();
        fs::remove_dir_all(&folder).unwrap();
        let text = format!("{error:#}");
        assert!(
            text.contains("has no commit \"HEAD\"") && text.contains("failed (exit status: 128)"),
            "{text}"
        );
    }
}
