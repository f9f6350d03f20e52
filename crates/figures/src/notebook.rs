//! The only place that writes the kernel's rich output.
//!
//! The kernel reads a cell's stdout: it shows what stands between the two marker lines as the
//! MIME type that the first line names, and everything else as text.

use std::collections::HashSet;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

/// What a cell has shown until now.
///
/// The kernel shows one content of each type for a cell, the last one, so each output is written with all before it.
#[derive(Default)]
struct Shown {
    /// Which cell that was.
    cell: Option<usize>,
    /// HTML and text of each output.
    outputs: Vec<(String, String)>,
}

static SHOWN: Mutex<Shown> = Mutex::new(Shown {
    cell: None,
    outputs: Vec::new(),
});

/// Shows HTML below what the cell has shown already, with a text for readers that show no HTML.
pub(crate) fn show(html: String, plain: &str) {
    let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let cell = this_cell();
    if cell.is_none() || cell != shown.cell {
        *shown = Shown {
            cell,
            outputs: Vec::new(),
        };
    }
    // A single text needs no HTML.
    let only_text = shown.outputs.is_empty() && html.starts_with("<pre>");
    shown.outputs.push((html, plain.to_owned()));
    let (html, plain) = together(&shown.outputs);
    let contents = [("text/html", html.as_str()), ("text/plain", plain.as_str())];
    write(if only_text { &contents[1..] } else { &contents });
}

/// Tells the cells of a notebook apart: how many libraries this process has loaded, since every cell is one more. `None` where
/// the system does not tell; a cell then shows its last output only, as the kernel does by itself.
fn this_cell() -> Option<usize> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let libraries = maps.lines().filter_map(|line| {
        // Addresses, rights, offset, device, inode, path.
        let (inode, path) = (line.split_whitespace().nth(4)?, line.find('/')?);
        line[path..].contains(".so").then(|| (inode, &line[path..]))
    });
    Some(libraries.collect::<HashSet<_>>().len())
}

/// Outputs below each other, as HTML and as text.
fn together(shown: &[(String, String)]) -> (String, String) {
    if let [one] = shown {
        return one.clone();
    }
    let blocks = shown.iter().map(|(html, _)| format!("<div>{html}</div>"));
    let texts: Vec<&str> = shown.iter().map(|(_, text)| text.as_str()).collect();
    (blocks.collect(), texts.join("\n"))
}

/// Whether this process runs the cells of a notebook.
pub fn in_notebook() -> bool {
    std::env::var_os("EVCXR_IS_RUNTIME").is_some()
}

/// Whether a notebook is run from top to bottom with no person in front of it, as tests do. Code that
/// would show something that changes can then wait, and show its last state.
///
/// The environment variable `FIGURES_UNATTENDED` says so.
pub fn is_unattended() -> bool {
    std::env::var_os("FIGURES_UNATTENDED").is_some()
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
    // A closed notebook is no reason to panic.
    let _ = stdout
        .write_all(block.as_bytes())
        .and_then(|()| stdout.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_stand_below_each_other_in_order() {
        let outputs = [("<img>", "a seven"), ("<table></table>", "a table")];
        let outputs = outputs.map(|(html, text)| (html.to_owned(), text.to_owned()));
        let (html, text) = together(&outputs);
        assert_eq!(html, "<div><img></div><div><table></table></div>");
        assert_eq!(text, "a seven\na table");
        assert_eq!(together(&outputs[..1]), outputs[0]);
    }
}
