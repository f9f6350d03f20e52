//! One layer of a network, and what can be done with a list of them.

use std::ops::{Bound, RangeBounds};

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

/// One layer: a name, what comes out of it, and the weights it holds.
#[derive(Debug)]
pub struct Layer {
    /// The name, as Keras gives it: `conv2d`, `conv2d_1`, `dense`, …
    pub name: String,
    /// The kind of layer, as Keras calls it: `Conv2D`, `Dense`, …
    pub kind: &'static str,
    /// The shape that comes out for one image, channels last as in Keras's table.
    pub output_shape: Vec<i64>,
    /// Named weights, `float32` (in a replica its kind). Empty for layers that only reshape.
    pub weights: Vec<(&'static str, Tensor)>,
    trainable: bool,
}

impl Layer {
    /// A trainable layer with these weights.
    pub fn new(
        name: &str,
        kind: &'static str,
        output_shape: &[i64],
        weights: Vec<(&'static str, Tensor)>,
    ) -> Layer {
        let mut layer = Layer {
            name: name.to_owned(),
            kind,
            output_shape: output_shape.to_vec(),
            weights,
            trainable: true,
        };
        layer.set_trainable(true);
        layer
    }

    /// Whether training may change this layer's weights.
    pub fn is_trainable(&self) -> bool {
        self.trainable
    }

    /// How many numbers the layer's weights hold.
    pub fn parameters(&self) -> usize {
        self.weights.iter().map(|(_, weight)| weight.numel()).sum()
    }

    /// The same layer with weights in another kind; in the same kind it shares its weights' memory.
    pub(crate) fn in_kind(&self, kind: Kind) -> Layer {
        let convert = |weight: &Tensor| match weight.kind() == kind {
            true => weight.shallow_clone(),
            false => weight
                .detach()
                .to_kind(kind)
                .set_requires_grad(self.trainable),
        };
        Layer {
            name: self.name.clone(),
            kind: self.kind,
            output_shape: self.output_shape.clone(),
            weights: self
                .weights
                .iter()
                .map(|(name, weight)| (*name, convert(weight)))
                .collect(),
            trainable: self.trainable,
        }
    }

    pub(crate) fn set_trainable(&mut self, trainable: bool) {
        self.trainable = trainable;
        for (_, weight) in &mut self.weights {
            *weight = weight.detach().set_requires_grad(trainable);
        }
    }
}

/// Freezes or unfreezes a range of layers.
pub(super) fn set_trainable(
    layers: &mut [Layer],
    range: impl RangeBounds<usize>,
    trainable: bool,
) -> Result<()> {
    let count = layers.len();
    let start = match range.start_bound() {
        Bound::Included(&at) => at,
        Bound::Excluded(&at) => at.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&at) => at.saturating_add(1),
        Bound::Excluded(&at) => at,
        Bound::Unbounded => count,
    };
    ensure!(
        start <= end && end <= count,
        "layers {start}..{end} are out of range: this model has {count} layers, 0 to {}",
        count.saturating_sub(1),
    );
    layers[start..end]
        .iter_mut()
        .for_each(|layer| layer.set_trainable(trainable));
    Ok(())
}

pub(super) fn unfreeze_last(layers: &mut [Layer], n: usize) -> Result<()> {
    let count = layers.len();
    ensure!(
        n <= count,
        "cannot unfreeze the last {n} layers: this model has {count}"
    );
    set_trainable(layers, count - n.., true)
}

pub(super) fn trainable_weights(layers: &[Layer]) -> Vec<Tensor> {
    let trainable = layers.iter().filter(|layer| layer.is_trainable());
    trainable
        .flat_map(|layer| {
            layer
                .weights
                .iter()
                .map(|(_, weight)| weight.shallow_clone())
        })
        .collect()
}

pub(crate) fn activations(layers: &[Layer]) -> usize {
    let outputs = layers.iter().map(|layer| &layer.output_shape);
    outputs
        .map(|shape| shape.iter().product::<i64>() as usize)
        .sum()
}
