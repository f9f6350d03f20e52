//! The support crate of the lesson "diffusion models, live, in Rust".
//!
//! Data flows one way through the modules: [`data`], [`noise`], [`schedule`] and [`batch`] make tensors; [`lists`] has the
//! lesson's own networks, [`unet`] the network of the diffusion model; [`sample`] generates new images; [`metrics`],
//! [`scores`] and [`classical`] measure how good the results are; [`explore`] has the lesson's sliders, [`exercise`] checks
//! exercises.
//!
//! Three crates lie below this one: [`networks`] builds and trains networks, as Keras does (its modules are re-exported
//! here), [`ops`] has fast operations, [`figures`] draws and shows.
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

pub mod batch;
pub mod classical;
pub mod data;
pub mod exercise;
pub mod explore;
mod layers;
pub mod lists;
pub mod metrics;
pub mod noise;
pub mod sample;
pub mod schedule;
pub mod scores;
pub mod unet;

pub use networks::{network, objective, pairs, rng, train};
// So that a notebook can name every type: evcxr writes out the type of a `let` that has none.
pub use {anyhow, figures, ndarray, ops, tch};

/// What notebook cells need: `use diffusion::prelude::*;`. The rest is at hand by the name of its module.
pub mod prelude {
    pub use crate::batch::Batch;
    pub use crate::classical::{gaussian_filter, median_filter};
    pub use crate::data::{Mnist, Split};
    pub use crate::exercise::check;
    pub use crate::explore::{diffusion_explorer, guidance_explorer, noise_explorer};
    pub use crate::lists::{digit_classifier, lesson_cnn};
    pub use crate::metrics::{Scores, mean_psnr, psnr};
    pub use crate::noise::add_noise;
    pub use crate::sample::{Sampler, Samples, balanced_classes, sample, with_labels};
    pub use crate::schedule::{Schedule, centred, to_pixels};
    pub use crate::scores::{GenerationScores, Reference, class_accuracy};
    pub use crate::unet::{Unet, UnetConfig};
    pub use anyhow::{Result, bail, ensure};
    pub use figures::{
        Pad, Series, compare, curve, grid, histogram, rows, rows_with_captions, scatter,
        scatter_animation, table,
    };
    pub use ndarray::{Array1, Array2, s};
    pub use networks::network::{
        Initialisation, Network, conv2d, conv2d_transpose, dense, flatten, group_norm,
        max_pooling2d, reshape, up_sampling2d,
    };
    pub use networks::objective::{Adam, Loss, Sgd, binary_cross_entropy, mean_squared_error};
    pub use networks::pairs::Pairs;
    pub use networks::rng::{Rng, set_seed};
    pub use networks::train::{Fit, History, Training};
    pub use tch::{Device, Kind, Tensor};
}
