//! A small classifier of digits: it measures generated images.

use anyhow::Result;
use ndarray::Array2;
use ops::Activation;
use ops::pool::map_batches;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::data::{SIDE, check_images};
use crate::layers::{assert_images, convolutional, convolve, dense, linear};
use crate::model::{Forward, Layer, Model, parsed};
use crate::rng::Rng;

/// How many features the last layer but one gives for an image.
pub const FEATURES: i64 = 128;
/// How many images pass through at once.
const BATCH: usize = 250;

/// Settings of a [`Classifier`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClassifierConfig {
    /// The seed of the first weights (default 1).
    pub seed: u64,
}

impl Default for ClassifierConfig {
    fn default() -> ClassifierConfig {
        ClassifierConfig { seed: 1 }
    }
}

/// Four convolutions and two dense layers: images `(N, 1, 28, 28)` in `[0, 1]` to ten classes.
#[derive(Debug)]
pub struct Classifier {
    config: ClassifierConfig,
    layers: [Layer; 10],
}

impl Classifier {
    /// An untrained network.
    pub fn new(config: ClassifierConfig) -> Classifier {
        let rng = &mut Rng::new(config.seed);
        let (half, quarter) = (SIDE / 2, SIDE / 4);
        let layers = [
            Layer::new("image", "InputLayer", &[SIDE, SIDE, 1], vec![]),
            convolutional(rng, "conv2d", "Conv2D", SIDE, 1, 16),
            convolutional(rng, "conv2d_1", "Conv2D", SIDE, 16, 32),
            Layer::new("max_pooling2d", "MaxPooling2D", &[half, half, 32], vec![]),
            convolutional(rng, "conv2d_2", "Conv2D", half, 32, 48),
            convolutional(rng, "conv2d_3", "Conv2D", half, 48, 48),
            Layer::new(
                "max_pooling2d_1",
                "MaxPooling2D",
                &[quarter, quarter, 48],
                vec![],
            ),
            Layer::new("flatten", "Flatten", &[quarter * quarter * 48], vec![]),
            dense(rng, "features", quarter * quarter * 48, FEATURES),
            dense(rng, "classes", FEATURES, 10),
        ];
        Classifier { config, layers }
    }

    /// The most likely class of each image: `(N,)`, `int64` in `0..=9`.
    ///
    /// # Errors
    /// Images of another shape than `(N, 1, 28, 28)`, or of whole numbers.
    pub fn classify(&self, images: &Tensor) -> Result<Tensor> {
        let logits = self.of_batches(images, Classifier::forward)?;
        Ok(logits.argmax(1, false))
    }

    /// The probability of each class, `(N, 10)`: the numbers of an image add up to 1.
    ///
    /// # Errors
    /// As [`classify`](Classifier::classify).
    pub fn probabilities(&self, images: &Tensor) -> Result<Tensor> {
        Ok(self
            .of_batches(images, Classifier::forward)?
            .softmax(1, Kind::Float))
    }

    /// The output of the last layer but one, `(N, 128)`: images of the same digit lie near each other
    /// there, whatever their pixels.
    ///
    /// # Errors
    /// As [`classify`](Classifier::classify).
    pub fn features(&self, images: &Tensor) -> Result<Array2<f64>> {
        to_array(&self.of_batches(images, Classifier::encoded)?)
    }

    /// [`features`](Classifier::features) and [`classify`](Classifier::classify) in one pass.
    ///
    /// # Errors
    /// As [`classify`](Classifier::classify).
    pub(crate) fn features_and_classes(&self, images: &Tensor) -> Result<(Array2<f64>, Tensor)> {
        let features = self.of_batches(images, Classifier::encoded)?;
        let logits = tch::no_grad(|| linear(&features, &self.layers[9]));
        Ok((to_array(&features)?, logits.argmax(1, false)))
    }

    fn of_batches(&self, images: &Tensor, f: fn(&Classifier, &Tensor) -> Tensor) -> Result<Tensor> {
        let count = check_images(images)?;
        map_batches(count, BATCH, &|| {
            let (classifier, images) = (self.replica(Kind::Float), images.shallow_clone());
            Box::new(move |range| {
                let batch = images.narrow(0, range.start, range.end - range.start);
                Ok(f(&classifier, &batch.to_kind(Kind::Float)))
            })
        })
    }

    fn encoded(&self, x: &Tensor) -> Tensor {
        assert_images(x);
        let [_, conv, conv_1, _, conv_2, conv_3, _, _, features, _] = &self.layers;
        let x = x.reshape([-1, SIDE, SIDE, 1]); //             (N, 28, 28, 1)
        let x = convolve(&x, conv, Activation::Relu); //       (N, 28, 28, 16)
        let x = convolve(&x, conv_1, Activation::Relu); //     (N, 28, 28, 32)
        let x = pooled(&x); //                                 (N, 14, 14, 32)
        let x = convolve(&x, conv_2, Activation::Relu); //     (N, 14, 14, 48)
        let x = convolve(&x, conv_3, Activation::Relu); //     (N, 14, 14, 48)
        let x = pooled(&x).flatten(1, 3); //                   (N, 2,352)
        linear(&x, features).relu() //                         (N, 128)
    }

    /// The settings it was built from.
    pub fn config(&self) -> &ClassifierConfig {
        &self.config
    }
}

fn to_array(features: &Tensor) -> Result<Array2<f64>> {
    let values = Vec::<f64>::try_from(features.to_kind(Kind::Double).contiguous().view(-1))?;
    let rows = features.size()[0] as usize;
    Ok(Array2::from_shape_vec((rows, FEATURES as usize), values)?)
}

/// The largest of each four neighbours: half as high and wide.
fn pooled(x: &Tensor) -> Tensor {
    let two = [2, 2];
    x.permute([0, 3, 1, 2])
        .max_pool2d(two, two, [0, 0], [1, 1], false)
        .permute([0, 2, 3, 1])
}

impl Model for Classifier {
    const KIND: &'static str = "classifier";

    fn settings(&self) -> Result<String> {
        Ok(serde_json::to_string(self.config())?)
    }

    fn with_settings(settings: &str) -> Result<Classifier> {
        Ok(Classifier::new(parsed(settings)?))
    }

    fn layers(&self) -> &[Layer] {
        &self.layers
    }

    fn layers_mut(&mut self) -> &mut [Layer] {
        &mut self.layers
    }

    fn map_layers(&self, change: &dyn Fn(&Layer) -> Layer) -> Classifier {
        Classifier {
            config: self.config.clone(),
            layers: self.layers.each_ref().map(change),
        }
    }
}

impl Forward for Classifier {
    fn forward(&self, x: &Tensor) -> Tensor {
        linear(&self.encoded(x), &self.layers[9])
    }
}
