//! Seeded randomness: on one machine the same seed gives the same picture on every run.
//!
//! There are two generators. [`set_seed`] sets libtorch's own generator, from which a cell's
//! `add_noise` draws; it lives in the libtorch library and so is one and the same for
//! all cells of a notebook (a Rust `static` is not: every cell links its own copy of this crate).
//! [`Rng`] is a generator that its owner holds: training uses one for each purpose, so that a
//! training run gives the same result whatever other cells draw meanwhile.

use rand::distributions::{Distribution, Uniform};
use rand::seq::SliceRandom;
use rand::{RngCore, SeedableRng};
use rand_distr::StandardNormal;
use rand_xoshiro::{SplitMix64, Xoshiro256PlusPlus};
use tch::Tensor;

/// Sets the seed of all randomness for which a cell names no seed.
///
/// Put it at the top of a cell that draws noise, and the cell shows the same picture each time.
///
/// ```
/// use diffusion::prelude::*;
///
/// # fn main() -> anyhow::Result<()> {
/// let clean = Tensor::zeros([1, 1, 28, 28], (Kind::Float, tch::Device::Cpu));
/// set_seed(7);
/// let first = add_noise(&clean, 0.5)?;
/// set_seed(7);
/// assert_eq!(first, add_noise(&clean, 0.5)?);
/// # Ok(())
/// # }
/// ```
pub fn set_seed(seed: u64) {
    // libtorch takes 64 bits of either sign.
    tch::manual_seed(seed.cast_signed());
}

/// A stream of random numbers that belongs to its owner (xoshiro256++).
#[derive(Clone, Debug)]
pub struct Rng(Xoshiro256PlusPlus);

impl Rng {
    /// The stream that `seed` names.
    pub fn new(seed: u64) -> Rng {
        Rng(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// One of many independent streams under one seed, named by a path of numbers.
    ///
    /// Noise for image 7 in epoch 2 is `Rng::stream(seed, &[2, 7])`: it does not depend on the
    /// order in which images are drawn, so a run that was interrupted can go on as if it had not been.
    pub fn stream(seed: u64, path: &[u64]) -> Rng {
        let mixed = path.iter().fold(seed, |state, &step| {
            SplitMix64::seed_from_u64(state ^ step.wrapping_mul(0x9E37_79B9_7F4A_7C15)).next_u64()
        });
        Rng::new(mixed)
    }

    /// Standard normal numbers, `float32`, in a tensor of this shape.
    pub fn normal(&mut self, shape: &[i64]) -> Tensor {
        let mut values = vec![0f32; count(shape)];
        self.fill_normal(&mut values);
        Tensor::from_slice(&values).view(shape)
    }

    /// Fills a slice with standard normal numbers.
    pub fn fill_normal(&mut self, values: &mut [f32]) {
        for value in values {
            *value = StandardNormal.sample(&mut self.0);
        }
    }

    /// Numbers spread evenly over `[-limit, limit)`, `float32`, in a tensor of this shape.
    pub fn uniform(&mut self, limit: f32, shape: &[i64]) -> Tensor {
        let distribution = Uniform::new(-limit, limit);
        let values: Vec<f32> = (0..count(shape))
            .map(|_| distribution.sample(&mut self.0))
            .collect();
        Tensor::from_slice(&values).view(shape)
    }

    /// One of the numbers `0..n`, each as likely as another.
    pub fn below(&mut self, n: usize) -> usize {
        Uniform::new(0, n.max(1)).sample(&mut self.0)
    }

    /// A number spread evenly over `[0, 1)`.
    pub fn share(&mut self) -> f64 {
        Uniform::new(0.0, 1.0).sample(&mut self.0)
    }

    /// The numbers `0..n` in random order.
    pub fn permutation(&mut self, n: usize) -> Vec<i64> {
        let mut order: Vec<i64> = (0..n as i64).collect();
        order.shuffle(&mut self.0);
        order
    }
}

fn count(shape: &[i64]) -> usize {
    shape.iter().product::<i64>() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn the_same_path_gives_the_same_numbers_and_another_path_others() {
        let draw = |path: &[u64]| Rng::stream(42, path).normal(&[100]);
        assert_eq!(draw(&[1, 2]), draw(&[1, 2]));
        assert_ne!(draw(&[1, 2]), draw(&[2, 1]));
        assert_ne!(draw(&[1, 2]), draw(&[1, 3]));
        assert_ne!(draw(&[0]), draw(&[0, 0]));
    }

    #[test]
    fn normal_has_mean_zero_and_variance_one_also_across_streams() {
        let streams: Vec<Tensor> = (0..1000)
            .map(|i| Rng::stream(7, &[0, i]).normal(&[784]))
            .collect();
        let all = Tensor::stack(&streams, 0).to_kind(Kind::Double);
        // 784,000 draws: the standard error of the mean is 0.0011, of the variance 0.0016.
        assert!(all.mean(Kind::Double).double_value(&[]).abs() < 0.006);
        assert!((all.var(true).double_value(&[]) - 1.0).abs() < 0.008);
        // The first number of each stream is a draw like any other.
        let first = all.select(1, 0);
        assert!(first.mean(Kind::Double).double_value(&[]).abs() < 0.16);
        assert!((first.var(true).double_value(&[]) - 1.0).abs() < 0.25);
    }

    #[test]
    fn a_permutation_holds_each_number_once() {
        let mut order = Rng::new(3).permutation(1000);
        assert_ne!(order, (0..1000).collect::<Vec<i64>>());
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<i64>>());
    }
}
