//! What sampling needs of a model: the noise in an image.

use anyhow::{Result, ensure};
use ops::Precision;
use ops::pool::map_batches;
use tch::Tensor;

use crate::data::check_images;
use crate::unet::{CLASSES, Unet};

/// How many images pass through the network at once.
const BATCH: usize = 64;

/// A model that predicts the noise in an image.
pub trait NoiseModel {
    /// The noise in images `x` `(N, …)` with pixels in `[-1, 1]`, which are at step `t` of the schedule.
    /// `labels` has a class for each image, or `None` for any class.
    ///
    /// # Errors
    /// When it cannot be computed.
    fn noise(&self, x: &Tensor, t: usize, labels: &[Option<i64>]) -> Result<Tensor>;
}

impl NoiseModel for Unet {
    /// On all cores, in [`Precision::of_this_cpu`]; no gradients are recorded.
    fn noise(&self, x: &Tensor, t: usize, labels: &[Option<i64>]) -> Result<Tensor> {
        check_labels(labels)?;
        let images = check_images(x)?;
        ensure!(
            images == labels.len(),
            "expected a label for each of {images} images; got {}",
            labels.len()
        );
        let kind = Precision::of_this_cpu().kind();
        let classes: Vec<i64> = labels
            .iter()
            .map(|label| label.unwrap_or(CLASSES))
            .collect();
        let noise = map_batches(images, BATCH, &|| {
            let unet = self.replica(kind);
            let (x, classes) = (x.to_kind(kind), Tensor::from_slice(&classes));
            Box::new(move |range| {
                let part = |tensor: &Tensor| tensor.narrow(0, range.start, range.end - range.start);
                let classes = part(&classes);
                let timesteps = classes.full_like(t as i64);
                Ok(unet.forward(&part(&x), &timesteps, &classes))
            })
        })?;
        Ok(noise.to_kind(x.kind()))
    }
}

/// Are these labels: `Some(7)` for a seven, `None` for any class?
///
/// # Errors
/// No labels, or a class that is not in `0..=9`.
pub(super) fn check_labels(labels: &[Option<i64>]) -> Result<()> {
    ensure!(
        !labels.is_empty(),
        "got no labels; expected one for each image to sample"
    );
    for class in labels.iter().flatten() {
        ensure!(
            (0..CLASSES).contains(class),
            "there is no class {class}; expected one of 0 to {}",
            CLASSES - 1
        );
    }
    Ok(())
}
