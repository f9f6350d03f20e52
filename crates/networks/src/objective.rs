//! What a network is compiled with: an optimizer and a loss.

use std::fmt;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use tch::{Reduction, Tensor};

/// The optimizer Adam (Kingma & Ba 2015, algorithm 1), with Keras's settings: β₁ = 0.9, β₂ = 0.999, ε = 1e-7.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adam {
    learning_rate: f64,
}

impl Adam {
    /// With this step size; 0.001 is usual.
    pub fn new(learning_rate: f64) -> Adam {
        Adam { learning_rate }
    }
}

/// Stochastic gradient descent, as Keras computes it: `v = momentum · v - learning_rate · gradient`, `w = w + v`
/// (Rumelhart, Hinton & Williams 1986, "Learning representations by back-propagating errors", eq. 9).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sgd {
    learning_rate: f64,
    momentum: f64,
}

impl Sgd {
    /// With this step size, and without momentum; 0.01 is usual.
    pub fn new(learning_rate: f64) -> Sgd {
        Sgd {
            learning_rate,
            momentum: 0.0,
        }
    }

    /// With this share of the last step in the next one: from 0 to below 1, 0.9 is usual.
    #[must_use]
    pub fn momentum(self, momentum: f64) -> Sgd {
        Sgd { momentum, ..self }
    }
}

/// One of the optimizers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Optimizer {
    /// See [`Adam`].
    Adam(Adam),
    /// See [`Sgd`].
    Sgd(Sgd),
}

impl From<Adam> for Optimizer {
    fn from(adam: Adam) -> Optimizer {
        Optimizer::Adam(adam)
    }
}

impl From<Sgd> for Optimizer {
    fn from(sgd: Sgd) -> Optimizer {
        Optimizer::Sgd(sgd)
    }
}

impl Optimizer {
    /// The step size.
    pub fn learning_rate(&self) -> f64 {
        match self {
            Optimizer::Adam(adam) => adam.learning_rate,
            Optimizer::Sgd(sgd) => sgd.learning_rate,
        }
    }

    /// Adam keeps none.
    pub(crate) fn momentum(&self) -> f64 {
        match self {
            Optimizer::Adam(_) => 0.0,
            Optimizer::Sgd(sgd) => sgd.momentum,
        }
    }

    /// Do these settings make sense?
    pub(crate) fn check(&self) -> Result<()> {
        let rate = self.learning_rate();
        ensure!(
            rate.is_finite() && rate > 0.0,
            "the learning rate is {rate}; expected a number above 0 (0.001 is usual)"
        );
        let momentum = self.momentum();
        ensure!(
            (0.0..1.0).contains(&momentum),
            "the momentum is {momentum}; expected a number from 0 to below 1 (0.9 is usual)"
        );
        Ok(())
    }
}

/// What training makes small: a mean over the images of a batch.
#[derive(Clone, Copy)]
pub enum Loss {
    /// [`binary_cross_entropy`] of pixels, computed from the logits of a last sigmoid, as Keras does.
    BinaryCrossEntropy,
    /// The mean of the squared differences.
    MeanSquaredError,
    /// `-log p(class)` in nats for each image, computed from the logits of a last softmax (Bishop 2006, *Pattern
    /// Recognition and Machine Learning*, eq. 4.108). For labelled pairs.
    CrossEntropy,
    /// A function of a cell, of prediction and target: a tensor of one number that gradients can flow back from.
    ///
    /// The prediction is the network's output after the last activation, `float32`. The loss must be a mean over the
    /// images, not a sum, because each thread computes it for a part of a batch.
    Custom(fn(&Tensor, &Tensor) -> Result<Tensor>),
}

impl Loss {
    /// What it is called in lines and pictures.
    pub fn name(&self) -> &'static str {
        match self {
            Loss::BinaryCrossEntropy => "binary cross-entropy",
            Loss::MeanSquaredError => "mean squared error",
            Loss::CrossEntropy => "cross-entropy",
            Loss::Custom(_) => "loss",
        }
    }

    /// The loss of logits; `prediction` computes the outputs, for a loss that is computed from them.
    pub(crate) fn of(
        &self,
        logits: &Tensor,
        prediction: &dyn Fn() -> Tensor,
        target: &Tensor,
    ) -> Result<Tensor> {
        match self {
            Loss::BinaryCrossEntropy => binary_cross_entropy(logits, target),
            Loss::MeanSquaredError => mean_squared_error(&prediction(), target),
            Loss::CrossEntropy => {
                const IGNORED: i64 = -100; // libtorch's default: a label that no image has
                Ok(logits.f_cross_entropy_loss::<Tensor>(
                    target,
                    None,
                    Reduction::Mean,
                    IGNORED,
                    0.0,
                )?)
            }
            Loss::Custom(loss) => one_number(loss(&prediction(), target)?),
        }
    }
}

/// A learner's loss, if it is one number.
pub fn one_number(loss: Tensor) -> Result<Tensor> {
    ensure!(
        loss.numel() == 1,
        "the loss is a tensor of shape {:?}; expected one number: end it with mean(Kind::Float)",
        loss.size()
    );
    Ok(loss.f_reshape(&[] as &[i64])?)
}

/// Binary cross-entropy of predicted pixels, averaged over all pixels and images:
/// `-(x·log p + (1-x)·log(1-p))`, with `p` given as its logit, `p = sigmoid(logit)`.
///
/// Computed as `max(l, 0) - l·x + log(1 + exp(-|l|))`, which cannot overflow and needs no
/// clipping; Keras computes the same when the last layer is a sigmoid. In nats per pixel; the result
/// is a tensor of one number, through which gradients flow. Both tensors have one shape, any.
/// (Bishop 2006, *Pattern Recognition and Machine Learning*, eq. 4.90.)
///
/// # Errors
/// Tensors of different shape.
pub fn binary_cross_entropy(logits: &Tensor, x: &Tensor) -> Result<Tensor> {
    ensure!(
        logits.size() == x.size(),
        "expected two tensors of one shape; got {:?} and {:?}",
        logits.size(),
        x.size()
    );
    Ok(logits.f_binary_cross_entropy_with_logits::<Tensor>(x, None, None, Reduction::Mean)?)
}

/// The mean of the squared differences of two tensors of one shape, a tensor of one number through which gradients flow.
///
/// # Errors
/// Tensors of different shape.
pub fn mean_squared_error(prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
    ensure!(
        prediction.size() == target.size(),
        "expected two tensors of one shape; got {:?} and {:?}",
        prediction.size(),
        target.size()
    );
    Ok(prediction.f_mse_loss(target, Reduction::Mean)?)
}

/// Without the address of a function, which differs from run to run.
impl fmt::Debug for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Loss::BinaryCrossEntropy => "BinaryCrossEntropy",
            Loss::MeanSquaredError => "MeanSquaredError",
            Loss::CrossEntropy => "CrossEntropy",
            Loss::Custom(_) => "Custom",
        })
    }
}

/// How a network is trained, and how far that has come.
#[derive(Clone, Debug)]
pub struct Compiled<L> {
    /// What takes the steps.
    pub optimizer: Optimizer,
    /// What is made small.
    pub loss: L,
    pub(crate) progress: Progress,
}

impl<L> Compiled<L> {
    /// With a new optimizer, before the first step.
    pub fn new(optimizer: Optimizer, loss: L) -> Compiled<L> {
        Compiled {
            optimizer,
            loss,
            progress: Progress::default(),
        }
    }
}

/// How far a training has come: the next one goes on from there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// Epochs until now.
    pub(crate) epochs: usize,
    /// None before the first step.
    pub(crate) state: Option<OptimizerState>,
}

/// What an optimizer knows about the weights that it trains.
#[derive(Debug, Default)]
pub(crate) struct OptimizerState {
    /// The names of the weights.
    pub(crate) weights: Vec<String>,
    /// Of each weight the optimizer's moments: two of Adam, one of gradient descent.
    pub(crate) moments: Vec<Vec<Tensor>>,
    /// How many steps were taken.
    pub(crate) steps: i32,
}

impl Clone for OptimizerState {
    fn clone(&self) -> OptimizerState {
        let copies = |moments: &Vec<Tensor>| moments.iter().map(Tensor::copy).collect();
        OptimizerState {
            weights: self.weights.clone(),
            moments: self.moments.iter().map(copies).collect(),
            steps: self.steps,
        }
    }
}
