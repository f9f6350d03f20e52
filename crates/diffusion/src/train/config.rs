//! What one can set about a training.

use anyhow::{Result, ensure};

use crate::crew::{check_threads, threads};
use crate::data::Split;
use crate::precision::Precision;

/// Settings of [`fit`](super::fit). A cell states only what differs from the defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct FitConfig {
    /// How many times to go through the images (default 1).
    pub epochs: usize,
    /// How many images to learn from at once (default 128).
    pub batch_size: usize,
    /// Adam's step size (default 1e-3).
    pub learning_rate: f64,
    /// Strength of the noise that is added, as in [`add_noise`](crate::noise::add_noise) (default 0.5).
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
    /// Whether to print nothing (default false: a line for each epoch).
    pub quiet: bool,
}

impl Default for FitConfig {
    fn default() -> FitConfig {
        FitConfig {
            epochs: 1,
            batch_size: 128,
            learning_rate: 1e-3,
            noise: 0.5,
            draw: Noise::Fresh,
            validation: 5_000,
            keep: Keep::Last,
            precision: Precision::of_this_cpu(),
            threads: threads(),
            seed: 42,
            quiet: false,
        }
    }
}

/// Whether each epoch draws its noise anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noise {
    /// Each epoch draws new noise, so the network never sees a noisy image twice and cannot
    /// learn noise by heart. The default: it costs nothing and generalises better.
    Fresh,
    /// Each image keeps its noise in all epochs, as when the noisy images are made once before training.
    Fixed,
}

/// Which weights a training ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
