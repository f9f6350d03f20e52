//! Two filters that know nothing of digits: the honest baselines of a denoiser.

use anyhow::{Result, ensure};
use tch::Tensor;

/// The median of each pixel's 3x3 neighbourhood; beyond the edge the image is mirrored, the edge
/// pixel included (SciPy's `median_filter(size=3)`).
///
/// Images `(N, C, H, W)`, any range; the result has the same shape.
///
/// # Errors
/// A tensor of another rank, an empty one, or one of whole numbers.
pub fn median_filter(images: &Tensor) -> Result<Tensor> {
    let (_, _, height, width) = sizes(images)?;
    let padded = mirror(images, 1);
    let shifts: Vec<Tensor> = (0..9)
        .map(|at| padded.narrow(2, at / 3, height).narrow(3, at % 3, width))
        .collect();
    Ok(Tensor::stack(&shifts, 0).median_dim(0, false).0)
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
    let (count, channels, height, width) = sizes(images)?;
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
    let weights = Tensor::from_slice(&weights).to_kind(images.kind());
    let weights = &weights / weights.sum(images.kind());
    let size = 2 * radius + 1;
    let planes = mirror(images, radius).reshape([-1, 1, height + 2 * radius, width + 2 * radius]);
    let none = None::<Tensor>;
    let blurred = planes
        .conv2d(
            &weights.view([1, 1, size, 1]),
            none.as_ref(),
            [1, 1],
            [0, 0],
            [1, 1],
            1,
        )
        .conv2d(
            &weights.view([1, 1, 1, size]),
            none.as_ref(),
            [1, 1],
            [0, 0],
            [1, 1],
            1,
        );
    Ok(blurred.view([count, channels, height, width]))
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
