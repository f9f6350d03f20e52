//! The optimizer: Adam as Keras computes it, with the state that a checkpoint keeps.

use anyhow::{Context, Result, ensure};
use ops::{AdamWeight, adam_step};
use tch::Tensor;

/// The optimizer's state: two moments for each weight that is trained, and none for others.
pub(super) struct Adam {
    weights: Vec<AdamWeight>,
    threads: usize,
    steps: i32,
}

/// What a checkpoint keeps of an [`Adam`].
pub(super) struct AdamState {
    pub(super) first_moments: Vec<Tensor>,
    pub(super) second_moments: Vec<Tensor>,
    pub(super) steps: i32,
}

impl Adam {
    /// An optimizer of these weights. `copies` is empty, or holds a `bfloat16` tensor for each weight, which every step
    /// writes again: the network computes with the copies.
    ///
    /// # Errors
    /// A weight that [`AdamWeight`] does not take, or another number of copies than weights.
    pub(super) fn new(weights: Vec<Tensor>, copies: Vec<Tensor>, threads: usize) -> Result<Adam> {
        ensure!(
            copies.is_empty() || copies.len() == weights.len(),
            "the network's copy has {} weights; expected {}",
            copies.len(),
            weights.len()
        );
        let mut copies = copies.into_iter();
        let weights = weights
            .into_iter()
            .map(|weight| AdamWeight::new(weight, copies.next()));
        Ok(Adam {
            weights: weights.collect::<Result<_>>()?,
            threads,
            steps: 0,
        })
    }

    /// One step down the sum of these gradients: from each worker one for each weight, of the weight's shape, in
    /// `float32` or `bfloat16`.
    ///
    /// # Errors
    /// Gradients of other weights.
    pub(super) fn step(&mut self, gradients: &[Vec<Tensor>], learning_rate: f64) -> Result<()> {
        self.steps += 1;
        for (at, weight) in self.weights.iter_mut().enumerate() {
            let part = |part: &Vec<Tensor>| {
                let gradient = part.get(at).map(Tensor::shallow_clone);
                gradient.with_context(|| {
                    format!(
                        "a worker gave {} gradients; expected one for each weight",
                        part.len()
                    )
                })
            };
            let parts = gradients.iter().map(part).collect::<Result<Vec<_>>>()?;
            adam_step(weight, &parts, learning_rate, self.steps, self.threads)?;
        }
        Ok(())
    }

    /// The weights; they share the optimizer's memory.
    pub(super) fn weights(&self) -> Vec<Tensor> {
        self.weights
            .iter()
            .map(|weight| weight.weight().shallow_clone())
            .collect()
    }

    /// Whether all weights are finite numbers.
    pub(super) fn is_finite(&self) -> bool {
        let finite = |weight: &Tensor| bool::try_from(weight.isfinite().all()).unwrap_or(false);
        self.weights().iter().all(finite)
    }

    pub(super) fn copy_weights(&self) -> Vec<Tensor> {
        let weights = self.weights();
        weights
            .iter()
            .map(|weight| weight.detach().copy())
            .collect()
    }

    /// Gives the weights other values; what the network computes with follows.
    ///
    /// # Errors
    /// Values of another size.
    pub(super) fn restore_weights(&mut self, values: &[Tensor]) -> Result<()> {
        let mut weights = self.weights.iter_mut().zip(values);
        weights.try_for_each(|(weight, value)| weight.restore_weight(value))
    }

    pub(super) fn state(&self) -> AdamState {
        let weights = self.weights.iter();
        AdamState {
            first_moments: weights.clone().map(|w| w.first_moment().copy()).collect(),
            second_moments: weights.map(|w| w.second_moment().copy()).collect(),
            steps: self.steps,
        }
    }

    /// Restores a [`state`](Adam::state).
    ///
    /// # Errors
    /// Moments of other weights.
    pub(super) fn restore_state(&mut self, state: &AdamState) -> Result<()> {
        let moments = state.first_moments.iter().zip(&state.second_moments);
        ensure!(
            moments.len() == self.weights.len(),
            "it holds the moments of {} weights; expected {}",
            moments.len(),
            self.weights.len()
        );
        for (weight, (first, second)) in self.weights.iter_mut().zip(moments) {
            weight.restore_moments(first, second)?;
        }
        self.steps = state.steps;
        Ok(())
    }
}
