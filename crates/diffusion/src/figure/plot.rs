//! Pictures made of lines, bars and points.

use std::ops::Range;

use anyhow::{Result, anyhow, ensure};
use plotters::coord::Shift;
use plotters::prelude::*;
use tch::{Kind, Tensor};

use super::{FINENESS, Figure, Mime, Picture, png, register_font};

const WIDTH: u32 = 680;
const HEIGHT: u32 = 380;
/// Height of title and legend.
const HEAD: i32 = 66;
/// Where the vertical axis stands, and title and legend begin.
const AXIS: i32 = 72;
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
        ("diffusion", GREEN),
        ("u-net", ORANGE),
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
        let named =
            |(at, series): (usize, &Series)| (series.name.clone(), colour_of(&series.name, at));
        let legend: Vec<(String, RGBColor)> = series.iter().enumerate().map(named).collect();
        svg(title, axes, &legend, x, y, |chart| {
            for (series, (_, colour)) in series.iter().zip(&legend) {
                let points = || series.points.iter().copied();
                chart.draw_series(LineSeries::new(points(), colour.stroke_width(2)))?;
                if series.marked {
                    chart.draw_series(
                        points().map(|point| Circle::new(point, 4, colour.filled())),
                    )?;
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
        ensure!(
            !tensors.is_empty(),
            "there is nothing to draw; expected at least one tensor"
        );
        let (mut legend, mut all) = (Vec::new(), Vec::new());
        for (at, (name, tensor)) in tensors.iter().enumerate() {
            ensure!(
                tensor.numel() > 0,
                "the tensor {name:?} is empty; expected at least one value"
            );
            ensure!(
                bool::try_from(tensor.isfinite().all())?,
                "the tensor {name:?} holds numbers that are not finite"
            );
            let values = tensor
                .detach()
                .to_kind(Kind::Float)
                .clamp(0.0, 1.0)
                .flatten(0, -1);
            // The two ends stand for all values at and beyond them, and for no others.
            let bins = (values * BINS)
                .floor()
                .clamp(0, BINS - 1)
                .to_kind(Kind::Int64);
            let counts =
                Vec::<f64>::try_from(bins.bincount::<Tensor>(None, BINS).to_kind(Kind::Double))?;
            let total: f64 = counts.iter().sum();
            legend.push(((*name).to_owned(), colour_of(name, at)));
            all.push(
                counts
                    .into_iter()
                    .map(|count| 100.0 * count / total)
                    .collect::<Vec<f64>>(),
            );
        }
        let top = all.iter().flatten().copied().fold(0.0, f64::max);
        svg(
            title,
            (axis, "share of values, %"),
            &legend,
            0.0..1.0,
            0.0..top * 1.05,
            |chart| {
                let width = 1.0 / BINS as f64;
                for (shares, (_, colour)) in all.iter().zip(&legend) {
                    let bars = shares.iter().enumerate().map(|(bin, &share)| {
                        let left = bin as f64 * width;
                        Rectangle::new(
                            [(left, 0.0), (left + width, share)],
                            colour.mix(0.35).filled(),
                        )
                    });
                    chart.draw_series(bars)?;
                }
                Ok(())
            },
        )
    };
    Figure::new(draw(), alt)
}

/// Clouds of points side by side, in one common frame that holds at least the square from 0 to 1:
/// `scatter(&[("start", &points), …])`.
///
/// Each tensor is `(N, 2)`: x and y.
pub fn scatter(panels: &[(&str, &Tensor)]) -> Figure {
    let names: Vec<&str> = panels.iter().map(|(name, _)| *name).collect();
    let points = panels
        .first()
        .and_then(|(_, points)| points.size().first().copied())
        .unwrap_or(0);
    let alt = format!(
        "{points} points, seen {} times: {}",
        panels.len(),
        names.join(", ")
    );
    Figure::new(draw_scatter(panels), alt)
}

fn draw_scatter(panels: &[(&str, &Tensor)]) -> Result<Picture> {
    register_font()?;
    ensure!(
        !panels.is_empty(),
        "there is nothing to draw; expected at least one cloud of points"
    );
    let cloud = |(name, points): &(&str, &Tensor)| -> Result<Vec<(f64, f64)>> {
        let shape = points.size();
        ensure!(
            shape.len() == 2 && shape[1] == 2,
            "{name:?} has shape {shape:?}; expected (N, 2), x and y"
        );
        let numbers =
            Vec::<f64>::try_from(points.detach().to_kind(Kind::Double).contiguous().view(-1))?;
        Ok(numbers
            .chunks_exact(2)
            .map(|point| (point[0], point[1]))
            .collect())
    };
    let clouds = panels.iter().map(cloud).collect::<Result<Vec<_>>>()?;
    let points = || clouds.iter().flatten();
    let (x, y) = (
        span(points().map(|point| point.0).chain([0.0, 1.0]), 0.03),
        span(points().map(|point| point.1).chain([0.0, 1.0]), 0.03),
    );
    let size = (
        (PANEL * FINENESS) * panels.len() as u32,
        (PANEL + 24) * FINENESS,
    );
    let mut rgb = vec![255u8; (3 * size.0 * size.1) as usize];
    {
        let area = BitMapBackend::with_buffer(&mut rgb, size).into_drawing_area();
        for ((area, (name, _)), points) in area
            .split_evenly((1, panels.len()))
            .iter()
            .zip(panels)
            .zip(&clouds)
        {
            let text = ("sans-serif", TEXT * FINENESS as i32)
                .into_font()
                .color(&INK);
            let mut chart = ChartBuilder::on(area)
                .margin(4 * FINENESS)
                .caption(name, text)
                .build_cartesian_2d(x.clone(), y.clone())
                .map_err(|error| anyhow!("{error}"))?;
            let dots = points
                .iter()
                .map(|&point| Circle::new(point, 2, BLUE.mix(0.6).filled()));
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

/// A chart with title, legend, axes and grid as an SVG, the series drawn by `draw`.
fn svg(
    title: &str,
    axes: (&str, &str),
    legend: &[(String, RGBColor)],
    x: Range<f64>,
    y: Range<f64>,
    draw: impl for<'a, 'b> FnOnce(&mut Chart<'a, 'b>) -> DrawResult<'b>,
) -> Result<Picture> {
    register_font()?;
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (WIDTH, HEIGHT)).into_drawing_area();
        area.fill(&WHITE).map_err(|error| anyhow!("{error}"))?;
        let (head, body) = area.split_vertically(HEAD);
        draw_head(&head, title, legend).map_err(|error| anyhow!("{error}"))?;
        draw_chart(&body, axes, x, y, draw).map_err(|error| anyhow!("{error}"))?;
        area.present().map_err(|error| anyhow!("{error}"))?;
    }
    Ok(Picture {
        mime: Mime::Svg,
        bytes: text.into_bytes(),
        width: WIDTH,
    })
}

/// The title, and below it the legend in one row: there it hides no line.
fn draw_head<'b>(
    area: &DrawingArea<SVGBackend<'b>, Shift>,
    title: &str,
    legend: &[(String, RGBColor)],
) -> DrawResult<'b> {
    area.draw_text(
        title,
        &("sans-serif", TITLE).into_font().color(&INK),
        (AXIS, 10),
    )?;
    let style = ("sans-serif", TEXT).into_font().color(&INK);
    let mut left = AXIS;
    for (name, colour) in legend {
        let key = [(left, 43), (left + 18, 48)];
        area.draw(&Rectangle::new(key, colour.filled()))?;
        area.draw_text(name, &style, (left + 25, 38))?;
        let width = style
            .font
            .box_size(name)
            .map_or(0, |(width, _)| width as i32);
        left += width + 25 + 22;
    }
    Ok(())
}

fn draw_chart<'b>(
    area: &DrawingArea<SVGBackend<'b>, Shift>,
    axes: (&str, &str),
    x: Range<f64>,
    y: Range<f64>,
    draw: impl for<'a> FnOnce(&mut Chart<'a, 'b>) -> DrawResult<'b>,
) -> DrawResult<'b> {
    let text = ("sans-serif", TEXT).into_font().color(&INK);
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .margin_right(24)
        .x_label_area_size(44)
        .y_label_area_size(AXIS - 10)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .x_desc(axes.0)
        .y_desc(axes.1)
        .axis_desc_style(text.clone())
        .label_style(text)
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(INK)
        .x_labels(8)
        .y_labels(6)
        .x_label_formatter(&tick)
        .y_label_formatter(&tick)
        .draw()?;
    draw(&mut chart)
}

/// A number at an axis, without zeros that say nothing.
fn tick(value: &f64) -> String {
    let text = format!("{value:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" {
        "0".to_owned()
    } else {
        text.to_owned()
    }
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
        "{} goes from {:.2} to {:.2}",
        series.name, first.1, last.1
    ))
}
