//! The font of every text in every picture, and how wide a text is in it.
//!
//! `sans-serif` is DejaVu Sans, which plotters measures and draws by itself, so that pictures look the
//! same on machines with other fonts or none. In an SVG the reader's own sans-serif is drawn; it is
//! rarely wider than DejaVu Sans.

use anyhow::{Context, Result};
use plotters::prelude::*;

/// The colour of text.
pub(crate) const INK: RGBColor = RGBColor(51, 51, 51);

/// Makes the font known to plotters; every drawing begins with this.
pub(crate) fn register() -> Result<()> {
    static FONT: &[u8] = include_bytes!("../assets/DejaVuSans.ttf");
    plotters::style::register_font("sans-serif", plotters::style::FontStyle::Normal, FONT)
        .ok()
        .context("the built-in font cannot be read")
}

/// A text's style in this size and colour.
pub(crate) fn style(size: i32, colour: &RGBColor) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(colour)
}

/// How wide a line of text is in this size.
pub(crate) fn width(text: &str, size: i32) -> i32 {
    ("sans-serif", size)
        .into_font()
        .box_size(text)
        .map_or(0, |(width, _)| width as i32 + 1)
}

/// The width of the widest of these lines.
pub(crate) fn widest<S: AsRef<str>>(lines: &[S], size: i32) -> i32 {
    let widths = lines.iter().map(|line| width(line.as_ref(), size));
    widths.max().unwrap_or(0)
}

/// A text in lines of at most this width: broken between words, and within a word that is wider.
pub(crate) fn wrap(text: &str, size: i32, most: i32) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        if let Some(line) = lines.last_mut() {
            let longer = format!("{line} {word}");
            if width(&longer, size) <= most {
                *line = longer;
                continue;
            }
        }
        lines.push(String::new());
        for letter in word.chars() {
            let Some(line) = lines.last_mut() else { break };
            let longer = format!("{line}{letter}");
            if line.is_empty() || width(&longer, size) <= most {
                *line = longer;
            } else {
                lines.push(letter.to_string());
            }
        }
    }
    lines
}

/// [`wrap`], with lines of similar width: as narrow as the same number of lines can be.
pub(crate) fn wrap_evenly(text: &str, size: i32, most: i32) -> Vec<String> {
    let lines = wrap(text, size, most);
    let (mut narrow, mut wide) = (0, most);
    while narrow + 1 < wide {
        let middle = (narrow + wide) / 2;
        match wrap(text, size, middle).len() <= lines.len() {
            true => wide = middle,
            false => narrow = middle,
        }
    }
    wrap(text, size, wide)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_broken_between_words_and_a_long_word_within() {
        register().unwrap();
        let lines = wrap("one two three four", 20, width("one two", 20));
        assert_eq!(lines, ["one two", "three", "four"]);
        let most = width("mmmm", 20);
        let lines = wrap("mmmmmmmmm a", 20, most);
        assert_eq!(lines, ["mmmm", "mmmm", "m a"]);
        assert!(wrap("", 20, most).is_empty());
        let most = width("one two three", 20);
        assert_eq!(
            wrap("one two three four", 20, most),
            ["one two three", "four"]
        );
        assert_eq!(
            wrap_evenly("one two three four", 20, most),
            ["one two", "three four"]
        );
    }
}
