//! The shape of what one image is between two layers: `(height, width, channels)` or `(numbers)`.

use std::fmt;

use anyhow::{Context, Result, ensure};

/// How many numbers a layer may put out for one image.
const LARGEST: i64 = 100_000_000;

/// Is this a shape: `(height, width, channels)` or `(numbers)`, not too large?
pub(super) fn check_shape(shape: &[i64]) -> Result<()> {
    ensure!(
        [1, 3].contains(&shape.len()) && shape.iter().all(|&size| size >= 1),
        "the shape {}; expected [height, width, channels] or [numbers], each 1 or more",
        Shape(shape)
    );
    numbers(shape).map(drop)
}

/// How many numbers a shape holds.
pub(super) fn numbers(shape: &[i64]) -> Result<i64> {
    let count = shape
        .iter()
        .try_fold(1i64, |all, &size| all.checked_mul(size));
    count.filter(|&count| count <= LARGEST).with_context(|| {
        format!(
            "{} comes out for one image; expected at most {} numbers",
            Shape(shape),
            Shape(&[LARGEST])
        )
    })
}

/// A shape as Keras writes it, without the batch: `(28, 28, 1)`.
pub(super) struct Shape<'a>(pub(super) &'a [i64]);

impl fmt::Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<String> = self.0.iter().map(i64::to_string).collect();
        match &sizes[..] {
            [size] => write!(f, "{size}"),
            sizes => write!(f, "({})", sizes.join(", ")),
        }
    }
}
