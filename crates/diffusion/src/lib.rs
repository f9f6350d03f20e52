//! The support crate of the lesson "diffusion models, live, in Rust".
//!
//! Data flows one way through the modules: [`data`], [`noise`] and [`schedule`] make tensors; [`cnn`],
//! [`unet`], [`denoiser`] and [`classifier`] are [`model`]s, made of [`conv`] and [`norm`]; [`train`] fits them; [`sample`] draws new
//! images; [`metrics`], [`scores`] and [`classical`] say how good all that is; [`figure`] draws what came out, and [`show`]
//! hands it to the notebook. [`crew`] puts all cores to work, in either [`precision`]; [`rng`] is where all
//! chance comes from.
//!
//! What is written here is compiled once, with optimisation, when the lesson is set up. But what is generic is compiled
//! anew, and without, in every cell that calls it, while a learner waits. So generic functions are thin shells here,
//! around functions of trait objects: a cell that denoises holds 307 functions, where it once held 1,503.
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

#[cfg(target_arch = "x86_64")]
mod autograd;
pub mod classical;
pub mod classifier;
pub mod cnn;
pub mod conv;
pub mod crew;
pub mod data;
pub mod denoiser;
pub mod explore;
pub mod figure;
#[cfg(target_arch = "x86_64")]
mod lanes;
/// Where there are no kernels of our own, their tests run once, with libtorch.
#[cfg(all(test, not(target_arch = "x86_64")))]
mod lanes {
    pub(crate) mod tests {
        pub(crate) fn in_each_width(test: impl Fn()) {
            test();
        }
    }
}
mod layers;
mod memory;
pub mod metrics;
pub mod model;
pub mod noise;
pub mod norm;
pub mod precision;
pub mod rng;
pub mod sample;
pub mod schedule;
pub mod scores;
pub mod show;
#[cfg(target_arch = "x86_64")]
mod slices;
pub mod train;
pub mod unet;

/// Everything a notebook cell needs: `use diffusion::prelude::*;`.
pub mod prelude {
    pub use crate::classical::{gaussian_filter, median_filter};
    pub use crate::classifier::{Classifier, ClassifierConfig};
    pub use crate::cnn::{Cnn, CnnConfig, Start};
    pub use crate::crew::threads;
    pub use crate::data::{Mnist, Split, pixels};
    pub use crate::denoiser::{Denoiser, UnetDenoiser};
    pub use crate::explore::{
        Explorer, Pad, compare, diffusion_explorer, guidance_explorer, noise_explorer,
    };
    pub use crate::figure::{
        Figure, Series, animation, curve, grid, histogram, rows, rows_with_captions, scatter,
    };
    pub use crate::metrics::{Scores, binary_cross_entropy, mean_psnr, psnr, score, ssim};
    pub use crate::model::{Forward, Layer, Model, Summary};
    pub use crate::noise::add_noise;
    pub use crate::precision::Precision;
    pub use crate::rng::seed;
    pub use crate::sample::{
        Sampler, Samples, Steps, asked, denoise_from, in_turn, inpaint, sample, sample_from,
    };
    pub use crate::schedule::{Schedule, centred, to_pixels};
    pub use crate::scores::{
        GenerationScores, class_accuracy, frechet_distance, frechet_floor, judge, nearest, spread,
    };
    pub use crate::show::{Table, check};
    pub use crate::train::{
        Classification, Decay, FitConfig, History, Keep, Noise, NoisePrediction, Panel, PrintLines,
        Training, digits_drawn, fit, fit_in_background, fit_with, fit_with_in_background, resume,
    };
    pub use crate::unet::{Unet, UnetConfig};
    pub use anyhow::{Result, bail, ensure};
    pub use ndarray::{Array1, Array2, s};
    pub use tch::{Device, Kind, Tensor};
}
