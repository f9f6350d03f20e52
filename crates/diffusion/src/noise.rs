//! The lesson's corruption: Gaussian noise added to an image, clipped to the range of pixels.

use anyhow::{Result, ensure};
use tch::Tensor;

use crate::data::PIXELS;
use crate::rng::Rng;

/// Adds Gaussian noise of strength `level` to images and clips to `[0, 1]`.
///
/// `x_noisy = clip(x + level · ε, 0, 1)`, `ε ~ N(0, 1)` for each pixel. `level` is the standard
/// deviation in units of the pixel range: 0 changes nothing, 0.5 is the lesson's, and from about
/// 1 on little is left to see. Any shape; the result has the same one. `ε` comes from the
/// generator that [`set_seed`](crate::rng::set_seed) sets.
///
/// # Errors
/// A level that is negative, infinite or not a number; a tensor of whole numbers.
///
/// ```
/// use diffusion::prelude::*;
///
/// # fn main() -> anyhow::Result<()> {
/// let grey = Tensor::full([1, 1, 28, 28], 0.5, (Kind::Float, tch::Device::Cpu));
/// assert_eq!(add_noise(&grey, 0.0)?, grey);
/// assert!(add_noise(&grey, -1.0).is_err());
/// # Ok(())
/// # }
/// ```
pub fn add_noise(x: &Tensor, level: f64) -> Result<Tensor> {
    check_level(level)?;
    ensure!(
        x.is_floating_point(),
        "noise is added to fractions in [0, 1]; this tensor holds {:?} numbers",
        x.kind()
    );
    Ok(corrupt(x, &x.randn_like(), level))
}

/// The corruption's one formula, `clip(x + level · eps, 0, 1)`, for noise that is already drawn.
pub(crate) fn corrupt(x: &Tensor, eps: &Tensor, level: f64) -> Tensor {
    (x + eps * level).clamp_(0.0, 1.0)
}

/// Noise for the images at these indices: `(indices, 1, 28, 28)`, standard normal.
///
/// Each image's noise is a function of (seed, epoch, index) alone. So noise that stays the same
/// in every epoch needs no memory: it is drawn again, equal to the bit, whenever it is needed.
pub(crate) fn noise_of(seed: u64, epoch: u64, indices: &[i64]) -> Tensor {
    let mut values = vec![0f32; indices.len() * PIXELS];
    for (image, &index) in values.chunks_mut(PIXELS).zip(indices) {
        Rng::stream(seed, &[epoch, index.cast_unsigned()]).fill_normal(image);
    }
    Tensor::from_slice(&values).view([-1, 1, crate::data::SIDE, crate::data::SIDE])
}

/// A level of noise that makes sense: finite and not negative.
pub(crate) fn check_level(level: f64) -> Result<()> {
    ensure!(
        level.is_finite() && level >= 0.0,
        "the noise level is {level}; expected a number from 0 up (0.5 is the lesson's)"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn unclipped_noise_has_the_mean_and_variance_it_promises() {
        // At 0.5 with level 0.05 clipping needs a 10-sigma draw: mean 0.5, deviation 0.05.
        let grey = Tensor::full([1_000_000], 0.5, (Kind::Float, Device::Cpu));
        let noisy = add_noise(&grey, 0.05).unwrap().to_kind(Kind::Double);
        assert!((noisy.mean(Kind::Double).double_value(&[]) - 0.5).abs() < 2.5e-4);
        assert!((noisy.std(true).double_value(&[]) - 0.05).abs() < 2e-4);
    }

    #[test]
    fn clipped_noise_on_black_has_its_closed_form_mean() {
        // E[max(0, s·ε)] = s / √(2π) as long as the upper clip is far: s = 0.2.
        let black = Tensor::zeros([1_000_000], (Kind::Float, Device::Cpu));
        let noisy = add_noise(&black, 0.2).unwrap().to_kind(Kind::Double);
        let expected = 0.2 / (2.0 * std::f64::consts::PI).sqrt();
        assert!((noisy.mean(Kind::Double).double_value(&[]) - expected).abs() < 5e-4);
        assert!(noisy.min().double_value(&[]) >= 0.0 && noisy.max().double_value(&[]) <= 1.0);
    }

    #[test]
    fn a_level_that_makes_no_sense_is_named() {
        let image = Tensor::zeros([1, 1, 28, 28], (Kind::Float, Device::Cpu));
        for level in [-1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let error = add_noise(&image, level).unwrap_err().to_string();
            assert!(
                error.contains(&format!("noise level is {level}")),
                "{error}"
            );
        }
    }

    #[test]
    fn an_images_noise_depends_on_seed_epoch_and_index_only() {
        let ab = noise_of(1, 0, &[5, 9]);
        let ba = noise_of(1, 0, &[9, 5]);
        assert_eq!(ab.get(0), ba.get(1));
        assert_ne!(ab.get(0), ab.get(1));
        assert_ne!(ab, noise_of(1, 1, &[5, 9]));
        assert_ne!(ab, noise_of(2, 0, &[5, 9]));
    }
}
