//! Generated images, and pictures of the trajectory to them.

use anyhow::Result;
use figures::{Output, animation, grid, rows_with_captions};
use tch::Tensor;

use super::reverse::Frame;
use crate::schedule::to_pixels;

/// How many frames of a long trajectory are kept for strips and animations.
const FRAMES: usize = 60;
/// How many images they show.
const SHOWN: i64 = 64;
/// How many images and frames an animation has, and in how many columns: noise cannot be compressed.
const ANIMATED: (i64, usize, usize) = (24, 30, 8);

/// Generated images, and the trajectory to them.
#[derive(Debug)]
pub struct Samples {
    /// The images, `(N, 1, 28, 28)` in `[0, 1]`.
    pub images: Tensor,
    /// The first images at some timesteps, `(≤ 64, 1, 28, 28)`: `None` for the final ones.
    trajectory: Vec<(Option<usize>, Tensor)>,
    /// The predictions of the final images, and the timestep at which each was made.
    guesses: Vec<(Option<usize>, Tensor)>,
}

impl Samples {
    /// The images that a walk of so many steps ends with.
    pub(super) fn collect(
        steps: usize,
        walk: impl FnOnce(&mut dyn FnMut(Frame)) -> Result<Tensor>,
    ) -> Result<Samples> {
        // A copy of the first few: a view would keep all of them in memory.
        let few = |x: &Tensor| x.narrow(0, 0, x.size()[0].min(SHOWN)).copy();
        let every = steps.div_ceil(FRAMES).max(1);
        let (mut trajectory, mut guesses) = (Vec::new(), Vec::new());
        let (mut seen, mut before) = (0, None);
        let last = walk(&mut |Frame { t, x, x0 }| {
            if seen % every == 0 || t.is_none() {
                trajectory.push((t, few(&x)));
                guesses.extend(x0.map(|x0| (before, few(&x0))));
            }
            (seen, before) = (seen + 1, t);
        })?;
        Ok(Samples {
            images: to_pixels(&last),
            trajectory,
            guesses,
        })
    }

    /// The images in a grid.
    pub fn grid(&self, columns: usize) -> Output {
        let count = self.images.size()[0];
        grid(&self.images, columns).alt(&format!("A grid of {count} generated digits"))
    }

    /// The trajectory of some images (at most 64), from noise to digit, below each other. The columns are timesteps.
    pub fn strip(&self, images: usize) -> Output {
        rows_of(&self.trajectory, images, "on their way from noise to digit")
    }

    /// The predictions of the final images (at most 64), made at some timesteps.
    pub fn guesses(&self, images: usize) -> Output {
        rows_of(&self.guesses, images, "as the network predicted them")
    }

    /// The trajectory from noise to digits as an animation: up to 24 images in a grid.
    pub fn animate(&self) -> Output {
        let (most, frames, columns) = ANIMATED;
        let images = self.images.size()[0].min(most);
        let every = self.trajectory.len().div_ceil(frames).max(1);
        // Counted from the end, so that the finished images are among them.
        let last_first = self.trajectory.iter().rev().step_by(every);
        let mut chosen: Vec<Tensor> = last_first
            .map(|(_, x)| to_pixels(&x.narrow(0, 0, images)))
            .collect();
        chosen.reverse();
        animation(&chosen, columns).alt(&format!(
            "An animation: {images} digits take shape out of noise"
        ))
    }

    /// Shows the images in a notebook.
    pub fn evcxr_display(&self) {
        self.grid(16).evcxr_display();
    }
}

/// A row for each of the first images, and a column for some of the frames, evenly spread.
fn rows_of(frames: &[(Option<usize>, Tensor)], images: usize, what: &str) -> Output {
    const COLUMNS: usize = 10;
    let columns = COLUMNS.min(frames.len());
    let between = columns.saturating_sub(1).max(1);
    let chosen: Vec<&(Option<usize>, Tensor)> = (0..columns)
        .filter_map(|at| frames.get((at * (frames.len() - 1) + between / 2) / between))
        .collect();
    let caption = |t: &Option<usize>| t.map_or("image".to_owned(), |t| t.to_string());
    let captions: Vec<String> = chosen.iter().map(|(t, _)| caption(t)).collect();
    let captions: Vec<&str> = captions.iter().map(String::as_str).collect();
    let most = frames.first().map_or(0, |(_, x)| x.size()[0]);
    let rows: Vec<(&str, Tensor)> = (0..most.min(images as i64))
        .map(|image| {
            let row: Vec<Tensor> = chosen.iter().map(|(_, x)| x.narrow(0, image, 1)).collect();
            ("", to_pixels(&Tensor::cat(&row, 0)))
        })
        .collect();
    let alt = format!(
        "{} digits {what}, at the steps {}",
        rows.len(),
        captions.join(", ")
    );
    rows_with_captions(&rows, &captions).alt(&alt)
}
