//! Pictures made of lines, bars and points.

use std::ops::Range;

use anyhow::{Result, anyhow, ensure};
use ndarray::Array2;
use plotters::coord::Shift;
use plotters::prelude::*;
use tch::{Kind, Tensor};

use super::{FINENESS, Figure, Mime, Picture, png, register_font};

const WIDTH: u32 = 680;
const HEIGHT: u32 = 360;
const TITLE: i32 = 18;
const TEXT: i32 = 14;
const INK: RGBColor = RGBColor(51, 51, 51);
const GRID: RGBColor = RGBColor(228, 228, 228);
/// Edge of one panel of a [`scatter`] on the page.
const PANEL: u32 = 170;

/// Colours that people with any colour vision can tell apart (after Okabe & Ito 2008).
const BLUE: RGBColor = RGBColor(0, 114, 178);
const VERMILLION: RGBColor = RGBColor(213, 94, 0);
const GREEN: RGBColor = RGBColor(0, 158, 115);
const PURPLE: RGBColor = RGBColor(160, 70, 140);
const BLACK_: RGBColor = RGBColor(0, 0, 0);
const ORANGE: RGBColor = RGBColor(200, 130, 0);

/// The same thing has the same colour in every picture of the lesson.
fn colour_of(name: &str, at: usize) -> RGBColor {
    let roles = [
        ("original", BLACK_),
        ("clean", BLACK_),
        ("noisy", VERMILLION),
        ("denoised", BLUE),
        ("cnn", BLUE),
        ("training", BLUE),
        ("validation", VERMILLION),
        ("median", GREEN),
        ("gauss", PURPLE),
    ];
    let name = name.to_lowercase();
    let role = roles.iter().find(|(role, _)| name.starts_with(role));
    role.map_or(
        [BLUE, VERMILLION, GREEN, PURPLE, BLACK_, ORANGE][at % 6],
        |(_, colour)| *colour,
    )
}

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
        let finite = |&(x, y): &(f64, f64)| x.is_finite() && y.is_finite();
        Series {
            name: name.to_owned(),
            points: points.into_iter().filter(finite).collect(),
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

/// Lines over a common axis, with a legend: `curve("title", ("x axis", "y axis"), &[series, …])`.
pub fn curve(title: &str, axes: (&str, &str), series: &[Series]) -> Figure {
    let ends: Vec<String> = series.iter().filter_map(described).collect();
    let alt = format!("{title}: {} over {}. {}", axes.1, axes.0, ends.join("; "));
    let draw = || {
        let points = || series.iter().flat_map(|series| &series.points);
        ensure!(
            points().next().is_some(),
            "there is nothing to draw; expected at least one finite point"
        );
        let x = span(points().map(|point| point.0), 0.0);
        let y = span(points().map(|point| point.1), 0.05);
        svg(title, axes, x, y, |chart| {
            for (at, series) in series.iter().enumerate() {
                let colour = colour_of(&series.name, at);
                chart
                    .draw_series(LineSeries::new(
                        series.points.iter().copied(),
                        colour.stroke_width(2),
                    ))?
                    .label(&series.name)
                    .legend(move |(x, y)| {
                        PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3))
                    });
                if series.marked {
                    let dots = series
                        .points
                        .iter()
                        .map(|&point| Circle::new(point, 4, colour.filled()));
                    chart.draw_series(dots)?;
                }
            }
            Ok(())
        })
    };
    Figure::new(draw(), alt)
}

/// How the values of tensors are distributed over `[0, 1]`: `histogram("title", "x axis", &[("clean", &images)])`.
///
/// Heights are shares of all values of a tensor, in percent; values outside count at the nearest end.
pub fn histogram(title: &str, axis: &str, tensors: &[(&str, &Tensor)]) -> Figure {
    const BINS: i64 = 25;
    let names: Vec<&str> = tensors.iter().map(|(name, _)| *name).collect();
    let alt = format!(
        "Histogram, {title}: share of values over {axis}, for {}",
        names.join(" and ")
    );
    let draw = || {
        let mut all = Vec::new();
        for (name, tensor) in tensors {
            ensure!(
                tensor.numel() > 0,
                "the tensor {name:?} is empty; expected at least one value"
            );
            let values = tensor
                .detach()
                .to_kind(Kind::Float)
                .clamp(0.0, 1.0)
                .flatten(0, -1);
            let counts = Vec::<f64>::try_from(values.histc(BINS).to_kind(Kind::Double))?;
            let total: f64 = counts.iter().sum();
            all.push((
                *name,
                counts
                    .into_iter()
                    .map(|count| 100.0 * count / total)
                    .collect::<Vec<f64>>(),
            ));
        }
        let top = all
            .iter()
            .flat_map(|(_, shares)| shares)
            .copied()
            .fold(0.0, f64::max);
        svg(
            title,
            (axis, "share of values, %"),
            0.0..1.0,
            0.0..top * 1.05,
            |chart| {
                for (at, (name, shares)) in all.iter().enumerate() {
                    let colour = colour_of(name, at);
                    let width = 1.0 / BINS as f64;
                    let bars = shares.iter().enumerate().map(|(bin, &share)| {
                        let left = bin as f64 * width;
                        Rectangle::new(
                            [(left, 0.0), (left + width, share)],
                            colour.mix(0.35).filled(),
                        )
                    });
                    chart.draw_series(bars)?.label(*name).legend(move |(x, y)| {
                        Rectangle::new([(x, y - 5), (x + 18, y + 5)], colour.mix(0.5).filled())
                    });
                }
                Ok(())
            },
        )
    };
    Figure::new(draw(), alt)
}

/// Clouds of points side by side, in one common square: `scatter(&[("start", &points), …])`.
///
/// Each array is `(N, 2)`: x and y.
pub fn scatter(panels: &[(&str, &Array2<f64>)]) -> Figure {
    let names: Vec<&str> = panels.iter().map(|(name, _)| *name).collect();
    let points = panels.first().map_or(0, |(_, points)| points.nrows());
    let alt = format!(
        "{points} points, seen {} times: {}",
        panels.len(),
        names.join(", ")
    );
    Figure::new(draw_scatter(panels), alt)
}

fn draw_scatter(panels: &[(&str, &Array2<f64>)]) -> Result<Picture> {
    register_font()?;
    ensure!(
        !panels.is_empty(),
        "there is nothing to draw; expected at least one cloud of points"
    );
    for (name, points) in panels {
        ensure!(
            points.ncols() == 2,
            "{name:?} has {} columns; expected 2, x and y",
            points.ncols()
        );
    }
    let column = |at: usize| {
        panels
            .iter()
            .flat_map(move |(_, points)| points.column(at).to_vec())
    };
    let (x, y) = (span(column(0), 0.03), span(column(1), 0.03));
    let size = (
        (PANEL * FINENESS) * panels.len() as u32,
        (PANEL + 24) * FINENESS,
    );
    let mut rgb = vec![255u8; (3 * size.0 * size.1) as usize];
    {
        let area = BitMapBackend::with_buffer(&mut rgb, size).into_drawing_area();
        for (area, (name, points)) in area.split_evenly((1, panels.len())).iter().zip(panels) {
            let text = ("sans-serif", TEXT * FINENESS as i32)
                .into_font()
                .color(&INK);
            let mut chart = ChartBuilder::on(area)
                .margin(4 * FINENESS)
                .caption(name, text)
                .build_cartesian_2d(x.clone(), y.clone())
                .map_err(|error| anyhow!("{error}"))?;
            let dots = points
                .rows()
                .into_iter()
                .map(|p| Circle::new((p[0], p[1]), 2, BLUE.mix(0.6).filled()));
            chart
                .draw_series(dots)
                .map_err(|error| anyhow!("{error}"))?;
            let frame = [(x.start, y.start), (x.end, y.end)];
            chart
                .draw_series([Rectangle::new(frame, INK.stroke_width(1))])
                .map_err(|error| anyhow!("{error}"))?;
        }
        area.present().map_err(|error| anyhow!("{error}"))?;
    }
    png(&rgb, size.0, size.1)
}

type Chart<'a, 'b> = ChartContext<
    'a,
    SVGBackend<'b>,
    Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>,
>;
type DrawResult<'b> =
    Result<(), DrawingAreaErrorKind<<SVGBackend<'b> as DrawingBackend>::ErrorType>>;

/// A chart with axes, grid and legend as an SVG, the series drawn by `draw`.
fn svg(
    title: &str,
    axes: (&str, &str),
    x: Range<f64>,
    y: Range<f64>,
    draw: impl for<'a, 'b> FnOnce(&mut Chart<'a, 'b>) -> DrawResult<'b>,
) -> Result<Picture> {
    register_font()?;
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (WIDTH, HEIGHT)).into_drawing_area();
        draw_chart(&area, title, axes, x, y, draw).map_err(|error| anyhow!("{error}"))?;
    }
    Ok(Picture {
        mime: Mime::Svg,
        bytes: text.into_bytes(),
        width: WIDTH,
    })
}

fn draw_chart<'b>(
    area: &DrawingArea<SVGBackend<'b>, Shift>,
    title: &str,
    axes: (&str, &str),
    x: Range<f64>,
    y: Range<f64>,
    draw: impl for<'a> FnOnce(&mut Chart<'a, 'b>) -> DrawResult<'b>,
) -> DrawResult<'b> {
    let text = ("sans-serif", TEXT).into_font().color(&INK);
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .margin_right(20)
        .caption(title, ("sans-serif", TITLE).into_font().color(&INK))
        .x_label_area_size(44)
        .y_label_area_size(62)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .x_desc(axes.0)
        .y_desc(axes.1)
        .axis_desc_style(text.clone())
        .label_style(text.clone())
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(INK)
        .x_labels(8)
        .y_labels(6)
        .draw()?;
    draw(&mut chart)?;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .label_font(text)
        .margin(8)
        .draw()?;
    area.present()
}

/// The range of some numbers, widened by a share of itself, and never empty.
fn span(values: impl Iterator<Item = f64>, margin: f64) -> Range<f64> {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
    if low > high {
        return 0.0..1.0;
    }
    let width = if high > low {
        high - low
    } else {
        low.abs().max(1.0)
    };
    low - margin * width..high + margin.max(if high > low { 0.0 } else { 0.05 }) * width
}

/// Where a series starts and ends, for an alt text.
fn described(series: &Series) -> Option<String> {
    let (first, last) = (series.points.first()?, series.points.last()?);
    Some(format!(
        "{} goes from {:.4} to {:.4}",
        series.name, first.1, last.1
    ))
}
