//! Objectives: the loss that a training lowers, and the score on held-out images.

use std::fmt;

use anyhow::Result;
use ops::Precision;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::config::{FitConfig, Noise};
use crate::data::Split;
use crate::denoiser::Denoiser;
use crate::metrics::{binary_cross_entropy, noisy_batch, psnr};
use crate::model::Forward;
use crate::noise::{check_level, corrupt, noise_of};

/// The loss of a batch, and how good the model is on held-out images.
pub trait Objective<M>: fmt::Debug + Sync {
    /// What the loss and the score are called, in lines and pictures.
    fn measures(&self) -> Measures;

    /// The mean loss of a batch, a tensor of one number that gradients can flow back from.
    ///
    /// The model's weights are in the kind of [`FitConfig::precision`]; give it images of that kind.
    ///
    /// A batch may be a part of a batch: each worker computes a part. What is random in a loss must come from
    /// [`Rng::stream`](crate::rng::Rng::stream), keyed by epoch and image, not from libtorch's generator,
    /// which the workers share.
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

/// What an [`Objective`] measures.
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
    /// The score where the objective has one, in the unit of its [`Measures`]: the higher, the better.
    pub score: Option<f64>,
}

/// The lesson's objective: from a noisy image to the original, with binary cross-entropy as the loss.
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
    /// A noise level that is negative, infinite or NaN.
    pub fn of(config: &FitConfig) -> Result<Denoising> {
        check_level(config.noise)?;
        Ok(Denoising {
            noise: config.noise,
            draw: config.draw,
            seed: config.seed,
            precision: config.precision,
        })
    }

    /// Images and their noisy versions of this epoch.
    fn pair(&self, data: &Split, batch: &[i64], epoch: u64) -> (Tensor, Tensor) {
        let clean = data.gather(batch);
        let epoch = if self.draw == Noise::Fresh { epoch } else { 0 };
        let noisy = corrupt(&clean, &noise_of(self.seed, epoch, batch), self.noise);
        (clean, noisy)
    }

    fn logits<M: Denoiser>(&self, model: &M, noisy: &Tensor) -> Tensor {
        model
            .forward(&noisy.to_kind(self.precision.kind()))
            .to_kind(Kind::Float)
    }
}

/// Loss and score of a denoiser's output.
fn evaluate_denoised(logits: &Tensor, clean: &Tensor) -> Result<Validation> {
    let psnr = psnr(clean, &logits.sigmoid())?;
    Ok(Validation {
        loss: binary_cross_entropy(logits, clean)?.double_value(&[]),
        score: Some(psnr.sum() / psnr.len() as f64),
    })
}

impl<M: Denoiser> Objective<M> for Denoising {
    fn measures(&self) -> Measures {
        Measures {
            loss: "binary cross-entropy",
            unit: "dB",
        }
    }

    fn loss(&self, model: &M, data: &Split, batch: &[i64], epoch: u64) -> Result<Tensor> {
        let (clean, noisy) = self.pair(data, batch, epoch);
        binary_cross_entropy(&self.logits(model, &noisy), &clean)
    }

    fn validate(&self, model: &M, held_out: &Split, batch: &[i64]) -> Result<Validation> {
        let (clean, noisy) = noisy_batch(held_out, self.noise, batch);
        evaluate_denoised(&self.logits(model, &noisy), &clean)
    }
}

/// A classifier's objective: the right class, with cross-entropy as the loss, `-log p(class)` in nats per image (Bishop
/// 2006, *Pattern Recognition and Machine Learning*, eq. 4.108). The score is the accuracy in percent.
#[derive(Clone, Debug)]
pub struct Classification {
    precision: Precision,
}

impl Classification {
    /// The objective of a training with these settings; noise plays no part.
    pub fn of(config: &FitConfig) -> Classification {
        Classification {
            precision: config.precision,
        }
    }

    fn logits<M: Forward>(&self, model: &M, data: &Split, batch: &[i64]) -> Tensor {
        let images = data.gather(batch).to_kind(self.precision.kind());
        model.forward(&images).to_kind(Kind::Float)
    }
}

impl<M: Forward> Objective<M> for Classification {
    fn measures(&self) -> Measures {
        Measures {
            loss: "cross-entropy",
            unit: "% accuracy",
        }
    }

    fn loss(&self, model: &M, data: &Split, batch: &[i64], _epoch: u64) -> Result<Tensor> {
        let classes = data.gather_labels(batch);
        Ok(self
            .logits(model, data, batch)
            .cross_entropy_for_logits(&classes))
    }

    fn validate(&self, model: &M, held_out: &Split, batch: &[i64]) -> Result<Validation> {
        let logits = self.logits(model, held_out, batch);
        evaluate_classes(&logits, &held_out.gather_labels(batch))
    }
}

/// Loss and accuracy of a classifier's output.
fn evaluate_classes(logits: &Tensor, classes: &Tensor) -> Result<Validation> {
    let right = logits.argmax(1, false).eq_tensor(classes).sum(Kind::Double);
    Ok(Validation {
        loss: logits.cross_entropy_for_logits(classes).double_value(&[]),
        score: Some(100.0 * right.double_value(&[]) / classes.numel() as f64),
    })
}
