//! The sampling loop, one step at a time.

use std::fmt;

use anyhow::Result;
use tch::Tensor;

use super::noise_model::{NoiseModel, check_labels};
use super::sampler::Sampler;
use crate::data::SIDE;
use crate::rng::Rng;
use crate::schedule::Schedule;

/// The known pixels of inpainting.
#[derive(Debug)]
struct Known {
    x0: Tensor,
    /// 1 where a pixel is known, 0 where it is to be drawn.
    mask: Tensor,
}

/// One step of sampling.
#[derive(Debug)]
pub struct Step {
    /// The timestep of `x` in the schedule: `None` for the final image.
    pub t: Option<usize>,
    /// The images as they are now, `(N, 1, 28, 28)`, pixels in `[-1, 1]` and noise beyond.
    pub x: Tensor,
    /// The network's prediction of the final images, pixels in `[-1, 1]`.
    pub x0: Tensor,
}

/// The sampling loop: yields every step from noise to image.
///
/// With guidance strength `w` the predicted noise is `(1 + w) · eps(x, class) - w · eps(x, no class)` (Ho &
/// Salimans 2022, eq. 6): away from what any digit looks like, towards what this class looks like.
pub struct Steps<'a> {
    model: &'a dyn NoiseModel,
    schedule: &'a Schedule,
    sampler: Sampler,
    labels: Vec<Option<i64>>,
    /// The timesteps that are still to be taken, the next one last.
    remaining: Vec<usize>,
    x: Tensor,
    rng: Rng,
    known: Option<Known>,
}

impl fmt::Debug for Steps<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steps")
            .field("sampler", &self.sampler)
            .field("labels", &self.labels)
            .field("remaining", &self.remaining)
            .finish_non_exhaustive()
    }
}

impl<'a> Steps<'a> {
    /// From pure noise, `(labels, 1, 28, 28)`.
    ///
    /// # Errors
    /// Settings that make no sense, more steps than the schedule has, or a class that does not exist.
    pub fn new(
        model: &'a dyn NoiseModel,
        schedule: &'a Schedule,
        sampler: &Sampler,
        labels: &[Option<i64>],
    ) -> Result<Steps<'a>> {
        let mut rng = Rng::new(sampler.seed);
        let x = rng.normal(&[labels.len() as i64, 1, SIDE, SIDE]);
        let timesteps = schedule.timesteps(sampler.steps)?;
        Steps::along(model, schedule, sampler, labels, x, timesteps, rng)
    }

    /// From `x` at the first of these timesteps through all of them.
    pub(super) fn along(
        model: &'a dyn NoiseModel,
        schedule: &'a Schedule,
        sampler: &Sampler,
        labels: &[Option<i64>],
        x: Tensor,
        mut timesteps: Vec<usize>,
        rng: Rng,
    ) -> Result<Steps<'a>> {
        sampler.check()?;
        check_labels(labels)?;
        timesteps.reverse();
        Ok(Steps {
            model,
            schedule,
            sampler: sampler.clone(),
            labels: labels.to_vec(),
            remaining: timesteps,
            x,
            rng,
            known: None,
        })
    }

    /// The images as they are now, `(N, 1, 28, 28)`, pixels in `[-1, 1]` and noise beyond.
    pub fn x(&self) -> Tensor {
        self.x.shallow_clone()
    }

    /// The timestep of the images as they are now: `None` at the end.
    pub fn timestep(&self) -> Option<usize> {
        self.remaining.last().copied()
    }

    /// How many steps are still to be taken.
    pub(super) fn remaining(&self) -> usize {
        self.remaining.len()
    }

    /// Keeps the pixels of `x0` (in `[-1, 1]`) where `mask` is 1, and draws the others to fit.
    pub(super) fn keep(&mut self, x0: Tensor, mask: Tensor) {
        self.known = Some(Known { x0, mask });
    }

    /// The noise that the model predicts, guidance included.
    fn noise(&self, t: usize) -> Result<Tensor> {
        let strength = self.sampler.guidance;
        if strength == 0.0 || self.labels.iter().all(Option::is_none) {
            return self.model.noise(&self.x, t, &self.labels);
        }
        // Both in one pass: images with their labels, then the same without.
        let labels = [self.labels.clone(), vec![None; self.labels.len()]].concat();
        let twice = Tensor::cat(&[&self.x, &self.x], 0);
        let halves = self.model.noise(&twice, t, &labels)?.chunk(2, 0);
        Ok(&halves[0] * (1.0 + strength) - &halves[1] * strength)
    }

    fn step(&mut self, t: usize) -> Result<Step> {
        let alpha_bar = self.schedule.alpha_bar()[t];
        let next = self.remaining.last().copied();
        let alpha_bar_next = next.map_or(1.0, |t| self.schedule.alpha_bar()[t]);
        let eps = self.noise(t)?;
        let x0 = (&self.x - eps * (1.0 - alpha_bar).sqrt()) / alpha_bar.sqrt();
        // No pixel is darker than black or brighter than white; the noise follows from the clamped image.
        let x0 = x0.clamp(-1.0, 1.0);
        let eps = (&self.x - &x0 * alpha_bar.sqrt()) / (1.0 - alpha_bar).sqrt();
        // Song et al. 2020, eq. 16 and 12.
        let variance =
            (1.0 - alpha_bar_next) / (1.0 - alpha_bar) * (1.0 - alpha_bar / alpha_bar_next);
        let sigma = self.sampler.eta * variance.sqrt();
        let old_noise = (1.0 - alpha_bar_next - sigma * sigma).max(0.0).sqrt();
        let mut x = &x0 * alpha_bar_next.sqrt() + eps * old_noise;
        if sigma > 0.0 {
            x += self.rng.normal(&self.x.size()).to_kind(x.kind()) * sigma;
        }
        if let Some(Known { x0, mask }) = &self.known {
            // Known pixels are put in, as noisy as the rest (Lugmayr et al. 2022, "RePaint", eq. 8).
            let noise = self.rng.normal(&self.x.size()).to_kind(x.kind());
            let known = x0 * alpha_bar_next.sqrt() + noise * (1.0 - alpha_bar_next).sqrt();
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
        let t = self.remaining.pop()?;
        let _guard = tch::no_grad_guard();
        let step = self.step(t);
        if step.is_err() {
            self.remaining.clear();
        }
        Some(step)
    }
}
