//! Figures: rows and grids of digits, curves, histograms, clouds of points.
//!
//! A [`Figure`] owns its bytes and its alt text, so it outlives the cell that made it, can be
//! shown again, and saved. Digits are PNG, each pixel a square (never interpolated), twice as fine as
//! they are shown, so that they stay sharp on a slide. Lines are SVG. Both are handed to the notebook as
//! an `<img>`: that carries an alt text, and it also shows in a notebook that is not trusted yet.

mod digits;
mod plot;

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

pub(crate) use digits::line_of_digits;
pub use digits::{animation, grid, rows, rows_with_captions};
pub use plot::{Series, curve, histogram, scatter};

/// How many pixels of a PNG make one pixel on the page.
pub(crate) const FINENESS: u32 = 2;

/// A picture with its alt text; the last value of a cell is shown inline.
///
/// Functions that draw give a `Figure` and not a `Result`, since a notebook shows what a cell's last
/// expression *is*: a figure that could not be drawn says so where it would have been shown, and
/// [`save`](Figure::save) gives its error.
pub struct Figure {
    picture: Result<Picture>,
    alt: String,
}

/// The bytes of a picture.
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    pub(crate) mime: Mime,
    pub(crate) bytes: Vec<u8>,
    /// Width on the page, in pixels.
    pub(crate) width: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mime {
    Png,
    Svg,
    Gif,
}

impl Mime {
    fn name(self) -> &'static str {
        match self {
            Mime::Png => "image/png",
            Mime::Svg => "image/svg+xml",
            Mime::Gif => "image/gif",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Mime::Png => "png",
            Mime::Svg => "svg",
            Mime::Gif => "gif",
        }
    }
}

impl Picture {
    /// An address that holds the picture itself.
    pub(crate) fn address(&self) -> String {
        let bytes = STANDARD.encode(&self.bytes);
        format!("data:{};base64,{bytes}", self.mime.name())
    }
}

/// In short, without the bytes.
///
/// In a notebook it shows the picture, too: where a cell's first version does not compile (a `?` too
/// many, a variable that was moved), evcxr mends the cell by itself and then shows its last value
/// with `{:?}`. A learner should see the picture all the same.
impl fmt::Debug for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if crate::show::in_notebook() {
            self.evcxr_display();
        }
        write!(f, "Figure({:?})", self.alt)
    }
}

impl Figure {
    pub(crate) fn new(picture: Result<Picture>, alt: impl Into<String>) -> Figure {
        Figure {
            picture,
            alt: alt.into(),
        }
    }

    /// The same figure with another alt text: what somebody who cannot see it should know.
    pub fn alt(self, text: &str) -> Figure {
        Figure {
            alt: text.to_owned(),
            ..self
        }
    }

    /// The alt text.
    pub fn alt_text(&self) -> &str {
        &self.alt
    }

    /// Saves the picture; digits are `.png`, lines are `.svg`, animations `.gif`.
    ///
    /// # Errors
    /// When the figure could not be drawn, the file's extension is another one, or it cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let (picture, path) = (self.drawn()?, path.as_ref());
        let expected = picture.mime.extension();
        if path
            .extension()
            .is_none_or(|extension| extension != expected)
        {
            bail!(
                "this figure is {}; expected a file name that ends in .{expected}, got {}",
                picture.mime.name(),
                path.display()
            );
        }
        crate::model::write_whole(path, &picture.bytes)
    }

    /// The picture as HTML: an `<img>` that carries its bytes and its alt text.
    ///
    /// # Errors
    /// When the figure could not be drawn.
    pub fn html(&self) -> Result<String> {
        let picture = self.drawn()?;
        Ok(format!(
            "<img src=\"{}\" alt=\"{}\" width=\"{}\" style=\"max-width:100%;height:auto;background:white\">",
            picture.address(),
            crate::show::escape(&self.alt),
            picture.width,
        ))
    }

    /// Shows the figure in a notebook.
    pub fn evcxr_display(&self) {
        match self.html() {
            Ok(html) => crate::show::html(&html, &self.alt),
            Err(error) => eprintln!("This figure could not be drawn: {error:#}"),
        }
    }

    fn drawn(&self) -> Result<&Picture> {
        // The stored error cannot be cloned; its whole chain of causes is told again.
        self.picture
            .as_ref()
            .map_err(|error| anyhow::anyhow!("{error:#}"))
    }
}

/// The font of every text in every picture: `sans-serif` is DejaVu Sans, drawn by plotters itself,
/// so that pictures look the same on machines with other fonts or none.
pub(crate) fn register_font() -> Result<()> {
    static FONT: &[u8] = include_bytes!("../assets/DejaVuSans.ttf");
    plotters::style::register_font("sans-serif", plotters::style::FontStyle::Normal, FONT)
        .ok()
        .context("the built-in font cannot be read")
}

/// RGB bytes as a PNG; stored as grey where there is no colour.
pub(crate) fn png(rgb: &[u8], width: u32, height: u32) -> Result<Picture> {
    let is_grey = rgb
        .chunks_exact(3)
        .all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]);
    let grey: Vec<u8> = if is_grey {
        rgb.iter().step_by(3).copied().collect()
    } else {
        Vec::new()
    };
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(if is_grey {
        png::ColorType::Grayscale
    } else {
        png::ColorType::Rgb
    });
    encoder.set_compression(png::Compression::Balanced);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(if is_grey { &grey } else { rgb })?;
    writer.finish()?;
    Ok(Picture {
        mime: Mime::Png,
        bytes,
        width: width / FINENESS,
    })
}
