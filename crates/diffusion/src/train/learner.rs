//! What one thread of a training does.

use anyhow::Result;
use tch::Tensor;

use super::objective::Objective;
use crate::data::Split;
use crate::model::Model;

/// A thread's own view of the training. Weights and images are shared, not copied.
pub(super) struct Learner<M> {
    model: M,
    weights: Vec<Tensor>,
    train: Split,
    held_out: Option<Split>,
}

/// A thread of any model's training.
pub(super) type Hand<'a> = Box<dyn FnMut(Job) -> Result<Answer> + Send + 'a>;

/// What a thread is asked to do.
pub(super) enum Job {
    /// Loss and gradients of a part of a batch: these images, which are this share of it.
    Learn {
        batch: Vec<i64>,
        share: f64,
        epoch: u64,
    },
    /// Loss and score of held-out images.
    Judge(Vec<i64>),
}

/// What came out.
#[derive(Default)]
pub(super) struct Answer {
    /// For `Learn` the part's contribution to the batch's mean, for `Judge` the mean.
    pub(super) loss: f64,
    /// For `Judge`, where the objective has one.
    pub(super) score: Option<f64>,
    /// For `Learn`, of the part's contribution, so that those of all parts add up.
    pub(super) gradients: Vec<Tensor>,
}

impl Answer {
    fn learnt(loss: Tensor, weights: &[Tensor]) -> Answer {
        Answer {
            loss: loss.double_value(&[]),
            gradients: Tensor::run_backward(&[loss], weights, false, false),
            ..Answer::default()
        }
    }
}

impl<M: Model> Learner<M> {
    pub(super) fn new(model: M, train: &Split, held_out: Option<&Split>) -> Learner<M> {
        Learner {
            weights: model.trainable_weights(),
            model,
            train: train.shallow_clone(),
            held_out: held_out.map(Split::shallow_clone),
        }
    }

    pub(super) fn answer(&mut self, objective: &impl Objective<M>, job: Job) -> Result<Answer> {
        match (job, &self.held_out) {
            (
                Job::Learn {
                    batch,
                    share,
                    epoch,
                },
                _,
            ) => {
                let loss = objective.loss(&self.model, &self.train, &batch, epoch)?;
                Ok(Answer::learnt(loss * share, &self.weights))
            }
            (Job::Judge(batch), Some(held_out)) => {
                let judged = tch::no_grad(|| objective.validate(&self.model, held_out, &batch))?;
                Ok(Answer {
                    loss: judged.loss,
                    score: judged.score,
                    ..Answer::default()
                })
            }
            (Job::Judge(_), None) => Ok(Answer::default()),
        }
    }
}
