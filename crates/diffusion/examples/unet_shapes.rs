//! Which U-Net learns most in a given time? Trains networks of several widths, each for the same number of seconds,
//! and scores them:
//!
//! ```text
//! cargo run -p diffusion --example unet_shapes -- [SECONDS] [WIDTH,WIDTH,…] [SEED,SEED,…]
//! ```
//!
//! Several seeds show how much of a difference is chance. The results are in `crates/bench/README.md`.

use std::ops::ControlFlow;
use std::time::Instant;

use diffusion::prelude::*;
use diffusion::train::{Observer, Plan};

/// How many digits are drawn for the scores, and in how many steps.
const DRAWN: (usize, usize) = (2_000, 25);
const BATCH: usize = 64;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |at: usize, usual: &str| arguments.get(at).map_or(usual, |text| text).to_owned();
    let seconds: f64 = argument(0, "180").parse()?;
    let mnist = Mnist::load()?;
    println!("width  seed  parameters  images/s  images seen  loss         accuracy    distance");
    for width in argument(1, "32,48,64,96").split(',') {
        for seed in argument(2, "1").split(',') {
            shape(&mnist, seconds, width.parse()?, seed.parse()?)?;
        }
    }
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

/// Trains and scores one network, and prints its line.
fn shape(mnist: &Mnist, seconds: f64, width: i64, seed: u64) -> Result<()> {
    let new = || {
        let config = UnetConfig::default();
        let mut unet = Unet::new(UnetConfig {
            seed,
            width,
            ..config
        })?;
        unet.compile(Adam::new(0.001), noise_loss);
        Ok(unet) as Result<Unet>
    };
    let config = |epochs| Fit {
        epochs,
        batch_size: BATCH,
        cosine_decay: true,
        moving_average: Some(0.999),
        validation: 2_000,
        seed,
        quiet: true,
        ..Default::default()
    };
    // The step size must fall to zero just when the time is over, so first: how fast is it?
    let mut pace = Pace::default();
    new()?.fit_with(&mnist.train, &config(1), &mut pace)?;
    let images = (pace.images_per_second * seconds) as usize;
    let epochs = images / 50_000 + 1;
    // All are validated on the same images.
    let (rest, held_out) = mnist.train.hold_out(config(1).validation)?;
    let part = rest.first(images / epochs)?.join(&held_out);

    let mut unet = new()?;
    let history = unet.fit(&part, &config(epochs))?;
    let loss = history.epochs.last().and_then(|epoch| epoch.validation);
    let classifier = Network::load("notebooks/weights/classifier.safetensors")?;
    let (drawn, steps) = DRAWN;
    let classes = mnist.train.labels(drawn)?;
    let sampler = Sampler::ddim(steps);
    let samples = sample(&unet, &with_labels(&classes), &sampler)?;
    let reference = Reference::new(&classifier, &mnist.train, &mnist.test, drawn)?;
    let scores = reference.evaluate(&samples.images, &classes)?;
    let seen = history.batch_losses.len() * BATCH;
    println!(
        "{width:5}  {seed:4}  {:10}  {:8.0}  {seen:11}  {:.4}  {:11.1} %  {:10.3}",
        unet.summary().total(),
        seen as f64 / history.seconds(),
        loss.map_or(f64::NAN, |found| found.loss),
        100.0 * scores.accuracy,
        scores.distance,
    );
    Ok(())
}

/// Measures a training's speed, once it has warmed up, and ends it.
#[derive(Default)]
struct Pace {
    since: Option<Instant>,
    images_per_second: f64,
}

impl Observer for Pace {
    fn batch(&mut self, _: &Plan, batch: usize, _: f64) -> ControlFlow<()> {
        const WARM: usize = 20;
        const TIMED: usize = 100;
        if batch == WARM {
            self.since = Some(Instant::now());
        }
        match self.since {
            Some(since) if batch == WARM + TIMED => {
                self.images_per_second = (TIMED * BATCH) as f64 / since.elapsed().as_secs_f64();
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}
