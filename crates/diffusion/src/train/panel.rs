//! What a page shows of a training while it runs.
//!
//! A kernel cannot change what it has shown. So the training leaves a file in its folder, a picture of how things stand,
//! and the page asks the notebook server for it once a second, from where it got the notebook itself.

use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use super::background::{STOP, write_notes};
use super::history::line;
use super::{Epoch, History, Observer, Plan};
use crate::figure::Figure;
use crate::show::{self, escape};

/// The file that a page asks for.
const FILE: &str = "panel.json";
const SCRIPT: &str = include_str!("../../assets/panel.js");
/// How often there is something new.
const PAUSE: Duration = Duration::from_millis(700);

type Preview<M> = Box<dyn Fn(&M) -> Result<Figure> + Send>;

/// Watches a training for its panel, and ends it when it is told to.
pub(super) struct Watch<M> {
    preview: Preview<M>,
    notes: Notes,
}

/// All that a panel shows, but for the preview.
struct Notes {
    folder: PathBuf,
    stop: Arc<AtomicBool>,
    /// None before the first batch.
    history: Option<History>,
    /// What an earlier run had done.
    earlier: Option<(Vec<Epoch>, Vec<f64>)>,
    /// When this run began, and after how many batches.
    began: (Instant, usize),
    shown: Instant,
}

impl<M> Watch<M> {
    pub(super) fn new(
        folder: &Path,
        stop: Arc<AtomicBool>,
        earlier: Option<(Vec<Epoch>, Vec<f64>)>,
        preview: impl Fn(&M) -> Result<Figure> + Send + 'static,
    ) -> Watch<M> {
        Watch {
            preview: Box::new(preview),
            notes: Notes {
                folder: folder.to_owned(),
                stop,
                history: None,
                earlier,
                began: (Instant::now(), 0),
                shown: Instant::now(),
            },
        }
    }

    /// Before the first batch: a panel is there from the beginning.
    pub(super) fn begin(&self, model: &M) -> Result<()> {
        let preview = (self.preview)(model);
        self.notes.write(preview, "training", "Getting ready …")
    }

    /// After the last one.
    pub(super) fn end(&self, model: &M, outcome: &Result<History>) {
        self.notes.end((self.preview)(model), outcome);
    }
}

impl<M> Observer<M> for Watch<M> {
    fn start(&mut self, plan: &Plan) {
        self.notes.start(plan);
    }

    fn batch(&mut self, plan: &Plan, model: &M, _batch: usize, loss: f64) -> ControlFlow<()> {
        self.notes.batch(plan, loss, &|| (self.preview)(model))
    }

    fn epoch(&mut self, plan: &Plan, model: &M, epoch: &Epoch) -> ControlFlow<()> {
        self.notes.epoch(plan, epoch, (self.preview)(model));
        ControlFlow::Continue(())
    }
}

impl Notes {
    fn end(&self, preview: Result<Figure>, outcome: &Result<History>) {
        let (state, line) = match outcome {
            Ok(history) if history.stopped => ("stopped", format!("Stopped. {history}")),
            Ok(history) => ("done", format!("Done. {history}")),
            Err(error) => ("failed", format!("It ended with an error: {error:#}")),
        };
        let _ = self.write(preview, state, &line); // the outcome itself says more than its panel
    }

    fn write(&self, preview: Result<Figure>, state: &str, line: &str) -> Result<()> {
        let picture = |figure: &Figure| figure.html().unwrap_or_default();
        let curve = self
            .history
            .as_ref()
            .filter(|history| history.batch_losses.len() > 1);
        // A network that is no good yet may have nothing to show.
        let digits = preview.map(|figure| picture(&figure)).unwrap_or_default();
        let notes = json!({
            "state": state,
            "line": line,
            "curve": curve.map_or(String::new(), |history| picture(&history.plot())),
            "digits": digits,
        });
        write_notes(&self.folder, FILE, &notes)
    }

    fn status(&self, plan: &Plan) -> String {
        let Some(history) = &self.history else {
            return String::new();
        };
        let (done, all) = (history.batch_losses.len(), plan.epochs * plan.batches);
        let (began, before) = self.began;
        let left = began.elapsed().as_secs_f64() * (all - done.min(all)) as f64
            / (done - before).max(1) as f64;
        let loss = history.batch_losses.last().copied().unwrap_or(f64::NAN);
        let last = history
            .last()
            .map_or(String::new(), |epoch| format!("\n{}", line(plan, epoch)));
        format!(
            "{:.0} % of {} epochs, about {left:.0} s to go; the loss is {loss:.4}{last}",
            100.0 * done as f64 / all as f64,
            plan.epochs
        )
    }

    fn asked_to_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.folder.join(STOP).exists()
    }

    fn start(&mut self, plan: &Plan) {
        let mut history = History::new(*plan);
        if let Some((epochs, losses)) = self.earlier.take() {
            history.epochs = epochs;
            history.batch_losses = losses;
        }
        self.began = (Instant::now(), history.batch_losses.len());
        self.history = Some(history);
    }

    fn batch(
        &mut self,
        plan: &Plan,
        loss: f64,
        preview: &dyn Fn() -> Result<Figure>,
    ) -> ControlFlow<()> {
        if let Some(history) = &mut self.history {
            history.batch_losses.push(loss);
        }
        if self.asked_to_stop() {
            return ControlFlow::Break(());
        }
        if self.shown.elapsed() >= PAUSE {
            let _ = self.write(preview(), "training", &self.status(plan)); // the training matters more
            self.shown = Instant::now();
        }
        ControlFlow::Continue(())
    }

    fn epoch(&mut self, plan: &Plan, epoch: &Epoch, preview: Result<Figure>) {
        if let Some(history) = &mut self.history {
            history.epochs.push(*epoch);
        }
        let _ = self.write(preview, "training", &self.status(plan));
        self.shown = Instant::now();
    }
}

/// A training's panel. In a notebook it follows the training; what it shows at first, and where scripts do not run, is
/// how things stand now.
pub struct Panel {
    html: Result<String>,
    line: String,
}

impl Panel {
    pub(super) fn of(folder: &Path) -> Panel {
        let read = || -> Result<Value> {
            let notes = std::fs::read(folder.join(FILE))?;
            Ok(serde_json::from_slice(&notes)?)
        };
        match read() {
            Ok(notes) => Panel {
                html: Ok(html(folder, &notes)),
                line: text(&notes, "line").to_owned(),
            },
            Err(error) => Panel {
                html: Err(error),
                line: String::new(),
            },
        }
    }

    /// The panel as HTML.
    ///
    /// # Errors
    /// When the training's folder cannot be read.
    pub fn html(&self) -> Result<&str> {
        self.html
            .as_deref()
            .map_err(|error| anyhow::anyhow!("{error:#}"))
    }

    /// Shows the panel in a notebook.
    pub fn evcxr_display(&self) {
        match self.html() {
            Ok(html) => show::html(html, &self.line),
            Err(error) => eprintln!("This panel cannot be shown: {error:#}"),
        }
    }
}

/// In short; in a notebook it shows the panel, too, for the reason that a [`Figure`] does.
impl fmt::Debug for Panel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if show::in_notebook() {
            self.evcxr_display();
        }
        write!(f, "Panel({:?})", self.line)
    }
}

fn text<'a>(notes: &'a Value, name: &str) -> &'a str {
    notes[name].as_str().unwrap_or_default()
}

fn html(folder: &Path, notes: &Value) -> String {
    let shown = format!(
        "<div class=\"digits\">{}</div><div class=\"curve\">{}</div><pre class=\"line\" role=\"status\">{}</pre>",
        text(notes, "digits"),
        text(notes, "curve"),
        escape(text(notes, "line")),
    );
    if text(notes, "state") != "training" {
        return format!("<div class=\"training\">{shown}</div>");
    }
    format!(
        "<div class=\"training\" data-folder=\"{}\">{shown}<button type=\"button\" hidden>Stop the training</button>\
         <script>{SCRIPT}</script></div>",
        escape(&folder.display().to_string()),
    )
}
