//! Trains the U-Net that the notebooks generate digits with, and saves it where they look for it:
//!
//! ```text
//! cargo run -p diffusion --example train_unet -- [EPOCHS] [WIDTH] [SEED] [FILE]
//! ```
//!
//! The settings stand below; the card beside the weights names the scores. Interrupted, it goes on from its last
//! epoch when it is started again.

use std::path::PathBuf;

use diffusion::prelude::*;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument =
        |at: usize, default: &str| arguments.get(at).map_or(default, |text| text).to_owned();
    let epochs: usize = argument(0, "18").parse()?;
    let width: i64 = argument(1, "64").parse()?;
    let seed: u64 = argument(2, "1").parse()?;
    let file = argument(3, "notebooks/weights/unet.safetensors");
    let checkpoint = PathBuf::from(format!("{file}.training"));

    let mnist = Mnist::load()?;
    let schedule = Schedule::cosine(1000)?;
    let mut unet = Unet::new(UnetConfig { seed, width })?;
    let config = Fit {
        epochs,
        batch_size: 64,
        learning_rate_schedule: LearningRateSchedule::Cosine,
        moving_average: Some(0.9995),
        seed,
        checkpoint: Some(checkpoint.clone()),
        ..Default::default()
    };
    let objective = NoisePrediction::of(&config, &schedule, 0.1)?;
    let lines = &mut PrintLines::default();
    let history = match checkpoint.exists() {
        true => resume(&mut unet, &mnist.train, &objective, &config, lines)?,
        false => fit_with(&mut unet, &mnist.train, &objective, &config, lines)?,
    };
    println!(
        "{} parameters, {:.0} s",
        unet.summary().total(),
        history.seconds()
    );
    unet.save_half(&file)?;
    std::fs::remove_file(&checkpoint)?;

    let (unet, classifier) = (
        Unet::load(&file)?,
        Network::load("notebooks/weights/classifier.safetensors")?,
    );
    let classes = balanced_classes(2_000);
    let reference = Reference::new(&classifier, &mnist.train, &mnist.test, classes.len())?;
    for guidance in [0.0, 0.25, 0.5, 1.0] {
        let sampler = Sampler::ddim(50).guided(guidance);
        let samples = sample(&unet, &schedule, &sampler, &with_labels(&classes))?;
        let scores = reference.evaluate(&samples.images, &classes)?;
        let name = format!("guidance {guidance}");
        println!("{}", GenerationScores::table(&[(&name, scores)]));
    }
    println!("Saved to {file}.");
    Ok(())
}
