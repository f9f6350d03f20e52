//! `fit`, `fit_with` and `resume`: the part of training that knows the model's type.

use std::ops::ControlFlow;

use anyhow::{Context, Result, ensure};
use figures::with_home;

use super::config::{self, FitConfig};
use super::history::{Epoch, History};
use super::objective::{Denoising, Objective};
use super::observer::{Observer, PrintLines};
use super::plan::Plan;
use super::run::{self, Subject, Watcher};
use super::state::Checkpoint;
use super::worker::{BoxedWorker, Worker};
use crate::data::Split;
use crate::denoiser::Denoiser;
use crate::model::Model;

/// Trains a model to turn noisy images into the originals, and prints a line for each epoch.
///
/// Adam (Kingma & Ba 2015) on the layers that are trainable, with a new optimizer each time, as
/// after Keras's `compile`. On one machine the same settings, precision and threads among them, give the same
/// weights, whatever else is drawn meanwhile; elsewhere they differ by rounding.
///
/// # Errors
/// Settings that make no sense (each is named with what was expected), a model whose layers are
/// all frozen, a batch that memory cannot hold, or a loss or weights that became NaN or infinite (the model then
/// gets back its best weights with [`Keep::Best`](super::Keep::Best), else those it came with). After another error of the
/// objective, or a checkpoint that cannot be written, the model keeps its weights of that moment.
///
/// ```no_run
/// use diffusion::prelude::*;
///
/// # fn main() -> anyhow::Result<()> {
/// let mnist: Mnist = Mnist::load()?;
/// let mut cnn: Cnn = Cnn::new(CnnConfig::default());
/// let history: History = fit(&mut cnn, &mnist.train, &FitConfig { epochs: 2, ..Default::default() })?;
/// history.plot().save("loss.svg")?;
/// # Ok(())
/// # }
/// ```
pub fn fit<M: Denoiser>(model: &mut M, data: &Split, config: &FitConfig) -> Result<History> {
    let objective = Denoising::of(config)?;
    match config.quiet {
        true => fit_with(model, data, &objective, config, &mut ()),
        false => fit_with(model, data, &objective, config, &mut PrintLines::default()),
    }
}

/// The training loop: [`fit`] with an objective and an observer of one's own.
///
/// Each worker computes the loss and the gradients of a part of the batch; the optimizer adds them
/// up. In [`Precision::Mixed`](ops::Precision::Mixed) the workers compute with a `bfloat16` copy of the weights, which the
/// optimizer writes again at every step from the `float32` weights that it keeps.
///
/// # Errors
/// As [`fit`]; a [`FitConfig::checkpoint`] file that exists already, because it would be overwritten.
pub fn fit_with<M: Model>(
    model: &mut M,
    data: &Split,
    objective: &impl Objective<M>,
    config: &FitConfig,
    observer: &mut impl Observer<M>,
) -> Result<History> {
    if let Some(path) = &config.checkpoint {
        ensure!(
            !with_home(path)?.exists(),
            "{} holds a training already: continue it with `resume`, or delete it to start again",
            path.display()
        );
    }
    train(model, data, objective, config, observer, None)
}

/// Goes on with a training that ended early, from the last epoch that
/// [`FitConfig::checkpoint`] holds: with the same model, data and settings the result is that of an uninterrupted run.
///
/// # Errors
/// As [`fit`]; settings without a checkpoint, one that cannot be read, or one of a training with other settings.
pub fn resume<M: Model>(
    model: &mut M,
    data: &Split,
    objective: &impl Objective<M>,
    config: &FitConfig,
    observer: &mut impl Observer<M>,
) -> Result<History> {
    let path = config
        .checkpoint
        .as_ref()
        .context("there is nothing to resume: the settings name no `checkpoint`")?;
    let checkpoint = Checkpoint::read(path)?;
    train(model, data, objective, config, observer, Some(checkpoint))
}

/// The part of [`fit_with`] that depends on the model. Generic code is compiled again in every cell that trains,
/// so this part is small; [`run::run`] is compiled once.
fn train<M: Model>(
    model: &mut M,
    data: &Split,
    objective: &impl Objective<M>,
    config: &FitConfig,
    observer: &mut impl Observer<M>,
    earlier: Option<Checkpoint>,
) -> Result<History> {
    config::check(config, data)?;
    let kind = config.precision.kind();
    let replica = model.replica(kind);
    let subject = Subject {
        layers: model.layers(),
        weights: model.trainable_weights(),
        copies: replica.trainable_weights(),
        settings: &model.settings()?,
        objective,
        measures: objective.measures(),
    };
    let make_worker = |train: &Split, held_out: Option<&Split>| -> BoxedWorker<'_> {
        let mut worker = Worker::new(replica.replica(kind), train, held_out);
        Box::new(move |task| worker.run(objective, task))
    };
    let mut watcher = Watching { model, observer };
    run::run(subject, data, config, &make_worker, &mut watcher, earlier)
}

struct Watching<'a, M, O> {
    model: &'a M,
    observer: &'a mut O,
}

impl<M, O: Observer<M>> Watcher for Watching<'_, M, O> {
    fn start(&mut self, plan: &Plan) {
        self.observer.start(plan);
    }

    fn batch(&mut self, plan: &Plan, batch: usize, loss: f64) -> ControlFlow<()> {
        self.observer.batch(plan, self.model, batch, loss)
    }

    fn epoch(&mut self, plan: &Plan, epoch: &Epoch) -> ControlFlow<()> {
        self.observer.epoch(plan, self.model, epoch)
    }
}
