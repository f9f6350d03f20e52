//! The Fréchet distance between two sets of features, and the real samples that it is measured from.

use anyhow::{Context, Result, ensure};
use ndarray::{Array1, Array2, Axis};
use tch::{Kind, Tensor};

use super::{check_features, features};
use crate::data::Split;
use crate::network::Network;

/// The Fréchet distance between two sets of features `(N, D)`, each described by a normal distribution:
/// `|mean_a - mean_b|² + tr(A + B - 2 √(A B))` with the covariances A and B (Dowson & Landau 1982, eq. 2; for
/// generated images Heusel et al. 2017). 0 for equal sets; smaller is more alike.
///
/// It has a floor: two samples of one distribution differ by chance, the more the smaller they are. Show it beside
/// the distance between two real samples of the same size.
///
/// # Errors
/// Fewer than two rows, another number of columns, or numbers that are not finite.
///
/// ```
/// use diffusion::scores::frechet_distance;
/// use ndarray::array;
///
/// # fn main() -> anyhow::Result<()> {
/// let a = array![[0.0], [2.0]]; // mean 1, variance 2
/// let b = array![[4.0], [6.0]]; // mean 5, variance 2
/// assert!((frechet_distance(&a, &b)? - 16.0).abs() < 1e-9);
/// # Ok(())
/// # }
/// ```
pub fn frechet_distance(a: &Array2<f64>, b: &Array2<f64>) -> Result<f64> {
    check_features(a, b)?;
    let (mean_a, cov_a) = moments(a)?;
    let (mean_b, cov_b) = moments(b)?;
    let between = (&mean_a - &mean_b).mapv(|x| x * x).sum();
    // tr √(A B) = tr √(√A B √A), which is symmetric: features that never vary make A singular, and a root of
    // A B itself would not exist.
    let root = matrix_root(&cov_a)?;
    let inner = root.matmul(&cov_b).matmul(&root);
    let inner = (&inner + inner.tr()) / 2.0;
    let shared = eigenvalues(&inner)?.clamp_min(0.0).sqrt().sum(Kind::Double);
    let traces = cov_a.trace() + cov_b.trace();
    Ok((between + (traces - shared * 2.0).double_value(&[])).max(0.0))
}

/// Mean `(D)` and sample covariance `(D, D)` of rows.
fn moments(features: &Array2<f64>) -> Result<(Array1<f64>, Tensor)> {
    let mean = features
        .mean_axis(Axis(0))
        .context("there are no features")?;
    let centred = features - &mean;
    let covariance = centred.t().dot(&centred) / (features.nrows() - 1) as f64;
    let side = features.ncols() as i64;
    let values: Vec<f64> = covariance.iter().copied().collect();
    Ok((mean, Tensor::from_slice(&values).view([side, side])))
}

/// The symmetric root of a covariance.
fn matrix_root(covariance: &Tensor) -> Result<Tensor> {
    let (values, vectors) = covariance.f_linalg_eigh("L")?;
    let roots = values.clamp_min(0.0).sqrt();
    Ok((&vectors * roots.unsqueeze(0)).matmul(&vectors.tr()))
}

fn eigenvalues(symmetric: &Tensor) -> Result<Tensor> {
    Ok(symmetric.f_linalg_eigvalsh("L")?)
}

/// The Fréchet distance between two disjoint samples of `count` real images: the distance that a perfect model would
/// have. The two are [chosen evenly](evenly_chosen), as MNIST's test images come from one group of writers first and
/// another after it.
///
/// # Errors
/// When there are not twice as many images.
pub fn frechet_floor(classifier: &Network, split: &Split, count: usize) -> Result<f64> {
    ensure!(
        count >= 2 && 2 * count <= split.len(),
        "cannot take two samples of {count} images from {}; expected 2 to {}",
        split.len(),
        split.len() / 2
    );
    let features = |offset| features_of(classifier, &evenly_chosen(split, count, offset)?);
    frechet_distance(&features(0)?, &features(1)?)
}

/// `count` images, evenly chosen from the whole split, starting at its first image (`offset` 0) or its second (1): a sample
/// of all its writers. The two have no image in common.
///
/// # Errors
/// When there are not twice as many images.
pub fn evenly_chosen(split: &Split, count: usize, offset: usize) -> Result<Split> {
    ensure!(
        count > 0 && offset < 2 && 2 * count <= split.len(),
        "{count} images from {offset} on cannot be chosen evenly from {}; expected 1 to {}, from 0 or 1 on",
        split.len(),
        split.len() / 2
    );
    // An even step, so that the two samples have no image in common.
    let step = split.len() / count / 2 * 2;
    let indices: Vec<i64> = (0..count).map(|at| (at * step + offset) as i64).collect();
    split.select(&indices)
}

pub(super) fn features_of(classifier: &Network, split: &Split) -> Result<Array2<f64>> {
    features(classifier, &split.images(split.len())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn equal_clouds_are_at_distance_zero_also_where_a_feature_never_varies() {
        let cloud = array![
            [1.0, 5.0, 2.0],
            [2.0, 5.0, 0.0],
            [4.0, 5.0, 1.0],
            [0.0, 5.0, 7.0]
        ];
        assert!(frechet_distance(&cloud, &cloud).unwrap() < 1e-9);
        let moved = &cloud + &array![3.0, 0.0, 4.0];
        assert!((frechet_distance(&cloud, &moved).unwrap() - 25.0).abs() < 1e-9);
    }

    #[test]
    fn independent_features_have_their_closed_form() {
        // Variances 2 and 8 in one feature: (√8 - √2)² = 2.
        let a = array![[-1.0, 0.0], [1.0, 0.0]];
        let b = array![[-2.0, 0.0], [2.0, 0.0]];
        assert!((frechet_distance(&a, &b).unwrap() - 2.0).abs() < 1e-9);
    }

    #[test]
    fn clouds_that_cannot_be_compared_are_named() {
        let a = array![[1.0, 2.0], [3.0, 4.0]];
        let text = |b: &Array2<f64>| frechet_distance(&a, b).unwrap_err().to_string();
        assert!(text(&array![[1.0, 2.0]]).contains("(1, 2)"));
        assert!(text(&array![[1.0], [2.0]]).contains("(2, 1)"));
        assert!(text(&array![[1.0, f64::NAN], [2.0, 3.0]]).contains("not finite"));
    }

    #[test]
    fn two_even_choices_have_no_image_in_common() {
        // Each image is known by its first pixel.
        let images = Tensor::zeros([21, 1, 28, 28], (Kind::Float, tch::Device::Cpu));
        let numbers = Tensor::arange(21, (Kind::Float, tch::Device::Cpu)) / 255.0;
        images
            .select(1, 0)
            .select(1, 0)
            .select(1, 0)
            .copy_(&numbers);
        let split = Split::of(&images, &[0; 21]).unwrap();
        let chosen = |count, offset| -> Vec<i64> {
            let chosen = evenly_chosen(&split, count, offset).unwrap();
            let images = chosen.images(count).unwrap() * 255.0;
            let first = images.select(1, 0).select(1, 0).select(1, 0).round();
            Vec::try_from(first.to_kind(Kind::Int64)).unwrap()
        };
        assert_eq!(chosen(3, 0), [0, 6, 12]);
        assert_eq!(chosen(3, 1), [1, 7, 13]);
        assert_eq!(chosen(10, 1), [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]);
        let error = evenly_chosen(&split, 11, 0).unwrap_err().to_string();
        assert!(error.contains("expected 1 to 10"), "{error}");
        assert!(evenly_chosen(&split, 3, 2).is_err());
    }
}
