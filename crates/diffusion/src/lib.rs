//! The support crate of the lesson "diffusion models, live, in Rust".
//!
//! Data flows one way through the modules: [`data`], [`noise`] and [`schedule`] make tensors; [`cnn`],
//! [`unet`], [`denoiser`] and [`classifier`] are [`model`]s; [`train`] trains them; [`sample`] generates new
//! images; [`metrics`], [`scores`] and [`classical`] measure how good the results are; [`explore`] has the lesson's sliders, [`exercise`]
//! checks exercises.
//! [`rng`] is the source of all randomness. Two crates lie below this one: [`ops`] has fast operations, [`figures`]
//! draws and shows.
//!
//! This crate is compiled once, with optimisation, at set-up. But generic code is compiled again, without optimisation, in
//! every cell that calls it. So generic functions are thin shells here, around functions of trait objects.
//!
//! Images are tensors of shape `(N, 1, 28, 28)`, `float32`, with pixels in `[0, 1]`. Only within the diffusion process
//! pixels are in `[-1, 1]`: what [`schedule::centred`] gives, and [`schedule::to_pixels`] takes back.
//!
//! ```no_run
//! use diffusion::prelude::*;
//!
//! # fn main() -> anyhow::Result<()> {
//! let mnist: Mnist = Mnist::load()?;
//! let clean: Tensor = mnist.test.images(10)?;
//! let noisy: Tensor = add_noise(&clean, 0.5)?;
//! rows(&[("original", &clean), ("noisy", &noisy)]).save("digits.png")?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

pub mod classical;
pub mod classifier;
pub mod cnn;
pub mod data;
pub mod denoiser;
pub mod exercise;
pub mod explore;
mod layers;
pub mod metrics;
pub mod model;
pub mod noise;
pub mod rng;
pub mod sample;
pub mod schedule;
pub mod scores;
mod store;
pub mod train;
pub mod unet;

/// Everything a notebook cell needs: `use diffusion::prelude::*;`.
pub mod prelude {
    pub use crate::classical::{gaussian_filter, median_filter};
    pub use crate::classifier::{Classifier, ClassifierConfig};
    pub use crate::cnn::{Cnn, CnnConfig, Initialisation};
    pub use crate::data::{Mnist, Split, pixels};
    pub use crate::denoiser::{Denoiser, UnetDenoiser};
    pub use crate::exercise::check;
    pub use crate::explore::{diffusion_explorer, guidance_explorer, noise_explorer};
    pub use crate::metrics::{Scores, binary_cross_entropy, mean_psnr, psnr, score, ssim};
    pub use crate::model::{Forward, Layer, Model, Summary};
    pub use crate::noise::add_noise;
    pub use crate::rng::seed;
    pub use crate::sample::{
        Sampler, Samples, Steps, balanced_classes, denoise_from, inpaint, sample, sample_from,
        with_labels,
    };
    pub use crate::schedule::{Schedule, centred, to_pixels};
    pub use crate::scores::{
        GenerationScores, Reference, class_accuracy, diversity, frechet_distance, frechet_floor,
        nearest,
    };
    pub use crate::train::{
        Classification, FitConfig, History, Keep, LearningRateSchedule, Noise, NoisePrediction,
        PrintLines, Training, digits_drawn, fit, fit_in_background, fit_with,
        fit_with_in_background, resume,
    };
    pub use crate::unet::{Unet, UnetConfig};
    pub use anyhow::{Result, bail, ensure};
    pub use figures::{
        Output, Pad, Series, animation, compare, curve, grid, histogram, rows, rows_with_captions,
        scatter, table,
    };
    pub use ndarray::{Array1, Array2, s};
    pub use ops::Precision;
    pub use ops::pool::threads;
    pub use tch::{Device, Kind, Tensor};
}
