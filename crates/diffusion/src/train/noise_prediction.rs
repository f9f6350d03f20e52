//! The objective of diffusion: predict the noise.

use std::fmt;

use anyhow::{Result, ensure};
use ops::Precision;
use tch::{Kind, Tensor};

use super::config::Fit;
use super::objective::{Measures, Objective, Validation};
use crate::data::{PIXELS, SIDE, Split};
use crate::objective::{Adam, Optimizer};
use crate::rng::Rng;
use crate::schedule::{Schedule, centred};
use crate::unet::{CLASSES, Unet};

/// The seed of the noise of held-out images: the same after every epoch.
const VALIDATION_SEED: u64 = 20_260_102;

/// The simple loss of Ho et al. 2020, eq. 14: mix an image with noise as at a random timestep, and let
/// the network predict the noise; mean squared error over all pixels.
///
/// Some images lose their label (label dropout), so one network learns both what a 7 looks like and what any digit looks
/// like; guidance needs both (Ho & Salimans 2022, "Classifier-Free Diffusion Guidance", algorithm 1).
#[derive(Clone)]
pub struct NoisePrediction {
    schedule: Schedule,
    label_dropout: f64,
    seed: u64,
    precision: Precision,
    optimizer: Optimizer,
}

/// With a fingerprint of the whole schedule: a training recognises its checkpoints by this text.
impl fmt::Debug for NoisePrediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.schedule.betas().iter().map(|beta| beta.to_bits());
        let print = bits.fold(0u64, |print, bits| print.rotate_left(5) ^ bits);
        let NoisePrediction {
            label_dropout,
            seed,
            optimizer,
            ..
        } = self;
        let steps = self.schedule.steps();
        write!(
            f,
            "NoisePrediction {{ schedule: {steps} steps, {print:x}; label dropout: {label_dropout}; seed: {seed}; {optimizer:?} }}"
        )
    }
}

impl NoisePrediction {
    /// The objective of a training with these settings, on this schedule. `label_dropout` is the share of images
    /// that lose their label (0.1 is usual).
    ///
    /// # Errors
    /// A share that is not between 0 and 1.
    pub fn of(config: &Fit, schedule: &Schedule, label_dropout: f64) -> Result<NoisePrediction> {
        ensure!(
            (0.0..=1.0).contains(&label_dropout),
            "the label dropout is {label_dropout}; expected a number from 0 to 1"
        );
        Ok(NoisePrediction {
            schedule: schedule.clone(),
            label_dropout,
            seed: config.seed,
            precision: config.precision,
            optimizer: Adam::new(1e-3).into(),
        })
    }

    /// With this optimizer in place of Adam with a step size of 0.001.
    #[must_use]
    pub fn with(self, optimizer: impl Into<Optimizer>) -> NoisePrediction {
        NoisePrediction {
            optimizer: optimizer.into(),
            ..self
        }
    }

    /// What is drawn for an image depends on seed, epoch and image alone, so threads and interruptions change nothing.
    fn error(&self, model: &Unet, data: &Split, batch: &[i64], draw: &Draw) -> Tensor {
        let x0 = centred(&data.gather(batch));
        let mut classes = Vec::<i64>::new();
        let mut timesteps = Vec::with_capacity(batch.len());
        let mut noise = vec![0f32; batch.len() * PIXELS];
        let labels = data.label_values(batch);
        for ((&index, label), noise) in batch.iter().zip(labels).zip(noise.chunks_mut(PIXELS)) {
            let mut rng = Rng::stream(draw.seed, &[draw.epoch, index.cast_unsigned()]);
            timesteps.push(rng.below(self.schedule.steps()));
            let dropped = rng.share() < draw.label_dropout;
            classes.push(if dropped { CLASSES } else { label });
            rng.fill_normal(noise);
        }
        let noise = Tensor::from_slice(&noise).view([-1, 1, SIDE, SIDE]);
        let x = self.schedule.mixed(&x0, &timesteps, &noise);
        let steps: Vec<i64> = timesteps.iter().map(|&t| t as i64).collect();
        let found = model.forward(
            &x.to_kind(self.precision.kind()),
            &Tensor::from_slice(&steps),
            &Tensor::from_slice(&classes),
        );
        (found.to_kind(Kind::Float) - noise)
            .square()
            .mean(Kind::Float)
    }
}

/// Which random numbers to draw.
struct Draw {
    seed: u64,
    epoch: u64,
    label_dropout: f64,
}

impl Objective<Unet> for NoisePrediction {
    fn measures(&self) -> Measures {
        Measures {
            loss: "mean squared error of the noise",
            unit: "",
        }
    }

    fn optimizer(&self) -> Optimizer {
        self.optimizer
    }

    fn loss(&self, model: &Unet, data: &Split, batch: &[i64], epoch: u64) -> Result<Tensor> {
        let draw = Draw {
            seed: self.seed,
            epoch,
            label_dropout: self.label_dropout,
        };
        Ok(self.error(model, data, batch, &draw))
    }

    fn validate(&self, model: &Unet, held_out: &Split, batch: &[i64]) -> Result<Validation> {
        let draw = Draw {
            seed: VALIDATION_SEED,
            epoch: 0,
            label_dropout: 0.0,
        };
        Ok(Validation {
            loss: self.error(model, held_out, batch, &draw).double_value(&[]),
            score: None,
        })
    }
}
