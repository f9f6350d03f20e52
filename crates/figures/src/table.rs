//! Small tables: HTML in a notebook, aligned text elsewhere.

use crate::output::Output;
use crate::text::escape;

/// A small table: `table(&["steps", "seconds"], rows, "On two cores.")`.
///
/// `head` names the columns, and `rows` holds the cells row by row. The first column is text and stands
/// on the left, the others are numbers and stand on the right. The caption stands below.
///
/// ```
/// let rows = vec![vec!["noisy".to_owned(), "9.38".to_owned()]];
/// let table = figures::table(&["", "PSNR, dB"], rows, "500 images.");
/// assert_eq!(table.to_string(), "       PSNR, dB\nnoisy      9.38\n500 images.");
/// ```
pub fn table(head: &[&str], rows: Vec<Vec<String>>, caption: &str) -> Output {
    table_with_bold(head, rows, &[], caption)
}

/// [`table`] with bold rows: row `i` is bold where `bold[i]` is true. Rows beyond the end of `bold` are not.
pub fn table_with_bold(
    head: &[&str],
    rows: Vec<Vec<String>>,
    bold: &[bool],
    caption: &str,
) -> Output {
    Output::from_html(
        Ok(html(head, &rows, bold, caption)),
        aligned(head, &rows, caption),
    )
}

fn html(head: &[&str], rows: &[Vec<String>], bold: &[bool], caption: &str) -> String {
    let head: String = head
        .iter()
        .map(|title| match title.is_empty() {
            true => "<td></td>".to_owned(), // for a screen reader an empty header is a fault
            false => format!("<th scope=\"col\">{}</th>", escape(title)),
        })
        .collect();
    let rows: String = rows
        .iter()
        .enumerate()
        .map(|(at, row)| html_row(row, bold.get(at).is_some_and(|&bold| bold)))
        .collect();
    format!(
        "<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table><p>{}</p>",
        escape(caption)
    )
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

/// The table as lines of text.
fn aligned(head: &[&str], rows: &[Vec<String>], caption: &str) -> String {
    let mut widths: Vec<usize> = head.iter().map(|title| title.chars().count()).collect();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (column, (cell, &width)) in cells.zip(&widths).enumerate() {
            text += &if column == 0 {
                format!("{cell:<width$}")
            } else {
                format!("  {cell:>width$}")
            };
        }
        text.trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut head.iter().copied());
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text + caption
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_up_and_escapes() {
        let rows = vec![
            vec!["noisy & raw".into(), "9.38 dB".into()],
            vec!["cnn".into(), "19.7 dB".into()],
        ];
        let table = table_with_bold(&["", "PSNR"], rows, &[false, true], "Means.");
        assert_eq!(
            table.to_string(),
            "                PSNR\nnoisy & raw  9.38 dB\ncnn          19.7 dB\nMeans."
        );
        let html = table.html().unwrap();
        assert!(html.contains(">noisy &amp; raw</td>"), "{html}");
        assert!(html.contains("<b>cnn</b>"), "{html}");
    }

    #[test]
    fn a_row_that_is_longer_than_the_head_is_shown_whole() {
        let rows = vec![vec!["a".into(), "1".into(), "2".into()]];
        assert_eq!(table(&["x"], rows, "c").to_string(), "x\na  1  2\nc");
    }
}
