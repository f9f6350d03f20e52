//! The entry points of training: `fit` and `resume` of a [`Network`], and `fit_with` and [`resume`], which know the model's
//! type.

use std::ops::ControlFlow;

use anyhow::{Context, Result, ensure};
use figures::with_home;

use super::config::{self, Fit};
use super::history::{Epoch, History};
use super::objective::{self, Objective, Supervised};
use super::observer::{Observer, PrintLines};
use super::plan::Plan;
use super::run::{self, Subject, Watcher};
use super::state::Checkpoint;
use super::trainable::Trainable;
use super::worker::{BoxedWorker, Worker};
use crate::data::Split;
use crate::network::{Network, trainable_weights};
use crate::objective::Progress;
use crate::pairs::Pairs;

impl Network {
    /// Trains the network on pairs, and prints a line for each epoch: the loss, and on held-out images the loss and a
    /// score, PSNR in decibels for images and accuracy in percent for classes.
    ///
    /// A second `fit` goes on where the first one ended, with the optimizer's state and the next epoch's noise and order of
    /// images; [`compile`](Network::compile) begins anew, but keeps the weights. On one machine the same settings, precision
    /// and threads among them, give the same weights, whatever else is drawn meanwhile; elsewhere they differ by rounding.
    ///
    /// In [`Precision::Mixed`](ops::Precision::Mixed) the convolutions and dense layers compute with a `bfloat16` copy of
    /// the weights; weights, loss and the optimizer's steps are `float32`.
    ///
    /// # Errors
    /// A network that is not compiled, or whose layers are all frozen; a loss or pairs that do not fit the network; settings
    /// that make no sense (each is named with what was expected); a batch that memory cannot hold; a loss or weights that
    /// became NaN or infinite (the network then gets back its best weights with [`Keep::Best`](super::Keep::Best), else
    /// those it came with). After an error of the loss, or a checkpoint that cannot be written, the network keeps its weights
    /// of that moment.
    pub fn fit(&mut self, pairs: &Pairs, fit: &Fit) -> Result<History> {
        match fit.quiet {
            true => self.fit_with(pairs, fit, &mut ()),
            false => self.fit_with(pairs, fit, &mut PrintLines::default()),
        }
    }

    /// [`fit`](Network::fit) with an observer of one's own.
    ///
    /// # Errors
    /// As [`fit`](Network::fit); a [`Fit::checkpoint`] file that exists already, because it would be overwritten.
    pub fn fit_with(
        &mut self,
        pairs: &Pairs,
        fit: &Fit,
        observer: &mut dyn Observer<Network>,
    ) -> Result<History> {
        check_new(fit)?;
        self.trained_on(pairs, fit, observer, None)
    }

    /// Goes on with a training that ended early, from the last epoch that [`Fit::checkpoint`] holds: with the same network,
    /// pairs and settings the result is that of an uninterrupted run.
    ///
    /// # Errors
    /// As [`fit`](Network::fit); settings without a checkpoint, one that cannot be read, or one of another training.
    pub fn resume(
        &mut self,
        pairs: &Pairs,
        fit: &Fit,
        observer: &mut dyn Observer<Network>,
    ) -> Result<History> {
        let checkpoint = checkpoint_of(fit)?;
        self.trained_on(pairs, fit, observer, Some(checkpoint))
    }

    fn trained_on(
        &mut self,
        pairs: &Pairs,
        fit: &Fit,
        observer: &mut dyn Observer<Network>,
        earlier: Option<Checkpoint>,
    ) -> Result<History> {
        let objective = self.objective(pairs, fit)?;
        let mut progress = self.compiled()?.progress.clone();
        let images = pairs.images();
        let history = train(
            self,
            images,
            &objective,
            fit,
            observer,
            &mut progress,
            earlier,
        )?;
        if let Some(compiled) = self.compiled_mut() {
            compiled.progress = progress;
        }
        Ok(history)
    }

    /// What [`fit`](Network::fit) trains for, once network, loss and pairs fit each other.
    pub(super) fn objective(&self, pairs: &Pairs, fit: &Fit) -> Result<Supervised> {
        let compiled = self.compiled()?;
        objective::check(self, &compiled.loss, pairs)?;
        Supervised::of(pairs, compiled.optimizer, compiled.loss, fit.precision)
    }
}

/// Trains a U-Net on the images of a split, with an objective and an observer of one's own, and a new optimizer.
///
/// Each worker computes the loss and the gradients of a part of the batch; the optimizer adds them
/// up. In [`Precision::Mixed`](ops::Precision::Mixed) the workers compute with a `bfloat16` copy of the weights, which the
/// optimizer writes again at every step from the `float32` weights that it keeps.
///
/// # Errors
/// As [`Network::fit`]; a [`Fit::checkpoint`] file that exists already, because it would be overwritten.
pub fn fit_with<M: Trainable>(
    model: &mut M,
    data: &Split,
    objective: &impl Objective<M>,
    fit: &Fit,
    observer: &mut dyn Observer<M>,
) -> Result<History> {
    check_new(fit)?;
    let progress = &mut Progress::default();
    train(model, data, objective, fit, observer, progress, None)
}

/// Goes on with a training of [`fit_with`] that ended early, from the last epoch that [`Fit::checkpoint`] holds: with the same
/// model, data and settings the result is that of an uninterrupted run.
///
/// # Errors
/// As [`fit_with`]; settings without a checkpoint, one that cannot be read, or one of a training with other settings.
pub fn resume<M: Trainable>(
    model: &mut M,
    data: &Split,
    objective: &impl Objective<M>,
    fit: &Fit,
    observer: &mut dyn Observer<M>,
) -> Result<History> {
    let earlier = Some(checkpoint_of(fit)?);
    let progress = &mut Progress::default();
    train(model, data, objective, fit, observer, progress, earlier)
}

/// Is there no training yet where this one keeps its state?
fn check_new(fit: &Fit) -> Result<()> {
    if let Some(path) = &fit.checkpoint {
        ensure!(
            !with_home(path)?.exists(),
            "{} holds a training already: continue it with `resume`, or delete it to start again",
            path.display()
        );
    }
    Ok(())
}

fn checkpoint_of(fit: &Fit) -> Result<Checkpoint> {
    let path = fit.checkpoint.as_ref();
    Checkpoint::read(path.context("there is nothing to resume: the settings name no `checkpoint`")?)
}

/// The part of training that depends on the model. Generic code is compiled again in every cell that trains,
/// so this part is small; [`run::run`] is compiled once.
fn train<M: Trainable>(
    model: &mut M,
    data: &Split,
    objective: &impl Objective<M>,
    fit: &Fit,
    observer: &mut dyn Observer<M>,
    progress: &mut Progress,
    earlier: Option<Checkpoint>,
) -> Result<History> {
    config::check(fit, data)?;
    let kind = fit.precision.kind();
    let replica = model.replica(kind);
    let subject = Subject {
        layers: model.layers(),
        copies: trainable_weights(replica.layers()),
        description: &model.description()?,
        objective,
        measures: objective.measures(),
        optimizer: objective.optimizer(),
    };
    let make_worker = |train: &Split, held_out: Option<&Split>| -> BoxedWorker<'_> {
        let mut worker = Worker::new(replica.replica(kind), train, held_out);
        Box::new(move |task| worker.run(objective, task))
    };
    let mut watcher = Watching { model, observer };
    run::run(
        subject,
        data,
        fit,
        &make_worker,
        &mut watcher,
        progress,
        earlier,
    )
}

struct Watching<'a, M> {
    model: &'a M,
    observer: &'a mut dyn Observer<M>,
}

impl<M> Watcher for Watching<'_, M> {
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
