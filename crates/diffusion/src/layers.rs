//! The layers that the lesson's networks are made of.
//!
//! How weights are laid out, in memory and in checkpoints:
//! - A convolution's `kernel` is `(out, height, width, in)`, as images are with their channels last. Keras's
//!   `(height, width, in, out)` and PyTorch's `(out, in, height, width)` are permutations of it.
//! - A dense layer's `kernel` is `(out, in)`.
//! - A normalisation has `gamma` and `beta`, one number a channel; an embedding a `table` with a row a class.

use anyhow::{Result, ensure};
use tch::{Device, Kind, Tensor};

use crate::conv::{Activation, convolution};
use crate::data::SIDE;
use crate::model::Layer;
use crate::norm::normalised;
use crate::rng::Rng;

/// A 3x3 convolution with "same" padding and stride 1, on images of `side` pixels.
pub(crate) fn convolutional(
    rng: &mut Rng,
    name: &str,
    kind: &'static str,
    side: i64,
    from: i64,
    to: i64,
) -> Layer {
    let kernel = glorot(rng, 9 * from, 9 * to, &[to, 3, 3, from]);
    let weights = vec![("kernel", kernel), ("bias", zeros(to))];
    Layer::new(name, kind, &[side, side, to], weights)
}

pub(crate) fn dense(rng: &mut Rng, name: &str, from: i64, to: i64) -> Layer {
    let kernel = glorot(rng, from, to, &[to, from]);
    let weights = vec![("kernel", kernel), ("bias", zeros(to))];
    Layer::new(name, "Dense", &[to], weights)
}

/// A group normalisation with `gamma` 1 and `beta` 0: it normalises, and no more.
pub(crate) fn norm(name: &str, side: i64, channels: i64) -> Layer {
    let ones = Tensor::ones([channels], (Kind::Float, Device::Cpu));
    let weights = vec![("gamma", ones), ("beta", zeros(channels))];
    Layer::new(name, "GroupNorm", &[side, side, channels], weights)
}

/// A row of numbers for each of so many classes.
pub(crate) fn embedding(rng: &mut Rng, name: &str, classes: i64, to: i64) -> Layer {
    let table = rng.normal(&[classes, to]);
    Layer::new(name, "Embedding", &[to], vec![("table", table)])
}

fn glorot(rng: &mut Rng, fan_in: i64, fan_out: i64, shape: &[i64]) -> Tensor {
    rng.uniform((6.0 / (fan_in + fan_out) as f32).sqrt(), shape)
}

fn zeros(size: i64) -> Tensor {
    Tensor::zeros([size], (Kind::Float, Device::Cpu))
}

/// Applies a [`convolutional`] layer.
pub(crate) fn convolve(x: &Tensor, layer: &Layer, activation: Activation) -> Tensor {
    let (kernel, bias) = both_weights(x, layer);
    convolution(x, &kernel, &bias, activation)
}

/// Applies a [`norm`] layer and SiLU, to images whose channels are shifted first.
pub(crate) fn norm_silu(x: &Tensor, shift: &Tensor, layer: &Layer) -> Tensor {
    let (gamma, beta) = both_weights(x, layer);
    normalised(x, shift, &gamma, &beta)
}

/// Applies a [`dense`] layer. In `float32` it goes through oneDNN, as everything in `bfloat16` does
/// by itself: libtorch would call MKL, which on processors of other makers than Intel leaves half
/// of their vector units idle (2.5 to 3 ms a product of the lesson's matrices against 1.1).
pub(crate) fn linear(x: &Tensor, layer: &Layer) -> Tensor {
    let (kernel, bias) = both_weights(x, layer);
    match x.kind() == Kind::Float && tch::utils::has_mkldnn() {
        true => x
            .to_mkldnn()
            .mkldnn_linear(&kernel, Some(bias))
            .to_dense(None, false),
        false => x.linear(&kernel, Some(bias)),
    }
}

/// A layer's two weights in the kind of its input.
fn both_weights(x: &Tensor, layer: &Layer) -> (Tensor, Tensor) {
    let [(_, first), (_, second)] = &layer.weights[..] else {
        unreachable!("convolutional, dense and normalising layers are built with two weights")
    };
    (first.to_kind(x.kind()), second.to_kind(x.kind()))
}

/// Stops at images that a network cannot take: one of another shape would be read as others.
pub(crate) fn assert_images(x: &Tensor) {
    let shape = x.size();
    assert!(
        shape.len() == 4 && shape[1..] == [1, SIDE, SIDE],
        "the network takes images of shape (N, 1, 28, 28); these have {shape:?}"
    );
}

/// Are these images that a network can take?
pub(crate) fn check_images(images: &Tensor) -> Result<()> {
    let shape = images.size();
    ensure!(
        shape.len() == 4 && shape[0] > 0 && shape[1..] == [1, SIDE, SIDE],
        "the network takes images of shape (N, 1, 28, 28); these have {shape:?}"
    );
    ensure!(
        images.is_floating_point(),
        "the network takes images of fractions in [0, 1]; these hold {:?} numbers",
        images.kind()
    );
    Ok(())
}
