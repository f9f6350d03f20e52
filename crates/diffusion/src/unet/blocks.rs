//! The pieces of the U-Net: its blocks, and what it does to timesteps, classes and sizes.

use networks::network::NamedLayer;
use networks::rng::Rng;
use tch::{Kind, Tensor};

use crate::data::SIDE;
use crate::layers::{convolutional, dense, norm, zero_initialised};

/// Size of the timestep's sinusoidal embedding: half of it sines, half cosines.
pub(super) const SINUSOIDS: i64 = 64;
/// The longest period over the shortest (Vaswani et al. 2017, section 3.5).
pub(super) const LONGEST_PERIOD: f64 = 10_000.0;
/// Channels of the four neighbours that one pixel is made of.
pub(super) const NEIGHBOURS: i64 = 4;

/// The layers of a residual block.
pub(super) fn residual_block(
    rng: &mut Rng,
    name: &str,
    side: i64,
    from: i64,
    to: i64,
    embedded: i64,
) -> Vec<NamedLayer> {
    let named = |part: &str| format!("{name}_{part}");
    let mut layers = vec![
        norm(&named("norm"), side, from),
        convolutional(rng, &named("conv"), "Conv2D", side, from, to),
        dense(rng, &named("time"), embedded, to),
        norm(&named("norm_1"), side, to),
        // Zero at first, so an untrained block changes nothing (Ho et al. 2020's code).
        zero_initialised(convolutional(rng, &named("conv_1"), "Conv2D", side, to, to)),
    ];
    if from != to {
        let mut skip = dense(rng, &named("skip"), from, to);
        skip.output_shape = vec![side, side, to]; // it works on each pixel
        layers.push(skip);
    }
    layers
}

/// No shift: zeros for all channels.
pub(super) fn no_shift(x: &Tensor) -> Tensor {
    let shape = x.size();
    Tensor::zeros([shape[0], shape[3]], (x.kind(), x.device()))
}

/// Timesteps as sines and cosines of many frequencies, `(N, 64)` (Vaswani et al. 2017, section 3.5).
pub(super) fn sinusoidal_embedding(timesteps: &Tensor, kind: Kind) -> Tensor {
    let half = SINUSOIDS / 2;
    let powers = Tensor::arange(half, (Kind::Float, timesteps.device())) / half as f64;
    let frequencies = (powers * -LONGEST_PERIOD.ln()).exp();
    let angles = timesteps.to_kind(Kind::Float).unsqueeze(1) * frequencies.unsqueeze(0);
    Tensor::cat(&[angles.sin(), angles.cos()], 1).to_kind(kind)
}

/// The table's row of each image's class.
pub(super) fn class_embedding(classes: &Tensor, layer: &NamedLayer, kind: Kind) -> Tensor {
    let [(_, table)] = &layer.weights[..] else {
        unreachable!("an embedding is built with a table")
    };
    table.index_select(0, classes).to_kind(kind)
}

/// Four neighbouring pixels become the channels of one: `(N, H, W, 1)` to `(N, H/2, W/2, 4)`.
pub(super) fn space_to_depth(x: &Tensor) -> Tensor {
    let half = SIDE / 2;
    let blocks = x.reshape([-1, half, 2, half, 2]).permute([0, 1, 3, 2, 4]);
    blocks.reshape([-1, half, half, NEIGHBOURS])
}

/// The reverse of [`space_to_depth`].
pub(super) fn depth_to_space(x: &Tensor) -> Tensor {
    let half = SIDE / 2;
    let blocks = x.reshape([-1, half, half, 2, 2]).permute([0, 1, 3, 2, 4]);
    blocks.reshape([-1, SIDE, SIDE, 1])
}

/// Half as high and wide: the mean of each four neighbours.
pub(super) fn halved(x: &Tensor) -> Tensor {
    let [height, width, channels] = [1, 2, 3].map(|dim| x.size()[dim]);
    let blocks = x.reshape([-1, height / 2, 2, width / 2, 2, channels]);
    let dims: &[i64] = &[2, 4];
    blocks.mean_dim(dims, false, x.kind())
}

/// Twice as high and wide: each pixel four times.
pub(super) fn doubled(x: &Tensor) -> Tensor {
    let [height, width, channels] = [1, 2, 3].map(|dim| x.size()[dim]);
    x.reshape([-1, height, 1, width, 1, channels])
        .expand([-1, height, 2, width, 2, channels], false)
        .reshape([-1, 2 * height, 2 * width, channels])
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn pixels_come_back_from_channels_in_their_places() {
        let x = Tensor::arange(2 * 784, (Kind::Float, Device::Cpu)).view([2, SIDE, SIDE, 1]);
        let channels = space_to_depth(&x);
        assert_eq!(
            channels.get(0).get(0).get(0),
            Tensor::from_slice(&[0f32, 1.0, 28.0, 29.0])
        );
        assert_eq!(depth_to_space(&channels), x);
    }

    #[test]
    fn halving_undoes_doubling() {
        let x = Tensor::rand([2, 7, 7, 16], (Kind::Double, Device::Cpu));
        assert!((halved(&doubled(&x)) - &x).abs().max().double_value(&[]) < 1e-12);
    }

    #[test]
    fn timesteps_have_different_embeddings_in_the_range_of_a_sine() {
        let embeddings = sinusoidal_embedding(
            &Tensor::arange(1000, (Kind::Int64, Device::Cpu)),
            Kind::Double,
        );
        assert_eq!(embeddings.size(), [1000, SINUSOIDS]);
        assert!(embeddings.abs().max().double_value(&[]) <= 1.0);
        let neighbours = embeddings.narrow(0, 1, 999) - embeddings.narrow(0, 0, 999);
        assert!(
            neighbours
                .square()
                .sum_dim_intlist(1i64, false, Kind::Double)
                .min()
                .double_value(&[])
                > 0.1
        );
    }
}
