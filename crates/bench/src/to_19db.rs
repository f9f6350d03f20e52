//! `bench to-19db`: our runner in the race. Trains on the first 55,000 training images with the crate's own
//! `fit`, scores all test images after every quarter of an epoch, and ends when the score is good enough.

use std::cell::Cell;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use diffusion::prelude::*;
use diffusion::train::{Denoising, Objective, Observer, Plan, Validation};
use serde_json::json;

use crate::race::{GOAL, NOISE};

/// After so many epochs it gives up.
const EPOCHS: usize = 6;
/// The last training images are held out, as in the lesson.
const HELD_OUT: usize = 5_000;
/// How many evaluations there are in an epoch.
const EVALUATIONS: usize = 4;

/// What `bench to-19db` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The seed of the first weights, of the noise and of the order
    #[arg(long)]
    seed: u64,
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

/// Trains until the score is reached, a line of JSON for each evaluation.
pub fn run(arguments: &Arguments) -> Result<()> {
    let started = Instant::now();
    let mnist = Mnist::load_from(&arguments.mnist)?;
    let (train, _) = mnist.train.hold_out(HELD_OUT)?;
    seed(arguments.seed);
    let clean = mnist.test.images(mnist.test.len())?;
    let noisy = add_noise(&clean, NOISE)?;
    let mut cnn = Cnn::new(CnnConfig {
        seed: arguments.seed,
    });
    let config = FitConfig {
        epochs: EPOCHS,
        noise: NOISE,
        validation: 0,
        seed: arguments.seed,
        quiet: true,
        ..Default::default()
    };
    let race = Race {
        started,
        objective: Denoising::of(&config)?,
        images: train.len(),
        seen: Cell::new(0),
        quarters: Cell::new(0),
        arrived: Cell::new(false),
        clean,
        noisy,
    };
    diffusion::train::fit_with(&mut cnn, &train, &race, &config, &mut Stop(&race.arrived))?;
    // What the last batches made of it; all others are scored before a batch begins.
    race.evaluate(&cnn)
}

/// The lesson's objective, and the network's score whenever a quarter of an epoch is done.
struct Race {
    started: Instant,
    objective: Denoising,
    /// Images in an epoch.
    images: usize,
    /// Images learnt from.
    seen: Cell<usize>,
    /// Quarters of an epoch that were scored.
    quarters: Cell<usize>,
    arrived: Cell<bool>,
    clean: Tensor,
    noisy: Tensor,
}

impl Race {
    fn evaluate(&self, cnn: &Cnn) -> Result<()> {
        if self.arrived.get() {
            return Ok(());
        }
        let scores = psnr(&self.clean, &cnn.denoise(&self.noisy)?)?;
        let psnr = scores.mean().context("there are no test images")?;
        let seconds = self.started.elapsed().as_secs_f64();
        let images = self.seen.get();
        let line = json!({"seconds": seconds, "images": images, "psnr": psnr});
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}")?;
        out.flush()?;
        self.arrived.set(psnr >= GOAL);
        Ok(())
    }
}

impl Objective<Cnn> for Race {
    fn loss(&self, cnn: &Cnn, data: &Split, batch: &[i64], epoch: u64) -> Result<Tensor> {
        let seen = self.seen.get();
        let quarters = |images: usize| images * EVALUATIONS / self.images;
        if quarters(seen) > self.quarters.get() {
            self.quarters.set(quarters(seen));
            self.evaluate(cnn)?;
        }
        self.seen.set(seen + batch.len());
        self.objective.loss(cnn, data, batch, epoch)
    }

    fn validate(&self, cnn: &Cnn, held_out: &Split) -> Result<Validation> {
        self.objective.validate(cnn, held_out)
    }
}

/// Ends the training once the goal is reached.
struct Stop<'a>(&'a Cell<bool>);

impl Observer for Stop<'_> {
    fn batch(&mut self, _plan: &Plan, _batch: usize, _loss: f64) -> ControlFlow<()> {
        match self.0.get() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}
