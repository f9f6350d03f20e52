//! What a [`Network`] makes of pairs: does it take them, and what is its loss?

use anyhow::{Result, bail, ensure};
use tch::{Kind, Tensor};

use crate::network::{Activation, Network};
use crate::objective::Loss;
use crate::pairs::Pairs;

impl Network {
    /// Mean loss of some pairs, and the logits. Computes in the kind of the input, in mixed precision in that of the weights.
    pub(super) fn loss_and_logits(
        &self,
        loss: Loss,
        input: &Tensor,
        target: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let kind = self.trainable_weights().first().map(Tensor::kind);
        let logits = match kind {
            Some(Kind::BFloat16) => self
                .logits(&input.to_kind(Kind::BFloat16))?
                .to_kind(Kind::Float),
            _ => self.logits(input)?,
        };
        let loss = loss.of(&logits, &|| self.activated(&logits), target)?;
        Ok((loss, logits))
    }

    /// Do network, loss and pairs fit each other?
    pub(super) fn check_pairs(&self, loss: Loss, pairs: &Pairs) -> Result<()> {
        let classes = pairs.source().classes();
        match (loss, classes) {
            (Loss::CrossEntropy, None) => bail!(
                "cross-entropy compares classes, and these pairs are images: take Loss::BinaryCrossEntropy, or labelled() pairs"
            ),
            (Loss::BinaryCrossEntropy | Loss::MeanSquaredError, Some(_)) => bail!(
                "{} compares images, and these pairs have labels: take Loss::CrossEntropy, or noisy(…) pairs",
                loss.name()
            ),
            _ => {}
        }
        let (taken, put_out) = self.ends();
        let (input, target) = pairs.source().at(&[0], None);
        let (arrives, wanted) = (one_of(&input), one_of(&target));
        ensure!(
            taken == arrives,
            "the network takes {taken:?} for an image; expected {arrives:?}, the images of the pairs"
        );
        match classes {
            None => ensure!(
                put_out == wanted,
                "the network puts out {put_out:?} for an image; expected {wanted:?}, as the clean images have: end the list \
                 with conv2d(1, 3).sigmoid()"
            ),
            Some(classes) => ensure!(
                matches!(*put_out, [numbers] if numbers >= classes),
                "the network puts out {put_out:?} for an image; expected [{classes}], a number for each class: end the list \
                 with dense({classes}).softmax()"
            ),
        }
        match (loss, self.last_activation()) {
            (Loss::BinaryCrossEntropy, Activation::Sigmoid)
            | (Loss::CrossEntropy, Activation::Softmax)
            | (Loss::MeanSquaredError | Loss::Custom(_), _) => Ok(()),
            (Loss::BinaryCrossEntropy, _) => bail!(
                "binary cross-entropy needs numbers from 0 to 1: end the list of layers with .sigmoid()"
            ),
            (Loss::CrossEntropy, _) => {
                bail!("cross-entropy needs probabilities: end the list of layers with .softmax()")
            }
        }
    }
}

/// The shape of one of these, as Keras writes it.
fn one_of(tensor: &Tensor) -> Vec<i64> {
    match *tensor.size() {
        [_, channels, height, width] => vec![height, width, channels],
        [_, ref rest @ ..] => rest.to_vec(),
        [] => vec![],
    }
}
