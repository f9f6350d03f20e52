//! The only place that writes the kernel's rich output.
//!
//! The kernel reads a cell's stdout: what stands between the two marker lines is shown as the
//! MIME type named, everything else as text.

use std::fmt;
use std::io::Write;

/// Shows text as a cell's value.
pub(crate) fn text(content: &str) {
    write(&[("text/plain", content)]);
}

/// Shows HTML as a cell's value, with a text for readers that show no HTML.
pub(crate) fn html(content: &str, plain: &str) {
    write(&[("text/html", content), ("text/plain", plain)]);
}

/// Whether this process runs a notebook's cells.
pub(crate) fn in_notebook() -> bool {
    std::env::var_os("EVCXR_IS_RUNTIME").is_some()
}

/// Whether a notebook is run from top to bottom with nobody in front of it, as tests do: what moves is then shown as it is
/// in the end.
pub(crate) fn nobody_watches() -> bool {
    std::env::var_os("DIFFUSION_NOBODY_WATCHES").is_some()
}

/// Writes everything at once, so that a thread that prints meanwhile cannot come between.
fn write(contents: &[(&str, &str)]) {
    let block: String = contents
        .iter()
        .map(|(mime, content)| {
            format!("EVCXR_BEGIN_CONTENT {mime}\n{content}\nEVCXR_END_CONTENT\n")
        })
        .collect();
    let mut stdout = std::io::stdout().lock();
    // A notebook that went away is no reason to panic.
    let _ = stdout
        .write_all(block.as_bytes())
        .and_then(|()| stdout.flush());
}

/// A small table: shown by a notebook as HTML, printed as text elsewhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Table {
    /// The columns' titles. The first column is text, the others are figures.
    pub head: Vec<&'static str>,
    /// The cells, row by row.
    pub rows: Vec<Vec<String>>,
    /// Which rows stand out; those beyond its end do not.
    pub bold: Vec<bool>,
    /// What stands below.
    pub caption: String,
}

impl Table {
    /// A table in which no row stands out.
    pub fn new(head: &[&'static str], rows: Vec<Vec<String>>, caption: &str) -> Table {
        Table {
            head: head.to_vec(),
            rows,
            bold: Vec::new(),
            caption: caption.to_owned(),
        }
    }

    /// Shows the table in a notebook.
    pub fn evcxr_display(&self) {
        let head: String = self
            .head
            .iter()
            .map(|title| match title.is_empty() {
                true => "<td></td>".to_owned(), // a header that says nothing is none
                false => format!("<th scope=\"col\">{}</th>", escape(title)),
            })
            .collect();
        let rows: String = self
            .rows
            .iter()
            .enumerate()
            .map(|(at, row)| html_row(row, self.bold.get(at).is_some_and(|&bold| bold)))
            .collect();
        let table = format!(
            "<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table><p>{}</p>",
            escape(&self.caption)
        );
        html(&table, &self.to_string());
    }
}

fn html_row(row: &[String], bold: bool) -> String {
    let cells = row.iter().enumerate().map(|(column, cell)| {
        let align = if column == 0 { "left" } else { "right" };
        let cell = escape(cell);
        let cell = if bold { format!("<b>{cell}</b>") } else { cell };
        format!("<td style=\"text-align:{align}\">{cell}</td>")
    });
    format!("<tr>{}</tr>", cells.collect::<String>())
}

/// As text. In a notebook it shows the table, too: where a cell moved a variable into it, evcxr mends the cell by itself
/// and then shows its last value with `{:?}`.
impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if in_notebook() {
            self.evcxr_display();
        }
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self
                .rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count());
            cells
                .chain([self.head[column].chars().count()])
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let mut line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut text = String::new();
            for (column, (cell, &width)) in cells.zip(&widths).enumerate() {
                text += &if column == 0 {
                    format!("{cell:<width$}")
                } else {
                    format!("  {cell:>width$}")
                };
            }
            writeln!(f, "{}", text.trim_end())
        };
        line(&mut self.head.iter().copied())?;
        for row in &self.rows {
            line(&mut row.iter().map(String::as_str))?;
        }
        write!(f, "{}", self.caption)
    }
}

/// Text that stands in HTML, in an attribute too.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// Checks an exercise: prints `Yes`, or `Not yet` with the hint of the first condition that fails.
///
/// ```
/// use diffusion::prelude::*;
///
/// let level = 0.7;
/// check(&[(level > 0.5, "choose a level above 0.5"), (level <= 1.0, "and at most 1.0")]);
/// ```
pub fn check(conditions: &[(bool, &str)]) {
    println!("{}", verdict(conditions));
}

fn verdict(conditions: &[(bool, &str)]) -> String {
    match conditions.iter().find(|(holds, _)| !holds) {
        None => "Yes — that is it.".to_owned(),
        Some((_, hint)) => format!("Not yet: {hint}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_up_and_escapes() {
        let table = Table {
            head: vec!["", "PSNR"],
            rows: vec![
                vec!["noisy & raw".into(), "9.38 dB".into()],
                vec!["cnn".into(), "19.7 dB".into()],
            ],
            bold: vec![false, true],
            caption: "Means.".into(),
        };
        assert_eq!(
            table.to_string(),
            "                PSNR\nnoisy & raw  9.38 dB\ncnn          19.7 dB\nMeans."
        );
        assert!(html_row(&table.rows[0], false).contains("noisy &amp; raw"));
    }

    #[test]
    fn a_check_names_the_first_hint_that_applies() {
        assert!(verdict(&[(true, "a"), (true, "b")]).starts_with("Yes"));
        assert_eq!(
            verdict(&[(true, "a"), (false, "b"), (false, "c")]),
            "Not yet: b"
        );
    }
}
