//! Training: one loop, for any model and any objective.

mod adam;
mod average;
mod background;
mod checkpoint;
mod config;
mod history;
mod learner;
mod noise_prediction;
mod objective;
mod panel;

use std::fmt;
use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::{Context, Error, Result, anyhow, ensure};
use tch::{Kind, Tensor};

use crate::crew::{Crew, hands, with_crew};
use crate::data::Split;
use crate::denoiser::Denoiser;
use crate::memory::check_memory;
use crate::model::{Layer, Model, activations};
use crate::precision::Precision;
use crate::rng::Rng;

use adam::Adam;
use average::Average;
pub use background::{Training, digits_drawn, fit_in_background, fit_with_in_background};
use checkpoint::Checkpoint;
pub use config::{Decay, FitConfig, Keep, Noise};
pub use history::{Epoch, History, PrintLines};
use learner::{Answer, Hand, Job, Learner};
pub use noise_prediction::NoisePrediction;
pub use objective::{Classification, Denoising, Measures, Objective, Validation};
pub use panel::Panel;

/// How many held-out images a thread judges at once.
const VALIDATION_BATCH: usize = 250;

/// Watches a training of a model `M` and may end it: `ControlFlow::Break` stops it after the current
/// batch. It sees the model as it is then, and may try it out.
pub trait Observer<M> {
    /// Called once, before the first batch.
    fn start(&mut self, _plan: &Plan) {}

    /// Called after every batch with its number, counted from 1 over all epochs, and its loss. The model
    /// has the weights of this moment, also where an average is kept.
    fn batch(&mut self, _plan: &Plan, _model: &M, _batch: usize, _loss: f64) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// Called after every epoch, validation included. Where an average of the weights is kept, the model has it.
    fn epoch(&mut self, _plan: &Plan, _model: &M, _epoch: &Epoch) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Watches in silence.
impl<M> Observer<M> for () {}

/// How much work a training is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Epochs in all.
    pub epochs: usize,
    /// Batches in an epoch, the last partial one included.
    pub batches: usize,
    /// Images to learn from.
    pub images: usize,
    /// Images held out.
    pub validation: usize,
    /// The precision.
    pub precision: Precision,
    /// What loss and score are called.
    pub measures: Measures,
}

/// Trains a model to turn noisy images into the originals, and prints a line for each epoch.
///
/// Adam (Kingma & Ba 2015) on the layers that are trainable, with a new optimizer each time, as
/// after Keras's `compile`. On one machine the same settings, precision and threads among them, give the same
/// weights, whatever else is drawn meanwhile; elsewhere they differ by rounding.
///
/// # Errors
/// Settings that make no sense (each is named with what was expected), a model whose layers are
/// all frozen, a batch that memory cannot hold, or a loss that stopped being a number (the model then
/// gets back its best weights with [`Keep::Best`], else those it came with). After another error of the
/// objective, or a checkpoint that cannot be written, the model keeps what it has learnt so far.
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
/// Each thread computes the loss and the gradients of a part of the batch; the optimizer adds them
/// up. In [`Precision::Mixed`] the threads work with a `bfloat16` copy of the weights, which the
/// optimizer writes anew at every step from the `float32` weights that it keeps.
///
/// # Errors
/// As [`fit`]; a [`FitConfig::checkpoint`] that is there already, for it would be lost.
pub fn fit_with<M: Model>(
    model: &mut M,
    data: &Split,
    objective: &impl Objective<M>,
    config: &FitConfig,
    observer: &mut impl Observer<M>,
) -> Result<History> {
    if let Some(path) = &config.checkpoint {
        ensure!(
            !path.exists(),
            "{} holds a training already: go on with it by `resume`, or delete it to begin anew",
            path.display()
        );
    }
    train(model, data, objective, config, observer, None)
}

/// Goes on with a training that ended before its time, from the last epoch that
/// [`FitConfig::checkpoint`] holds: with the same model, data and settings the result is that of an unbroken run.
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

/// The part of [`fit_with`] that depends on the model. What is generic is compiled anew in every cell that
/// trains, so it is as little as can be; [`run`] is compiled once.
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
    let hire = |train: &Split, held_out: Option<&Split>| -> Hand<'_> {
        let mut learner = Learner::new(replica.replica(kind), train, held_out);
        Box::new(move |job| learner.answer(objective, job))
    };
    let mut watcher = Watching { model, observer };
    run(subject, data, config, &hire, &mut watcher, earlier)
}

/// What is trained, and for what.
struct Subject<'a> {
    layers: &'a [Layer],
    /// Those that training may change.
    weights: Vec<Tensor>,
    /// The same in the training's kind.
    copies: Vec<Tensor>,
    /// What the model was built from, as JSON.
    settings: &'a str,
    objective: &'a dyn fmt::Debug,
    measures: Measures,
}

/// An observer with the model that it is shown.
trait Watcher {
    fn start(&mut self, plan: &Plan);
    fn batch(&mut self, plan: &Plan, batch: usize, loss: f64) -> ControlFlow<()>;
    fn epoch(&mut self, plan: &Plan, epoch: &Epoch) -> ControlFlow<()>;
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

fn run<'a>(
    subject: Subject,
    data: &Split,
    config: &FitConfig,
    hire: &dyn Fn(&Split, Option<&Split>) -> Hand<'a>,
    watcher: &mut dyn Watcher,
    earlier: Option<Checkpoint>,
) -> Result<History> {
    let (train, held_out) = match config.validation {
        0 => (data.shallow_clone(), None),
        n => data
            .hold_out(n)
            .map(|(train, held_out)| (train, Some(held_out)))?,
    };
    let weights = subject.weights;
    ensure!(
        weights.iter().any(|weight| weight.numel() > 0),
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
    let crew: Vec<Hand> = (0..hands(config.threads))
        .map(|_| hire(&train, held_out.as_ref()))
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
        hands: crew.len(),
        config,
        settings: checkpoint::settings(subject.settings, layers, config, objective, &plan),
    };
    with_crew(
        crew,
        config.threads,
        |hand, job| hand(job),
        |crew| {
            let mut state = State::new(Adam::new(weights, copies, config.threads)?, config, plan);
            if let Some(checkpoint) = earlier {
                state.restore(checkpoint, &run.settings)?;
            }
            run.through(crew, state, watcher)
        },
    )
}

/// What stays the same while a training runs.
struct Run<'a> {
    plan: Plan,
    hands: usize,
    config: &'a FitConfig,
    /// What a checkpoint must have been made with to be this training's.
    settings: String,
}

/// What changes.
struct State {
    adam: Adam,
    average: Option<Average>,
    history: History,
    /// The lowest validation loss and its weights.
    best: Option<(f64, Vec<Tensor>)>,
}

impl State {
    fn new(adam: Adam, config: &FitConfig, plan: Plan) -> State {
        let average = |decay| Average::new(decay, adam.copy_weights());
        State {
            average: config.average.map(average),
            history: History::new(plan),
            best: None,
            adam,
        }
    }

    /// Exchanges the weights and their average, if there is one.
    fn exchange(&mut self) {
        if let Some(average) = &mut self.average {
            let weights = self.adam.copy_weights();
            self.adam.restore_weights(&average.weights);
            average.weights = weights;
        }
    }
}

type Workers = Crew<Job, Result<Answer>>;

impl Run<'_> {
    fn through(
        &self,
        crew: &Workers,
        mut state: State,
        watcher: &mut dyn Watcher,
    ) -> Result<History> {
        let (config, plan) = (self.config, &self.plan);
        let first = state.adam.copy_weights();
        if let (Some(path), true) = (&config.checkpoint, state.history.epochs.is_empty()) {
            // So that a training that ends within its first epoch can be gone on with as well, and that a place
            // that cannot be written to is found now and not after an epoch.
            state.save(path, &self.settings)?;
        }
        let mut unsaved = None;
        watcher.start(plan);
        for epoch in state.history.epochs.len()..config.epochs {
            let started = Instant::now();
            let (loss, flow) = self.epoch(crew, &mut state, watcher, epoch, &first)?;
            if !state.adam.is_finite() {
                let batches = state.history.batch_losses.len();
                let what = "weights are no numbers any more";
                return Err(self.diverged(&mut state, &first, what, batches));
            }
            // From here on the model is what it would be if the training ended now.
            state.exchange();
            let epoch = Epoch {
                number: epoch + 1,
                loss,
                validation: self.validate(crew)?,
                seconds: started.elapsed().as_secs_f64(),
            };
            if let (Keep::Best, Some(now)) = (config.keep, epoch.validation)
                && now.loss.is_finite()
                && state.best.as_ref().is_none_or(|(loss, _)| now.loss < *loss)
            {
                state.best = Some((now.loss, state.adam.copy_weights()));
            }
            let told = watcher.epoch(plan, &epoch);
            state.exchange();
            state.history.epochs.push(epoch);
            state.history.stopped = flow.is_break() || told.is_break();
            // An epoch that was cut short would be missing from a run that goes on.
            if let (Some(path), ControlFlow::Continue(())) = (&config.checkpoint, flow) {
                unsaved = state.save(path, &self.settings).err();
            }
            if state.history.stopped || unsaved.is_some() {
                break;
            }
        }
        match state.best.take() {
            Some((_, weights)) => state.adam.restore_weights(&weights),
            None => state.exchange(),
        }
        if let Some(error) = unsaved {
            return Err(
                error.context("training ended here, and the model keeps what it has learnt")
            );
        }
        Ok(state.history)
    }

    /// Goes through all images once: the mean loss, and whether the observer lets it go on.
    fn epoch(
        &self,
        crew: &Workers,
        state: &mut State,
        watcher: &mut dyn Watcher,
        epoch: usize,
        first: &[Tensor],
    ) -> Result<(f64, ControlFlow<()>)> {
        let (config, plan) = (self.config, &self.plan);
        let order = Rng::stream(config.seed, &[epoch as u64]).permutation(plan.images);
        let (mut sum, mut seen) = (0.0, 0);
        for batch in order.chunks(config.batch_size) {
            let (loss, gradients) = self.learn(crew, batch, epoch as u64)?;
            if !loss.is_finite() {
                let batches = state.history.batch_losses.len() + 1;
                return Err(self.diverged(state, first, &format!("loss is {loss}"), batches));
            }
            let losses = &mut state.history.batch_losses;
            let done = losses.len() as f64 / (plan.epochs * plan.batches) as f64;
            let rate = config.learning_rate * config.decay.factor(done);
            state.adam.step(&gradients, rate);
            losses.push(loss);
            let steps = losses.len();
            if let Some(average) = &mut state.average {
                average.update(state.adam.weights(), steps);
            }
            sum += loss * batch.len() as f64;
            seen += batch.len();
            if watcher.batch(plan, steps, loss).is_break() {
                return Ok((sum / seen as f64, ControlFlow::Break(())));
            }
        }
        Ok((sum / seen as f64, ControlFlow::Continue(())))
    }

    /// A network is never left in ruins: it gets back its best weights, or its first.
    fn diverged(&self, state: &mut State, first: &[Tensor], what: &str, batches: usize) -> Error {
        let sound = state.best.as_ref().map_or(first, |(_, weights)| weights);
        state.adam.restore_weights(sound);
        anyhow!(
            "the {what} after {batches} batches: training has diverged; try a learning rate below {}",
            self.config.learning_rate,
        )
    }

    /// The mean loss of a batch, and from each thread the gradients of its part.
    fn learn(&self, crew: &Workers, batch: &[i64], epoch: u64) -> Result<(f64, Vec<Vec<Tensor>>)> {
        let parts = batch.chunks(batch.len().div_ceil(self.hands));
        let answers = crew.work(parts.map(|part| Job::Learn {
            batch: part.to_vec(),
            share: part.len() as f64 / batch.len() as f64,
            epoch,
        }))?;
        let (mut loss, mut gradients) = (0.0, Vec::with_capacity(answers.len()));
        for answer in answers {
            let answer = answer?;
            loss += answer.loss;
            gradients.push(answer.gradients);
        }
        Ok((loss, gradients))
    }

    /// Mean loss and score over all held-out images, if there are any.
    fn validate(&self, crew: &Workers) -> Result<Option<Validation>> {
        let held_out: Vec<i64> = (0..self.plan.validation as i64).collect();
        if held_out.is_empty() {
            return Ok(None);
        }
        let (mut loss, mut score) = (0.0, Some(0.0));
        let batches: Vec<&[i64]> = held_out.chunks(VALIDATION_BATCH).collect();
        for turn in batches.chunks(self.hands) {
            let answers = crew.work(turn.iter().map(|batch| Job::Judge(batch.to_vec())))?;
            for (answer, batch) in answers.into_iter().zip(turn) {
                let (answer, images) = (answer?, batch.len() as f64);
                loss += answer.loss * images;
                score = score
                    .zip(answer.score)
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
