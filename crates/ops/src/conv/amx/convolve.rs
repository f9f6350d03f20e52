//! The convolution itself: products of pixels, 32 at a time, with the kernel.
//!
//! The three neighbours in a line follow each other in memory, so they are one row of a tile each, or several if the channels
//! are many: `x[p + dy · line]` to `x[p + dy · line + 2]`, for 16 pixels `p` one below the other.

use std::arch::x86_64::*;
use std::ops::Range;

use super::flat::{BLOCK, Flat, Layout};
use super::tiles::{DEPTH, FACTORS, Factors, Multiply, SUMS, TILE, Tiles};
use super::vectors::{in_turn, transposed};
use crate::bfloat16::BFloat16;
use crate::conv::images::{Images, Sizes};
use crate::simd::aligned::{CacheLine, aligned_zeros};

/// A kernel as tiles take it: for sixteen outputs after another, for each line of a neighbourhood, the weights of the three
/// pixels in that line.
pub(super) struct Kernel {
    tiles: Vec<CacheLine>,
    from: usize,
    to: usize,
}

impl Kernel {
    /// Room for a kernel, all zero.
    fn zeros(from: usize, to: usize) -> Kernel {
        let tiles = to / TILE * 3 * Kernel::steps(from);
        Kernel {
            tiles: aligned_zeros(tiles * FACTORS / 2),
            from,
            to,
        }
    }

    /// Tiles for one line of a neighbourhood. The last one has zeros in its second half if the channels of three pixels do
    /// not fill it.
    fn steps(from: usize) -> usize {
        (3 * from).div_ceil(DEPTH)
    }

    /// The tiles for sixteen outputs from this one on, and one line of the neighbourhood.
    fn at(&self, output: usize, line: usize) -> *const BFloat16 {
        let tile = (output / TILE * 3 + line) * Kernel::steps(self.from);
        let tiles = self.tiles.as_ptr().cast::<BFloat16>();
        tiles.wrapping_add(tile * FACTORS)
    }

    /// The tiles of a kernel `(to, 3, 3, from)`.
    ///
    /// # Safety
    /// The kernel must have this shape.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn of(kernel: &[BFloat16], from: usize, to: usize) -> Kernel {
        let result = Kernel::zeros(from, to);
        for output in (0..to).step_by(TILE) {
            for line in 0..3 {
                let tiles = result.at(output, line).cast_mut();
                for weight in (0..3 * from).step_by(DEPTH) {
                    let words = ((3 * from - weight) / 2).min(TILE) as u32;
                    let mask = (u32::MAX >> (32 - words)) as __mmask16;
                    let rows = std::array::from_fn(|row| {
                        let at = ((output + row) * 3 + line) * 3 * from + weight;
                        // SAFETY: the mask hides what is no weight of this line.
                        unsafe {
                            let weights = kernel.as_ptr().add(at);
                            _mm512_maskz_loadu_epi32(mask, weights.cast())
                        }
                    });
                    for (row, weights) in transposed(rows).into_iter().enumerate() {
                        // SAFETY: within the tiles.
                        unsafe {
                            let to = tiles.add((weight + 2 * row) * TILE);
                            _mm512_storeu_si512(to.cast(), weights);
                        }
                    }
                }
            }
        }
        result
    }

    /// The tiles of a kernel `(from, 3, 3, to)` rotated by 180 degrees, with inputs and outputs swapped: the convolution with
    /// it is the gradient of the input.
    ///
    /// # Safety
    /// The kernel must have this shape.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn rotated(kernel: &[BFloat16], from: usize, to: usize) -> Kernel {
        let result = Kernel::zeros(from, to);
        for output in (0..to).step_by(TILE) {
            for line in 0..3 {
                let tiles = result.at(output, line).cast_mut();
                for pixel in 0..3 {
                    for input in (0..from).step_by(2) {
                        let at = ((input * 3 + 2 - line) * 3 + 2 - pixel) * to + output;
                        // SAFETY: within the kernel and the tiles.
                        unsafe {
                            let weights = kernel.as_ptr().add(at);
                            let weights = in_turn(weights, weights.add(9 * to));
                            let to = tiles.add((pixel * from + input) * TILE);
                            _mm512_storeu_si512(to.cast(), weights);
                        }
                    }
                }
            }
        }
        result
    }
}

/// Convolves some of the images `x`, which have `kernel.from` channels. `out` is `(N, H, W, kernel.to)`.
///
/// # Safety
/// The CPU must have AMX, and this process the right to use it. The images must be as large as `sizes` say, and `out` have
/// room for as much. No other thread may use these images of `out`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) unsafe fn convolve(
    sizes: &Sizes,
    images: Range<usize>,
    x: &Images<BFloat16>,
    kernel: &Kernel,
    bias: &[f32],
    rectify: bool,
    out: *mut BFloat16,
) {
    let layout = Layout::of(sizes, images.len());
    let targets = layout.targets();
    let mut flat = Flat::new(&layout, kernel.from);
    let least = if rectify { 0.0 } else { f32::NEG_INFINITY };
    // SAFETY: as the caller promises.
    let tiles = unsafe { Tiles::configure() };
    for start in images.clone().step_by(layout.slots) {
        let here = layout.slots.min(images.end - start);
        // SAFETY: as the caller promises. Slots that a last group does not fill have old numbers, and their results are not
        // used.
        unsafe {
            (0..here).for_each(|slot| flat.read(slot, x, start + slot));
            let group = Group {
                tiles: &tiles,
                flat: &flat,
                line: layout.line,
                targets: &targets[..layout.blocks(here) * BLOCK],
                pixels: here * sizes.pixels(),
                kernel,
                bias,
                least,
                out: out.add(start * sizes.pixels() * kernel.to),
            };
            let pairs = kernel.to / (2 * TILE) * (2 * TILE);
            for output in (0..pairs).step_by(2 * TILE) {
                group.compute::<2>(output);
            }
            if pairs < kernel.to {
                group.compute::<1>(pairs);
            }
        }
    }
}

/// A few images of a convolution, which lie in the buffer.
struct Group<'a> {
    tiles: &'a Tiles,
    flat: &'a Flat,
    /// Pixels from line to line.
    line: usize,
    /// The pixel of each output, see [`Layout::targets`]
    targets: &'a [usize],
    /// Pixels of the images in the buffer, without borders.
    pixels: usize,
    kernel: &'a Kernel,
    bias: &'a [f32],
    /// What is less becomes this.
    least: f32,
    out: *mut BFloat16,
}

impl Group<'_> {
    /// Computes `16 N` outputs of all pixels.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn compute<const N: usize>(&self, output: usize)
    where
        Factors<2, N>: Multiply,
    {
        let (from, to) = (self.kernel.from, self.kernel.to);
        let (mut start, mut sums) = ([[[0.0; SUMS]; N]; 2], Sums([[[0.0; SUMS]; N]; 2]));
        for row in &mut start {
            for (tile, bias) in row.iter_mut().zip(self.bias[output..].chunks_exact(TILE)) {
                tile.chunks_exact_mut(TILE)
                    .for_each(|row| row.copy_from_slice(bias));
            }
        }
        let least = _mm512_set1_ps(self.least);
        for (block, targets) in self.targets.chunks_exact(BLOCK).enumerate() {
            let factors = Factors {
                a: [0, TILE].map(|pixel| self.flat.at(block * BLOCK + pixel)),
                a_row: 2 * from,
                b: std::array::from_fn(|column| self.kernel.at(output + column * TILE, 0)),
                steps: Kernel::steps(from),
                lines: 3,
                line: self.line * 2 * from,
            };
            // SAFETY: the neighbourhoods of all blocks lie in the buffer.
            unsafe {
                factors.multiply(
                    self.tiles,
                    start.as_ptr().cast(),
                    sums.0.as_mut_ptr().cast(),
                )
            };
            for (at, target) in targets.iter().enumerate() {
                if *target >= self.pixels {
                    continue;
                }
                for column in 0..N {
                    // SAFETY: within the sums and the output.
                    unsafe {
                        let sums = sums.0[at / TILE][column].as_ptr().add(at % TILE * TILE);
                        let x = _mm512_max_ps(least, _mm512_loadu_ps(sums));
                        let x: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(x));
                        let to = self.out.add(target * to + output + column * TILE);
                        _mm256_storeu_si256(to.cast(), x);
                    }
                }
            }
        }
    }
}

/// Sums of two rows of `N` tiles.
#[repr(align(64))]
struct Sums<const N: usize>([[[f32; SUMS]; N]; 2]);
