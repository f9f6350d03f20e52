//! `bench to-19db`: our runner in the race. Trains on the first 55,000 training images with the crate's own
//! `fit`, scores all test images after every quarter of an epoch, and ends when the score is good enough.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Error, Result};
use diffusion::prelude::*;
use diffusion::train::{Observer, Plan};
use serde_json::json;

use crate::race::{EPOCHS, GOAL, NOISE};

/// The last training images are held out, as in the lesson.
const HELD_OUT: usize = 5_000;
/// Images in a batch.
const BATCH: usize = 128;
/// How many evaluations there are in an epoch.
const EVALUATIONS: usize = 4;

/// What `bench to-19db` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The seed of the first weights, of the noise and of the order
    #[arg(long)]
    seed: u64,
    /// How the first weights are chosen
    #[arg(long, value_name = "keras|calibrated", value_parser = initialisation)]
    start: Initialisation,
    /// The folder with the four raw MNIST files
    #[arg(long, value_name = "FOLDER")]
    mnist: PathBuf,
    /// As every contender; the first weights are the seed's
    #[arg(long, value_name = "FOLDER")]
    #[allow(dead_code)]
    data: Option<PathBuf>,
    /// How many threads to compute on
    #[arg(long)]
    threads: usize,
}

/// An initialisation by the name that it has in checkpoints.
fn initialisation(name: &str) -> Result<Initialisation, String> {
    serde_json::from_value(json!(name)).map_err(|_| "expected keras or calibrated".to_owned())
}

/// Trains until the score is reached, a line of JSON for each evaluation.
pub fn run(arguments: &Arguments) -> Result<()> {
    let started = Instant::now();
    let mnist = Mnist::load_from(&arguments.mnist)?;
    let (train, _) = mnist.train.hold_out(HELD_OUT)?;
    set_seed(arguments.seed);
    let clean = mnist.test.images(mnist.test.len())?;
    let noisy = add_noise(&clean, NOISE)?;
    let mut cnn = Network::new([28, 28, 1], lesson_cnn())?
        .seeded(arguments.seed)
        .initialised(arguments.start);
    cnn.compile(Adam::new(0.001), Loss::BinaryCrossEntropy);
    let pairs = train.noisy(NOISE)?.seeded(arguments.seed);
    let fit = Fit {
        epochs: EPOCHS,
        batch_size: BATCH,
        validation: 0,
        threads: arguments.threads,
        seed: arguments.seed,
        quiet: true,
        ..Default::default()
    };
    let mut race = Race {
        live: cnn.shared(),
        started,
        images: train.len(),
        quarters: 0,
        clean,
        noisy,
        failed: None,
    };
    cnn.fit_with(&pairs, &fit, &mut race)?;
    race.failed.map_or(Ok(()), Err)
}

/// Scores the network whenever a quarter of an epoch is done, and ends the training when it is good enough.
struct Race {
    /// Shares the weights of the network that is trained.
    live: Network,
    started: Instant,
    /// Images in an epoch.
    images: usize,
    /// Quarters of an epoch that were scored.
    quarters: usize,
    clean: Tensor,
    noisy: Tensor,
    /// Why an evaluation failed.
    failed: Option<Error>,
}

impl Race {
    fn evaluate(&self, images: usize) -> Result<f64> {
        let scores = psnr(&self.clean, &self.live.predict(&self.noisy)?)?;
        let psnr = scores.mean().context("there are no test images")?;
        let seconds = self.started.elapsed().as_secs_f64();
        let line = json!({"seconds": seconds, "images": images, "psnr": psnr});
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}")?;
        out.flush()?;
        Ok(psnr)
    }
}

impl Observer for Race {
    fn batch(&mut self, plan: &Plan, batch: usize, _loss: f64) -> ControlFlow<()> {
        let (epochs, batches) = (batch / plan.batches, batch % plan.batches);
        let seen = epochs * self.images + batches * BATCH;
        let quarters = seen * EVALUATIONS / self.images;
        if quarters == self.quarters {
            return ControlFlow::Continue(());
        }
        self.quarters = quarters;
        match self.evaluate(seen) {
            Ok(psnr) if psnr < GOAL => ControlFlow::Continue(()),
            Ok(_) => ControlFlow::Break(()),
            Err(error) => {
                self.failed = Some(error);
                ControlFlow::Break(())
            }
        }
    }
}
