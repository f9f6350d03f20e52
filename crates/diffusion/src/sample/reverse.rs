//! The sampling loop.

use anyhow::{Result, ensure};
use tch::Tensor;

use super::sampler::{Beginning, Sampler};
use crate::schedule::Schedule;
use crate::unet::check_labels;

/// The noise that a network finds in `x` at a timestep, for these labels.
pub(super) type Predict<'a> = dyn Fn(&Tensor, usize, &[Option<i64>]) -> Result<Tensor> + 'a;

/// The images on their way.
#[derive(Debug)]
pub(crate) struct Frame {
    /// The timestep of `x`: `None` for the final image.
    pub(crate) t: Option<usize>,
    /// `(N, 1, 28, 28)`, pixels in `[-1, 1]` and noise beyond.
    pub(crate) x: Tensor,
    /// The prediction of the final images that led here, in `[-1, 1]`; None at the start.
    pub(crate) x0: Option<Tensor>,
}

/// From noise to images. `see` is shown the start and each step.
pub(super) fn reverse(
    predict: &Predict,
    schedule: &Schedule,
    labels: &[Option<i64>],
    sampler: &Sampler,
    see: &mut dyn FnMut(Frame),
) -> Result<Tensor> {
    sampler.check()?;
    check_labels(labels)?;
    let Beginning {
        mut x,
        mut rng,
        steps,
    } = sampler.begin(schedule, labels.len())?;
    let images = x.size()[0] as usize;
    ensure!(
        labels.len() == images || labels.len() == 1,
        "expected a label for each of {images} images, or one for all; got {}",
        labels.len()
    );
    let (w, known) = (sampler.guidance, sampler.known(images)?);
    let is_guided = w > 0.0 && labels.iter().any(Option::is_some);
    let mut see = |t, x: &Tensor, x0: Option<Tensor>| {
        let x = x.shallow_clone();
        see(Frame { t, x, x0 });
    };
    see(steps.first().map(|(now, _)| now.t), &x, None);
    for (now, next) in steps {
        let mut eps = predict(&x, now.t, labels)?;
        if is_guided {
            eps = (1.0 + w) * eps - w * predict(&x, now.t, &[None])?;
        }
        // No pixel is darker than black or brighter than white; the noise follows from the clamped image.
        let x0 = ((&x - now.sigma * &eps) / now.alpha).clamp(-1.0, 1.0);
        let eps = (&x - now.alpha * &x0) / now.sigma;
        let fresh = sampler.eta * now.posterior_deviation(&next);
        x = next.alpha * &x0 + (next.sigma.powi(2) - fresh.powi(2)).max(0.0).sqrt() * eps;
        if fresh > 0.0 {
            x += fresh * rng.normal(&x.size());
        }
        if let Some((known, mask)) = &known {
            // Known pixels are put in, as noisy as the rest (Lugmayr et al. 2022, "RePaint", eq. 8).
            let known = next.alpha * known + next.sigma * rng.normal(&x.size());
            x = mask * known + (1.0 - mask) * x;
        }
        see((!next.is_image()).then_some(next.t), &x, Some(x0));
    }
    Ok(x)
}
