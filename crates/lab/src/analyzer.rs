//! What the analyzer inside a kernel gets to see: as little as it needs.
//!
//! evcxr carries rust-analyzer, to find the types of variables and for completion. It loads every package
//! that cargo names, down to the last compression library, and the whole standard library with the
//! intrinsics of all processors: that was 930 MB of memory and 9 seconds of a kernel's start. Notebooks use
//! the support crate, its few public dependencies and `std`. So a kernel runs in a toolchain of its own, all
//! links to the real one but for one program: its `cargo` is this program ([`crate::cargo`]), which answers the analyzer's
//! question for the packages with those it needs. Compilers see no difference.
//!
//! | a kernel on two cores | ready | first picture if all run at once | memory when idle |
//! | --- | --- | --- | --- |
//! | everything | 12-15 s | 14-16 s | 1,090 MB |
//! | without the intrinsics | 11 s | 12 s | 890 MB |
//! | and only the packages below | 5-6 s | 6-7 s | 550 MB |
//!
//! What it still sees, it sees without comments and bodies ([`thin`]). What stays below that is in the table of [`crate::kernel`].

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::layout::Layout;
use crate::parts::{Finding, Options};
use crate::{cargo, cell_linker, recompile, spec, thin, toolchain, tools};

/// The packages of which the analyzer sees only some dependencies: those that show in what notebooks call.
const PUBLIC: &[(&str, &[&str])] = &[
    ("diffusion", &["anyhow", "ndarray", "tch"]),
    ("anyhow", &[]),
    ("tch", &[]),
    // It holds on to the tested versions, for cargo; nothing is called through it.
    ("lock", &[]),
];
/// The parts of the standard library that a notebook's types come from. Beside them, left out, lie the intrinsics of all
/// processors (`stdarch`), as much source as the three together.
const STANDARD: [&str; 3] = ["core", "alloc", "std"];
/// What evcxr and cargo start, besides cargo.
const PROGRAMS: [&str; 2] = ["rustc", "rustdoc"];

/// The links: where each one is, and where it leads.
fn links(layout: &Layout) -> Result<Vec<(PathBuf, PathBuf)>> {
    let real = sysroot()?;
    let own = layout.toolchain();
    let mut links = vec![
        (own.join("real"), real.clone()),
        (own.join("lib"), real.join("lib")),
    ];
    for name in [cargo::CARGO, recompile::WITNESS, cell_linker::LINKER] {
        links.push((own.join("bin").join(name), layout.launcher()));
    }
    for program in PROGRAMS {
        links.push((
            own.join("bin").join(program),
            real.join("bin").join(program),
        ));
    }
    Ok(links)
}

fn sysroot() -> Result<PathBuf> {
    let mut rustc = Command::new("rustc");
    let path = tools::output(rustc.args(["--print", "sysroot"]))?;
    // The real folder, also where the toolchain in use is a link, such as one of these.
    fs::canonicalize(&path).with_context(|| format!("there is no toolchain in {path}"))
}

fn sources_of_std(toolchain: &Path) -> PathBuf {
    toolchain.join("lib/rustlib/src/rust/library")
}

/// The variables that lead a kernel here. The analyzer asks rustup's `cargo`, which obeys the first; where
/// there is no rustup, it asks the second.
pub fn environment(layout: &Layout) -> Vec<(&'static str, String)> {
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let rustup = spec::cargo_home().is_some_and(|home| home.join("bin/cargo").exists());
    let mut variables = vec![("RUST_SRC_PATH", text(layout.standard_library()))];
    // In a class every learner has another home folder.
    if let Some(folder) = rustup_home() {
        variables.push(("RUSTUP_HOME", text(folder)));
    }
    variables.push(match rustup {
        true => ("RUSTUP_TOOLCHAIN", text(layout.toolchain())),
        false => ("CARGO", text(layout.toolchain().join("bin/cargo"))),
    });
    variables
}

fn rustup_home() -> Option<PathBuf> {
    let set = env::var_os("RUSTUP_HOME").filter(|folder| !folder.is_empty());
    let folder = set
        .map(PathBuf::from)
        .or_else(|| Some(dirs::home_dir()?.join(".rustup")))?;
    folder.is_dir().then_some(folder)
}

/// Do all links lead where they should?
pub fn check(layout: &Layout, _deep: bool) -> Result<Finding> {
    for (link, target) in links(layout)? {
        match fs::read_link(&link) {
            Ok(found) if found == target => {}
            Ok(_) => {
                return Ok(Finding::Wrong(format!(
                    "{} leads elsewhere",
                    link.display()
                )));
            }
            Err(_) => return Ok(Finding::Missing(format!("no {} yet", link.display()))),
        }
    }
    let std = match sources_of_std(&layout.toolchain().join("real")).is_dir() {
        true if fs::read_to_string(stamp(layout)).ok() != Some(stamp_text()?) => {
            return Ok(Finding::Missing(
                "no thin copy of this Rust's standard library yet".to_owned(),
            ));
        }
        true => "",
        false => {
            "; without the standard library's sources, so that a variable like `let x = vec![1];` needs its type written down (`rustup component add rust-src`, or the package rust-src of conda, brings them)"
        }
    };
    let place = layout.toolchain();
    Ok(Finding::Found(format!(
        "toolchain of the kernels in {}{std}",
        place.display()
    )))
}

/// Says which standard library was made thin, and how.
fn stamp(layout: &Layout) -> PathBuf {
    layout.standard_library().join("thin-of")
}

fn stamp_text() -> Result<String> {
    Ok(format!("{}\n{}\n", toolchain::rust_in_full()?, thin::FORM))
}

/// Makes the links and the thin sources anew, after bringing the sources of the standard library where that is possible.
pub fn make(layout: &Layout, _options: &Options) -> Result<()> {
    let real = sysroot()?;
    if !sources_of_std(&real).is_dir() {
        let mut rustup = Command::new("rustup");
        rustup.args(["component", "add", "rust-src"]);
        // Without them the kernel works too; `check` says what is missing then.
        let _ = tools::output(&mut rustup);
    }
    for folder in [layout.toolchain(), layout.standard_library()] {
        tools::remove_dir(&folder)?;
    }
    for (link, target) in links(layout)? {
        let made = fs::create_dir_all(link.parent().unwrap_or(&link))
            .and_then(|()| symlink(&target, &link));
        made.with_context(|| format!("cannot make the link {}", link.display()))?;
    }
    let std = sources_of_std(&real);
    if !std.is_dir() {
        return Ok(());
    }
    for part in STANDARD {
        thin::copy(&std.join(part), &layout.standard_library().join(part))?;
    }
    tools::write_whole(&stamp(layout), stamp_text()?)
}

/// Cargo's answer without the packages that no notebook sees: of some packages only the public dependencies are
/// followed, of all others, such as what a learner adds by `:dep`, every one. Only libraries stay: no
/// build scripts, tests and examples.
///
/// # Errors
/// An answer that is not built as cargo's metadata (version 1) is.
pub fn thinned(mut metadata: Value) -> Result<Value> {
    let mut names = BTreeMap::new();
    for package in list(&metadata, "packages")? {
        names.insert(
            text(package, "id")?.to_owned(),
            text(package, "name")?.to_owned(),
        );
    }
    let seen = |from: &str, to: &str| {
        let public = names.get(from).and_then(|name| {
            PUBLIC
                .iter()
                .find(|(package, _)| package == name)
                .map(|(_, public)| public)
        });
        public.is_none_or(|public| {
            names
                .get(to)
                .is_some_and(|name| public.contains(&name.as_str()))
        })
    };
    let mut edges = BTreeMap::new();
    let resolve = &mut metadata["resolve"];
    let Some(nodes) = resolve.get_mut("nodes").and_then(Value::as_array_mut) else {
        return Ok(metadata); // asked without dependencies
    };
    for node in nodes {
        let id = text(node, "id")?.to_owned();
        let keep = |dependency: &Value| dependency.as_str().is_some_and(|to| seen(&id, to));
        if let Some(all) = node["dependencies"].as_array_mut() {
            all.retain(keep);
        }
        if let Some(all) = node["deps"].as_array_mut() {
            all.retain(|dependency| keep(&dependency["pkg"]));
        }
        let to = list(node, "dependencies")?
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned);
        edges.insert(id.clone(), to.collect::<Vec<_>>());
    }
    let mut kept = BTreeSet::new();
    let members = list(&metadata, "workspace_members")?;
    let mut open: Vec<String> = members
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    while let Some(id) = open.pop() {
        if kept.insert(id.clone()) {
            open.extend(edges.get(&id).into_iter().flatten().cloned());
        }
    }
    let stays = |value: &Value| value["id"].as_str().is_some_and(|id| kept.contains(id));
    for list in [&["packages"][..], &["resolve", "nodes"]] {
        let place = list
            .iter()
            .fold(&mut metadata, |value, name| &mut value[*name]);
        if let Some(all) = place.as_array_mut() {
            all.retain(stays);
        }
    }
    for package in metadata["packages"].as_array_mut().into_iter().flatten() {
        if let Some(targets) = package["targets"].as_array_mut() {
            let library = |kind: &Value| {
                !["bin", "test", "bench", "example", "custom-build"]
                    .iter()
                    .any(|other| kind == other)
            };
            targets.retain(|target| {
                target["kind"]
                    .as_array()
                    .is_some_and(|kinds| kinds.iter().all(library))
            });
        }
    }
    Ok(metadata)
}

/// Leads the analyzer to thin copies of the crates that notebooks see, made here when they are first asked for. What comes from a
/// registry never changes; everything else stays as it is, and so does what cannot be copied.
pub fn led_to_thin(mut metadata: Value, folder: &Path) -> Value {
    for package in metadata["packages"].as_array_mut().into_iter().flatten() {
        let text = |name: &str| package[name].as_str().unwrap_or_default().to_owned();
        let (name, version, manifest) = (text("name"), text("version"), text("manifest_path"));
        let seen = PUBLIC.iter().any(|(public, _)| *public == name)
            || PUBLIC.iter().any(|(_, all)| all.contains(&&*name));
        let registry = text("source").starts_with("registry+");
        let Some(whole) = Path::new(&manifest).parent().filter(|_| seen && registry) else {
            continue;
        };
        let thin = folder.join(format!("{name}-{version}"));
        if thin_crate(whole, &thin).is_err() {
            continue;
        }
        let led = |path: &Value| {
            let below = Path::new(path.as_str()?).strip_prefix(whole).ok()?;
            Some(Value::from(thin.join(below).to_str()?))
        };
        if let Some(path) = led(&package["manifest_path"]) {
            package["manifest_path"] = path;
        }
        for target in package["targets"].as_array_mut().into_iter().flatten() {
            if let Some(path) = led(&target["src_path"]) {
                target["src_path"] = path;
            }
        }
    }
    metadata
}

fn thin_crate(whole: &Path, thin: &Path) -> Result<()> {
    if thin.is_dir() {
        return Ok(());
    }
    let name = thin.file_name().unwrap_or_default().to_string_lossy();
    let half = thin.with_file_name(format!(".{name}.{}", std::process::id()));
    let copied = thin::copy(whole, &half).and_then(|()| {
        fs::copy(whole.join("Cargo.toml"), half.join("Cargo.toml"))?;
        fs::rename(&half, thin).with_context(|| format!("cannot make {}", thin.display()))
    });
    // Another kernel may have been faster.
    let made = copied.is_ok() || thin.is_dir();
    tools::remove_dir(&half)?;
    if made { Ok(()) } else { copied }
}

fn list<'a>(value: &'a Value, name: &str) -> Result<&'a Vec<Value>> {
    match value[name].as_array() {
        Some(list) => Ok(list),
        None => bail!("cargo's metadata has no list `{name}`"),
    }
}

fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str> {
    match value[name].as_str() {
        Some(text) => Ok(text),
        None => bail!("cargo's metadata has no text `{name}`"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use serde_json::json;

    /// A cell that uses the support crate, and a crate of the learner's own.
    fn metadata() -> Value {
        let edges: [(&str, &[&str]); 8] = [
            ("ctx", &["diffusion", "rand"]),
            ("lock", &["diffusion"]),
            ("diffusion", &["tch", "plotters", "anyhow"]),
            ("tch", &["zip"]),
            ("zip", &[]),
            ("plotters", &[]),
            ("anyhow", &[]),
            ("rand", &["zip"]),
        ];
        let packages: Vec<Value> = edges
            .iter()
            .map(|(name, _)| json!({"id": name, "name": name, "targets": [{"kind": ["lib"]}, {"kind": ["custom-build"]}]}))
            .collect();
        let nodes: Vec<Value> = edges
            .iter()
            .map(|(name, to)| {
                let deps: Vec<Value> = to.iter().map(|to| json!({"pkg": to})).collect();
                json!({"id": name, "dependencies": to, "deps": deps})
            })
            .collect();
        json!({"packages": packages, "resolve": {"nodes": nodes}, "workspace_members": ["ctx", "lock"]})
    }

    fn names(metadata: &Value) -> Vec<&str> {
        let packages = metadata["packages"].as_array().unwrap();
        packages
            .iter()
            .map(|package| package["name"].as_str().unwrap())
            .collect()
    }

    #[test]
    fn what_no_notebook_sees_is_left_out() {
        let mut metadata = metadata();
        metadata["resolve"]["nodes"][0] =
            json!({"id": "ctx", "dependencies": ["diffusion"], "deps": [{"pkg": "diffusion"}]});
        let thin = thinned(metadata).unwrap();
        assert_eq!(names(&thin), ["ctx", "lock", "diffusion", "tch", "anyhow"]);
        assert_eq!(thin["packages"][2]["targets"], json!([{"kind": ["lib"]}]));
        assert_eq!(
            thin["resolve"]["nodes"][2]["deps"],
            json!([{"pkg": "tch"}, {"pkg": "anyhow"}])
        );
    }

    #[test]
    fn what_a_learner_adds_stays_with_all_it_needs() {
        let thin = thinned(metadata()).unwrap();
        assert!(
            names(&thin).contains(&"rand") && names(&thin).contains(&"zip"),
            "{thin}"
        );
        assert!(!names(&thin).contains(&"plotters"));
    }

    #[test]
    fn what_comes_from_a_registry_is_led_to_a_thin_copy() {
        let scratch = env::temp_dir().join(format!("lab-test-thin-{}", std::process::id()));
        let whole = scratch.join("tch-1.2.3");
        fs::create_dir_all(whole.join("src")).unwrap();
        fs::write(whole.join("Cargo.toml"), "").unwrap();
        fs::write(
            whole.join("src/lib.rs"),
            "/// One.\npub fn one() -> u8 { 1 }",
        )
        .unwrap();
        let package = |name: &str, source: Value| {
            json!({"name": name, "version": "1.2.3", "source": source,
                "manifest_path": whole.join("Cargo.toml"), "targets": [{"src_path": whole.join("src/lib.rs")}]})
        };
        let registry = json!("registry+https://example.org");
        let packages = [
            package("tch", registry.clone()),
            package("diffusion", Value::Null),
            package("serde", registry),
        ];
        let thin = scratch.join("thin");
        let led = led_to_thin(json!({"packages": packages}), &thin);
        let copy = thin.join("tch-1.2.3/src/lib.rs");
        assert_eq!(led["packages"][0]["targets"][0]["src_path"], json!(copy));
        assert_eq!(
            fs::read_to_string(copy).unwrap(),
            "pub fn one() -> u8{loop{}}"
        );
        assert_eq!(led["packages"][1], packages[1]);
        assert_eq!(led["packages"][2], packages[2]);
        fs::remove_dir_all(scratch).unwrap();
    }

    #[test]
    fn an_answer_without_dependencies_stays_as_it_is() {
        let answer = json!({"packages": [], "resolve": null, "workspace_members": []});
        assert_eq!(thinned(answer.clone()).unwrap(), answer);
    }
}
