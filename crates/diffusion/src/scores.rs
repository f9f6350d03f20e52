//! How good generated images are: do they show the class of their label, are they as diverse as real ones, are they new?
//!
//! A classifier and its features measure all three, because pixels say little: a 7 moved by
//! one pixel is another picture to them. Statistics are in `float64`.

mod frechet;
mod kernel;
mod neighbours;

use anyhow::{Result, ensure};
use figures::{Output, table, thousands};
use ndarray::{Array1, Array2, ArrayView1};
use ops::Precision;
use tch::{Kind, Tensor};

use crate::data::Split;
use crate::network::Network;
use frechet::features_of;
pub use frechet::{evenly_chosen, frechet_distance, frechet_floor};
pub use kernel::kernel_distance;
pub use neighbours::{copies, copy_limit, nearest};

/// The layer of the classifier whose output are the features.
const FEATURES: &str = "dense";
/// How many real images generated ones are compared with, if there are so many.
const COMPARED: usize = 2_500;
/// How many images are searched for copies.
const SEARCHED: usize = 1_000;

/// The share of images that the classifier assigns to the class of their label, from 0 to 1.
///
/// `images` are `(N, 1, 28, 28)` in `[0, 1]`, `labels` one class for each.
///
/// # Errors
/// No images, another number of labels, or images of another shape.
pub fn class_accuracy(classifier: &Network, images: &Tensor, labels: &[i64]) -> Result<f64> {
    check_labels(images, labels)?;
    Ok(accuracy(&classes_of(classifier, images)?, labels))
}

/// The class that the classifier gives the highest probability, `(N,)`. In `float32`, as all that is measured.
fn classes_of(classifier: &Network, images: &Tensor) -> Result<Tensor> {
    let probabilities = classifier.predict_in(Precision::Float32, images)?;
    Ok(probabilities.argmax(-1, false))
}

/// The features of images, `(N, 128)`: what the classifier's layer `dense` puts out. Images of the same digit lie near each
/// other there, whatever their pixels.
///
/// # Errors
/// A network without a layer `dense`, or images that it does not take.
pub fn features(classifier: &Network, images: &Tensor) -> Result<Array2<f64>> {
    to_array(&feature_tensor(classifier, images)?)
}

fn feature_tensor(classifier: &Network, images: &Tensor) -> Result<Tensor> {
    classifier
        .up_to(FEATURES)?
        .predict_in(Precision::Float32, images)
}

fn to_array(features: &Tensor) -> Result<Array2<f64>> {
    let (rows, columns) = features.size2()?;
    let values = Vec::<f64>::try_from(features.to_kind(Kind::Double).contiguous().view(-1))?;
    Ok(Array2::from_shape_vec(
        (rows as usize, columns as usize),
        values,
    )?)
}

/// Fails for sets of features whose distance is not defined.
fn check_features(a: &Array2<f64>, b: &Array2<f64>) -> Result<()> {
    for features in [a, b] {
        ensure!(
            features.nrows() >= 2 && features.ncols() == a.ncols() && features.ncols() > 0,
            "expected two sets of at least two rows, with the same number of features; got {:?} and {:?}",
            a.dim(),
            b.dim()
        );
        ensure!(
            features.iter().all(|x| x.is_finite()),
            "a set of features holds numbers that are not finite"
        );
    }
    Ok(())
}

fn check_labels(images: &Tensor, labels: &[i64]) -> Result<()> {
    let count = images.size().first().copied().unwrap_or(0);
    ensure!(
        count > 0 && labels.len() as i64 == count,
        "expected a label for each of {count} images; got {}",
        labels.len()
    );
    Ok(())
}

fn accuracy(classes: &Tensor, labels: &[i64]) -> f64 {
    let right = classes.eq_tensor(&Tensor::from_slice(labels));
    right.sum(Kind::Double).double_value(&[]) / labels.len() as f64
}

/// The diversity of the images of each class relative to real ones: the root of the mean squared distance from the class's
/// mean, in features, divided by the same of the real ones. 1 is as diverse; near 0 a model has collapsed to one image.
///
/// # Errors
/// As [`class_accuracy`], or no class with at least two images in both.
pub fn diversity(
    classifier: &Network,
    images: &Tensor,
    labels: &[i64],
    real: &Split,
) -> Result<f64> {
    check_labels(images, labels)?;
    let ours = deviation_within(&features(classifier, images)?, labels)?;
    let real = evenly_chosen(real, labels.len().min(real.len() / 2), 0)?;
    let theirs = deviation_within(&features_of(classifier, &real)?, &real.labels(real.len())?)?;
    Ok(ours / theirs)
}

/// The root of the mean squared distance of an image from the mean of its class.
fn deviation_within(features: &Array2<f64>, labels: &[i64]) -> Result<f64> {
    let (mut sum, mut count) = (0.0, 0usize);
    for class in 0..10 {
        let rows: Vec<ArrayView1<f64>> = features
            .rows()
            .into_iter()
            .zip(labels)
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

/// The scores of generated images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GenerationScores {
    /// How many images were evaluated.
    pub images: usize,
    /// [`class_accuracy`]
    pub accuracy: f64,
    /// [`kernel_distance`] from up to 2,500 real images; features are divided by the root of the mean square of those of real images.
    pub distance: f64,
    /// [`diversity`]
    pub diversity: f64,
    /// [`copies`], of the first 1,000 images.
    pub copies: f64,
}

/// Real images, and their features, that generated images are compared with: computed once for many evaluations.
#[derive(Debug)]
pub struct Reference {
    classifier: Network,
    train: Split,
    count: usize,
    /// Of real images, divided by the root of their mean square.
    features: Array2<f64>,
    scale: f64,
    deviation: f64,
    copy_limit: f64,
}

impl Reference {
    /// Prepares evaluations of `count` generated images.
    ///
    /// Distances are measured from `unseen`, images that neither the generator nor the classifier was trained on; copies are
    /// searched in `train`.
    ///
    /// # Errors
    /// When `unseen` does not have twice as many images, `count` is below 2, or no class has two of the compared images.
    pub fn new(
        classifier: &Network,
        train: &Split,
        unseen: &Split,
        count: usize,
    ) -> Result<Reference> {
        let real = evenly_chosen(unseen, count, 0)?;
        let many = evenly_chosen(unseen, COMPARED.min(unseen.len() / 2).max(count), 0)?;
        let features = features_of(classifier, &many)?;
        let scale = features.mapv(|x| x * x).mean().unwrap_or(1.0).sqrt();
        Ok(Reference {
            classifier: classifier.shared(),
            train: train.shallow_clone(),
            count,
            deviation: deviation_within(&features_of(classifier, &real)?, &real.labels(count)?)?,
            copy_limit: copy_limit(train, unseen)?,
            features: features / scale,
            scale,
        })
    }

    /// Evaluates generated images: `images` `(count, 1, 28, 28)` in `[0, 1]`, and the label of each.
    ///
    /// Use each class as often as real images show it: the distance also measures wrong shares of classes.
    ///
    /// # Errors
    /// Another number of images than the reference was made for, or as the scores themselves.
    pub fn evaluate(&self, images: &Tensor, labels: &[i64]) -> Result<GenerationScores> {
        check_labels(images, labels)?;
        let count = self.count;
        ensure!(
            labels.len() == count,
            "got {} images; this reference compares {count}: choose as many, or make a reference for {}",
            labels.len(),
            labels.len()
        );
        // The images pass through the network once: the classes follow from the features.
        let features = feature_tensor(&self.classifier, images)?;
        let classes = classes_of(&self.classifier.after(FEATURES)?, &features)?;
        let features = to_array(&features)?;
        let searched = images.narrow(0, 0, count.min(SEARCHED) as i64);
        Ok(GenerationScores {
            images: count,
            accuracy: accuracy(&classes, labels),
            distance: kernel_distance(&(&features / self.scale), &self.features)?,
            diversity: deviation_within(&features, labels)? / self.deviation,
            copies: copies(&searched, &self.train, self.copy_limit)?,
        })
    }

    /// Evaluates as many real images, others than those that it measures distances from: what a perfect model would reach.
    ///
    /// # Errors
    /// When `unseen` does not have twice as many images.
    pub fn of_real(&self, unseen: &Split) -> Result<GenerationScores> {
        let count = self.count;
        let real = evenly_chosen(unseen, count, 1)?;
        self.evaluate(&real.images(count)?, &real.labels(count)?)
    }
}

impl GenerationScores {
    /// A table of several scores with their names.
    pub fn table<S: AsRef<str>>(scores: &[(S, GenerationScores)]) -> Output {
        let rows = scores.iter().map(|(name, scores)| {
            vec![
                name.as_ref().to_owned(),
                format!("{:.1} %", 100.0 * scores.accuracy),
                format!("{:.3}", scores.distance),
                format!("{:.2}", scores.diversity),
                format!("{:.1} %", 100.0 * scores.copies),
            ]
        });
        let images = scores.first().map_or(0, |(_, scores)| scores.images);
        let caption = format!("{} images each.", thousands(images));
        let head = ["", "accuracy", "distance", "diversity", "copies"];
        table(&head, rows.collect(), &caption)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn the_deviation_of_equal_images_is_zero() {
        let features = array![[0.0, 1.0], [2.0, 1.0], [5.0, 5.0], [5.0, 9.0]];
        let classes = [3, 3, 7, 7];
        // Variances 2 and 8, two images each.
        assert!((deviation_within(&features, &classes).unwrap() - 5f64.sqrt()).abs() < 1e-12);
        let equal = array![[1.0, 1.0], [1.0, 1.0]];
        assert_eq!(deviation_within(&equal, &[0, 0]).unwrap(), 0.0);
        assert!(deviation_within(&equal, &[0, 1]).is_err());
    }
}
