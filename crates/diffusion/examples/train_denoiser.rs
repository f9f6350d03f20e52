//! Trains a denoiser of the lesson and saves it where the notebooks look for it:
//!
//! ```text
//! cargo run -p diffusion --example train_denoiser -- cnn [EPOCHS] [FILE]
//! cargo run -p diffusion --example train_denoiser -- unet [EPOCHS] [FILE]
//! ```
//!
//! The seeds and every setting stand below; the cards beside the weights name the scores.

use diffusion::prelude::*;
use diffusion::train::Supervised;

/// The strength of the noise.
const NOISE: f64 = 0.5;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let epochs: usize = arguments.get(1).map_or(Ok(8), |text| text.parse())?;
    let file = |usual: &str| arguments.get(2).map_or(usual, |text| text).to_owned();
    let mnist = Mnist::load()?;
    let pairs = mnist.train.noisy(NOISE)?;
    match arguments.first().map(String::as_str) {
        Some("cnn") => {
            let fit = Fit {
                epochs,
                keep: Keep::Best,
                ..Fit::default()
            };
            let mut cnn = Network::new([28, 28, 1], lesson_cnn())?.seeded(26);
            cnn.compile(Adam::new(0.001), Loss::BinaryCrossEntropy);
            let history = cnn.fit(&pairs, &fit)?;
            let file = file("notebooks/weights/cnn.safetensors");
            cnn.save_half(&file)?;
            let cnn = Network::load(&file)?;
            report(&mnist, &history, &|noisy| cnn.predict(noisy))
        }
        Some("unet") => {
            let fit = Fit {
                epochs,
                learning_rate_schedule: LearningRateSchedule::Cosine,
                moving_average: Some(0.999),
                ..Fit::default()
            };
            let mut unet = UnetDenoiser::new(UnetConfig::default())?;
            let adam = Adam::new(0.001);
            let objective = Supervised::of(&pairs, adam, Loss::BinaryCrossEntropy, fit.precision)?;
            let lines = &mut PrintLines::default();
            let history = fit_with(&mut unet, &mnist.train, &objective, &fit, lines)?;
            let file = file("notebooks/weights/unet_denoiser.safetensors");
            unet.save_half(&file)?;
            let unet = UnetDenoiser::load(&file)?;
            report(&mnist, &history, &|noisy| unet.predict(noisy))
        }
        other => bail!("the network is {other:?}; expected \"cnn\" or \"unet\""),
    }
}

/// Prints the course of the training, and how good the saved network is.
fn report(
    mnist: &Mnist,
    history: &History,
    denoise: &dyn Fn(&Tensor) -> Result<Tensor>,
) -> Result<()> {
    let noisy = score(&mnist.test, NOISE, |noisy| Ok(noisy.shallow_clone()))?;
    let denoised = score(&mnist.test, NOISE, denoise)?;
    let table = Scores::table(&[("noisy", noisy), ("denoised", denoised)]);
    println!("{history}\n{table}");
    Ok(())
}
