//! The kernel distance between two sets of features.

use anyhow::Result;
use ndarray::Array2;

use super::check_features;

/// The kernel distance between two sets of features `(N, D)` and `(M, D)`: the unbiased estimate of the squared maximum mean
/// discrepancy (Gretton et al. 2012, eq. 3) with the kernel `k(x, y) = (x·y / D + 1)³` (Bińkowski et al. 2018, "Demystifying MMD GANs",
/// section 4, as "kernel inception distance").
///
/// Its mean over samples of one distribution is 0, however few they are, so some hundreds of images are enough. It can be a
/// little below 0 by chance. Larger is less alike.
///
/// # Errors
/// Fewer than two rows, another number of columns, or numbers that are not finite.
///
/// ```
/// use diffusion::scores::kernel_distance;
/// use ndarray::array;
///
/// # fn main() -> anyhow::Result<()> {
/// let a = array![[0.0], [1.0]]; // k(0, 1) = 1
/// let b = array![[2.0], [3.0]]; // k(2, 3) = 343; between the sets 1, 1, 27 and 64
/// assert!((kernel_distance(&a, &b)? - (1.0 + 343.0 - 2.0 * 93.0 / 4.0)).abs() < 1e-9);
/// # Ok(())
/// # }
/// ```
pub fn kernel_distance(a: &Array2<f64>, b: &Array2<f64>) -> Result<f64> {
    check_features(a, b)?;
    let between = kernel(a, b).sum() / (a.nrows() * b.nrows()) as f64;
    Ok(mean_within(a) + mean_within(b) - 2.0 * between)
}

fn kernel(a: &Array2<f64>, b: &Array2<f64>) -> Array2<f64> {
    let features = a.ncols() as f64;
    a.dot(&b.t())
        .mapv(|product| (product / features + 1.0).powi(3))
}

/// The mean of the kernel over pairs of different rows.
fn mean_within(a: &Array2<f64>) -> f64 {
    let (kernel, rows) = (kernel(a, a), a.nrows() as f64);
    (kernel.sum() - kernel.diag().sum()) / (rows * (rows - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use ndarray::array;

    fn sample(seed: u64, rows: usize, mean: f64) -> Array2<f64> {
        let values = Rng::new(seed).normal(&[rows as i64, 8]);
        let values = Vec::<f64>::try_from(values.to_kind(tch::Kind::Double).view(-1)).unwrap();
        Array2::from_shape_vec((rows, 8), values).unwrap() + mean
    }

    #[test]
    fn samples_of_one_distribution_are_at_distance_0_on_average() {
        let distances: Vec<f64> = (0..200)
            .map(|seed| {
                kernel_distance(&sample(seed, 20, 0.0), &sample(seed + 1000, 30, 0.0)).unwrap()
            })
            .collect();
        let mean = distances.iter().sum::<f64>() / 200.0;
        let squares: f64 = distances
            .iter()
            .map(|distance| (distance - mean).powi(2))
            .sum();
        let error_of_mean = (squares / 199.0 / 200.0).sqrt();
        assert!(mean.abs() < 3.0 * error_of_mean, "{mean} ± {error_of_mean}");
        // Some are below 0: that is what makes the mean 0.
        assert!(distances.iter().any(|&distance| distance < 0.0));
    }

    #[test]
    fn it_grows_with_the_difference_of_the_means() {
        let real = sample(1, 200, 0.0);
        let at = |mean| kernel_distance(&sample(2, 200, mean), &real).unwrap();
        assert!(
            at(0.2) < at(0.5) && at(0.5) < at(1.0),
            "{} {} {}",
            at(0.2),
            at(0.5),
            at(1.0)
        );
    }

    #[test]
    fn sets_that_cannot_be_compared_are_named() {
        let a = array![[1.0, 2.0], [3.0, 4.0]];
        let text = |b: &Array2<f64>| kernel_distance(&a, b).unwrap_err().to_string();
        assert!(text(&array![[1.0, 2.0]]).contains("(1, 2)"));
        assert!(text(&array![[1.0], [2.0]]).contains("(2, 1)"));
        assert!(text(&array![[1.0, f64::NAN], [2.0, 3.0]]).contains("not finite"));
    }
}
