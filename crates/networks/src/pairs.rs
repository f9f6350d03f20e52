//! Pairs to learn from: what goes into a network, and what should come out.

use std::fmt;
use std::ops::Range;

use anyhow::{Result, ensure};
use figures::Output;
use tch::{Kind, Tensor};

/// Pairs of input and target. A data set makes them (a [`Source`]), or a cell ([`Pairs::of`]).
#[derive(Debug)]
pub struct Pairs(Box<dyn Source>);

/// What pairs are made of: it makes them when they are needed, and knows how good a prediction is.
#[allow(clippy::len_without_is_empty, reason = "there is always one")]
pub trait Source: fmt::Debug + Send {
    /// How many pairs there are.
    fn len(&self) -> usize;
    /// Inputs and targets of the pairs at these indices, which are known to exist, in this epoch; without an epoch as in every
    /// evaluation. What is random must depend on index and epoch alone.
    fn at(&self, indices: &[i64], epoch: Option<u64>) -> (Tensor, Tensor);
    /// Some of the pairs, without copying them.
    fn part(&self, range: Range<usize>) -> Box<dyn Source>;
    /// What it is, in words: a training that goes on must have the same.
    fn description(&self) -> String;
    /// Whether the targets are classes, `(N,)` of `int64`, and how many there are at least.
    fn classes(&self) -> Option<i64> {
        None
    }
    /// The unit of the score: `dB`.
    fn unit(&self) -> &'static str {
        ""
    }
    /// How good a prediction is, in this unit: the higher, the better. `None` where there is no score.
    ///
    /// # Errors
    /// When it cannot be computed.
    fn score(&self, _prediction: &Tensor, _target: &Tensor) -> Result<Option<f64>> {
        Ok(None)
    }
    /// A picture of some pairs and of what a network predicts, for a training's panel.
    ///
    /// # Errors
    /// When it cannot be drawn.
    fn picture(&self, _input: &Tensor, _target: &Tensor, _prediction: &Tensor) -> Result<Output> {
        Ok(Output::plain(""))
    }
    /// Makes the pairs the same in all epochs, if they change.
    fn fix(&mut self) {}
    /// Takes another seed, if something is random.
    fn reseed(&mut self, _seed: u64) {}
}

impl Pairs {
    /// The pairs of a source.
    pub fn from_source(source: impl Source + 'static) -> Pairs {
        Pairs(Box::new(source))
    }

    /// Pairs of one's own: inputs `(N, …)` of fractions, and for each a target, fractions `(N, …)` or classes `(N,)` of
    /// `int64`. They are not copied.
    ///
    /// # Errors
    /// No inputs, inputs that are not fractions, another number of targets, or targets that are neither fractions nor classes.
    pub fn of(inputs: &Tensor, targets: &Tensor) -> Result<Pairs> {
        let count = |tensor: &Tensor| tensor.size().first().copied().unwrap_or_default();
        ensure!(
            count(inputs) > 0 && count(inputs) == count(targets),
            "expected a target for each of {} inputs; got {}",
            count(inputs),
            count(targets)
        );
        ensure!(
            inputs.is_floating_point(),
            "inputs must be fractions; these are {:?} numbers",
            inputs.kind()
        );
        let are_classes = targets.kind() == Kind::Int64 && targets.dim() == 1;
        ensure!(
            targets.is_floating_point() || are_classes,
            "targets must be fractions, or classes (N,) of Int64; these are {:?} numbers of shape {:?}",
            targets.kind(),
            targets.size()
        );
        let (inputs, targets) = (inputs.detach(), targets.detach());
        Ok(Pairs::from_source(Own { inputs, targets }))
    }

    /// Each image keeps its noise in all epochs, as when the noisy images are made once before training: what the video
    /// does. (Pairs without noise never change.)
    #[must_use]
    pub fn fixed(mut self) -> Pairs {
        self.0.fix();
        self
    }

    /// With the noise of another seed (the default is 42).
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Pairs {
        self.0.reseed(seed);
        self
    }

    /// The first `n` pairs as a network sees them in this epoch, counted from 0: inputs and targets, as noisy and clean
    /// images, `(n, 1, 28, 28)`, or images and labels `(n,)`.
    ///
    /// # Errors
    /// When there are not that many, or none is asked for.
    pub fn batch(&self, epoch: usize, n: usize) -> Result<(Tensor, Tensor)> {
        ensure!(
            (1..=self.len()).contains(&n),
            "asked for {n} pairs; there are {}",
            self.len()
        );
        let indices: Vec<i64> = (0..n as i64).collect();
        Ok(self.0.at(&indices, Some(epoch as u64)))
    }

    /// How many pairs there are.
    #[allow(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn source(&self) -> &dyn Source {
        &*self.0
    }

    /// Some of the pairs, without copying them.
    pub(crate) fn part(&self, range: Range<usize>) -> Pairs {
        Pairs(self.0.part(range))
    }
}

/// What a cell made.
#[derive(Debug)]
struct Own {
    inputs: Tensor,
    targets: Tensor,
}

impl Source for Own {
    fn len(&self) -> usize {
        self.inputs.size()[0] as usize
    }

    fn at(&self, indices: &[i64], _: Option<u64>) -> (Tensor, Tensor) {
        let indices = Tensor::from_slice(indices);
        let at = |tensor: &Tensor| tensor.index_select(0, &indices);
        (at(&self.inputs), at(&self.targets))
    }

    fn part(&self, range: Range<usize>) -> Box<dyn Source> {
        let part = |tensor: &Tensor| tensor.narrow(0, range.start as i64, range.len() as i64);
        Box::new(Own {
            inputs: part(&self.inputs),
            targets: part(&self.targets),
        })
    }

    fn description(&self) -> String {
        "pairs of one's own".to_owned()
    }

    fn classes(&self) -> Option<i64> {
        let has_classes = self.targets.kind() == Kind::Int64;
        has_classes.then(|| self.targets.max().int64_value(&[]) + 1)
    }

    fn unit(&self) -> &'static str {
        match self.classes() {
            Some(_) => "% accuracy",
            None => "",
        }
    }

    fn score(&self, prediction: &Tensor, target: &Tensor) -> Result<Option<f64>> {
        Ok(self.classes().map(|_| accuracy(prediction, target)))
    }
}

/// The share of rows whose largest number stands at the class, in percent.
pub fn accuracy(prediction: &Tensor, classes: &Tensor) -> f64 {
    let right = prediction.argmax(1, false).eq_tensor(classes);
    100.0 * right.sum(Kind::Double).double_value(&[]) / classes.numel() as f64
}
