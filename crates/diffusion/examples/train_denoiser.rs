//! Trains the lesson's denoiser and saves it where the notebooks look for it:
//!
//! ```text
//! cargo run -p diffusion --example train_cnn -- [EPOCHS] [FILE]
//! ```
//!
//! The seed and every setting stand below; the card beside the weights names the scores.

use diffusion::prelude::*;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let epochs: usize = arguments.next().map_or(Ok(8), |text| text.parse())?;
    let file = arguments
        .next()
        .unwrap_or("notebooks/weights/cnn.safetensors".to_owned());

    let mnist = Mnist::load()?;
    let mut cnn = Cnn::new(CnnConfig::default());
    let config = FitConfig {
        epochs,
        keep: Keep::Best,
        ..Default::default()
    };
    let history = fit(&mut cnn, &mnist.train, &config)?;
    cnn.save_half(&file)?;

    let cnn = Cnn::load(&file)?;
    let scores = [
        (
            "noisy",
            score(&mnist.test, config.noise, |noisy| Ok(noisy.shallow_clone()))?,
        ),
        (
            "cnn",
            score(&mnist.test, config.noise, |noisy| cnn.denoise(noisy))?,
        ),
    ];
    println!("{history}\n{}\nSaved to {file}.", Scores::table(&scores));
    Ok(())
}
