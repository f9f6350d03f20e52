//! Pairs to learn from: what goes into a network, and what should come out.

use anyhow::{Result, ensure};
use tch::Tensor;

use crate::data::Split;
use crate::metrics::noisy_batch;
use crate::noise::{check_level, corrupt, noise_of};

/// Images of a split as pairs of input and target: noisy and clean ([`Split::noisy`]), or image and label
/// ([`Split::labelled`]).
///
/// No pair is stored: a pair is a function of image, epoch and seed, and is made when it is needed.
#[derive(Debug)]
pub struct Pairs {
    images: Split,
    rule: Rule,
}

/// How a pair is made of an image.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rule {
    /// The noisy image, and the image itself.
    Noisy { level: f64, fixed: bool, seed: u64 },
    /// The image, and its label.
    Labelled,
}

impl Split {
    /// Pairs of noisy and clean images: [`add_noise`](crate::noise::add_noise) of strength `level`, drawn anew in each epoch,
    /// so that a network never sees a noisy image twice and cannot memorise the noise.
    ///
    /// # Errors
    /// A level that is negative, infinite or NaN.
    pub fn noisy(&self, level: f64) -> Result<Pairs> {
        check_level(level)?;
        Ok(Pairs {
            images: self.shallow_clone(),
            rule: Rule::Noisy {
                level,
                fixed: false,
                seed: 42,
            },
        })
    }

    /// Pairs of images and their labels, to learn classes.
    pub fn labelled(&self) -> Pairs {
        Pairs {
            images: self.shallow_clone(),
            rule: Rule::Labelled,
        }
    }
}

impl Pairs {
    /// Each image keeps its noise in all epochs, as when the noisy images are made once before training: what the video
    /// does.
    #[must_use]
    pub fn fixed(mut self) -> Pairs {
        if let Rule::Noisy { fixed, .. } = &mut self.rule {
            *fixed = true;
        }
        self
    }

    /// With the noise of another seed (the default is 42).
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Pairs {
        if let Rule::Noisy { seed: old, .. } = &mut self.rule {
            *old = seed;
        }
        self
    }

    /// The first `n` pairs as a network sees them in this epoch, counted from 0: inputs `(n, 1, 28, 28)`, and targets of
    /// the same shape, or labels `(n,)`.
    ///
    /// # Errors
    /// When there are not that many, or none is asked for.
    pub fn batch(&self, epoch: usize, n: usize) -> Result<(Tensor, Tensor)> {
        ensure!(
            (1..=self.len()).contains(&n),
            "asked for {n} pairs; there are {}",
            self.len()
        );
        let indices: Vec<i64> = (0..n as i64).collect();
        Ok(self.rule.pairs(&self.images, &indices, epoch as u64))
    }

    /// How many pairs there are: one for each image.
    #[allow(clippy::len_without_is_empty, reason = "a split is never empty")]
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// The same pairs again, without copying the images.
    pub(crate) fn shallow_clone(&self) -> Pairs {
        Pairs {
            images: self.images.shallow_clone(),
            rule: self.rule,
        }
    }

    pub(crate) fn images(&self) -> &Split {
        &self.images
    }

    pub(crate) fn rule(&self) -> Rule {
        self.rule
    }
}

impl Rule {
    /// The pairs of these images, which are known to exist, in this epoch.
    pub(crate) fn pairs(self, images: &Split, indices: &[i64], epoch: u64) -> (Tensor, Tensor) {
        let clean = images.gather(indices);
        match self {
            Rule::Noisy { level, fixed, seed } => {
                let epoch = if fixed { 0 } else { epoch };
                let noisy = corrupt(&clean, &noise_of(seed, epoch, indices), level);
                (noisy, clean)
            }
            Rule::Labelled => (clean, images.gather_labels(indices)),
        }
    }

    /// The same for held-out images, whose noise is the same in every evaluation.
    pub(crate) fn held_out(self, images: &Split, indices: &[i64]) -> (Tensor, Tensor) {
        match self {
            Rule::Noisy { level, .. } => {
                let (clean, noisy) = noisy_batch(images, level, indices);
                (noisy, clean)
            }
            Rule::Labelled => self.pairs(images, indices, 0),
        }
    }
}
