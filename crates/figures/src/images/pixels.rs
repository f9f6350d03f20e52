//! The images of a tensor as bytes.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

/// The most images in one picture; with more, each is too small to see.
pub(super) const MOST: usize = 2_000;
/// The most pixels of a picture: more would take a browser seconds to show.
const MOST_PIXELS: usize = 20_000_000;

/// Grey images of one size.
pub(super) struct Pixels {
    /// The images one after the other, row by row; 0 black and 255 white.
    bytes: Vec<u8>,
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Pixels {
    /// The images of a tensor `(N, 1, H, W)`; values outside `[0, 1]` become the nearest of the two.
    pub(super) fn of(images: &Tensor) -> Result<Pixels> {
        let shape = images.size();
        ensure!(
            shape.len() == 4 && shape[1] == 1 && shape.iter().all(|&size| size > 0),
            "a picture of images takes a tensor of shape (N, 1, H, W) with at least one image; this one has {shape:?}"
        );
        ensure!(
            shape[0] as usize <= MOST,
            "{} images are too many for one picture; expected at most {MOST}",
            shape[0]
        );
        check_size(images.numel())?;
        let bytes = (images.detach().to_kind(Kind::Float).clamp(0.0, 1.0) * 255.0)
            .round()
            .to_kind(Kind::Uint8);
        Ok(Pixels {
            bytes: Vec::<u8>::try_from(bytes.contiguous().view(-1))?,
            height: shape[2] as usize,
            width: shape[3] as usize,
        })
    }

    /// How many images there are.
    pub(super) fn count(&self) -> usize {
        self.bytes.len() / (self.height * self.width)
    }

    /// Each image, row by row.
    pub(super) fn images(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks_exact(self.height * self.width)
    }

    /// The images in rows of `columns`.
    pub(super) fn in_rows_of(&self, columns: usize) -> Vec<Pixels> {
        let rows = self.bytes.chunks(columns * self.height * self.width);
        rows.map(|row| Pixels {
            bytes: row.to_vec(),
            ..*self
        })
        .collect()
    }
}

/// Fails for pictures that are too large to be shown.
pub(super) fn check_size(pixels: usize) -> Result<()> {
    ensure!(
        pixels <= MOST_PIXELS,
        "a picture of {pixels} pixels is too large; expected at most {MOST_PIXELS}: show fewer or smaller images"
    );
    Ok(())
}

/// Grey bytes with width and height.
pub(crate) struct Canvas {
    pub(crate) grey: Vec<u8>,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

impl Canvas {
    /// A white canvas.
    pub(crate) fn blank(width: usize, height: usize) -> Result<Canvas> {
        check_size(width.saturating_mul(height))?;
        Ok(Canvas {
            grey: vec![255; width * height],
            width,
            height,
        })
    }

    /// Puts an image of this width at a place, each of its pixels a square of `zoom` pixels: no interpolation.
    pub(super) fn put(&mut self, image: &[u8], width: usize, zoom: usize, left: usize, top: usize) {
        for (y, row) in image.chunks_exact(width).enumerate() {
            for (x, &value) in row.iter().enumerate() {
                for line in 0..zoom {
                    let at = (top + zoom * y + line) * self.width + left + zoom * x;
                    self.grey[at..at + zoom].fill(value);
                }
            }
        }
    }

    /// Images in a grid, from left to right and from top to bottom, with gaps as wide as one of their pixels.
    pub(super) fn grid(images: &Pixels, columns: usize, zoom: usize) -> Result<Canvas> {
        let (pitch_x, pitch_y) = (zoom * (images.width + 1), zoom * (images.height + 1));
        let width = columns.min(images.count()) * pitch_x + zoom;
        let height = images.count().div_ceil(columns) * pitch_y + zoom;
        let mut canvas = Canvas::blank(width, height)?;
        for (at, image) in images.images().enumerate() {
            let left = zoom + at % columns * pitch_x;
            let top = zoom + at / columns * pitch_y;
            canvas.put(image, images.width, zoom, left, top);
        }
        Ok(canvas)
    }

    /// Three equal bytes for each grey one.
    pub(super) fn rgb(&self) -> Vec<u8> {
        self.grey.iter().flat_map(|&grey| [grey; 3]).collect()
    }
}
