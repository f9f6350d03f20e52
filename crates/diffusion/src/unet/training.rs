//! A [`Unet`] is trained as a [`Network`](networks::network::Network) is.

use std::ops::Range;
use std::path::Path;

use anyhow::Result;
use figures::{Output, rows};
use networks::network::NamedLayer;
use networks::objective::{Compiled, one_number};
use networks::train::{
    self, Data, Fit, History, Measures, Model, Observer, Selection, Training, Validation,
};
use tch::{Kind, Tensor};

use super::{CLASSES, KIND, Predicts, Unet, UnetLoss};
use crate::batch::Batch;
use crate::data::Split;
use crate::sample::{Sampler, sample};

impl Unet {
    /// Trains the network on the images of a split with the loss that it is compiled with, and prints a line for each epoch.
    /// As [`networks::network::Network::fit`] in everything else.
    ///
    /// # Errors
    /// As [`networks::network::Network::fit`].
    pub fn fit(&mut self, images: &Split, fit: &Fit) -> Result<History> {
        train::fit(self, images, fit)
    }

    /// [`fit`](Unet::fit) with an observer of one's own in place of the printed lines.
    ///
    /// # Errors
    /// As [`fit`](Unet::fit).
    pub fn fit_with(
        &mut self,
        images: &Split,
        fit: &Fit,
        observer: &mut dyn Observer,
    ) -> Result<History> {
        train::fit_with(self, images, fit, observer)
    }

    /// [`fit`](Unet::fit) of a copy of this network, on a thread of its own: returns at once. As
    /// [`networks::network::Network::fit_in_background`]; its panel shows a digit of each class, drawn by the network of that moment.
    ///
    /// # Errors
    /// As [`networks::network::Network::fit_in_background`].
    pub fn fit_in_background(
        &self,
        images: &Split,
        fit: &Fit,
        folder: impl AsRef<Path>,
    ) -> Result<Training<Unet>> {
        train::fit_in_background(self, images, fit, folder.as_ref())
    }

    /// Goes on with a training that [`fit_in_background`](Unet::fit_in_background) began, as [`networks::network::Network::resume`].
    ///
    /// # Errors
    /// As [`networks::network::Network::resume`].
    pub fn resume(
        folder: impl AsRef<Path>,
        loss: UnetLoss,
        images: &Split,
    ) -> Result<Training<Unet>> {
        train::resume(folder.as_ref(), loss, images)
    }
}

impl Data for Split {
    fn len(&self) -> usize {
        Split::len(self)
    }

    fn part(&self, range: Range<usize>) -> Split {
        Split::part(self, range)
    }

    fn description(&self) -> String {
        "images".to_owned()
    }
}

impl Model for Unet {
    const KIND: &'static str = KIND;
    type Data = Split;
    type Loss = UnetLoss;

    fn layers(&self) -> &[NamedLayer] {
        &self.layers
    }

    fn layers_mut(&mut self) -> &mut [NamedLayer] {
        &mut self.layers
    }

    /// Its [`predict`](Unet::predict) records gradients.
    fn worker(&self, kind: Kind) -> Unet {
        Unet {
            training: Some(kind),
            ..self.replica(kind)
        }
    }

    fn shared(&self) -> Unet {
        Unet::shared(self)
    }

    fn save(&self, path: &Path) -> Result<()> {
        Unet::save(self, path)
    }

    fn load(path: &Path) -> Result<Unet> {
        Unet::load(path)
    }

    fn compiled(&self) -> Option<&Compiled<UnetLoss>> {
        self.compiled.as_ref()
    }

    fn compiled_mut(&mut self) -> &mut Option<Compiled<UnetLoss>> {
        &mut self.compiled
    }

    fn how_to_compile() -> &'static str {
        "compile(Adam::new(0.001), noise_loss)"
    }

    fn how_to_repeat() -> &'static str {
        "Take batch.noise() in place of randn_like() and add_noise(…), batch.timesteps(…) for timesteps, and \
         batch.labels_dropped(…) to drop labels"
    }

    fn check(&self, _: UnetLoss, _: &Split) -> Result<()> {
        Ok(())
    }

    fn measures(_: UnetLoss, _: &Split) -> Measures {
        Measures {
            loss: "loss",
            unit: "",
        }
    }

    fn is_own(_: UnetLoss) -> bool {
        true
    }

    fn loss(&self, loss: UnetLoss, split: &Split, chosen: &Selection) -> Result<Tensor> {
        let batch = Batch::of(split, chosen.indices, chosen.epoch, chosen.seed);
        one_number(loss(self, &batch)?)
    }

    fn validate(&self, loss: UnetLoss, held_out: &Split, at: &[i64]) -> Result<Validation> {
        let loss = one_number(loss(self, &Batch::held_out(held_out, at))?)?;
        Ok(Validation {
            loss: loss.double_value(&[]),
            score: None,
        })
    }

    /// A digit of each class, always from the same noise, as the network of this moment draws it.
    fn preview(&self, _: &Split) -> Result<Output> {
        if self.config().predicts != Predicts::Noise {
            return Ok(Output::plain(""));
        }
        let few_steps = Sampler::ddim(10.min(self.schedule().steps()));
        let labels: Vec<Option<i64>> = (0..CLASSES).map(Some).collect();
        let drawn = sample(self, &labels, &few_steps)?;
        Ok(rows(&[("drawn", &drawn.images)])
            .alt("A digit of each class, as the network draws it now"))
    }
}
