//! How much work a training is.

use ops::Precision;

use super::objective::Measures;

/// How much work a training is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Epochs in all.
    pub epochs: usize,
    /// Batches in an epoch, the last partial one included.
    pub batches: usize,
    /// Images to learn from.
    pub images: usize,
    /// Images held out.
    pub validation: usize,
    /// The precision.
    pub precision: Precision,
    /// What loss and score are called.
    pub measures: Measures,
}
