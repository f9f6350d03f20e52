//! The settings of sampling.

use anyhow::{Result, ensure};

use crate::schedule::Schedule;

/// The settings of sampling. A cell states only what differs from the defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampler {
    /// How many steps to take (default 50).
    pub steps: usize,
    /// How much new noise each step draws: 0 none (DDIM, the default), 1 as much as DDPM.
    pub eta: f64,
    /// The strength of guidance towards the class: 0 is none (the default), 1 and more exaggerate the class. See
    /// [`Steps`](super::Steps) for the formula.
    pub guidance: f64,
    /// The seed of all noise (default 1).
    pub seed: u64,
}

impl Default for Sampler {
    fn default() -> Sampler {
        Sampler {
            steps: 50,
            eta: 0.0,
            guidance: 0.0,
            seed: 1,
        }
    }
}

impl Sampler {
    /// DDIM (Song et al. 2020) in this many steps.
    pub fn ddim(steps: usize) -> Sampler {
        Sampler {
            steps,
            ..Sampler::default()
        }
    }

    /// DDPM (Ho et al. 2020, algorithm 2), which takes all of the schedule's steps.
    pub fn ddpm(schedule: &Schedule) -> Sampler {
        Sampler {
            steps: schedule.steps(),
            eta: 1.0,
            ..Sampler::default()
        }
    }

    /// The same with another guidance strength.
    #[must_use]
    pub fn guided(self, guidance: f64) -> Sampler {
        Sampler { guidance, ..self }
    }

    /// The same with another seed.
    #[must_use]
    pub fn seeded(self, seed: u64) -> Sampler {
        Sampler { seed, ..self }
    }

    /// Do the settings make sense?
    pub(super) fn check(&self) -> Result<()> {
        ensure!(
            (0.0..=1.0).contains(&self.eta),
            "eta is {}; expected a number from 0 (DDIM) to 1 (DDPM)",
            self.eta
        );
        ensure!(
            self.guidance.is_finite() && self.guidance >= 0.0,
            "the guidance strength is {}; expected a number from 0 up (1 is usual)",
            self.guidance
        );
        Ok(())
    }
}
