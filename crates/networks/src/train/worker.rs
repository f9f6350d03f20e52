//! One worker of a training.

use anyhow::{Context, Result, ensure};
use tch::Tensor;

use super::model::{Data, Model, Selection};
use crate::network::trainable_weights;

/// A thread's own view of the training. Weights and images are shared, not copied.
pub(super) struct Worker<M: Model> {
    pub(super) model: M,
    pub(super) loss: M::Loss,
    pub(super) train: M::Data,
    pub(super) held_out: Option<M::Data>,
    pub(super) seed: u64,
}

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
    /// For `Validate`, where there is one.
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

impl<M: Model> Worker<M> {
    pub(super) fn run(&self, task: Task) -> Result<Output> {
        match (task, &self.held_out) {
            (
                Task::Train {
                    batch,
                    share,
                    epoch,
                },
                _,
            ) => {
                let loss = self.loss_of(&batch, epoch)?;
                Output::of_loss(loss * share, &trainable_weights(self.model.layers()))
            }
            (Task::Validate(batch), Some(held_out)) => {
                let found = tch::no_grad(|| self.model.validate(self.loss, held_out, &batch))?;
                Ok(Output {
                    loss: found.loss,
                    score: found.score,
                    ..Output::default()
                })
            }
            (Task::Validate(_), None) => Ok(Output::default()),
        }
    }

    fn loss_of(&self, batch: &[i64], epoch: u64) -> Result<Tensor> {
        let images = Selection {
            indices: batch,
            epoch,
            seed: self.seed,
        };
        self.model.loss(self.loss, &self.train, &images)
    }

    /// A loss of a cell must be a function of the images, and a mean over them: each worker computes it for a part of a batch.
    ///
    /// # Errors
    /// A loss that is neither; the error says how to make it so.
    pub(super) fn check_own_loss(&self, batch: &[i64], epoch: u64) -> Result<()> {
        let of = |part: &[i64]| -> Result<f64> {
            let loss = tch::no_grad(|| self.loss_of(part, epoch))?;
            Ok(loss.double_value(&[]))
        };
        let (whole, again) = (of(batch)?, of(batch)?);
        if !whole.is_finite() {
            return Ok(()); // training says so
        }
        let differs = |other: f64, by: f64| (whole - other).abs() > by * whole.abs().max(1e-6);
        ensure!(
            !differs(again, 1e-5),
            "the loss of the first batch is {whole:.6}, and {again:.6} when it is computed again: it draws random numbers of \
             its own. {}",
            M::how_to_repeat()
        );
        if batch.len() < 2 {
            return Ok(());
        }
        let (first, second) = batch.split_at(batch.len() / 2);
        let (n, m) = (first.len() as f64, second.len() as f64);
        let parts = (of(first)? * n + of(second)? * m) / (n + m);
        ensure!(
            !differs(parts, 0.01),
            "the loss of the first batch is {whole:.4}, and that of its two halves is {parts:.4} on average: it is not a mean \
             over the images. End it with mean(Kind::Float), not sum(Kind::Float), or with mean_squared_error(…)"
        );
        Ok(())
    }

    /// Loss and size of the gradients for the first images: they tell losses and data sets apart.
    pub(super) fn probe(&self) -> Result<[f64; 2]> {
        const IMAGES: usize = 32;
        let first: Vec<i64> = (0..self.train.len().min(IMAGES) as i64).collect();
        let weights = trainable_weights(self.model.layers());
        let output = Output::of_loss(self.loss_of(&first, 0)?, &weights)?;
        let squares = output.gradients.iter().map(|gradient| {
            let norm = gradient.to_kind(tch::Kind::Double).norm();
            norm.double_value(&[]).powi(2)
        });
        Ok([output.loss, squares.sum::<f64>().sqrt()])
    }
}
