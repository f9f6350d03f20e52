//! What every network of the lesson is: an ordered list of named layers whose weights can be
//! frozen, summed up in a table, saved and loaded.

mod checkpoint;
mod layer;
mod summary;

use std::ops::RangeBounds;
use std::path::Path;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use tch::{Kind, Tensor};

use checkpoint::Checkpoint;
pub use layer::Layer;
pub(crate) use layer::activations;
use layer::{set_trainable, trainable_weights, unfreeze_last};
pub use summary::{Summary, SummaryRow};

/// A network, as an ordered list of named layers.
///
/// Its provided methods call functions of the layers, which are compiled once, here: generic code is compiled again
/// in every cell that calls it.
///
/// A model computes in the kind of its input: `float32` images give `float32` results, `bfloat16`
/// ones are worked on in `bfloat16`, with the same `float32` weights converted on the way.
///
/// The output for an image does not depend on the other images of its batch. Training relies on it: each worker
/// computes a part of the batch.
pub trait Model: Send + Sized {
    /// The kind of model, which its checkpoints name.
    const KIND: &'static str;
    /// The settings it was built from, as JSON; its checkpoints hold them.
    ///
    /// # Errors
    /// Settings that JSON cannot hold.
    fn settings(&self) -> Result<String>;

    /// An untrained network with these settings.
    ///
    /// # Errors
    /// Settings of another model, or that make no sense.
    fn with_settings(settings: &str) -> Result<Self>;

    /// The layers, from input to output.
    fn layers(&self) -> &[Layer];

    /// The layers, from input to output, to change them.
    fn layers_mut(&mut self) -> &mut [Layer];

    /// The same network with each layer replaced by `change` of it.
    fn map_layers(&self, change: &dyn Fn(&Layer) -> Layer) -> Self;

    /// The same network with weights in another kind, to compute in it; in the same kind the two
    /// share their weights' memory.
    fn replica(&self, kind: Kind) -> Self {
        self.map_layers(&|layer| layer.in_kind(kind))
    }

    /// Freezes layers, so that training leaves them as they are: `freeze(..)?` all of them,
    /// `freeze(0..6)?` the first six.
    ///
    /// # Errors
    /// A range that reaches beyond the last layer.
    fn freeze(&mut self, layers: impl RangeBounds<usize>) -> Result<()> {
        set_trainable(self.layers_mut(), layers, false)
    }

    /// Lets training change layers again; the reverse of [`freeze`](Model::freeze).
    ///
    /// # Errors
    /// A range that reaches beyond the last layer.
    fn unfreeze(&mut self, layers: impl RangeBounds<usize>) -> Result<()> {
        set_trainable(self.layers_mut(), layers, true)
    }

    /// Unfreezes the last `n` layers, and leaves the others as they are.
    ///
    /// # Errors
    /// When the model has fewer than `n` layers.
    fn unfreeze_last(&mut self, n: usize) -> Result<()> {
        unfreeze_last(self.layers_mut(), n)
    }

    /// The weights that training may change.
    fn trainable_weights(&self) -> Vec<Tensor> {
        trainable_weights(self.layers())
    }

    /// How many numbers all layers put out for one image: what a batch takes up in memory.
    fn activations(&self) -> usize {
        activations(self.layers())
    }

    /// The table of layers that Keras prints: shown as the last value of a cell.
    fn summary(&self) -> Summary {
        Summary::of(self.layers())
    }

    /// Saves the weights and the configuration to a safetensors file.
    ///
    /// The file is written beside its final place and then renamed, so that a full disk or an
    /// interrupt leaves an older file as it was.
    ///
    /// # Errors
    /// When the file cannot be written.
    fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        save_in(self, path.as_ref(), Kind::Float)
    }

    /// Saves as [`save`](Model::save) does, at half the size: weights are rounded to `float16`
    /// (11 significant bits; enough for every figure this lesson shows).
    ///
    /// # Errors
    /// When the file cannot be written.
    fn save_half(&self, path: impl AsRef<Path>) -> Result<()> {
        save_in(self, path.as_ref(), Kind::Half)
    }

    /// A network with the settings and the weights of a checkpoint.
    ///
    /// # Errors
    /// As [`load_weights`](Model::load_weights).
    fn load(path: impl AsRef<Path>) -> Result<Self> {
        let checkpoint = Checkpoint::read(Self::KIND, path.as_ref())?;
        let model = Self::with_settings(checkpoint.settings()?);
        let mut model = model.map_err(|error| checkpoint.refused(error))?;
        checkpoint.load_into(model.layers_mut())?;
        Ok(model)
    }

    /// The trained network: what an earlier notebook saved in `saved/`, else the weights that come with the
    /// lesson, in `weights/`, both beside the notebook. Says which one it was.
    ///
    /// # Errors
    /// As [`load_first`](Model::load_first).
    fn trained() -> Result<Self> {
        let [saved, ours] =
            ["saved", "weights"].map(|folder| format!("{folder}/{}.safetensors", Self::KIND));
        Self::load_first(&[&saved, &ours])
    }

    /// A network with the weights of the first of these checkpoints that exists. Says which one it was.
    ///
    /// # Errors
    /// When none of them exists, or the one that does is not a checkpoint of this model.
    fn load_first(paths: &[&str]) -> Result<Self> {
        let path = checkpoint::first_of(paths)?;
        let model = Self::load(path)?;
        println!("Weights from {path}.");
        Ok(model)
    }

    /// Replaces this model's weights by a checkpoint's.
    ///
    /// # Errors
    /// A file that cannot be read, is truncated or not safetensors, belongs to another kind of
    /// model, or whose tensors are missing, extra or of another shape; the model then stays as
    /// it was.
    fn load_weights(&mut self, path: impl AsRef<Path>) -> Result<()> {
        Checkpoint::read(Self::KIND, path.as_ref())?.load_into(self.layers_mut())
    }
}

/// A [`Model`] that needs nothing but images.
pub trait Forward: Model {
    /// The network's output before its last activation (the logits), for images `(N, 1, 28, 28)`: images of the
    /// same shape from a denoiser, `(N, classes)` from a classifier.
    ///
    /// # Panics
    /// Images of another shape.
    fn forward(&self, x: &Tensor) -> Tensor;
}

fn save_in<M: Model>(model: &M, path: &Path, kind: Kind) -> Result<()> {
    checkpoint::save(model.layers(), M::KIND, model.settings()?, path, kind)
}

/// Settings from the text that [`Model::settings`] gave.
pub(crate) fn parsed<C: DeserializeOwned>(settings: &str) -> Result<C> {
    serde_json::from_str(settings)
        .with_context(|| format!("its configuration {settings} is not this model's"))
}
