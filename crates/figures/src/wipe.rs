//! A wipe between two pictures.

use anyhow::{Result, ensure};
use tch::Tensor;

use crate::images::{line_of_images, rows};
use crate::output::Output;
use crate::page::interactive;

const SCRIPT: &str = include_str!("../assets/compare.js");

/// A wipe between two pictures of the same images: `compare(("noisy", &noisy), ("denoised", &denoised))`.
///
/// Both tensors are `(N, 1, H, W)` in `[0, 1]`. The first lies below; a slider draws the second over it
/// from the left.
pub fn compare(below: (&str, &Tensor), above: (&str, &Tensor)) -> Output {
    Output::from_html(
        page(below, above),
        format!(
            "Two pictures of the same images, {} and {}, and a wipe between them",
            below.0, above.0
        ),
    )
}

fn page(below: (&str, &Tensor), above: (&str, &Tensor)) -> Result<String> {
    ensure!(
        below.1.size() == above.1.size(),
        "a wipe takes two tensors of one shape; got {:?} and {:?}",
        below.1.size(),
        above.1.size()
    );
    let data = serde_json::json!({
        "names": [below.0, above.0],
        "pictures": [line_of_images(below.1)?, line_of_images(above.1)?],
    });
    let still = rows(&[below, above]).html()?;
    Ok(interactive("", &still, &data.to_string(), SCRIPT))
}
