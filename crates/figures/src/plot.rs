//! Pictures made of lines, bars, points and blocks.

mod blocks;
mod chart;
mod histogram;
mod labels;
mod levels;
mod looks;
mod scatter;
mod svg;
#[cfg(test)]
mod tests;
mod ticks;

use std::ops::Range;

use anyhow::{Result, ensure};

use crate::output::Output;
use crate::picture::Picture;
use crate::text::short;
pub use blocks::{Block, Role, blocks};
use chart::{Chart, Line, Names};
pub use histogram::histogram;
pub use levels::{Step, levels};
pub use scatter::{scatter, scatter_animation};

/// A named line of points.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    name: String,
    points: Vec<(f64, f64)>,
    marked: bool,
}

impl Series {
    /// A line through these points, in this order. Points that are not finite are left out.
    pub fn new(name: &str, points: impl IntoIterator<Item = (f64, f64)>) -> Series {
        Series::through(name, points.into_iter().collect())
    }

    /// A line through the values of a function at these places.
    pub fn of(
        name: &str,
        places: impl IntoIterator<Item = f64>,
        mut value: impl FnMut(f64) -> f64,
    ) -> Series {
        Series::new(name, places.into_iter().map(|x| (x, value(x))))
    }

    /// A line through values that stand at 0, 1, 2 and so on.
    pub fn of_values(name: &str, values: impl IntoIterator<Item = f64>) -> Series {
        Series::new(
            name,
            values.into_iter().enumerate().map(|(at, y)| (at as f64, y)),
        )
    }

    fn through(name: &str, mut points: Vec<(f64, f64)>) -> Series {
        points.retain(|(x, y)| x.is_finite() && y.is_finite());
        Series {
            name: name.to_owned(),
            points,
            marked: false,
        }
    }

    /// The same line with a dot at each point.
    #[must_use]
    pub fn with_points(self) -> Series {
        Series {
            marked: true,
            ..self
        }
    }
}

/// Lines over a common axis, each with its name where it ends (or above, where lines end far apart):
/// `curve("title", ("x axis", "y axis"), &[series, …])`.
///
/// The axes follow the points, whatever their magnitude; a vertical axis that begins above 0 says so. A name that begins with one of eleven words (noisy,
/// denoised, training, median, …) has that word's colour in every picture; other names take the next colour.
/// At most 21 lines can be told apart.
pub fn curve(title: &str, axes: (&str, &str), series: &[Series]) -> Output {
    let ends: Vec<String> = series.iter().filter_map(described).collect();
    let alt = format!("{title}: {} over {}. {}", axes.1, axes.0, ends.join("; "));
    Output::picture(draw(title, axes, series), alt)
}

fn draw(title: &str, axes: (&str, &str), series: &[Series]) -> Result<Picture> {
    let points = || series.iter().flat_map(|series| &series.points);
    ensure!(
        points().next().is_some(),
        "there is nothing to draw; expected at least one finite point"
    );
    let names: Vec<&str> = series.iter().map(|series| series.name.as_str()).collect();
    let lines = series.iter().zip(looks::of(&names)?);
    let x = ticks::span(points().map(|point| point.0), 0.0)?;
    Chart {
        title,
        axes,
        names: where_names_stand(series, &x),
        x,
        y: ticks::span(points().map(|point| point.1), 0.05)?,
        lines: lines
            .map(|(series, look)| Line {
                name: series.name.clone(),
                points: series.points.clone(),
                look,
                marked: series.marked || series.points.len() == 1,
                filled: false,
            })
            .collect(),
    }
    .svg()
}

/// At the ends of the lines, unless these are so far from the right that it would not be clear which
/// name belongs to which line.
fn where_names_stand(series: &[Series], x: &Range<f64>) -> Names {
    let end_of = |series: &Series| {
        let ends = [series.points.first(), series.points.last()];
        let ends = ends.into_iter().flatten().map(|point| point.0);
        let end = ends.fold(x.start, f64::max);
        (!series.points.is_empty()).then_some((end - x.start) / (x.end - x.start))
    };
    let ends: Vec<f64> = series.iter().filter_map(end_of).collect();
    let before = |share: f64| ends.iter().filter(|&&end| end < share).count();
    match before(0.45) > 0 || before(0.8) > 1 {
        true => Names::Legend,
        false => Names::AtEnds,
    }
}

/// Where a series starts and ends, for an alt text.
fn described(series: &Series) -> Option<String> {
    let (first, last) = (series.points.first()?, series.points.last()?);
    Some(format!(
        "{} goes from {} to {}",
        series.name,
        short(first.1),
        short(last.1)
    ))
}
