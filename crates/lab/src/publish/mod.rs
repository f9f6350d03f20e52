//! The notebooks as they are saved, as pages that need no network: a site and slides. Nothing is run.

use std::path::PathBuf;

use anyhow::Result;
use kernel::machine::layout::Layout;

use crate::notebooks::{become_program, out_folder, program};

/// Makes the static site of the notebooks as they are saved. Returns only if it cannot begin.
pub fn site(layout: &Layout, out: Option<PathBuf>) -> Result<()> {
    pages(layout, "site", "site_pages.py", out)
}

/// Makes slides of the notebooks as they are saved. Returns only if it cannot begin.
pub fn slides(layout: &Layout, out: Option<PathBuf>) -> Result<()> {
    pages(layout, "slides", "slides.py", out)
}

fn pages(layout: &Layout, kind: &str, maker: &str, out: Option<PathBuf>) -> Result<()> {
    let out = out_folder(out, layout, kind)?;
    let mut maker = program(layout, maker)?;
    let notebooks = layout.notebooks();
    become_program(
        maker
            .arg("--notebooks")
            .arg(notebooks)
            .arg("--out")
            .arg(out),
    )
}
