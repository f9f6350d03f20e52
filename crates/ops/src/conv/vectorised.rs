//! Which kernel computes a convolution, on how many threads, and how its gradients are computed.

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::images::{Images, Sizes, add_to, channels};
use super::{one_channel, winograd};
use crate::autograd::{Gradients, record_backward};
use crate::bfloat16::BFloat16;
use crate::simd::element::Element;
use crate::simd::lanes::LANES;
use crate::simd::width::Width;
use crate::slices::{compute_images, elements, parallel_over_images, to_f32};

/// A convolution by the kernels of this folder, of tensors that fit each other. `None` where the kernels cannot compute it:
/// they take `float32` or `bfloat16` on the CPU, and numbers of channels that are one or fill vectors.
pub(super) fn convolution(
    width: Width,
    x: &Tensor,
    kernel: &Tensor,
    bias: &Tensor,
    relu: bool,
) -> Result<Option<Tensor>> {
    let on_cpu = [x, kernel, bias].iter().all(|t| t.device() == Device::Cpu);
    if !on_cpu || x.numel() == 0 {
        return Ok(None);
    }
    let Some(algorithm) = Algorithm::between(channels(x), bias.numel()) else {
        return Ok(None);
    };
    if relu && matches!(algorithm, Algorithm::ToOneChannel) {
        return Ok(None);
    }
    match x.kind() {
        Kind::Float => recorded::<f32>(width, algorithm, x, kernel, bias, relu),
        Kind::BFloat16 => recorded::<BFloat16>(width, algorithm, x, kernel, bias, relu),
        _ => Ok(None),
    }
}

/// How a convolution is computed.
#[derive(Clone, Copy)]
enum Algorithm {
    Winograd,
    FromOneChannel,
    ToOneChannel,
}

impl Algorithm {
    fn between(from: usize, to: usize) -> Option<Algorithm> {
        let fills = |channels: usize| channels > 0 && channels.is_multiple_of(LANES);
        match (from, to) {
            (1, to) if fills(to) => Some(Algorithm::FromOneChannel),
            (from, 1) if fills(from) => Some(Algorithm::ToOneChannel),
            (from, to) if fills(from) && fills(to) => Some(Algorithm::Winograd),
            _ => None,
        }
    }
}

/// The output, recorded in libtorch's graph. `None` where libtorch refuses to record.
fn recorded<E: Element>(
    width: Width,
    algorithm: Algorithm,
    x: &Tensor,
    kernel: &Tensor,
    bias: &Tensor,
    relu: bool,
) -> Result<Option<Tensor>> {
    let mut convolution = Convolution {
        width,
        algorithm,
        x: x.detach().contiguous(),
        kernel: kernel.detach().contiguous(),
        relu_output: None,
        needs_gradient: [x, kernel, bias].map(Tensor::requires_grad),
    };
    let output = convolution.forward::<E>(&bias.detach().contiguous(), relu)?;
    convolution.relu_output = relu.then(|| output.detach());
    Ok(record_backward(
        output,
        &[x, kernel, bias],
        move |gradient| convolution.backward::<E>(&gradient.contiguous()),
    ))
}

/// One convolution, with what its gradients need.
struct Convolution {
    width: Width,
    algorithm: Algorithm,
    x: Tensor,
    kernel: Tensor,
    /// The output, if there is a rectifier.
    relu_output: Option<Tensor>,
    /// Whether `x`, `kernel` and `bias` need a gradient.
    needs_gradient: [bool; 3],
}

// In all methods below the kernels are called with slices of tensors, and with sizes taken from the same tensors.
// `conv3x3` has checked that the tensors fit each other, and libtorch gives gradients of the output's shape.
impl Convolution {
    fn forward<E: Element>(&self, bias: &Tensor, relu: bool) -> Result<Tensor> {
        let (sizes, to) = (Sizes::of(&self.x), bias.numel());
        let x = Images::<E>::of(&self.x, None)?;
        let kernel = elements::<E>(&self.kernel)?;
        let bias = to_f32(elements::<E>(bias)?);
        let (shape, products) = (sizes.shape(to), sizes.products(x.channels, to));
        let width = self.width;
        Ok(match self.algorithm {
            Algorithm::Winograd => {
                // SAFETY: the tensors fit each other, see above; here and below.
                let kernel = unsafe { winograd::kernel(width, kernel, x.channels, to) };
                compute_images(&shape, products, |range, out| unsafe {
                    winograd::convolve(width, &sizes, range, &x, &kernel, &bias, relu, out);
                })
            }
            Algorithm::FromOneChannel => {
                let w = transposed(&to_f32(kernel), to, 9);
                compute_images(&shape, products, |range, out| unsafe {
                    one_channel::from_one_channel(width, &sizes, range, &x, &w, &bias, relu, out);
                })
            }
            Algorithm::ToOneChannel => {
                let w = to_f32(kernel);
                compute_images(&shape, products, |range, out| unsafe {
                    one_channel::to_one_channel(width, &sizes, range, &x, &w, bias[0], out);
                })
            }
        })
    }

    /// The gradients of `x`, `kernel` and `bias`.
    fn backward<E: Element>(&self, gradient: &Tensor) -> Result<Gradients> {
        let [x, kernel, bias] = self.needs_gradient;
        let x_gradient = match x {
            true => Some(self.x_gradient::<E>(gradient)?),
            false => None,
        };
        let (kernel_gradient, bias_gradient) = match kernel || bias {
            true => Some(self.weight_gradients::<E>(gradient)?).unzip(),
            false => (None, None),
        };
        Ok(vec![x_gradient, kernel_gradient, bias_gradient])
    }

    /// A convolution of the gradient with the kernel rotated by 180 degrees, inputs and outputs swapped.
    fn x_gradient<E: Element>(&self, gradient: &Tensor) -> Result<Tensor> {
        let (sizes, from) = (Sizes::of(gradient), channels(&self.x));
        let g = Images::<E>::of(gradient, self.relu_output.as_ref())?;
        let kernel = elements::<E>(&self.kernel)?;
        let (width, zeros) = (self.width, vec![0.0; from]);
        let (shape, products) = (sizes.shape(from), sizes.products(g.channels, from));
        Ok(match self.algorithm {
            Algorithm::Winograd => {
                // SAFETY: as in `forward`, here and below.
                let kernel = unsafe { winograd::rotated_kernel(width, kernel, g.channels, from) };
                compute_images(&shape, products, |range, out| unsafe {
                    winograd::convolve(width, &sizes, range, &g, &kernel, &zeros, false, out);
                })
            }
            Algorithm::FromOneChannel => {
                let w = rotated(&transposed(&to_f32(kernel), g.channels, 9));
                compute_images(&shape, products, |range, out| unsafe {
                    one_channel::to_one_channel(width, &sizes, range, &g, &w, 0.0, out);
                })
            }
            Algorithm::ToOneChannel => {
                let w = rotated(&to_f32(kernel));
                compute_images(&shape, products, |range, out| unsafe {
                    one_channel::from_one_channel(width, &sizes, range, &g, &w, &zeros, false, out);
                })
            }
        })
    }

    /// The gradients of the kernel and the bias.
    fn weight_gradients<E: Element>(&self, gradient: &Tensor) -> Result<(Tensor, Tensor)> {
        let sizes = Sizes::of(gradient);
        let x = Images::<E>::of(&self.x, None)?;
        let g = Images::<E>::of(gradient, self.relu_output.as_ref())?;
        let products = sizes.products(x.channels, g.channels);
        let (width, algorithm) = (self.width, self.algorithm);
        // SAFETY: as in `forward`.
        let parts = parallel_over_images(sizes.images, products, |range| unsafe {
            match algorithm {
                Algorithm::Winograd => winograd::kernel_gradient(width, &sizes, range, &x, &g),
                Algorithm::FromOneChannel => {
                    one_channel::one_channel_gradient(width, &sizes, range, &x, &g)
                }
                Algorithm::ToOneChannel => {
                    one_channel::one_channel_gradient(width, &sizes, range, &g, &x)
                }
            }
        });
        let (mut kernel, mut bias) = (vec![], vec![]);
        for (kernel_part, bias_part) in parts {
            add_to(&mut kernel, kernel_part);
            add_to(&mut bias, bias_part);
        }
        let bias = match self.algorithm {
            Algorithm::Winograd | Algorithm::FromOneChannel => Tensor::from_slice(&bias),
            Algorithm::ToOneChannel => gradient.sum(Kind::Float).view(1),
        };
        let kernel = match self.algorithm {
            Algorithm::Winograd => kernel,
            Algorithm::FromOneChannel => transposed(&kernel, 9, g.channels),
            Algorithm::ToOneChannel => rotated(&kernel),
        };
        let kernel = Tensor::from_slice(&kernel).view_(self.kernel.size());
        Ok((kernel.to_kind(E::KIND), bias.to_kind(E::KIND)))
    }
}

// ---- small helpers ---------------------------------------------------------------------------------

/// The transpose of a matrix of `rows` and `columns`.
fn transposed(matrix: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let row = |column| (0..rows).map(move |row| matrix[row * columns + column]);
    (0..columns).flat_map(row).collect()
}

/// A kernel `(9, channels)` rotated by 180 degrees: the nine neighbours in reverse order.
fn rotated(w: &[f32]) -> Vec<f32> {
    let rows = w.chunks(w.len() / 9).rev();
    rows.flatten().copied().collect()
}
