//! How good generated images are: do they show what they should, are they as varied as real ones, are they new?
//!
//! All three are asked of a classifier ([`Classifier`]) and of its features, since pixels say little: a 7 moved by
//! one pixel is another picture to them. Statistics are in `float64`.

use anyhow::{Context, Result, ensure};
use ndarray::{Array1, Array2, ArrayView1, Axis};
use tch::{Kind, Tensor};

use crate::classifier::Classifier;
use crate::data::Split;
use crate::layers::check_images;
use crate::show::Table;

/// How many training images, and how many others, are compared at once.
const BLOCK: i64 = 5_000;
const OTHERS: i64 = 1_000;

/// The share of images that the classifier reads as what they should show, from 0 to 1.
///
/// `images` are `(N, 1, 28, 28)` in `[0, 1]`, `classes` one for each.
///
/// # Errors
/// No images, another number of classes, or images of another shape.
pub fn class_accuracy(classifier: &Classifier, images: &Tensor, classes: &[i64]) -> Result<f64> {
    let count = images.size().first().copied().unwrap_or(0);
    ensure!(
        count > 0 && classes.len() as i64 == count,
        "expected a class for each of {count} images; got {}",
        classes.len()
    );
    let read = classifier.classify(images)?;
    let right = read
        .eq_tensor(&Tensor::from_slice(classes))
        .sum(Kind::Double);
    Ok(right.double_value(&[]) / count as f64)
}

/// The Fréchet distance between two clouds of features `(N, D)`, each seen as a normal distribution:
/// `|mean_a - mean_b|² + tr(A + B - 2 √(A B))` with the covariances A and B (Dowson & Landau 1982, eq. 2; for
/// generated images Heusel et al. 2017). 0 for equal clouds; the smaller, the more alike.
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
    for features in [a, b] {
        ensure!(
            features.nrows() >= 2 && features.ncols() == a.ncols(),
            "expected two clouds of at least two points, with the same number of features; got {:?} and {:?}",
            a.dim(),
            b.dim()
        );
        ensure!(
            features.iter().all(|x| x.is_finite()),
            "a cloud of features holds numbers that are not finite"
        );
    }
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

/// The Fréchet distance between two disjoint samples of real images, each of so many: what that of a perfect model would
/// be. The two are [chosen evenly](evenly_chosen), as MNIST's test images come from one group of writers first and
/// another after it.
///
/// # Errors
/// When there are not twice as many images.
pub fn frechet_floor(classifier: &Classifier, split: &Split, count: usize) -> Result<f64> {
    ensure!(
        count >= 2 && 2 * count <= split.len(),
        "two samples of {count} images cannot be had from {}; expected 2 to {}",
        split.len(),
        split.len() / 2
    );
    let features = |offset| features_of(classifier, &evenly_chosen(split, count, offset)?);
    frechet_distance(&features(0)?, &features(1)?)
}

/// So many images, evenly chosen from the whole split, from its first (0) or its second (1) on: a sample of all its
/// writers. The two have no image in common.
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
    // An even step, so that the two samples keep out of each other's way.
    let step = split.len() / count / 2 * 2;
    let indices: Vec<i64> = (0..count).map(|at| (at * step + offset) as i64).collect();
    split.select(&indices)
}

fn features_of(classifier: &Classifier, split: &Split) -> Result<Array2<f64>> {
    classifier.features(&split.images(split.len())?)
}

/// How varied the images of each class are beside real ones: the root of the mean squared distance from the class's
/// mean, in features, divided by the same of the real ones. 1 is as varied; near 0 a model has collapsed to one image.
///
/// # Errors
/// As [`class_accuracy`], or no class with at least two images in both.
pub fn spread(
    classifier: &Classifier,
    images: &Tensor,
    classes: &[i64],
    real: &Split,
) -> Result<f64> {
    let count = images.size().first().copied().unwrap_or(0);
    ensure!(
        classes.len() as i64 == count && count > 0,
        "expected a class for each of {count} images; got {}",
        classes.len()
    );
    let ours = spread_within(&classifier.features(images)?, classes)?;
    let real = evenly_chosen(real, classes.len().min(real.len() / 2), 0)?;
    let theirs = spread_within(&features_of(classifier, &real)?, &real.labels(real.len())?)?;
    Ok(ours / theirs)
}

/// The root of the mean squared distance of an image from the mean of its class.
fn spread_within(features: &Array2<f64>, classes: &[i64]) -> Result<f64> {
    let (mut sum, mut count) = (0.0, 0usize);
    for class in 0..10 {
        let rows: Vec<ArrayView1<f64>> = features
            .rows()
            .into_iter()
            .zip(classes)
            .filter(|(_, label)| **label == class)
            .map(|(row, _)| row)
            .collect();
        if rows.len() < 2 {
            continue;
        }
        let zeros = Array1::<f64>::zeros(features.ncols());
        let mean = rows.iter().fold(zeros, |sum, row| sum + row) / rows.len() as f64;
        let squares: f64 = rows
            .iter()
            .map(|row| (row - &mean).mapv(|x| x * x).sum())
            .sum();
        // Sample variance, so that few images do not look less varied than many.
        sum += squares / (rows.len() - 1) as f64 * rows.len() as f64;
        count += rows.len();
    }
    ensure!(count > 0, "no class has at least two images");
    Ok((sum / count as f64).sqrt())
}

/// The nearest training image of each image, by pixels: its index and the root of the mean squared difference of a
/// pixel.
///
/// `images` are `(N, 1, 28, 28)` in `[0, 1]`.
///
/// # Errors
/// Images of another shape.
pub fn nearest(images: &Tensor, split: &Split) -> Result<Vec<(usize, f64)>> {
    check_images(images)?;
    let shape = images.size();
    if shape[0] > OTHERS {
        let parts = images.split(OTHERS, 0);
        let parts: Vec<_> = parts
            .iter()
            .map(|part| nearest(part, split))
            .collect::<Result<_>>()?;
        return Ok(parts.concat());
    }
    let flat = images.to_kind(Kind::Float).flatten(1, -1);
    let squares = flat.square().sum_dim_intlist(1i64, true, Kind::Float);
    let mut best: Option<(Tensor, Tensor)> = None;
    let len = split.len() as i64;
    for start in (0..len).step_by(BLOCK as usize) {
        let end = len.min(start + BLOCK);
        let indices: Vec<i64> = (start..end).collect();
        let block = split.batch(&indices)?.flatten(1, -1);
        // |a - b|² = |a|² - 2 a·b + |b|²
        let others = block.square().sum_dim_intlist(1i64, false, Kind::Float);
        let distances = &squares - flat.matmul(&block.tr()) * 2.0 + others.unsqueeze(0);
        let (least, at) = distances.min_dim(1, false);
        let at = at + start;
        best = Some(match best {
            None => (least, at),
            Some((before, before_at)) => {
                let nearer = least.lt_tensor(&before);
                (
                    least.where_self(&nearer, &before),
                    at.where_self(&nearer, &before_at),
                )
            }
        });
    }
    let (least, at) = best.context("there are no images to compare with")?;
    let pixels = (shape[2] * shape[3]) as f64;
    let distances =
        Vec::<f64>::try_from(&(least.to_kind(Kind::Double) / pixels).clamp_min(0.0).sqrt())?;
    let at = Vec::<i64>::try_from(at)?;
    Ok(at
        .into_iter()
        .map(|at| at as usize)
        .zip(distances)
        .collect())
}

/// The share of images that are copies: nearer to a training image than `1 in 100` of unseen real images are. A model
/// that has learnt digits by heart has many; one that draws new ones has about 0.01.
///
/// # Errors
/// As [`nearest`].
pub fn copies(images: &Tensor, train: &Split, unseen: &Split) -> Result<f64> {
    let mut real: Vec<f64> = nearest(&unseen.images(unseen.len().min(2_000))?, train)?
        .into_iter()
        .map(|(_, distance)| distance)
        .collect();
    real.sort_by(f64::total_cmp);
    let limit = real[real.len() / 100];
    let ours = nearest(images, train)?;
    let near = ours
        .iter()
        .filter(|(_, distance)| *distance < limit)
        .count();
    Ok(near as f64 / ours.len() as f64)
}

/// The scores of generated images beside those of as many real ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GenerationScores {
    /// How many images were judged.
    pub images: usize,
    /// [`class_accuracy`]
    pub accuracy: f64,
    /// [`frechet_distance`] from real images.
    pub frechet: f64,
    /// The same between two real samples of this size.
    pub floor: f64,
    /// [`spread`]
    pub spread: f64,
    /// [`copies`], of the first 1,000 images.
    pub copies: f64,
}

/// Judges generated images: `images` `(N, 1, 28, 28)` in `[0, 1]`, `classes` what each was to show.
///
/// Distances are taken from `unseen`, images that neither the generator nor the classifier has learnt from; at least
/// twice as many as are judged, else fewer of the generated ones count for the distances. Ask for each class as often as
/// real images show it: the distance counts a wrong mixture, too. Below some hundreds of images, fewer than a few for each of
/// the 128 features, distance and floor say little.
///
/// # Errors
/// As the scores themselves.
pub fn judge(
    classifier: &Classifier,
    images: &Tensor,
    classes: &[i64],
    train: &Split,
    unseen: &Split,
) -> Result<GenerationScores> {
    let count = (classes.len()).min(unseen.len() / 2);
    let accuracy = class_accuracy(classifier, images, classes)?;
    let ours = classifier.features(&images.narrow(0, 0, count as i64))?;
    let real = features_of(classifier, &evenly_chosen(unseen, count, 0)?)?;
    Ok(GenerationScores {
        images: classes.len(),
        accuracy,
        frechet: frechet_distance(&ours, &real)?,
        floor: frechet_floor(classifier, unseen, count)?,
        spread: spread(classifier, images, classes, unseen)?,
        copies: copies(&images.narrow(0, 0, count.min(1_000) as i64), train, unseen)?,
    })
}

impl GenerationScores {
    /// How many times the floor the Fréchet distance is: 1 is as good as real images.
    pub fn over_floor(&self) -> f64 {
        self.frechet / self.floor
    }

    /// A table of several scores with their names, the lowest distance in bold.
    pub fn table<S: AsRef<str>>(scores: &[(S, GenerationScores)]) -> Table {
        let best = scores
            .iter()
            .map(|(_, scores)| scores.frechet)
            .fold(f64::INFINITY, f64::min);
        let rows = scores.iter().map(|(name, scores)| {
            let cells = vec![
                name.as_ref().to_owned(),
                format!("{:.1} %", 100.0 * scores.accuracy),
                format!("{:.1}", scores.frechet),
                format!("{:.1}", scores.over_floor()),
                format!("{:.2}", scores.spread),
                format!("{:.1} %", 100.0 * scores.copies),
            ];
            (cells, scores.frechet == best)
        });
        let (rows, bold) = rows.unzip();
        let (images, floor) = scores
            .first()
            .map_or((0, 0.0), |(_, scores)| (scores.images, scores.floor));
        Table {
            head: vec![
                "",
                "read as asked",
                "Fréchet",
                "over floor",
                "spread",
                "copies",
            ],
            rows,
            bold,
            caption: format!(
                "{} images each. Two samples of real images are {floor:.1} apart: the floor.",
                crate::data::thousands(images)
            ),
        }
    }
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

    #[test]
    fn the_spread_of_copies_is_zero_and_of_the_same_images_one() {
        let features = array![[0.0, 1.0], [2.0, 1.0], [5.0, 5.0], [5.0, 9.0]];
        let classes = [3, 3, 7, 7];
        // Variances 2 and 8, two images each.
        assert!((spread_within(&features, &classes).unwrap() - 5f64.sqrt()).abs() < 1e-12);
        let equal = array![[1.0, 1.0], [1.0, 1.0]];
        assert_eq!(spread_within(&equal, &[0, 0]).unwrap(), 0.0);
        assert!(spread_within(&equal, &[0, 1]).is_err());
    }
}
