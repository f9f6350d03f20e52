//! The layers that a U-Net is made of, and how they are applied.
//!
//! How weights are laid out, in memory and in checkpoints:
//! - A convolution's `kernel` is `(out, height, width, in)`, as images are with their channels last. Keras's
//!   `(height, width, in, out)` and PyTorch's `(out, in, height, width)` are permutations of it.
//! - A dense layer's `kernel` is `(out, in)`.
//! - A normalisation has `gamma` and `beta`, one number for each channel; an embedding has a `table` with one row
//!   for each class.

use anyhow::Result;
use networks::network::NamedLayer;
use networks::rng::Rng;
use ops::Activation;
use tch::{Device, Kind, Tensor};

/// Added to the variance by a normalisation, as PyTorch does.
const EPSILON: f64 = 1e-5;

/// A 3x3 convolution with "same" padding and stride 1, on images of `side` pixels.
pub(crate) fn convolutional(
    rng: &mut Rng,
    name: &str,
    kind: &'static str,
    side: i64,
    from: i64,
    to: i64,
) -> NamedLayer {
    let kernel = glorot(rng, 9 * from, 9 * to, &[to, 3, 3, from]);
    let weights = vec![("kernel", kernel), ("bias", zeros(to))];
    NamedLayer::new(name, kind, &[side, side, to], weights)
}

pub(crate) fn dense(rng: &mut Rng, name: &str, from: i64, to: i64) -> NamedLayer {
    let kernel = glorot(rng, from, to, &[to, from]);
    let weights = vec![("kernel", kernel), ("bias", zeros(to))];
    NamedLayer::new(name, "Dense", &[to], weights)
}

/// A group normalisation with `gamma` 1 and `beta` 0: it normalises, and no more.
pub(crate) fn norm(name: &str, side: i64, channels: i64) -> NamedLayer {
    let ones = Tensor::ones([channels], (Kind::Float, Device::Cpu));
    let weights = vec![("gamma", ones), ("beta", zeros(channels))];
    NamedLayer::new(name, "GroupNorm", &[side, side, channels], weights)
}

/// A row of numbers for each class.
pub(crate) fn embedding(rng: &mut Rng, name: &str, classes: i64, to: i64) -> NamedLayer {
    let table = rng.normal(&[classes, to]);
    NamedLayer::new(name, "Embedding", &[to], vec![("table", table)])
}

fn glorot(rng: &mut Rng, fan_in: i64, fan_out: i64, shape: &[i64]) -> Tensor {
    rng.uniform((6.0 / (fan_in + fan_out) as f32).sqrt(), shape)
}

fn zeros(size: i64) -> Tensor {
    Tensor::zeros([size], (Kind::Float, Device::Cpu))
}

/// A layer whose weights are all zero.
pub(crate) fn zero_initialised(mut layer: NamedLayer) -> NamedLayer {
    tch::no_grad(|| {
        for (_, weight) in &mut layer.weights {
            let _ = weight.zero_();
        }
    });
    layer
}

/// Applies a [`convolutional`] layer.
pub(crate) fn convolve(x: &Tensor, layer: &NamedLayer, activation: Activation) -> Tensor {
    let (kernel, bias) = both_weights(x, layer);
    fitting(ops::conv3x3(x, &kernel, &bias, activation), layer)
}

/// Applies a [`norm`] layer and SiLU, to images whose channels are shifted first.
pub(crate) fn norm_silu(x: &Tensor, shift: &Tensor, layer: &NamedLayer) -> Tensor {
    let (gamma, beta) = both_weights(x, layer);
    fitting(ops::norm_silu(x, shift, &gamma, &beta, EPSILON), layer)
}

/// Applies a [`dense`] layer.
pub(crate) fn linear(x: &Tensor, layer: &NamedLayer) -> Tensor {
    let (kernel, bias) = both_weights(x, layer);
    fitting(ops::linear(x, &kernel, &bias), layer)
}

/// The layers fit each other, so an operation fails only for reasons of the machine, such as a wrong `OPS_IMPLEMENTATION`.
#[allow(
    clippy::panic,
    reason = "`forward` returns a tensor, as libtorch's operations do"
)]
fn fitting(output: Result<Tensor>, layer: &NamedLayer) -> Tensor {
    output.unwrap_or_else(|error| panic!("the layer {}: {error:#}", layer.name))
}

/// A layer's two weights in the kind of its input.
fn both_weights(x: &Tensor, layer: &NamedLayer) -> (Tensor, Tensor) {
    let [(_, first), (_, second)] = &layer.weights[..] else {
        unreachable!("convolutional, dense and normalising layers are built with two weights")
    };
    (first.to_kind(x.kind()), second.to_kind(x.kind()))
}
