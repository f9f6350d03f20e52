//! Clouds of points.

use anyhow::{Result, anyhow, ensure};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use tch::{Kind, Tensor};

use super::looks::BLUE;
use super::ticks::span;
use crate::font::{self, INK};
use crate::images::{Canvas, gif};
use crate::output::Output;
use crate::picture::{FINENESS, Picture};

/// Width on the page of all panels of a row.
const WIDTH: i32 = 680;
/// Panels in a row, and the largest edge of one on the page.
const COLUMNS: usize = 4;
const LARGEST: i32 = 300;
/// Size of text and height of its lines.
const TEXT: i32 = 22 * FINENESS;
const LINE: i32 = 26 * FINENESS;
const MARGIN: i32 = 5 * FINENESS;
/// Most panels that one picture shows.
const MOST: usize = 40;
/// The most pixels of a picture. Only very long names need more.
const MOST_PIXELS: usize = 20_000_000;

/// Clouds of points side by side, in one common frame that holds at least the square from 0 to 1:
/// `scatter(&[("start", &points), …])`.
///
/// Each tensor is `(N, 2)`: x and y. More than four clouds take several rows.
pub fn scatter(panels: &[(&str, &Tensor)]) -> Output {
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
    Output::picture(draw(panels), alt)
}

fn draw(panels: &[(&str, &Tensor)]) -> Result<Picture> {
    font::register()?;
    ensure!(
        (1..=MOST).contains(&panels.len()),
        "a picture of {} clouds of points cannot be drawn; expected 1 to {MOST} (with none there is nothing to draw)",
        panels.len()
    );
    let clouds = panels.iter().map(cloud).collect::<Result<Vec<_>>>()?;
    let points = || clouds.iter().flatten();
    let x = span(points().map(|point| point.0).chain([0.0, 1.0]), 0.03)?;
    let y = span(points().map(|point| point.1).chain([0.0, 1.0]), 0.03)?;

    let columns = panels.len().min(COLUMNS);
    let edge = (WIDTH / columns as i32).min(LARGEST) * FINENESS;
    let inner = edge - 2 * MARGIN;
    let names: Vec<Vec<String>> = panels
        .iter()
        .map(|(name, _)| font::wrap(name, TEXT, inner))
        .collect();
    let head = names.iter().map(Vec::len).max().unwrap_or(0) as i32 * LINE;
    let size = (
        edge * columns as i32,
        (head + edge) * panels.len().div_ceil(columns) as i32,
    );
    let pixels = size.0 as usize * size.1 as usize;
    ensure!(
        pixels <= MOST_PIXELS,
        "the names make a picture of {pixels} pixels; expected at most {MOST_PIXELS}: use shorter names"
    );
    let mut rgb = vec![255u8; 3 * pixels];
    {
        let area = BitMapBackend::with_buffer(&mut rgb, (size.0 as u32, size.1 as u32))
            .into_drawing_area();
        let style = font::style(TEXT, &INK).pos(Pos::new(HPos::Center, VPos::Center));
        for (at, (name, points)) in names.iter().zip(&clouds).enumerate() {
            let left = (at % columns) as i32 * edge + MARGIN;
            let top = (at / columns) as i32 * (head + edge) + head + MARGIN;
            for (line, above) in name.iter().rev().zip(0..) {
                let middle = top - MARGIN / 2 - LINE / 2 - above * LINE;
                area.draw_text(line, &style, (left + inner / 2, middle.max(LINE / 2)))
                    .map_err(|error| anyhow!("{error}"))?;
            }
            let place = |value: f64, range: &std::ops::Range<f64>| {
                ((value - range.start) / (range.end - range.start) * f64::from(inner)).round()
                    as i32
            };
            for point in points {
                let at = (left + place(point.0, &x), top + inner - place(point.1, &y));
                area.draw(&Circle::new(at, 3, BLUE.mix(0.6).filled()))
                    .map_err(|error| anyhow!("{error}"))?;
            }
            let frame = [(left, top), (left + inner, top + inner)];
            area.draw(&Rectangle::new(frame, INK.stroke_width(2)))
                .map_err(|error| anyhow!("{error}"))?;
        }
        area.present().map_err(|error| anyhow!("{error}"))?;
    }
    Picture::png(&rgb, size.0 as u32, size.1 as u32)
}

/// The edge of an animation on the page, in pixels, and the radius of a point.
const EDGE: usize = 420;
const RADIUS: i64 = 3;
/// The most frames of an animation.
const FRAMES: usize = 50;

/// Points that move, as a GIF that repeats: `scatter_animation(&film)`. The last frame stays for two seconds.
///
/// Each frame is a tensor `(N, 2)`: x and y. With more than 50 frames, 50 that are evenly spread are shown, the last one among
/// them. All frames have the same axes, as long as each other.
pub fn scatter_animation(frames: &[Tensor]) -> Output {
    let points = frames
        .first()
        .map_or(0, |frame| frame.size().first().copied().unwrap_or(0));
    Output::picture(animate(frames), format!("An animation of {points} points"))
}

fn animate(frames: &[Tensor]) -> Result<Picture> {
    ensure!(
        !frames.is_empty(),
        "there is nothing to animate; expected at least one frame"
    );
    let every = frames.len().div_ceil(FRAMES);
    // Counted from the end, so that the last frame is among them.
    let mut chosen: Vec<&Tensor> = frames.iter().rev().step_by(every).collect();
    chosen.reverse();
    let clouds = chosen
        .iter()
        .map(|frame| cloud(&("a frame", frame)))
        .collect::<Result<Vec<_>>>()?;
    let furthest = |middle: (f64, f64)| {
        let away = |point: &(f64, f64)| (point.0 - middle.0).abs().max((point.1 - middle.1).abs());
        clouds.iter().flatten().map(away).fold(0.0, f64::max)
    };
    let all = || clouds.iter().flatten();
    let middle = (
        span(all().map(|point| point.0), 0.0)?,
        span(all().map(|point| point.1), 0.0)?,
    );
    let middle = (
        middle.0.start.midpoint(middle.0.end),
        middle.1.start.midpoint(middle.1.end),
    );
    let scale = (EDGE as f64 / 2.0 - 2.0 * RADIUS as f64) / furthest(middle).max(f64::MIN_POSITIVE);
    let canvases: Vec<Canvas> = clouds
        .iter()
        .map(|cloud| {
            let mut canvas = Canvas::blank(EDGE, EDGE)?;
            for point in cloud {
                let x = EDGE as f64 / 2.0 + (point.0 - middle.0) * scale;
                let y = EDGE as f64 / 2.0 - (point.1 - middle.1) * scale;
                dot(&mut canvas, x as i64, y as i64);
            }
            Ok(canvas)
        })
        .collect::<Result<_>>()?;
    gif(&canvases, [BLUE.0, BLUE.1, BLUE.2])
}

/// A round point. Where points lie on each other it is darker.
fn dot(canvas: &mut Canvas, x: i64, y: i64) {
    for (down, right) in (-RADIUS..=RADIUS).flat_map(|y| (-RADIUS..=RADIUS).map(move |x| (y, x))) {
        let (x, y) = (x + right, y + down);
        let inside =
            (0..canvas.width as i64).contains(&x) && (0..canvas.height as i64).contains(&y);
        if inside && down * down + right * right <= RADIUS * RADIUS {
            let at = y as usize * canvas.width + x as usize;
            canvas.grey[at] = (u16::from(canvas.grey[at]) * 2 / 5) as u8;
        }
    }
}

/// The points of a tensor; those that are not finite are left out.
fn cloud((name, points): &(&str, &Tensor)) -> Result<Vec<(f64, f64)>> {
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
        .filter(|(x, y)| x.is_finite() && y.is_finite())
        .collect())
}
