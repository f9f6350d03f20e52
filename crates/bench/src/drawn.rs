//! What the lesson's trained U-Nets draw and denoise, and how good it is: by the public API of the support crate alone.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use diffusion::prelude::*;
use diffusion::scores::{evenly_chosen, frechet_floor};
use serde_json::{Value, json};

use crate::race::NOISE;

/// The seed of all that is drawn here.
const SEED: u64 = 1_000;
/// How many steps count as many.
const MANY_STEPS: usize = 250;

fn weights(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../notebooks/weights");
    folder.join(name)
}

/// So many digits, each class in its turn.
fn draw(images: usize, steps: usize, guidance: f64) -> Result<(Tensor, Vec<i64>)> {
    let unet = Unet::load(weights("unet.safetensors"))?;
    let classes: Vec<i64> = (0..images as i64).map(|image| image % 10).collect();
    let asked: Vec<Option<i64>> = classes.iter().copied().map(Some).collect();
    let sampler = Sampler::ddim(steps).guided(guidance).seeded(SEED);
    let samples = sample(&unet, &Schedule::cosine(1000)?, &sampler, &asked)?;
    Ok((samples.images, classes))
}

fn classifier() -> Result<Classifier> {
    Classifier::load(weights("classifier.safetensors"))
}

/// Seconds to draw digits, once the weights are there.
pub fn seconds(images: usize, steps: usize) -> Result<Value> {
    let unet = Unet::load(weights("unet.safetensors"))?;
    let schedule = Schedule::cosine(1000)?;
    let started = Instant::now();
    sample(
        &unet,
        &schedule,
        &Sampler::ddim(steps),
        &vec![Some(7); images],
    )?;
    Ok(json!({ "value": started.elapsed().as_secs_f64() }))
}

/// The share that the classifier reads as asked, in percent.
pub fn class_accuracy(images: usize, steps: usize, guidance: f64) -> Result<Value> {
    let (drawn, classes) = draw(images, steps, guidance)?;
    let share = diffusion::scores::class_accuracy(&classifier()?, &drawn, &classes)?;
    Ok(json!({ "value": 100.0 * share }))
}

/// The Fréchet distance from test images as a multiple of that between two halves of them, of equal size.
pub fn frechet_over_floor(
    mnist: &Mnist,
    images: usize,
    steps: usize,
    guidance: f64,
) -> Result<Value> {
    let floor = frechet_floor(&classifier()?, &mnist.test, images)?;
    Ok(json!({ "value": frechet(mnist, images, steps, guidance)? / floor }))
}

/// How much larger the distance is with few steps than with many, in percent.
pub fn loss_of_few_steps(mnist: &Mnist, images: usize, steps: usize) -> Result<Value> {
    let (few, many) = (
        frechet(mnist, images, steps, 0.0)?,
        frechet(mnist, images, MANY_STEPS, 0.0)?,
    );
    Ok(json!({ "value": 100.0 * (few / many - 1.0) }))
}

/// By how many decibels the U-Net that denoises in one step does better than the lesson's CNN, on the first test images.
pub fn denoise_gain(mnist: &Mnist, images: usize) -> Result<Value> {
    let cnn = Cnn::load(weights("cnn.safetensors"))?;
    let unet = UnetDenoiser::load(weights("unet_denoiser.safetensors"))?;
    let test = mnist.test.first(images)?;
    let by_cnn = score(&test, NOISE, |noisy| cnn.denoise(noisy))?;
    let by_unet = score(&test, NOISE, |noisy| unet.denoise(noisy))?;
    Ok(json!({ "value": by_unet.psnr - by_cnn.psnr }))
}

fn frechet(mnist: &Mnist, images: usize, steps: usize, guidance: f64) -> Result<f64> {
    let classifier = classifier()?;
    let (drawn, _) = draw(images, steps, guidance)?;
    frechet_distance(
        &classifier.features(&drawn)?,
        &classifier.features(&evenly_chosen(&mnist.test, images, 0)?.images(images)?)?,
    )
}
