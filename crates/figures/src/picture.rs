//! The bytes of a picture.

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// How many units of a picture make one pixel on the page: pictures stay sharp on a slide, where they
/// are enlarged.
pub(crate) const FINENESS: i32 = 2;

/// A picture as it goes into a file or a page.
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
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mime::Png => "image/png",
            Mime::Svg => "image/svg+xml",
            Mime::Gif => "image/gif",
        }
    }

    pub(crate) fn extension(self) -> &'static str {
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

    /// RGB bytes as a PNG, shown [`FINENESS`] times smaller; stored as grey where there is no colour.
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
            width: width / FINENESS as u32,
        })
    }
}
