//! The one type for what a cell shows.

use std::fmt;
use std::path::Path;

use anyhow::{Result, anyhow, bail};

use crate::file::write_whole;
use crate::notebook;
use crate::picture::Picture;
use crate::text::escape;

/// What a cell shows: HTML with a text beside it. The last value of a cell is shown inline.
///
/// An output owns all it shows, so it outlives the cell that made it, can be shown again, and, if it is
/// a picture, saved. A picture is an `<img>` that holds its own bytes: that carries an alt text, and it
/// also shows in a notebook that is not trusted yet.
///
/// Functions that draw return an `Output` and not a `Result`, since a notebook shows what a cell's last
/// expression *is*. An output that could not be made says so where it would have been shown, and
/// [`html`](Output::html) and [`save`](Output::save) return its error.
#[derive(Clone)]
pub struct Output {
    /// The error is kept as the text of its whole chain.
    content: Result<Content, String>,
    text: String,
}

#[derive(Clone)]
enum Content {
    Picture(Picture),
    Html(String),
    /// Nothing but the text.
    Plain,
}

impl Output {
    fn new(content: Result<Content>, text: String) -> Output {
        Output {
            content: content.map_err(|error| format!("{error:#}")),
            text,
        }
    }

    /// A picture with its alt text.
    pub(crate) fn picture(picture: Result<Picture>, alt: impl Into<String>) -> Output {
        Output::new(picture.map(Content::Picture), alt.into())
    }

    /// HTML, and a text for readers that show no HTML. The HTML should need nothing from elsewhere.
    pub fn from_html(html: Result<String>, text: impl Into<String>) -> Output {
        Output::new(html.map(Content::Html), text.into())
    }

    /// A text alone.
    pub fn plain(text: impl Into<String>) -> Output {
        Output::new(Ok(Content::Plain), text.into())
    }

    /// The same output with another text: for a picture, what a person who cannot see it should know.
    #[must_use]
    pub fn alt(self, text: &str) -> Output {
        Output {
            text: text.to_owned(),
            ..self
        }
    }

    /// The text beside the HTML: a picture's alt text, a table as lines.
    pub fn alt_text(&self) -> &str {
        &self.text
    }

    /// The output as HTML that needs nothing else.
    ///
    /// # Errors
    /// When the output could not be made.
    pub fn html(&self) -> Result<String> {
        Ok(match self.content()? {
            Content::Picture(picture) => format!(
                "<img src=\"{}\" alt=\"{}\" width=\"{}\" style=\"max-width:100%;height:auto;background:white\">",
                picture.address(),
                escape(&self.text),
                picture.width,
            ),
            Content::Html(html) => html.clone(),
            Content::Plain => format!("<pre>{}</pre>", escape(&self.text)),
        })
    }

    /// Saves a picture: images are `.png`, plots of lines and bars `.svg`, animations `.gif`. The file
    /// is there whole or not at all.
    ///
    /// # Errors
    /// When the output could not be made or is no picture, when the file's extension is another one, or
    /// when the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.save_to(path.as_ref())
    }

    fn save_to(&self, path: &Path) -> Result<()> {
        let Content::Picture(picture) = self.content()? else {
            bail!(
                "only pictures can be saved; this output is HTML or text (`html()` returns it as a string)"
            )
        };
        let expected = picture.mime.extension();
        if path
            .extension()
            .is_none_or(|extension| extension != expected)
        {
            bail!(
                "this picture is {}; expected a file name that ends in .{expected}, got {}",
                picture.mime.name(),
                path.display()
            );
        }
        write_whole(path, &picture.bytes)
    }

    /// Shows the output in a notebook, below what the cell has shown before; evcxr calls this for the last value of a cell.
    pub fn evcxr_display(&self) {
        match self.html() {
            Ok(html) => notebook::show(html, &self.text),
            Err(error) => eprintln!("This output could not be made: {error:#}"),
        }
    }

    fn content(&self) -> Result<&Content> {
        self.content.as_ref().map_err(|error| anyhow!("{error}"))
    }
}

/// The text.
impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// In short, without the bytes of a picture.
///
/// In a notebook this also shows the output: where the first version of a cell does not compile (a `?`
/// too many, a variable that was moved), evcxr changes the cell by itself and then shows its last value
/// with `{:?}`. A learner should see the picture all the same.
impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if notebook::in_notebook() {
            self.evcxr_display();
        }
        write!(f, "Output({:?})", self.text)
    }
}
