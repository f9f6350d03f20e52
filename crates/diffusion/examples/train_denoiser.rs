//! Trains a denoiser of the lesson and saves it where the notebooks look for it:
//!
//! ```text
//! cargo run -p diffusion --example train_denoiser -- cnn [EPOCHS] [FILE]
//! cargo run -p diffusion --example train_denoiser -- unet [EPOCHS] [FILE]
//! ```
//!
//! The seeds and every setting stand below; the cards beside the weights name the scores.

use diffusion::prelude::*;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let epochs = |usual| arguments.get(1).map_or(Ok(usual), |text| text.parse());
    let file = |usual: &str| arguments.get(2).map_or(usual, |text| text).to_owned();
    match arguments.first().map(String::as_str) {
        Some("cnn") => {
            let config = FitConfig {
                epochs: epochs(8)?,
                keep: Keep::Best,
                ..Default::default()
            };
            let file = file("notebooks/weights/cnn.safetensors");
            train(Cnn::new(CnnConfig::default()), &config, &file)
        }
        Some("unet") => {
            let config = FitConfig {
                epochs: epochs(8)?,
                learning_rate_schedule: LearningRateSchedule::Cosine,
                moving_average: Some(0.999),
                ..Default::default()
            };
            let file = file("notebooks/weights/unet_denoiser.safetensors");
            train(UnetDenoiser::new(UnetConfig::default())?, &config, &file)
        }
        other => bail!("the network is {other:?}; expected \"cnn\" or \"unet\""),
    }
}

fn train<M: Denoiser>(mut model: M, config: &FitConfig, file: &str) -> Result<()> {
    let mnist = Mnist::load()?;
    let history = fit(&mut model, &mnist.train, config)?;
    model.save_half(file)?;

    let model = M::load(file)?;
    let scores = [
        (
            "noisy",
            score(&mnist.test, config.noise, |noisy| Ok(noisy.shallow_clone()))?,
        ),
        (
            M::KIND,
            score(&mnist.test, config.noise, |noisy| model.denoise(noisy))?,
        ),
    ];
    println!("{history}\n{}\nSaved to {file}.", Scores::table(&scores));
    Ok(())
}
