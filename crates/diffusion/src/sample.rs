//! The reverse process: from noise to images, step by step.
//!
//! There is one loop. At each step the network predicts the noise in `x_t`. Without that noise the rest is a prediction of
//! the final image, `x0`. The next `x` is this prediction with less noise: part of the old noise, and part new noise (Song
//! et al. 2020, "Denoising Diffusion Implicit Models", eq. 12). DDPM and DDIM are two settings of it: `eta` 1 over all
//! steps is DDPM (Ho et al. 2020, algorithm 2), `eta` 0 is DDIM, which draws no new noise and can therefore take few steps.

mod reverse;
mod sampler;
mod samples;
#[cfg(test)]
mod tests;

use anyhow::{Result, ensure};
use tch::Tensor;

use crate::unet::{CLASSES, Predicts, Unet};
pub(crate) use reverse::Frame;
use reverse::{Predict, reverse};
pub use sampler::Sampler;
pub use samples::Samples;

/// A label for each image to sample: `with_labels(&[7; 10])` for ten sevens. (`[None; 10]` stands for ten digits of any
/// class.)
pub fn with_labels(classes: &[i64]) -> Vec<Option<i64>> {
    classes.iter().copied().map(Some).collect()
}

/// The classes 0 to 9 one after the other, again and again, for this many images.
pub fn balanced_classes(images: usize) -> Vec<i64> {
    (0..CLASSES).cycle().take(images).collect()
}

/// New images with these labels: `sample(&unet, &[Some(7); 10], &Sampler::ddim(25))?`.
///
/// With the sampler's default settings these are the lines (the [`Sampler`] says what its other settings add):
///
/// ```no_run
/// # use diffusion::prelude::*;
/// # fn main() -> anyhow::Result<()> {
/// # let (unet, labels): (Unet, Vec<Option<i64>>) = (Unet::trained("unet")?, vec![Some(7); 20]);
/// let mut rng: Rng = Rng::new(1);
/// let mut x: Tensor = rng.normal(&[20, 1, 28, 28]);
/// for (now, next) in unet.schedule().timesteps(50)? {
///     let eps: Tensor = unet.predict(&x, &[now.t], &labels)?;
///     let x0: Tensor = ((&x - now.sigma * &eps) / now.alpha).clamp(-1.0, 1.0);
///     let eps: Tensor = (&x - now.alpha * &x0) / now.sigma;
///     x = next.alpha * x0 + next.sigma * eps;
/// }
/// let images: Tensor = to_pixels(&x);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// A network that predicts clean images; settings that make no sense; a class that does not exist; tensors of the sampler
/// that do not fit each other or the labels.
pub fn sample(unet: &Unet, labels: &[Option<i64>], sampler: &Sampler) -> Result<Samples> {
    Samples::collect(sampler.steps, |see| walk(unet, labels, sampler, see))
}

/// The loop of [`sample`]: shows the start and each step to `see`, and gives the last `x`.
pub(crate) fn walk(
    unet: &Unet,
    labels: &[Option<i64>],
    sampler: &Sampler,
    see: &mut dyn FnMut(Frame),
) -> Result<Tensor> {
    ensure!(
        unet.config().predicts == Predicts::Noise,
        "this network predicts clean images, in one step; to sample takes one that predicts noise (UnetConfig's `predicts`)"
    );
    let predict: &Predict = &|x, t, labels| unet.predict(x, &[t], labels);
    reverse(predict, unet.schedule(), labels, sampler, see)
}
