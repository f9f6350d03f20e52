//! Follows a training in the background: writes its panel, and stops the training when `Training::stop` or a stop file says so.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use figures::Output;
use figures::panel::{Notes, STOP_FILE, State};

use super::history::{Epoch, History, line};
use super::observer::Observer;
use super::plan::Plan;

/// How often the panel changes.
const PAUSE: Duration = Duration::from_millis(700);

/// Draws what a panel shows of a network.
pub(super) type Preview<M> = Box<dyn Fn(&M) -> Result<Output> + Send>;

/// The observer of a training in the background.
pub(super) struct Watch<M> {
    preview: Preview<M>,
    progress: Progress,
}

/// Everything that a panel shows, except the preview.
struct Progress {
    folder: PathBuf,
    stop: Arc<AtomicBool>,
    /// None before the first batch.
    history: Option<History>,
    /// Epochs and losses of an earlier run.
    earlier: Option<(Vec<Epoch>, Vec<f64>)>,
    /// When this run began, and after how many batches.
    began: (Instant, usize),
    written: Instant,
}

impl<M> Watch<M> {
    pub(super) fn new(
        folder: &Path,
        stop: Arc<AtomicBool>,
        earlier: Option<(Vec<Epoch>, Vec<f64>)>,
        preview: Preview<M>,
    ) -> Watch<M> {
        Watch {
            preview,
            progress: Progress {
                folder: folder.to_owned(),
                stop,
                history: None,
                earlier,
                began: (Instant::now(), 0),
                written: Instant::now(),
            },
        }
    }

    /// Before the first batch, so there is a panel from the beginning.
    pub(super) fn begin(&self, model: &M) -> Result<()> {
        let text = "Getting ready …".to_owned();
        let preview = (self.preview)(model);
        self.progress.write(preview, State::Running, text)
    }

    /// After the last batch.
    pub(super) fn end(&self, model: &M, outcome: &Result<History>) {
        self.progress.end((self.preview)(model), outcome);
    }
}

impl<M> Observer<M> for Watch<M> {
    fn start(&mut self, plan: &Plan) {
        self.progress.start(plan);
    }

    fn batch(&mut self, plan: &Plan, model: &M, _batch: usize, loss: f64) -> ControlFlow<()> {
        self.progress.batch(plan, loss, &|| (self.preview)(model))
    }

    fn epoch(&mut self, plan: &Plan, model: &M, epoch: &Epoch) -> ControlFlow<()> {
        self.progress.epoch(plan, epoch, (self.preview)(model));
        ControlFlow::Continue(())
    }
}

impl Progress {
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
        preview: &dyn Fn() -> Result<Output>,
    ) -> ControlFlow<()> {
        if let Some(history) = &mut self.history {
            history.batch_losses.push(loss);
        }
        if self.stop.load(Ordering::Relaxed) || self.folder.join(STOP_FILE).exists() {
            return ControlFlow::Break(());
        }
        if self.written.elapsed() >= PAUSE {
            // A panel that cannot be written does not end the training.
            let _ = self.write(preview(), State::Running, self.status(plan));
            self.written = Instant::now();
        }
        ControlFlow::Continue(())
    }

    fn epoch(&mut self, plan: &Plan, epoch: &Epoch, preview: Result<Output>) {
        if let Some(history) = &mut self.history {
            history.epochs.push(*epoch);
        }
        let _ = self.write(preview, State::Running, self.status(plan)); // as in `batch`
        self.written = Instant::now();
    }

    fn end(&self, preview: Result<Output>, outcome: &Result<History>) {
        let (state, text) = match outcome {
            Ok(history) if history.stopped => (State::Stopped, format!("Stopped. {history}")),
            Ok(history) => (State::Done, format!("Done. {history}")),
            Err(error) => (State::Failed, format!("It ended with an error: {error:#}")),
        };
        let _ = self.write(preview, state, text); // as in `batch`
    }

    fn write(&self, preview: Result<Output>, state: State, text: String) -> Result<()> {
        let history = self.history.as_ref();
        let curve = history.filter(|history| history.batch_losses.len() > 1);
        Notes {
            state,
            text,
            // An untrained network may have nothing to show.
            preview: preview.ok(),
            curve: curve.map(History::plot),
        }
        .write(&self.folder)
    }

    fn status(&self, plan: &Plan) -> String {
        let Some(history) = &self.history else {
            return String::new();
        };
        let (done, all) = (history.batch_losses.len(), plan.epochs * plan.batches);
        let (began, before) = self.began;
        let to_go = began.elapsed().as_secs_f64() * (all - done.min(all)) as f64
            / (done - before).max(1) as f64;
        let loss = history.batch_losses.last().copied().unwrap_or(f64::NAN);
        let last = history
            .last()
            .map_or(String::new(), |epoch| format!("\n{}", line(plan, epoch)));
        format!(
            "{:.0} % of {} epochs, about {to_go:.0} s to go; the loss is {loss:.4}{last}",
            100.0 * done as f64 / all as f64,
            plan.epochs
        )
    }
}
