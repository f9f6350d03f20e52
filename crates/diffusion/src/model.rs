//! What every network of the lesson is: an ordered list of named layers whose weights can be
//! frozen, summed up in a table, saved and loaded.

mod checkpoint;

use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use tch::{Kind, Tensor};

use crate::data::thousands;
use crate::show::Table;
pub(crate) use checkpoint::write_whole;

/// One layer: a name, what comes out of it, and the weights it holds.
#[derive(Debug)]
pub struct Layer {
    /// The name, as Keras gives it: `conv2d`, `conv2d_1`, `dense`, …
    pub name: String,
    /// The kind of layer, as Keras calls it: `Conv2D`, `Dense`, …
    pub kind: &'static str,
    /// The shape that comes out for one image, channels last as in Keras's table.
    pub output_shape: Vec<i64>,
    /// Named weights, `float32` (in a [replica](Model::replica) its kind). Empty for layers that only
    /// reshape.
    pub weights: Vec<(&'static str, Tensor)>,
    trainable: bool,
}

impl Layer {
    /// A trainable layer with these weights.
    pub fn new(
        name: &str,
        kind: &'static str,
        output_shape: &[i64],
        weights: Vec<(&'static str, Tensor)>,
    ) -> Layer {
        let mut layer = Layer {
            name: name.to_owned(),
            kind,
            output_shape: output_shape.to_vec(),
            weights,
            trainable: true,
        };
        layer.set_trainable(true);
        layer
    }

    /// Whether training may change this layer's weights.
    pub fn is_trainable(&self) -> bool {
        self.trainable
    }

    /// How many numbers the layer's weights hold.
    pub fn parameters(&self) -> usize {
        self.weights.iter().map(|(_, weight)| weight.numel()).sum()
    }

    /// The same layer with weights in another kind; in the same kind it shares its weights' memory.
    fn in_kind(&self, kind: Kind) -> Layer {
        let convert = |weight: &Tensor| match weight.kind() == kind {
            true => weight.shallow_clone(),
            false => weight
                .detach()
                .to_kind(kind)
                .set_requires_grad(self.trainable),
        };
        Layer {
            name: self.name.clone(),
            kind: self.kind,
            output_shape: self.output_shape.clone(),
            weights: self
                .weights
                .iter()
                .map(|(name, weight)| (*name, convert(weight)))
                .collect(),
            trainable: self.trainable,
        }
    }

    pub(crate) fn set_trainable(&mut self, trainable: bool) {
        self.trainable = trainable;
        for (_, weight) in &mut self.weights {
            *weight = weight.detach().set_requires_grad(trainable);
        }
    }
}

/// A network, as an ordered list of named layers.
///
/// Its provided methods hand on to functions of the layers, which are compiled once, here: what is generic is
/// compiled anew in every cell that calls it.
///
/// A model computes in the kind of its input: `float32` images give `float32` results, `bfloat16`
/// ones are worked on in `bfloat16`, with the same `float32` weights converted on the way.
///
/// Images do not look at each other: what comes out for one does not depend on which others are in its
/// batch. Training relies on it when it gives each core a part of the batch.
pub trait Model: Send + Sized {
    /// What kind of model this is; stands in its checkpoints.
    const KIND: &'static str;
    /// The settings it was built from, as JSON: they stand in its checkpoints as well.
    ///
    /// # Errors
    /// Settings that JSON cannot hold.
    fn settings(&self) -> Result<String>;

    /// A network with such settings that has learnt nothing yet.
    ///
    /// # Errors
    /// Settings of another model, or that make no sense.
    fn with_settings(settings: &str) -> Result<Self>;

    /// The layers, from input to output.
    fn layers(&self) -> &[Layer];

    /// The layers, from input to output, to change them.
    fn layers_mut(&mut self) -> &mut [Layer];

    /// The same network with each of its layers replaced by what `change` makes of it.
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
        let path = path.as_ref();
        let settings = checkpoint::saved_settings(Self::KIND, path)?;
        let mut model = Self::with_settings(&settings)
            .map_err(|error| checkpoint::not_of_this_model(error, path))?;
        model.load_weights(path)?;
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
        checkpoint::load(self.layers_mut(), Self::KIND, path.as_ref())
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

fn set_trainable(
    layers: &mut [Layer],
    range: impl RangeBounds<usize>,
    trainable: bool,
) -> Result<()> {
    let count = layers.len();
    let start = match range.start_bound() {
        Bound::Included(&at) => at,
        Bound::Excluded(&at) => at.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&at) => at.saturating_add(1),
        Bound::Excluded(&at) => at,
        Bound::Unbounded => count,
    };
    ensure!(
        start <= end && end <= count,
        "layers {start}..{end} are out of range: this model has {count} layers, 0 to {}",
        count.saturating_sub(1),
    );
    layers[start..end]
        .iter_mut()
        .for_each(|layer| layer.set_trainable(trainable));
    Ok(())
}

fn save_in<M: Model>(model: &M, path: &Path, kind: Kind) -> Result<()> {
    checkpoint::save(model.layers(), M::KIND, model.settings()?, path, kind)
}

/// Settings from the text that [`Model::settings`] gave.
pub(crate) fn parsed<C: DeserializeOwned>(settings: &str) -> Result<C> {
    serde_json::from_str(settings)
        .with_context(|| format!("its configuration {settings} is not this model's"))
}

fn unfreeze_last(layers: &mut [Layer], n: usize) -> Result<()> {
    let count = layers.len();
    ensure!(
        n <= count,
        "cannot unfreeze the last {n} layers: this model has {count}"
    );
    set_trainable(layers, count - n.., true)
}

fn trainable_weights(layers: &[Layer]) -> Vec<Tensor> {
    let trainable = layers.iter().filter(|layer| layer.is_trainable());
    trainable
        .flat_map(|layer| {
            layer
                .weights
                .iter()
                .map(|(_, weight)| weight.shallow_clone())
        })
        .collect()
}

pub(crate) fn activations(layers: &[Layer]) -> usize {
    let outputs = layers.iter().map(|layer| &layer.output_shape);
    outputs
        .map(|shape| shape.iter().product::<i64>() as usize)
        .sum()
}

fn shape_text(shape: &[i64]) -> String {
    let sizes: Vec<String> = shape.iter().map(|size| thousands(*size as usize)).collect();
    format!("(None, {})", sizes.join(", "))
}

// ---- the summary ---------------------------------------------------------------------------------

/// The table of a model's layers. Shown by a notebook as a table, printed as text elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// One row for each layer, from input to output.
    pub rows: Vec<SummaryRow>,
}

/// One layer's row in a [`Summary`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SummaryRow {
    /// The layer's name.
    pub name: String,
    /// The kind of layer.
    pub kind: &'static str,
    /// What comes out, as Keras writes it: `(None, 28, 28, 16)`.
    pub output_shape: String,
    /// How many parameters the layer holds.
    pub parameters: usize,
    /// Whether training may change them.
    pub trainable: bool,
}

impl Summary {
    fn of(layers: &[Layer]) -> Summary {
        let rows = layers.iter().map(|layer| SummaryRow {
            name: layer.name.clone(),
            kind: layer.kind,
            output_shape: shape_text(&layer.output_shape),
            parameters: layer.parameters(),
            trainable: layer.is_trainable(),
        });
        Summary {
            rows: rows.collect(),
        }
    }

    /// All parameters.
    pub fn total(&self) -> usize {
        self.rows.iter().map(|row| row.parameters).sum()
    }

    /// The parameters that training may change.
    pub fn trainable(&self) -> usize {
        self.rows
            .iter()
            .filter(|row| row.trainable)
            .map(|row| row.parameters)
            .sum()
    }

    fn totals(&self) -> String {
        let (total, trainable) = (self.total(), self.trainable());
        let numbers = [total, trainable, total - trainable].map(thousands);
        format!(
            "Total parameters: {} (trainable: {}, frozen: {})",
            numbers[0], numbers[1], numbers[2]
        )
    }

    /// The summary as a table.
    pub fn table(&self) -> Table {
        let cells = |row: &SummaryRow| {
            vec![
                format!("{} ({})", row.name, row.kind),
                row.output_shape.clone(),
                thousands(row.parameters),
                row.trainable_text().to_owned(),
            ]
        };
        Table {
            head: vec!["Layer (type)", "Output shape", "Parameters", "Trainable"],
            rows: self.rows.iter().map(cells).collect(),
            bold: vec![false; self.rows.len()],
            caption: self.totals(),
        }
    }

    /// Shows the table in a notebook.
    pub fn evcxr_display(&self) {
        self.table().evcxr_display();
    }
}

impl SummaryRow {
    fn trainable_text(&self) -> &'static str {
        match (self.parameters, self.trainable) {
            (0, _) => "–",
            (_, true) => "yes",
            (_, false) => "frozen",
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.table().fmt(f)
    }
}
