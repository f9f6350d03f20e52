//! What all plots drawn as an SVG share: their sizes, their page and their lines of text.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::font;
use crate::picture::{FINENESS, Mime, Picture};

// All lengths are in units of the picture, of which FINENESS make one pixel on the page.
pub(super) const WIDTH: i32 = 680 * FINENESS;
/// The height of a plot whose texts need one line each; longer texts make it higher.
pub(super) const HEIGHT: i32 = 430 * FINENESS;
/// The least height of what is drawn between the texts.
pub(super) const LEAST: i32 = 220 * FINENESS;
pub(super) const MARGIN: i32 = 12 * FINENESS;
pub(super) const GAP: i32 = 8 * FINENESS;
/// Sizes of text and heights of their lines.
pub(super) const TITLE: i32 = 26 * FINENESS;
pub(super) const TITLE_LINE: i32 = 30 * FINENESS;
pub(super) const TEXT: i32 = 22 * FINENESS;
pub(super) const LINE: i32 = 25 * FINENESS;
pub(super) const GRID: RGBColor = RGBColor(228, 228, 228);

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub(super) type Drawn<'a> =
    Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

/// A white page of this size with a drawing on it.
pub(super) fn picture(
    (width, height): (i32, i32),
    draw: impl for<'a, 'b> FnOnce(&'a Area<'b>) -> Drawn<'b>,
) -> Result<Picture> {
    let mut text = String::new();
    {
        let size = (width as u32, height as u32);
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        area.fill(&WHITE)
            .and_then(|()| draw(&area))
            .and_then(|()| area.present())
            .map_err(|error| anyhow!("{error}"))?;
    }
    // Outside a page the picture has the same size as inside.
    for (name, length) in [("width", width), ("height", height)] {
        let of = format!("{name}=\"{length}\"");
        text = text.replacen(&of, &format!("{name}=\"{}\"", length / FINENESS), 1);
    }
    Ok(Picture {
        mime: Mime::Svg,
        bytes: text.into_bytes(),
        width: (width / FINENESS) as u32,
    })
}

/// Lines of text, one below the other.
pub(super) fn draw_lines<'b>(
    area: &Area<'b>,
    lines: &[String],
    (size, height): (i32, i32),
    colour: &RGBColor,
    left: i32,
    top: i32,
) -> Drawn<'b> {
    let style = font::style(size, colour).pos(Pos::new(HPos::Left, VPos::Center));
    for (text, at) in lines.iter().zip(0..) {
        area.draw_text(text, &style, (left, top + at * height + height / 2))?;
    }
    Ok(())
}
