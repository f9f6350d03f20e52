//! The race to a score: new processes that train until their network is good enough, and how it went.
//!
//! Each prints a line `{"seconds": …, "images": …, "psnr": …}` for every evaluation. Its own `seconds` count from
//! wherever its program begins; ours count from before the process was there, as a person's do who waits for it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::contender::{Place, Worker};
use crate::programs::Contender;

/// What is to be reached, in decibels.
pub const GOAL: f64 = 19.0;
/// The noise that is to be removed.
pub const NOISE: f64 = 0.5;
/// After so many epochs a contender gives up.
pub const EPOCHS: usize = 6;
/// How long a quarter of an epoch with its evaluation may take.
const QUARTER: Duration = Duration::from_secs(300);

/// The course of one training.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Curve {
    /// Who trained.
    pub contender: String,
    /// The seed of its first weights, noise and order: the number of the round, from 1.
    pub seed: usize,
    /// Seconds since the process was started, and the score by then.
    pub points: Vec<(f64, f64)>,
}

impl Curve {
    /// When this score was reached, in seconds; infinity if it was not.
    pub fn arrival(&self, goal: f64) -> f64 {
        let arrived = self.points.iter().find(|(_, psnr)| *psnr >= goal);
        arrived.map_or(f64::INFINITY, |(seconds, _)| *seconds)
    }
}

/// Starts a process, and stamps its lines until it has reached this score or given up.
///
/// # Errors
/// When it ends without having evaluated anything, or says nothing for too long.
pub fn run(contender: &Contender, place: &Place, seed: usize, goal: f64) -> Result<Curve> {
    let more = ["--seed".to_owned(), seed.to_string()];
    let mut process = Worker::start(contender, place, &more)?;
    let mut curve = Curve {
        contender: contender.name.to_owned(),
        seed,
        points: Vec::new(),
    };
    while let Some((at, line)) = process.line(QUARTER)? {
        if let Some(error) = line["error"].as_str() {
            bail!("{} says: {error}", contender.name);
        }
        if !line["ready"].is_null() {
            continue;
        }
        let psnr = line["psnr"].as_f64();
        let psnr = psnr.with_context(|| format!("expected a line with `psnr`, got {line}"))?;
        let seconds = at.duration_since(process.started).as_secs_f64();
        curve.points.push((seconds, psnr));
        if psnr >= goal {
            process.kill();
            return Ok(curve);
        }
    }
    // The output has ended. A process that crashed did not give up by itself.
    if curve.points.is_empty() || !process.succeeded() {
        return Err(process.ended("it was to train"));
    }
    Ok(curve)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arrival_is_the_first_score_at_the_goal() {
        let mut curve = Curve {
            contender: "ours".to_owned(),
            seed: 1,
            points: vec![(10.0, 15.0), (20.0, 18.99)],
        };
        assert_eq!(curve.arrival(GOAL), f64::INFINITY);
        curve.points.extend([(30.0, 19.0), (40.0, 19.2)]);
        assert_eq!(curve.arrival(GOAL), 30.0);
    }
}
