//! Group normalisation followed by SiLU, which precede every convolution of the U-Net.
//!
//! The kernels for AVX-512 and AVX2 compute both in one pass over memory, together with a shift of the channels before them
//! (through which a network receives the timestep), and all gradients. On other CPUs libtorch computes the same function.

#[cfg(target_arch = "x86_64")]
mod vectorised;

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use crate::implementation::Implementation;
#[cfg(target_arch = "x86_64")]
use crate::simd::{lanes::LANES, width::Width};

/// Channels in a group of [`norm_silu`].
pub const GROUP: i64 = 16;
#[cfg(target_arch = "x86_64")]
const _: () = assert!(GROUP as usize == LANES, "a group is one vector");

/// `silu(gamma · (h - mean) / √(variance + ε) + beta)` of `h = x + shift`, with mean and variance over the pixels
/// of an image and groups of sixteen channels (Wu & He 2018, eq. 1 and 7; SiLU is `z · sigmoid(z)`,
/// Hendrycks & Gimpel 2016).
///
/// `x` is `(N, H, W, C)`, channels last, C a multiple of 16; `shift` `(N, C)`; `gamma` and `beta` `(C)`; all
/// of one kind; `epsilon` (ε) is above 0, 1e-5 in PyTorch and 1e-3 in Keras. The result has the shape and kind of `x`. Gradients flow back to all four. As with
/// [`conv3x3`](crate::conv3x3), gradients of gradients are not possible, and neither the inputs nor the result may be changed in
/// place before the backward pass.
///
/// # Errors
/// Tensors whose shapes or kinds do not fit each other.
pub fn norm_silu(
    x: &Tensor,
    shift: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    epsilon: f64,
) -> Result<Tensor> {
    let shape = x.size();
    let fits = shape.len() == 4 && shape[3] % GROUP == 0 && shape.iter().all(|&size| size > 0);
    ensure!(
        fits && shift.size() == [shape[0], shape[3]]
            && [gamma, beta].iter().all(|t| t.size() == [shape[3]]),
        "a normalisation takes images (N, H, W, C) with C a multiple of {GROUP}, a shift (N, C), gamma and beta (C); these have {:?}, {:?}, {:?} and {:?}",
        shape,
        shift.size(),
        gamma.size(),
        beta.size(),
    );
    let kinds = [shift.kind(), gamma.kind(), beta.kind()];
    ensure!(
        kinds == [x.kind(); 3],
        "images, shift, gamma and beta must be of one kind; these are {:?} and {kinds:?}",
        x.kind()
    );
    let implementation = Implementation::selected()?;
    #[cfg(target_arch = "x86_64")]
    if let Some(width) = Width::of(implementation)
        && let Some(result) = vectorised::norm_silu(width, [x, shift, gamma, beta], epsilon)?
    {
        return Ok(result);
    }
    let _ = implementation;
    Ok(by_libtorch(x, shift, gamma, beta, epsilon))
}

/// The same with libtorch's operations.
fn by_libtorch(x: &Tensor, shift: &Tensor, gamma: &Tensor, beta: &Tensor, epsilon: f64) -> Tensor {
    let [images, height, width, channels] = [0, 1, 2, 3].map(|dim| x.size()[dim]);
    // Statistics in `float32` at least: 16 bits are too few for a sum of many numbers.
    let wide = match x.kind() {
        Kind::Double => Kind::Double,
        _ => Kind::Float,
    };
    let h = (x + shift.view([images, 1, 1, channels])).to_kind(wide);
    let groups = h.view([images, height * width, channels / GROUP, GROUP]);
    let dims: &[i64] = &[1, 3];
    let centred = &groups - groups.mean_dim(dims, true, wide);
    let variance = centred.square().mean_dim(dims, true, wide);
    let normal = (centred * (variance + epsilon).rsqrt())
        .view_as(&h)
        .to_kind(x.kind());
    (normal * gamma + beta).silu()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::implementation::tests::in_each_implementation;
    use tch::Device;

    const EPSILON: f64 = 1e-5;

    fn random(shape: &[i64]) -> Tensor {
        Tensor::randn(shape, (Kind::Double, Device::Cpu))
    }

    /// The result and the gradients of all inputs, in `float64`.
    fn results(
        norm: fn(&Tensor, &Tensor, &Tensor, &Tensor) -> Tensor,
        inputs: &[Tensor; 4],
        output_gradient: &Tensor,
        kind: Kind,
    ) -> Vec<Tensor> {
        let [x, shift, gamma, beta] = inputs
            .each_ref()
            .map(|input| input.to_kind(kind).detach().set_requires_grad(true));
        let y = norm(&x, &shift, &gamma, &beta);
        (&y * output_gradient.to_kind(kind))
            .sum(Kind::Float)
            .backward();
        let found = [y, x.grad(), shift.grad(), gamma.grad(), beta.grad()];
        found
            .iter()
            .map(|t| t.detach().to_kind(Kind::Double))
            .collect()
    }

    #[test]
    fn results_and_gradients_are_those_of_float64() {
        in_each_implementation(compare_with_float64);
    }

    fn compare_with_float64() {
        for shape in [
            [3, 14, 14, 64],
            [20, 7, 7, 128],
            [1, 1, 1, 16],
            [2, 3, 5, 48],
        ] {
            tch::manual_seed(1);
            let (images, channels) = (shape[0], shape[3]);
            let inputs = [
                random(&shape) * 2.0 + 0.7,
                random(&[images, channels]),
                random(&[channels]),
                random(&[channels]),
            ];
            let output_gradient = random(&shape);
            for (kind, limit) in [(Kind::Float, 2e-5), (Kind::BFloat16, 0.03)] {
                // Both get the same rounded inputs.
                let inputs = inputs
                    .each_ref()
                    .map(|input| input.to_kind(kind).to_kind(Kind::Double));
                let norm = |x: &_, shift: &_, gamma: &_, beta: &_| {
                    norm_silu(x, shift, gamma, beta, EPSILON).unwrap()
                };
                let ours = results(norm, &inputs, &output_gradient.to_kind(kind), kind);
                let theirs = results(
                    |x, shift, gamma, beta| by_libtorch(x, shift, gamma, beta, EPSILON),
                    &inputs,
                    &output_gradient.to_kind(kind).to_kind(Kind::Double),
                    Kind::Double,
                );
                for (at, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
                    let largest = theirs.abs().max().double_value(&[]).max(1e-3);
                    let difference = (ours - theirs).abs().max().double_value(&[]) / largest;
                    assert!(
                        difference < limit,
                        "{shape:?} {kind:?}, tensor {at}: {difference:e}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_group_comes_out_with_mean_zero_and_variance_one() {
        // With a beta of 50 the SiLU changes nothing, because z · sigmoid(z) is z for large z.
        let x = random(&[2, 8, 8, 32]) * 3.0 + 5.0;
        let (zeros, ones) = (
            Tensor::zeros([2, 32], (Kind::Double, Device::Cpu)),
            Tensor::ones([32], (Kind::Double, Device::Cpu)),
        );
        let y = by_libtorch(&x, &zeros, &ones, &(&ones * 50.0), EPSILON) - 50.0;
        let groups = y.view([2, 64, 2, 16]);
        let dims: &[i64] = &[1, 3];
        assert!(
            groups
                .mean_dim(dims, false, Kind::Double)
                .abs()
                .max()
                .double_value(&[])
                < 1e-9
        );
        assert!(
            (groups.var_dim(dims, false, false) - 1.0)
                .abs()
                .max()
                .double_value(&[])
                < 1e-5
        );
    }

    #[test]
    fn tensors_that_do_not_fit_are_named() {
        let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        let error = norm_silu(
            &zeros(&[1, 2, 2, 24]),
            &zeros(&[1, 24]),
            &zeros(&[24]),
            &zeros(&[24]),
            EPSILON,
        );
        assert!(error.unwrap_err().to_string().contains("[1, 2, 2, 24]"));
        let error = norm_silu(
            &zeros(&[1, 2, 2, 16]),
            &zeros(&[2, 16]),
            &zeros(&[16]),
            &zeros(&[16]),
            EPSILON,
        );
        assert!(error.unwrap_err().to_string().contains("[2, 16]"));
    }
}
