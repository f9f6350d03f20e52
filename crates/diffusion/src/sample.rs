//! The reverse process: from noise to images, step by step.
//!
//! There is one loop, [`Steps`]. At each step a network says which noise it sees in `x_t`; what is left
//! without it is its guess at the final image, `x0`; and the next `x` is that guess with less noise, part of it the old noise and part of
//! it new (Song et al. 2020, "Denoising Diffusion Implicit Models", eq. 12). DDPM and DDIM are two settings
//! of it: `eta` 1 over all steps is DDPM (Ho et al. 2020, algorithm 2), `eta` 0 is DDIM, which draws nothing new and
//! so may take few steps.

mod samples;

use std::fmt;

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use crate::crew::map_ranges;
use crate::data::SIDE;
use crate::model::Model;
use crate::precision::Precision;
use crate::rng::Rng;
use crate::schedule::{Schedule, centred};
use crate::unet::{CLASSES, Unet};
pub use samples::Samples;

/// How many images pass through the network at once.
const BATCH: usize = 64;

/// Something that finds the noise in an image.
pub trait NoiseModel {
    /// The noise in images `x` `(N, …)` with pixels in `[-1, 1]`, which are at step `t` of the schedule.
    /// `classes` says for each image what it is to show, or that nothing is said.
    ///
    /// # Errors
    /// When it cannot be computed.
    fn noise(&self, x: &Tensor, t: usize, classes: &[Option<i64>]) -> Result<Tensor>;
}

impl NoiseModel for Unet {
    /// On all cores, in [`Precision::of_this_cpu`]; nothing is remembered for training.
    fn noise(&self, x: &Tensor, t: usize, classes: &[Option<i64>]) -> Result<Tensor> {
        check_classes(classes)?;
        let images = check_square(x)?;
        ensure!(
            images == classes.len(),
            "expected a class for each of {images} images; got {}",
            classes.len()
        );
        let kind = Precision::of_this_cpu().kind();
        let classes: Vec<i64> = classes
            .iter()
            .map(|class| class.unwrap_or(CLASSES))
            .collect();
        let state = || {
            let classes = Tensor::from_slice(&classes);
            (self.replica(kind), x.to_kind(kind), classes)
        };
        let found = map_ranges(classes.len(), BATCH, state, |(unet, x, classes), range| {
            let part = |tensor: &Tensor| tensor.narrow(0, range.start as i64, range.len() as i64);
            let classes = part(classes);
            let times = Tensor::full_like(&classes, t as i64);
            unet.forward(&part(x), &times, &classes)
        })?;
        Ok(found.to_kind(x.kind()))
    }
}

/// How to sample. A cell states only what differs from the defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampler {
    /// How many steps to take (default 50).
    pub steps: usize,
    /// How much of the noise is drawn anew at each step: 0 none (DDIM, the default), 1 all that DDPM draws.
    pub eta: f64,
    /// How strongly to insist on the class: 0 is what was learnt (the default), 1 and more exaggerate it. See
    /// [`Steps`] for the formula.
    pub guidance: f64,
    /// The seed of all noise (default 1).
    pub seed: u64,
}

impl Default for Sampler {
    fn default() -> Sampler {
        Sampler {
            steps: 50,
            eta: 0.0,
            guidance: 0.0,
            seed: 1,
        }
    }
}

impl Sampler {
    /// DDIM (Song et al. 2020) in so many steps.
    pub fn ddim(steps: usize) -> Sampler {
        Sampler {
            steps,
            ..Sampler::default()
        }
    }

    /// DDPM (Ho et al. 2020, algorithm 2), which takes all of the schedule's steps.
    pub fn ddpm(schedule: &Schedule) -> Sampler {
        Sampler {
            steps: schedule.steps(),
            eta: 1.0,
            ..Sampler::default()
        }
    }

    /// The same with another guidance strength.
    #[must_use]
    pub fn guided(self, guidance: f64) -> Sampler {
        Sampler { guidance, ..self }
    }

    /// The same with another seed.
    #[must_use]
    pub fn seeded(self, seed: u64) -> Sampler {
        Sampler { seed, ..self }
    }

    fn check(&self) -> Result<()> {
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
}

/// What to draw, one for each image: `Some(7)` a seven, `None` whatever comes.
///
/// # Errors
/// No images, or a class that is not in `0..=9`.
fn check_classes(classes: &[Option<i64>]) -> Result<()> {
    ensure!(
        !classes.is_empty(),
        "nothing to draw: no classes were given"
    );
    for class in classes.iter().flatten() {
        ensure!(
            (0..CLASSES).contains(class),
            "there is no class {class}; expected one of 0 to {}",
            CLASSES - 1
        );
    }
    Ok(())
}

/// What is known of the images before they are drawn.
#[derive(Debug)]
struct Known {
    x0: Tensor,
    /// 1 where a pixel is known, 0 where it is to be painted.
    mask: Tensor,
}

/// One step on the way.
#[derive(Debug)]
pub struct Step {
    /// Where in the schedule `x` has arrived: `None` when it is the final image.
    pub t: Option<usize>,
    /// The images as they are now, `(N, 1, 28, 28)`, pixels in `[-1, 1]` and noise beyond.
    pub x: Tensor,
    /// What the network thinks that the final images are, pixels in `[-1, 1]`.
    pub x0: Tensor,
}

/// The loop: yields every step from noise to image.
///
/// With guidance strength `w` the noise that counts is `(1 + w) · eps(x, class) - w · eps(x, nothing said)` (Ho &
/// Salimans 2022, eq. 6): away from what any digit looks like, towards what this one does.
pub struct Steps<'a> {
    model: &'a dyn NoiseModel,
    schedule: &'a Schedule,
    sampler: Sampler,
    classes: Vec<Option<i64>>,
    /// The steps that are still to be taken, the next one last.
    ahead: Vec<usize>,
    x: Tensor,
    rng: Rng,
    known: Option<Known>,
}

impl fmt::Debug for Steps<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steps")
            .field("sampler", &self.sampler)
            .field("classes", &self.classes)
            .field("ahead", &self.ahead)
            .finish_non_exhaustive()
    }
}

impl<'a> Steps<'a> {
    /// From pure noise, `(classes, 1, 28, 28)`.
    ///
    /// # Errors
    /// Settings that make no sense, more steps than the schedule has, or a class that there is not.
    pub fn new(
        model: &'a dyn NoiseModel,
        schedule: &'a Schedule,
        sampler: &Sampler,
        classes: &[Option<i64>],
    ) -> Result<Steps<'a>> {
        let mut rng = Rng::new(sampler.seed);
        let x = rng.normal(&[classes.len() as i64, 1, SIDE, SIDE]);
        let ahead = schedule.spread(sampler.steps)?;
        Steps::along(model, schedule, sampler, classes, x, ahead, rng)
    }

    /// From `x` at the first of the steps `ahead` through all of them.
    fn along(
        model: &'a dyn NoiseModel,
        schedule: &'a Schedule,
        sampler: &Sampler,
        classes: &[Option<i64>],
        x: Tensor,
        mut ahead: Vec<usize>,
        rng: Rng,
    ) -> Result<Steps<'a>> {
        sampler.check()?;
        check_classes(classes)?;
        ahead.reverse();
        Ok(Steps {
            model,
            schedule,
            sampler: sampler.clone(),
            classes: classes.to_vec(),
            ahead,
            x,
            rng,
            known: None,
        })
    }

    /// The images as they are now, `(N, 1, 28, 28)`, pixels in `[-1, 1]` and noise beyond.
    pub fn now(&self) -> Tensor {
        self.x.shallow_clone()
    }

    /// The step of the schedule at which the images are now: `None` at the end.
    pub fn ahead(&self) -> Option<usize> {
        self.ahead.last().copied()
    }

    /// The noise that the model sees, guidance included.
    fn noise(&self, t: usize) -> Result<Tensor> {
        let strength = self.sampler.guidance;
        if strength == 0.0 || self.classes.iter().all(Option::is_none) {
            return self.model.noise(&self.x, t, &self.classes);
        }
        // Both in one go: images with their classes, then the same without.
        let classes = [self.classes.clone(), vec![None; self.classes.len()]].concat();
        let twice = Tensor::cat(&[&self.x, &self.x], 0);
        let halves = self.model.noise(&twice, t, &classes)?.chunk(2, 0);
        Ok(&halves[0] * (1.0 + strength) - &halves[1] * strength)
    }

    fn step(&mut self, t: usize) -> Result<Step> {
        let left = self.schedule.alpha_bar()[t];
        let next = self.ahead.last().copied();
        let left_next = next.map_or(1.0, |t| self.schedule.alpha_bar()[t]);
        let eps = self.noise(t)?;
        let guess = (&self.x - eps * (1.0 - left).sqrt()) / left.sqrt();
        // No pixel is darker than black; what the noise must have been follows from that.
        let x0 = guess.clamp(-1.0, 1.0);
        let eps = (&self.x - &x0 * left.sqrt()) / (1.0 - left).sqrt();
        // Song et al. 2020, eq. 16 and 12.
        let sigma =
            self.sampler.eta * ((1.0 - left_next) / (1.0 - left) * (1.0 - left / left_next)).sqrt();
        let mut x =
            &x0 * left_next.sqrt() + eps * (1.0 - left_next - sigma * sigma).max(0.0).sqrt();
        if sigma > 0.0 {
            x += self.rng.normal(&self.x.size()).to_kind(x.kind()) * sigma;
        }
        if let Some(Known { x0, mask }) = &self.known {
            // What is known takes its place, as noisy as the rest (Lugmayr et al. 2022, "RePaint", eq. 8).
            let noise = self.rng.normal(&self.x.size()).to_kind(x.kind());
            let known = x0 * left_next.sqrt() + noise * (1.0 - left_next).sqrt();
            x = known * mask + x * (1.0 - mask);
        }
        self.x = x;
        Ok(Step {
            t: next,
            x: self.x.shallow_clone(),
            x0,
        })
    }
}

impl Iterator for Steps<'_> {
    type Item = Result<Step>;

    fn next(&mut self) -> Option<Result<Step>> {
        let t = self.ahead.pop()?;
        let _guard = tch::no_grad_guard();
        let step = self.step(t);
        if step.is_err() {
            self.ahead.clear();
        }
        Some(step)
    }
}

/// What to draw, an image of each of these classes: `asked(&[7; 10])` ten sevens.
pub fn asked(classes: &[i64]) -> Vec<Option<i64>> {
    classes.iter().copied().map(Some).collect()
}

/// So many classes, 0 to 9 in turn.
pub fn in_turn(images: usize) -> Vec<i64> {
    (0..CLASSES).cycle().take(images).collect()
}

/// New images for these classes, from pure noise: `sample(&unet, &schedule, &Sampler::ddim(25), &[Some(7); 10])?`.
///
/// # Errors
/// As [`Steps::new`], or when the model fails.
pub fn sample(
    model: &dyn NoiseModel,
    schedule: &Schedule,
    sampler: &Sampler,
    classes: &[Option<i64>],
) -> Result<Samples> {
    Samples::of(Steps::new(model, schedule, sampler, classes)?)
}

/// New images from noise of one's own, `(classes, 1, 28, 28)`, standard normal: the same noise with other classes, or noises
/// between two. With [`Sampler::eta`] 0 nothing else is left to chance.
///
/// # Errors
/// Noise of another shape, or as [`sample`].
pub fn sample_from(
    model: &dyn NoiseModel,
    schedule: &Schedule,
    sampler: &Sampler,
    noise: &Tensor,
    classes: &[Option<i64>],
) -> Result<Samples> {
    let images = check_square(noise)?;
    ensure!(
        classes.len() == images,
        "expected a class for each of {images} noises; got {}",
        classes.len()
    );
    let (x, rng) = (noise.to_kind(Kind::Float), Rng::new(sampler.seed));
    let ahead = schedule.spread(sampler.steps)?;
    let steps = Steps::along(model, schedule, sampler, classes, x, ahead, rng)?;
    Samples::of(steps)
}

/// Images that are noisy already, cleaned: the reverse process from the step `t` at which they are as
/// noisy as given ([`Schedule::step_of_noise`] finds it).
///
/// `noisy` is `(N, 1, 28, 28)` in units of pixels in `[0, 1]`, not clipped or clipped; nothing is said about classes.
/// [`Sampler::steps`] counts the steps of the whole way, of which the last part is taken.
///
/// # Errors
/// Images of another shape, a step that there is not, or as [`sample`].
pub fn denoise_from(
    model: &dyn NoiseModel,
    schedule: &Schedule,
    sampler: &Sampler,
    noisy: &Tensor,
    t: usize,
) -> Result<Samples> {
    schedule.check_step(t)?;
    let images = check_square(noisy)?;
    // An image with noise beside it, x0 + sigma · eps, is x_t but for its size.
    let x = centred(noisy) * schedule.alpha_bar()[t].sqrt();
    let (classes, rng) = (vec![None; images], Rng::new(sampler.seed));
    let mut ahead = schedule.spread(sampler.steps)?;
    ahead.retain(|&step| step < t);
    ahead.insert(0, t);
    Samples::of(Steps::along(
        model, schedule, sampler, &classes, x, ahead, rng,
    )?)
}

/// Paints what is missing: pixels where `mask` is 1 stay as in `images`, the others are drawn to fit.
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
    classes: &[Option<i64>],
) -> Result<Samples> {
    let count = check_square(images)?;
    let shape = mask.size();
    ensure!(
        shape == images.size() || shape == [1, 1, SIDE, SIDE],
        "the mask has shape {shape:?}; expected {:?}, or [1, 1, 28, 28] for all images",
        images.size()
    );
    ensure!(
        classes.len() == count,
        "expected a class for each of {count} images; got {}",
        classes.len()
    );
    let mask = mask.to_kind(Kind::Float);
    let others: Tensor = &mask * (&mask - 1.0);
    let is_binary = others.abs().max().double_value(&[]) == 0.0;
    ensure!(
        is_binary,
        "the mask holds other numbers than 0 (to be painted) and 1 (to be kept)"
    );
    let mut steps = Steps::new(model, schedule, sampler, classes)?;
    steps.known = Some(Known {
        x0: centred(images),
        mask,
    });
    Samples::of(steps)
}

fn check_square(images: &Tensor) -> Result<usize> {
    let shape = images.size();
    ensure!(
        shape.len() == 4
            && shape[0] > 0
            && shape[1..] == [1, SIDE, SIDE]
            && images.is_floating_point(),
        "expected images of shape (N, 1, 28, 28) that hold fractions; these have {shape:?} of {:?}",
        images.kind()
    );
    Ok(shape[0] as usize)
}
