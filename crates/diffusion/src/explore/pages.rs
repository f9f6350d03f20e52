//! What an explorer is made of, and how it becomes HTML.

use std::borrow::Borrow;
use std::fmt;

use anyhow::{Result, ensure};
use serde::Serialize;
use tch::Tensor;

use crate::figure::{Figure, line_of_digits};
use crate::show;

const SCRIPT: &str = include_str!("../../assets/explorer.js");
const STYLE: &str = include_str!("../../assets/explorer.css");

/// Everything that an explorer shows.
pub(super) struct Content {
    /// What stands there where scripts do not run.
    pub(super) still: Figure,
    pub(super) sliders: Vec<Slider>,
    pub(super) rows: Vec<Row>,
    /// One for each frame: the stops of the last slider first, as the digits of a counter.
    pub(super) captions: Vec<String>,
    /// Whether the first slider can move by itself.
    pub(super) play: bool,
}

#[derive(Serialize)]
pub(super) struct Slider {
    pub(super) name: &'static str,
    pub(super) stops: Vec<String>,
    /// The stop at which it stands at first.
    pub(super) first: usize,
}

/// A row of digits: one picture for all frames, or one for each.
#[derive(Serialize)]
pub(super) struct Row {
    name: &'static str,
    images: Vec<String>,
}

impl Row {
    pub(super) fn of<T: Borrow<Tensor>>(
        name: &'static str,
        frames: impl IntoIterator<Item = T>,
    ) -> Result<Row> {
        let images = frames
            .into_iter()
            .map(|digits| line_of_digits(digits.borrow()));
        Ok(Row {
            name,
            images: images.collect::<Result<_>>()?,
        })
    }
}

/// What the script reads.
#[derive(Serialize)]
struct Data<'a> {
    sliders: &'a [Slider],
    rows: &'a [Row],
    frames: &'a [String],
    play: bool,
}

/// A picture to play with; the last value of a cell is shown inline.
///
/// As with a [`Figure`], one that could not be made says so where it would have been shown.
pub struct Explorer {
    page: Result<String>,
    alt: &'static str,
}

impl Explorer {
    pub(super) fn new(content: Result<Content>, alt: &'static str) -> Explorer {
        Explorer::of(content.and_then(|content| page(content, alt)), alt)
    }

    pub(super) fn of(page: Result<String>, alt: &'static str) -> Explorer {
        Explorer { page, alt }
    }

    /// The explorer as HTML that needs nothing else.
    ///
    /// # Errors
    /// When it could not be made.
    pub fn html(&self) -> Result<&str> {
        self.page
            .as_deref()
            .map_err(|error| anyhow::anyhow!("{error:#}"))
    }

    /// Shows the explorer in a notebook.
    pub fn evcxr_display(&self) {
        match self.html() {
            Ok(html) => show::html(html, self.alt),
            Err(error) => eprintln!("This explorer could not be made: {error:#}"),
        }
    }
}

/// In short; in a notebook it shows the explorer, too, for the reason that [`Figure`]'s does.
impl fmt::Debug for Explorer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if show::in_notebook() {
            self.evcxr_display();
        }
        write!(f, "Explorer({:?})", self.alt)
    }
}

fn page(content: Content, alt: &str) -> Result<String> {
    let frames: usize = content
        .sliders
        .iter()
        .map(|slider| slider.stops.len())
        .product();
    let fits = |row: &Row| [1, frames].contains(&row.images.len());
    ensure!(
        content.captions.len() == frames && content.rows.iter().all(fits),
        "an explorer of {frames} frames needs a caption for each, and a picture in every row"
    );
    let data = serde_json::to_string(&Data {
        sliders: &content.sliders,
        rows: &content.rows,
        frames: &content.captions,
        play: content.play,
    })?;
    let still = content.still.alt(alt).html()?;
    Ok(framed("", &still, &data, SCRIPT))
}

/// A still picture, and a script that puts something better in its place, made of these data.
pub(super) fn framed(attributes: &str, still: &str, data: &str, script: &str) -> String {
    // Within a script nothing may look like its end.
    let data = data.replace("</", "<\\/");
    format!(
        "<div class=\"explorer\"{attributes}><style>{STYLE}</style><div class=\"still\">{still}</div>\
         <script type=\"application/json\">{data}</script><script>{script}</script></div>"
    )
}
