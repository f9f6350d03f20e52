//! How good a picture is: numbers that compare it with the original.

use anyhow::{Result, ensure};
use figures::{Output, table_with_bold, thousands};
use ndarray::Array1;
use ops::check_stop;
use tch::{Kind, Tensor};

use crate::data::Split;
use crate::noise::{check_level, corrupt, noise_of};

/// The seed of the noise in evaluations: every model gets the same noisy images.
const EVALUATION_SEED: u64 = 20_260_101;
/// How many images are evaluated at once.
const BATCH: usize = 500;
/// How far rounding may carry a pixel out of `[0, 1]`.
const TOLERANCE: f64 = 1e-3;
/// Edge of SSIM's window in pixels.
const WINDOW: i64 = 7;

/// Peak signal-to-noise ratio of each image, in decibels: `10 · log10(1 / MSE)` for pixels in
/// `[0, 1]` (Huynh-Thu & Ghanbari 2008 give the definition and how far it can be trusted). Higher is
/// better; 10 dB more is a tenth of the squared error; equal images give infinity.
///
/// Both `(N, 1, 28, 28)`; one number for each image.
///
/// # Errors
/// Tensors of different shape, or pixels outside `[0, 1]` (centred images, bytes, logits).
pub fn psnr(original: &Tensor, other: &Tensor) -> Result<Array1<f64>> {
    check_pair(original, other)?;
    let mse = |(original, other): (Tensor, Tensor)| {
        let error = (original.to_kind(Kind::Double) - other.to_kind(Kind::Double)).square();
        error.flatten(1, -1).mean_dim(1i64, false, Kind::Double)
    };
    let batches = |images: &Tensor| images.split(BATCH as i64, 0);
    let pairs = batches(original).into_iter().zip(batches(other));
    let mse = Tensor::cat(&pairs.map(mse).collect::<Vec<_>>(), 0);
    Ok(to_array(&mse)?.mapv(|mse| -10.0 * mse.log10()))
}

/// Structural similarity of each image: 1 for equal images, about 0 for unrelated ones.
///
/// Wang et al. 2004, eq. 13, for pixels in `[0, 1]`: mean over all 7x7 windows that lie
/// wholly within the image, K1 = 0.01, K2 = 0.03, sample covariance (divided by 48). These are
/// scikit-image's defaults, so the numbers compare with what papers print.
///
/// Both `(N, 1, H, W)` with H and W at least 7; one number for each image.
///
/// # Errors
/// Tensors of different shape, with several channels, or smaller than the window; pixels outside `[0, 1]`.
pub fn ssim(original: &Tensor, other: &Tensor) -> Result<Array1<f64>> {
    check_pair(original, other)?;
    let shape = original.size();
    ensure!(
        shape.len() == 4 && shape[1] == 1 && shape[2] >= WINDOW && shape[3] >= WINDOW,
        "SSIM takes images of shape (N, 1, H, W) of at least 7x7 pixels; these have {shape:?}"
    );
    let [height, width] = [shape[2], shape[3]].map(|size| size as usize);
    // Image by image, each small enough to stay in the core's own cache.
    let numbers = |t: &Tensor| Vec::<f64>::try_from(t.to_kind(Kind::Double).contiguous().view(-1));
    let (x, y) = (numbers(original)?, numbers(other)?);
    let images = x.chunks(height * width).zip(y.chunks(height * width));
    Ok(images.map(|(x, y)| ssim_of(x, y, width)).collect())
}

/// [`ssim`] of one image.
fn ssim_of(x: &[f64], y: &[f64], width: usize) -> f64 {
    let n = (WINDOW * WINDOW) as f64;
    let product =
        |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a * b).collect() };
    let means = |image: &[f64]| window_means(image, width);
    let (mx, my) = (means(x), means(y));
    let (xx, yy, xy) = (
        means(&product(x, x)),
        means(&product(y, y)),
        means(&product(x, y)),
    );
    let (c1, c2) = (0.01f64.powi(2), 0.03f64.powi(2));
    let windows = mx.len();
    let sum: f64 = (0..windows)
        .map(|at| {
            let (mx, my) = (mx[at], my[at]);
            let covariance = |mean_of_product: f64, product_of_means: f64| {
                (mean_of_product - product_of_means) * n / (n - 1.0)
            };
            let (vx, vy) = (covariance(xx[at], mx * mx), covariance(yy[at], my * my));
            let vxy = covariance(xy[at], mx * my);
            let luminance = (2.0 * mx * my + c1) / (mx * mx + my * my + c1);
            let structure = (2.0 * vxy + c2) / (vx + vy + c2);
            luminance * structure
        })
        .sum();
    sum / windows as f64
}

/// The means over all windows that lie wholly within an image, row by row.
fn window_means(image: &[f64], width: usize) -> Vec<f64> {
    let size = WINDOW as usize;
    let across: Vec<f64> = image
        .chunks(width)
        .flat_map(|row| row.windows(size).map(|window| window.iter().sum::<f64>()))
        .collect();
    let row = width - size + 1;
    let below = |at: usize| (0..size).map(|down| across[at + down * row]).sum::<f64>();
    let n = (size * size) as f64;
    (0..across.len() - (size - 1) * row)
        .map(|at| below(at) / n)
        .collect()
}

/// The mean [`psnr`] of images, in decibels.
///
/// # Errors
/// As [`psnr`].
pub fn mean_psnr(original: &Tensor, other: &Tensor) -> Result<f64> {
    Ok(psnr(original, other)?.mean().unwrap_or(f64::NAN))
}

/// Mean scores over a set of images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// Mean peak signal-to-noise ratio in decibels.
    pub psnr: f64,
    /// Mean structural similarity.
    pub ssim: f64,
    /// How many images were evaluated.
    pub images: usize,
}

fn score_by(
    split: &Split,
    level: f64,
    denoise: &dyn Fn(&Tensor) -> Result<Tensor>,
) -> Result<Scores> {
    check_level(level)?;
    let (mut psnr_sum, mut ssim_sum) = (0.0, 0.0);
    for (clean, noisy) in noisy_batches(split, level) {
        check_stop()?;
        let restored = tch::no_grad(|| denoise(&noisy))?;
        psnr_sum += psnr(&clean, &restored)?.sum();
        ssim_sum += ssim(&clean, &restored)?.sum();
    }
    let images = split.len();
    Ok(Scores {
        psnr: psnr_sum / images as f64,
        ssim: ssim_sum / images as f64,
        images,
    })
}

/// All images of a split with their noisy versions, batch by batch, the last partial one included.
fn noisy_batches(split: &Split, level: f64) -> impl Iterator<Item = (Tensor, Tensor)> + '_ {
    (0..split.len()).step_by(BATCH).map(move |start| {
        let end = split.len().min(start + BATCH);
        let indices: Vec<i64> = (start as i64..end as i64).collect();
        noisy_batch(split, level, &indices)
    })
}

/// Some images of a split with their noisy versions, which are the same in every evaluation.
pub(crate) fn noisy_batch(split: &Split, level: f64, indices: &[i64]) -> (Tensor, Tensor) {
    let clean = split.gather(indices);
    let noisy = corrupt(&clean, &noise_of(EVALUATION_SEED, 0, indices), level);
    (clean, noisy)
}

impl Scores {
    /// Evaluates a denoiser over a whole split: every image gets noise of strength `level`, `denoise`
    /// works on it, and the result is compared with the original.
    ///
    /// The noise is the same for every denoiser, so two scores differ by the denoiser alone.
    /// To score the noisy images themselves, return the input: `|noisy| Ok(noisy.shallow_clone())`.
    ///
    /// # Errors
    /// A level that makes no sense, or an error of `denoise`; the notebook's Stop button.
    ///
    /// ```no_run
    /// use diffusion::prelude::*;
    ///
    /// # fn main() -> anyhow::Result<()> {
    /// let mnist = Mnist::load()?;
    /// let median: Scores = Scores::of(&mnist.test, 0.5, median_filter)?;
    /// println!("{:.2} dB", median.psnr);
    /// # Ok(())
    /// # }
    /// ```
    pub fn of(
        split: &Split,
        level: f64,
        denoise: impl Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<Scores> {
        score_by(split, level, &denoise)
    }

    /// A table of several scores with their names, best PSNR in bold.
    pub fn table(scores: &[(&str, Scores)]) -> Output {
        let best = scores
            .iter()
            .map(|(_, scores)| scores.psnr)
            .fold(f64::NEG_INFINITY, f64::max);
        let rows = scores.iter().map(|(name, scores)| {
            let cells = vec![
                name.to_string(),
                format!("{:.2} dB", scores.psnr),
                format!("{:.3}", scores.ssim),
            ];
            (cells, scores.psnr == best)
        });
        let (rows, bold): (Vec<_>, Vec<bool>) = rows.unzip();
        let images = scores.first().map_or(0, |(_, scores)| scores.images);
        let caption = format!("Means over {} images.", thousands(images));
        table_with_bold(&["", "PSNR", "SSIM"], rows, &bold, &caption)
    }
}

fn check_pair(original: &Tensor, other: &Tensor) -> Result<()> {
    ensure!(
        original.size() == other.size() && original.dim() >= 2,
        "expected two tensors of one shape, (N, …); got {:?} and {:?}",
        original.size(),
        other.size(),
    );
    check_pixels("original", original)?;
    check_pixels("other", other)
}

/// Are these pixels in `[0, 1]`, up to rounding? In another range the scores would be wrong.
fn check_pixels(which: &str, images: &Tensor) -> Result<()> {
    if images.numel() == 0 {
        return Ok(());
    }
    let ends = [images.min(), images.max()].map(|end| end.double_value(&[]));
    let [least, most] = ends;
    // NaN compares with nothing.
    ensure!(
        least >= -TOLERANCE && most <= 1.0 + TOLERANCE,
        "pixels must be from 0 to 1, and those of the {which} images are from {least:.3} to {most:.3}: take \
         to_pixels(…) of centred images, sigmoid() of logits, and divide bytes by 255"
    );
    Ok(())
}

fn to_array(tensor: &Tensor) -> Result<Array1<f64>> {
    Ok(Array1::from(Vec::<f64>::try_from(tensor)?))
}
