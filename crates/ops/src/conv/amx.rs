//! Convolutions in `bfloat16` by the CPU's units for products of matrices (AMX).
//!
//! A core multiplies sixteen times as many numbers at once in them as with AVX-512 in `float32`. So the plain sum over all
//! nine neighbours is faster than Winograd's algorithm, which would have to transform numbers in `float32`. Sums are in
//! `float32`; numbers below 1e-38 count as zero.
//!
//! All functions here take tensors that fit each other, in `bfloat16`, with channels that are multiples of 16, on a CPU with
//! [`Implementation::Amx`](crate::Implementation::Amx).

mod convolve;
mod flat;
mod gradient;
mod tiles;
mod vectors;

use anyhow::Result;
use tch::Tensor;

use super::images::{Images, Sizes};
use crate::bfloat16::BFloat16;
use crate::slices::{compute_images, elements, parallel_over_images, to_f32};
use convolve::{Kernel, convolve};

/// The convolution.
pub(super) fn forward(
    sizes: &Sizes,
    x: &Images<BFloat16>,
    kernel: &Tensor,
    bias: &Tensor,
    relu: bool,
) -> Result<Tensor> {
    let bias = to_f32(elements::<BFloat16>(bias)?);
    // SAFETY: as this module promises, here and below.
    let kernel = unsafe { Kernel::of(elements(kernel)?, x.channels, bias.len()) };
    Ok(convolved(sizes, x, &kernel, &bias, relu))
}

/// The gradient of the images, which have `from` channels.
pub(super) fn images_gradient(
    sizes: &Sizes,
    gradient: &Images<BFloat16>,
    kernel: &Tensor,
    from: usize,
) -> Result<Tensor> {
    let kernel = unsafe { Kernel::rotated(elements(kernel)?, gradient.channels, from) };
    Ok(convolved(sizes, gradient, &kernel, &vec![0.0; from], false))
}

fn convolved(
    sizes: &Sizes,
    x: &Images<BFloat16>,
    kernel: &Kernel,
    bias: &[f32],
    relu: bool,
) -> Tensor {
    let products = sizes.products(x.channels, bias.len());
    compute_images(&sizes.shape(bias.len()), products, |range, out| unsafe {
        convolve(sizes, range, x, kernel, bias, relu, out);
    })
}

/// The gradients of the kernel and the bias, in parts, one for each thread.
pub(super) fn weight_gradients(
    sizes: &Sizes,
    x: &Images<BFloat16>,
    gradient: &Images<BFloat16>,
) -> Vec<(Vec<f32>, Vec<f32>)> {
    let products = sizes.products(x.channels, gradient.channels);
    parallel_over_images(sizes.images, products, |range| unsafe {
        gradient::kernel_gradient(sizes, range, x, gradient)
    })
}
