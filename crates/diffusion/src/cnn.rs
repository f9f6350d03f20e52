//! The lesson's convolutional denoiser: 28x28 in, convolutional and dense layers, 28x28 out.
//!
//! The same network as the lesson's Keras model, weight for weight: given the same weights it
//! computes the same function (the golden tests hold the two side by side).
//!
//! `layers.rs` describes how weights are laid out; flatten and reshape go channels last, as in Keras. With stride
//! 1 and "same" padding a transposed convolution is an ordinary one whose kernel is flipped in height and
//! width and has its channels swapped. We store that ordinary kernel: the same function, much faster.

use anyhow::Result;
use ops::Activation;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::data::{SIDE, check_images};
use crate::layers::{assert_images, convolutional, convolve, dense, linear};
use crate::model::{Forward, Layer, Model, parsed};
use crate::rng::Rng;

/// Mean pixel of MNIST's training images.
const MEAN_PIXEL: f64 = 0.1307;
/// How much wider than Keras's the kernel of `dense` is in [`Initialisation::Calibrated`].
const DENSE_SCALE: f64 = 16.0;

/// Settings of a [`Cnn`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CnnConfig {
    /// The seed of the first weights (default 26).
    ///
    /// With Keras's initialisation the seed matters much: see [`Initialisation::Keras`]. Seed 26 keeps more
    /// units of the layer `dense` alive than any other of the seeds 1 to 48:
    /// `cargo run -p diffusion --example seeds`.
    pub seed: u64,
    /// How the first weights are chosen (default [`Initialisation::Keras`]).
    #[serde(alias = "start")]
    pub initialisation: Initialisation,
}

impl Default for CnnConfig {
    fn default() -> CnnConfig {
        CnnConfig {
            seed: 26,
            initialisation: Initialisation::default(),
        }
    }
}

/// How a [`Cnn`]'s first weights are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Initialisation {
    /// As Keras does: kernels Glorot-uniform (Glorot & Bengio 2010, eq. 16: evenly spread over
    /// ±√(6 / (fan_in + fan_out))), biases zero.
    ///
    /// In the first dozen steps the whole network learns to darken its output. This leaves some of the 64 units of the
    /// layer `dense` dead: a ReLU whose input is negative for every image has no gradient. The seed decides how many
    /// units die, a few or nearly all. With few alive the loss stays near 0.26 for hundreds of steps.
    #[default]
    Keras,
    /// Keras's, but the untrained network's output has MNIST's mean brightness, and a step of Adam is
    /// small for `dense`. Two weights differ:
    ///
    /// - The bias of the last layer is `ln(p / (1 - p))` with `p = 0.1307`, the mean pixel, so that the first steps
    ///   need not darken the output (the prior of Lin et al. 2017, "Focal Loss for Dense Object Detection",
    ///   section 4.1).
    /// - The kernel of `dense` is 16 times as wide. Adam moves each weight by about its learning rate,
    ///   however small the gradient. A gradient that has the same sign for all images moves all 25,088 weights
    ///   of a unit the same way: with 0.001 the unit's input moves by 25 times its typical input
    ///   pixel, and with Keras's kernel it starts at about 1.4 times (√25,088 · 0.0089). One
    ///   step can kill the unit. 16 times as wide it starts at 22. (Yang et al. 2022, "Tensor Programs V:
    ///   Tuning Large Neural Networks", shrink Adam's step with the fan-in instead.)
    ///
    /// Over the seeds 1 to 6 this initialisation keeps 62 to 64 of the 64 units alive and ends an epoch at 18.85 to 19.05 dB;
    /// Keras's keeps 5 to 56 and ends the epoch at 14.4 to 18.2 dB. The experiments that led here, also those without
    /// effect, are in `crates/bench/README.md`.
    Calibrated,
}

/// The lesson's denoiser: 3,255,233 parameters in ten layers.
#[derive(Debug)]
pub struct Cnn {
    config: CnnConfig,
    layers: [Layer; 10],
}

impl Cnn {
    /// An untrained network; [`CnnConfig`] decides its first weights.
    pub fn new(config: CnnConfig) -> Cnn {
        let rng = &mut Rng::new(config.seed);
        // Each array is a shape as Keras prints it.
        let mut layers = [
            Layer::new("input_layer", "InputLayer", &[28, 28, 1], vec![]),
            convolutional(rng, "conv2d", "Conv2D", SIDE, 1, 16),
            convolutional(rng, "conv2d_1", "Conv2D", SIDE, 16, 32),
            Layer::new("flatten", "Flatten", &[25_088], vec![]),
            dense(rng, "dense", 25_088, 64),
            dense(rng, "dense_1", 64, 25_088),
            Layer::new("reshape", "Reshape", &[28, 28, 32], vec![]),
            convolutional(rng, "conv2d_transpose", "Conv2DTranspose", SIDE, 32, 32),
            convolutional(rng, "conv2d_transpose_1", "Conv2DTranspose", SIDE, 32, 16),
            convolutional(rng, "conv2d_2", "Conv2D", SIDE, 16, 1),
        ];
        match config.initialisation {
            Initialisation::Keras => {}
            Initialisation::Calibrated => calibrate(&mut layers),
        }
        Cnn { config, layers }
    }

    /// The first half of the network: images `(N, 1, 28, 28)` to `(N, 64)`, the output of the layer
    /// `dense`. The second half has nothing but these 64 numbers to draw the image from.
    ///
    /// # Errors
    /// Images of another shape, or of whole numbers.
    pub fn encode(&self, images: &Tensor) -> Result<Tensor> {
        check_images(images)?;
        Ok(self.encoded(images))
    }

    fn encoded(&self, x: &Tensor) -> Tensor {
        assert_images(x);
        let [_, conv, conv_1, _, dense, ..] = &self.layers;
        let x = x.reshape([-1, SIDE, SIDE, 1]); //             (N, 28, 28, 1), channels last from here on
        let x = convolve(&x, conv, Activation::Relu); //       (N, 28, 28, 16)
        let x = convolve(&x, conv_1, Activation::Relu); //     (N, 28, 28, 32)
        linear(&x.flatten(1, 3), dense).relu_() //             (N, 64)
    }

    /// The second half of the network: `(N, 64)` to the logits of images, `(N, 1, 28, 28)`.
    fn decoded(&self, encoding: &Tensor) -> Tensor {
        let [.., dense_1, _, up, up_1, out] = &self.layers;
        let x = linear(encoding, dense_1).relu_(); //              (N, 25,088)
        let x = x.view([-1, SIDE, SIDE, 32]); //               (N, 28, 28, 32)
        let x = convolve(&x, up, Activation::Relu); //         (N, 28, 28, 32)
        let x = convolve(&x, up_1, Activation::Relu); //       (N, 28, 28, 16)
        let x = convolve(&x, out, Activation::Linear); //      (N, 28, 28, 1)
        x.view([-1, 1, SIDE, SIDE])
    }

    /// The settings it was built from.
    pub fn config(&self) -> &CnnConfig {
        &self.config
    }
}

impl Model for Cnn {
    const KIND: &'static str = "cnn";

    fn settings(&self) -> Result<String> {
        Ok(serde_json::to_string(self.config())?)
    }

    fn with_settings(settings: &str) -> Result<Cnn> {
        Ok(Cnn::new(parsed(settings)?))
    }

    fn layers(&self) -> &[Layer] {
        &self.layers
    }

    fn layers_mut(&mut self) -> &mut [Layer] {
        &mut self.layers
    }

    fn map_layers(&self, change: &dyn Fn(&Layer) -> Layer) -> Cnn {
        Cnn {
            config: self.config.clone(),
            layers: self.layers.each_ref().map(change),
        }
    }
}

impl Forward for Cnn {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.decoded(&self.encoded(x))
    }
}

/// Turns Keras's first weights into those of [`Initialisation::Calibrated`].
fn calibrate(layers: &mut [Layer; 10]) {
    let [_, _, _, _, dense, .., out] = layers;
    let logit = (MEAN_PIXEL / (1.0 - MEAN_PIXEL)).ln();
    tch::no_grad(|| {
        let [(_, kernel), ..] = &mut dense.weights[..] else {
            return;
        };
        let _ = kernel.g_mul_scalar_(DENSE_SCALE);
        let [.., (_, bias)] = &mut out.weights[..] else {
            return;
        };
        let _ = bias.fill_(logit);
    });
}
