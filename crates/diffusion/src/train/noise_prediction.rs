//! The objective of diffusion: find the noise.

use std::fmt;

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use super::config::FitConfig;
use super::objective::{Measures, Objective, Validation};
use crate::data::{PIXELS, SIDE, Split};
use crate::precision::Precision;
use crate::rng::Rng;
use crate::schedule::{Schedule, centred};
use crate::unet::{CLASSES, Unet};

/// The seed of the noise that held-out images are judged with: the same after every epoch.
const VALIDATION_SEED: u64 = 20_260_102;

/// The simple loss of Ho et al. 2020, eq. 14: mix an image with noise as it is at a random step, and let
/// the network say which noise it was; mean squared error over all pixels.
///
/// Some images hide their class, so that one network learns both what a 7 looks like and what any digit looks like;
/// guidance needs the two (Ho & Salimans 2022, "Classifier-Free Diffusion Guidance", algorithm 1).
#[derive(Clone)]
pub struct NoisePrediction {
    schedule: Schedule,
    hidden: f64,
    seed: u64,
    precision: Precision,
}

/// With a fingerprint of the whole schedule: by this text a training knows its checkpoints.
impl fmt::Debug for NoisePrediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.schedule.betas().iter().map(|beta| beta.to_bits());
        let print = bits.fold(0u64, |print, bits| print.rotate_left(5) ^ bits);
        let NoisePrediction { hidden, seed, .. } = self;
        let steps = self.schedule.steps();
        write!(
            f,
            "NoisePrediction {{ schedule: {steps} steps, {print:x}; hidden: {hidden}; seed: {seed} }}"
        )
    }
}

impl NoisePrediction {
    /// The objective of a training with these settings, on this schedule; a share of `hidden` of the images hides its
    /// class (0.1 is usual).
    ///
    /// # Errors
    /// A share that is not between 0 and 1.
    pub fn of(config: &FitConfig, schedule: &Schedule, hidden: f64) -> Result<NoisePrediction> {
        ensure!(
            (0.0..=1.0).contains(&hidden),
            "the share of images that hide their class is {hidden}; expected a number from 0 to 1"
        );
        Ok(NoisePrediction {
            schedule: schedule.clone(),
            hidden,
            seed: config.seed,
            precision: config.precision,
        })
    }

    /// What is random about some images in an epoch depends on nothing else, so that threads and interruptions
    /// change nothing.
    fn error(&self, model: &Unet, data: &Split, batch: &[i64], draw: &Draw) -> Tensor {
        let x0 = centred(&data.gather(batch));
        let mut classes = Vec::<i64>::new();
        let mut times = Vec::with_capacity(batch.len());
        let mut noise = vec![0f32; batch.len() * PIXELS];
        let labels = data.label_values(batch);
        for ((&index, label), noise) in batch.iter().zip(labels).zip(noise.chunks_mut(PIXELS)) {
            let mut rng = Rng::stream(draw.seed, &[draw.epoch, index.cast_unsigned()]);
            times.push(rng.below(self.schedule.steps()));
            let hides = rng.share() < draw.hidden;
            classes.push(if hides { CLASSES } else { label });
            rng.fill_normal(noise);
        }
        let noise = Tensor::from_slice(&noise).view([-1, 1, SIDE, SIDE]);
        let x = self.schedule.mixed(&x0, &times, &noise);
        let steps: Vec<i64> = times.iter().map(|&t| t as i64).collect();
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

/// Which random numbers.
struct Draw {
    seed: u64,
    epoch: u64,
    hidden: f64,
}

impl Objective<Unet> for NoisePrediction {
    fn measures(&self) -> Measures {
        Measures {
            loss: "mean squared error of the noise",
            unit: "",
        }
    }

    fn loss(&self, model: &Unet, data: &Split, batch: &[i64], epoch: u64) -> Result<Tensor> {
        let draw = Draw {
            seed: self.seed,
            epoch,
            hidden: self.hidden,
        };
        Ok(self.error(model, data, batch, &draw))
    }

    fn validate(&self, model: &Unet, held_out: &Split, batch: &[i64]) -> Result<Validation> {
        let draw = Draw {
            seed: VALIDATION_SEED,
            epoch: 0,
            hidden: 0.0,
        };
        Ok(Validation {
            loss: self.error(model, held_out, batch, &draw).double_value(&[]),
            score: None,
        })
    }
}
