//! Grids of images one after the other.

use anyhow::{Result, bail, ensure};
use tch::Tensor;

use super::pixels::{Canvas, MOST, Pixels};
use crate::output::Output;
use crate::picture::{Mime, Picture};

/// How long a frame is shown, and the last one, in hundredths of a second.
const DELAYS: (u16, u16) = (8, 200);

/// Grids of images one after the other, as a GIF that repeats. Every tensor is `(N, 1, H, W)` in `[0, 1]`, of the
/// same shape; the last frame stays for two seconds.
pub fn animation(frames: &[Tensor], columns: usize) -> Output {
    let images = frames
        .first()
        .map_or(0, |frame| frame.size().first().copied().unwrap_or(0));
    Output::picture(
        draw(frames, columns),
        format!("An animation of {images} images"),
    )
}

fn draw(frames: &[Tensor], columns: usize) -> Result<Picture> {
    ensure!(
        !frames.is_empty() && (1..=MOST).contains(&columns),
        "an animation needs at least one frame and 1 to {MOST} columns; got {} and {columns}",
        frames.len()
    );
    for frame in frames {
        ensure!(
            frame.size() == frames[0].size(),
            "the frames of an animation must have one shape; got {:?} and {:?}",
            frames[0].size(),
            frame.size()
        );
    }
    let canvases: Vec<Canvas> = frames
        .iter()
        .map(|frame| {
            let pixels = Pixels::of(frame)?;
            let zoom = (56 / pixels.height.max(pixels.width)).max(1);
            Canvas::grid(&pixels, columns, zoom)
        })
        .collect::<Result<_>>()?;
    gif(&canvases, [0; 3])
}

/// Pictures of one size as a GIF of 32 shades, from this colour in place of black to white: half the size of one with all 256.
pub(crate) fn gif(frames: &[Canvas], dark: [u8; 3]) -> Result<Picture> {
    let Some(first) = frames.first() else {
        bail!("there is nothing to animate")
    };
    let palette: Vec<u8> = (0..32u16)
        .flat_map(|shade| dark.map(|dark| dark + ((255 - u16::from(dark)) * shade / 31) as u8))
        .collect();
    let mut bytes = Vec::new();
    let (Ok(width), Ok(height)) = (u16::try_from(first.width), u16::try_from(first.height)) else {
        bail!(
            "an animation of {} by {} pixels is too large; a GIF has at most {} on a side: use other columns or smaller images",
            first.width,
            first.height,
            u16::MAX
        )
    };
    let mut encoder = gif::Encoder::new(&mut bytes, width, height, &palette)?;
    encoder.set_repeat(gif::Repeat::Infinite)?;
    for (at, canvas) in frames.iter().enumerate() {
        let is_last = at + 1 == frames.len();
        let indices: Vec<u8> = canvas.grey.iter().map(|grey| grey / 8).collect();
        let frame = gif::Frame {
            delay: if is_last { DELAYS.1 } else { DELAYS.0 },
            ..gif::Frame::from_indexed_pixels(width, height, indices, None)
        };
        encoder.write_frame(&frame)?;
    }
    drop(encoder);
    Ok(Picture {
        mime: Mime::Gif,
        bytes,
        width: first.width as u32,
    })
}
