//! What each kind of layer computes, on images with their channels last: `(N, height, width, channels)`.
//!
//! How weights are laid out, in memory and in files:
//! - A convolution's `kernel` is `(out, height, width, in)`. Keras's `(height, width, in, out)` and PyTorch's
//!   `(out, in, height, width)` are permutations of it.
//! - A transposed convolution with a stride of 1 is an ordinary convolution whose kernel is flipped in height and width and
//!   has its channels swapped. The kernel of that ordinary convolution is what `kernel` holds: the same function, much
//!   faster.
//! - A dense layer's `kernel` is `(out, in)`.
//! - A normalisation has `gamma` and `beta`, one number for each channel.

use anyhow::{Result, bail};
use tch::{Kind, Tensor};

use super::layer::{Activation, Layer, Operation};
use super::named_layer::NamedLayer;

/// Added to the variance by a normalisation, as Keras does.
const EPSILON: f64 = 1e-3;
/// Images with fewer rows or columns are narrow.
const NARROW: i64 = 7;
/// Channels in a group of the fast normalisation.
const FAST_GROUP: i64 = 16;

/// The output of a layer, with or without its activation, in the kind of `x`.
pub(super) fn apply(
    layer: &Layer,
    named: &NamedLayer,
    x: &Tensor,
    activation: Activation,
) -> Result<Tensor> {
    let shape = &named.output_shape;
    let y = match &layer.operation {
        Operation::Conv2d { size: 3, .. } | Operation::Conv2dTranspose { size: 3, .. }
            if layer.strides == 1 =>
        {
            let (kernel, bias) = two_weights(named, x)?;
            if activation == Activation::Relu {
                return ops::conv3x3(x, &kernel, &bias, ops::Activation::Relu);
            }
            ops::conv3x3(x, &kernel, &bias, ops::Activation::Linear)?
        }
        Operation::Conv2d { .. } | Operation::Conv2dTranspose { .. } if layer.strides > 1 => {
            let wide = x.to_kind(kind_with_strides(x));
            let (kernel, bias) = two_weights(named, &wide)?;
            let compute = match layer.operation {
                Operation::Conv2d { .. } => convolved,
                _ => transposed,
            };
            compute(&wide, &kernel, &bias, layer.strides)?.to_kind(x.kind())
        }
        Operation::Conv2d { .. } | Operation::Conv2dTranspose { .. } => {
            let (kernel, bias) = two_weights(named, x)?;
            convolved(x, &kernel, &bias, 1)?
        }
        Operation::Dense { .. } => {
            let (kernel, bias) = two_weights(named, x)?;
            ops::linear(x, &kernel, &bias)?
        }
        Operation::Flatten | Operation::Reshape { .. } => x.f_reshape(of_images(x, shape))?,
        Operation::MaxPooling2d { size } => {
            let block = [*size, *size];
            let channels_first = x.f_permute([0, 3, 1, 2])?;
            let largest = channels_first.f_max_pool2d(block, block, [0, 0], [1, 1], false)?;
            largest.f_permute([0, 2, 3, 1])?.f_contiguous()?
        }
        Operation::UpSampling2d { size } => enlarged(x, *size)?,
        Operation::GroupNorm { groups } => {
            let (gamma, beta) = two_weights(named, x)?;
            let fills = shape.len() == 3 && shape[2] == groups * FAST_GROUP;
            if fills && activation == Activation::Silu {
                let no_shift = Tensor::zeros([x.size()[0], shape[2]], (x.kind(), x.device()));
                return ops::norm_silu(x, &no_shift, &gamma, &beta, EPSILON);
            }
            normalised(x, *groups)? * gamma + beta
        }
    };
    Ok(activation.of(&y))
}

impl Activation {
    /// This function of each number; softmax over the last dimension.
    pub(crate) fn of(self, x: &Tensor) -> Tensor {
        match self {
            Activation::Linear => x.shallow_clone(),
            Activation::Relu => x.relu(),
            Activation::Silu => x.silu(),
            Activation::Sigmoid => x.sigmoid(),
            Activation::Softmax => x.softmax(-1, x.kind()),
        }
    }
}

/// The kind in which a convolution with strides computes. On narrow images in `bfloat16` oneDNN's reads memory that nobody wrote:
/// NaN came out now and then on images of 9x1, 12x2 and 1x1 pixels, and none on 2x2, 7x5 and larger ones.
fn kind_with_strides(x: &Tensor) -> Kind {
    match x.kind() {
        Kind::BFloat16 if x.size()[1].min(x.size()[2]) < NARROW => Kind::Float,
        kind => kind,
    }
}

fn two_weights(named: &NamedLayer, x: &Tensor) -> Result<(Tensor, Tensor)> {
    let [(_, first), (_, second)] = &named.weights[..] else {
        bail!(
            "the layer {} has {} weights; expected 2",
            named.name,
            named.weights.len()
        )
    };
    Ok((first.to_kind(x.kind()), second.to_kind(x.kind())))
}

/// A shape for as many images as there are in `x`.
fn of_images(x: &Tensor, shape: &[i64]) -> Vec<i64> {
    std::iter::once(x.size()[0])
        .chain(shape.iter().copied())
        .collect()
}

/// A convolution of any size, with libtorch's operation.
fn convolved(x: &Tensor, kernel: &Tensor, bias: &Tensor, strides: i64) -> Result<Tensor> {
    let size = kernel.size()[1];
    // "Same" padding as in Keras: what is odd goes to the end.
    let padding = |pixels: i64| {
        let steps = (pixels + strides - 1) / strides;
        let all = ((steps - 1) * strides + size - pixels).max(0);
        (all / 2, all - all / 2)
    };
    let [(above, below), (left, right)] = [1, 2].map(|dim| padding(x.size()[dim]));
    let x = x.f_permute([0, 3, 1, 2])?;
    let kernel = kernel.f_permute([0, 3, 1, 2])?;
    let y = match above == below && left == right {
        true => x.f_conv2d(&kernel, Some(bias), [strides; 2], [above, left], [1, 1], 1)?,
        false => x.f_constant_pad_nd([left, right, above, below])?.f_conv2d(
            &kernel,
            Some(bias),
            [strides; 2],
            [0, 0],
            [1, 1],
            1,
        )?,
    };
    Ok(y.f_permute([0, 2, 3, 1])?.f_contiguous()?)
}

/// A transposed convolution with strides: the image becomes `strides` times as large.
fn transposed(x: &Tensor, kernel: &Tensor, bias: &Tensor, strides: i64) -> Result<Tensor> {
    let size = kernel.size()[1];
    if size < strides {
        return spread(x, kernel, bias, strides);
    }
    let [height, width] = [1, 2].map(|dim| x.size()[dim] * strides);
    let kernel = kernel.f_flip([1, 2])?.f_permute([3, 0, 1, 2])?;
    let y = x.f_permute([0, 3, 1, 2])?.f_conv_transpose2d(
        &kernel,
        Some(bias),
        [strides; 2],
        [0, 0],
        [0, 0],
        1,
        [1, 1],
    )?;
    // What the convolution that this one is the transpose of adds as "same" padding is cut off.
    let before = (size - strides) / 2;
    let y = y.f_narrow(2, before, height)?.f_narrow(3, before, width)?;
    Ok(y.f_permute([0, 2, 3, 1])?.f_contiguous()?)
}

/// The same for a kernel of a single pixel: each pixel's result stands alone among zeros. libtorch's own operation crashes in
/// the gradient of such a kernel (oneDNN's 1x1 convolution for AVX-512).
fn spread(x: &Tensor, kernel: &Tensor, bias: &Tensor, strides: i64) -> Result<Tensor> {
    let y = convolved(x, kernel, &bias.f_zeros_like()?, 1)?;
    let [images, height, width, channels] = [0, 1, 2, 3].map(|dim| y.size()[dim]);
    let gap = strides - 1;
    Ok(y.f_reshape([images, height, 1, width, 1, channels])?
        .f_constant_pad_nd([0, 0, 0, gap, 0, 0, 0, gap])?
        .f_reshape([images, strides * height, strides * width, channels])?
        .f_add(bias)?)
}

/// Each pixel as a block of equal pixels.
fn enlarged(x: &Tensor, size: i64) -> Result<Tensor> {
    let [images, height, width, channels] = [0, 1, 2, 3].map(|dim| x.size()[dim]);
    Ok(x.f_reshape([images, height, 1, width, 1, channels])?
        .f_expand([images, height, size, width, size, channels], false)?
        .f_reshape([images, size * height, size * width, channels])?)
}

/// Mean 0 and variance 1 in each group of channels of each image.
fn normalised(x: &Tensor, groups: i64) -> Result<Tensor> {
    // Statistics in `float32` at least: 16 bits are too few for a sum of many numbers.
    let wide = match x.kind() {
        Kind::Double => Kind::Double,
        _ => Kind::Float,
    };
    let channels = x.size().last().copied().unwrap_or(1);
    let grouped = x
        .to_kind(wide)
        .f_reshape([x.size()[0], -1, groups, channels / groups])?;
    let dims: &[i64] = &[1, 3];
    let centred = &grouped - grouped.f_mean_dim(dims, true, wide)?;
    let variance = centred.square().f_mean_dim(dims, true, wide)?;
    let normal = centred * (variance + EPSILON).rsqrt();
    Ok(normal.f_reshape(x.size())?.to_kind(x.kind()))
}
