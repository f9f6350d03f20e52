//! A training in numbers: what is planned, and its history, as lines and as a curve.

use std::fmt;

use figures::{Output, Series, curve, thousands};
use ops::Precision;
use serde::{Deserialize, Serialize};

/// Points of a drawn loss curve: each is the mean over its share of the batches.
const POINTS: usize = 100;

/// How much work a training is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Epochs in all.
    pub epochs: usize,
    /// Batches in an epoch, the last partial one included.
    pub batches: usize,
    /// Selection to learn from.
    pub images: usize,
    /// Selection held out.
    pub validation: usize,
    /// The precision.
    pub precision: Precision,
    /// What loss and score are called.
    pub measures: Measures,
}

/// What a training measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measures {
    /// The loss: `binary cross-entropy`.
    pub loss: &'static str,
    /// The unit of the score, if there is one: `dB`.
    pub unit: &'static str,
}

/// Loss and score on held-out images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// The loss, as in training.
    pub loss: f64,
    /// The score where there is one, in the unit of its [`Measures`]: the higher, the better.
    pub score: Option<f64>,
}

/// The numbers of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Counted from 1.
    pub number: usize,
    /// Mean loss over the images, during training.
    pub loss: f64,
    /// Loss and score on the held-out images, if there are any.
    pub validation: Option<Validation>,
    /// How long the epoch took in seconds, validation included.
    pub seconds: f64,
}

/// The history of a training.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// How much work was planned.
    pub plan: Plan,
    /// The epochs that were run.
    pub epochs: Vec<Epoch>,
    /// The loss of every batch.
    pub batch_losses: Vec<f64>,
    /// Whether the training was ended before its time: by the notebook's Stop button, its panel's, or an observer.
    pub stopped: bool,
}

impl History {
    pub(super) fn new(plan: Plan) -> History {
        History {
            plan,
            epochs: Vec::new(),
            batch_losses: Vec::new(),
            stopped: false,
        }
    }

    /// The loss curve: in training (averaged over a few batches) and on held-out images.
    pub fn plot(&self) -> Output {
        let epochs = |batches: f64| batches / self.plan.batches as f64;
        let size = self.batch_losses.len().div_ceil(POINTS).max(1);
        let training = self
            .batch_losses
            .chunks(size)
            .enumerate()
            .map(|(at, losses)| {
                let middle = (at * size) as f64 + losses.len() as f64 / 2.0;
                (
                    epochs(middle),
                    losses.iter().sum::<f64>() / losses.len() as f64,
                )
            });
        let held_out = self.epochs.iter().filter_map(|epoch| {
            epoch
                .validation
                .map(|validation| (epoch.number as f64, validation.loss))
        });
        let mut series = vec![Series::new("training", training)];
        let held_out: Vec<(f64, f64)> = held_out.collect();
        if !held_out.is_empty() {
            series.push(Series::new("validation", held_out).with_points());
        }
        let loss = self.plan.measures.loss;
        curve("Loss while training", ("epoch", loss), &series)
    }

    /// Seconds in all.
    pub fn seconds(&self) -> f64 {
        self.epochs.iter().map(|epoch| epoch.seconds).sum()
    }

    /// The numbers of the last epoch.
    pub fn last(&self) -> Option<&Epoch> {
        self.epochs.last()
    }

    /// Shows the history in a notebook.
    pub fn evcxr_display(&self) {
        Output::plain(self.to_string()).evcxr_display();
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stopped = if self.stopped { ", stopped early" } else { "" };
        write!(
            f,
            "{} over {} images in {:.0} s ({}{stopped})",
            match self.epochs.len() {
                1 => "1 epoch".to_owned(),
                count => format!("{count} epochs"),
            },
            thousands(self.plan.images),
            self.seconds(),
            self.plan.precision,
        )?;
        self.epochs
            .iter()
            .try_for_each(|epoch| write!(f, "\n{}", line(&self.plan, epoch)))
    }
}

/// One epoch as one line: `epoch 1/2 ██████████░░░░░░░░░░ 31 s  loss 0.1433  validation 0.1121, 18.4 dB`.
pub(super) fn line(plan: &Plan, epoch: &Epoch) -> String {
    let filled = 20 * epoch.number / plan.epochs.max(1);
    let bar = "█".repeat(filled) + &"░".repeat(20 - filled);
    let score = |score| format!(", {score:.2} {}", plan.measures.unit);
    let validation = epoch.validation.map_or(String::new(), |validation| {
        let score = validation.score.map_or(String::new(), score);
        format!("  validation {:.4}{score}", validation.loss)
    });
    format!(
        "epoch {}/{} {bar} {:>3.0} s  loss {:.4}{validation}",
        epoch.number, plan.epochs, epoch.seconds, epoch.loss
    )
}
