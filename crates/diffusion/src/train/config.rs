//! What one can set about a training.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::crew::{check_threads, threads};
use crate::data::Split;
use crate::precision::Precision;

/// Settings of [`fit`](super::fit). A cell states only what differs from the defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FitConfig {
    /// How many times to go through the images (default 1).
    pub epochs: usize,
    /// How many images to learn from at once (default 128).
    pub batch_size: usize,
    /// Adam's step size (default 1e-3).
    pub learning_rate: f64,
    /// How the step size changes on the way (default [`Decay::None`]).
    pub decay: Decay,
    /// Ends with an exponential moving average of the weights instead of the last ones, which keeps so much of itself
    /// at each step (0.999 is usual for diffusion; default None): steps that go to and fro cancel (Polyak &
    /// Juditsky 1992; Ho et al. 2020, section 4). Validation and [`Observer::epoch`](super::Observer::epoch) see the average, too.
    pub average: Option<f64>,
    /// Strength of the noise that is added, as in [`add_noise`](crate::noise::add_noise) (default 0.5). This and `draw`
    /// are the denoiser's; other objectives have no use for them.
    pub noise: f64,
    /// Whether each epoch draws its noise anew (default [`Noise::Fresh`]).
    pub draw: Noise,
    /// How many images, the last of the split, to hold out and judge by after each epoch; 0 for
    /// none (default 5,000).
    pub validation: usize,
    /// Which weights to end with (default [`Keep::Last`]).
    pub keep: Keep,
    /// In which precision to compute (default: [`Precision::of_this_cpu`]).
    pub precision: Precision,
    /// How many threads compute (default: [`threads`], all cores this process may use). Each takes
    /// a part of every batch; sums are then rounded in another order, so that another number of
    /// threads gives slightly different weights.
    pub threads: usize,
    /// The seed of the order of the images and of their noise (default 42). Who trains on with a
    /// second `fit` gives it another seed, else the same noise comes again.
    pub seed: u64,
    /// A file that each epoch leaves its state in, for [`resume`](super::resume) (default None). It must not be
    /// there when a training begins.
    pub checkpoint: Option<PathBuf>,
    /// Whether to print nothing (default false: a line for each epoch).
    pub quiet: bool,
}

impl Default for FitConfig {
    fn default() -> FitConfig {
        FitConfig {
            epochs: 1,
            batch_size: 128,
            learning_rate: 1e-3,
            decay: Decay::None,
            average: None,
            noise: 0.5,
            draw: Noise::Fresh,
            validation: 5_000,
            keep: Keep::Last,
            precision: Precision::of_this_cpu(),
            threads: threads(),
            seed: 42,
            checkpoint: None,
            quiet: false,
        }
    }
}

/// How the step size changes while a network is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decay {
    /// It does not.
    None,
    /// It falls to zero like half a cosine (Loshchilov & Hutter 2017, "SGDR", eq. 5), so that the last steps only
    /// polish.
    Cosine,
}

impl Decay {
    /// What is left of the step size after a share of the training.
    pub(super) fn factor(self, done: f64) -> f64 {
        match self {
            Decay::None => 1.0,
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
        }
    }
}

/// Whether each epoch draws its noise anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Noise {
    /// Each epoch draws new noise, so the network never sees a noisy image twice and cannot
    /// learn noise by heart. The default: it costs nothing and generalises better.
    Fresh,
    /// Each image keeps its noise in all epochs, as when the noisy images are made once before training.
    Fixed,
}

/// Which weights a training ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Keep {
    /// Those after the last epoch.
    Last,
    /// Those of the epoch with the lowest validation loss.
    Best,
}

/// Do these settings make sense for this data?
pub(super) fn check(config: &FitConfig, data: &Split) -> Result<()> {
    check_threads(config.threads)?;
    ensure!(
        config.epochs >= 1,
        "the number of epochs is 0; expected at least 1"
    );
    ensure!(
        config.batch_size >= 1,
        "the batch size is 0; expected at least 1 (128 is usual)"
    );
    ensure!(
        config.learning_rate.is_finite() && config.learning_rate > 0.0,
        "the learning rate is {}; expected a number above 0 (0.001 is usual)",
        config.learning_rate,
    );
    ensure!(
        config
            .average
            .is_none_or(|decay| (0.0..1.0).contains(&decay)),
        "the moving average keeps {} of its weights at each step; expected a number from 0 to below 1 (0.999 is usual)",
        config.average.unwrap_or_default(),
    );
    ensure!(
        config.validation < data.len(),
        "cannot hold out {} of {} images; expected fewer (the setting `validation`)",
        config.validation,
        data.len(),
    );
    ensure!(
        config.keep == Keep::Last || config.validation > 0,
        "Keep::Best needs held-out images to choose by; expected `validation` above 0"
    );
    Ok(())
}
