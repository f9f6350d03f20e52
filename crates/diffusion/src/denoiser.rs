//! The U-Net as a denoiser that works in one step, as the video's network does: a noisy image in, the original out.

use std::path::Path;

use anyhow::Result;
use ops::Precision;
use ops::pool::map_batches;
use tch::{Kind, Tensor};

use crate::data::check_images;
use crate::network::{NamedLayer, trained};
use crate::schedule::centred;
use crate::unet::{CLASSES, Unet, UnetConfig};

/// How many images pass through the network at once.
const BATCH: usize = 256;
/// What its files call it.
const KIND: &str = "unet_denoiser";

/// The U-Net as a denoiser that works in one step: trained by [`fit_with`](crate::train::fit_with) with the same noise and
/// the same loss as the lesson's CNN. It has a third of the parameters of the CNN.
///
/// It works on neighbourhoods, large and small, where the CNN squeezes the whole image through 64 numbers. Timestep and class
/// play no part: they are always 0 and "no class".
#[derive(Debug)]
pub struct UnetDenoiser(Unet);

impl UnetDenoiser {
    /// An untrained network.
    ///
    /// # Errors
    /// As [`Unet::new`].
    pub fn new(config: UnetConfig) -> Result<UnetDenoiser> {
        Unet::new(config).map(UnetDenoiser)
    }

    /// Denoises images: `(N, 1, 28, 28)` in `[0, 1]` to the same shape and range.
    ///
    /// Works through the images in batches, on all cores, in [`Precision::of_this_cpu`], and records no gradients.
    ///
    /// # Errors
    /// Images of another shape, or of whole numbers.
    pub fn predict(&self, noisy: &Tensor) -> Result<Tensor> {
        let count = check_images(noisy)?;
        let (kind, given) = (Precision::of_this_cpu().kind(), noisy.kind());
        let replica = self.replica(kind);
        map_batches(count, BATCH, &|| {
            let (network, noisy) = (replica.replica(kind), noisy.shallow_clone());
            Box::new(move |range| {
                let batch = noisy.narrow(0, range.start, range.end - range.start);
                let logits = network.logits(&batch.to_kind(kind))?;
                Ok(logits.to_kind(given).sigmoid())
            })
        })
    }

    /// The output before the sigmoid, for images `(N, 1, 28, 28)` in `[0, 1]`, with gradients, in the kind of the images.
    ///
    /// # Errors
    /// As [`predict`](UnetDenoiser::predict).
    pub fn logits(&self, images: &Tensor) -> Result<Tensor> {
        check_images(images)?;
        let timesteps = Tensor::zeros([images.size()[0]], (Kind::Int64, images.device()));
        let classes = timesteps.full_like(CLASSES);
        Ok(self.0.forward(&centred(images), &timesteps, &classes))
    }

    /// The layers, from input to output.
    pub fn layers(&self) -> &[NamedLayer] {
        self.0.layers()
    }

    pub(crate) fn layers_mut(&mut self) -> &mut [NamedLayer] {
        self.0.layers_mut()
    }

    pub(crate) fn replica(&self, kind: Kind) -> UnetDenoiser {
        UnetDenoiser(self.0.replica(kind))
    }

    pub(crate) fn description(&self) -> Result<String> {
        self.0.description()
    }

    /// As [`Unet::save`].
    ///
    /// # Errors
    /// As [`Unet::save`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.0.save_as(KIND, path.as_ref(), Kind::Float)
    }

    /// As [`Unet::save_half`].
    ///
    /// # Errors
    /// As [`Unet::save_half`].
    pub fn save_half(&self, path: impl AsRef<Path>) -> Result<()> {
        self.0.save_as(KIND, path.as_ref(), Kind::Half)
    }

    /// As [`Unet::load`].
    ///
    /// # Errors
    /// As [`Unet::load`].
    pub fn load(path: impl AsRef<Path>) -> Result<UnetDenoiser> {
        Unet::load_as(KIND, path.as_ref()).map(UnetDenoiser)
    }

    /// As [`Unet::trained`].
    ///
    /// # Errors
    /// As [`Unet::trained`].
    pub fn trained() -> Result<UnetDenoiser> {
        trained(KIND, &|path| UnetDenoiser::load(path))
    }
}
