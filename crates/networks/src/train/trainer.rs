//! The training loop.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Error, Result, anyhow, ensure};
use ops::pool::{Pool, with_pool, workers};
use ops::{check_memory, is_stop_asked};
use tch::{Kind, Tensor};

use super::config::{self, Fit, Keep};
use super::history::{Epoch, History, Plan, Validation};
use super::model::{Data, Model};
use super::observer::Observer;
use super::optimizing::Optimizing;
use super::state::{Checkpoint, State};
use super::worker::{Output, Task, Worker};
use crate::network::{NamedLayer, activations, trainable_weights};
use crate::objective::{Compiled, Progress};
use crate::rng::Rng;

/// How many held-out images a worker evaluates at once.
const VALIDATION_BATCH: usize = 250;

/// By how much weights are off, on average, where a loss is tried.
const PERTURBATION: f64 = 0.05;

/// A training that is ready to run: everything about it was checked.
pub(super) struct Trainer<M: Model> {
    /// Shares its weights with the network that is trained.
    model: M,
    /// The network that workers compute with, in the training's precision.
    replica: M,
    loss: M::Loss,
    train: M::Data,
    held_out: Option<M::Data>,
    fit: Fit,
    plan: Plan,
    state: State,
}

type Workers = Pool<Task, Result<Output>>;

impl<M: Model> Trainer<M> {
    /// A training of this network, which goes on from what it was trained before.
    ///
    /// # Errors
    /// Network, loss, data and settings that do not fit each other, each named with the fix.
    pub(super) fn new(model: &M, data: &M::Data, fit: &Fit) -> Result<Trainer<M>> {
        let compiled = compiled(model)?;
        model.check(compiled.loss, data)?;
        config::check(fit, data.len())?;
        compiled.optimizer.check()?;
        let learnt_from = data.len() - fit.validation;
        let train = data.part(0..learnt_from);
        let held_out = (fit.validation > 0).then(|| data.part(learnt_from..data.len()));
        let layers = model.layers();
        let trained = layers.iter().filter(|layer| layer.is_trainable());
        ensure!(
            trained.map(NamedLayer::parameters).sum::<usize>() > 0,
            "nothing to train: every layer that holds weights is frozen; unfreeze some first"
        );
        ensure!(
            fit.batch_size <= train.len(),
            "the batch size is {}; expected at most the {} images to train on",
            fit.batch_size,
            train.len(),
        );
        let kind = fit.precision.kind();
        check_memory(fit.batch_size, activations(layers), kind)?;
        let replica = model.worker(kind);
        let copies = match kind {
            Kind::Float => vec![],
            _ => trainable_weights(replica.layers()),
        };
        let mut optimizing = Optimizing::new(compiled.optimizer, layers, copies, fit.threads)?;
        if let Some(before) = &compiled.progress.state {
            optimizing.restore_state(before)?;
        }
        let plan = Plan {
            epochs: fit.epochs,
            batches: train.len().div_ceil(fit.batch_size),
            images: train.len(),
            validation: fit.validation,
            precision: fit.precision,
            measures: M::measures(compiled.loss, data),
        };
        let trainer = Trainer {
            state: State::new(optimizing, fit, plan, compiled.progress.epochs),
            model: model.shared(),
            replica,
            loss: compiled.loss,
            train,
            held_out,
            fit: fit.clone(),
            plan,
        };
        if M::is_own(compiled.loss) {
            let epoch = trainer.state.first_epoch as u64;
            let first = &trainer.order(epoch)[..fit.batch_size];
            trainer.perturbed(kind).check_own_loss(first, epoch)?;
        }
        Ok(trainer)
    }

    /// Goes on from a checkpoint of the same training.
    pub(super) fn restore(&mut self, checkpoint: Checkpoint) -> Result<()> {
        self.state.restore(checkpoint)
    }

    /// Writes the state of this moment.
    pub(super) fn save(&self, path: &Path) -> Result<()> {
        self.state.save(path)
    }

    /// Loss and size of the gradients for the first images, in `float32`: they tell losses and data sets apart.
    pub(super) fn probe(&self) -> Result<[f64; 2]> {
        self.perturbed(Kind::Float).probe()
    }

    /// A worker with a copy of the network whose weights are a little off. In a network as it begins many weights may be zero,
    /// and then the loss does not depend on much that is wrong with it.
    fn perturbed(&self, kind: Kind) -> Worker<M> {
        let mut copy = self.model.clone();
        let mut rng = Rng::new(0);
        for (_, weight) in copy
            .layers_mut()
            .iter_mut()
            .flat_map(|layer| &mut layer.weights)
        {
            let off = rng.normal(&weight.size()) * PERTURBATION;
            *weight = (weight.detach() + off).set_requires_grad(weight.requires_grad());
        }
        Worker {
            model: copy.worker(kind),
            ..self.worker(kind)
        }
    }

    /// How far the training has come.
    pub(super) fn progress(&self) -> Progress {
        Progress {
            epochs: self.state.first_epoch + self.state.history.epochs.len(),
            state: Some(self.state.optimizing.state()),
        }
    }

    /// The numbers so far.
    pub(super) fn history(&self) -> &History {
        &self.state.history
    }

    fn worker(&self, kind: Kind) -> Worker<M> {
        Worker {
            model: self.replica.worker(kind),
            loss: self.loss,
            train: self.train.part(0..self.train.len()),
            held_out: self.held_out.as_ref().map(|data| data.part(0..data.len())),
            seed: self.fit.seed,
        }
    }

    /// The order of the images in an epoch.
    fn order(&self, epoch: u64) -> Vec<i64> {
        Rng::stream(self.fit.seed, &[epoch]).permutation(self.plan.images)
    }

    /// Trains: every epoch, from the first one or from where an earlier run ended. Each epoch leaves its state in
    /// `checkpoint`.
    pub(super) fn run(
        &mut self,
        checkpoint: Option<&Path>,
        observer: &mut dyn Observer,
    ) -> Result<History> {
        let (kind, threads) = (self.fit.precision.kind(), self.fit.threads);
        let workers: Vec<Worker<M>> = (0..workers(threads)).map(|_| self.worker(kind)).collect();
        let count = workers.len();
        with_pool(
            workers,
            threads,
            |worker, task| worker.run(task),
            |pool| self.all_epochs((pool, count), checkpoint, observer),
        )?;
        Ok(self.state.history.clone())
    }

    fn all_epochs(
        &mut self,
        pool: (&Workers, usize),
        checkpoint: Option<&Path>,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let plan = self.plan;
        let first = self.state.optimizing.copy_weights();
        let mut unsaved = None;
        observer.start(&plan);
        for epoch in self.state.history.epochs.len()..plan.epochs {
            let started = Instant::now();
            let (loss, flow) = self.epoch(pool, observer, epoch, &first)?;
            if !self.state.optimizing.is_finite() {
                return Err(self.diverged(&first, "weights are not finite"));
            }
            // From here on the model is what it would be if the training ended now.
            self.state.swap_average()?;
            let validation = self.validate(pool)?;
            if let Some(Validation { loss, .. }) = validation
                && !loss.is_finite()
            {
                return Err(self.diverged(&first, &format!("validation loss is {loss}")));
            }
            let epoch = Epoch {
                number: epoch + 1,
                loss,
                validation,
                seconds: started.elapsed().as_secs_f64(),
            };
            let state = &mut self.state;
            if let (Keep::Best, Some(now)) = (self.fit.keep, epoch.validation)
                && state.best.as_ref().is_none_or(|(loss, _)| now.loss < *loss)
            {
                state.best = Some((now.loss, state.optimizing.copy_weights()));
            }
            let told = observer.epoch(&plan, &epoch);
            state.swap_average()?;
            state.history.epochs.push(epoch);
            state.history.stopped = flow.is_break() || told.is_break() || is_stop_asked();
            // An epoch that was cut short is not saved: a resumed run would miss the rest of it.
            if let (Some(path), ControlFlow::Continue(())) = (checkpoint, flow) {
                unsaved = state.save(path).err();
            }
            if state.history.stopped || unsaved.is_some() {
                break;
            }
        }
        match self.state.best.take() {
            Some((_, weights)) => self.state.optimizing.restore_weights(&weights)?,
            None => self.state.swap_average()?,
        }
        if let Some(error) = unsaved {
            return Err(error.context("training ended here"));
        }
        Ok(())
    }

    /// Goes through all images once: the mean loss, and whether the observer lets it go on.
    fn epoch(
        &mut self,
        pool: (&Workers, usize),
        observer: &mut dyn Observer,
        epoch: usize,
        first: &[Tensor],
    ) -> Result<(f64, ControlFlow<()>)> {
        let plan = self.plan;
        // Counted over all trainings since the network was compiled: the next one sees other noise in another order.
        let epoch = (self.state.first_epoch + epoch) as u64;
        let (mut sum, mut seen) = (0.0, 0);
        for batch in self.order(epoch).chunks(self.fit.batch_size) {
            let (loss, gradients) = gradients(pool, batch, epoch)?;
            let state = &mut self.state;
            let losses = &mut state.history.batch_losses;
            losses.push(loss);
            let steps = losses.len();
            if !loss.is_finite() {
                return Err(self.diverged(first, &format!("loss is {loss}")));
            }
            let done = (steps - 1) as f64 / (plan.epochs * plan.batches) as f64;
            let factor = self.fit.decay(done);
            state.optimizing.step(&gradients, factor)?;
            if let Some(average) = &mut state.average {
                average.update(&state.optimizing.weights(), steps);
            }
            sum += loss * batch.len() as f64;
            seen += batch.len();
            if observer.batch(&plan, steps, loss).is_break() || is_stop_asked() {
                return Ok((sum / seen as f64, ControlFlow::Break(())));
            }
        }
        Ok((sum / seen as f64, ControlFlow::Continue(())))
    }

    /// The error of a training that has diverged. The network gets back its best weights, or its first.
    fn diverged(&mut self, first: &[Tensor], what: &str) -> Error {
        let State {
            best, optimizing, ..
        } = &mut self.state;
        let good = best.as_ref().map_or(first, |(_, weights)| weights);
        if let Err(error) = optimizing.restore_weights(good) {
            return error;
        }
        anyhow!(
            "the {what} after {} batches: training has diverged; try a learning rate below {}",
            self.state.history.batch_losses.len(),
            self.state.optimizing.learning_rate(),
        )
    }

    /// Mean loss and score over all held-out images, if there are any and nobody asks for an end.
    fn validate(&self, (pool, workers): (&Workers, usize)) -> Result<Option<Validation>> {
        let held_out: Vec<i64> = (0..self.plan.validation as i64).collect();
        if held_out.is_empty() {
            return Ok(None);
        }
        let (mut loss, mut score) = (0.0, Some(0.0));
        let batches: Vec<&[i64]> = held_out.chunks(VALIDATION_BATCH).collect();
        for turn in batches.chunks(workers) {
            if is_stop_asked() {
                return Ok(None);
            }
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

/// What a model is compiled with.
pub(super) fn compiled<M: Model>(model: &M) -> Result<&Compiled<M::Loss>> {
    model.compiled().with_context(|| {
        format!(
            "this network is not compiled: choose an optimizer and a loss first, for example {}",
            M::how_to_compile()
        )
    })
}

/// The mean loss of a batch, and from each worker the gradients of its part.
fn gradients(
    (pool, workers): (&Workers, usize),
    batch: &[i64],
    epoch: u64,
) -> Result<(f64, Vec<Vec<Tensor>>)> {
    let parts = batch.chunks(batch.len().div_ceil(workers));
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
