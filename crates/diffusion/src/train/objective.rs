//! Objectives: the loss that a training lowers, and the score on held-out images.

use std::fmt;

use anyhow::{Result, bail, ensure};
use ops::Precision;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::data::{SIDE, Split};
use crate::denoiser::UnetDenoiser;
use crate::metrics::psnr;
use crate::network::{Activation, Network};
use crate::objective::{Adam, Loss, Optimizer};
use crate::pairs::{Pairs, Rule};

/// The loss of a batch, and how good the model is on held-out images.
pub trait Objective<M>: fmt::Debug + Sync {
    /// What the loss and the score are called, in lines and pictures.
    fn measures(&self) -> Measures;

    /// What takes the steps (default: Adam with a step size of 0.001).
    fn optimizer(&self) -> Optimizer {
        Adam::new(1e-3).into()
    }

    /// The mean loss of a batch, a tensor of one number that gradients can flow back from.
    ///
    /// The model's weights are in the kind of [`Fit::precision`](super::Fit::precision); give it images of that kind.
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

/// A network that makes outputs of images, and nothing else is needed.
pub trait Predictor {
    /// The output before a last sigmoid or softmax.
    fn logits(&self, images: &Tensor) -> Result<Tensor>;
    /// Logits to outputs.
    fn activated(&self, logits: &Tensor) -> Tensor;
}

impl Predictor for Network {
    fn logits(&self, images: &Tensor) -> Result<Tensor> {
        self.logits(images)
    }

    fn activated(&self, logits: &Tensor) -> Tensor {
        self.activated(logits)
    }
}

impl Predictor for UnetDenoiser {
    fn logits(&self, images: &Tensor) -> Result<Tensor> {
        self.logits(images)
    }

    fn activated(&self, logits: &Tensor) -> Tensor {
        logits.sigmoid()
    }
}

/// From the inputs of pairs to their targets, with one of the losses.
#[derive(Clone, Debug)]
pub struct Supervised {
    rule: Rule,
    loss: Loss,
    optimizer: Optimizer,
    precision: Precision,
}

impl Supervised {
    /// Trains on pairs of this kind, in this precision; the images are those of the split that a training is given.
    ///
    /// # Errors
    /// An optimizer whose settings make no sense.
    pub fn of(
        pairs: &Pairs,
        optimizer: impl Into<Optimizer>,
        loss: Loss,
        precision: Precision,
    ) -> Result<Supervised> {
        let optimizer = optimizer.into();
        optimizer.check()?;
        Ok(Supervised {
            rule: pairs.rule(),
            loss,
            optimizer,
            precision,
        })
    }

    fn logits(&self, model: &impl Predictor, input: &Tensor) -> Result<Tensor> {
        let logits = model.logits(&input.to_kind(self.precision.kind()))?;
        Ok(logits.to_kind(Kind::Float))
    }

    fn loss_of(&self, model: &impl Predictor, logits: &Tensor, target: &Tensor) -> Result<Tensor> {
        self.loss.of(logits, &|| model.activated(logits), target)
    }

    /// Decibels for images, percent for classes.
    fn score(&self, prediction: &Tensor, target: &Tensor) -> Result<f64> {
        match self.rule {
            Rule::Noisy { .. } => {
                let psnr = psnr(target, &prediction.clamp(0.0, 1.0))?;
                Ok(psnr.sum() / psnr.len() as f64)
            }
            Rule::Labelled => {
                let right = prediction.argmax(1, false).eq_tensor(target);
                Ok(100.0 * right.sum(Kind::Double).double_value(&[]) / target.numel() as f64)
            }
        }
    }
}

impl<M: Predictor> Objective<M> for Supervised {
    fn measures(&self) -> Measures {
        Measures {
            loss: self.loss.name(),
            unit: match self.rule {
                Rule::Noisy { .. } => "dB",
                Rule::Labelled => "% accuracy",
            },
        }
    }

    fn optimizer(&self) -> Optimizer {
        self.optimizer
    }

    fn loss(&self, model: &M, data: &Split, batch: &[i64], epoch: u64) -> Result<Tensor> {
        let (input, target) = self.rule.pairs(data, batch, epoch);
        self.loss_of(model, &self.logits(model, &input)?, &target)
    }

    fn validate(&self, model: &M, held_out: &Split, batch: &[i64]) -> Result<Validation> {
        let (input, target) = self.rule.held_out(held_out, batch);
        let logits = self.logits(model, &input)?;
        let loss = self.loss_of(model, &logits, &target)?.double_value(&[]);
        // Images that are not finite have no score; training ends at such a loss.
        let score = match loss.is_finite() {
            true => Some(self.score(&model.activated(&logits), &target)?),
            false => None,
        };
        Ok(Validation { loss, score })
    }
}

/// Do network, loss and pairs fit each other?
pub(super) fn check(network: &Network, loss: &Loss, pairs: &Pairs) -> Result<()> {
    let rule = pairs.rule();
    match (loss, rule) {
        (Loss::CrossEntropy, Rule::Noisy { .. }) => bail!(
            "cross-entropy compares classes, and these pairs are images: take Loss::BinaryCrossEntropy, or labelled() pairs"
        ),
        (Loss::BinaryCrossEntropy | Loss::MeanSquaredError, Rule::Labelled) => bail!(
            "{} compares images, and these pairs have labels: take Loss::CrossEntropy, or noisy(…) pairs",
            loss.name()
        ),
        _ => {}
    }
    let (input, output) = network.ends();
    let image = [SIDE, SIDE, 1];
    ensure!(
        input == image,
        "the network takes {input:?} for an image; expected [28, 28, 1], the images of the pairs"
    );
    match rule {
        Rule::Noisy { .. } => ensure!(
            output == image,
            "the network puts out {output:?} for an image; expected [28, 28, 1], as the clean images have: end the list \
             with conv2d(1, 3).sigmoid()"
        ),
        Rule::Labelled => ensure!(
            matches!(*output, [classes] if classes >= 10),
            "the network puts out {output:?} for an image; expected [10], a number for each class: end the list with \
             dense(10).softmax()"
        ),
    }
    match (loss, network.last_activation()) {
        (Loss::BinaryCrossEntropy, Activation::Sigmoid)
        | (Loss::CrossEntropy, Activation::Softmax)
        | (Loss::MeanSquaredError | Loss::Custom(_), _) => Ok(()),
        (Loss::BinaryCrossEntropy, _) => bail!(
            "binary cross-entropy needs numbers from 0 to 1: end the list of layers with .sigmoid()"
        ),
        (Loss::CrossEntropy, _) => {
            bail!("cross-entropy needs probabilities: end the list of layers with .softmax()")
        }
    }
}
