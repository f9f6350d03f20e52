//! Convolutions in `bfloat16` by the CPU's units for products of matrices (AMX).
//!
//! They multiply sixteen times as many numbers at once as AVX-512 does in `float32`. So the plain sum over all nine
//! neighbours is faster than Winograd's algorithm, which has to transform numbers in `float32`. Sums are in `float32`;
//! numbers below 1e-38 count as zero.
//!
//! A few images at a time are copied into a buffer with borders of zeros, see [`flat`], which stays in the core's own cache.
//! In the backward pass one copy of the gradient serves both the gradient of the images, which is a convolution with the
//! kernel rotated by 180 degrees, and that of the kernel.

mod convolve;
mod flat;
mod gradient;
mod tiles;
mod vectors;

use std::ops::Range;

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::images::{Images, Sizes, add_to, channels};
use crate::autograd::{Gradients, record_backward};
use crate::bfloat16::BFloat16;
use crate::slices::{SharedOutput, compute_images, elements, parallel_over_images, to_f32};
use convolve::{Convolve, Kernel};
use flat::{Flat, Layout};
use gradient::KernelGradient;
use tiles::{TILE, Tiles};

/// A convolution by AMX, of tensors that fit each other, recorded in libtorch's graph. `None` where AMX cannot compute it: it
/// takes `bfloat16` on the CPU, and numbers of channels that fill tiles. `None` also where libtorch refuses to record.
///
/// The CPU must have [`Implementation::Amx`](crate::Implementation::Amx).
pub(super) fn convolution(
    x: &Tensor,
    kernel: &Tensor,
    bias: &Tensor,
    relu: bool,
) -> Result<Option<Tensor>> {
    let on_cpu = [x, kernel, bias].iter().all(|t| t.device() == Device::Cpu);
    let fills = |channels: usize| channels > 0 && channels.is_multiple_of(TILE);
    let fill = fills(channels(x)) && fills(bias.numel());
    if !on_cpu || !fill || x.numel() == 0 || x.kind() != Kind::BFloat16 {
        return Ok(None);
    }
    let mut convolution = Convolution {
        x: x.detach().contiguous(),
        kernel: kernel.detach().contiguous(),
        relu_output: None,
        needs_gradient: [x, kernel, bias].map(Tensor::requires_grad),
    };
    let output = convolution.forward(&bias.detach().contiguous(), relu)?;
    convolution.relu_output = relu.then(|| output.detach());
    Ok(record_backward(
        output,
        &[x, kernel, bias],
        move |gradient| convolution.backward(&gradient.contiguous()),
    ))
}

/// One convolution, with what its gradients need.
struct Convolution {
    x: Tensor,
    kernel: Tensor,
    /// The output, if there is a rectifier.
    relu_output: Option<Tensor>,
    /// Whether `x`, `kernel` and `bias` need a gradient.
    needs_gradient: [bool; 3],
}

// In all methods below slices and sizes are those of the same tensors, which fit each other, as `conv3x3` has checked.
// libtorch gives gradients of the output's shape. The CPU has AMX, as the caller of `convolution` promises.
impl Convolution {
    fn forward(&self, bias: &Tensor, rectify: bool) -> Result<Tensor> {
        let (sizes, x) = (Sizes::of(&self.x), Images::of(&self.x, None)?);
        let bias = to_f32(elements::<BFloat16>(bias)?);
        let (from, to) = (x.channels, bias.len());
        // SAFETY: see above, here and below.
        let kernel = unsafe { Kernel::of(elements(&self.kernel)?, from, to) };
        let products = sizes.products(from, to);
        let work = |images: Range<usize>, out| {
            let layout = Layout::of(&sizes, images.len());
            let convolve = Convolve {
                layout: &layout,
                kernel: &kernel,
                bias: &bias,
                rectify,
                out,
            };
            let mut flat = Flat::new(&layout, from);
            let tiles = unsafe { Tiles::configure() };
            for group in layout.groups(images) {
                unsafe {
                    flat.read(&x, group.clone());
                    convolve.images(&tiles, &flat, group);
                }
            }
        };
        Ok(compute_images(&sizes.shape(to), products, work))
    }

    /// The gradients of `x`, `kernel` and `bias`.
    fn backward(&self, gradient: &Tensor) -> Result<Gradients> {
        let [needs_x, needs_kernel, needs_bias] = self.needs_gradient;
        let (sizes, x) = (Sizes::of(gradient), Images::of(&self.x, None)?);
        let g = Images::of(gradient, self.relu_output.as_ref())?;
        let (from, to) = (x.channels, g.channels);
        // SAFETY: see above, here and below.
        let kernel = unsafe { Kernel::rotated(elements(&self.kernel)?, to, from) };
        let zeros = vec![0.0; from];
        let mut x_gradient =
            needs_x.then(|| Tensor::empty(sizes.shape(from), (Kind::BFloat16, Device::Cpu)));
        let out = x_gradient.as_mut().map(SharedOutput::<BFloat16>::of);
        let work = |images: Range<usize>| {
            let layout = Layout::of(&sizes, images.len());
            let convolve = out.as_ref().map(|out| Convolve {
                layout: &layout,
                kernel: &kernel,
                bias: &zeros,
                rectify: false,
                out: out.get(),
            });
            let mut weights =
                (needs_kernel || needs_bias).then(|| KernelGradient::new(&layout, from, to));
            let mut flat = Flat::new(&layout, to);
            let tiles = unsafe { Tiles::configure() };
            for group in layout.groups(images) {
                unsafe {
                    flat.read(&g, group.clone());
                    if let Some(convolve) = &convolve {
                        convolve.images(&tiles, &flat, group.clone());
                    }
                    if let Some(weights) = &mut weights {
                        weights.add(&tiles, &x, &flat, group);
                    }
                }
            }
            weights.map(KernelGradient::result)
        };
        let parts = parallel_over_images(sizes.images, 2 * sizes.products(from, to), work);
        let (mut kernel, mut bias) = (vec![], vec![]);
        for (kernel_part, bias_part) in parts.into_iter().flatten() {
            add_to(&mut kernel, kernel_part);
            add_to(&mut bias, bias_part);
        }
        let tensor = |numbers: &[f32], size: Vec<i64>| {
            let tensor = Tensor::from_slice(numbers).to_kind(Kind::BFloat16);
            tensor.view_(size)
        };
        let weights = needs_kernel || needs_bias;
        Ok(vec![
            x_gradient,
            weights.then(|| tensor(&kernel, self.kernel.size())),
            weights.then(|| tensor(&bias, vec![to as i64])),
        ])
    }
}
