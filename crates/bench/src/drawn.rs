//! What the lesson's trained U-Nets draw and denoise, and how good it is: by the public API of the support crate alone.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use diffusion::prelude::*;
use diffusion::scores::{evenly_chosen, features, frechet_distance, frechet_floor};
use serde_json::{Value, json};

use crate::race::NOISE;

/// The seed of all that is drawn here.
const SEED: u64 = 1_000;
/// The number of steps that few steps are compared with.
const MANY_STEPS: usize = 250;

fn weights(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../notebooks/weights");
    folder.join(name)
}

/// Draws digits and scores them; what was drawn last is kept, for the next score of the same.
#[derive(Default)]
pub struct Generator {
    last: RefCell<Option<Drawn>>,
}

/// How digits are drawn.
#[derive(Clone, Copy, PartialEq)]
pub struct Settings {
    /// How many, each class as often as in the training images.
    pub images: usize,
    /// In how many steps of DDIM.
    pub steps: usize,
    /// How strongly guided.
    pub guidance: f64,
}

struct Drawn {
    settings: Settings,
    images: Tensor,
    classes: Vec<i64>,
}

impl Generator {
    /// The share that the classifier assigns to the class of their label, in percent.
    pub fn class_accuracy(&self, mnist: &Mnist, settings: Settings) -> Result<Value> {
        let (images, classes) = self.draw(mnist, settings)?;
        let share = diffusion::scores::class_accuracy(&classifier()?, &images, &classes)?;
        Ok(json!({ "value": 100.0 * share }))
    }

    /// The Fréchet distance from test images as a multiple of that between two halves of them, of equal size.
    pub fn frechet_over_floor(&self, mnist: &Mnist, settings: Settings) -> Result<Value> {
        let floor = frechet_floor(&classifier()?, &mnist.test, settings.images)?;
        Ok(json!({ "value": self.frechet(mnist, settings)? / floor }))
    }

    /// How much larger the distance is with few steps than with many, in percent.
    pub fn loss_of_few_steps(&self, mnist: &Mnist, settings: Settings) -> Result<Value> {
        let many = Settings {
            steps: MANY_STEPS,
            ..settings
        };
        let (few, many) = (self.frechet(mnist, settings)?, self.frechet(mnist, many)?);
        Ok(json!({ "value": 100.0 * (few / many - 1.0) }))
    }

    fn frechet(&self, mnist: &Mnist, settings: Settings) -> Result<f64> {
        let classifier = classifier()?;
        let (images, _) = self.draw(mnist, settings)?;
        let real = evenly_chosen(&mnist.test, settings.images, 0)?.images(settings.images)?;
        frechet_distance(
            &features(&classifier, &images)?,
            &features(&classifier, &real)?,
        )
    }

    fn draw(&self, mnist: &Mnist, settings: Settings) -> Result<(Tensor, Vec<i64>)> {
        if let Some(last) = self
            .last
            .borrow()
            .as_ref()
            .filter(|last| last.settings == settings)
        {
            return Ok((last.images.shallow_clone(), last.classes.clone()));
        }
        let unet = Unet::load(weights("unet.safetensors"))?;
        let classes = mnist.train.labels(settings.images)?;
        let sampler = Sampler::ddim(settings.steps)
            .guided(settings.guidance)
            .seeded(SEED);
        let drawn = sample(&unet, &with_labels(&classes), &sampler)?;
        self.last.replace(Some(Drawn {
            settings,
            images: drawn.images.shallow_clone(),
            classes: classes.clone(),
        }));
        Ok((drawn.images, classes))
    }
}

fn classifier() -> Result<Network> {
    Network::load(weights("classifier.safetensors"))
}

/// Seconds to draw digits, once the weights are there.
pub fn seconds(images: usize, steps: usize) -> Result<Value> {
    let unet = Unet::load(weights("unet.safetensors"))?;
    let started = Instant::now();
    sample(&unet, &with_labels(&vec![7; images]), &Sampler::ddim(steps))?;
    Ok(json!({ "value": started.elapsed().as_secs_f64() }))
}

/// By how many decibels the U-Net that denoises in one step does better than the lesson's CNN, on the first test images.
pub fn denoise_gain(mnist: &Mnist, images: usize) -> Result<Value> {
    let cnn = Network::load(weights("cnn.safetensors"))?;
    let unet = Unet::load(weights("unet_denoiser.safetensors"))?;
    let in_one_step = |noisy: &Tensor| Ok(unet.predict(&centred(noisy), &[0], &[None])?.sigmoid());
    let test = mnist.test.first(images)?;
    let by_cnn = Scores::of(&test, NOISE, |noisy| cnn.predict(noisy))?;
    let by_unet = Scores::of(&test, NOISE, in_one_step)?;
    Ok(json!({ "value": by_unet.psnr - by_cnn.psnr }))
}
