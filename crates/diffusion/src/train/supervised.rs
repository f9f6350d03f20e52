//! What a [`Network`] makes of pairs: its loss, its score, and a picture.

use anyhow::{Result, bail, ensure};
use figures::{Output, rows, rows_with_captions};
use tch::{Kind, Tensor};

use super::model::SHOWN;
use crate::data::SIDE;
use crate::metrics::psnr;
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

    /// Decibels for images in `[0, 1]`, percent for classes; None for what is neither.
    pub(super) fn score(
        &self,
        logits: &Tensor,
        target: &Tensor,
        has_classes: bool,
    ) -> Result<Option<f64>> {
        let prediction = self.activated(logits);
        if has_classes {
            let right = prediction.argmax(1, false).eq_tensor(target);
            let right = right.sum(Kind::Double).double_value(&[]);
            return Ok(Some(100.0 * right / target.numel() as f64));
        }
        let (least, most) = (target.min(), target.max());
        if target.dim() != 4 || least.double_value(&[]) < 0.0 || most.double_value(&[]) > 1.0 {
            return Ok(None);
        }
        let psnr = psnr(target, &prediction.clamp(0.0, 1.0))?;
        Ok(Some(psnr.sum() / psnr.len() as f64))
    }

    /// Do network, loss and pairs fit each other?
    pub(super) fn check_pairs(&self, loss: &Loss, pairs: &Pairs) -> Result<()> {
        match (loss, pairs.has_classes()) {
            (Loss::CrossEntropy, false) => bail!(
                "cross-entropy compares classes, and these pairs are images: take Loss::BinaryCrossEntropy, or labelled() pairs"
            ),
            (Loss::BinaryCrossEntropy | Loss::MeanSquaredError, true) => bail!(
                "{} compares images, and these pairs have labels: take Loss::CrossEntropy, or noisy(…) pairs",
                loss.name()
            ),
            _ => {}
        }
        let (input, output) = self.ends();
        let image = [SIDE, SIDE, 1];
        let (first, target) = pairs.at(&[0], None);
        ensure!(
            first.size() == tensor_of(input),
            "the network takes {input:?} for an image; expected {}, the inputs of the pairs",
            match first.size() == [1, 1, SIDE, SIDE] {
                true => format!("{image:?}"),
                false => format!("what gives {:?} for one", first.size()),
            }
        );
        match pairs.has_classes() {
            false => ensure!(
                target.size() == tensor_of(output),
                "the network puts out {output:?} for an image; expected [28, 28, 1], as the clean images have: end the list \
                 with conv2d(1, 3).sigmoid()"
            ),
            true => ensure!(
                matches!(*output, [classes] if classes >= 10),
                "the network puts out {output:?} for an image; expected [10], a number for each class: end the list with \
                 dense(10).softmax()"
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

    /// What the network makes of the last images of the pairs.
    pub(super) fn preview_of(&self, pairs: &Pairs) -> Result<Output> {
        let count = pairs.len() as i64;
        let indices: Vec<i64> = ((count - SHOWN as i64).max(0)..count).collect();
        let (input, target) = pairs.at(&indices, None);
        let prediction = self.predict(&input)?;
        if !pairs.has_classes() {
            let three = [
                ("original", &target),
                ("noisy", &input),
                ("denoised", &prediction.clamp(0.0, 1.0)),
            ];
            return Ok(rows(&three)
                .alt("Ten digits: original, noisy, and as the network denoises them now"));
        }
        let classes = Vec::<i64>::try_from(prediction.argmax(1, false).to_kind(Kind::Int64))?;
        let classes: Vec<String> = classes.iter().map(i64::to_string).collect();
        let captions: Vec<&str> = classes.iter().map(String::as_str).collect();
        Ok(rows_with_captions(&[("read as", &input)], &captions)
            .alt("Ten digits, and below each the class that the network reads now"))
    }
}

/// The tensor that holds one of what has this shape.
fn tensor_of(shape: &[i64]) -> Vec<i64> {
    match *shape {
        [height, width, channels] => vec![1, channels, height, width],
        _ => [&[1], shape].concat(),
    }
}
