//! The local crates: the support crate that notebooks name, and the crates that it names as path dependencies, down to the last one.
//!
//! Their names stand nowhere in the workbench; they are read from the manifests. Crates from a registry never change, but these
//! can be edited at any time, so their files decide whether a kernel is fresh.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use toml::{Table, Value};

use crate::machine::layout::Layout;

/// A crate in a folder of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalCrate {
    /// The package's name.
    pub name: String,
    /// Its folder, with no link in the path.
    pub folder: PathBuf,
}

/// The sections of a manifest that decide what a library is compiled from. `[dev-dependencies]` do not.
const SECTIONS: [&str; 2] = ["dependencies", "build-dependencies"];

/// The local crates of a clone; the support crate comes first.
///
/// # Errors
/// If a manifest is missing or is no TOML.
pub fn crates(layout: &Layout) -> Result<Vec<LocalCrate>> {
    closure(vec![layout.support_crate()])
}

/// The crates in these folders and all that they name as path dependencies, directly or not, each once.
///
/// # Errors
/// If a manifest is missing or is no TOML.
pub fn closure(folders: Vec<PathBuf>) -> Result<Vec<LocalCrate>> {
    let mut open = VecDeque::from(folders);
    let mut found: Vec<LocalCrate> = Vec::new();
    while let Some(folder) = open.pop_front() {
        let folder = folder
            .canonicalize()
            .with_context(|| format!("{} is missing: this is no whole clone", folder.display()))?;
        if found.iter().any(|known| known.folder == folder) {
            continue;
        }
        let path = folder.join("Cargo.toml");
        let manifest = read(&path)?;
        let name = manifest.get("package").and_then(|it| it.get("name"));
        let name = name
            .and_then(Value::as_str)
            .with_context(|| format!("{} names no package", path.display()))?
            .to_owned();
        open.extend(named_in(&manifest, &folder)?);
        found.push(LocalCrate { name, folder });
    }
    Ok(found)
}

/// The folders that a manifest names as dependencies, as absolute paths.
///
/// # Errors
/// If the manifest is missing or is no TOML, or if one of the folders is missing.
pub fn path_dependencies(manifest: &Path) -> Result<Vec<PathBuf>> {
    let folder = manifest.parent().unwrap_or(manifest);
    named_in(&read(manifest)?, folder)?
        .into_iter()
        .map(|path| {
            let found = path.canonicalize();
            found.with_context(|| format!("{} names {}", manifest.display(), path.display()))
        })
        .collect()
}

/// The files that these crates' libraries are compiled from, in a fixed order.
///
/// # Errors
/// If a folder cannot be read.
pub fn sources(crates: &[LocalCrate]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for local in crates {
        collect(&local.folder, &mut files)?;
    }
    files.sort();
    Ok(files)
}

/// Whether a path below a build directory belongs to what was compiled from one of these crates. Cargo writes such files and
/// folders as `<package>-<hash>`, `lib<crate>-<hash>.rlib` and the like, and in its newer form as `build/<package>/<hash>/…`. The
/// hash keeps `ops-macros-<hash>`, another package, apart from `ops-<hash>`.
pub fn is_artefact(path: &Path, crates: &[LocalCrate]) -> bool {
    crates.iter().any(|local| is_artefact_of(path, &local.name))
}

fn is_artefact_of(path: &Path, package: &str) -> bool {
    let library = package.replace('-', "_");
    let mut above = "";
    for part in path.iter().filter_map(|part| part.to_str()) {
        if above == "build" && part == package {
            return true;
        }
        let hashed = [part, part.strip_prefix("lib").unwrap_or(part)]
            .into_iter()
            .flat_map(|part| [package, &library].map(|name| part.strip_prefix(name)))
            .flatten()
            .filter_map(|rest| rest.strip_prefix('-'))
            .any(|rest| is_hash(rest.split('.').next().unwrap_or(rest), above));
        if hashed {
            return true;
        }
        above = part;
    }
    false
}

/// Cargo's hashes have 16 hexadecimal digits; the compiler's, below `incremental`, are shorter and to the base of 36.
fn is_hash(text: &str, above: &str) -> bool {
    match above {
        "incremental" => !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric()),
        _ => text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit()),
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        match name.to_string_lossy().as_ref() {
            "tests" | "examples" | "benches" | "target" => {}
            name if name.starts_with('.') => {}
            _ if path.is_dir() => collect(&path, files)?,
            _ => files.push(path),
        }
    }
    Ok(())
}

fn read(manifest: &Path) -> Result<Table> {
    let text = fs::read_to_string(manifest)
        .with_context(|| format!("cannot read {}", manifest.display()))?;
    text.parse()
        .with_context(|| format!("{} is no TOML", manifest.display()))
}

/// The folders that a manifest in `folder` names, for this machine's system or another.
fn named_in(manifest: &Table, folder: &Path) -> Result<Vec<PathBuf>> {
    let systems = manifest.get("target").and_then(Value::as_table);
    let systems = systems
        .into_iter()
        .flatten()
        .map(|(_, table)| table.as_table());
    let mut found = Vec::new();
    for place in systems.flatten().chain([manifest]) {
        for section in SECTIONS {
            let dependencies = place.get(section).and_then(Value::as_table);
            for (name, dependency) in dependencies.into_iter().flatten() {
                if let Some(path) = dependency.get("path").and_then(Value::as_str) {
                    found.push(folder.join(path));
                } else if dependency.get("workspace").and_then(Value::as_bool) == Some(true) {
                    found.extend(named_in_workspace(name, folder)?);
                }
            }
        }
    }
    Ok(found)
}

/// The folder of a dependency that a crate takes over from its workspace; None if it comes from a registry.
fn named_in_workspace(name: &str, folder: &Path) -> Result<Option<PathBuf>> {
    for above in folder.ancestors().skip(1) {
        let path = above.join("Cargo.toml");
        if !path.is_file() {
            continue;
        }
        if let Some(workspace) = read(&path)?.get("workspace") {
            let dependency = workspace.get("dependencies").and_then(|all| all.get(name));
            let named = dependency
                .and_then(|it| it.get("path"))
                .and_then(Value::as_str);
            return Ok(named.map(|named| above.join(named)));
        }
    }
    bail!(
        "{} takes `{name}` from a workspace, but there is none above it",
        folder.display()
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Writes a crate and returns its folder.
    fn write(root: &Path, name: &str, rest: &str) -> PathBuf {
        let folder = root.join(name);
        fs::create_dir_all(folder.join("src")).unwrap();
        let text = format!("[package]\nname = \"{name}\"\n{rest}");
        fs::write(folder.join("Cargo.toml"), text).unwrap();
        fs::write(folder.join("src/lib.rs"), "").unwrap();
        folder
    }

    fn scratch(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("lab-test-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        folder.canonicalize().unwrap()
    }

    #[test]
    fn path_dependencies_are_followed_to_the_last_one() {
        let root = scratch("local");
        fs::write(
            root.join("Cargo.toml"),
            "[workspace.dependencies]\nfour = { path = \"four\" }\nserde = \"1\"\n",
        )
        .unwrap();
        let top = write(
            &root,
            "top",
            "[lib]\npath = \"src/lib.rs\"\n[dependencies]\nanyhow = \"1\"\none = { path = \"../one\", features = [] }\n\
             [dependencies.two]\npath = '../two'\n[dev-dependencies]\nno = { path = \"../no\" }\n",
        );
        write(
            &root,
            "one",
            "[build-dependencies]\nthree = { path = \"../three\" }\n",
        );
        write(
            &root,
            "two",
            "[target.'cfg(unix)'.dependencies]\none = { path = \"../one\" }\nfour.workspace = true\nserde.workspace = true\n",
        );
        write(&root, "three", "");
        write(&root, "four", "");
        write(&root, "no", "");
        let found = closure(vec![top.clone()]).unwrap();
        let names: Vec<&str> = found.iter().map(|local| &*local.name).collect();
        assert_eq!(names, ["top", "one", "two", "three", "four"]);
        assert_eq!(found[1].folder, root.join("one"));
        assert_eq!(
            path_dependencies(&top.join("Cargo.toml")).unwrap(),
            [root.join("one"), root.join("two")]
        );
        assert_eq!(sources(&found).unwrap().len(), 10);
        fs::remove_dir_all(root.join("three")).unwrap();
        let error = format!("{:#}", closure(vec![top]).unwrap_err());
        assert!(error.contains("three is missing"), "{error}");
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn artefacts_of_a_crate_are_told_from_those_of_others() {
        let crates = ["ops", "more-ops"].map(|name| LocalCrate {
            name: name.to_owned(),
            folder: PathBuf::new(),
        });
        for path in [
            "x86_64/debug/deps/libops-0123456789abcdef.rlib",
            "debug/deps/ops-0123456789abcdef.0abc-cgu.0.rcgu.o",
            "debug/deps/libmore_ops-0123456789abcdef.rmeta",
            "debug/.fingerprint/more-ops-0123456789abcdef/lib-more_ops",
            "debug/build/ops-0123456789abcdef/out/kernels.o",
            "debug/incremental/ops-1hbn9yxqpp7kq/s-1/dep-graph.bin",
            "debug/build/ops/0123456789abcdef/fingerprint/lib-ops",
        ] {
            assert!(is_artefact(Path::new(path), &crates), "{path}");
        }
        for path in [
            "debug/deps/libops_macros-0123456789abcdef.rlib",
            "debug/.fingerprint/ops-macros-0123456789abcdef/lib-ops_macros",
            "debug/build/ops-macros/0123456789abcdef/out",
            "debug/deps/libcrops-0123456789abcdef.rlib",
            "debug/deps/libtch-0123456789abcdef.rlib",
            "debug/incremental/ops_macros-1hbn9yxqpp7kq/s-1",
        ] {
            assert!(!is_artefact(Path::new(path), &crates), "{path}");
        }
    }

    #[test]
    fn what_notebooks_see_are_dependencies_of_the_real_crates() {
        for local in crates(&Layout::find().unwrap()).unwrap() {
            let manifest = read(&local.folder.join("Cargo.toml")).unwrap();
            let dependencies = manifest["dependencies"].as_table().unwrap();
            let notebooks = manifest["package"]
                .get("metadata")
                .and_then(|metadata| metadata.get("notebooks"))
                .unwrap_or_else(|| panic!("{} lacks [package.metadata.notebooks]", local.name));
            for list in ["public", "without_dependencies"] {
                for name in notebooks
                    .get(list)
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                {
                    assert!(
                        dependencies.contains_key(name.as_str().unwrap()),
                        "{}: `{list}` lists {name:?}, which is no dependency",
                        local.name
                    );
                }
            }
        }
    }
}
