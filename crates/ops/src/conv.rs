//! The 3x3 convolution with stride 1 and "same" padding, in which the lesson's networks spend most of their time.
//!
//! The kernels for AVX-512 and AVX2 compute it with bias, rectifier and gradients, faster than oneDNN, which needs four
//! times as many multiplications (`conv/winograd.rs`; the README says how much faster, on which machine). In `bfloat16` CPUs
//! with units for products of matrices are faster still (`conv/amx.rs`). Convolutions from or to a single channel have
//! kernels of their own (`conv/one_channel.rs`). With other numbers of channels, and on other CPUs, libtorch computes the
//! same function.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod images;
#[cfg(target_arch = "x86_64")]
mod one_channel;
#[cfg(target_arch = "x86_64")]
mod vectorised;
#[cfg(target_arch = "x86_64")]
mod winograd;

use anyhow::{Result, ensure};
use tch::Tensor;

use crate::implementation::Implementation;
#[cfg(target_arch = "x86_64")]
use crate::simd::width::Width;

/// The activation function of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// The identity.
    Linear,
    /// The rectifier, `max(x, 0)`.
    Relu,
}

/// A 3x3 convolution with stride 1, "same" padding, bias and activation, on images with their channels last.
///
/// `x` is `(N, H, W, from)`, `kernel` `(to, 3, 3, from)`, `bias` `(to)`, all of one kind; the result is
/// `(N, H, W, to)`. Gradients flow back to all three. In `bfloat16` only the inputs and the result are
/// rounded; sums are in `float32`.
///
/// libtorch's own operations can do two things that this one cannot: compute gradients of gradients, and notice that
/// `x`, `kernel` or the result was changed in place before the backward pass. Do not change them in place.
///
/// # Errors
/// Tensors whose shapes or kinds do not fit each other.
///
/// ```
/// use ops::{Activation, conv3x3};
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
    let implementation = Implementation::selected()?;
    #[cfg(target_arch = "x86_64")]
    if let Some(width) = Width::of(implementation) {
        let relu = activation == Activation::Relu;
        if implementation == Implementation::Amx
            && let Some(result) = amx::convolution(x, kernel, bias, relu)?
        {
            return Ok(result);
        }
        if let Some(result) = vectorised::convolution(width, x, kernel, bias, relu)? {
            return Ok(result);
        }
    }
    let _ = implementation;
    by_libtorch(x, kernel, bias, activation)
}

/// The same with libtorch's operations.
fn by_libtorch(
    x: &Tensor,
    kernel: &Tensor,
    bias: &Tensor,
    activation: Activation,
) -> Result<Tensor> {
    let channels_first = |tensor: &Tensor| tensor.permute([0, 3, 1, 2]);
    let one = [1, 1];
    let (x, kernel) = (channels_first(x), channels_first(kernel));
    let mut y = x
        .f_conv2d(&kernel, Some(bias), one, one, one, 1)?
        .permute([0, 2, 3, 1]);
    Ok(match activation {
        Activation::Linear => y,
        Activation::Relu => y.relu_(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::implementation::tests::in_each_implementation;
    use tch::{Device, Kind};

    /// Images, height, width, and channels of the input and the output. The cases cover each kernel, sizes that tiles do not
    /// divide, more images than a group of tiles takes, a single row or column, and channels that fill one to four vectors.
    const CASES: [[i64; 5]; 12] = [
        [3, 28, 28, 16, 32],
        [1, 28, 28, 32, 16],
        [9, 7, 7, 48, 64],
        [8, 14, 14, 64, 48],
        [2, 5, 9, 16, 16],
        [1, 1, 1, 32, 32],
        [1, 1, 40, 16, 16],
        [40, 2, 1, 16, 48],
        [19, 7, 7, 48, 16],
        [3, 28, 28, 1, 16],
        [2, 6, 5, 1, 48],
        [3, 28, 28, 16, 1],
    ];

    fn random(shape: &[i64], kind: Kind) -> Tensor {
        Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_kind(kind)
    }

    /// The result of a convolution and the gradients of its three inputs, in `float64`.
    fn results(
        convolution: fn(&Tensor, &Tensor, &Tensor, Activation) -> Result<Tensor>,
        inputs: &[Tensor; 3],
        output_gradient: &Tensor,
        kind: Kind,
        activation: Activation,
    ) -> [Tensor; 4] {
        let [x, kernel, bias] = inputs.each_ref().map(|input| {
            let leaf = input.detach().to_kind(kind);
            leaf.set_requires_grad(true)
        });
        let y = convolution(&x, &kernel, &bias, activation).unwrap();
        let output_gradient = output_gradient.to_kind(kind);
        let loss = (&y * output_gradient).sum(Kind::Float);
        loss.backward();
        [y.detach(), x.grad(), kernel.grad(), bias.grad()].map(|found| found.to_kind(Kind::Double))
    }

    fn difference(ours: &Tensor, theirs: &Tensor) -> f64 {
        let largest = theirs.abs().max().double_value(&[]);
        (ours - theirs).abs().max().double_value(&[]) / largest
    }

    /// The largest relative difference of any result in any case, and its description.
    fn worst(kind: Kind, cases: &[[i64; 5]]) -> (f64, String) {
        let mut worst = (0.0, String::new());
        for &[images, height, width, from, to] in cases {
            for activation in [Activation::Linear, Activation::Relu] {
                tch::manual_seed(1);
                let inputs = [
                    random(&[images, height, width, from], kind),
                    random(&[to, 3, 3, from], kind) / (9.0 * from as f64).sqrt(),
                    random(&[to], kind),
                ];
                let output_gradient = random(&[images, height, width, to], kind);
                let ours = results(conv3x3, &inputs, &output_gradient, kind, activation);
                let theirs = results(
                    by_libtorch,
                    &inputs,
                    &output_gradient,
                    Kind::Double,
                    activation,
                );
                let names = [
                    "result",
                    "gradient of the images",
                    "of the kernel",
                    "of the bias",
                ];
                for ((name, ours), theirs) in names.iter().zip(&ours).zip(&theirs) {
                    assert_eq!(ours.size(), theirs.size());
                    let found = difference(ours, theirs);
                    if found.is_nan() || found > worst.0 {
                        let of = format!("{images} x {height} x {width}, {from} to {to}");
                        worst = (found, format!("{name} of {of}, {activation:?}: {found:e}"));
                    }
                }
            }
        }
        worst
    }

    #[test]
    fn results_and_gradients_are_those_of_float64() {
        in_each_implementation(compare_with_float64);
    }

    fn compare_with_float64() {
        let (float32, of) = worst(Kind::Float, &CASES);
        assert!(float32 < 2e-5, "{of}");
        // `bfloat16` keeps eight bits of the inputs and the results; sums are in `float32`.
        let (mixed, of) = worst(Kind::BFloat16, &CASES);
        assert!(mixed < 0.02, "{of}");
    }

    #[test]
    fn threads_share_images_and_change_nothing_in_the_result() {
        let before = tch::get_num_threads();
        let inputs = [[20, 28, 28, 16], [32, 3, 3, 16]].map(|shape| random(&shape, Kind::Float));
        let bias = random(&[32], Kind::Float);
        let [one, two] = [1, 2].map(|threads| {
            tch::set_num_threads(threads);
            conv3x3(&inputs[0], &inputs[1], &bias, Activation::Relu).unwrap()
        });
        tch::set_num_threads(before);
        assert_eq!(one, two);
    }

    #[test]
    fn other_channels_and_kinds_are_computed_by_libtorch() {
        let (double, of) = worst(Kind::Double, &CASES[..1]);
        assert!(double < 1e-12, "{of}");
        let (odd, of) = worst(Kind::Float, &[[2, 6, 6, 3, 16], [2, 6, 6, 16, 10]]);
        assert!(odd < 2e-5, "{of}");
    }

    #[test]
    fn only_what_needs_a_gradient_gets_one() {
        in_each_implementation(|| {
            let shapes: [&[i64]; 3] = [&[2, 7, 7, 16], &[16, 3, 3, 16], &[16]];
            for needed in 0..3 {
                let mut inputs = shapes.map(|shape| random(shape, Kind::BFloat16));
                let _ = inputs[needed].requires_grad_(true);
                let y = conv3x3(&inputs[0], &inputs[1], &inputs[2], Activation::Relu).unwrap();
                y.sum(Kind::Float).backward();
                for (at, input) in inputs.iter().enumerate() {
                    assert_eq!(input.grad().defined(), at == needed);
                }
            }
        });
    }

    #[test]
    fn nan_stays_nan() {
        in_each_implementation(|| {
            for kind in [Kind::Float, Kind::BFloat16] {
                let nan = Tensor::full([1, 8, 8, 16], f64::NAN, (kind, Device::Cpu));
                let (kernel, bias) = (random(&[16, 3, 3, 16], kind), random(&[16], kind));
                for activation in [Activation::Linear, Activation::Relu] {
                    let y = conv3x3(&nan, &kernel, &bias, activation).unwrap();
                    assert!(y.isnan().all().double_value(&[]) == 1.0, "{activation:?}");
                }
            }
        });
    }

    #[test]
    fn tensors_that_do_not_fit_are_named() {
        let zeros = |shape: &[i64], kind| Tensor::zeros(shape, (kind, Device::Cpu));
        let error = |x: Tensor, kernel: Tensor, bias: Tensor| {
            let result = conv3x3(&x, &kernel, &bias, Activation::Linear);
            result.unwrap_err().to_string()
        };
        let float = Kind::Float;
        let text = error(
            zeros(&[1, 4, 4, 16], float),
            zeros(&[32, 3, 3, 8], float),
            zeros(&[32], float),
        );
        assert!(text.contains("[32, 3, 3, 8]"), "{text}");
        let text = error(
            zeros(&[1, 4, 4, 16], Kind::BFloat16),
            zeros(&[32, 3, 3, 16], float),
            zeros(&[32], float),
        );
        assert!(text.contains("of one kind"), "{text}");
    }
}
