//! Which colour and which dashes a line has.

use anyhow::{Result, ensure};
use plotters::prelude::*;

/// Colours that people with any colour vision can tell apart: those of Okabe & Ito (2008) without yellow,
/// which is too pale for a line on white, and without orange, which resembles vermillion; instead wine
/// (Tol 2021).
pub(super) const BLUE: RGBColor = RGBColor(0, 114, 178);
pub(super) const VERMILLION: RGBColor = RGBColor(213, 94, 0);
const GREEN: RGBColor = RGBColor(0, 158, 115);
const PURPLE: RGBColor = RGBColor(204, 121, 167);
const WINE: RGBColor = RGBColor(136, 34, 85);
const SKY: RGBColor = RGBColor(86, 180, 233);
const BLACK: RGBColor = RGBColor(0, 0, 0);
const PALETTE: [RGBColor; 7] = [BLUE, VERMILLION, GREEN, PURPLE, WINE, SKY, BLACK];

/// Words that have a colour of their own in every picture: a line has it if its name begins with the word. This is a
/// palette; nothing else in this crate depends on the words, and a line can have any other name. Words with the same
/// colour name different kinds of things, which seldom share a picture; where they do, their dashes differ.
const WORDS: [(&str, RGBColor); 11] = [
    ("original", BLACK),
    ("clean", BLACK),
    ("noisy", VERMILLION),
    ("denoised", BLUE),
    ("cnn", BLUE),
    ("training", BLUE),
    ("validation", VERMILLION),
    ("median", SKY),
    ("gauss", PURPLE),
    ("diffusion", GREEN),
    ("u-net", WINE),
];

/// How a line is drawn. No two lines of a picture have the same look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) colour: RGBColor,
    pub(super) dash: Dash,
}

/// How a line is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dash {
    Solid,
    Dashed,
    Dotted,
}

const DASHES: [Dash; 3] = [Dash::Solid, Dash::Dashed, Dash::Dotted];

impl Look {
    /// The colour of text of this look: dark enough for a contrast of 4.5 to 1 on white (WCAG 2, criterion
    /// 1.4.3).
    pub(super) fn text_colour(self) -> RGBColor {
        let RGBColor(r, g, b) = self.colour;
        (0..=100)
            .rev()
            .map(|percent| {
                let darker = |part: u8| (u32::from(part) * percent / 100) as u8;
                RGBColor(darker(r), darker(g), darker(b))
            })
            .find(|&colour| contrast_on_white(colour) >= 4.5)
            .unwrap_or(BLACK)
    }
}

/// The contrast ratio of a colour to white (WCAG 2): 1 for white itself, 21 for black.
fn contrast_on_white(RGBColor(r, g, b): RGBColor) -> f64 {
    let linear = |part: u8| {
        let part = f64::from(part) / 255.0;
        if part <= 0.04045 {
            part / 12.92
        } else {
            ((part + 0.055) / 1.055).powf(2.4)
        }
    };
    1.05 / (0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b) + 0.05)
}

/// The looks of the lines of one picture. Names that begin with one of the [`WORDS`] come first; the other names take the next
/// colour that the picture does not use, and dashes once all colours are in use.
///
/// # Errors
/// More names than there are looks.
pub(super) fn of(names: &[&str]) -> Result<Vec<Look>> {
    let all = || {
        DASHES
            .into_iter()
            .flat_map(|dash| PALETTE.into_iter().map(move |colour| Look { colour, dash }))
    };
    ensure!(
        names.len() <= all().count(),
        "{} lines cannot be told apart in one plot; expected at most {}",
        names.len(),
        all().count()
    );
    let mut looks: Vec<Option<Look>> = vec![None; names.len()];
    for (at, name) in names.iter().enumerate() {
        let colour = colour_of(name);
        looks[at] = all().find(|look| Some(look.colour) == colour && !looks.contains(&Some(*look)));
    }
    for at in 0..names.len() {
        if looks[at].is_none() {
            looks[at] = all().find(|look| !looks.contains(&Some(*look)));
        }
    }
    Ok(looks.into_iter().flatten().collect())
}

fn colour_of(name: &str) -> Option<RGBColor> {
    let name = name.to_lowercase();
    let word = WORDS.iter().find(|(word, _)| name.starts_with(word));
    word.map(|(_, colour)| *colour)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_all_differ(names: &[&str]) {
        let looks = of(names).unwrap();
        assert_eq!(looks.len(), names.len());
        for (at, look) in looks.iter().enumerate() {
            assert!(!looks[..at].contains(look), "{}: {look:?}", names[at]);
        }
    }

    #[test]
    fn the_methods_of_one_comparison_differ_in_colour() {
        let methods = [
            "original",
            "noisy",
            "cnn",
            "median",
            "gaussian",
            "diffusion",
            "u-net",
        ];
        let looks = of(&methods).unwrap();
        for (at, look) in looks.iter().enumerate() {
            assert_eq!(look.dash, Dash::Solid);
            assert!(looks[..at].iter().all(|other| other.colour != look.colour));
        }
    }

    #[test]
    fn a_word_keeps_its_colour_wherever_it_stands() {
        for names in [
            ["diffusion", "one", "two"],
            ["one", "two", "Diffusion, mean of 8"],
        ] {
            let at = names
                .iter()
                .position(|name| colour_of(name).is_some())
                .unwrap();
            assert_eq!(of(&names).unwrap()[at].colour, GREEN);
            assert_all_differ(&names);
        }
    }

    #[test]
    fn two_lines_never_look_alike() {
        assert_all_differ(&["a", "noisy", "b", "cnn", "c", "median"]);
        assert_all_differ(&["noisy", "noisy, again", "noisy 3", "noisy 4", "validation"]);
        assert_all_differ(&["x"; 21]);
        assert!(of(&["x"; 22]).unwrap_err().to_string().contains("22 lines"));
    }

    #[test]
    fn names_can_be_read_on_white() {
        for colour in PALETTE {
            let text = Look {
                colour,
                dash: Dash::Solid,
            }
            .text_colour();
            assert!(contrast_on_white(text) >= 4.5, "{text:?}");
        }
        assert!((contrast_on_white(BLACK) - 21.0).abs() < 1e-9);
        assert!((contrast_on_white(WHITE) - 1.0).abs() < 1e-9);
    }
}
