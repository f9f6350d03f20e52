//! The packages that the analyzer inside a kernel gets to see: those whose types notebooks meet.
//!
//! Which these are stands in the manifests of the local crates, as metadata that cargo passes on:
//!
//! ```toml
//! [package.metadata.notebooks]
//! public = ["anyhow", "ndarray", "tch"]      # the dependencies whose types stand in this crate's public functions
//! without_dependencies = ["anyhow", "tch"]   # of these, the ones that show nothing of their own dependencies
//! ```
//!
//! Of a local crate the analyzer sees the public dependencies. Of a dependency in `without_dependencies` it sees that package alone;
//! of every other package, such as `ndarray` above and what a learner adds by `:dep`, all dependencies. A crate that notebooks meet and that no
//! list names is unknown to the analyzer: variables of its types then need their types written down.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::machine::tools;
use crate::thin;

/// What the local crates' manifests say about their dependencies.
struct Public {
    /// By the id of a local crate, the names of its public dependencies.
    of: BTreeMap<String, BTreeSet<String>>,
    /// The names of packages of which no dependency shows.
    without_dependencies: BTreeSet<String>,
}

impl Public {
    /// Reads the metadata of all packages that have a folder on this machine.
    fn read(metadata: &Value) -> Result<Public> {
        let mut public = Public {
            of: BTreeMap::new(),
            without_dependencies: BTreeSet::new(),
        };
        let packages = list(metadata, "packages")?.iter();
        for package in packages.filter(|package| package["source"].is_null()) {
            let notebooks = &package["metadata"]["notebooks"];
            if notebooks["public"].is_array() {
                let names = names_in(&notebooks["public"]).collect();
                public.of.insert(text(package, "id")?.to_owned(), names);
            }
            public
                .without_dependencies
                .extend(names_in(&notebooks["without_dependencies"]));
        }
        Ok(public)
    }

    /// Whether notebooks meet a package of this name.
    fn names(&self, package: &str) -> bool {
        self.of.values().any(|names| names.contains(package))
    }

    /// Whether a package's dependency shows; ids and names of both.
    fn shows(&self, (from, name): (&str, &str), to: &str) -> bool {
        match self.of.get(from) {
            Some(public) => public.contains(to),
            None => !self.without_dependencies.contains(name),
        }
    }
}

fn names_in(list: &Value) -> impl Iterator<Item = String> + '_ {
    let names = list.as_array().into_iter().flatten();
    names.filter_map(Value::as_str).map(str::to_owned)
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
    let public = Public::read(&metadata)?;
    let seen = |from: &str, to: &str| {
        let pair = names.get(from).zip(names.get(to));
        pair.is_some_and(|(name, to)| public.shows((from, name), to))
    };
    let mut edges = BTreeMap::new();
    let resolve = &mut metadata["resolve"];
    let Some(nodes) = resolve.get_mut("nodes").and_then(Value::as_array_mut) else {
        return Ok(metadata); // a request without dependencies
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

/// Leads the analyzer to thin copies of the crates that notebooks see, made here when they are first needed. What comes from a
/// registry never changes; everything else stays as it is, and so does what cannot be copied.
pub fn led_to_thin(mut metadata: Value, folder: &Path) -> Value {
    let Ok(public) = Public::read(&metadata) else {
        return metadata;
    };
    for package in metadata["packages"].as_array_mut().into_iter().flatten() {
        let text = |name: &str| package[name].as_str().unwrap_or_default().to_owned();
        let (name, version, manifest) = (text("name"), text("version"), text("manifest_path"));
        let seen = public.names(&name);
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
    use std::env;

    /// A cell that uses the support crate, which uses two more local crates, and a crate of the learner's own.
    fn metadata() -> Value {
        let edges: [(&str, &[&str]); 11] = [
            ("ctx", &["diffusion", "rand"]),
            ("lock", &["diffusion"]),
            (
                "diffusion",
                &["tch", "plotters", "anyhow", "figures", "operations"],
            ),
            ("figures", &["ndarray", "plotters"]),
            ("operations", &["rand"]),
            ("tch", &["zip"]),
            ("zip", &[]),
            ("plotters", &[]),
            ("anyhow", &[]),
            ("rand", &["zip"]),
            ("ndarray", &["matrixmultiply"]),
        ];
        let lists = |name: &str| match name {
            "lock" => json!({"notebooks": {"public": []}}),
            "diffusion" => json!({"notebooks": {"public": ["anyhow", "figures", "tch"],
                "without_dependencies": ["anyhow", "tch"]}}),
            "figures" => json!({"notebooks": {"public": ["ndarray"]}}),
            _ => Value::Null,
        };
        let foreign = |name: &str| match name {
            "ctx" | "lock" | "diffusion" | "figures" | "operations" => Value::Null,
            _ => json!("registry+https://example.org"),
        };
        let more = [("matrixmultiply", &[][..])];
        let edges = edges.into_iter().chain(more);
        let packages: Vec<Value> = edges
            .clone()
            .map(|(name, _)| {
                json!({"id": name, "name": name, "source": foreign(name), "metadata": lists(name),
                    "targets": [{"kind": ["lib"]}, {"kind": ["custom-build"]}]})
            })
            .collect();
        let nodes: Vec<Value> = edges
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
        // The foreign crate in no list that cuts it off, `ndarray`, stays with what it needs.
        let seen = [
            "ctx",
            "lock",
            "diffusion",
            "figures",
            "tch",
            "anyhow",
            "ndarray",
            "matrixmultiply",
        ];
        assert_eq!(names(&thin), seen);
        assert_eq!(thin["packages"][2]["targets"], json!([{"kind": ["lib"]}]));
        assert_eq!(
            thin["resolve"]["nodes"][2]["deps"],
            json!([{"pkg": "tch"}, {"pkg": "anyhow"}, {"pkg": "figures"}])
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
            json!({"id": name, "name": name, "version": "1.2.3", "source": source,
                "metadata": {"notebooks": {"public": ["tch"]}}, "manifest_path": whole.join("Cargo.toml"), "targets": [{"src_path": whole.join("src/lib.rs")}]})
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
