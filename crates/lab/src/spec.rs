//! What Jupyter and evcxr read before a kernel starts: the kernel spec `rust`, the environment in
//! it, evcxr's configuration, and the copy of this program that the spec names.

use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::layout::Layout;
use crate::parts::{Finding, Options};
use crate::{analyzer, cell_library, libtorch, toolchain, tools};

/// Large pages for what libtorch allocates, memory that is kept, and one arena for all threads:
/// training is 1.4 times (float32) to 1.9 times (mixed precision) faster than without.
const ALLOCATOR: &str = "glibc.malloc.hugetlb=1:glibc.malloc.trim_threshold=8000000000:glibc.malloc.mmap_threshold=33554432:glibc.malloc.arena_max=1";

/// The environment that kernels run in and that the warm build directory is compiled in: both must
/// see the same, or cargo compiles everything again.
pub fn environment(layout: &Layout) -> Result<Vec<(String, String)>> {
    let libtorch = libtorch::in_use(layout)?;
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let mut variables = vec![
        ("LIBTORCH", text(libtorch.clone())),
        ("LD_LIBRARY_PATH", text(libtorch.join("lib"))),
        ("DYLD_LIBRARY_PATH", text(libtorch.join("lib"))),
        ("EVCXR_CONFIG_DIR", text(layout.kernel().join("config"))),
        // By these a panic's line is found in the cell; the crates below have none.
        ("CARGO_PROFILE_DEV_DEBUG", "line-tables-only".to_owned()),
        // A failed `?` shows its chain of reasons; the kernel asks for backtraces, which we leave out.
        ("RUST_LIB_BACKTRACE", "0".to_owned()),
        ("GLIBC_TUNABLES", ALLOCATOR.to_owned()),
        // libtorch's threads sleep while they wait for each other. By default they spin, which gains
        // little on a quiet machine and is ruinous on a busy one: with one other program at work on two
        // cores, an epoch took 37 s instead of more than 100 when every operation was shared. Training no
        // longer shares operations; the rest (metrics, single cells) still does.
        ("OMP_WAIT_POLICY", "passive".to_owned()),
    ];
    // Whoever starts the kernel, it must find things where set-up put them. Crates from another
    // CARGO_HOME count as others for cargo, and everything would be compiled again.
    if let Some(folder) = toolchain::cargo_home() {
        variables.push(("CARGO_HOME", text(folder)));
    }
    variables.push(("DIFFUSION_CACHE", text(layout.cache.clone())));
    variables.extend(analyzer::environment(layout));
    Ok(variables
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect())
}

/// The files of this part: path and text.
fn files(layout: &Layout) -> Result<Vec<(PathBuf, String)>> {
    let mut env = serde_json::Map::new();
    for (name, value) in environment(layout)? {
        env.insert(name, Value::String(value));
    }
    let spec = json!({
        "argv": [layout.launcher(), "kernel", "{connection_file}"],
        "display_name": "Rust",
        "language": "rust",
        "interrupt_mode": if cell_library::IS_USED { "signal" } else { "message" },
        "env": env,
    });
    let config = layout.kernel().join("config");
    let plain = layout.kernel().join("config-plain");
    let dep = format!(
        ":dep diffusion = {{ path = {:?} }}\n",
        layout.support_crate()
    );
    let settings = ":efmt {:?}\n";
    Ok(vec![
        (
            layout
                .python_env()
                .join("share/jupyter/kernels/rust/kernel.json"),
            format!("{spec:#}\n"),
        ),
        (config.join("init.evcxr"), format!("{settings}{dep}")),
        (
            config.join("prelude.rs"),
            "use diffusion::prelude::*;\nlet ready: bool = \"true\".parse()?;\n".to_owned(),
        ),
        (plain.join("init.evcxr"), settings.to_owned()),
    ])
}

/// Letters and pictures on JupyterLab's slides for the last row, in parts of the window's width.
const SLIDES: &str = ".reveal { --jp-content-font-size1: 1.8vw; --jp-code-font-size: 1.5vw; --jp-code-line-height: 1.35; } \
.reveal .jp-OutputArea-output > img, .reveal .jp-RenderedHTMLCommon > img { width: 60vw; image-rendering: pixelated; } \
.reveal .jp-OutputArea-output .explorer { zoom: 1.4; } .reveal .explorer img, .reveal .panel img { margin: 0; }";

/// What differs from Jupyter's own settings: its question about news would stand over the first page of a class,
/// and its slides would have letters that only the first row can read.
fn overrides(layout: &Layout) -> Result<(PathBuf, String, String)> {
    let path = layout
        .python_env()
        .join("share/jupyter/lab/settings/overrides.json");
    let old = fs::read_to_string(&path).unwrap_or_default();
    let mut settings = settings_of(&old).unwrap_or_else(|| json!({}));
    settings["@jupyterlab/apputils-extension:notification"] =
        json!({"checkForUpdates": false, "doNotDisturbMode": false, "fetchNews": "false"});
    settings["jupyterlab-rise:plugin"] = json!({
        "center": false,
        "transition": "none",
        "start_slideshow_at": "beginning",
        "overlay": format!("<style>{SLIDES}</style>"),
    });
    Ok((path, old, format!("{settings:#}\n")))
}

/// The settings in a file's text. None where it holds something else, such as JSON with comments.
fn settings_of(text: &str) -> Option<Value> {
    let found: Value = serde_json::from_str(text).ok()?;
    found.is_object().then_some(found)
}

/// Is everything as this program would write it?
pub fn check(layout: &Layout, _deep: bool) -> Result<Finding> {
    for (path, text) in files(layout)? {
        match fs::read_to_string(&path) {
            Err(_) => return Ok(Finding::Missing(format!("no {}", path.display()))),
            Ok(found) if found != text => {
                return Ok(Finding::Wrong(format!("{} is out of date", path.display())));
            }
            Ok(_) => {}
        }
    }
    let (path, old, new) = overrides(layout)?;
    if old != new {
        return Ok(Finding::Missing(format!(
            "{} does not hold the lesson's settings yet",
            path.display()
        )));
    }
    if fs::read(layout.launcher()).ok() != Some(fs::read(program()?)?) {
        return Ok(Finding::Missing(format!(
            "{} is not this program yet",
            layout.launcher().display()
        )));
    }
    Ok(Finding::Found(format!(
        "kernel `rust` in {}",
        layout.python_env().join("share/jupyter/kernels").display()
    )))
}

/// Writes what is missing or different.
pub fn make(layout: &Layout, _options: &Options) -> Result<()> {
    for (path, text) in files(layout)? {
        tools::write_whole(&path, text)?;
    }
    let (path, old, text) = overrides(layout)?;
    if !old.trim().is_empty() && settings_of(&old).is_none() {
        let aside = path.with_extension("json.before");
        tools::write_whole(&aside, old)?;
        println!(
            "{} is no plain JSON; it is now {}",
            path.display(),
            aside.display()
        );
    }
    tools::write_whole(&path, text)?;
    let (launcher, new) = (layout.launcher(), layout.kernel().join(".lab"));
    let copied = fs::copy(program()?, &new).and_then(|_| fs::rename(&new, &launcher));
    copied.with_context(|| format!("cannot write {}", launcher.display()))
}

fn program() -> Result<PathBuf> {
    env::current_exe().context("the system does not say where this program is")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_json_with_names_is_settings() {
        assert_eq!(settings_of("{\"a\": 1}"), Some(json!({"a": 1})));
        for text in ["", "[1]", "// mine\n{\"a\": 1}"] {
            assert_eq!(settings_of(text), None, "{text}");
        }
    }
}
