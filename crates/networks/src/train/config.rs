//! The settings of a training.

use anyhow::{Result, ensure};
use ops::pool::{check_threads, threads};
use ops::{Implementation, Precision};
use serde::{Deserialize, Serialize};

/// Settings of a training, of [`Network::fit`](crate::network::Network::fit) and the others. A cell states only what differs from the defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fit {
    /// How many times to go through the images (default 1).
    pub epochs: usize,
    /// How many images to learn from at once (default 128).
    pub batch_size: usize,
    /// Whether the optimizer's step size falls to zero like half a cosine during the epochs of this training (default
    /// false): the last steps are small (Loshchilov & Hutter 2017, "SGDR", eq. 5).
    pub cosine_decay: bool,
    /// Ends with an exponential moving average of the weights instead of the last ones. The number is the decay, the share
    /// of itself that the average keeps at each step (0.999 is usual for diffusion; default None): steps in opposite
    /// directions cancel (Polyak & Juditsky 1992; Ho et al. 2020, section 4). Validation and
    /// [`Observer::epoch`](super::Observer::epoch) see the average, too.
    pub moving_average: Option<f64>,
    /// How many images, the last of the split, to hold out for validation after each epoch; 0 for
    /// none (default 5,000).
    pub validation: usize,
    /// Which weights to end with (default [`Keep::Last`]).
    pub keep: Keep,
    /// In which precision to compute (default: [`Precision::of_this_cpu`]).
    pub precision: Precision,
    /// How many threads compute (default: [`threads`], all cores this process may use). Each takes
    /// a part of every batch; sums are then rounded in another order, so another number of
    /// threads gives slightly different weights.
    pub threads: usize,
    /// The seed of the order of the images (default 42), and of what a U-Net's batches draw.
    pub seed: u64,
    /// Whether to print nothing (default false: a line for each epoch).
    pub quiet: bool,
}

impl Default for Fit {
    fn default() -> Fit {
        Fit {
            epochs: 1,
            batch_size: 128,
            cosine_decay: false,
            moving_average: None,
            validation: 5_000,
            keep: Keep::Last,
            precision: Precision::of_this_cpu(),
            threads: threads(),
            seed: 42,
            quiet: false,
        }
    }
}

impl Fit {
    /// The factor of the step size after a share of the training.
    pub(super) fn decay(&self, done: f64) -> f64 {
        match self.cosine_decay {
            true => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
            false => 1.0,
        }
    }
}

/// Which weights a training ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Keep {
    /// Those after the last epoch.
    Last,
    /// Those of the epoch with the lowest validation loss.
    Best,
}

/// Do these settings make sense for this many images?
pub(super) fn check(config: &Fit, images: usize) -> Result<()> {
    Implementation::selected()?;
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
        config
            .moving_average
            .is_none_or(|decay| (0.0..1.0).contains(&decay)),
        "the decay of the moving average is {}; expected a number from 0 to below 1 (0.999 is usual)",
        config.moving_average.unwrap_or_default(),
    );
    ensure!(
        config.validation < images,
        "cannot hold out {} of {} images; expected fewer (the setting `validation`)",
        config.validation,
        images,
    );
    ensure!(
        config.keep == Keep::Last || config.validation > 0,
        "Keep::Best needs held-out images to choose by; expected `validation` above 0"
    );
    Ok(())
}
