//! The training loop.

use std::fmt;
use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::{Error, Result, anyhow, ensure};
use ops::check_memory;
use ops::pool::{Pool, with_pool, workers};
use tch::{Kind, Tensor};

use super::config::{Fit, Keep};
use super::history::{Epoch, History};
use super::objective::{Measures, Validation};
use super::optimizing::Optimizing;
use super::plan::Plan;
use super::state::{self, Checkpoint, State};
use super::worker::{BoxedWorker, Output, Task};
use crate::data::Split;
use crate::network::{NamedLayer, activations};
use crate::objective::{Optimizer, Progress};
use crate::rng::Rng;

/// How many held-out images a worker evaluates at once.
const VALIDATION_BATCH: usize = 250;

/// What a run trains, and with which objective.
pub(super) struct Subject<'a> {
    pub(super) layers: &'a [NamedLayer],
    /// The weights that training may change, in the training's kind.
    pub(super) copies: Vec<Tensor>,
    /// What the model was built from, as JSON.
    pub(super) description: &'a str,
    pub(super) objective: &'a dyn fmt::Debug,
    pub(super) measures: Measures,
    pub(super) optimizer: Optimizer,
}

/// An observer together with the model that it sees.
pub(super) trait Watcher {
    fn start(&mut self, plan: &Plan);
    fn batch(&mut self, plan: &Plan, batch: usize, loss: f64) -> ControlFlow<()>;
    fn epoch(&mut self, plan: &Plan, epoch: &Epoch) -> ControlFlow<()>;
}

/// Trains: every epoch, from the first one or from where an earlier run ended.
pub(super) fn run<'a>(
    subject: Subject,
    data: &Split,
    config: &Fit,
    make_worker: &dyn Fn(&Split, Option<&Split>) -> BoxedWorker<'a>,
    watcher: &mut dyn Watcher,
    progress: &mut Progress,
    earlier: Option<Checkpoint>,
) -> Result<History> {
    subject.optimizer.check()?;
    let (train, held_out) = match config.validation {
        0 => (data.shallow_clone(), None),
        n => data
            .hold_out(n)
            .map(|(train, held_out)| (train, Some(held_out)))?,
    };
    let trained = subject.layers.iter().filter(|layer| layer.is_trainable());
    ensure!(
        trained.map(NamedLayer::parameters).sum::<usize>() > 0,
        "nothing to train: every layer that holds weights is frozen; unfreeze some first"
    );
    ensure!(
        config.batch_size <= train.len(),
        "the batch size is {}; expected at most the {} images to train on",
        config.batch_size,
        train.len(),
    );
    let kind = config.precision.kind();
    check_memory(config.batch_size, activations(subject.layers), kind)?;
    let copies = match kind {
        Kind::Float => vec![],
        _ => subject.copies,
    };
    let workers: Vec<BoxedWorker> = (0..workers(config.threads))
        .map(|_| make_worker(&train, held_out.as_ref()))
        .collect();
    let plan = Plan {
        epochs: config.epochs,
        batches: train.len().div_ceil(config.batch_size),
        images: train.len(),
        validation: config.validation,
        precision: config.precision,
        measures: subject.measures,
    };
    let (layers, objective) = (subject.layers, subject.objective);
    let run = Run {
        plan,
        workers: workers.len(),
        config,
        settings: state::settings(subject.description, layers, config, objective, &plan),
    };
    with_pool(
        workers,
        config.threads,
        |worker, task| worker(task),
        |pool| {
            let mut optimizing =
                Optimizing::new(subject.optimizer, layers, copies, config.threads)?;
            if let Some(before) = &progress.state {
                optimizing.restore_state(before)?;
            }
            let mut state = State::new(optimizing, config, plan, progress.epochs);
            if let Some(checkpoint) = earlier {
                state.restore(checkpoint, &run.settings)?;
            }
            run.all_epochs(pool, &mut state, watcher)?;
            *progress = Progress {
                epochs: state.first_epoch + state.history.epochs.len(),
                state: Some(state.optimizing.state()),
            };
            Ok(state.history)
        },
    )
}

/// What stays the same while a training runs.
struct Run<'a> {
    plan: Plan,
    workers: usize,
    config: &'a Fit,
    /// What a checkpoint must have been made with to be this training's.
    settings: String,
}

type Workers = Pool<Task, Result<Output>>;

impl Run<'_> {
    fn all_epochs(
        &self,
        pool: &Workers,
        state: &mut State,
        watcher: &mut dyn Watcher,
    ) -> Result<()> {
        let (config, plan) = (self.config, &self.plan);
        let first = state.optimizing.copy_weights();
        if let (Some(path), true) = (&config.checkpoint, state.history.epochs.is_empty()) {
            // A training that ends within its first epoch can then be resumed, too; and a path that cannot be
            // written to is found now and not after an epoch.
            state.save(path, &self.settings)?;
        }
        let mut unsaved = None;
        watcher.start(plan);
        for epoch in state.history.epochs.len()..config.epochs {
            let started = Instant::now();
            let (loss, flow) = self.epoch(pool, state, watcher, epoch, &first)?;
            if !state.optimizing.is_finite() {
                let batches = state.history.batch_losses.len();
                let what = "weights are not finite";
                return Err(self.diverged(state, &first, what, batches));
            }
            // From here on the model is what it would be if the training ended now.
            state.swap_average()?;
            let validation = self.validate(pool)?;
            if let Some(Validation { loss, .. }) = validation
                && !loss.is_finite()
            {
                let batches = state.history.batch_losses.len();
                let what = format!("validation loss is {loss}");
                return Err(self.diverged(state, &first, &what, batches));
            }
            let epoch = Epoch {
                number: epoch + 1,
                loss,
                validation,
                seconds: started.elapsed().as_secs_f64(),
            };
            if let (Keep::Best, Some(now)) = (config.keep, epoch.validation)
                && state.best.as_ref().is_none_or(|(loss, _)| now.loss < *loss)
            {
                state.best = Some((now.loss, state.optimizing.copy_weights()));
            }
            let told = watcher.epoch(plan, &epoch);
            state.swap_average()?;
            state.history.epochs.push(epoch);
            state.history.stopped = flow.is_break() || told.is_break();
            // An epoch that was cut short is not saved: a resumed run would miss the rest of it.
            if let (Some(path), ControlFlow::Continue(())) = (&config.checkpoint, flow) {
                unsaved = state.save(path, &self.settings).err();
            }
            if state.history.stopped || unsaved.is_some() {
                break;
            }
        }
        match state.best.take() {
            Some((_, weights)) => state.optimizing.restore_weights(&weights)?,
            None => state.swap_average()?,
        }
        if let Some(error) = unsaved {
            return Err(
                error.context("training ended here; the model keeps its weights of this moment")
            );
        }
        Ok(())
    }

    /// Goes through all images once: the mean loss, and whether the observer lets it go on.
    fn epoch(
        &self,
        pool: &Workers,
        state: &mut State,
        watcher: &mut dyn Watcher,
        epoch: usize,
        first: &[Tensor],
    ) -> Result<(f64, ControlFlow<()>)> {
        let (config, plan) = (self.config, &self.plan);
        // Counted over all trainings since the network was compiled: the next one sees other noise in another order.
        let epoch = (state.first_epoch + epoch) as u64;
        let order = Rng::stream(config.seed, &[epoch]).permutation(plan.images);
        let (mut sum, mut seen) = (0.0, 0);
        for batch in order.chunks(config.batch_size) {
            let (loss, gradients) = self.gradients(pool, batch, epoch)?;
            if !loss.is_finite() {
                let batches = state.history.batch_losses.len() + 1;
                return Err(self.diverged(state, first, &format!("loss is {loss}"), batches));
            }
            let losses = &mut state.history.batch_losses;
            let done = losses.len() as f64 / (plan.epochs * plan.batches) as f64;
            let factor = config.learning_rate_schedule.factor(done);
            state.optimizing.step(&gradients, factor)?;
            losses.push(loss);
            let steps = losses.len();
            if let Some(average) = &mut state.average {
                average.update(&state.optimizing.weights(), steps);
            }
            sum += loss * batch.len() as f64;
            seen += batch.len();
            if watcher.batch(plan, steps, loss).is_break() {
                return Ok((sum / seen as f64, ControlFlow::Break(())));
            }
        }
        Ok((sum / seen as f64, ControlFlow::Continue(())))
    }

    /// The error of a training that has diverged. The network gets back its best weights, or its first.
    fn diverged(&self, state: &mut State, first: &[Tensor], what: &str, batches: usize) -> Error {
        let good = state.best.as_ref().map_or(first, |(_, weights)| weights);
        if let Err(error) = state.optimizing.restore_weights(good) {
            return error;
        }
        anyhow!(
            "the {what} after {batches} batches: training has diverged; try a learning rate below {}",
            state.optimizing.learning_rate(),
        )
    }

    /// The mean loss of a batch, and from each worker the gradients of its part.
    fn gradients(
        &self,
        pool: &Workers,
        batch: &[i64],
        epoch: u64,
    ) -> Result<(f64, Vec<Vec<Tensor>>)> {
        let parts = batch.chunks(batch.len().div_ceil(self.workers));
        let outputs = pool.run(parts.map(|part| Task::Train {
            batch: part.to_vec(),
            share: part.len() as f64 / batch.len() as f64,
            epoch,
        }))?;
        let (mut loss, mut gradients) = (0.0, Vec::with_capacity(outputs.len()));
        for output in outputs {
            let output = output?;
            loss += output.loss;
            gradients.push(output.gradients);
        }
        Ok((loss, gradients))
    }

    /// Mean loss and score over all held-out images, if there are any.
    fn validate(&self, pool: &Workers) -> Result<Option<Validation>> {
        let held_out: Vec<i64> = (0..self.plan.validation as i64).collect();
        if held_out.is_empty() {
            return Ok(None);
        }
        let (mut loss, mut score) = (0.0, Some(0.0));
        let batches: Vec<&[i64]> = held_out.chunks(VALIDATION_BATCH).collect();
        for turn in batches.chunks(self.workers) {
            let outputs = pool.run(turn.iter().map(|batch| Task::Validate(batch.to_vec())))?;
            for (output, batch) in outputs.into_iter().zip(turn) {
                let (output, images) = (output?, batch.len() as f64);
                loss += output.loss * images;
                score = score
                    .zip(output.score)
                    .map(|(sum, score)| sum + score * images);
            }
        }
        let images = held_out.len() as f64;
        Ok(Some(Validation {
            loss: loss / images,
            score: score.map(|score| score / images),
        }))
    }
}
