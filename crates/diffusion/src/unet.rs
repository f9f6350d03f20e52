//! The network that learns the reverse process: from a noisy image, a timestep and a class to the noise in the image.
//!
//! A U-Net (Ronneberger et al. 2015; for diffusion Ho et al. 2020, appendix B): it works on the image at two
//! sizes, and skip connections pass fine detail from the encoder to the decoder. Blocks are residual (He et al. 2016),
//! with group normalisation and SiLU before each convolution.
//!
//! It is fast on a CPU for two reasons. Four neighbouring pixels become four channels before anything else, so
//! nothing is computed at 28x28, the most expensive size. And the number of channels is always a multiple of
//! sixteen, which fills the vectors of the operations in [`ops`].

mod blocks;
mod training;

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use figures::{Output, Step, levels};
use networks::network::{Checkpoint, NamedLayer, Summary, save_layers, trained};
use networks::objective::{Compiled, Optimizer};
use networks::rng::Rng;
use ops::pool::map_batches;
use ops::{Activation, Precision};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::batch::Batch;
use crate::data::{SIDE, check_images};
use crate::layers::{
    convolutional, convolve, dense, embedding, linear, norm, norm_silu, zero_initialised,
};
use crate::schedule::Schedule;
use blocks::{
    NEIGHBOURS, SINUSOIDS, class_embedding, depth_to_space, doubled, halved, no_shift,
    residual_block, sinusoidal_embedding, space_to_depth,
};

/// How many images pass through the network at once.
const BATCH: usize = 64;
/// How many classes there are; the class after the last one stands for "no class".
pub const CLASSES: i64 = 10;

/// What its files call it.
const KIND: &str = "unet";

/// Settings of a [`Unet`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnetConfig {
    /// The seed of the first weights (default 1).
    pub seed: u64,
    /// Channels at 14x14; twice as many at 7x7. A multiple of 16 (default 64).
    pub width: i64,
    /// The forward process that it is trained on and sampled with (default: cosine, 1,000 steps).
    pub schedule: Schedule,
    /// What its loss compares the prediction with (default: the noise).
    pub predicts: Predicts,
}

impl Default for UnetConfig {
    fn default() -> UnetConfig {
        let schedule = Schedule::cosine(1000);
        UnetConfig {
            seed: 1,
            width: 64,
            schedule: schedule.unwrap_or_else(|error| unreachable!("1,000 steps: {error:#}")),
            predicts: Predicts::Noise,
        }
    }
}

/// What a [`Unet`] predicts: what its loss compares the prediction with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Predicts {
    /// The noise `eps` in `x_t` (Ho et al. 2020, eq. 14): a diffusion model, to sample with.
    Noise,
    /// The clean image, in the form that its loss compares with: pixels in `[-1, 1]`, or their logits. `sample` does not take
    /// such a network: it takes what is predicted for noise.
    CleanImage,
}

/// A U-Net for images of 28x28 pixels, with the schedule that it is trained on.
///
/// It is trained like a [`Network`](crate::network::Network): [`compile`](Unet::compile) with an optimizer and a loss, then
/// [`fit`](Unet::fit). The loss is a function of a cell; this one makes a diffusion model of it:
///
/// ```no_run
/// use diffusion::prelude::*;
///
/// /// The simple loss of Ho et al. 2020, eq. 14 and algorithm 1.
/// fn noise_loss(unet: &Unet, batch: &Batch) -> Result<Tensor> {
///     let x0: Tensor = centred(&batch.images);
///     let t: Vec<usize> = batch.timesteps(unet.schedule());
///     let eps: Tensor = batch.noise();
///     let x_t: Tensor = unet.schedule().q_sample(&x0, &t, &eps)?;
///     mean_squared_error(&unet.predict(&x_t, &t, &batch.labels_dropped(0.1)?)?, &eps)
/// }
///
/// # fn main() -> anyhow::Result<()> {
/// let mnist: Mnist = Mnist::load()?;
/// let mut unet: Unet = Unet::new(UnetConfig { width: 32, ..UnetConfig::default() })?;
/// unet.compile(Adam::new(0.001), noise_loss);
/// unet.fit(&mnist.train, &Fit { batch_size: 64, ..Fit::default() })?;
/// sample(&unet, &[Some(7); 10], &Sampler::ddim(25))?.grid(10).save("sevens.png")?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Unet {
    config: UnetConfig,
    layers: Vec<NamedLayer>,
    compiled: Option<Compiled<UnetLoss>>,
    /// The kind in which this copy computes for a training; None outside of it.
    training: Option<Kind>,
}

/// The loss of a [`Unet`]: a mean over the images of the batch, a tensor of one number that gradients can flow back from.
///
/// Within it [`Unet::predict`] records gradients. Everything random must come from the batch.
pub type UnetLoss = fn(&Unet, &Batch) -> Result<Tensor>;

impl Unet {
    /// An untrained network.
    ///
    /// # Errors
    /// A width that is not a multiple of 16 from 16 to 512.
    pub fn new(config: UnetConfig) -> Result<Unet> {
        let width = config.width;
        ensure!(
            (16..=512).contains(&width) && width % 16 == 0,
            "the width is {width}; expected a multiple of 16 from 16 to 512"
        );
        let rng = &mut Rng::new(config.seed);
        let (large, small) = (SIDE / 2, SIDE / 4);
        let (wide, embedded) = (2 * width, 2 * width);
        let mut layers = vec![
            NamedLayer::new("image", "InputLayer", &[SIDE, SIDE, 1], vec![]),
            dense(rng, "time", SINUSOIDS, embedded),
            dense(rng, "time_1", embedded, embedded),
            embedding(rng, "class", CLASSES + 1, embedded),
            NamedLayer::new(
                "to_channels",
                "SpaceToDepth",
                &[large, large, NEIGHBOURS],
                vec![],
            ),
            convolutional(rng, "stem", "Conv2D", large, NEIGHBOURS, width),
        ];
        let block = &mut |name, side, from, to| {
            layers.extend(residual_block(rng, name, side, from, to, embedded));
        };
        block("down", large, width, width);
        block("down_1", large, width, width);
        block("deep", small, width, wide);
        block("deep_1", small, wide, wide);
        block("up", large, wide + width, width);
        block("up_1", large, width + width, width);
        layers.push(norm("last_norm", large, width));
        layers.push(zero_initialised(convolutional(
            rng, "last", "Conv2D", large, width, NEIGHBOURS,
        )));
        layers.push(NamedLayer::new(
            "to_pixels",
            "DepthToSpace",
            &[SIDE, SIDE, 1],
            vec![],
        ));
        Ok(Unet {
            config,
            layers,
            compiled: None,
            training: None,
        })
    }

    /// Chooses how the network is trained. A new optimizer starts from zero; the weights stay as they are.
    pub fn compile(&mut self, optimizer: impl Into<Optimizer>, loss: UnetLoss) {
        self.compiled = Some(Compiled::new(optimizer.into(), loss));
    }

    /// The forward process that this network is trained on and sampled with.
    pub fn schedule(&self) -> &Schedule {
        &self.config.schedule
    }

    /// What the network predicts for images `x`, `(N, 1, 28, 28)` with pixels in `[-1, 1]` (and noise beyond): the same
    /// shape, the noise in them if it [`predicts`](UnetConfig::predicts) noise.
    ///
    /// `t` is the timestep of each image, or one for all; `labels` has a class for each image, or one for all: `&[Some(7)]`,
    /// or `&[None]` for any class.
    ///
    /// Within a training's loss it records gradients; elsewhere it records none, and works in batches, on all cores, in
    /// [`Precision::of_this_cpu`].
    ///
    /// # Errors
    /// Images of another shape or of whole numbers, a timestep that the schedule does not have, a class that does not exist,
    /// or another number of timesteps or labels.
    pub fn predict(&self, x: &Tensor, t: &[usize], labels: &[Option<i64>]) -> Result<Tensor> {
        let images = check_images(x)?;
        let (t, classes) = (self.steps_of(t, images)?, classes_of(labels, images)?);
        if let Some(kind) = self.training {
            let output = self.forward(&x.to_kind(kind), &t, &classes)?;
            return Ok(output.to_kind(x.kind()));
        }
        let kind = Precision::of_this_cpu().kind();
        let (replica, in_kind) = (self.replica(kind), x.to_kind(kind));
        let output = map_batches(images, BATCH, &|| {
            let unet = replica.replica(kind);
            let [x, t, classes] = [&in_kind, &t, &classes].map(Tensor::shallow_clone);
            Box::new(move |range| {
                let part = |tensor: &Tensor| tensor.narrow(0, range.start, range.end - range.start);
                unet.forward(&part(&x), &part(&t), &part(&classes))
            })
        })?;
        Ok(output.to_kind(x.kind()))
    }

    fn steps_of(&self, t: &[usize], images: usize) -> Result<Tensor> {
        t.iter().try_for_each(|&t| self.schedule().check_step(t))?;
        let steps: Vec<i64> = one_for_each("timestep", t, images)?
            .map(|&t| t as i64)
            .collect();
        Ok(Tensor::from_slice(&steps))
    }

    /// As [`predict`](Unet::predict), but with gradients, at once, and in the kind of the images. `timesteps` `(N,)` may be
    /// of any kind; `classes` `(N,)` are `int64`, and 10 stands for "no class".
    ///
    /// # Errors
    /// Tensors of other shapes.
    pub fn forward(&self, x: &Tensor, timesteps: &Tensor, classes: &Tensor) -> Result<Tensor> {
        let images = check_images(x)? as i64;
        ensure!(
            timesteps.size() == [images] && classes.size() == [images],
            "the network takes a timestep and a class for each of {images} images; got {:?} and {:?}",
            timesteps.size(),
            classes.size()
        );
        let (least, most) = (
            classes.min().int64_value(&[]),
            classes.max().int64_value(&[]),
        );
        ensure!(
            least >= 0 && most <= CLASSES,
            "classes go from 0 to 9, and 10 stands for none; these go from {least} to {most}"
        );
        let embedding = self.embedded(timesteps, classes, x.kind()); //  (N, 2 width)
        let x = space_to_depth(&x.reshape([-1, SIDE, SIDE, 1])); //     (N, 14, 14, 4)
        let x = convolve(&x, self.layer("stem"), Activation::Linear); // (N, 14, 14, width)
        let x = self.residual("down", &x, &embedding);
        let large = self.residual("down_1", &x, &embedding);
        let x = halved(&large); //                                     (N, 7, 7, width)
        let x = self.residual("deep", &x, &embedding); //                   (N, 7, 7, 2 width)
        let x = self.residual("deep_1", &x, &embedding);
        let x = Tensor::cat(&[doubled(&x), large.shallow_clone()], 3); // (N, 14, 14, 3 width)
        let x = self.residual("up", &x, &embedding); //                     (N, 14, 14, width)
        let x = self.residual("up_1", &Tensor::cat(&[x, large], 3), &embedding);
        let x = norm_silu(&x, &no_shift(&x), self.layer("last_norm"));
        let x = convolve(&x, self.layer("last"), Activation::Linear); // (N, 14, 14, 4)
        Ok(depth_to_space(&x).reshape([-1, 1, SIDE, SIDE]))
    }

    /// Timestep and class as one vector for each image, `(N, 2 width)`.
    fn embedded(&self, timesteps: &Tensor, classes: &Tensor, kind: Kind) -> Tensor {
        let time = sinusoidal_embedding(timesteps, kind);
        let time = linear(&time, self.layer("time")).silu();
        let time = linear(&time, self.layer("time_1"));
        (time + class_embedding(classes, self.layer("class"), kind)).silu()
    }

    /// A residual block; the embedding of timestep and class shifts its channels.
    fn residual(&self, block: &str, x: &Tensor, embedding: &Tensor) -> Tensor {
        let layer = |part: &str| self.layer(&format!("{block}_{part}"));
        let h = norm_silu(x, &no_shift(x), layer("norm"));
        let h = convolve(&h, layer("conv"), Activation::Linear);
        let shift = linear(embedding, layer("time"));
        let h = norm_silu(&h, &shift, layer("norm_1"));
        let h = convolve(&h, layer("conv_1"), Activation::Linear);
        match x.size()[3] == h.size()[3] {
            true => x + h,
            false => linear(x, layer("skip")) + h,
        }
    }

    fn layer(&self, name: &str) -> &NamedLayer {
        let found = self.layers.iter().find(|layer| layer.name == name);
        found.unwrap_or_else(|| unreachable!("`new` builds a layer {name}"))
    }

    /// The settings it was built from.
    pub fn config(&self) -> &UnetConfig {
        &self.config
    }

    /// The layers, from input to output.
    pub fn layers(&self) -> &[NamedLayer] {
        &self.layers
    }

    /// The network as a picture: its blocks at 28, 14 and 7 pixels, and the skip connections.
    pub fn diagram(&self) -> Output {
        let width = self.config.width;
        let step = |name: &str, channels: i64, level, filled| Step {
            name: name.to_owned(),
            detail: channels.to_string(),
            level,
            filled,
        };
        let out = match self.config.predicts {
            Predicts::Noise => "noise",
            Predicts::CleanImage => "clean",
        };
        let steps = [
            step("x_t", 1, 0, false),
            step("stem", width, 1, false),
            step("down", width, 1, true),
            step("down", width, 1, true),
            step("deep", 2 * width, 2, true),
            step("deep", 2 * width, 2, true),
            step("up", width, 1, true),
            step("up", width, 1, true),
            step("last", NEIGHBOURS, 1, false),
            step(out, 1, 0, false),
        ];
        levels(
            "The U-Net, with the channels of each block",
            &["28x28", "14x14", "7x7"],
            &steps,
            &[(3, 6), (3, 7)],
            "a block that also gets the timestep and the label",
        )
    }

    /// The table of layers that Keras prints: shown as the last value of a cell.
    pub fn summary(&self) -> Summary {
        Summary::of(&self.layers)
    }

    /// The same network, which shares its weights' memory: an observer of a training sees them change. It is not compiled.
    #[must_use]
    pub fn shared(&self) -> Unet {
        self.replica(Kind::Float)
    }

    /// The same network with weights in another kind, to compute in it; in the same kind the two share their weights'
    /// memory.
    pub(crate) fn replica(&self, kind: Kind) -> Unet {
        Unet {
            config: self.config.clone(),
            layers: self
                .layers
                .iter()
                .map(|layer| layer.in_kind(kind))
                .collect(),
            compiled: None,
            training: self.training,
        }
    }

    /// Its settings as JSON.
    pub(crate) fn description(&self) -> Result<String> {
        Ok(serde_json::to_string(&self.config)?)
    }

    /// Saves the weights and the settings, schedule and target among them, to a safetensors file, an older one as a whole or
    /// not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.save_in(path.as_ref(), Kind::Float)
    }

    /// Saves as [`save`](Unet::save) does, at half the size: weights are rounded to `float16`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save_half(&self, path: impl AsRef<Path>) -> Result<()> {
        self.save_in(path.as_ref(), Kind::Half)
    }

    fn save_in(&self, path: &Path, kind: Kind) -> Result<()> {
        save_layers(&self.layers, KIND, self.description()?, path, kind)
    }

    /// The network of a file that [`save`](Unet::save) wrote. It is not compiled.
    ///
    /// # Errors
    /// A file that cannot be read, is truncated or not safetensors, belongs to another kind of network, or whose tensors are
    /// missing, extra or of another shape.
    pub fn load(path: impl AsRef<Path>) -> Result<Unet> {
        let file = Checkpoint::read(KIND, path.as_ref())?;
        let built = || -> Result<Unet> {
            let settings = file.settings()?;
            if !settings.contains("schedule") {
                bail!(
                    "it is of an earlier version of this lesson, and does not say its schedule: delete the file, or train \
                     the network anew"
                );
            }
            let config = serde_json::from_str(settings)
                .with_context(|| format!("its settings {settings} are not a U-Net's"))?;
            Unet::new(config)
        };
        let mut unet = built().map_err(|error| file.refused(error))?;
        file.load_into(&mut unet.layers)?;
        Ok(unet)
    }

    /// The trained network of this name, `"unet"` or `"unet_denoiser"`: what an earlier notebook saved in `saved/`, else the
    /// weights that come with the lesson, in `weights/`, both beside the notebook. Says which one it was; a saved file that
    /// cannot be loaded is skipped with a line that says why.
    ///
    /// # Errors
    /// When there is neither, or the lesson's own cannot be loaded.
    pub fn trained(name: &str) -> Result<Unet> {
        trained(name, &|path| Unet::load(path))
    }
}

/// A copy with weights, and an optimizer's state, of its own.
impl Clone for Unet {
    fn clone(&self) -> Unet {
        Unet {
            config: self.config.clone(),
            layers: self.layers.iter().map(NamedLayer::deep_clone).collect(),
            compiled: self.compiled.clone(),
            training: None,
        }
    }
}

/// One of these for each image, where one for all will do.
fn one_for_each<'a, T>(
    what: &str,
    given: &'a [T],
    images: usize,
) -> Result<impl Iterator<Item = &'a T>> {
    ensure!(
        given.len() == images || given.len() == 1,
        "expected a {what} for each of {images} images, or one for all; got {}",
        given.len()
    );
    Ok(given.iter().cycle().take(images))
}

/// Labels as the network takes them, `(images,)`.
fn classes_of(labels: &[Option<i64>], images: usize) -> Result<Tensor> {
    check_labels(labels)?;
    let classes: Vec<i64> = one_for_each("label", labels, images)?
        .map(|label| label.unwrap_or(CLASSES))
        .collect();
    Ok(Tensor::from_slice(&classes))
}

/// Are these labels: `Some(7)` for a seven, `None` for any class?
pub(crate) fn check_labels(labels: &[Option<i64>]) -> Result<()> {
    for class in labels.iter().flatten() {
        ensure!(
            (0..CLASSES).contains(class),
            "there is no class {class}; expected one of 0 to {}",
            CLASSES - 1
        );
    }
    Ok(())
}
