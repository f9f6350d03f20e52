//! Trains a denoiser of the lesson and saves it where the notebooks look for it:
//!
//! ```text
//! cargo run -p diffusion --example train_denoiser -- cnn [EPOCHS] [FILE]
//! cargo run -p diffusion --example train_denoiser -- unet [EPOCHS] [FILE]
//! ```
//!
//! The seeds and every setting stand below; the cards beside the weights name the scores.

use diffusion::prelude::*;
use diffusion::train::Keep;
use diffusion::unet::Predicts;

/// The strength of the noise.
const NOISE: f64 = 0.5;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let epochs: usize = arguments.get(1).map_or(Ok(8), |text| text.parse())?;
    let file = |usual: &str| arguments.get(2).map_or(usual, |text| text).to_owned();
    let mnist = Mnist::load()?;
    match arguments.first().map(String::as_str) {
        Some("cnn") => {
            let fit = Fit {
                epochs,
                keep: Keep::Best,
                ..Fit::default()
            };
            let mut cnn = Network::new([28, 28, 1], lesson_cnn())?.seeded(26);
            cnn.compile(Adam::new(0.001), Loss::BinaryCrossEntropy);
            let history = cnn.fit(&mnist.train.noisy(NOISE)?, &fit)?;
            let file = file("notebooks/weights/cnn.safetensors");
            cnn.save_half(&file)?;
            let cnn = Network::load(&file)?;
            report(&mnist, &history, &|noisy| cnn.predict(noisy))
        }
        Some("unet") => {
            let fit = Fit {
                epochs,
                cosine_decay: true,
                moving_average: Some(0.999),
                ..Fit::default()
            };
            let mut unet = Unet::new(UnetConfig {
                predicts: Predicts::CleanImage,
                ..UnetConfig::default()
            })?;
            unet.compile(Adam::new(0.001), clean_loss);
            let history = unet.fit(&mnist.train, &fit)?;
            let file = file("notebooks/weights/unet_denoiser.safetensors");
            unet.save_half(&file)?;
            let unet = Unet::load(&file)?;
            report(&mnist, &history, &|noisy| denoised(&unet, noisy))
        }
        other => bail!("the network is {other:?}; expected \"cnn\" or \"unet\""),
    }
}

/// The U-Net is always told timestep 0 and no class: it sees a noisy image and names the pixels of the clean one.
fn clean_loss(unet: &Unet, batch: &Batch) -> Result<Tensor> {
    let noisy = (&batch.images + NOISE * batch.noise()).clamp(0.0, 1.0);
    let logits = unet.predict(&centred(&noisy), &[0], &[None])?;
    binary_cross_entropy(&logits, &batch.images)
}

fn denoised(unet: &Unet, noisy: &Tensor) -> Result<Tensor> {
    Ok(unet.predict(&centred(noisy), &[0], &[None])?.sigmoid())
}

/// Prints the course of the training, and how good the saved network is.
fn report(
    mnist: &Mnist,
    history: &History,
    denoise: &dyn Fn(&Tensor) -> Result<Tensor>,
) -> Result<()> {
    let noisy = Scores::of(&mnist.test, NOISE, |noisy| Ok(noisy.shallow_clone()))?;
    let denoised = Scores::of(&mnist.test, NOISE, denoise)?;
    let table = Scores::table(&[("noisy", noisy), ("denoised", denoised)]);
    println!("{history}\n{table}");
    Ok(())
}
