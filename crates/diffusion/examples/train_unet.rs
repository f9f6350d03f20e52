//! Trains the U-Net that the notebooks generate digits with, and saves it where they look for it:
//!
//! ```text
//! cargo run -p diffusion --example train_unet -- [EPOCHS] [WIDTH] [SEED] [FILE]
//! ```
//!
//! The settings stand below; the card beside the weights names the scores. Interrupted, it goes on from its last
//! epoch when it is started again.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use diffusion::prelude::*;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument =
        |at: usize, default: &str| arguments.get(at).map_or(default, |text| text).to_owned();
    let epochs: usize = argument(0, "18").parse()?;
    let width: i64 = argument(1, "64").parse()?;
    let seed: u64 = argument(2, "1").parse()?;
    let file = argument(3, "notebooks/weights/unet.safetensors");
    let folder = PathBuf::from(format!("{file}.training"));

    let mnist = Mnist::load()?;
    let mut unet = Unet::new(UnetConfig {
        seed,
        width,
        ..UnetConfig::default()
    })?;
    unet.compile(Adam::new(0.001), noise_loss);
    let fit = Fit {
        epochs,
        batch_size: 64,
        cosine_decay: true,
        moving_average: Some(0.9995),
        validation: 0, // with held-out images the best weights would be kept, not the last ones
        seed,
        ..Fit::default()
    };
    let (train, _) = mnist.train.hold_out(5_000)?;
    let training = match folder.exists() {
        true => Unet::resume(&folder, noise_loss, &train)?,
        false => unet.fit_in_background(&train, &fit, &folder)?,
    };
    while training.is_running() {
        sleep(Duration::from_secs(1));
    }
    let (unet, history) = training.wait()?;
    println!(
        "{} parameters, {:.0} s",
        unet.summary().total(),
        history.seconds()
    );
    unet.save_half(&file)?;
    std::fs::remove_dir_all(&folder)?;

    let (unet, classifier) = (
        Unet::load(&file)?,
        Network::load("notebooks/weights/classifier.safetensors")?,
    );
    let classes = balanced_classes(2_000);
    let reference = Reference::new(&classifier, &mnist.train, &mnist.test, classes.len())?;
    for guidance in [0.0, 0.25, 0.5, 1.0] {
        let sampler = Sampler::ddim(50).guided(guidance);
        let samples = sample(&unet, &with_labels(&classes), &sampler)?;
        let scores = reference.evaluate(&samples.images, &classes)?;
        let name = format!("guidance {guidance}");
        println!("{}", GenerationScores::table(&[(&name, scores)]));
    }
    println!("Saved to {file}.");
    Ok(())
}

/// The simple loss of Ho et al. 2020, eq. 14.
fn noise_loss(unet: &Unet, batch: &Batch) -> Result<Tensor> {
    let x0 = centred(&batch.images);
    let t = batch.timesteps(unet.schedule());
    let eps = batch.noise();
    let x_t = unet.schedule().q_sample(&x0, &t, &eps)?;
    mean_squared_error(&unet.predict(&x_t, &t, &batch.labels_dropped(0.1)?)?, &eps)
}
