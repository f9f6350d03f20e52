//! `lab doctor`: what is there, what is missing, and the fix.

use anyhow::Result;

use crate::setup::part::Finding;
use crate::setup::{PARTS, rehearsal};
use kernel::machine::layout::Layout;

/// A line for each part; true when all is well. `deep` also hashes libtorch.
pub fn doctor(layout: &Layout, deep: bool) -> Result<bool> {
    let mut well = true;
    for part in PARTS {
        let (state, text) = match (part.check)(layout, deep) {
            Ok(Finding::Found(text)) => ("found", text),
            Ok(Finding::Missing(text)) => ("MISSING", format!("{text}. Fix: `make lab`")),
            Ok(Finding::Wrong(text)) => ("WRONG", format!("{text}. Fix: `make lab`")),
            // These errors name their own fix.
            Err(error) => ("WRONG", format!("{error:#}")),
        };
        well &= state == "found";
        println!("{:<9} {state:<8} {text}", part.name);
    }
    for (speed_up, state) in rehearsal::speed_ups(layout) {
        println!("{:<9} {speed_up}: {state}", "speed-up");
    }
    println!("{:<9} {}", "clone", layout.root.display());
    println!("{:<9} {}", "cache", layout.cache.display());
    Ok(well)
}
