//! Sliders over images that were all computed beforehand.
//!
//! The page holds everything, so sliders need no kernel: they work in JupyterLab, in an exported page,
//! and without a network, by mouse, touch and keyboard. Where scripts do not run (a notebook that is not
//! trusted, a page on a code host), a still picture stands in their place.

use std::borrow::Borrow;

use anyhow::{Result, ensure};
use serde::Serialize;
use tch::Tensor;

use crate::images::line_of_images;
use crate::output::Output;
use crate::page::interactive;

const SCRIPT: &str = include_str!("../assets/sliders.js");

/// Rows of images that follow one or more sliders.
///
/// A *frame* is what is shown at one position of all sliders. The frames are in the order of a counter
/// whose last digit is the last slider: with sliders of 2 and 3 stops, frame 4 is the second stop of the
/// first slider and the second stop of the last.
///
/// ```
/// # fn main() -> anyhow::Result<()> {
/// use figures::{Output, Row, Slider, Sliders, rows};
/// use tch::{Device, Kind, Tensor};
///
/// let bright = Tensor::ones([3, 1, 8, 8], (Kind::Float, Device::Cpu));
/// let dark = &bright * 0.2;
/// let sliders = Sliders {
///     still: rows(&[("image", &bright)]),
///     sliders: vec![Slider {
///         name: "brightness",
///         stops: vec!["0.2".to_owned(), "1.0".to_owned()],
///         first: 1,
///     }],
///     rows: vec![Row::of("image", [&dark, &bright])?],
///     captions: vec!["dark".to_owned(), "bright".to_owned()],
///     play: false,
/// };
/// let output: Output = sliders.output("Three images and a slider for their brightness");
/// # output.html()?;
/// # Ok(())
/// # }
/// ```
pub struct Sliders {
    /// What stands in their place where scripts do not run.
    pub still: Output,
    /// The sliders, from top to bottom.
    pub sliders: Vec<Slider>,
    /// The rows of images, from top to bottom.
    pub rows: Vec<Row>,
    /// One caption for each frame.
    pub captions: Vec<String>,
    /// Whether there is a button that moves the first slider by itself.
    pub play: bool,
}

/// One slider.
#[derive(Clone, Debug, Serialize)]
pub struct Slider {
    /// What stands on its left.
    pub name: &'static str,
    /// What stands on its right at each of its positions.
    pub stops: Vec<String>,
    /// The index of the stop at which it stands at first.
    pub first: usize,
}

/// A row of images: one picture for all frames, or one for each.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    name: String,
    images: Vec<String>,
}

impl Row {
    /// A row with a tensor for each frame, or with one for all of them. Every tensor is `(N, 1, H, W)`
    /// in `[0, 1]`.
    ///
    /// # Errors
    /// When a tensor has another shape.
    pub fn of<T: Borrow<Tensor>>(name: &str, frames: impl IntoIterator<Item = T>) -> Result<Row> {
        let images = frames
            .into_iter()
            .map(|images| line_of_images(images.borrow()));
        Ok(Row {
            name: name.to_owned(),
            images: images.collect::<Result<_>>()?,
        })
    }
}

/// What the script reads.
#[derive(Serialize)]
struct Data<'a> {
    sliders: &'a [Slider],
    rows: &'a [Row],
    frames: &'a [String],
    play: bool,
}

impl Sliders {
    /// The sliders as a cell shows them; `alt` is their text, and the alt text of the still picture.
    /// Numbers of stops, captions and pictures that do not fit together make an output that shows the error.
    pub fn output(self, alt: &str) -> Output {
        Output::from_html(self.page(alt), alt)
    }

    fn page(self, alt: &str) -> Result<String> {
        ensure!(
            !self.play || !self.sliders.is_empty(),
            "there is a play button but no slider; expected at least one slider, or `play: false`"
        );
        let frames: usize = self
            .sliders
            .iter()
            .map(|slider| slider.stops.len())
            .product();
        for slider in &self.sliders {
            ensure!(
                !slider.stops.is_empty(),
                "the slider {:?} has no stops; expected at least one",
                slider.name
            );
            ensure!(
                slider.first < slider.stops.len(),
                "the slider {:?} has {} stops and begins at stop {}; expected at most {}",
                slider.name,
                slider.stops.len(),
                slider.first,
                slider.stops.len() - 1
            );
        }
        ensure!(
            self.captions.len() == frames,
            "the sliders have {frames} frames, but there are {} captions; expected one for each frame",
            self.captions.len()
        );
        for row in &self.rows {
            ensure!(
                [1, frames].contains(&row.images.len()),
                "the row {:?} has {} pictures; expected 1 or {frames}, one for each frame",
                row.name,
                row.images.len()
            );
        }
        let data = serde_json::to_string(&Data {
            sliders: &self.sliders,
            rows: &self.rows,
            frames: &self.captions,
            play: self.play,
        })?;
        let still = self.still.alt(alt).html()?;
        Ok(interactive("", &still, &data, SCRIPT))
    }
}
