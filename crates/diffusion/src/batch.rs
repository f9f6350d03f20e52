//! What a learner's loss of a U-Net is given: some images, and everything random that belongs to them.

use anyhow::{Result, ensure};
use tch::Tensor;

use crate::data::{PIXELS, SIDE, Split};
use crate::rng::Rng;
use crate::schedule::Schedule;

/// The seed of everything random about held-out images: the same after every epoch.
const VALIDATION_SEED: u64 = 20_260_102;

/// Images of a data set with their labels, for a loss. Their timesteps and noise are drawn for image and epoch: they are the
/// same each time they are asked for, on any number of threads.
#[derive(Debug)]
pub struct Batch {
    /// The images, `(N, 1, 28, 28)`, `float32` in `[0, 1]`.
    pub images: Tensor,
    /// The class of each image, 0 to 9: `Some(7)` for a seven.
    pub labels: Vec<Option<i64>>,
    /// The random numbers of each image.
    streams: Vec<Rng>,
    is_held_out: bool,
}

impl Batch {
    /// The first `n` images of a split, as a training sees them in its first epoch, to try a loss on in a cell.
    ///
    /// # Errors
    /// When there are fewer than `n`, or `n` is 0.
    pub fn first(split: &Split, n: usize) -> Result<Batch> {
        let indices: Vec<i64> = (0..n as i64).collect();
        Ok(Batch::of(&split.first(n)?, &indices, 0, 42))
    }

    /// Images that are known to exist, as training sees them in this epoch.
    pub(crate) fn of(split: &Split, indices: &[i64], epoch: u64, seed: u64) -> Batch {
        let stream = |&index: &i64| Rng::stream(seed, &[epoch, index.cast_unsigned()]);
        let labels = split.label_values(indices).into_iter();
        Batch {
            images: split.gather(indices),
            labels: labels.map(Some).collect(),
            streams: indices.iter().map(stream).collect(),
            is_held_out: false,
        }
    }

    /// Images that are held out: they keep their labels.
    pub(crate) fn held_out(split: &Split, indices: &[i64]) -> Batch {
        Batch {
            is_held_out: true,
            ..Batch::of(split, indices, 0, VALIDATION_SEED)
        }
    }

    /// A timestep for each image, each of the schedule's as likely as another.
    pub fn timesteps(&self, schedule: &Schedule) -> Vec<usize> {
        let steps = schedule.steps();
        let first = |stream: &Rng| stream.clone().below(steps);
        self.streams.iter().map(first).collect()
    }

    /// The labels, but each is dropped with this probability (0.1 is usual), so that a network learns both what a 7 looks like
    /// and what any digit looks like. Guidance needs both (Ho & Salimans 2022, "Classifier-Free Diffusion Guidance",
    /// algorithm 1). Held-out images keep their labels.
    ///
    /// # Errors
    /// A probability that is not between 0 and 1.
    pub fn labels_dropped(&self, probability: f64) -> Result<Vec<Option<i64>>> {
        ensure!(
            (0.0..=1.0).contains(&probability),
            "the probability to drop a label is {probability}; expected a number from 0 to 1 (0.1 is usual)"
        );
        let second = |stream: &Rng| {
            let mut stream = stream.clone();
            stream.below(1);
            stream.share()
        };
        let dropped = |stream: &Rng| !self.is_held_out && second(stream) < probability;
        let labels = self.labels.iter().zip(&self.streams);
        Ok(labels
            .map(|(label, stream)| label.filter(|_| !dropped(stream)))
            .collect())
    }

    /// Standard normal noise, `(N, 1, 28, 28)`, `float32`.
    pub fn noise(&self) -> Tensor {
        let mut noise = vec![0f32; self.streams.len() * PIXELS];
        for (stream, noise) in self.streams.iter().zip(noise.chunks_mut(PIXELS)) {
            let mut stream = stream.clone();
            stream.below(1); // the first number is for the timestep, the second for the label
            stream.share();
            stream.fill_normal(noise);
        }
        Tensor::from_slice(&noise).view([-1, 1, SIDE, SIDE])
    }
}
