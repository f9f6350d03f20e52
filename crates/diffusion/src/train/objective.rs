//! What a training aims at.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::config::{FitConfig, Noise};
use crate::data::Split;
use crate::metrics::{binary_cross_entropy, noisy_batch, psnr};
use crate::model::Model;
use crate::noise::{check_level, corrupt, noise_of};
use crate::precision::Precision;

/// What a training aims at: how far off a batch is, and how good the model is on images it has not seen.
pub trait Objective<M>: Sync {
    /// The mean loss of a batch, a tensor of one number that gradients can flow back from.
    ///
    /// The model's weights are in the kind of [`FitConfig::precision`]; give it images of that kind.
    ///
    /// A batch may be a part of one: each thread computes a part. What is random in a loss must come from
    /// [`Rng::stream`](crate::rng::Rng::stream), keyed by epoch and image, not from libtorch's generator,
    /// which the threads share.
    ///
    /// # Errors
    /// When the model's output and the data do not fit each other.
    fn loss(&self, model: &M, data: &Split, batch: &[i64], epoch: u64) -> Result<Tensor>;

    /// Mean loss and score on a batch of held-out images, in the training's precision.
    ///
    /// # Errors
    /// When the score cannot be computed.
    fn validate(&self, model: &M, held_out: &Split, batch: &[i64]) -> Result<Validation>;
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
    /// The objective of a [`fit`](super::fit) with these settings.
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

    fn logits<M: Model>(&self, model: &M, noisy: &Tensor) -> Tensor {
        model
            .forward(&noisy.to_kind(self.precision.kind()))
            .to_kind(Kind::Float)
    }
}

impl<M: Model> Objective<M> for Denoising {
    fn loss(&self, model: &M, data: &Split, batch: &[i64], epoch: u64) -> Result<Tensor> {
        let clean = data.gather(batch);
        let epoch = if self.draw == Noise::Fresh { epoch } else { 0 };
        let noisy = corrupt(&clean, &noise_of(self.seed, epoch, batch), self.noise);
        binary_cross_entropy(&self.logits(model, &noisy), &clean)
    }

    fn validate(&self, model: &M, held_out: &Split, batch: &[i64]) -> Result<Validation> {
        let (clean, noisy) = noisy_batch(held_out, self.noise, batch);
        let logits = self.logits(model, &noisy);
        Ok(Validation {
            loss: binary_cross_entropy(&logits, &clean)?.double_value(&[]),
            psnr: psnr(&clean, &logits.sigmoid())?.sum() / batch.len() as f64,
        })
    }
}
