//! What a network is built from: its list of layers, checked, and how the first weights are drawn.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::layer::{Activation, Initial, Layer, Operation};
use super::named_layer::NamedLayer;
use super::shape::{Shape, check_shape};
use crate::rng::Rng;

/// How many numbers all weights of a network may hold.
const MOST_PARAMETERS: i64 = 500_000_000;
/// Mean pixel of MNIST's training images.
const MEAN_PIXEL: f64 = 0.1307;
/// How much wider than Keras's the first dense kernel is in [`Initialisation::Calibrated`].
const DENSE_SCALE: f64 = 16.0;

/// How a network's first weights are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Initialisation {
    /// As Keras does: kernels Glorot-uniform (Glorot & Bengio 2010, eq. 16: evenly spread over
    /// ±√(6 / (fan_in + fan_out))), biases zero.
    ///
    /// In the first dozen steps the lesson's network learns to darken its output. This leaves some of the 64 units of the
    /// layer `dense` dead: a ReLU whose input is negative for every image has no gradient. The seed decides how many
    /// units die, a few or nearly all. With few alive the loss stays near 0.26 for hundreds of steps.
    #[default]
    Keras,
    /// Keras's, but the untrained network's output has MNIST's mean brightness, and a step of Adam is
    /// small for the first dense layer. Two weights differ:
    ///
    /// - The bias of the last layer, if its activation is the sigmoid, is `ln(p / (1 - p))` with `p = 0.1307`, the mean
    ///   pixel, so that the first steps need not darken the output (the prior of Lin et al. 2017, "Focal Loss for Dense
    ///   Object Detection", section 4.1).
    /// - The kernel of the first dense layer is 16 times as wide. Adam moves each weight by about its learning rate,
    ///   however small the gradient. A gradient that has the same sign for all images moves all 25,088 weights
    ///   of a unit of the lesson's `dense` the same way: with 0.001 the unit's input moves by 25 times its typical input
    ///   pixel, and with Keras's kernel it starts at about 1.4 times (√25,088 · 0.0089). One
    ///   step can kill the unit. 16 times as wide it starts at 22. (Yang et al. 2022, "Tensor Programs V:
    ///   Tuning Large Neural Networks", shrink Adam's step with the fan-in instead.)
    ///
    /// Over the seeds 1 to 6 this initialisation keeps 62 to 64 of the 64 units alive and ends an epoch at 18.85 to 19.05 dB;
    /// Keras's keeps 5 to 56 and ends the epoch at 14.4 to 18.2 dB. The experiments that led here, also those without
    /// effect, are in `crates/bench/README.md`.
    Calibrated,
}

/// Everything about a network but its weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blueprint {
    pub(super) input: Vec<i64>,
    pub(super) layers: Vec<Layer>,
    pub(super) seed: u64,
    pub(super) initialisation: Initialisation,
}

impl Blueprint {
    /// The layers with their first weights; the input comes first.
    ///
    /// # Errors
    /// A list that makes no network, with the layer and its number.
    pub(super) fn build(&self) -> Result<Vec<NamedLayer>> {
        let rng = &mut Rng::new(self.seed);
        let mut layers = self.named_layers(&mut |shape, initial| initial.draw(rng, shape))?;
        if self.initialisation == Initialisation::Calibrated {
            self.calibrate(&mut layers);
        }
        Ok(layers)
    }

    /// The layers with weights that `weight` gives for a shape.
    pub(super) fn named_layers(
        &self,
        weight: &mut dyn FnMut(&[i64], Initial) -> Tensor,
    ) -> Result<Vec<NamedLayer>> {
        check_shape(&self.input).context("the input of the network")?;
        ensure!(
            !self.layers.is_empty(),
            "the list of layers is empty; expected at least one, such as conv2d(16, 3).relu()"
        );
        // Checked as a whole first: a network that cannot be built takes up no memory.
        let (mut shapes, mut parameters) = (vec![self.input.clone()], 0i64);
        for (at, layer) in self.layers.iter().enumerate() {
            let input = &shapes[at];
            let named = || format!("layer {}, {layer}, where {} arrives", at + 1, Shape(input));
            let output = layer.output_shape(input).with_context(named)?;
            for (_, shape, _) in layer.weights(input) {
                let numbers = shape
                    .iter()
                    .try_fold(1i64, |all, &size| all.checked_mul(size));
                parameters = parameters.saturating_add(numbers.unwrap_or(i64::MAX));
            }
            ensure!(
                parameters <= MOST_PARAMETERS,
                "{}: with it the network has more than {} parameters; expected fewer",
                named(),
                figures::thousands(MOST_PARAMETERS as usize)
            );
            shapes.push(output);
        }
        let mut named = vec![NamedLayer::new(
            "input_layer",
            "InputLayer",
            &self.input,
            vec![],
        )];
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for (layer, shapes) in self.layers.iter().zip(shapes.windows(2)) {
            let (kind, first) = layer.keras_names();
            let count = counts.entry(first).or_default();
            let name = match *count {
                0 => first.to_owned(),
                count => format!("{first}_{count}"),
            };
            *count += 1;
            let weights = layer.weights(&shapes[0]).into_iter();
            let weights = weights.map(|(name, shape, initial)| (name, weight(&shape, initial)));
            named.push(NamedLayer::new(&name, kind, &shapes[1], weights.collect()));
        }
        Ok(named)
    }

    /// The index, in the list, of the layer whose activation ends the network, and that activation, if it may be left out
    /// and applied at the end: then what comes before are its logits.
    pub(super) fn head(&self) -> (usize, Activation) {
        let last = self.layers.iter().rposition(|layer| !layer.only_reshapes());
        let at = last.unwrap_or_default();
        let activation = self.layers.get(at).map(|layer| layer.activation);
        match activation {
            Some(Activation::Sigmoid) => (at, Activation::Sigmoid),
            // Not elementwise, so a new shape behind it would change it.
            Some(Activation::Softmax) if at + 1 == self.layers.len() => (at, Activation::Softmax),
            _ => (at, Activation::Linear),
        }
    }

    /// Turns Keras's first weights into those of [`Initialisation::Calibrated`].
    fn calibrate(&self, layers: &mut [NamedLayer]) {
        let (head, activation) = self.head();
        let is_dense = |layer: &Layer| matches!(layer.operation, Operation::Dense { .. });
        let dense = self.layers.iter().position(is_dense);
        tch::no_grad(|| {
            if let Some((_, kernel)) = dense.and_then(|at| layers[at + 1].weights.first_mut()) {
                let _ = kernel.g_mul_scalar_(DENSE_SCALE);
            }
            if activation == Activation::Sigmoid
                && let Some((_, bias)) = layers[head + 1].weights.last_mut()
            {
                let _ = bias.fill_((MEAN_PIXEL / (1.0 - MEAN_PIXEL)).ln());
            }
        });
    }
}

impl Initial {
    fn draw(self, rng: &mut Rng, shape: &[i64]) -> Tensor {
        let float = (Kind::Float, Device::Cpu);
        match self {
            Initial::Zeros => Tensor::zeros(shape, float),
            Initial::Ones => Tensor::ones(shape, float),
            Initial::Glorot { fans } => rng.uniform((6.0 / fans as f32).sqrt(), shape),
        }
    }
}
