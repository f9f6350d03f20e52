//! The built layers of a network, and what can be done with a list of them.

use std::ops::{Bound, RangeBounds};

use anyhow::{Context, Result, ensure};
use tch::{Kind, Tensor};

/// One layer of a network: its name, what comes out of it, and the weights it holds.
#[derive(Debug)]
pub struct NamedLayer {
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

impl NamedLayer {
    /// A trainable layer with these weights.
    pub fn new(
        name: &str,
        kind: &'static str,
        output_shape: &[i64],
        weights: Vec<(&'static str, Tensor)>,
    ) -> NamedLayer {
        let mut layer = NamedLayer {
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

    /// One of its weights, which shares the layer's memory: `kernel` or `bias`, of a normalisation `gamma` or `beta`. A
    /// convolution's kernel is `(filters, height, width, channels)`, a dense layer's `(out, in)`.
    ///
    /// # Errors
    /// A name that no weight of this layer has.
    pub fn weight(&self, name: &str) -> Result<Tensor> {
        let found = self.weights.iter().find(|(known, _)| *known == name);
        let (_, weight) = found.with_context(|| {
            let names: Vec<&str> = self.weights.iter().map(|(known, _)| *known).collect();
            match names[..] {
                [] => format!("the layer {} holds no weights, so no {name:?}", self.name),
                _ => format!(
                    "the layer {} has no weight {name:?}; expected {}",
                    self.name,
                    names.join(" or ")
                ),
            }
        })?;
        Ok(weight.shallow_clone())
    }

    /// How many numbers the layer's weights hold.
    pub fn parameters(&self) -> usize {
        self.weights.iter().map(|(_, weight)| weight.numel()).sum()
    }

    /// The same layer with weights in another kind; in the same kind it shares its weights' memory.
    pub fn in_kind(&self, kind: Kind) -> NamedLayer {
        self.with_weights(&|weight| match weight.kind() == kind {
            true => weight.shallow_clone(),
            false => weight
                .detach()
                .to_kind(kind)
                .set_requires_grad(self.trainable),
        })
    }

    /// The same layer once more, with the same weights.
    pub(crate) fn shared(&self) -> NamedLayer {
        self.with_weights(&Tensor::shallow_clone)
    }

    /// The same layer with weights of its own.
    pub fn deep_clone(&self) -> NamedLayer {
        self.with_weights(&|weight| weight.detach().copy().set_requires_grad(self.trainable))
    }

    fn with_weights(&self, convert: &dyn Fn(&Tensor) -> Tensor) -> NamedLayer {
        let weights = self.weights.iter();
        NamedLayer {
            name: self.name.clone(),
            kind: self.kind,
            output_shape: self.output_shape.clone(),
            weights: weights
                .map(|(name, weight)| (*name, convert(weight)))
                .collect(),
            trainable: self.trainable,
        }
    }

    /// Freezes or unfreezes the layer.
    pub fn set_trainable(&mut self, trainable: bool) {
        self.trainable = trainable;
        for (_, weight) in &mut self.weights {
            *weight = weight.detach().set_requires_grad(trainable);
        }
    }
}

/// The ends of a range of layers.
pub(super) type Bounds = (Bound<usize>, Bound<usize>);

pub(super) fn bounds(range: impl RangeBounds<usize>) -> Bounds {
    (range.start_bound().cloned(), range.end_bound().cloned())
}

/// Freezes or unfreezes a range of layers.
pub(super) fn set_trainable(
    layers: &mut [NamedLayer],
    range: Bounds,
    trainable: bool,
) -> Result<()> {
    let count = layers.len();
    let start = match range.0 {
        Bound::Included(at) => at,
        Bound::Excluded(at) => at.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.1 {
        Bound::Included(at) => at.saturating_add(1),
        Bound::Excluded(at) => at,
        Bound::Unbounded => count,
    };
    ensure!(
        start <= end && end <= count,
        "layers {start}..{end} are out of range: this network has {count} layers, 0 to {}",
        count.saturating_sub(1),
    );
    layers[start..end]
        .iter_mut()
        .for_each(|layer| layer.set_trainable(trainable));
    Ok(())
}

pub(super) fn unfreeze_last(layers: &mut [NamedLayer], n: usize) -> Result<()> {
    let count = layers.len();
    ensure!(
        n <= count,
        "cannot unfreeze the last {n} layers: this network has {count}"
    );
    set_trainable(layers, bounds(count - n..), true)
}

/// The weights of the layers that are not frozen, layer by layer; they share the layers' memory.
pub fn trainable_weights(layers: &[NamedLayer]) -> Vec<Tensor> {
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

pub(crate) fn activations(layers: &[NamedLayer]) -> usize {
    let outputs = layers.iter().map(|layer| &layer.output_shape);
    outputs
        .map(|shape| shape.iter().product::<i64>() as usize)
        .sum()
}
