//! The entry points of training: `fit`, `fit_in_background` and `resume`.

use std::path::Path;

use anyhow::Result;

use super::background::{self, Training};
use super::config::Fit;
use super::history::History;
use super::model::Model;
use super::observer::{Observer, PrintLines};
use super::trainer::Trainer;
use crate::network::Network;
use crate::objective::Loss;
use crate::pairs::Pairs;

impl Network {
    /// Trains the network on pairs, and prints a line for each epoch: the loss, and on held-out images the loss and a
    /// score, PSNR in decibels for images and accuracy in percent for classes.
    ///
    /// The notebook's Stop button ends it after the current batch: the history says so, and the network keeps its best weights with
    /// [`Keep::Best`](super::Keep::Best), else those of that moment.
    ///
    /// A second `fit` goes on where the first one ended, with the optimizer's state and the next epoch's noise and order of
    /// images; [`compile`](Network::compile) begins anew, but keeps the weights. On one machine the same settings, precision
    /// and threads among them, give the same weights, whatever else is drawn meanwhile; elsewhere they differ by rounding.
    ///
    /// In [`Precision::Mixed`](ops::Precision::Mixed) the convolutions and dense layers compute with a `bfloat16` copy of
    /// the weights; weights, loss and the optimizer's steps are `float32`.
    ///
    /// # Errors
    /// A network that is not compiled, or whose layers are all frozen; a loss or pairs that do not fit the network; a loss of
    /// one's own that is not a mean over its images, or draws random numbers; settings that make no sense (each is named with
    /// what was expected); a batch that memory cannot hold; a loss or weights that became NaN or infinite (the network then
    /// gets back its best weights with [`Keep::Best`](super::Keep::Best), else those it came with). After an error of the
    /// loss the network keeps its weights of that moment.
    pub fn fit(&mut self, pairs: &Pairs, fit: &Fit) -> Result<History> {
        super::fit(self, pairs, fit)
    }

    /// [`fit`](Network::fit) with an observer of one's own in place of the printed lines.
    ///
    /// # Errors
    /// As [`fit`](Network::fit).
    pub fn fit_with(
        &mut self,
        pairs: &Pairs,
        fit: &Fit,
        observer: &mut dyn Observer,
    ) -> Result<History> {
        super::fit_with(self, pairs, fit, observer)
    }

    /// [`fit`](Network::fit) of a copy of this network, on a thread of its own: returns at once. This network stays as it
    /// is.
    ///
    /// In `folder` each training gets a folder of its own, with a number, and keeps its state there; nothing is overwritten.
    /// If an earlier training in `folder` is still running, it is stopped first. With held-out images the training ends with
    /// the best weights, whatever [`Fit::keep`] says, since it may be stopped at any time.
    ///
    /// # Errors
    /// As [`fit`](Network::fit), or a folder that cannot be written or holds something else.
    ///
    /// ```no_run
    /// use diffusion::prelude::*;
    ///
    /// # fn main() -> anyhow::Result<()> {
    /// let mnist: Mnist = Mnist::load()?;
    /// let mut cnn: Network = Network::new([28, 28, 1], lesson_cnn())?.seeded(26);
    /// cnn.compile(Adam::new(0.001), Loss::BinaryCrossEntropy);
    /// let training: Training<Network> =
    ///     cnn.fit_in_background(&mnist.train.noisy(0.5)?, &Fit::default(), "saved/cnn")?;
    /// training.monitor().evcxr_display(); // a panel that follows it
    /// let (trained, history): (Network, History) = training.wait()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn fit_in_background(
        &self,
        pairs: &Pairs,
        fit: &Fit,
        folder: impl AsRef<Path>,
    ) -> Result<Training<Network>> {
        background::fit_in_background(self, pairs, fit, folder.as_ref())
    }

    /// Goes on with a training that [`fit_in_background`](Network::fit_in_background) began, from its last whole epoch: the
    /// newest one in `folder`, or the one of a folder with a number. The result is that of an unbroken run. (On another number
    /// of cores, or in another precision, it differs by rounding; a line says so.)
    ///
    /// # Errors
    /// A folder that holds no network's training, one that is still running, or another loss or other pairs than the training
    /// began with.
    pub fn resume(
        folder: impl AsRef<Path>,
        loss: Loss,
        pairs: &Pairs,
    ) -> Result<Training<Network>> {
        background::resume(folder.as_ref(), loss, pairs)
    }
}

/// [`Network::fit`] of any model.
///
/// # Errors
/// As [`Network::fit`].
pub fn fit<M: Model>(model: &mut M, data: &M::Data, fit: &Fit) -> Result<History> {
    if fit.quiet {
        return fit_with(model, data, fit, &mut ());
    }
    let history = fit_with(model, data, fit, &mut PrintLines::default())?;
    if history.stopped {
        println!("Stopped: the network keeps what it has learnt until now.");
    }
    Ok(history)
}

/// [`Network::fit_with`] of any model.
///
/// # Errors
/// As [`Network::fit`].
pub fn fit_with<M: Model>(
    model: &mut M,
    data: &M::Data,
    fit: &Fit,
    observer: &mut dyn Observer,
) -> Result<History> {
    let mut trainer = Trainer::new(model, data, fit)?;
    let history = trainer.run(None, observer)?;
    if let Some(compiled) = model.compiled_mut() {
        compiled.progress = trainer.progress();
    }
    Ok(history)
}
