//! Follows a training in the background: writes its panel, and stops the training when `Training::stop` or a stop file says so.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use figures::Output;
use figures::panel::{Notes, STOP_FILE, State};

use super::history::{Epoch, History, Plan, line};
use super::observer::Observer;

/// How often the panel changes.
const PAUSE: Duration = Duration::from_millis(700);
/// It takes this part of the training's time at most.
const SHARE: u32 = 20;

/// Draws what a panel shows of a network.
pub(super) type Preview = Box<dyn Fn() -> Result<Output> + Send>;

/// The observer of a training in the background.
pub(super) struct Watch {
    folder: PathBuf,
    stop: Arc<AtomicBool>,
    preview: Preview,
    /// The numbers so far, those of an earlier run among them.
    history: History,
    /// When this run began, and after how many batches.
    began: (Instant, usize),
    /// When the panel was written last, and how long that took.
    written: Instant,
    took: Duration,
}

impl Watch {
    pub(super) fn new(
        folder: &Path,
        stop: Arc<AtomicBool>,
        history: History,
        preview: Preview,
    ) -> Watch {
        Watch {
            folder: folder.to_owned(),
            stop,
            preview,
            began: (Instant::now(), history.batch_losses.len()),
            history,
            written: Instant::now(),
            took: Duration::ZERO,
        }
    }

    /// Before the first batch, so there is a panel from the beginning.
    pub(super) fn begin(&self) -> Result<()> {
        self.write(State::Running, "Getting ready …".to_owned())
    }

    /// After the last batch.
    pub(super) fn end(&self, outcome: &Result<History>) {
        let (state, text) = match outcome {
            Ok(history) if history.stopped => (State::Stopped, format!("Stopped. {history}")),
            Ok(history) => (State::Done, format!("Done. {history}")),
            Err(error) => (State::Failed, format!("It ended with an error: {error:#}")),
        };
        let _ = self.write(state, text); // as in `update`
    }
    fn update(&mut self, plan: &Plan) {
        let started = Instant::now();
        // A panel that cannot be written does not end the training.
        let _ = self.write(State::Running, self.status(plan));
        (self.written, self.took) = (Instant::now(), started.elapsed());
    }

    fn write(&self, state: State, text: String) -> Result<()> {
        let has_curve = self.history.batch_losses.len() > 1;
        Notes {
            state,
            text,
            // An untrained network may have nothing to show, and no preview should end a training.
            preview: catch_unwind(AssertUnwindSafe(|| (self.preview)().ok()))
                .ok()
                .flatten(),
            curve: has_curve.then(|| self.history.plot()),
        }
        .write(&self.folder)
    }

    fn status(&self, plan: &Plan) -> String {
        let history = &self.history;
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

impl Observer for Watch {
    fn start(&mut self, _: &Plan) {
        self.began = (Instant::now(), self.history.batch_losses.len());
    }

    fn batch(&mut self, plan: &Plan, _: usize, loss: f64) -> ControlFlow<()> {
        self.history.batch_losses.push(loss);
        if self.stop.load(Ordering::Relaxed) || self.folder.join(STOP_FILE).exists() {
            return ControlFlow::Break(());
        }
        if self.written.elapsed() >= PAUSE.max(SHARE * self.took) {
            self.update(plan);
        }
        ControlFlow::Continue(())
    }

    fn epoch(&mut self, plan: &Plan, epoch: &Epoch) -> ControlFlow<()> {
        self.history.epochs.push(*epoch);
        self.update(plan);
        ControlFlow::Continue(())
    }
}
