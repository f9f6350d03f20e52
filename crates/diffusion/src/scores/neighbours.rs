//! The nearest training images, pixel by pixel: is a generated image new?

use anyhow::{Context, Result};
use ops::check_stop;
use tch::{Kind, Tensor};

use crate::data::{Split, check_images};

/// How many training images, and how many others, are compared at once.
const BLOCK: i64 = 5_000;
const OTHERS: i64 = 1_000;
/// How many unseen images the limit for copies comes from.
const UNSEEN: usize = 2_000;

/// The nearest training image of each image, by pixels: its index and the root of the mean squared difference of a
/// pixel.
///
/// `images` are `(N, 1, 28, 28)` in `[0, 1]`.
///
/// # Errors
/// Images of another shape.
pub fn nearest(images: &Tensor, split: &Split) -> Result<Vec<(usize, f64)>> {
    check_images(images)?;
    let shape = images.size();
    if shape[0] > OTHERS {
        let parts = images.split(OTHERS, 0);
        let parts: Vec<_> = parts
            .iter()
            .map(|part| nearest(part, split))
            .collect::<Result<_>>()?;
        return Ok(parts.concat());
    }
    let flat = images.to_kind(Kind::Float).flatten(1, -1);
    let squares = flat.square().sum_dim_intlist(1i64, true, Kind::Float);
    let mut best: Option<(Tensor, Tensor)> = None;
    let len = split.len() as i64;
    for start in (0..len).step_by(BLOCK as usize) {
        check_stop()?;
        let end = len.min(start + BLOCK);
        let indices: Vec<i64> = (start..end).collect();
        let block = split.batch(&indices)?.flatten(1, -1);
        // |a - b|² = |a|² - 2 a·b + |b|²
        let others = block.square().sum_dim_intlist(1i64, false, Kind::Float);
        let distances = &squares - flat.matmul(&block.tr()) * 2.0 + others.unsqueeze(0);
        let (least, at) = distances.min_dim(1, false);
        let at = at + start;
        best = Some(match best {
            None => (least, at),
            Some((before, before_at)) => {
                let nearer = least.lt_tensor(&before);
                (
                    least.where_self(&nearer, &before),
                    at.where_self(&nearer, &before_at),
                )
            }
        });
    }
    let (least, at) = best.context("there are no images to compare with")?;
    let pixels = (shape[2] * shape[3]) as f64;
    let distances =
        Vec::<f64>::try_from(&(least.to_kind(Kind::Double) / pixels).clamp_min(0.0).sqrt())?;
    let at = Vec::<i64>::try_from(at)?;
    Ok(at
        .into_iter()
        .map(|at| at as usize)
        .zip(distances)
        .collect())
}

/// The share of images that are copies: nearer to a training image than `limit`, a [`copy_limit`]. A model that has memorised
/// digits has many copies; one that draws new digits has about 0.01.
///
/// # Errors
/// As [`nearest`].
pub fn copies(images: &Tensor, train: &Split, limit: f64) -> Result<f64> {
    let found = nearest(images, train)?;
    let near = found.iter().filter(|(_, distance)| *distance < limit);
    Ok(near.count() as f64 / found.len() as f64)
}

/// The distance below which an image counts as a copy: 1 in 100 real images that were not trained on is that near to a
/// training image.
///
/// # Errors
/// As [`nearest`].
pub fn copy_limit(train: &Split, unseen: &Split) -> Result<f64> {
    let unseen = unseen.images(unseen.len().min(UNSEEN))?;
    let mut distances: Vec<f64> = nearest(&unseen, train)?
        .into_iter()
        .map(|(_, distance)| distance)
        .collect();
    distances.sort_by(f64::total_cmp);
    Ok(distances[distances.len() / 100])
}
