//! Memory aligned to cache lines.

use super::lanes::LANES;

/// Sixteen numbers, aligned to a cache line, which is also a register of AVX-512.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct CacheLine(#[allow(dead_code, reason = "read through pointers")] [f32; LANES]);

/// Room for at least this many numbers, all zero.
pub(crate) fn aligned_zeros(numbers: usize) -> Vec<CacheLine> {
    vec![CacheLine([0.0; LANES]); numbers.div_ceil(LANES)]
}
