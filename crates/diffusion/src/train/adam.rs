//! Adam, to the letter as Keras computes it.

use anyhow::{Result, ensure};
use tch::{Device, Kind, Tensor};

const BETA_1: f32 = 0.9;
const BETA_2: f32 = 0.999;
/// Keras's epsilon; it is added to the root of the *uncorrected* second moment ("epsilon hat" in
/// the last paragraph of section 2 of Kingma & Ba 2015), where PyTorch adds it to the corrected one.
const EPSILON: f32 = 1e-7;
/// Below this many numbers a thread costs more than it saves.
const NUMBERS_A_THREAD: usize = 1 << 18;
/// How many numbers are worked on at once: few enough to stay in the core's own cache.
const BLOCK: usize = 2048;

/// The optimizer's state: two moments for each weight that is trained, and none for others.
pub(super) struct Adam {
    weights: Vec<Tensor>,
    /// What the network computes with where that is not the weights themselves: the same in `bfloat16`.
    copies: Vec<Tensor>,
    moments: Vec<(Vec<f32>, Vec<f32>)>,
    threads: usize,
    steps: i32,
}

impl Adam {
    /// An optimizer of these weights. `copies` is empty, or holds a `bfloat16` tensor for each weight,
    /// which every step writes anew.
    ///
    /// # Errors
    /// A weight or a copy that is not a contiguous tensor of its kind on the CPU, or copies that are
    /// not those of the weights.
    pub(super) fn new(weights: Vec<Tensor>, copies: Vec<Tensor>, threads: usize) -> Result<Adam> {
        let usable = |tensor: &Tensor, kind: Kind| {
            ensure!(
                tensor.kind() == kind && tensor.is_contiguous() && tensor.device() == Device::Cpu,
                "a weight of shape {:?} cannot be trained: it holds {:?} numbers on {:?}, {}; expected {kind:?} numbers on the CPU, contiguous",
                tensor.size(),
                tensor.kind(),
                tensor.device(),
                if tensor.is_contiguous() {
                    "contiguous"
                } else {
                    "permuted"
                },
            );
            Ok(())
        };
        for weight in &weights {
            usable(weight, Kind::Float)?;
        }
        for copy in &copies {
            usable(copy, Kind::BFloat16)?;
        }
        let sizes = |tensors: &[Tensor]| tensors.iter().map(Tensor::size).collect::<Vec<_>>();
        ensure!(
            copies.is_empty() || sizes(&copies) == sizes(&weights),
            "the model's replica has weights of shapes {:?}; expected {:?}",
            sizes(&copies),
            sizes(&weights),
        );
        let zeros = |weight: &Tensor| (vec![0.0; weight.numel()], vec![0.0; weight.numel()]);
        let moments = weights.iter().map(zeros).collect();
        Ok(Adam {
            weights,
            copies,
            moments,
            threads,
            steps: 0,
        })
    }

    /// One step down the sum of these gradients: from each thread one for each weight, of the
    /// weight's shape, in `float32` or `bfloat16`.
    pub(super) fn step(&mut self, gradients: &[Vec<Tensor>], learning_rate: f64) {
        self.steps += 1;
        // Kingma & Ba 2015, end of section 2: the bias corrections folded into the step size.
        let (beta_1, beta_2) = (f64::from(BETA_1), f64::from(BETA_2));
        let correction = (1.0 - beta_2.powi(self.steps)).sqrt() / (1.0 - beta_1.powi(self.steps));
        let alpha = (learning_rate * correction) as f32;
        for (at, (weight, (m, v))) in self.weights.iter().zip(&mut self.moments).enumerate() {
            let parts: Vec<Tensor> = gradients.iter().map(|part| part[at].contiguous()).collect();
            for part in &parts {
                assert_eq!(part.numel(), m.len(), "a gradient's size");
            }
            // SAFETY: all these tensors are contiguous on the CPU with `m.len()` numbers of the kind
            // that is asked for (checked here and in `new`), live until the end of this block, and nobody else touches them: the
            // threads that read weights and copies wait for their next job.
            let numbers = unsafe {
                Numbers {
                    weight: std::slice::from_raw_parts_mut(weight.data_ptr().cast(), m.len()),
                    copy: match self.copies.get(at) {
                        Some(copy) => {
                            std::slice::from_raw_parts_mut(copy.data_ptr().cast(), m.len())
                        }
                        None => &mut [],
                    },
                    gradients: parts.iter().map(|part| Gradient::of(part)).collect(),
                    m,
                    v,
                }
            };
            numbers.update(alpha, self.threads);
        }
    }

    pub(super) fn weights(&self) -> &[Tensor] {
        &self.weights
    }

    /// Whether all weights are numbers.
    pub(super) fn is_finite(&self) -> bool {
        let finite = |weight: &Tensor| bool::try_from(weight.isfinite().all()).unwrap_or(false);
        self.weights.iter().all(finite)
    }

    pub(super) fn copy_weights(&self) -> Vec<Tensor> {
        self.weights
            .iter()
            .map(|weight| weight.detach().copy())
            .collect()
    }

    /// Gives the weights other values, and with them what the network computes with.
    pub(super) fn restore_weights(&mut self, values: &[Tensor]) {
        tch::no_grad(|| {
            for (weight, value) in self.weights.iter_mut().zip(values) {
                weight.copy_(value);
            }
            for (copy, weight) in self.copies.iter_mut().zip(&self.weights) {
                copy.copy_(weight);
            }
        });
    }

    /// What has to be kept to go on later: both moments of each weight, and the number of steps.
    pub(super) fn state(&self) -> (Vec<(Tensor, Tensor)>, i32) {
        let tensor = |numbers: &Vec<f32>| Tensor::from_slice(numbers);
        let moments = self.moments.iter().map(|(m, v)| (tensor(m), tensor(v)));
        (moments.collect(), self.steps)
    }

    /// Goes on from a [`state`](Adam::state).
    ///
    /// # Errors
    /// Moments of other weights.
    pub(super) fn restore_state(&mut self, moments: &[(Tensor, Tensor)], steps: i32) -> Result<()> {
        ensure!(
            moments.len() == self.moments.len(),
            "it holds the moments of {} weights; expected {}",
            moments.len(),
            self.moments.len()
        );
        for ((m, v), (new_m, new_v)) in self.moments.iter_mut().zip(moments) {
            let [new_m, new_v] = [new_m, new_v].map(|t| Vec::<f32>::try_from(&t.view(-1)));
            let (new_m, new_v) = (new_m?, new_v?);
            ensure!(
                new_m.len() == m.len() && new_v.len() == v.len(),
                "it holds the moments of a weight with {} numbers; expected {}",
                new_m.len(),
                m.len()
            );
            (*m, *v) = (new_m, new_v);
        }
        self.steps = steps;
        Ok(())
    }
}

/// The numbers of one weight and all that belongs to them.
struct Numbers<'a> {
    weight: &'a mut [f32],
    /// `bfloat16` bits, or nothing.
    copy: &'a mut [u16],
    gradients: Vec<Gradient<'a>>,
    m: &'a mut [f32],
    v: &'a mut [f32],
}

/// One thread's gradient of a weight.
#[derive(Clone, Copy)]
enum Gradient<'a> {
    Float(&'a [f32]),
    /// The upper half of a `float32`'s bits.
    BFloat16(&'a [u16]),
}

impl<'a> Gradient<'a> {
    /// # Safety
    /// The tensor must be contiguous, on the CPU, `float32` or `bfloat16`, and stay untouched for `'a`.
    unsafe fn of(tensor: &'a Tensor) -> Gradient<'a> {
        let (at, len) = (tensor.data_ptr(), tensor.numel());
        // SAFETY: as the caller promises.
        unsafe {
            match tensor.kind() {
                Kind::BFloat16 => Gradient::BFloat16(std::slice::from_raw_parts(at.cast(), len)),
                kind => {
                    assert_eq!(kind, Kind::Float, "a gradient's kind");
                    Gradient::Float(std::slice::from_raw_parts(at.cast(), len))
                }
            }
        }
    }

    #[inline(always)]
    fn split_at(self, at: usize) -> (Gradient<'a>, Gradient<'a>) {
        match self {
            Gradient::Float(all) => {
                let (left, right) = all.split_at(at);
                (Gradient::Float(left), Gradient::Float(right))
            }
            Gradient::BFloat16(all) => {
                let (left, right) = all.split_at(at);
                (Gradient::BFloat16(left), Gradient::BFloat16(right))
            }
        }
    }

    #[inline(always)]
    fn add_to(self, sum: &mut [f32]) {
        match self {
            Gradient::Float(part) => sum.iter_mut().zip(part).for_each(|(sum, g)| *sum += g),
            Gradient::BFloat16(part) => sum
                .iter_mut()
                .zip(part)
                .for_each(|(sum, &g)| *sum += f32::from_bits(u32::from(g) << 16)),
        }
    }
}

impl Numbers<'_> {
    /// Updates in one pass over memory, large weights on several threads.
    fn update(self, alpha: f32, threads: usize) {
        let threads = (self.weight.len() / NUMBERS_A_THREAD).clamp(1, threads.max(1));
        let size = self.weight.len().div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            let mut rest = self;
            while rest.weight.len() > size {
                let (part, others) = rest.split_at(size);
                scope.spawn(move || part.update_blocks(alpha));
                rest = others;
            }
            rest.update_blocks(alpha);
        });
    }

    #[inline(always)]
    fn split_at(self, at: usize) -> (Self, Self) {
        let (weight, weights) = self.weight.split_at_mut(at);
        let (copy, copies) = self.copy.split_at_mut(at.min(self.copy.len()));
        let (gradient, gradients) = self.gradients.iter().map(|all| all.split_at(at)).unzip();
        let (m, ms) = self.m.split_at_mut(at);
        let (v, vs) = self.v.split_at_mut(at);
        let part = |weight, copy, gradients, m, v| Numbers {
            weight,
            copy,
            gradients,
            m,
            v,
        };
        (
            part(weight, copy, gradient, m, v),
            part(weights, copies, gradients, ms, vs),
        )
    }

    /// Updates with the widest vectors that this CPU has. None of them rounds differently.
    fn update_blocks(self, alpha: f32) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the CPU has these instructions.
            return unsafe { self.update_blocks_avx512(alpha) };
        }
        self.update_blocks_here(alpha);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    fn update_blocks_avx512(self, alpha: f32) {
        self.update_blocks_here(alpha);
    }

    #[inline(always)]
    fn update_blocks_here(self, alpha: f32) {
        let mut rest = self;
        let mut sum = [0.0; BLOCK];
        while !rest.weight.is_empty() {
            let size = BLOCK.min(rest.weight.len());
            let (block, others) = rest.split_at(size);
            let gradient = &mut sum[..block.weight.len()];
            gradient.fill(0.0);
            for part in &block.gradients {
                part.add_to(gradient);
            }
            let moments = block.m.iter_mut().zip(block.v.iter_mut());
            for ((w, &g), (m, v)) in block.weight.iter_mut().zip(&*gradient).zip(moments) {
                *m += (g - *m) * (1.0 - BETA_1);
                *v += (g * g - *v) * (1.0 - BETA_2);
                *w -= alpha * *m / (v.sqrt() + EPSILON);
            }
            for (copy, w) in block.copy.iter_mut().zip(&*block.weight) {
                *copy = bfloat16(*w);
            }
            rest = others;
        }
    }
}

/// The bits of the nearest `bfloat16`, ties to even. (Additions wrap in words: a check for overflow
/// would keep the loop from being vectorised, twenty times slower. NaN, as arithmetic makes it, stays NaN.)
#[inline(always)]
fn bfloat16(x: f32) -> u16 {
    let bits = x.to_bits();
    (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_bfloat16_as_libtorch_rounds_them() {
        let mut numbers: Vec<f32> = (-40_000..40_000).map(|n| n as f32 * 1.000_37e-3).collect();
        numbers.extend([f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -0.0]);
        let rounded = Tensor::from_slice(&numbers).to_kind(Kind::BFloat16);
        // SAFETY: a contiguous tensor of as many 16-bit numbers, which lives to the end of the test.
        let theirs: &[u16] =
            unsafe { std::slice::from_raw_parts(rounded.data_ptr().cast(), numbers.len()) };
        let ours: Vec<u16> = numbers.iter().map(|&x| bfloat16(x)).collect();
        assert_eq!(ours, theirs);
        assert_eq!(bfloat16(f32::NAN), 0x7fc0);
    }

    #[test]
    fn gradients_of_several_threads_add_up_and_the_copy_follows() {
        // Large enough for two threads and a last block that is not full.
        let size = 2 * NUMBERS_A_THREAD as i64 + 77;
        let random = || Tensor::randn([size], (Kind::Float, Device::Cpu));
        let (weight, gradient, other) = (random(), random(), random());
        let (alone, together) = (weight.copy(), weight.copy());
        let copy = weight.to_kind(Kind::BFloat16);
        let mut one = Adam::new(vec![alone.shallow_clone()], vec![], 1).unwrap();
        let copies = vec![copy.shallow_clone()];
        let mut two = Adam::new(vec![together.shallow_clone()], copies, 2).unwrap();
        for _ in 0..3 {
            one.step(&[vec![&gradient + &other]], 0.01);
            two.step(
                &[vec![gradient.shallow_clone()], vec![other.shallow_clone()]],
                0.01,
            );
        }
        assert_eq!(alone, together);
        assert_eq!(copy, together.to_kind(Kind::BFloat16));
        assert_ne!(together, weight);
    }

    #[test]
    fn weights_that_cannot_be_trained_are_refused() {
        let zeros = |kind| Tensor::zeros([3, 2], (kind, Device::Cpu));
        let error = |weight: Tensor, copies: Vec<Tensor>| {
            let adam = Adam::new(vec![weight], copies, 1);
            adam.err().map(|error| error.to_string()).unwrap()
        };
        assert!(error(zeros(Kind::Half), vec![]).contains("it holds Half numbers"));
        assert!(error(zeros(Kind::Float).tr(), vec![]).contains("permuted"));
        let other = Tensor::zeros([2, 2], (Kind::BFloat16, Device::Cpu));
        assert!(error(zeros(Kind::Float), vec![other]).contains("expected [[3, 2]]"));
    }
}
