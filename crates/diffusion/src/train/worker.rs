//! One worker of a training.

use anyhow::{Context, Result, ensure};
use tch::Tensor;

use super::objective::Objective;
use super::trainable::Trainable;
use crate::data::Split;
use crate::network::trainable_weights;

/// A thread's own view of the training. Weights and images are shared, not copied.
pub(super) struct Worker<M> {
    model: M,
    weights: Vec<Tensor>,
    train: Split,
    held_out: Option<Split>,
}

/// A [`Worker`] of any model's training.
pub(super) type BoxedWorker<'a> = Box<dyn FnMut(Task) -> Result<Output> + Send + 'a>;

/// What a worker computes.
pub(super) enum Task {
    /// Loss and gradients of a part of a batch: these images, which are this share of it.
    Train {
        batch: Vec<i64>,
        share: f64,
        epoch: u64,
    },
    /// Loss and score of held-out images.
    Validate(Vec<i64>),
}

/// The output of a [`Task`].
#[derive(Default)]
pub(super) struct Output {
    /// For `Train` the part's contribution to the batch's mean, for `Validate` the mean.
    pub(super) loss: f64,
    /// For `Validate`, where the objective has one.
    pub(super) score: Option<f64>,
    /// For `Train`, of the part's contribution, so that those of all parts add up.
    pub(super) gradients: Vec<Tensor>,
}

impl Output {
    fn of_loss(loss: Tensor, weights: &[Tensor]) -> Result<Output> {
        // libtorch's backward pass crashes on such a tensor.
        ensure!(
            loss.requires_grad(),
            "the loss has no gradient; expected a loss that is computed from the network's output by operations on tensors, \
             without detach(), no_grad or argmax"
        );
        let value = loss.double_value(&[]);
        let gradients = Tensor::f_run_backward(&[loss], weights, false, false)
            .context("the gradients of the loss cannot be computed")?;
        for (gradient, weight) in gradients.iter().zip(weights) {
            ensure!(
                gradient.defined(),
                "the loss does not depend on a weight of shape {:?} that is to be trained; expected that every trainable \
                 layer takes part, so freeze the others",
                weight.size()
            );
        }
        Ok(Output {
            loss: value,
            gradients,
            ..Output::default()
        })
    }
}

impl<M: Trainable> Worker<M> {
    pub(super) fn new(model: M, train: &Split, held_out: Option<&Split>) -> Worker<M> {
        Worker {
            weights: trainable_weights(model.layers()),
            model,
            train: train.shallow_clone(),
            held_out: held_out.map(Split::shallow_clone),
        }
    }

    pub(super) fn run(&mut self, objective: &impl Objective<M>, task: Task) -> Result<Output> {
        match (task, &self.held_out) {
            (
                Task::Train {
                    batch,
                    share,
                    epoch,
                },
                _,
            ) => {
                let loss = objective.loss(&self.model, &self.train, &batch, epoch)?;
                Output::of_loss(loss * share, &self.weights)
            }
            (Task::Validate(batch), Some(held_out)) => {
                let found = tch::no_grad(|| objective.validate(&self.model, held_out, &batch))?;
                Ok(Output {
                    loss: found.loss,
                    score: found.score,
                    ..Output::default()
                })
            }
            (Task::Validate(_), None) => Ok(Output::default()),
        }
    }
}
