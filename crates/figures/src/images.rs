//! Pictures made of images: rows with names and captions, grids, lines.
//!
//! They are PNG; each pixel of an image is a square, never interpolated.

mod animation;
mod pixels;

use std::borrow::Borrow;

use anyhow::{Result, anyhow, ensure};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use tch::Tensor;

use crate::font::{self, INK};
use crate::output::Output;
use crate::picture::{FINENESS, Picture};
pub use animation::animation;
pub(crate) use animation::gif;
pub(crate) use pixels::Canvas;
use pixels::{MOST, Pixels, check_size};

/// Space between two images, and around the picture.
const GAP: i32 = 4 * FINENESS;
/// Width on the page that a row of images may take; more images are drawn smaller.
const WIDTH: i32 = 680;
/// Images are enlarged up to this side on the page.
const SIDE: i32 = 84;
/// Size of text and height of its lines.
const TEXT: i32 = 24 * FINENESS;
const LINE: i32 = 27 * FINENESS;
/// Width of the names on the left; longer ones are wrapped.
const NAMES: i32 = 170 * FINENESS;

/// Labelled rows of images, one below the other: `rows(&[("original", &clean), ("noisy", &noisy)])`.
///
/// Each tensor is `(N, 1, H, W)` in `[0, 1]`, 0 black and 1 white; values outside are shown as the
/// nearest of the two. All rows have the same H and W.
pub fn rows<S: AsRef<str>, T: Borrow<Tensor>>(rows: &[(S, T)]) -> Output {
    rows_with_captions(rows, &[])
}

/// [`rows`] with a caption above each column: at most as many captions as the longest row has images.
pub fn rows_with_captions<S: AsRef<str>, T: Borrow<Tensor>>(
    rows: &[(S, T)],
    captions: &[&str],
) -> Output {
    let rows: Vec<(&str, &Tensor)> = rows
        .iter()
        .map(|(name, images)| (name.as_ref(), images.borrow()))
        .collect();
    named_rows(&rows, captions)
}

fn named_rows(rows: &[(&str, &Tensor)], captions: &[&str]) -> Output {
    let names: Vec<&str> = rows.iter().map(|(name, _)| *name).collect();
    let columns = rows
        .iter()
        .map(|(_, images)| images.size().first().copied().unwrap_or(0))
        .max()
        .unwrap_or(0);
    let mut alt = format!("Rows of {columns} images: {}", names.join(", "));
    if !captions.is_empty() {
        alt = format!("{alt}; the columns are {}", captions.join(", "));
    }
    let images = || -> Result<Vec<Pixels>> {
        rows.iter()
            .map(|(name, images)| {
                Pixels::of(images).map_err(|error| error.context(format!("in the row {name:?}")))
            })
            .collect()
    };
    Output::picture(
        images().and_then(|images| draw(&images, &names, captions)),
        alt,
    )
}

/// Images in a grid, from left to right and from top to bottom.
///
/// The tensor is `(N, 1, H, W)` in `[0, 1]`.
pub fn grid(images: &Tensor, columns: usize) -> Output {
    let draw = || {
        let pixels = Pixels::of(images)?;
        ensure!(
            (1..=MOST).contains(&columns),
            "a grid of {columns} columns cannot be drawn; expected 1 to {MOST}"
        );
        draw(&pixels.in_rows_of(columns), &[], &[])
    };
    Output::picture(
        draw(),
        format!("A grid of {} images", images.size().first().unwrap_or(&0)),
    )
}

/// Images in a line as a PNG of one pixel for each of theirs, as an address that holds the picture itself. A page
/// enlarges it.
pub(crate) fn line_of_images(images: &Tensor) -> Result<String> {
    let pixels = Pixels::of(images)?;
    let canvas = Canvas::grid(&pixels, pixels.count(), 1)?;
    let picture = Picture::png(&canvas.rgb(), canvas.width as u32, canvas.height as u32)?;
    Ok(picture.address())
}

/// Draws rows of images with names on the left and captions above.
fn draw(rows: &[Pixels], names: &[&str], captions: &[&str]) -> Result<Picture> {
    font::register()?;
    let Some(first) = rows.first() else {
        return Err(anyhow!(
            "there is nothing to draw; expected at least one row with one image"
        ));
    };
    for (row, name) in rows.iter().zip(names) {
        ensure!(
            (row.height, row.width) == (first.height, first.width),
            "the rows of a picture hold images of one size; those of {name:?} are {} by {}, and the first row's {} by {}",
            row.height,
            row.width,
            first.height,
            first.width
        );
    }
    let columns = rows.iter().map(Pixels::count).max().unwrap_or(0) as i32;
    ensure!(
        captions.len() <= columns as usize,
        "there are {} captions for {columns} columns; expected at most one for each column",
        captions.len()
    );
    check_size(4 * columns as usize * rows.len() * first.height * first.width)?;
    // A whole number of pixels on the page for each pixel of an image.
    let largest = (SIDE / first.width.max(first.height) as i32).max(1);
    let zoom = (WIDTH / (columns * first.width as i32)).clamp(1, largest) * FINENESS;
    let size = (zoom * first.width as i32, zoom * first.height as i32);

    let names: Vec<Vec<String>> = names
        .iter()
        .map(|name| font::wrap(name, TEXT, NAMES))
        .collect();
    let names_width = names.iter().map(|lines| font::widest(lines, TEXT)).max();
    let left = names_width
        .filter(|&width| width > 0)
        .map_or(0, |width| width + 3 * GAP)
        + GAP;
    // A column is as wide as its widest word of a caption; the rest of the caption is wrapped.
    let words = captions.iter().flat_map(|caption| caption.split(' '));
    let words: Vec<&str> = words.collect();
    let pitch_x = (size.0 + GAP).max(font::widest(&words, TEXT) + 3 * GAP);
    let captions: Vec<Vec<String>> = captions
        .iter()
        .map(|caption| font::wrap(caption, TEXT, pitch_x - 2 * GAP))
        .collect();
    let lines = |texts: &[Vec<String>]| texts.iter().map(Vec::len).max().unwrap_or(0) as i32;
    let top = lines(&captions) * LINE + GAP;
    let pitch_y = (size.1 + GAP).max(lines(&names) * LINE + GAP);

    let width = left + columns * pitch_x;
    let height = top + rows.len() as i32 * pitch_y;
    let mut canvas = Canvas::blank(width as usize, height as usize)?;
    let middle_x = |column: i32| left + column * pitch_x + (pitch_x - GAP) / 2;
    let middle_y = |row: i32| top + row * pitch_y + (pitch_y - GAP) / 2;
    for (row, images) in rows.iter().enumerate() {
        for (column, image) in images.images().enumerate() {
            canvas.put(
                image,
                images.width,
                zoom as usize,
                (middle_x(column as i32) - size.0 / 2) as usize,
                (middle_y(row as i32) - size.1 / 2) as usize,
            );
        }
    }
    let mut rgb = canvas.rgb();
    {
        let area =
            BitMapBackend::with_buffer(&mut rgb, (width as u32, height as u32)).into_drawing_area();
        let text = |lines: &[String], align: HPos, x: i32, middle: i32| -> Result<()> {
            let style = font::style(TEXT, &INK).pos(Pos::new(align, VPos::Center));
            let first = middle - (lines.len() as i32 - 1) * LINE / 2;
            for (line, at) in lines.iter().zip(0..) {
                area.draw_text(line, &style, (x, first + at * LINE))
                    .map_err(|error| anyhow!("{error}"))?;
            }
            Ok(())
        };
        for (name, row) in names.iter().zip(0..) {
            text(name, HPos::Left, GAP, middle_y(row))?;
        }
        for (caption, column) in captions.iter().zip(0..) {
            text(caption, HPos::Center, middle_x(column), top / 2)?;
        }
        area.present().map_err(|error| anyhow!("{error}"))?;
    }
    Picture::png(&rgb, width as u32, height as u32)
}
