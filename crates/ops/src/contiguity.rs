//! A word for errors.

use tch::Tensor;

/// How the numbers of a tensor lie in memory, as a word for an error.
pub(crate) fn contiguity(tensor: &Tensor) -> &'static str {
    match tensor.is_contiguous() {
        true => "contiguous",
        false => "not contiguous",
    }
}
