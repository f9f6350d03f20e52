//! A live panel: what a page shows of a task that runs in the background.
//!
//! A kernel cannot change what it has shown. So the task writes [`Notes`] into a folder, and the page
//! requests them from the notebook's server once a second. The panel has a button that makes a file named
//! [`STOP_FILE`] in the folder; the task should end when it finds that file.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::file::write_whole;
use crate::output::Output;
use crate::text::escape;

/// The name of the file that the panel's button makes in the folder.
pub const STOP_FILE: &str = "stop";
/// The file that a page requests.
pub const PANEL_FILE: &str = "panel.json";
const SCRIPT: &str = include_str!("../assets/panel.js");
const STYLE: &str = include_str!("../assets/panel.css");

/// Whether the task is running, and how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is running: the panel follows it.
    Running,
    /// It reached its end.
    Done,
    /// It was stopped.
    Stopped,
    /// It ended with an error.
    Failed,
}

/// The present state of a task: all that a panel shows.
#[derive(Clone, Debug)]
pub struct Notes {
    /// Whether the task is running.
    pub state: State,
    /// The progress so far, in one or more lines.
    pub text: String,
    /// A picture of the latest results, if there is one.
    pub preview: Option<Output>,
    /// A plot of the progress so far, if there is one.
    pub curve: Option<Output>,
}

/// The file's content.
#[derive(Serialize, Deserialize)]
struct Page {
    state: State,
    line: String,
    curve: String,
    preview: String,
}

impl Notes {
    /// Writes the notes to the folder, where a panel finds them. Pictures that could not be drawn are
    /// left out.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let picture = |output: &Option<Output>| {
            let html = output.as_ref().and_then(|output| output.html().ok());
            html.unwrap_or_default()
        };
        let page = Page {
            state: self.state,
            line: self.text.clone(),
            curve: picture(&self.curve),
            preview: picture(&self.preview),
        };
        write_whole(&folder.join(PANEL_FILE), &serde_json::to_vec(&page)?)
    }
}

/// The panel of a task that writes [`Notes`] to this folder.
///
/// In a notebook the panel follows them, as long as their state is [`State::Running`]. What it shows at
/// first, and where scripts do not run, is the latest notes. The folder is given relative to the notebook's
/// own.
pub fn panel(folder: &Path) -> Output {
    match read(folder) {
        Ok(page) => Output::from_html(Ok(html(folder, &page)), page.line),
        Err(error) => Output::from_html(Err(error), ""),
    }
}

fn read(folder: &Path) -> Result<Page> {
    let file = folder.join(PANEL_FILE);
    let notes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_slice(&notes)
        .with_context(|| format!("{} holds no notes of a panel", file.display()))
}

fn html(folder: &Path, page: &Page) -> String {
    let shown = format!(
        "<style>{STYLE}</style><div class=\"preview\">{}</div><div class=\"curve\">{}</div>\
         <pre class=\"line\" role=\"status\">{}</pre>",
        page.preview,
        page.curve,
        escape(&page.line),
    );
    if page.state != State::Running {
        return format!("<div class=\"panel\">{shown}</div>");
    }
    format!(
        "<div class=\"panel\" data-folder=\"{}\">{shown}<button type=\"button\" hidden>Stop</button>\
         <script>{SCRIPT}</script></div>",
        escape(&folder.display().to_string()),
    )
}
