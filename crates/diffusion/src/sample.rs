//! The reverse process: from noise to images, step by step.
//!
//! There is one loop, [`Steps`]. At each step a network predicts the noise in `x_t`. Without that noise the rest is
//! a prediction of the final image, `x0`. The next `x` is this prediction with less noise: part of the old noise, and part
//! new noise (Song et al. 2020, "Denoising Diffusion Implicit Models", eq. 12). DDPM and DDIM are two settings
//! of it: `eta` 1 over all steps is DDPM (Ho et al. 2020, algorithm 2), `eta` 0 is DDIM, which draws no new noise and
//! can therefore take few steps.

mod noise_model;
mod sampler;
mod samples;
mod steps;

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use crate::data::{SIDE, check_images};
use crate::rng::Rng;
use crate::schedule::{Schedule, centred};
use crate::unet::CLASSES;
pub use noise_model::NoiseModel;
pub use sampler::Sampler;
pub use samples::Samples;
pub use steps::{Step, Steps};

/// A label for each image to sample: `with_labels(&[7; 10])` for ten sevens. (`[None; 10]` stands for ten digits of any
/// class.)
pub fn with_labels(classes: &[i64]) -> Vec<Option<i64>> {
    classes.iter().copied().map(Some).collect()
}

/// The classes 0 to 9 one after the other, again and again, for this many images.
pub fn balanced_classes(images: usize) -> Vec<i64> {
    (0..CLASSES).cycle().take(images).collect()
}

/// New images with these labels, from pure noise: `sample(&unet, &schedule, &Sampler::ddim(25), &[Some(7); 10])?`.
///
/// # Errors
/// As [`Steps::new`], or when the model fails.
pub fn sample(
    model: &dyn NoiseModel,
    schedule: &Schedule,
    sampler: &Sampler,
    labels: &[Option<i64>],
) -> Result<Samples> {
    Samples::of(Steps::new(model, schedule, sampler, labels)?)
}

/// New images from this noise, `(labels, 1, 28, 28)`, standard normal: the same noise with other labels, for example, or
/// noise between two noises. With [`Sampler::eta`] 0 the result depends on nothing else.
///
/// # Errors
/// Noise of another shape, or as [`sample`].
pub fn sample_from(
    model: &dyn NoiseModel,
    schedule: &Schedule,
    sampler: &Sampler,
    noise: &Tensor,
    labels: &[Option<i64>],
) -> Result<Samples> {
    let images = check_images(noise)?;
    ensure!(
        labels.len() == images,
        "expected a label for each of {images} noises; got {}",
        labels.len()
    );
    let (x, rng) = (noise.to_kind(Kind::Float), Rng::new(sampler.seed));
    let timesteps = schedule.timesteps(sampler.steps)?;
    let steps = Steps::along(model, schedule, sampler, labels, x, timesteps, rng)?;
    Samples::of(steps)
}

/// Denoises images: the reverse process from the timestep `t` at which images of the schedule are as noisy as these
/// ([`Schedule::step_of_noise`] finds it).
///
/// `noisy` is `(N, 1, 28, 28)` in units of pixels in `[0, 1]`, clipped or not; no labels are used.
/// [`Sampler::steps`] counts the steps of a whole sampling, of which only the last part is taken.
///
/// # Errors
/// Images of another shape, a timestep that the schedule does not have, or as [`sample`].
pub fn denoise_from(
    model: &dyn NoiseModel,
    schedule: &Schedule,
    sampler: &Sampler,
    noisy: &Tensor,
    t: usize,
) -> Result<Samples> {
    schedule.check_step(t)?;
    let images = check_images(noisy)?;
    // A noisy image x0 + sigma · eps is x_t up to a factor.
    let x = centred(noisy) * schedule.alpha_bar()[t].sqrt();
    let (labels, rng) = (vec![None; images], Rng::new(sampler.seed));
    let mut timesteps = schedule.timesteps(sampler.steps)?;
    timesteps.retain(|&step| step < t);
    timesteps.insert(0, t);
    Samples::of(Steps::along(
        model, schedule, sampler, &labels, x, timesteps, rng,
    )?)
}

/// Inpainting: pixels where `mask` is 1 stay as in `images`, the others are drawn to fit.
///
/// `images` are `(N, 1, 28, 28)` in `[0, 1]`; `mask` has the same shape, or `(1, 1, 28, 28)` for all.
///
/// # Errors
/// Images or a mask of another shape, a mask that is not 0 or 1, or as [`sample`].
pub fn inpaint(
    model: &dyn NoiseModel,
    schedule: &Schedule,
    sampler: &Sampler,
    images: &Tensor,
    mask: &Tensor,
    labels: &[Option<i64>],
) -> Result<Samples> {
    let count = check_images(images)?;
    let shape = mask.size();
    ensure!(
        shape == images.size() || shape == [1, 1, SIDE, SIDE],
        "the mask has shape {shape:?}; expected {:?}, or [1, 1, 28, 28] for all images",
        images.size()
    );
    ensure!(
        labels.len() == count,
        "expected a label for each of {count} images; got {}",
        labels.len()
    );
    let mask = mask.to_kind(Kind::Float);
    let others: Tensor = &mask * (&mask - 1.0);
    let is_binary = others.abs().max().double_value(&[]) == 0.0;
    ensure!(
        is_binary,
        "the mask holds other numbers than 0 (to be drawn) and 1 (to be kept)"
    );
    let mut steps = Steps::new(model, schedule, sampler, labels)?;
    steps.keep(centred(images), mask);
    Samples::of(steps)
}
