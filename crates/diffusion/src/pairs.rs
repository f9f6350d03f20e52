//! Pairs to learn from: what goes into a network, and what should come out.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use crate::data::Split;
use crate::metrics::noisy_batch;
use crate::noise::{check_level, corrupt, noise_of};

/// Pairs of input and target: noisy and clean images ([`Split::noisy`]), images and labels ([`Split::labelled`]), or tensors
/// of one's own ([`Pairs::of`]).
///
/// A noisy image is not stored: it is a function of image, epoch and seed, and is made when it is needed.
#[derive(Debug)]
pub struct Pairs(Source);

/// What pairs are made of.
#[derive(Debug)]
enum Source {
    /// The noisy image, and the image itself.
    Noisy {
        images: Split,
        level: f64,
        fixed: bool,
        seed: u64,
    },
    /// The image, and its label.
    Labelled(Split),
    /// What a cell made.
    Own { inputs: Tensor, targets: Tensor },
}

impl Split {
    /// Pairs of noisy and clean images: [`add_noise`](crate::noise::add_noise) of strength `level`, drawn anew in each epoch,
    /// so that a network never sees a noisy image twice and cannot memorise the noise.
    ///
    /// # Errors
    /// A level that is negative, infinite or NaN.
    pub fn noisy(&self, level: f64) -> Result<Pairs> {
        check_level(level)?;
        Ok(Pairs(Source::Noisy {
            images: self.shallow_clone(),
            level,
            fixed: false,
            seed: 42,
        }))
    }

    /// Pairs of images and their labels, to learn classes.
    pub fn labelled(&self) -> Pairs {
        Pairs(Source::Labelled(self.shallow_clone()))
    }
}

impl Pairs {
    /// Pairs of one's own: inputs `(N, …)` of fractions, and for each a target, fractions `(N, …)` or classes `(N,)` of
    /// `int64`. They are not copied.
    ///
    /// # Errors
    /// No inputs, inputs that are not fractions, or another number of targets.
    pub fn of(inputs: &Tensor, targets: &Tensor) -> Result<Pairs> {
        let count = |tensor: &Tensor| tensor.size().first().copied().unwrap_or_default();
        ensure!(
            count(inputs) > 0 && count(inputs) == count(targets),
            "expected a target for each of {} inputs; got {}",
            count(inputs),
            count(targets)
        );
        ensure!(
            inputs.is_floating_point(),
            "inputs must be fractions; these are {:?} numbers",
            inputs.kind()
        );
        let tensor = |tensor: &Tensor| tensor.detach();
        Ok(Pairs(Source::Own {
            inputs: tensor(inputs),
            targets: tensor(targets),
        }))
    }

    /// Each image keeps its noise in all epochs, as when the noisy images are made once before training: what the video
    /// does. (Other pairs never change.)
    #[must_use]
    pub fn fixed(mut self) -> Pairs {
        if let Source::Noisy { fixed, .. } = &mut self.0 {
            *fixed = true;
        }
        self
    }

    /// With the noise of another seed (the default is 42).
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Pairs {
        if let Source::Noisy { seed: old, .. } = &mut self.0 {
            *old = seed;
        }
        self
    }

    /// The first `n` pairs as a network sees them in this epoch, counted from 0: inputs and targets, as images and their
    /// noisy versions, `(n, 1, 28, 28)`, or images and labels `(n,)`.
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
        Ok(self.at(&indices, Some(epoch as u64)))
    }

    /// How many pairs there are.
    #[allow(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        match &self.0 {
            Source::Noisy { images, .. } | Source::Labelled(images) => images.len(),
            Source::Own { inputs, .. } => inputs.size()[0] as usize,
        }
    }

    /// The pairs at these indices, which are known to exist, in this epoch; without an epoch as in every evaluation.
    pub(crate) fn at(&self, indices: &[i64], epoch: Option<u64>) -> (Tensor, Tensor) {
        match &self.0 {
            &Source::Noisy {
                ref images,
                level,
                fixed,
                seed,
            } => {
                let Some(epoch) = epoch else {
                    let (clean, noisy) = noisy_batch(images, level, indices);
                    return (noisy, clean);
                };
                let clean = images.gather(indices);
                let epoch = if fixed { 0 } else { epoch };
                let noisy = corrupt(&clean, &noise_of(seed, epoch, indices), level);
                (noisy, clean)
            }
            Source::Labelled(images) => (images.gather(indices), images.gather_labels(indices)),
            Source::Own { inputs, targets } => {
                let indices = Tensor::from_slice(indices);
                let at = |tensor: &Tensor| tensor.index_select(0, &indices);
                (at(inputs), at(targets))
            }
        }
    }

    /// Whether the targets are classes.
    pub(crate) fn has_classes(&self) -> bool {
        match &self.0 {
            Source::Noisy { .. } => false,
            Source::Labelled(_) => true,
            Source::Own { targets, .. } => targets.kind() == Kind::Int64 && targets.dim() == 1,
        }
    }

    /// The same pairs again, without copying them.
    pub(crate) fn shallow_clone(&self) -> Pairs {
        self.mapped(Split::shallow_clone, Tensor::shallow_clone)
    }

    /// All but the last `n` pairs, and the last `n`.
    pub(crate) fn hold_out(&self, n: usize) -> Result<(Pairs, Pairs)> {
        let first = self.len() - n;
        let (train, held_out) = match &self.0 {
            Source::Noisy { images, .. } | Source::Labelled(images) => images.hold_out(n)?,
            Source::Own { .. } => {
                let part = |from: usize, count: usize| {
                    let part = |tensor: &Tensor| tensor.narrow(0, from as i64, count as i64);
                    self.mapped(Split::shallow_clone, part)
                };
                return Ok((part(0, first), part(first, n)));
            }
        };
        let with = |split: Split| self.mapped(|_| split.shallow_clone(), Tensor::shallow_clone);
        Ok((with(train), with(held_out)))
    }

    fn mapped(&self, split: impl Fn(&Split) -> Split, tensor: impl Fn(&Tensor) -> Tensor) -> Pairs {
        Pairs(match &self.0 {
            &Source::Noisy {
                ref images,
                level,
                fixed,
                seed,
            } => Source::Noisy {
                images: split(images),
                level,
                fixed,
                seed,
            },
            Source::Labelled(images) => Source::Labelled(split(images)),
            Source::Own { inputs, targets } => Source::Own {
                inputs: tensor(inputs),
                targets: tensor(targets),
            },
        })
    }

    /// What these pairs are, in words: a training that goes on must have the same.
    pub(crate) fn description(&self) -> String {
        match &self.0 {
            Source::Noisy {
                level, fixed, seed, ..
            } => {
                let drawn = if *fixed { "once" } else { "anew in each epoch" };
                format!("images with noise of strength {level}, drawn {drawn} with seed {seed}")
            }
            Source::Labelled(_) => "images with labels".to_owned(),
            Source::Own { .. } => "pairs of one's own".to_owned(),
        }
    }
}
