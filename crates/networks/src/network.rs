//! Networks: a [`Network`] is a list of layers that a cell writes; it is compiled with an optimizer and a loss, then
//! trained.
//!
//! Lists, summaries and errors write shapes as `(height, width, channels)`, as Keras does; tensors are
//! `(N, channels, height, width)`.

mod apply;
mod blueprint;
mod checkpoint;
mod layer;
mod named_layer;
mod saved;
mod shape;
mod summary;

use std::ops::RangeBounds;

use anyhow::{Context, Result, ensure};
use figures::{Block, Output, blocks};
use ops::Precision;
use ops::pool::map_batches;
use tch::{Kind, Tensor};

use crate::objective::{Compiled, Loss, Optimizer};
use blueprint::Blueprint;
pub use blueprint::Initialisation;
pub use checkpoint::{Checkpoint, save_layers, trained};
pub(crate) use layer::Activation;
pub use layer::{
    Layer, conv2d, conv2d_transpose, dense, flatten, group_norm, max_pooling2d, reshape,
    up_sampling2d,
};
pub use named_layer::NamedLayer;
pub(crate) use named_layer::activations;
pub use named_layer::trainable_weights;
use named_layer::{set_trainable, unfreeze_last};
use shape::Shape;
pub use summary::{Summary, SummaryRow};

/// How many images pass through a network at once.
const BATCH: usize = 256;

/// A network: layers, one after the other, each with its weights.
///
/// It computes in the kind of its input: `float32` images give `float32` results. The output for an image does not
/// depend on the other images of its batch.
///
/// ```no_run
/// use diffusion::prelude::*;
///
/// # fn main() -> anyhow::Result<()> {
/// let mnist: Mnist = Mnist::load()?;
/// let mut network: Network = Network::new([28, 28, 1], vec![
///     conv2d(16, 3).relu(),
///     max_pooling2d(2),
///     conv2d(16, 3).relu(),
///     up_sampling2d(2),
///     conv2d(1, 3).sigmoid(),
/// ])?;
/// network.compile(Adam::new(0.001), Loss::BinaryCrossEntropy);
/// let pairs: Pairs = mnist.train.noisy(0.5)?;
/// network.fit(&pairs, &Fit { epochs: 2, ..Fit::default() })?;
/// let (noisy, _clean): (Tensor, Tensor) = pairs.batch(0, 10)?;
/// grid(&network.predict(&noisy)?, 10).save("denoised.png")?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Network {
    blueprint: Blueprint,
    /// The input, then one for each layer of the list.
    pub(crate) layers: Vec<NamedLayer>,
    pub(crate) compiled: Option<Compiled<Loss>>,
}

impl Network {
    /// An untrained network that takes `input`, `[height, width, channels]` or `[numbers]`, and passes it through these
    /// layers. Its first weights are Keras's, drawn with seed 1; [`seeded`](Network::seeded) and
    /// [`initialised`](Network::initialised) choose others.
    ///
    /// # Errors
    /// A layer that cannot take what arrives: the error names the layer, its number in the list (from 1), what arrives and
    /// what was expected.
    pub fn new<const N: usize>(input: [i64; N], layers: Vec<Layer>) -> Result<Network> {
        Network::of(Blueprint {
            input: input.to_vec(),
            layers,
            seed: 1,
            initialisation: Initialisation::default(),
        })
    }

    fn of(blueprint: Blueprint) -> Result<Network> {
        Ok(Network {
            layers: blueprint.build()?,
            blueprint,
            compiled: None,
        })
    }

    /// The same network with first weights of another seed, untrained and not compiled.
    #[must_use]
    pub fn seeded(self, seed: u64) -> Network {
        self.rebuilt(|blueprint| blueprint.seed = seed)
    }

    /// The same network with first weights that are chosen in another way, untrained and not compiled.
    #[must_use]
    pub fn initialised(self, initialisation: Initialisation) -> Network {
        self.rebuilt(|blueprint| blueprint.initialisation = initialisation)
    }

    fn rebuilt(mut self, change: impl FnOnce(&mut Blueprint)) -> Network {
        change(&mut self.blueprint);
        let drawn = self.blueprint.build();
        let drawn = drawn.unwrap_or_else(|error| unreachable!("it was built before: {error:#}"));
        for (layer, mut drawn) in self.layers.iter_mut().zip(drawn) {
            drawn.set_trainable(layer.is_trainable());
            *layer = drawn;
        }
        self.compiled = None;
        self
    }

    /// The layers, from input to output; the input is number 0.
    pub fn layers(&self) -> &[NamedLayer] {
        &self.layers
    }

    /// The layer of this name, as the summary prints it.
    ///
    /// # Errors
    /// A name that no layer has.
    pub fn layer(&self, name: &str) -> Result<&NamedLayer> {
        Ok(&self.layers[self.position(name)?])
    }

    fn position(&self, name: &str) -> Result<usize> {
        let found = self.layers.iter().position(|layer| layer.name == name);
        found.with_context(|| {
            let names: Vec<&str> = self
                .layers
                .iter()
                .map(|layer| layer.name.as_str())
                .collect();
            format!(
                "this network has no layer {name:?}; expected one of {}",
                names.join(", ")
            )
        })
    }

    /// The table of layers that Keras prints: shown as the last value of a cell.
    pub fn summary(&self) -> Summary {
        Summary::of(&self.layers)
    }

    /// The network as a row of blocks, each as high as the logarithm of how many numbers its layer puts out for one image.
    pub fn diagram(&self) -> Output {
        let of_layer = |layer: &NamedLayer| {
            let size = layer.output_shape.iter().product::<i64>() as usize;
            match *layer.output_shape {
                [height, width, channels] => {
                    Block::image(&layer.name, &format!("{height}x{width}x{channels}"), size)
                }
                _ => Block::flat(&layer.name, "", size),
            }
        };
        let all: Vec<Block> = self.layers.iter().map(of_layer).collect();
        blocks("How many numbers come out of each layer", &all)
    }

    /// Shows the summary in a notebook.
    pub fn evcxr_display(&self) {
        self.summary().evcxr_display();
    }

    /// Freezes layers, so that training leaves them as they are: `freeze(..)?` all of them,
    /// `freeze(0..6)?` the first six. [`compile`](Network::compile) afterwards, as in Keras.
    ///
    /// # Errors
    /// A range that reaches beyond the last layer.
    pub fn freeze(&mut self, layers: impl RangeBounds<usize>) -> Result<()> {
        set_trainable(&mut self.layers, named_layer::bounds(layers), false)
    }

    /// Lets training change layers again; the reverse of [`freeze`](Network::freeze).
    ///
    /// # Errors
    /// A range that reaches beyond the last layer.
    pub fn unfreeze(&mut self, layers: impl RangeBounds<usize>) -> Result<()> {
        set_trainable(&mut self.layers, named_layer::bounds(layers), true)
    }

    /// Unfreezes the last `n` layers, and leaves the others as they are.
    ///
    /// # Errors
    /// When the network has fewer than `n` layers.
    pub fn unfreeze_last(&mut self, n: usize) -> Result<()> {
        unfreeze_last(&mut self.layers, n)
    }

    /// The weights that training may change, layer by layer; they share the network's memory.
    pub fn trainable_weights(&self) -> Vec<Tensor> {
        trainable_weights(&self.layers)
    }

    /// Chooses how the network is trained. A new optimizer starts from zero; the weights stay as they are.
    pub fn compile(&mut self, optimizer: impl Into<Optimizer>, loss: Loss) {
        self.compiled = Some(Compiled::new(optimizer.into(), loss));
    }

    /// What the network makes of images: `(N, channels, height, width)` to what its last layer puts out, an image again or
    /// `(N, numbers)`, after the last activation.
    ///
    /// Works through them in batches, on all cores, and records no gradients. Computes in
    /// [`Precision::of_this_cpu`]; for the lesson's network a pixel differs between the two precisions by less than 0.02, a
    /// mean PSNR over the test split by less than 0.01 dB.
    ///
    /// # Errors
    /// Images of another shape than the network's input, or of whole numbers.
    pub fn predict(&self, images: &Tensor) -> Result<Tensor> {
        self.predict_in(Precision::of_this_cpu(), images)
    }

    /// [`predict`](Network::predict) in this precision.
    ///
    /// # Errors
    /// As [`predict`](Network::predict).
    pub fn predict_in(&self, precision: Precision, images: &Tensor) -> Result<Tensor> {
        let count = self.check_input(images)?;
        let (kind, given) = (precision.kind(), images.kind());
        let replica = self.replica(kind);
        map_batches(count, BATCH, &|| {
            let (network, images) = (replica.replica(kind), images.shallow_clone());
            Box::new(move |range| {
                let batch = images.narrow(0, range.start, range.end - range.start);
                let logits = network.logits(&batch.to_kind(kind))?;
                Ok(network.activated(&logits.to_kind(given)))
            })
        })
    }

    /// The output for images, as [`predict`](Network::predict), but with gradients, at once, and in the kind of the images.
    ///
    /// # Errors
    /// As [`predict`](Network::predict).
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        Ok(self.activated(&self.logits(images)?))
    }

    /// The output before a last sigmoid or softmax (the logits); with another last activation the same as
    /// [`forward`](Network::forward).
    ///
    /// # Errors
    /// As [`predict`](Network::predict).
    pub fn logits(&self, images: &Tensor) -> Result<Tensor> {
        self.check_input(images)?;
        let list = &self.blueprint.layers;
        let (head, last) = self.blueprint.head();
        let mut x = channels_last(images)?;
        for (at, (layer, named)) in list.iter().zip(&self.layers[1..]).enumerate() {
            let activation = match last {
                Activation::Sigmoid | Activation::Softmax if at == head => Activation::Linear,
                _ => layer.activation,
            };
            let y = apply::apply(layer, named, &x, activation);
            x = y.with_context(|| format!("the layer {}", named.name))?;
        }
        channels_first(x)
    }

    /// Logits to outputs.
    pub(crate) fn activated(&self, logits: &Tensor) -> Tensor {
        match self.last_activation() {
            Activation::Softmax if logits.dim() == 4 => logits.softmax(1, logits.kind()),
            last => last.of(logits),
        }
    }

    /// The activation that [`logits`](Network::logits) leaves out; linear if there is none.
    pub(crate) fn last_activation(&self) -> Activation {
        self.blueprint.head().1
    }

    /// How many images a tensor holds, if this network takes them.
    fn check_input(&self, images: &Tensor) -> Result<usize> {
        let shape = images.size();
        let count = shape.first().copied().unwrap_or_default();
        let expected = match *self.blueprint.input {
            [height, width, channels] => vec![count, channels, height, width],
            _ => vec![count, self.blueprint.input[0]],
        };
        let rest: Vec<String> = expected[1..].iter().map(i64::to_string).collect();
        ensure!(
            count > 0 && shape == expected,
            "the network takes {} for each image, a tensor (N, {}); this one has {shape:?}",
            Shape(&self.blueprint.input),
            rest.join(", "),
        );
        ensure!(
            images.is_floating_point(),
            "the network takes fractions; this tensor holds {:?} numbers",
            images.kind()
        );
        Ok(count as usize)
    }

    /// What one image is when it goes in, and when it comes out, as Keras writes shapes.
    pub(crate) fn ends(&self) -> (&[i64], &[i64]) {
        let output = self
            .layers
            .last()
            .map(|layer| layer.output_shape.as_slice());
        (&self.blueprint.input, output.unwrap_or_default())
    }

    /// The first layers, up to and including the one of this name: `up_to("dense")?.predict(&images)?` is what comes out in
    /// the middle. It shares the weights of this network, and is not compiled.
    ///
    /// # Errors
    /// A name that no layer has, or the input's.
    pub fn up_to(&self, name: &str) -> Result<Network> {
        let at = self.position(name)?;
        ensure!(
            at > 0,
            "there is nothing up to {name}: expected the name of a layer behind it"
        );
        let blueprint = Blueprint {
            layers: self.blueprint.layers[..at].to_vec(),
            ..self.blueprint.clone()
        };
        Ok(Network {
            blueprint,
            layers: shared(&self.layers[..=at]),
            compiled: None,
        })
    }

    /// The layers after the one of this name, as a network that takes what that layer puts out:
    /// `after("dense")?.predict(&numbers)?`. It shares the weights of this network, names its layers anew, and is not
    /// compiled.
    ///
    /// # Errors
    /// A name that no layer has, or the last layer's.
    pub fn after(&self, name: &str) -> Result<Network> {
        let at = self.position(name)?;
        let blueprint = Blueprint {
            input: self.layers[at].output_shape.clone(),
            layers: self.blueprint.layers[at..].to_vec(),
            ..self.blueprint.clone()
        };
        let mut weights = self.layers[at + 1..]
            .iter()
            .flat_map(|layer| &layer.weights);
        let mut layers = blueprint.named_layers(&mut |_, _| {
            let (_, weight) = weights
                .next()
                .unwrap_or_else(|| unreachable!("the same layers have the same weights"));
            weight.shallow_clone()
        })?;
        for (layer, from) in layers.iter_mut().zip(&self.layers[at..]) {
            layer.set_trainable(from.is_trainable());
        }
        Ok(Network {
            blueprint,
            layers,
            compiled: None,
        })
    }

    /// The same network, which shares its weights' memory: an observer of a training sees them change. It is not compiled.
    #[must_use]
    pub fn shared(&self) -> Network {
        self.replica(Kind::Float)
    }

    /// The same network with weights in another kind, to compute in it; in the same kind the two share their weights'
    /// memory.
    pub(crate) fn replica(&self, kind: Kind) -> Network {
        Network {
            blueprint: self.blueprint.clone(),
            layers: self
                .layers
                .iter()
                .map(|layer| layer.in_kind(kind))
                .collect(),
            compiled: None,
        }
    }
}

/// A copy with weights, and an optimizer's state, of its own.
impl Clone for Network {
    fn clone(&self) -> Network {
        Network {
            blueprint: self.blueprint.clone(),
            layers: self.layers.iter().map(NamedLayer::deep_clone).collect(),
            compiled: self.compiled.clone(),
        }
    }
}

fn shared(layers: &[NamedLayer]) -> Vec<NamedLayer> {
    layers.iter().map(NamedLayer::shared).collect()
}

/// `(N, channels, height, width)` to `(N, height, width, channels)`; vectors stay as they are.
fn channels_last(x: &Tensor) -> Result<Tensor> {
    Ok(match *x.size() {
        [images, 1, height, width] => x.f_reshape([images, height, width, 1])?,
        [_, _, _, _] => x.f_permute([0, 2, 3, 1])?.f_contiguous()?,
        _ => x.f_contiguous()?,
    })
}

/// The reverse of [`channels_last`].
fn channels_first(x: Tensor) -> Result<Tensor> {
    Ok(match *x.size() {
        [images, height, width, 1] => x.f_reshape([images, 1, height, width])?,
        [_, _, _, _] => x.f_permute([0, 3, 1, 2])?.f_contiguous()?,
        _ => x,
    })
}
