//! The settings of sampling.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use crate::data::{SIDE, check_images};
use crate::rng::Rng;
use crate::schedule::{Schedule, Timestep, centred};

/// The settings of sampling: what differs from the defaults is added, `Sampler::ddim(25).guided(1.0).seeded(3)`.
///
/// In the loop of [`sample`](super::sample), a setting adds or changes a line:
/// - `eta`: `let fresh = eta * now.posterior_deviation(&next);` and `x = next.alpha * x0 + (next.sigma.powi(2) -
///   fresh.powi(2)).sqrt() * eps + fresh * rng.normal(&x.size());`
/// - `guided`: `let eps = (1.0 + w) * eps - w * unet.predict(&x, &[now.t], &[None])?;` after the first line
/// - `keeping`: `x = &mask * (next.alpha * &known + next.sigma * rng.normal(&x.size())) + (1.0 - &mask) * x;` after the last
///   line
/// - `from_noise`, `from_noisy`: another first `x`
///
/// Noise is drawn from one stream, `Rng::new(seed)`, in the order of these lines, and only where `fresh` is above 0.
#[derive(Debug)]
pub struct Sampler {
    pub(super) steps: usize,
    pub(super) eta: f64,
    pub(super) guidance: f64,
    seed: u64,
    start: Start,
    /// Images, and a mask.
    known: Option<[Tensor; 2]>,
}

/// Where the way begins.
#[derive(Debug)]
enum Start {
    /// Noise of the seed.
    Drawn,
    /// This noise.
    Noise(Tensor),
    /// These images, which are as noisy as those of this timestep.
    Noisy(Tensor, usize),
}

/// What the loop begins with.
pub(super) struct Beginning {
    /// The first `x`.
    pub(super) x: Tensor,
    /// The noise to come.
    pub(super) rng: Rng,
    pub(super) steps: Vec<(Timestep, Timestep)>,
}

impl Sampler {
    /// DDIM (Song et al. 2020) in this many steps, without guidance, with seed 1.
    pub fn ddim(steps: usize) -> Sampler {
        Sampler {
            steps,
            eta: 0.0,
            guidance: 0.0,
            seed: 1,
            start: Start::Drawn,
            known: None,
        }
    }

    /// DDPM (Ho et al. 2020, algorithm 2), if these are all of the schedule's steps: with `eta` 1.
    pub fn ddpm(steps: usize) -> Sampler {
        Sampler::ddim(steps).eta(1.0)
    }

    /// How much new noise each step draws: 0 none (DDIM), 1 as much as DDPM.
    #[must_use]
    pub fn eta(self, eta: f64) -> Sampler {
        Sampler { eta, ..self }
    }

    /// The strength `w` of guidance towards the class: 0 is none, 1 and more exaggerate the class. The predicted noise
    /// becomes `(1 + w) · eps(x, class) - w · eps(x, no class)` (Ho & Salimans 2022, eq. 6): away from what any digit looks
    /// like, towards what this class looks like.
    #[must_use]
    pub fn guided(self, guidance: f64) -> Sampler {
        Sampler { guidance, ..self }
    }

    /// The seed of all noise.
    #[must_use]
    pub fn seeded(self, seed: u64) -> Sampler {
        Sampler { seed, ..self }
    }

    /// From this noise, `(N, 1, 28, 28)`, standard normal: the same noise with other labels, for example, or noise between two
    /// noises. With `eta` 0 the images depend on nothing else.
    #[must_use]
    pub fn from_noise(self, noise: &Tensor) -> Sampler {
        let start = Start::Noise(noise.shallow_clone());
        Sampler { start, ..self }
    }

    /// Denoises images: the last part of the reverse process, from the timestep `t` at which images of the schedule are as
    /// noisy as these ([`Schedule::step_of_noise`] finds it). `noisy` is `(N, 1, 28, 28)` in units of pixels in `[0, 1]`,
    /// clipped or not.
    #[must_use]
    pub fn from_noisy(self, noisy: &Tensor, t: usize) -> Sampler {
        let start = Start::Noisy(noisy.shallow_clone(), t);
        Sampler { start, ..self }
    }

    /// Inpainting: pixels where `mask` is 1 stay as in `images`, the others are drawn to fit. `images` are
    /// `(N, 1, 28, 28)` in `[0, 1]`; `mask` has the same shape, or `(1, 1, 28, 28)` for all.
    #[must_use]
    pub fn keeping(self, images: &Tensor, mask: &Tensor) -> Sampler {
        let known = Some([images.shallow_clone(), mask.shallow_clone()]);
        Sampler { known, ..self }
    }

    /// How many steps a whole sampling takes.
    pub(crate) fn steps(&self) -> usize {
        self.steps
    }

    /// Do the settings make sense?
    pub(super) fn check(&self) -> Result<()> {
        ensure!(
            (0.0..=1.0).contains(&self.eta),
            "eta is {}; expected a number from 0 (DDIM) to 1 (DDPM)",
            self.eta
        );
        ensure!(
            self.guidance.is_finite() && self.guidance >= 0.0,
            "the guidance strength is {}; expected a number from 0 up (1 is usual)",
            self.guidance
        );
        Ok(())
    }

    /// What the loop begins with, for this many labels.
    pub(super) fn begin(&self, schedule: &Schedule, labels: usize) -> Result<Beginning> {
        let mut steps = schedule.timesteps(self.steps)?;
        // With a start of one's own the noise to come has a stream of its own: the start may be of the same seed.
        let mut rng = Rng::stream(self.seed, &[1]);
        let x = match &self.start {
            Start::Drawn => {
                let images = match (&self.known, labels) {
                    (Some([images, _]), 1) => check_images(images)?,
                    _ => labels,
                };
                ensure!(
                    images > 0,
                    "got no labels; expected one for each image to sample"
                );
                rng = Rng::new(self.seed);
                rng.normal(&[images as i64, 1, SIDE, SIDE])
            }
            Start::Noise(noise) => {
                check_images(noise)?;
                noise.shallow_clone()
            }
            Start::Noisy(noisy, t) => {
                check_images(noisy)?;
                steps = schedule.timesteps_from(*t, self.steps)?;
                // A noisy image x0 + level · eps is x_t up to a factor.
                centred(noisy) * schedule.alpha_bar()[*t].sqrt()
            }
        };
        let x = x.to_kind(Kind::Float);
        Ok(Beginning { x, rng, steps })
    }

    /// The known pixels of inpainting, in `[-1, 1]`, and the mask, if they fit each other and this number of images.
    pub(super) fn known(&self, count: usize) -> Result<Option<(Tensor, Tensor)>> {
        let Some([images, mask]) = &self.known else {
            return Ok(None);
        };
        let (found, shape) = (check_images(images)?, mask.size());
        ensure!(
            found == count,
            "expected as many images to keep as are sampled, {count}; got {found}"
        );
        ensure!(
            shape == images.size() || shape == [1, 1, SIDE, SIDE],
            "the mask has shape {shape:?}; expected {:?}, or [1, 1, 28, 28] for all images",
            images.size()
        );
        let ends = [images.min(), images.max()].map(|end| end.double_value(&[]));
        ensure!(
            ends[0] >= -1e-3 && ends[1] <= 1.001,
            "the images to keep have pixels from {} to {}; expected 0 to 1, not centred",
            ends[0],
            ends[1]
        );
        let mask = mask.to_kind(Kind::Float);
        let others: Tensor = &mask * (&mask - 1.0);
        ensure!(
            others.abs().max().double_value(&[]) == 0.0,
            "the mask holds other numbers than 0 (to be drawn) and 1 (to be kept)"
        );
        Ok(Some((centred(images).to_kind(Kind::Float), mask)))
    }
}

/// Tensors are shared.
impl Clone for Sampler {
    fn clone(&self) -> Sampler {
        Sampler {
            start: match &self.start {
                Start::Drawn => Start::Drawn,
                Start::Noise(noise) => Start::Noise(noise.shallow_clone()),
                Start::Noisy(noisy, t) => Start::Noisy(noisy.shallow_clone(), *t),
            },
            known: self
                .known
                .as_ref()
                .map(|known| known.each_ref().map(Tensor::shallow_clone)),
            ..*self
        }
    }
}
