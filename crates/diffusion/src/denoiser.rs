//! Denoisers that answer in one step: a noisy image in, the original out, as in the video.

use anyhow::Result;
use tch::{Kind, Tensor};

use crate::cnn::Cnn;
use crate::crew::map_batches;
use crate::layers::check_images;
use crate::model::{Forward, Layer, Model, parsed};
use crate::precision::Precision;
use crate::schedule::centred;
use crate::unet::{CLASSES, Unet, UnetConfig};

/// How many images pass through the network at once when nothing is learnt.
const BATCH: i64 = 256;

/// A network whose answer to an image is an image.
pub trait Denoiser: Forward {
    /// What the network makes of noisy images: `(N, 1, 28, 28)` in `[0, 1]` to the same shape and range.
    ///
    /// Works through the images in batches, on all cores, and remembers nothing for training.
    /// Computes in [`Precision::of_this_cpu`]; for the lesson's network a pixel differs between the two
    /// precisions by less than 0.02, a mean PSNR over the test split by less than 0.01 dB.
    ///
    /// # Errors
    /// Images of another shape, or of whole numbers.
    fn denoise(&self, noisy: &Tensor) -> Result<Tensor> {
        self.denoise_in(Precision::of_this_cpu(), noisy)
    }

    /// [`denoise`](Denoiser::denoise) in a precision of one's choice.
    ///
    /// # Errors
    /// As [`denoise`](Denoiser::denoise).
    fn denoise_in(&self, precision: Precision, noisy: &Tensor) -> Result<Tensor> {
        check_images(noisy)?;
        let (kind, given) = (precision.kind(), noisy.kind());
        let replica = self.replica(kind);
        map_batches(noisy, BATCH, &|| {
            let model = replica.replica(kind);
            Box::new(move |batch| model.forward(&batch.to_kind(kind)).to_kind(given).sigmoid())
        })
    }
}

/// The U-Net as a denoiser that answers in one step: trained by [`fit`](crate::train::fit) with the same noise and the
/// same loss as the lesson's [`Cnn`], of which it has a third of the parameters.
///
/// It looks at neighbourhoods, large and small, where the CNN presses the whole image through 64 numbers. Time and class
/// mean nothing to it: it is always told step 0 and no class.
#[derive(Debug)]
pub struct UnetDenoiser(Unet);

impl UnetDenoiser {
    /// A network that has learnt nothing yet.
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
        let times = Tensor::zeros([x.size()[0]], (Kind::Int64, x.device()));
        self.0
            .forward(&centred(x), &times, &times.full_like(CLASSES))
    }
}

impl Denoiser for Cnn {}
impl Denoiser for UnetDenoiser {}
