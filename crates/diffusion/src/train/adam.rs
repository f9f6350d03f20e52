//! Adam, to the letter as Keras computes it.

use tch::Tensor;

const BETA_1: f32 = 0.9;
const BETA_2: f32 = 0.999;
/// Keras's epsilon; it is added to the root of the *uncorrected* second moment ("epsilon hat" in
/// the last paragraph of section 2 of Kingma & Ba 2015), where PyTorch adds it to the corrected one.
const EPSILON: f32 = 1e-7;
/// Below this many numbers a thread costs more than it saves.
const NUMBERS_A_THREAD: usize = 1 << 18;

/// The optimizer's state: two moments for each weight that is trained, and none for others.
pub(super) struct Adam {
    weights: Vec<Tensor>,
    moments: Vec<(Vec<f32>, Vec<f32>)>,
    learning_rate: f64,
    steps: i32,
}

impl Adam {
    /// Weights must be contiguous `float32` tensors that require gradients.
    pub(super) fn new(weights: Vec<Tensor>, learning_rate: f64) -> Adam {
        let zeros = |weight: &Tensor| (vec![0.0; weight.numel()], vec![0.0; weight.numel()]);
        let moments = weights.iter().map(zeros).collect();
        Adam {
            weights,
            moments,
            learning_rate,
            steps: 0,
        }
    }

    /// One step down the gradient of `loss`.
    pub(super) fn step(&mut self, loss: &Tensor) {
        let gradients = Tensor::run_backward(&[loss], &self.weights, false, false);
        self.steps += 1;
        // Kingma & Ba 2015, end of section 2: the bias corrections folded into the step size.
        let (beta_1, beta_2) = (f64::from(BETA_1), f64::from(BETA_2));
        let correction = (1.0 - beta_2.powi(self.steps)).sqrt() / (1.0 - beta_1.powi(self.steps));
        let alpha = (self.learning_rate * correction) as f32;
        for ((weight, gradient), (m, v)) in
            self.weights.iter().zip(&gradients).zip(&mut self.moments)
        {
            let gradient = gradient.contiguous();
            // SAFETY: both tensors are contiguous float32 on the CPU with `m.len()` numbers, live
            // until the end of this block, and nobody else touches them: the weights are borrowed
            // by the training, the gradients are ours alone.
            let (weight, gradient) = unsafe {
                (
                    std::slice::from_raw_parts_mut(weight.data_ptr().cast::<f32>(), m.len()),
                    std::slice::from_raw_parts(gradient.data_ptr().cast::<f32>(), m.len()),
                )
            };
            update(weight, gradient, m, v, alpha);
        }
    }

    pub(super) fn copy_weights(&self) -> Vec<Tensor> {
        self.weights
            .iter()
            .map(|weight| weight.detach().copy())
            .collect()
    }

    pub(super) fn restore_weights(&mut self, copies: &[Tensor]) {
        tch::no_grad(|| {
            self.weights
                .iter_mut()
                .zip(copies)
                .for_each(|(weight, copy)| weight.copy_(copy))
        });
    }
}

/// Updates the numbers of one weight, in one pass over memory, large ones on several threads.
fn update(weight: &mut [f32], gradient: &[f32], m: &mut [f32], v: &mut [f32], alpha: f32) {
    let threads =
        (weight.len() / NUMBERS_A_THREAD).clamp(1, tch::get_num_threads().max(1) as usize);
    let size = weight.len().div_ceil(threads).max(1);
    let mut parts = weight
        .chunks_mut(size)
        .zip(gradient.chunks(size))
        .zip(m.chunks_mut(size))
        .zip(v.chunks_mut(size));
    std::thread::scope(|scope| {
        let first = parts.next();
        for (((weight, gradient), m), v) in parts {
            scope.spawn(move || update_part(weight, gradient, m, v, alpha));
        }
        if let Some((((weight, gradient), m), v)) = first {
            update_part(weight, gradient, m, v, alpha);
        }
    });
}

fn update_part(weight: &mut [f32], gradient: &[f32], m: &mut [f32], v: &mut [f32], alpha: f32) {
    for (((w, &g), m), v) in weight.iter_mut().zip(gradient).zip(m).zip(v) {
        *m += (g - *m) * (1.0 - BETA_1);
        *v += (g * g - *v) * (1.0 - BETA_2);
        *w -= alpha * *m / (v.sqrt() + EPSILON);
    }
}
