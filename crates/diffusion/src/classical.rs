//! Classical filters: baselines for a denoiser, and the convolution that networks are made of.

use anyhow::{Result, ensure};
use tch::Tensor;

/// How many images are filtered at once: few enough to stay in the processor's cache, so that thousands take hardly more memory than
/// their result.
const BATCH: i64 = 250;

/// The median of each pixel's 3x3 neighbourhood; beyond the edge the image is mirrored, the edge
/// pixel included (SciPy's `median_filter(size=3)`).
///
/// Images `(N, C, H, W)`, any range; the result has the same shape.
///
/// # Errors
/// A tensor of another rank, an empty one, or one of whole numbers.
pub fn median_filter(images: &Tensor) -> Result<Tensor> {
    let (_, _, height, width) = sizes(images)?;
    Ok(in_batches(images, |images| medians(images, height, width)))
}

/// [`median_filter`] of a batch.
fn medians(images: &Tensor, height: i64, width: i64) -> Tensor {
    let padded = mirror(images, 1);
    let mut neighbours: [Tensor; 9] = std::array::from_fn(|at| {
        let (down, right) = (at as i64 / 3, at as i64 % 3);
        padded.narrow(2, down, height).narrow(3, right, width)
    });
    // Nine images at once, pixel by pixel: enough comparisons that the fifth of them is the median.
    for (low, high) in MEDIAN_OF_NINE {
        let (a, b) = (&neighbours[low], &neighbours[high]);
        (neighbours[low], neighbours[high]) = (a.minimum(b), a.maximum(b));
    }
    let [_, _, _, _, median, ..] = neighbours;
    median
}

/// Pairs of indices to sort, one after the other; then index 4 holds the median of nine (Smith 1996,
/// "Implementing median filters in XC4000E FPGAs").
const MEDIAN_OF_NINE: [(usize, usize); 19] = [
    (1, 2),
    (4, 5),
    (7, 8),
    (0, 1),
    (3, 4),
    (6, 7),
    (1, 2),
    (4, 5),
    (7, 8),
    (0, 3),
    (5, 8),
    (4, 7),
    (3, 6),
    (1, 4),
    (2, 5),
    (4, 7),
    (4, 2),
    (6, 4),
    (4, 2),
];

/// Each channel convolved with one kernel, `(K, K)` with an odd K: at each place the sum of the products of the kernel and the
/// pixels below it. Beyond the edge the image is black. (As in networks, the kernel is not turned round.)
///
/// Images `(N, C, H, W)`, any range; the result has the same shape.
///
/// # Errors
/// A tensor of another rank, an empty one, or one of whole numbers; a kernel of another shape.
///
/// ```
/// use diffusion::classical::convolve;
/// use diffusion::prelude::*;
///
/// # fn main() -> anyhow::Result<()> {
/// let images = Tensor::ones([1, 1, 5, 5], (Kind::Float, Device::Cpu));
/// let sum = convolve(&images, &Tensor::ones([3, 3], (Kind::Float, Device::Cpu)))?;
/// assert_eq!(sum.double_value(&[0, 0, 2, 2]), 9.0);
/// assert_eq!(sum.double_value(&[0, 0, 0, 0]), 4.0); // in a corner
/// # Ok(())
/// # }
/// ```
pub fn convolve(images: &Tensor, kernel: &Tensor) -> Result<Tensor> {
    let (_, channels, _, _) = sizes(images)?;
    let side = kernel.size().first().copied().unwrap_or(0);
    ensure!(
        kernel.size() == [side, side] && side % 2 == 1,
        "the kernel has shape {:?}; expected (K, K) with an odd K, as (3, 3)",
        kernel.size()
    );
    let kernels = kernel
        .to_kind(images.kind())
        .expand([channels, 1, side, side], false);
    let around = [side / 2, side / 2];
    Ok(images.f_conv2d::<&Tensor>(&kernels, None, [1, 1], around, [1, 1], channels)?)
}

/// A Gaussian blur of standard deviation `sigma` pixels, cut off at four deviations; beyond the
/// edge the image is mirrored (SciPy's `gaussian_filter(sigma)`).
///
/// Images `(N, C, H, W)`, any range; the result has the same shape.
///
/// # Errors
/// A tensor of another rank, an empty one, or one of whole numbers; a sigma that is not positive, or so wide that its window
/// reaches over the whole image.
pub fn gaussian_filter(images: &Tensor, sigma: f64) -> Result<Tensor> {
    let (_, _, height, width) = sizes(images)?;
    let radius = (4.0 * sigma + 0.5).floor();
    ensure!(
        sigma > 0.0 && radius < height.min(width) as f64,
        "the blur's sigma is {sigma}; expected more than 0 and less than {}",
        (height.min(width) as f64 - 0.5) / 4.0,
    );
    let radius = radius as i64;
    let weights: Vec<f64> = (-radius..=radius)
        .map(|x| (-0.5 * (x as f64 / sigma).powi(2)).exp())
        .collect();
    let sum: f64 = weights.iter().sum();
    // Rows, then columns: a weighted sum of the image and its shifted copies.
    Ok(in_batches(images, |images| {
        let mut blurred = mirror(images, radius);
        for (dim, size) in [(2, height), (3, width)] {
            let shifted = |at| blurred.narrow(dim, at, size);
            let mut mean = shifted(0) * (weights[0] / sum);
            for (at, weight) in (0..).zip(&weights).skip(1) {
                mean += shifted(at) * (weight / sum);
            }
            blurred = mean;
        }
        blurred
    }))
}

fn in_batches(images: &Tensor, filter: impl Fn(&Tensor) -> Tensor) -> Tensor {
    let results: Vec<Tensor> = images.split(BATCH, 0).iter().map(filter).collect();
    Tensor::cat(&results, 0)
}

fn sizes(images: &Tensor) -> Result<(i64, i64, i64, i64)> {
    ensure!(
        images.dim() == 4 && images.numel() > 0 && images.is_floating_point(),
        "a filter takes images of shape (N, C, H, W) that hold fractions; these have {:?} of {:?}",
        images.size(),
        images.kind()
    );
    Ok(images.size4()?)
}

/// Pads height and width by mirroring, the edge included: `c b a | a b c | c b a`.
fn mirror(images: &Tensor, pad: i64) -> Tensor {
    [2, 3]
        .into_iter()
        .fold(images.shallow_clone(), |images, dim| {
            let last = images.size()[dim as usize] - 1;
            let indices: Vec<i64> = (-pad..=last + pad)
                .map(|at| {
                    if at < 0 {
                        -1 - at
                    } else if at > last {
                        2 * last + 1 - at
                    } else {
                        at
                    }
                })
                .collect();
            images.index_select(dim, &Tensor::from_slice(&indices))
        })
}
