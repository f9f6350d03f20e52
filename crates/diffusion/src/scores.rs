//! How good generated images are: do they show what they should, are they as varied as real ones, are they new?
//!
//! All three are asked of a classifier ([`Classifier`]) and of its features, since pixels say little: a 7 moved by
//! one pixel is another picture to them. Statistics are in `float64`.

mod frechet;
mod neighbours;

use anyhow::{Result, ensure};
use ndarray::{Array1, Array2, ArrayView1};
use tch::{Kind, Tensor};

use crate::classifier::Classifier;
use crate::data::Split;
use crate::show::Table;
use frechet::features_of;
pub use frechet::{evenly_chosen, frechet_distance, frechet_floor};
pub use neighbours::{copies, nearest};

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
