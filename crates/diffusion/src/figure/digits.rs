//! Pictures made of digits.

use std::borrow::Borrow;

use anyhow::{Result, anyhow, bail, ensure};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use tch::{Kind, Tensor};

use super::{FINENESS, Figure, Mime, Picture, png, register_font};
use crate::data::SIDE;

/// Space between two digits, and around the picture.
const GAP: i32 = 4 * FINENESS as i32;
/// Width that rows of digits may take on the page; more digits are drawn smaller.
const WIDTH: i32 = 680;
/// Size of text on the page.
const TEXT: i32 = 15;
const TEXT_COLOUR: RGBColor = RGBColor(51, 51, 51);

/// Labelled rows of digits, one below the other: `rows(&[("original", &clean), ("noisy", &noisy)])`.
///
/// Each tensor is `(N, 1, 28, 28)` in `[0, 1]`, 0 black and 1 white; values outside are shown as the
/// nearest of the two.
pub fn rows<S: AsRef<str>, T: Borrow<Tensor>>(rows: &[(S, T)]) -> Figure {
    rows_with_captions(rows, &[])
}

/// [`rows`] with a caption above each column.
pub fn rows_with_captions<S: AsRef<str>, T: Borrow<Tensor>>(
    rows: &[(S, T)],
    captions: &[&str],
) -> Figure {
    let rows: Vec<(&str, &Tensor)> = rows
        .iter()
        .map(|(name, images)| (name.as_ref(), images.borrow()))
        .collect();
    named_rows(&rows, captions)
}

fn named_rows(rows: &[(&str, &Tensor)], captions: &[&str]) -> Figure {
    let names: Vec<&str> = rows.iter().map(|(name, _)| *name).collect();
    let columns = rows
        .iter()
        .map(|(_, images)| images.size().first().copied().unwrap_or(0))
        .max()
        .unwrap_or(0);
    let mut alt = format!("Rows of {columns} digits: {}", names.join(", "));
    if !captions.is_empty() {
        alt = format!("{alt}; the columns are {}", captions.join(", "));
    }
    let images = || -> Result<Vec<Vec<u8>>> {
        rows.iter()
            .map(|(name, images)| {
                grey_bytes(images).map_err(|error| error.context(format!("in the row {name:?}")))
            })
            .collect()
    };
    Figure::new(
        images().and_then(|images| draw(&images, &names, captions)),
        alt,
    )
}

/// Digits in a grid, from left to right and from top to bottom.
///
/// The tensor is `(N, 1, 28, 28)` in `[0, 1]`.
pub fn grid(images: &Tensor, columns: usize) -> Figure {
    let draw = || {
        let bytes = grey_bytes(images)?;
        ensure!(
            (1..=MOST as usize).contains(&columns),
            "a grid of {columns} columns cannot be drawn; expected 1 to {MOST}"
        );
        let rows: Vec<Vec<u8>> = bytes
            .chunks(columns * (SIDE * SIDE) as usize)
            .map(<[u8]>::to_vec)
            .collect();
        draw(&rows, &[], &[])
    };
    Figure::new(
        draw(),
        format!("A grid of {} digits", images.size().first().unwrap_or(&0)),
    )
}

/// Grids of digits one after the other, as a GIF that goes on from its beginning. Every tensor is `(N, 1, 28, 28)` in
/// `[0, 1]`; the last picture stays for two seconds.
pub fn animation(frames: &[Tensor], columns: usize) -> Figure {
    let draw = || {
        ensure!(
            !frames.is_empty() && (1..=MOST as usize).contains(&columns),
            "an animation needs at least one frame and a column; got {} and {columns}",
            frames.len()
        );
        let grids: Vec<(Vec<u8>, usize, usize)> = frames
            .iter()
            .map(|frame| Ok(grey_grid(&grey_bytes(frame)?, columns, 2)))
            .collect::<Result<_>>()?;
        let sizes = |(_, width, height): &(Vec<u8>, usize, usize)| (*width, *height);
        ensure!(
            grids.windows(2).all(|two| sizes(&two[0]) == sizes(&two[1])),
            "the frames of an animation must hold equally many digits"
        );
        gif(&grids)
    };
    let digits = frames
        .first()
        .map_or(0, |frame| frame.size().first().copied().unwrap_or(0));
    Figure::new(draw(), format!("An animation of {digits} digits"))
}

/// Digits in a line as a PNG of one pixel for each of theirs, as an address that holds the picture itself. A page
/// enlarges it.
pub(crate) fn line_of_digits(images: &Tensor) -> Result<String> {
    let bytes = grey_bytes(images)?;
    let (grey, width, height) = grey_grid(&bytes, images.size()[0] as usize, 1);
    let rgb: Vec<u8> = grey.iter().flat_map(|&grey| [grey; 3]).collect();
    Ok(png(&rgb, width as u32, height as u32)?.address())
}

/// Digits in a grid, each of their pixels a square of `zoom` pixels, as grey bytes with width and height.
fn grey_grid(digits: &[u8], columns: usize, zoom: usize) -> (Vec<u8>, usize, usize) {
    let (side, gap) = (zoom * SIDE as usize, zoom);
    let digits: Vec<&[u8]> = digits.chunks((SIDE * SIDE) as usize).collect();
    let width = columns.min(digits.len()) * (side + gap) + gap;
    let height = digits.len().div_ceil(columns) * (side + gap) + gap;
    let mut grey = vec![255u8; width * height];
    for (at, digit) in digits.iter().enumerate() {
        let left = gap + at % columns * (side + gap);
        let top = gap + at / columns * (side + gap);
        for (y, row) in digit.chunks(SIDE as usize).enumerate() {
            for (x, &value) in row.iter().enumerate() {
                for line in 0..zoom {
                    let at = (top + zoom * y + line) * width + left + zoom * x;
                    grey[at..at + zoom].fill(value);
                }
            }
        }
    }
    (grey, width, height)
}

/// Grey pictures of one size as a GIF of 32 greys, which is half the size of one with all 256.
fn gif(frames: &[(Vec<u8>, usize, usize)]) -> Result<Picture> {
    const HUNDREDTHS: (u16, u16) = (8, 200);
    let Some((_, width, height)) = frames.first() else {
        bail!("there is nothing to animate")
    };
    let palette: Vec<u8> = (0..32u8)
        .flat_map(|grey| [grey * 8 + grey / 4; 3])
        .collect();
    let mut bytes = Vec::new();
    let size = (u16::try_from(*width)?, u16::try_from(*height)?);
    let mut encoder = gif::Encoder::new(&mut bytes, size.0, size.1, &palette)?;
    encoder.set_repeat(gif::Repeat::Infinite)?;
    for (at, (grey, _, _)) in frames.iter().enumerate() {
        let is_last = at + 1 == frames.len();
        let indices: Vec<u8> = grey.iter().map(|grey| grey / 8).collect();
        let frame = gif::Frame {
            delay: if is_last { HUNDREDTHS.1 } else { HUNDREDTHS.0 },
            ..gif::Frame::from_indexed_pixels(size.0, size.1, indices, None)
        };
        encoder.write_frame(&frame)?;
    }
    drop(encoder);
    Ok(Picture {
        mime: Mime::Gif,
        bytes,
        width: *width as u32,
    })
}

/// More digits than this make no picture that one can look at.
const MOST: i64 = 2_000;

/// The images of a tensor as bytes, one after the other.
fn grey_bytes(images: &Tensor) -> Result<Vec<u8>> {
    let shape = images.size();
    ensure!(
        shape.len() == 4 && shape[0] > 0 && shape[1..] == [1, SIDE, SIDE],
        "a picture of digits takes a tensor of shape (N, 1, 28, 28); this one has {shape:?}"
    );
    ensure!(
        shape[0] <= MOST,
        "{} digits are too many for one picture; expected at most {MOST}",
        shape[0]
    );
    let bytes = (images.detach().to_kind(Kind::Float).clamp(0.0, 1.0) * 255.0)
        .round()
        .to_kind(Kind::Uint8);
    Ok(Vec::<u8>::try_from(bytes.contiguous().view(-1))?)
}

/// Draws rows of digits with names on the left and captions above.
fn draw(rows: &[Vec<u8>], names: &[&str], captions: &[&str]) -> Result<Picture> {
    register_font()?;
    let pixels = (SIDE * SIDE) as usize;
    let columns = rows.iter().map(|row| row.len() / pixels).max().unwrap_or(0);
    ensure!(
        columns > 0,
        "there is nothing to draw; expected at least one row with one digit"
    );
    let fineness = FINENESS as i32;
    // An even number of PNG pixels for each of the digit's, so that it is whole on the page, too.
    let zoom = (WIDTH / (columns as i32 * SIDE as i32)).clamp(1, 3) * fineness;
    let side = zoom * SIDE as i32;
    let style = ("sans-serif", TEXT * fineness)
        .into_font()
        .color(&TEXT_COLOUR);
    let text_width = |text: &&str| {
        style
            .font
            .box_size(text)
            .map_or(0, |(width, _)| width as i32)
    };
    let names_width = names
        .iter()
        .map(text_width)
        .max()
        .map_or(0, |width| width + 3 * GAP);
    let captions_height = if captions.is_empty() {
        0
    } else {
        (TEXT + 7) * fineness
    };
    let width = names_width + GAP + columns as i32 * (side + GAP);
    let height = captions_height + GAP + rows.len() as i32 * (side + GAP);

    let mut rgb = vec![255u8; (3 * width * height) as usize];
    for (row, bytes) in rows.iter().enumerate() {
        for (column, digit) in bytes.chunks(pixels).enumerate() {
            let left = names_width + GAP + column as i32 * (side + GAP);
            let top = captions_height + GAP + row as i32 * (side + GAP);
            for y in 0..side {
                for x in 0..side {
                    let value = digit[((y / zoom) * SIDE as i32 + x / zoom) as usize];
                    let at = 3 * ((top + y) * width + left + x) as usize;
                    rgb[at..at + 3].fill(value);
                }
            }
        }
    }
    {
        let area =
            BitMapBackend::with_buffer(&mut rgb, (width as u32, height as u32)).into_drawing_area();
        let left = style.pos(Pos::new(HPos::Left, VPos::Center));
        for (row, name) in names.iter().enumerate() {
            let middle = captions_height + GAP + row as i32 * (side + GAP) + side / 2;
            area.draw_text(name, &left, (GAP, middle))
                .map_err(|error| anyhow!("{error}"))?;
        }
        let centred = style.pos(Pos::new(HPos::Center, VPos::Center));
        for (column, caption) in captions.iter().enumerate().take(columns) {
            let middle = names_width + GAP + column as i32 * (side + GAP) + side / 2;
            area.draw_text(caption, &centred, (middle, captions_height / 2 + GAP / 2))
                .map_err(|error| anyhow!("{error}"))?;
        }
        area.present().map_err(|error| anyhow!("{error}"))?;
    }
    png(&rgb, width as u32, height as u32)
}
