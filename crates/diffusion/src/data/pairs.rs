//! Pairs of a data set: noisy and clean images, and images with labels.

use std::ops::Range;

use anyhow::Result;
use figures::{Output, rows, rows_with_captions};
use networks::pairs::{Pairs, Source, accuracy};
use tch::{Kind, Tensor};

use super::Split;
use crate::metrics::{noisy_batch, psnr};
use crate::noise::{check_level, corrupt, noise_of};

impl Split {
    /// Pairs of noisy and clean images: [`add_noise`](crate::noise::add_noise) of strength `level`, drawn anew in each epoch,
    /// so that a network never sees a noisy image twice and cannot memorise the noise. A noisy image is not stored: it is a
    /// function of image, epoch and seed, and is made when it is needed.
    ///
    /// # Errors
    /// A level that is negative, infinite or NaN.
    pub fn noisy(&self, level: f64) -> Result<Pairs> {
        check_level(level)?;
        Ok(Pairs::from_source(Noisy {
            images: self.shallow_clone(),
            level,
            fixed: false,
            seed: 42,
        }))
    }

    /// Pairs of images and their labels, to learn classes.
    pub fn labelled(&self) -> Pairs {
        Pairs::from_source(Labelled(self.shallow_clone()))
    }
}

/// The noisy image, and the image itself.
#[derive(Debug)]
struct Noisy {
    images: Split,
    level: f64,
    fixed: bool,
    seed: u64,
}

impl Source for Noisy {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn at(&self, indices: &[i64], epoch: Option<u64>) -> (Tensor, Tensor) {
        let Some(epoch) = epoch else {
            let (clean, noisy) = noisy_batch(&self.images, self.level, indices);
            return (noisy, clean);
        };
        let clean = self.images.gather(indices);
        let epoch = if self.fixed { 0 } else { epoch };
        let noisy = corrupt(&clean, &noise_of(self.seed, epoch, indices), self.level);
        (noisy, clean)
    }

    fn part(&self, range: Range<usize>) -> Box<dyn Source> {
        Box::new(Noisy {
            images: self.images.part(range),
            ..*self
        })
    }

    fn description(&self) -> String {
        let drawn = match self.fixed {
            true => "once",
            false => "anew in each epoch",
        };
        format!(
            "images with noise of strength {}, drawn {drawn} with seed {}",
            self.level, self.seed
        )
    }

    fn unit(&self) -> &'static str {
        "dB"
    }

    fn score(&self, prediction: &Tensor, target: &Tensor) -> Result<Option<f64>> {
        let psnr = psnr(target, &prediction.clamp(0.0, 1.0))?;
        Ok(Some(psnr.sum() / psnr.len() as f64))
    }

    fn picture(&self, input: &Tensor, target: &Tensor, prediction: &Tensor) -> Result<Output> {
        let denoised = prediction.clamp(0.0, 1.0);
        let three = [
            ("original", target),
            ("noisy", input),
            ("denoised", &denoised),
        ];
        Ok(rows(&three).alt("Ten digits: original, noisy, and as the network denoises them now"))
    }

    fn fix(&mut self) {
        self.fixed = true;
    }

    fn reseed(&mut self, seed: u64) {
        self.seed = seed;
    }
}

/// The image, and its label.
#[derive(Debug)]
struct Labelled(Split);

impl Source for Labelled {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn at(&self, indices: &[i64], _: Option<u64>) -> (Tensor, Tensor) {
        (self.0.gather(indices), self.0.gather_labels(indices))
    }

    fn part(&self, range: Range<usize>) -> Box<dyn Source> {
        Box::new(Labelled(self.0.part(range)))
    }

    fn description(&self) -> String {
        "images with labels".to_owned()
    }

    fn classes(&self) -> Option<i64> {
        Some(10)
    }

    fn unit(&self) -> &'static str {
        "% accuracy"
    }

    fn score(&self, prediction: &Tensor, target: &Tensor) -> Result<Option<f64>> {
        Ok(Some(accuracy(prediction, target)))
    }

    fn picture(&self, input: &Tensor, _: &Tensor, prediction: &Tensor) -> Result<Output> {
        let classes = Vec::<i64>::try_from(prediction.argmax(1, false).to_kind(Kind::Int64))?;
        let classes: Vec<String> = classes.iter().map(i64::to_string).collect();
        let captions: Vec<&str> = classes.iter().map(String::as_str).collect();
        Ok(rows_with_captions(&[("read as", input)], &captions)
            .alt("Ten digits, and below each the class that the network reads now"))
    }
}
