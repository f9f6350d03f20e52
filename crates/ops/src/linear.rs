//! The dense layer.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use crate::implementation::Implementation;

/// A dense layer, `y = x · kernelᵀ + bias`.
///
/// `x` is `(…, from)` with at least two dimensions, `kernel` `(to, from)`, `bias` `(to)`, all of one kind; the
/// result is `(…, to)`. Gradients flow back to all three.
///
/// In `float32` this function calls oneDNN, as libtorch itself does in `bfloat16`. libtorch would call MKL, which on some
/// processors of other makers than Intel uses only half of the vector units: there a product of the lesson's matrices took
/// 2.5 to 3 ms, and 1.1 ms with oneDNN. With [`Implementation::Libtorch`] the choice is libtorch's.
///
/// # Errors
/// Tensors whose shapes or kinds do not fit each other.
pub fn linear(x: &Tensor, kernel: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (shape, kernel_shape) = (x.size(), kernel.size());
    ensure!(
        shape.len() >= 2
            && kernel_shape.len() == 2
            && shape.last() == kernel_shape.last()
            && bias.size() == kernel_shape[..1],
        "a dense layer takes numbers (…, from), a kernel (to, from) and a bias (to); these have {:?}, {:?} and {:?}",
        shape,
        kernel_shape,
        bias.size(),
    );
    ensure!(
        [kernel.kind(), bias.kind()] == [x.kind(); 2],
        "numbers, kernel and bias of a dense layer must be of one kind; these are {:?}, {:?} and {:?}",
        x.kind(),
        kernel.kind(),
        bias.kind(),
    );
    let own = Implementation::selected()? != Implementation::Libtorch;
    Ok(
        if own && x.kind() == Kind::Float && x.numel() > 0 && tch::utils::has_mkldnn() {
            x.f_to_mkldnn(x.kind())?
                .f_mkldnn_linear(kernel, Some(bias))?
                .f_to_dense(None, false)?
        } else {
            x.f_linear(kernel, Some(bias))?
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::implementation::tests::in_each_implementation;
    use tch::Device;

    /// The result and the gradients of the three inputs, in `float64`.
    fn results(inputs: &[Tensor; 3], output_gradient: &Tensor, kind: Kind) -> [Tensor; 4] {
        let [x, kernel, bias] = inputs
            .each_ref()
            .map(|input| input.to_kind(kind).detach().set_requires_grad(true));
        let y = linear(&x, &kernel, &bias).unwrap();
        (&y * output_gradient.to_kind(kind))
            .sum(Kind::Float)
            .backward();
        [y.detach(), x.grad(), kernel.grad(), bias.grad()].map(|t| t.to_kind(Kind::Double))
    }

    #[test]
    fn results_and_gradients_are_those_of_float64() {
        in_each_implementation(|| {
            for shape in [&[5, 48][..], &[2, 7, 7, 48], &[1, 48]] {
                tch::manual_seed(1);
                let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
                let inputs = [random(shape), random(&[10, 48]), random(&[10])];
                let mut output = shape.to_vec();
                output[shape.len() - 1] = 10;
                let output_gradient = random(&output);
                let expected = results(&inputs, &output_gradient, Kind::Double);
                for (kind, limit) in [(Kind::Float, 1e-5), (Kind::BFloat16, 0.03)] {
                    let found = results(&inputs, &output_gradient, kind);
                    for (found, expected) in found.iter().zip(&expected) {
                        assert_eq!(found.size(), expected.size());
                        let largest = expected.abs().max().double_value(&[]);
                        let difference = (found - expected).abs().max().double_value(&[]);
                        assert!(difference / largest < limit, "{shape:?}, {kind:?}");
                    }
                }
            }
        });
    }

    #[test]
    fn no_rows_give_no_rows() {
        in_each_implementation(|| {
            let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
            let y = linear(&zeros(&[0, 3]), &zeros(&[2, 3]), &zeros(&[2])).unwrap();
            assert_eq!(y.size(), [0, 2]);
        });
    }

    #[test]
    fn tensors_that_do_not_fit_are_named() {
        let zeros = |shape: &[i64], kind| Tensor::zeros(shape, (kind, Device::Cpu));
        let (x, bias) = (zeros(&[4, 3], Kind::Float), zeros(&[2], Kind::Float));
        let error = linear(&x, &zeros(&[2, 4], Kind::Float), &bias).unwrap_err();
        assert!(error.to_string().contains("[4, 3], [2, 4] and [2]"));
        let error = linear(&x, &zeros(&[2, 3], Kind::Double), &bias).unwrap_err();
        assert!(error.to_string().contains("Float, Double and Float"));
    }
}
