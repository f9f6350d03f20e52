//! What Jupyter and evcxr read before a kernel starts: the kernel spec `rust`, the environment in
//! it, and evcxr's configuration.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

use kernel::machine::layout::Layout;
use kernel::machine::tools;
use kernel::{variables, workspace};

use crate::setup::part::{Finding, Options};
use crate::setup::programs;

/// The files of this part: path and text.
fn files(layout: &Layout) -> Result<Vec<(PathBuf, String)>> {
    let mut env = serde_json::Map::new();
    for (name, value) in variables::of_kernels(layout)? {
        env.insert(name, Value::String(value));
    }
    let spec = json!({
        "argv": [layout.launcher(), "start", "{connection_file}"],
        "display_name": "Rust",
        "language": "rust",
        "interrupt_mode": if programs::HAVE_LIBRARY { "signal" } else { "message" },
        "env": env,
    });
    let config = layout.kernel().join("config");
    let plain = layout.plain_settings();
    let dep = format!(":dep {}\n", workspace::dependency(&layout.support_crate()));
    // Else evcxr takes `mold` or `lld` where it finds one, and what was compiled without is compiled again.
    let settings = ":linker system\n:efmt {:?}\n";
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
    tools::write_whole(&path, text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::env;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_plain_json_with_names_is_settings() {
        assert_eq!(settings_of("{\"a\": 1}"), Some(json!({"a": 1})));
        for text in ["", "[1]", "// mine\n{\"a\": 1}"] {
            assert_eq!(settings_of(text), None, "{text}");
        }
    }

    #[test]
    fn settings_of_ones_own_stay_and_what_cannot_be_read_is_kept_aside() {
        let root = env::temp_dir().join(format!("lab-test-spec-{}", std::process::id()));
        let layout = Layout {
            cache: root.join("cache"),
            root,
        };
        for folder in [layout.cache.clone(), layout.target()] {
            fs::create_dir_all(folder).unwrap();
        }
        symlink(&layout.cache, layout.libtorch_link()).unwrap();
        let (path, _, _) = overrides(&layout).unwrap();
        let aside = path.with_extension("json.before");
        let made = |text: &str| {
            tools::write_whole(&path, text).unwrap();
            make(&layout, &Options::default()).unwrap();
            settings_of(&fs::read_to_string(&path).unwrap()).unwrap()
        };
        let merged = made("{\"mine\": {\"theme\": \"dark\"}}");
        assert_eq!(merged["mine"]["theme"], "dark");
        assert_eq!(
            merged["@jupyterlab/apputils-extension:notification"]["fetchNews"],
            "false"
        );
        assert!(!aside.exists());
        let with_a_comment = "// dark\n{\"mine\": 1}";
        assert!(made(with_a_comment).get("mine").is_none());
        assert_eq!(fs::read_to_string(&aside).unwrap(), with_a_comment);
        fs::remove_dir_all(&layout.root).unwrap();
    }
}
