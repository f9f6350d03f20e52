//! The only place that writes the kernel's rich output.
//!
//! The kernel reads a cell's stdout: it shows what stands between the two marker lines as the
//! MIME type that the first line names, and everything else as text.

use std::io::Write;

/// Shows text as a cell's value.
pub(crate) fn show_text(content: &str) {
    write(&[("text/plain", content)]);
}

/// Shows HTML as a cell's value, with a text for readers that show no HTML.
pub(crate) fn show_html(content: &str, plain: &str) {
    write(&[("text/html", content), ("text/plain", plain)]);
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
