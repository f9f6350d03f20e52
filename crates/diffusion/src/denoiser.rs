//! Denoisers that work in one step: a noisy image in, the original out, as in the video.

use anyhow::Result;
use ops::Precision;
use ops::pool::map_batches;
use tch::{Kind, Tensor};

use crate::cnn::Cnn;
use crate::data::check_images;
use crate::model::{Forward, Layer, Model, parsed};
use crate::schedule::centred;
use crate::unet::{CLASSES, Unet, UnetConfig};

/// How many images pass through the network at once.
const BATCH: usize = 256;

/// A network that turns an image into an image.
pub trait Denoiser: Forward {
    /// Denoises images: `(N, 1, 28, 28)` in `[0, 1]` to the same shape and range.
    ///
    /// Works through the images in batches, on all cores, and records no gradients.
    /// Computes in [`Precision::of_this_cpu`]; for the lesson's network a pixel differs between the two
    /// precisions by less than 0.02, a mean PSNR over the test split by less than 0.01 dB.
    ///
    /// # Errors
    /// Images of another shape, or of whole numbers.
    fn denoise(&self, noisy: &Tensor) -> Result<Tensor> {
        self.denoise_in(Precision::of_this_cpu(), noisy)
    }

    /// [`denoise`](Denoiser::denoise) in this precision.
    ///
    /// # Errors
    /// As [`denoise`](Denoiser::denoise).
    fn denoise_in(&self, precision: Precision, noisy: &Tensor) -> Result<Tensor> {
        let images = check_images(noisy)?;
        let (kind, given) = (precision.kind(), noisy.kind());
        let replica = self.replica(kind);
        map_batches(images, BATCH, &|| {
            let (model, noisy) = (replica.replica(kind), noisy.shallow_clone());
            Box::new(move |range| {
                let batch = noisy.narrow(0, range.start, range.end - range.start);
                let logits = model.forward(&batch.to_kind(kind));
                Ok(logits.to_kind(given).sigmoid())
            })
        })
    }
}

/// The U-Net as a denoiser that works in one step: trained by [`fit`](crate::train::fit) with the same noise and the
/// same loss as the lesson's [`Cnn`]. It has a third of the parameters of the CNN.
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

    /// The settings it was built from.
    pub fn config(&self) -> &UnetConfig {
        self.0.config()
    }
}

impl Model for UnetDenoiser {
    const KIND: &'static str = "unet_denoiser";

    fn settings(&self) -> Result<String> {
        Ok(serde_json::to_string(self.config())?)
    }

    fn with_settings(settings: &str) -> Result<UnetDenoiser> {
        UnetDenoiser::new(parsed(settings)?)
    }

    fn layers(&self) -> &[Layer] {
        self.0.layers()
    }

    fn layers_mut(&mut self) -> &mut [Layer] {
        self.0.layers_mut()
    }

    fn map_layers(&self, change: &dyn Fn(&Layer) -> Layer) -> UnetDenoiser {
        UnetDenoiser(self.0.map_layers(change))
    }
}

impl Forward for UnetDenoiser {
    fn forward(&self, x: &Tensor) -> Tensor {
        let timesteps = Tensor::zeros([x.size()[0]], (Kind::Int64, x.device()));
        self.0
            .forward(&centred(x), &timesteps, &timesteps.full_like(CLASSES))
    }
}

impl Denoiser for Cnn {}
impl Denoiser for UnetDenoiser {}
