//! The forward process: an image becomes noise, step by step.
//!
//! At step `t` of a [`Schedule`] an image `x0` has become
//! `x_t = √alpha_bar[t] · x0 + √(1 - alpha_bar[t]) · eps`, with `eps ~ N(0, 1)` for each pixel (Ho et al.
//! 2020, "Denoising Diffusion Probabilistic Models", eq. 4). `alpha_bar` falls from nearly 1 to nearly 0, so the first step
//! is almost the image and the last one almost noise alone.
//!
//! Diffusion works on pixels in `[-1, 1]`, so that noise and image have about the same size and mean.
//! [`centred`] and [`to_pixels`] are the one place where the two ranges meet.

#[cfg(test)]
mod tests;

use anyhow::{Error, Result, ensure};
use ndarray::Array1;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// A cosine schedule's betas are cut off here (Nichol & Dhariwal 2021, below eq. 17).
const LARGEST_BETA: f64 = 0.999;
/// More steps than this are a typing error.
const MOST_STEPS: usize = 100_000;
/// Below this `alpha_bar` the image cannot be computed back.
const SMALLEST_ALPHA_BAR: f64 = 1e-30;

/// The noise schedule: `beta` and `alpha_bar` at each timestep. Timesteps count from 0, the least noisy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Rule", into = "Rule")]
pub struct Schedule {
    rule: Rule,
    betas: Array1<f64>,
    alpha_bar: Array1<f64>,
}

/// How a schedule was made: what files say of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Rule {
    /// [`Schedule::linear`] in this many steps.
    Linear(usize),
    /// [`Schedule::cosine`] in this many steps.
    Cosine(usize),
    /// [`Schedule::from_betas`]
    Betas(Vec<f64>),
    /// [`Schedule::from_alpha_bar`]
    AlphaBar(Vec<f64>),
}

impl TryFrom<Rule> for Schedule {
    type Error = Error;

    fn try_from(rule: Rule) -> Result<Schedule> {
        match rule {
            Rule::Linear(steps) => Schedule::linear(steps),
            Rule::Cosine(steps) => Schedule::cosine(steps),
            Rule::Betas(betas) => Schedule::from_betas(betas.into()),
            Rule::AlphaBar(alpha_bar) => Schedule::from_alpha_bar(alpha_bar.into()),
        }
    }
}

impl From<Schedule> for Rule {
    fn from(schedule: Schedule) -> Rule {
        schedule.rule
    }
}

/// A timestep of a schedule, at which an image `x0` has become `x_t = alpha · x0 + sigma · eps`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timestep {
    /// Its number in the schedule. (0 also for the image itself, behind the last step, where `sigma` is 0.)
    pub t: usize,
    /// `√alpha_bar`, the strength of the image.
    pub alpha: f64,
    /// `√(1 - alpha_bar)`, the strength of the noise.
    pub sigma: f64,
}

impl Timestep {
    /// The image itself: where the reverse process ends.
    const IMAGE: Timestep = Timestep {
        t: 0,
        alpha: 1.0,
        sigma: 0.0,
    };

    /// Whether this is the image itself, which the reverse process ends with.
    pub fn is_image(&self) -> bool {
        self.sigma == 0.0
    }

    /// How strong the new noise is that DDPM draws on the step from here to `next`: the standard deviation of `x_next`,
    /// given `x_t` and `x0` (Ho et al. 2020, eq. 7; Song et al. 2020, eq. 16 with `eta` 1).
    pub fn posterior_deviation(&self, next: &Timestep) -> f64 {
        next.sigma / self.sigma * (1.0 - (self.alpha / next.alpha).powi(2)).sqrt()
    }
}

impl Schedule {
    /// Betas evenly spread from 0.0001 to 0.02 (Ho et al. 2020, section 4).
    ///
    /// The two ends were chosen for 1,000 steps: with many fewer the last step is far from pure noise.
    ///
    /// # Errors
    /// 0 steps, or so many (about 6,800) that `alpha_bar` falls below 1e-30.
    pub fn linear(steps: usize) -> Result<Schedule> {
        check_steps(steps)?;
        Schedule::of(Rule::Linear(steps), Array1::linspace(1e-4, 0.02, steps))
    }

    /// `alpha_bar` falls like a squared cosine (Nichol & Dhariwal 2021, "Improved Denoising Diffusion
    /// Probabilistic Models", eq. 17, with s = 0.008): slowly at both ends, so that fewer steps are wasted on
    /// images that are noise already.
    ///
    /// # Errors
    /// Steps of 0, or more than 100,000.
    ///
    /// ```
    /// use diffusion::prelude::*;
    ///
    /// # fn main() -> anyhow::Result<()> {
    /// let schedule = Schedule::cosine(1000)?;
    /// assert!((schedule.alpha_bar()[499] - 0.49).abs() < 0.01); // half-way, alpha_bar is about a half
    /// assert!(Schedule::cosine(0).is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn cosine(steps: usize) -> Result<Schedule> {
        check_steps(steps)?;
        let f = |step: usize| {
            let time = step as f64 / steps as f64;
            let angle = (time + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2;
            angle.cos().powi(2)
        };
        let beta = |step| (1.0 - f(step + 1) / f(step)).min(LARGEST_BETA);
        Schedule::of(Rule::Cosine(steps), (0..steps).map(beta).collect())
    }

    /// A schedule with these betas, the variance of the noise that each step adds.
    ///
    /// # Errors
    /// No betas, one that is not between 0 and 1 (`alpha_bar` would not fall from step to step), or so many
    /// that `alpha_bar` falls below 1e-30.
    pub fn from_betas(betas: Array1<f64>) -> Result<Schedule> {
        Schedule::of(Rule::Betas(betas.to_vec()), betas)
    }

    fn of(rule: Rule, betas: Array1<f64>) -> Result<Schedule> {
        check_steps(betas.len())?;
        if let Some((step, beta)) = betas
            .iter()
            .enumerate()
            .find(|(_, beta)| !(**beta > 0.0 && **beta < 1.0))
        {
            anyhow::bail!(
                "beta at step {step} is {beta}; expected a number between 0 and 1, so that every step adds noise"
            );
        }
        let mut product = 1.0;
        let alpha_bar = betas.mapv(|beta| {
            product *= 1.0 - beta;
            product
        });
        check_falling(&alpha_bar)?;
        Ok(Schedule {
            rule,
            betas,
            alpha_bar,
        })
    }

    /// A schedule with this `alpha_bar` at each timestep.
    ///
    /// # Errors
    /// No steps, or values that do not fall from step to step, between 1 and 0.
    pub fn from_alpha_bar(alpha_bar: Array1<f64>) -> Result<Schedule> {
        check_steps(alpha_bar.len())?;
        check_falling(&alpha_bar)?;
        let mut before = 1.0;
        let betas = alpha_bar.mapv(|now| {
            let beta = 1.0 - now / before;
            before = now;
            beta
        });
        Ok(Schedule {
            rule: Rule::AlphaBar(alpha_bar.to_vec()),
            betas,
            alpha_bar,
        })
    }

    /// How many steps there are.
    pub fn steps(&self) -> usize {
        self.betas.len()
    }

    /// The variance of the noise that each step adds, `beta` in Ho et al. 2020, eq. 2.
    pub fn betas(&self) -> &Array1<f64> {
        &self.betas
    }

    /// The share of the image's variance that remains after each step: the product of `1 - beta` so far.
    pub fn alpha_bar(&self) -> &Array1<f64> {
        &self.alpha_bar
    }

    /// `alpha_bar` one step before `step`; 1 before step 0.
    fn alpha_bar_before(&self, step: usize) -> f64 {
        match step {
            0 => 1.0,
            _ => self.alpha_bar[step - 1],
        }
    }

    /// The variance of `x_{t-1}` given `x_t` and `x0`: `beta_t · (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t)`
    /// (Ho et al. 2020, eq. 7). It is 0 at step 0.
    pub fn posterior_variance(&self) -> Array1<f64> {
        (0..self.steps())
            .map(|t| self.betas[t] * (1.0 - self.alpha_bar_before(t)) / (1.0 - self.alpha_bar[t]))
            .collect()
    }

    /// The strength of the noise relative to the image, `√((1 - alpha_bar) / alpha_bar)`: what
    /// [`add_noise`](crate::noise::add_noise) would call its level, on pixels in `[-1, 1]`.
    pub fn noise_level(&self) -> Array1<f64> {
        self.alpha_bar
            .mapv(|alpha_bar| ((1.0 - alpha_bar) / alpha_bar).sqrt())
    }

    /// The step whose noise relative to the image is nearest to this level, in units of pixels in `[0, 1]`.
    ///
    /// # Errors
    /// A level that is not a number above 0.
    pub fn step_of_noise(&self, level: f64) -> Result<usize> {
        ensure!(
            level.is_finite() && level > 0.0,
            "the noise level is {level}; expected a number above 0"
        );
        // Pixels in [-1, 1] are twice as far apart.
        let distance = |found: &f64| (found.ln() - (2.0 * level).ln()).abs();
        let levels = self.noise_level();
        let nearest = (0..self.steps())
            .min_by(|&a, &b| distance(&levels[a]).total_cmp(&distance(&levels[b])));
        Ok(nearest.unwrap_or(0))
    }

    /// Image and noise mixed as they are at step `t`: `√alpha_bar · x0 + √(1 - alpha_bar) · eps`.
    ///
    /// `x0` is `(N, …)` in `[-1, 1]`, `eps` of the same shape, standard normal; `t` names a step for each
    /// of the images, or one for all. (Ho et al. 2020, eq. 4.)
    ///
    /// # Errors
    /// A step that the schedule does not have, another number of steps than images, or tensors of
    /// different shape or of whole numbers.
    pub fn q_sample(&self, x0: &Tensor, t: &[usize], eps: &Tensor) -> Result<Tensor> {
        ensure!(
            x0.size() == eps.size() && x0.dim() >= 1 && x0.is_floating_point(),
            "expected image and noise of one shape, (N, …), that hold fractions; got {:?} and {:?} of {:?}",
            x0.size(),
            eps.size(),
            x0.kind()
        );
        let images = x0.size()[0] as usize;
        ensure!(
            t.len() == 1 || t.len() == images,
            "expected a step for each of {images} images, or one for all; got {}",
            t.len()
        );
        t.iter().try_for_each(|&t| self.check_step(t))?;
        let scale = |variance: fn(f64) -> f64| {
            let values: Vec<f64> = t
                .iter()
                .map(|&t| variance(self.alpha_bar[t]).sqrt())
                .collect();
            let mut shape = vec![1; x0.dim()];
            shape[0] = t.len() as i64;
            Tensor::from_slice(&values)
                .to_kind(x0.kind())
                .view(&shape[..])
        };
        Ok(x0 * scale(|alpha_bar| alpha_bar) + eps * scale(|alpha_bar| 1.0 - alpha_bar))
    }

    pub(crate) fn check_step(&self, t: usize) -> Result<()> {
        ensure!(
            t < self.steps(),
            "there is no step {t}; this schedule has the steps 0 to {}",
            self.steps() - 1
        );
        Ok(())
    }

    /// The reverse process in `count` steps, from noise to image: pairs of a timestep and the next one, evenly spaced. All
    /// timesteps if `count` is [`steps`](Schedule::steps); for two or more the last one is always 0, and its next one is the
    /// image itself.
    ///
    /// The first is always the last timestep of the schedule, because sampling starts from pure noise. A later start would
    /// spare steps of little use. But at a later timestep the image's mean already contributes, and pure noise lacks it. (Tried
    /// with `alpha_bar` 0.001: the Fréchet distance of 5,000 digits rose from 3.4 to 4.0 times its floor.)
    ///
    /// # Errors
    /// A count of 0, or of more steps than there are.
    ///
    /// ```
    /// use diffusion::prelude::*;
    ///
    /// # fn main() -> anyhow::Result<()> {
    /// // A network that knows that all images are grey: DDIM (Song et al. 2020) finds grey.
    /// let mut x: Tensor = Rng::new(7).normal(&[1, 1, 28, 28]);
    /// for (now, next) in Schedule::cosine(1000)?.timesteps(50)? {
    ///     let eps: Tensor = &x / now.sigma; // of x = alpha · 0 + sigma · eps
    ///     let x0: Tensor = (&x - now.sigma * &eps) / now.alpha;
    ///     x = next.alpha * x0 + next.sigma * eps;
    /// }
    /// assert!(x.abs().max().double_value(&[]) < 1e-6);
    /// # Ok(())
    /// # }
    /// ```
    pub fn timesteps(&self, count: usize) -> Result<Vec<(Timestep, Timestep)>> {
        Ok(self.pairs(self.evenly_spaced(count)?))
    }

    /// The last part of [`timesteps`](Schedule::timesteps): from timestep `t` on, for an image that is as noisy as there.
    ///
    /// # Errors
    /// A timestep that the schedule does not have, or as [`timesteps`](Schedule::timesteps).
    pub fn timesteps_from(&self, t: usize, count: usize) -> Result<Vec<(Timestep, Timestep)>> {
        self.check_step(t)?;
        let mut numbers = self.evenly_spaced(count)?;
        numbers.retain(|&number| number < t);
        numbers.insert(0, t);
        Ok(self.pairs(numbers))
    }

    fn evenly_spaced(&self, count: usize) -> Result<Vec<usize>> {
        ensure!(
            (1..=self.steps()).contains(&count),
            "cannot take {count} steps; this schedule has {}: expected 1 to {}",
            self.steps(),
            self.steps()
        );
        let last = (self.steps() - 1) as f64;
        let between = (count - 1).max(1) as f64;
        Ok((0..count)
            .map(|at| (last * (1.0 - at as f64 / between)).round() as usize)
            .collect())
    }

    fn pairs(&self, numbers: Vec<usize>) -> Vec<(Timestep, Timestep)> {
        let steps = numbers.iter().map(|&t| Timestep {
            t,
            alpha: self.alpha_bar[t].sqrt(),
            sigma: (1.0 - self.alpha_bar[t]).sqrt(),
        });
        let next = steps.clone().skip(1).chain([Timestep::IMAGE]);
        steps.zip(next).collect()
    }
}

fn check_falling(alpha_bar: &Array1<f64>) -> Result<()> {
    let mut before = 1.0;
    for (step, &now) in alpha_bar.iter().enumerate() {
        ensure!(
            now > SMALLEST_ALPHA_BAR && now < before,
            "alpha_bar at step {step} is {now:?}, and {before:?} before it; expected values that fall from step to step, from below 1 to above {SMALLEST_ALPHA_BAR:e}: fewer steps, or other betas"
        );
        before = now;
    }
    Ok(())
}

fn check_steps(steps: usize) -> Result<()> {
    ensure!(
        (1..=MOST_STEPS).contains(&steps),
        "a schedule cannot have {steps} steps; expected 1 to {MOST_STEPS} (1000 is usual)"
    );
    Ok(())
}

/// Pixels from `[0, 1]` to `[-1, 1]`, where diffusion works.
pub fn centred(pixels: &Tensor) -> Tensor {
    pixels * 2.0 - 1.0
}

/// Pixels from `[-1, 1]` to `[0, 1]`; what lies outside becomes the nearest of the two.
pub fn to_pixels(centred: &Tensor) -> Tensor {
    (centred.to_kind(Kind::Float) * 0.5 + 0.5).clamp(0.0, 1.0)
}
