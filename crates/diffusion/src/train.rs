//! Training: one loop, for any model and any objective.

mod adam;
mod history;

use std::fmt;
use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use tch::{Kind, Tensor};

use crate::data::Split;
use crate::metrics::{binary_cross_entropy, noisy_batches, psnr};
use crate::model::Model;
use crate::noise::{check_level, corrupt, noise_of};
use crate::rng::Rng;

use adam::Adam;
pub use history::{Epoch, History, PrintLines};

/// Settings of [`fit`]. A cell states only what differs from the defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct FitConfig {
    /// How many times to go through the images (default 1).
    pub epochs: usize,
    /// How many images to learn from at once (default 128).
    pub batch_size: usize,
    /// Adam's step size (default 1e-3).
    pub learning_rate: f64,
    /// Strength of the noise that is added, as in [`add_noise`](crate::noise::add_noise) (default 0.5).
    pub noise: f64,
    /// Whether each epoch draws its noise anew (default [`Noise::Fresh`]).
    pub draw: Noise,
    /// How many images, the last of the split, to hold out and judge by after each epoch; 0 for
    /// none (default 5,000).
    pub validation: usize,
    /// Which weights to end with (default [`Keep::Last`]).
    pub keep: Keep,
    /// In which precision to compute (default: [`Precision::of_this_cpu`]).
    pub precision: Precision,
    /// The seed of the order of the images and of their noise (default 42). Who trains on with a
    /// second `fit` gives it another seed, else the same noise comes again.
    pub seed: u64,
    /// Whether to print nothing (default false: a line for each epoch).
    pub quiet: bool,
}

impl Default for FitConfig {
    fn default() -> FitConfig {
        FitConfig {
            epochs: 1,
            batch_size: 128,
            learning_rate: 1e-3,
            noise: 0.5,
            draw: Noise::Fresh,
            validation: 5_000,
            keep: Keep::Last,
            precision: Precision::of_this_cpu(),
            seed: 42,
            quiet: false,
        }
    }
}

/// Whether each epoch draws its noise anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noise {
    /// Each epoch draws new noise, so the network never sees a noisy image twice and cannot
    /// learn noise by heart. The default: it costs nothing and generalises better.
    Fresh,
    /// Each image keeps its noise in all epochs, as when the noisy images are made once before training.
    Fixed,
}

/// Which weights a training ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Those after the last epoch.
    Last,
    /// Those of the epoch with the lowest validation loss.
    Best,
}

/// The precision in which a network computes while it learns. Its weights are `float32` in either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Everything in `float32`.
    Float32,
    /// Layers compute in `bfloat16` (8 significant bits), the loss and the weights' updates in
    /// `float32`: about twice as fast where the CPU has instructions for it.
    Mixed,
}

impl Precision {
    /// Mixed where the CPU computes in `bfloat16` itself, `float32` elsewhere.
    pub fn of_this_cpu() -> Precision {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx512bf16") {
            return Precision::Mixed;
        }
        Precision::Float32
    }

    /// The kind of tensor that a network gets in this precision.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Precision::Float32 => Kind::Float,
            Precision::Mixed => Kind::BFloat16,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::Float32 => "float32",
            Precision::Mixed => "mixed bfloat16 and float32",
        })
    }
}

/// What a training aims at: how far off a batch is, and how good the model is on images it has not seen.
pub trait Objective<M> {
    /// The loss of a batch, a tensor of one number that gradients can flow back from.
    ///
    /// # Errors
    /// When the model's output and the data do not fit each other.
    fn loss(&self, model: &M, data: &Split, batch: &[i64], epoch: u64) -> Result<Tensor>;

    /// Loss and score on held-out images.
    ///
    /// # Errors
    /// When the score cannot be computed.
    fn validate(&self, model: &M, held_out: &Split) -> Result<Validation>;
}

/// How good a model is on images it has not seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Validation {
    /// The loss, as in training: nats a pixel.
    pub loss: f64,
    /// Mean peak signal-to-noise ratio in decibels.
    pub psnr: f64,
}

/// The lesson's objective: from a noisy image to the original, judged by binary cross-entropy.
#[derive(Clone, Debug)]
pub struct Denoising {
    noise: f64,
    draw: Noise,
    seed: u64,
    precision: Precision,
}

impl Denoising {
    /// The objective of a [`fit`] with these settings.
    ///
    /// # Errors
    /// A noise level that is negative or no number.
    pub fn of(config: &FitConfig) -> Result<Denoising> {
        check_level(config.noise)?;
        Ok(Denoising {
            noise: config.noise,
            draw: config.draw,
            seed: config.seed,
            precision: config.precision,
        })
    }
}

impl<M: Model> Objective<M> for Denoising {
    fn loss(&self, model: &M, data: &Split, batch: &[i64], epoch: u64) -> Result<Tensor> {
        let clean = data.gather(batch);
        let epoch = if self.draw == Noise::Fresh { epoch } else { 0 };
        let noisy = corrupt(&clean, &noise_of(self.seed, epoch, batch), self.noise);
        let logits = model
            .forward(&noisy.to_kind(self.precision.kind()))
            .to_kind(Kind::Float);
        binary_cross_entropy(&logits, &clean)
    }

    fn validate(&self, model: &M, held_out: &Split) -> Result<Validation> {
        let (mut loss, mut score) = (0.0, 0.0);
        for (clean, noisy) in noisy_batches(held_out, self.noise) {
            let logits = model.forward(&noisy);
            let images = clean.size()[0] as f64;
            loss += binary_cross_entropy(&logits, &clean)?.double_value(&[]) * images;
            score += psnr(&clean, &logits.sigmoid())?.sum();
        }
        let images = held_out.len() as f64;
        Ok(Validation {
            loss: loss / images,
            psnr: score / images,
        })
    }
}

/// Watches a training and may end it: `ControlFlow::Break` stops it after the current batch.
pub trait Observer {
    /// Called once, before the first batch.
    fn start(&mut self, _plan: &Plan) {}

    /// Called after every batch with its number, counted from 1 over all epochs, and its loss.
    fn batch(&mut self, _plan: &Plan, _batch: usize, _loss: f64) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// Called after every epoch, validation included.
    fn epoch(&mut self, _plan: &Plan, _epoch: &Epoch) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Watches in silence.
impl Observer for () {}

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
}

/// Trains a model to turn noisy images into the originals, and prints a line for each epoch.
///
/// Adam (Kingma & Ba 2015) on the layers that are trainable, with a new optimizer each time, as
/// after Keras's `compile`. The same settings give the same weights, whatever else is drawn meanwhile.
///
/// # Errors
/// Settings that make no sense (each is named with what was expected), a model whose layers are
/// all frozen, or a loss that stopped being a number (the model then keeps the weights it came with).
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
pub fn fit<M: Model>(model: &mut M, data: &Split, config: &FitConfig) -> Result<History> {
    let objective = Denoising::of(config)?;
    match config.quiet {
        true => fit_with(model, data, &objective, config, &mut ()),
        false => fit_with(model, data, &objective, config, &mut PrintLines::default()),
    }
}

/// The training loop: [`fit`] with an objective and an observer of one's own.
///
/// # Errors
/// As [`fit`].
pub fn fit_with<M: Model>(
    model: &mut M,
    data: &Split,
    objective: &impl Objective<M>,
    config: &FitConfig,
    observer: &mut impl Observer,
) -> Result<History> {
    check(config, data)?;
    let (train, held_out) = match config.validation {
        0 => (data.shallow_clone(), None),
        n => data
            .hold_out(n)
            .map(|(train, held_out)| (train, Some(held_out)))?,
    };
    let weights = model.trainable_weights();
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
    let plan = Plan {
        epochs: config.epochs,
        batches: train.len().div_ceil(config.batch_size),
        images: train.len(),
        validation: config.validation,
        precision: config.precision,
    };
    let mut adam = Adam::new(weights, config.learning_rate);
    let first = adam.copy_weights();
    let mut history = History::new(plan);
    let mut best: Option<(f64, Vec<Tensor>)> = None;
    observer.start(&plan);
    for epoch in 0..config.epochs {
        let started = Instant::now();
        let order = Rng::stream(config.seed, &[epoch as u64]).permutation(train.len());
        let (mut sum, mut flow) = (0.0, ControlFlow::Continue(()));
        let mut seen = 0;
        for batch in order.chunks(config.batch_size) {
            let gradient = objective.loss(model, &train, batch, epoch as u64)?;
            let loss = gradient.double_value(&[]);
            if !loss.is_finite() {
                // A network is never left in ruins: it gets back its best weights, or its first.
                adam.restore_weights(best.as_ref().map_or(&first, |(_, weights)| weights));
                bail!(
                    "the loss is {loss} after {} batches: training has diverged; try a learning rate below {}",
                    history.batch_losses.len() + 1,
                    config.learning_rate,
                );
            }
            adam.step(&gradient);
            sum += loss * batch.len() as f64;
            seen += batch.len();
            history.batch_losses.push(loss);
            flow = observer.batch(&plan, history.batch_losses.len(), loss);
            if flow.is_break() {
                break;
            }
        }
        let validation = match &held_out {
            Some(images) => Some(tch::no_grad(|| objective.validate(model, images))?),
            None => None,
        };
        let number = epoch + 1;
        let epoch = Epoch {
            number,
            loss: sum / seen as f64,
            validation,
            seconds: started.elapsed().as_secs_f64(),
        };
        if let (Keep::Best, Some(now)) = (config.keep, validation)
            && best.as_ref().is_none_or(|(loss, _)| now.loss < *loss)
        {
            best = Some((now.loss, adam.copy_weights()));
        }
        let told = observer.epoch(&plan, &epoch);
        history.epochs.push(epoch);
        if flow.is_break() || told.is_break() {
            history.stopped = true;
            break;
        }
    }
    if let Some((_, weights)) = best {
        adam.restore_weights(&weights);
    }
    Ok(history)
}

fn check(config: &FitConfig, data: &Split) -> Result<()> {
    ensure!(
        config.epochs >= 1,
        "the number of epochs is 0; expected at least 1"
    );
    ensure!(
        config.batch_size >= 1,
        "the batch size is 0; expected at least 1 (128 is usual)"
    );
    ensure!(
        config.learning_rate.is_finite() && config.learning_rate > 0.0,
        "the learning rate is {}; expected a number above 0 (0.001 is usual)",
        config.learning_rate,
    );
    ensure!(
        config.validation < data.len(),
        "cannot hold out {} of {} images; expected fewer (the setting `validation`)",
        config.validation,
        data.len(),
    );
    ensure!(
        config.keep == Keep::Last || config.validation > 0,
        "Keep::Best needs held-out images to choose by; expected `validation` above 0"
    );
    Ok(())
}
