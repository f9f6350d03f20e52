//! The 3x3 convolution with stride 1 and "same" padding, the one operation that the lesson's networks spend
//! their time in.
//!
//! Where the CPU has AVX-512 or AVX2 it is computed here, bias, rectifier and gradients included, two to three
//! times as fast as by oneDNN, which multiplies four times as much (`conv/winograd.rs`); convolutions from or to
//! a single channel have kernels of their own (`conv/thin.rs`). Elsewhere libtorch computes the same function.

#[cfg(target_arch = "x86_64")]
mod fast;
#[cfg(target_arch = "x86_64")]
mod field;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod thin;
#[cfg(target_arch = "x86_64")]
mod winograd;

use anyhow::{Result, ensure};
use tch::Tensor;

/// What becomes of a convolution's sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// It stays as it is.
    Linear,
    /// The rectifier, `max(x, 0)`.
    Relu,
}

/// A 3x3 convolution with stride 1, "same" padding, bias and activation, on images with their channels last.
///
/// `x` is `(N, H, W, from)`, `kernel` `(to, 3, 3, from)`, `bias` `(to)`, all of one kind; the result is
/// `(N, H, W, to)`. Gradients flow back to all three. In `bfloat16` only what lies in memory is rounded:
/// sums are in `float32`.
///
/// Two things that libtorch's own operations can do and this one cannot: gradients of gradients, and to notice that
/// `x`, `kernel` or the result was changed in place before gradients flowed back. Do not change them in place.
///
/// # Errors
/// Tensors whose shapes or kinds do not fit each other.
///
/// ```
/// use diffusion::conv::{Activation, conv3x3};
/// use tch::{Device, Kind, Tensor};
///
/// # fn main() -> anyhow::Result<()> {
/// let float = (Kind::Float, Device::Cpu);
/// let ones = Tensor::ones([1, 5, 5, 16], float);
/// let kernel = Tensor::ones([32, 3, 3, 16], float);
/// let bias = Tensor::zeros([32], float);
/// let y = conv3x3(&ones, &kernel, &bias, Activation::Relu)?;
/// assert_eq!(y.size(), [1, 5, 5, 32]);
/// assert!((y.double_value(&[0, 2, 2, 0]) - 9.0 * 16.0).abs() < 1e-3); // inside: all nine neighbours
/// assert!((y.double_value(&[0, 0, 0, 0]) - 4.0 * 16.0).abs() < 1e-3); // a corner: four
/// # Ok(())
/// # }
/// ```
pub fn conv3x3(
    x: &Tensor,
    kernel: &Tensor,
    bias: &Tensor,
    activation: Activation,
) -> Result<Tensor> {
    let (from, to) = (x.size().last().copied(), kernel.size().first().copied());
    let shape = [to, Some(3), Some(3), from].map(Option::unwrap_or_default);
    ensure!(
        x.dim() == 4 && kernel.size() == shape && bias.size() == [shape[0]],
        "a convolution takes images (N, H, W, from), a kernel (to, 3, 3, from) and a bias (to); these have {:?}, {:?} and {:?}",
        x.size(),
        kernel.size(),
        bias.size(),
    );
    ensure!(
        [kernel.kind(), bias.kind()] == [x.kind(); 2],
        "images, kernel and bias of a convolution must be of one kind; these are {:?}, {:?} and {:?}",
        x.kind(),
        kernel.kind(),
        bias.kind(),
    );
    Ok(convolution(x, kernel, bias, activation))
}

/// [`conv3x3`] of tensors that are known to fit.
pub(crate) fn convolution(
    x: &Tensor,
    kernel: &Tensor,
    bias: &Tensor,
    activation: Activation,
) -> Tensor {
    #[cfg(target_arch = "x86_64")]
    if let Some(result) = fast::convolution(x, kernel, bias, activation) {
        return result;
    }
    by_libtorch(x, kernel, bias, activation)
}

fn by_libtorch(x: &Tensor, kernel: &Tensor, bias: &Tensor, activation: Activation) -> Tensor {
    let channels_first = |tensor: &Tensor| tensor.permute([0, 3, 1, 2]);
    let one = [1, 1];
    let (x, kernel) = (channels_first(x), channels_first(kernel));
    let mut y = x
        .conv2d(&kernel, Some(bias), one, one, one, 1)
        .permute([0, 2, 3, 1]);
    match activation {
        Activation::Linear => y,
        Activation::Relu => y.relu_(),
    }
}
