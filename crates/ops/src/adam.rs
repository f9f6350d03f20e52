//! Adam, as Keras computes it.

mod formula;
#[cfg(target_arch = "x86_64")]
mod vectorised;

use anyhow::{Result, ensure};
use tch::{Device, Kind, Tensor};

use crate::contiguity::contiguity;
use crate::implementation::Implementation;
#[cfg(target_arch = "x86_64")]
use crate::simd::width::Width;
use formula::{BETA_1, BETA_2, EPSILON, step_size};

/// A weight that Adam updates, with its two moments.
#[derive(Debug)]
pub struct AdamWeight {
    weight: Tensor,
    copy: Option<Tensor>,
    first_moment: Tensor,
    second_moment: Tensor,
}

impl AdamWeight {
    /// Takes a weight, contiguous `float32` numbers on the CPU, and optionally a `bfloat16` copy of the same shape, which
    /// every step rewrites. Both moments are zeros. The tensors share their memory with the caller's.
    ///
    /// # Errors
    /// A weight or a copy of another kind, on another device or not contiguous, or a copy of another shape.
    pub fn new(weight: Tensor, copy: Option<Tensor>) -> Result<AdamWeight> {
        check_usable(&weight, Kind::Float)?;
        if let Some(copy) = &copy {
            check_usable(copy, Kind::BFloat16)?;
            ensure!(
                copy.size() == weight.size(),
                "the copy of a weight has shape {:?}; expected {:?}, the shape of the weight",
                copy.size(),
                weight.size(),
            );
        }
        let zeros = || Tensor::zeros(weight.size(), (Kind::Float, Device::Cpu));
        let (first_moment, second_moment) = (zeros(), zeros());
        Ok(AdamWeight {
            weight,
            copy,
            first_moment,
            second_moment,
        })
    }

    /// The weight, `float32`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The moving average of the gradients, `float32`, of the weight's shape.
    pub fn first_moment(&self) -> &Tensor {
        &self.first_moment
    }

    /// The moving average of the squared gradients, `float32`, of the weight's shape.
    pub fn second_moment(&self) -> &Tensor {
        &self.second_moment
    }

    /// Sets the weight to other values of the same shape, and rewrites the copy.
    ///
    /// # Errors
    /// Values of another shape.
    pub fn restore_weight(&mut self, value: &Tensor) -> Result<()> {
        ensure!(
            value.size() == self.weight.size(),
            "the new values of a weight have shape {:?}; expected {:?}",
            value.size(),
            self.weight.size(),
        );
        tch::no_grad(|| {
            self.weight.copy_(value);
            if let Some(copy) = &mut self.copy {
                copy.copy_(&self.weight);
            }
        });
        Ok(())
    }

    /// Sets both moments to the values of these tensors, for example those of a checkpoint. Only the number of values
    /// has to fit, in any shape.
    ///
    /// # Errors
    /// Moments with another number of values.
    pub fn restore_moments(&mut self, first: &Tensor, second: &Tensor) -> Result<()> {
        let count = self.weight.numel();
        for moment in [first, second] {
            ensure!(
                moment.numel() == count,
                "a moment holds {} numbers; expected {count}, as many as its weight of shape {:?}",
                moment.numel(),
                self.weight.size(),
            );
        }
        let size = self.weight.size();
        tch::no_grad(|| {
            let into = |moment: &mut Tensor, value: &Tensor| moment.copy_(&value.reshape(&size));
            into(&mut self.first_moment, first);
            into(&mut self.second_moment, second);
        });
        Ok(())
    }
}

/// Is this a tensor that a step can read and write in place?
fn check_usable(tensor: &Tensor, kind: Kind) -> Result<()> {
    ensure!(
        tensor.kind() == kind && tensor.is_contiguous() && tensor.device() == Device::Cpu,
        "a weight of shape {:?} cannot be trained: it holds {:?} numbers on {:?}, {}; expected {kind:?} numbers on the CPU, contiguous",
        tensor.size(),
        tensor.kind(),
        tensor.device(),
        contiguity(tensor),
    );
    Ok(())
}

/// One step of Adam (Kingma & Ba 2015, algorithm 1), as Keras computes it, along the sum `g` of the gradients:
///
/// ```text
/// m = β₁ m + (1 - β₁) g            α = learning_rate · √(1 - β₂ᵗ) / (1 - β₁ᵗ)
/// v = β₂ v + (1 - β₂) g²           w = w - α m / (√v + ε)
/// ```
///
/// with `β₁ = 0.9`, `β₂ = 0.999`, `ε = 1e-7`, and `t` the number `step` of the step, counted from 1. The bias
/// corrections are folded into the step size (end of section 2 of the paper), and `ε` is added to the root of the
/// uncorrected second moment. The copy of the weight, if there is one, is rewritten.
///
/// `gradients` are tensors of the weight's shape, `float32` or `bfloat16`, on the CPU: one of each worker, for example.
/// They must not share memory with the weight. Large weights are updated by up to `threads` threads. No other thread may
/// read or write the weight or the copy during the call.
///
/// # Errors
/// A gradient of another shape, kind or device; a step below 1. The weight is unchanged then.
pub fn adam_step(
    weight: &mut AdamWeight,
    gradients: &[Tensor],
    learning_rate: f64,
    step: i32,
    threads: usize,
) -> Result<()> {
    ensure!(
        step >= 1,
        "the number of the step is {step}; steps are counted from 1"
    );
    let size = weight.weight.size();
    for gradient in gradients {
        ensure!(
            gradient.size() == size
                && gradient.device() == Device::Cpu
                && matches!(gradient.kind(), Kind::Float | Kind::BFloat16),
            "a gradient has shape {:?} and {:?} numbers on {:?}; expected shape {size:?} and Float or BFloat16 numbers on the CPU",
            gradient.size(),
            gradient.kind(),
            gradient.device(),
        );
    }
    let alpha = step_size(learning_rate, step);
    let implementation = Implementation::selected()?;
    #[cfg(target_arch = "x86_64")]
    if let Some(width) = Width::of(implementation) {
        let AdamWeight {
            weight,
            copy,
            first_moment,
            second_moment,
        } = weight;
        return vectorised::step(
            width,
            weight,
            copy.as_mut(),
            gradients,
            first_moment,
            second_moment,
            alpha,
            threads,
        );
    }
    let _ = (implementation, threads);
    by_libtorch(weight, gradients, alpha);
    Ok(())
}

/// The same with libtorch's operations, which use libtorch's own threads.
fn by_libtorch(weight: &mut AdamWeight, gradients: &[Tensor], alpha: f32) {
    let _guard = tch::no_grad_guard();
    let AdamWeight {
        weight: w,
        copy,
        first_moment: m,
        second_moment: v,
    } = weight;
    let mut g = w.zeros_like();
    for gradient in gradients {
        let _ = g.g_add_(&gradient.to_kind(Kind::Float));
    }
    let _ = m.g_add_(&((&g - &*m) * f64::from(1.0 - BETA_1)));
    let _ = v.g_add_(&((&g * &g - &*v) * f64::from(1.0 - BETA_2)));
    let _ = w.g_sub_(&((&*m * f64::from(alpha)) / (v.sqrt() + f64::from(EPSILON))));
    if let Some(copy) = copy {
        copy.copy_(w);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::implementation::tests::in_each_implementation;

    /// Large enough for two threads and a last block that is not full.
    const SIZE: i64 = (1 << 19) + 77;

    fn random() -> Tensor {
        Tensor::randn([SIZE], (Kind::Float, Device::Cpu))
    }

    #[test]
    fn steps_are_those_of_float64() {
        in_each_implementation(|| {
            tch::manual_seed(1);
            let start = random();
            let mut ours = AdamWeight::new(start.copy(), None).unwrap();
            let mut w = start.to_kind(Kind::Double);
            let (mut m, mut v) = (w.zeros_like(), w.zeros_like());
            for step in 1..=5 {
                let gradients = [random() * 0.1, random().to_kind(Kind::BFloat16)];
                adam_step(&mut ours, &gradients, 0.01, step, 2).unwrap();
                let g = gradients[0].to_kind(Kind::Double) + gradients[1].to_kind(Kind::Double);
                m = m * 0.9 + &g * 0.1;
                v = v * 0.999 + g.square() * 0.001;
                let correction = (1.0 - 0.999f64.powi(step)).sqrt() / (1.0 - 0.9f64.powi(step));
                w -= &m * (0.01 * correction) / (v.sqrt() + 1e-7);
            }
            for (found, expected) in [
                (ours.weight(), &w),
                (ours.first_moment(), &m),
                (ours.second_moment(), &v),
            ] {
                let difference = (found.to_kind(Kind::Double) - expected).abs().max();
                let difference = difference.double_value(&[]);
                assert!(difference < 1e-6, "{difference:e}");
            }
        });
    }

    #[test]
    fn both_vector_widths_give_the_bits_of_the_formula_in_float32() {
        in_each_implementation(|| {
            if Implementation::selected().unwrap() == Implementation::Libtorch {
                return; // it rounds a few numbers differently
            }
            tch::manual_seed(1);
            let (start, gradients) = (random(), [random(), random().to_kind(Kind::BFloat16)]);
            let mut ours = AdamWeight::new(start.copy(), None).unwrap();
            let numbers = |t: &Tensor| Vec::<f32>::try_from(&t.to_kind(Kind::Float)).unwrap();
            let mut w = numbers(&start);
            let (mut m, mut v) = (vec![0f32; w.len()], vec![0f32; w.len()]);
            let parts = gradients.each_ref().map(numbers);
            for step in 1..=3 {
                adam_step(&mut ours, &gradients, 0.001, step, 2).unwrap();
                let alpha = step_size(0.001, step);
                for at in 0..w.len() {
                    let g = parts[0][at] + parts[1][at];
                    m[at] += (g - m[at]) * (1.0 - BETA_1);
                    v[at] += (g * g - v[at]) * (1.0 - BETA_2);
                    w[at] -= alpha * m[at] / (v[at].sqrt() + EPSILON);
                }
            }
            assert_eq!(numbers(ours.weight()), w);
            assert_eq!(numbers(ours.first_moment()), m);
            assert_eq!(numbers(ours.second_moment()), v);
        });
    }

    #[test]
    fn gradients_of_several_workers_add_up_and_the_copy_follows() {
        in_each_implementation(|| {
            let (start, gradient, other) = (random(), random(), random());
            let copy = start.to_kind(Kind::BFloat16);
            let mut one = AdamWeight::new(start.copy(), None).unwrap();
            let mut two = AdamWeight::new(start.copy(), Some(copy.shallow_clone())).unwrap();
            for step in 1..=3 {
                adam_step(&mut one, &[&gradient + &other], 0.01, step, 1).unwrap();
                let parts = [gradient.shallow_clone(), other.shallow_clone()];
                adam_step(&mut two, &parts, 0.01, step, 2).unwrap();
            }
            assert_eq!(one.weight(), two.weight());
            assert_eq!(copy, two.weight().to_kind(Kind::BFloat16));
            assert_ne!(two.weight(), &start);
        });
    }

    #[test]
    fn a_permuted_gradient_is_read_in_its_own_order() {
        in_each_implementation(|| {
            let zeros = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu));
            let gradient = Tensor::from_slice(&[1f32, -1.0, 1.0, 1.0, -1.0, -1.0]).view([3, 2]);
            let mut weight = AdamWeight::new(zeros, None).unwrap();
            adam_step(&mut weight, &[gradient.tr()], 1.0, 1, 1).unwrap();
            // The first step has the learning rate's size in every direction.
            let difference = (weight.weight() + gradient.tr()).abs().max();
            assert!(difference.double_value(&[]) < 1e-4);
        });
    }

    #[test]
    fn a_step_goes_on_from_restored_values() {
        in_each_implementation(|| {
            let (start, gradient) = (random(), random());
            let mut trained = AdamWeight::new(start.copy(), None).unwrap();
            let gradients = [gradient];
            adam_step(&mut trained, &gradients, 0.01, 1, 1).unwrap();
            let copy = random().to_kind(Kind::BFloat16);
            let mut resumed = AdamWeight::new(random(), Some(copy.shallow_clone())).unwrap();
            resumed.restore_weight(trained.weight()).unwrap();
            assert_eq!(copy, trained.weight().to_kind(Kind::BFloat16));
            let (first, second) = (trained.first_moment(), trained.second_moment());
            resumed.restore_moments(first, second).unwrap();
            adam_step(&mut trained, &gradients, 0.01, 2, 1).unwrap();
            adam_step(&mut resumed, &gradients, 0.01, 2, 1).unwrap();
            assert_eq!(trained.weight(), resumed.weight());
        });
    }

    #[test]
    fn weights_that_cannot_be_trained_are_refused() {
        let zeros = |kind| Tensor::zeros([3, 2], (kind, Device::Cpu));
        let error = |weight: Tensor, copy: Option<Tensor>| {
            let result = AdamWeight::new(weight, copy);
            result.unwrap_err().to_string()
        };
        assert!(error(zeros(Kind::Half), None).contains("it holds Half numbers"));
        assert!(error(zeros(Kind::Float).tr(), None).contains("not contiguous"));
        let other = Tensor::zeros([2, 2], (Kind::BFloat16, Device::Cpu));
        assert!(error(zeros(Kind::Float), Some(other)).contains("expected [3, 2]"));
        assert!(error(zeros(Kind::Float), Some(zeros(Kind::Float))).contains("BFloat16"));
    }

    #[test]
    fn what_does_not_fit_a_weight_is_refused() {
        let zeros = |size: i64, kind| Tensor::zeros([size], (kind, Device::Cpu));
        let float = Kind::Float;
        let mut weight = AdamWeight::new(zeros(6, float), None).unwrap();
        let mut error = |gradient: Tensor, step| {
            let result = adam_step(&mut weight, &[gradient], 0.1, step, 1);
            result.unwrap_err().to_string()
        };
        assert!(error(zeros(5, float), 1).contains("[5]"));
        assert!(error(zeros(6, Kind::Double), 1).contains("Double"));
        assert!(error(zeros(6, float), 0).contains("the number of the step is 0"));
        let (few, right) = (zeros(5, float), zeros(6, float));
        let error = weight.restore_moments(&right, &few).unwrap_err();
        assert!(
            error.to_string().contains("holds 5 numbers; expected 6"),
            "{error}"
        );
        assert!(weight.restore_weight(&few).is_err());
    }
}
