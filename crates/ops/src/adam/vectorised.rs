//! Adam's step in one pass over memory, with vector instructions.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::formula::{BETA_1, BETA_2, EPSILON};
use crate::bfloat16::BFloat16;
use crate::simd::width::Width;
use crate::slices::elements;

/// Below this many numbers a thread costs more than it saves.
const NUMBERS_PER_THREAD: usize = 1 << 18;
/// How many numbers are updated at once: few enough to stay in the core's own cache.
const BLOCK: usize = 2048;

/// One step, on contiguous tensors of the CPU of one size: the weight and its moments in `float32`, the copy in `bfloat16`,
/// the gradients in either.
#[allow(
    clippy::too_many_arguments,
    reason = "the parts of a weight, and three numbers"
)]
pub(super) fn step(
    width: Width,
    weight: &mut Tensor,
    copy: Option<&mut Tensor>,
    gradients: &[Tensor],
    first_moment: &mut Tensor,
    second_moment: &mut Tensor,
    alpha: f32,
    threads: usize,
) -> Result<()> {
    let parts: Vec<Tensor> = gradients.iter().map(Tensor::contiguous).collect();
    let gradients = parts.iter().map(Gradient::of).collect::<Result<_>>()?;
    let count = weight.numel();
    // SAFETY: the caller has checked that all these tensors are on the CPU, contiguous, and have `count` numbers of these kinds.
    // They live until the end of this function, and the caller promises that no other thread uses them meanwhile.
    let numbers = unsafe {
        Numbers {
            weight: slice_mut(weight, count),
            copy: match copy {
                Some(copy) => slice_mut(copy, count),
                None => &mut [],
            },
            gradients,
            m: slice_mut(first_moment, count),
            v: slice_mut(second_moment, count),
        }
    };
    numbers.update(width, alpha, threads);
    Ok(())
}

/// The memory of a tensor as a slice.
///
/// # Safety
/// The tensor must be contiguous, on the CPU, and hold `count` numbers of the type `T`, which nothing else uses for `'a`.
unsafe fn slice_mut<T>(tensor: &mut Tensor, count: usize) -> &mut [T] {
    if count == 0 {
        return &mut []; // a tensor without numbers may have no address
    }
    // SAFETY: as the caller promises.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), count) }
}

/// The numbers of one weight, or of a part of it.
struct Numbers<'a> {
    weight: &'a mut [f32],
    /// As many numbers, or none.
    copy: &'a mut [BFloat16],
    gradients: Vec<Gradient<'a>>,
    m: &'a mut [f32],
    v: &'a mut [f32],
}

/// A gradient of a weight.
#[derive(Clone, Copy)]
enum Gradient<'a> {
    Float(&'a [f32]),
    BFloat16(&'a [BFloat16]),
}

impl<'a> Gradient<'a> {
    fn of(tensor: &'a Tensor) -> Result<Gradient<'a>> {
        Ok(match tensor.kind() {
            Kind::BFloat16 => Gradient::BFloat16(elements(tensor)?),
            _ => Gradient::Float(elements(tensor)?),
        })
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
                .for_each(|(sum, &g)| *sum += g.to_f32()),
        }
    }
}

impl Numbers<'_> {
    /// Updates in one pass over memory, a large weight on several threads.
    fn update(self, width: Width, alpha: f32, threads: usize) {
        let threads = (self.weight.len() / NUMBERS_PER_THREAD).clamp(1, threads.max(1));
        let size = self.weight.len().div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            let mut rest = self;
            while rest.weight.len() > size {
                let (part, others) = rest.split_at(size);
                scope.spawn(move || part.update_blocks(width, alpha));
                rest = others;
            }
            rest.update_blocks(width, alpha);
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

    /// Updates with the vectors of this width. Both round alike.
    fn update_blocks(self, width: Width, alpha: f32) {
        // SAFETY: a `Width` exists only where the CPU has its instructions.
        unsafe {
            match width {
                Width::Avx512 => self.update_blocks_avx512(alpha),
                Width::Avx2 => self.update_blocks_avx2(alpha),
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    fn update_blocks_avx512(self, alpha: f32) {
        self.update_blocks_inlined(alpha);
    }

    #[target_feature(enable = "avx2")]
    fn update_blocks_avx2(self, alpha: f32) {
        self.update_blocks_inlined(alpha);
    }

    #[inline(always)]
    fn update_blocks_inlined(self, alpha: f32) {
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
                *copy = BFloat16::from_f32(*w);
            }
            rest = others;
        }
    }
}
