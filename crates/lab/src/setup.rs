//! `lab setup`: whatever is missing, and nothing that is there.

use std::fs::{self, File};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::layout::Layout;
use crate::parts::{Finding, Options, PARTS, Part};
use crate::tools;

/// Goes through the parts; a line for each, with the time it took.
pub fn setup(layout: &Layout, options: &Options) -> Result<()> {
    let began = Instant::now();
    for part in PARTS {
        let start = Instant::now();
        let text = ready(part, layout, options)
            .with_context(|| format!("set-up stopped at `{}`", part.name))?;
        println!(
            "{:<9} {text} [{}]",
            part.name,
            tools::seconds(start.elapsed())
        );
    }
    println!("set-up is complete [{}]", tools::seconds(began.elapsed()));
    Ok(())
}

fn ready(part: &Part, layout: &Layout, options: &Options) -> Result<String> {
    // A folder that was named on purpose is looked at even when there is a set already.
    let named = part.name == "mnist" && options.mnist.is_some();
    let reason = match (part.check)(layout, false)? {
        Finding::Found(text) if !named => return Ok(text),
        Finding::Found(_) => "from the folder you named".to_owned(),
        Finding::Missing(text) | Finding::Wrong(text) => text,
    };
    println!("{:<9} {reason}", part.name);
    let _turn = turn(&if part.shared {
        layout.cache.clone()
    } else {
        layout.target()
    })?;
    // Somebody else's set-up may have made it while we waited.
    if let (Finding::Found(text), false) = ((part.check)(layout, false)?, named) {
        return Ok(text);
    }
    (part.make)(layout, options)?;
    match (part.check)(layout, false)? {
        Finding::Found(text) => Ok(text),
        Finding::Missing(text) | Finding::Wrong(text) => bail!("made, but still not right: {text}"),
    }
}

/// One run at a time works in a folder: a set-up in the clone's or in the cache that clones share, or the measurements.
pub fn turn(folder: &Path) -> Result<File> {
    fs::create_dir_all(folder).with_context(|| {
        format!(
            "cannot make {}: change its permissions (DIFFUSION_CACHE names another cache)",
            folder.display()
        )
    })?;
    let path = folder.join("setup.lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    if file.try_lock().is_err() {
        println!(
            "  another run is at work in {}; waiting for it",
            folder.display()
        );
        file.lock()
            .with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}
