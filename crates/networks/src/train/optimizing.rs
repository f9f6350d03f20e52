//! An optimizer at work: the weights that are trained, with the moments it keeps of each.

use anyhow::{Context, Result, ensure};
use ops::{AdamWeight, adam_step};
use tch::{Kind, Tensor};

use crate::network::NamedLayer;
use crate::objective::{Optimizer, OptimizerState};

/// An optimizer's weights and moments; layers that are frozen have none.
pub(super) struct Optimizing {
    optimizer: Optimizer,
    names: Vec<String>,
    weights: Vec<Weight>,
    threads: usize,
    steps: i32,
}

/// A weight in an optimizer's hands.
enum Weight {
    Adam(AdamWeight),
    Sgd(SgdWeight),
}

/// A weight that gradient descent updates.
struct SgdWeight {
    weight: Tensor,
    copy: Option<Tensor>,
    velocity: Tensor,
}

impl Optimizing {
    /// Trains the weights of `layers`. `copies` is empty, or holds a `bfloat16` tensor for each weight, which every step
    /// writes again: the network computes with the copies.
    ///
    /// # Errors
    /// A weight that [`AdamWeight`] does not take, or another number of copies than weights.
    pub(super) fn new(
        optimizer: Optimizer,
        layers: &[NamedLayer],
        copies: Vec<Tensor>,
        threads: usize,
    ) -> Result<Optimizing> {
        let (mut names, mut weights) = (Vec::new(), Vec::new());
        let mut copies = copies.into_iter();
        let with_copies = copies.len() > 0;
        for layer in layers.iter().filter(|layer| layer.is_trainable()) {
            for (name, weight) in &layer.weights {
                let copy = copies.next();
                ensure!(
                    copy.is_some() == with_copies,
                    "the network's copy has fewer weights than the network"
                );
                let weight = weight.shallow_clone();
                names.push(format!("{}.{name}", layer.name));
                weights.push(match optimizer {
                    Optimizer::Adam(_) => Weight::Adam(AdamWeight::new(weight, copy)?),
                    Optimizer::Sgd(_) => Weight::Sgd(SgdWeight {
                        velocity: weight.detach().zeros_like(),
                        weight,
                        copy,
                    }),
                });
            }
        }
        ensure!(
            copies.next().is_none(),
            "the network's copy has more weights than the network"
        );
        Ok(Optimizing {
            optimizer,
            names,
            weights,
            threads,
            steps: 0,
        })
    }

    /// One step down the sum of these gradients: from each worker one for each weight, of the weight's shape, in
    /// `float32` or `bfloat16`. The step is `factor` times as large as the learning rate says.
    ///
    /// # Errors
    /// Gradients of other weights.
    pub(super) fn step(&mut self, gradients: &[Vec<Tensor>], factor: f64) -> Result<()> {
        self.steps += 1;
        let rate = self.optimizer.learning_rate() * factor;
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
            match weight {
                Weight::Adam(weight) => adam_step(weight, &parts, rate, self.steps, self.threads)?,
                Weight::Sgd(weight) => weight.step(&parts, rate, self.optimizer.momentum()),
            }
        }
        Ok(())
    }

    /// The weights; they share the optimizer's memory.
    pub(super) fn weights(&self) -> Vec<Tensor> {
        let weights = self.weights.iter();
        weights
            .map(|weight| weight.value().shallow_clone())
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
        weights.try_for_each(|(weight, value)| match weight {
            Weight::Adam(weight) => weight.restore_weight(value),
            Weight::Sgd(weight) => weight.restore(value),
        })
    }

    /// A copy of what the optimizer knows.
    pub(super) fn state(&self) -> OptimizerState {
        let of_weight = |weight: &Weight| weight.moments().iter().map(|m| m.copy()).collect();
        OptimizerState {
            weights: self.names.clone(),
            moments: self.weights.iter().map(of_weight).collect(),
            steps: self.steps,
        }
    }

    /// Restores a [`state`](Optimizing::state).
    ///
    /// # Errors
    /// The state of other weights, or of another optimizer.
    pub(super) fn restore_state(&mut self, state: &OptimizerState) -> Result<()> {
        ensure!(
            state.weights == self.names,
            "the optimizer has trained other layers: {}; expected {}. After freezing or unfreezing, compile again",
            state.weights.join(", "),
            self.names.join(", "),
        );
        for (weight, moments) in self.weights.iter_mut().zip(&state.moments) {
            match (weight, &moments[..]) {
                (Weight::Adam(weight), [first, second]) => weight.restore_moments(first, second)?,
                (Weight::Sgd(weight), [velocity]) => {
                    tch::no_grad(|| {
                        weight
                            .velocity
                            .f_copy_(&velocity.f_view_as(&weight.weight)?)
                    })?;
                }
                (_, moments) => anyhow::bail!(
                    "it holds {} moments of each weight, those of another optimizer",
                    moments.len()
                ),
            }
        }
        self.steps = state.steps;
        Ok(())
    }

    /// How many steps were taken.
    pub(super) fn steps(&self) -> i32 {
        self.steps
    }

    /// What moments are called, in files.
    pub(super) fn moment_names(&self) -> &'static [&'static str] {
        match self.optimizer {
            Optimizer::Adam(_) => &["first_moment", "second_moment"],
            Optimizer::Sgd(_) => &["velocity"],
        }
    }

    /// The names of the weights.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// The step size.
    pub(super) fn learning_rate(&self) -> f64 {
        self.optimizer.learning_rate()
    }
}

impl Weight {
    fn value(&self) -> &Tensor {
        match self {
            Weight::Adam(weight) => weight.weight(),
            Weight::Sgd(weight) => &weight.weight,
        }
    }

    fn moments(&self) -> Vec<&Tensor> {
        match self {
            Weight::Adam(weight) => vec![weight.first_moment(), weight.second_moment()],
            Weight::Sgd(weight) => vec![&weight.velocity],
        }
    }
}

impl SgdWeight {
    /// `v = momentum · v - rate · gradient`, `w = w + v`.
    fn step(&mut self, parts: &[Tensor], rate: f64, momentum: f64) {
        tch::no_grad(|| {
            let _ = self.velocity.g_mul_scalar_(momentum);
            for part in parts {
                let _ = self.velocity.g_sub_(&(part.to_kind(Kind::Float) * rate));
            }
            let _ = self.weight.g_add_(&self.velocity);
            if let Some(copy) = &mut self.copy {
                copy.copy_(&self.weight);
            }
        });
    }

    fn restore(&mut self, value: &Tensor) -> Result<()> {
        tch::no_grad(|| {
            self.weight.f_copy_(value)?;
            if let Some(copy) = &mut self.copy {
                copy.f_copy_(&self.weight)?;
            }
            Ok(())
        })
    }
}
