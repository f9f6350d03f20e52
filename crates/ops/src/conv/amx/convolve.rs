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

    /// The tiles for sixteen outputs from this one on.
    fn at(&self, output: usize) -> *const BFloat16 {
        let tiles = self.tiles.as_ptr().cast::<BFloat16>();
        tiles.wrapping_add(self.offset(output, 0))
    }

    /// Numbers before the tiles for sixteen outputs from this one on, and one line of the neighbourhood.
    fn offset(&self, output: usize, line: usize) -> usize {
        (output / TILE * 3 + line) * Kernel::steps(self.from) * FACTORS
    }

    /// The tiles of a kernel `(to, 3, 3, from)`.
    ///
    /// # Safety
    /// The kernel must have this shape.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn of(kernel: &[BFloat16], from: usize, to: usize) -> Kernel {
        let mut result = Kernel::zeros(from, to);
        let tiles = result.tiles.as_mut_ptr().cast::<BFloat16>();
        for output in (0..to).step_by(TILE) {
            for line in 0..3 {
                let tiles = tiles.wrapping_add(result.offset(output, line));
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
        let mut result = Kernel::zeros(from, to);
        let tiles = result.tiles.as_mut_ptr().cast::<BFloat16>();
        for output in (0..to).step_by(TILE) {
            for line in 0..3 {
                let tiles = tiles.wrapping_add(result.offset(output, line));
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

/// Sums of two rows of `N` tiles.
#[repr(align(64))]
struct Sums<const N: usize>([[[f32; SUMS]; N]; 2]);

impl<const N: usize> Sums<N> {
    /// The same numbers for each pixel.
    fn of(numbers: &[f32]) -> Sums<N> {
        let mut sums = Sums([[[0.0; SUMS]; N]; 2]);
        for row in &mut sums.0 {
            for (tile, numbers) in row.iter_mut().zip(numbers.chunks_exact(TILE)) {
                let rows = tile.chunks_exact_mut(TILE);
                rows.for_each(|row| row.copy_from_slice(numbers));
            }
        }
        sums
    }
}

/// What a convolution computes, and where to.
#[derive(Clone, Copy)]
pub(super) struct Convolve<'a> {
    pub(super) layout: &'a Layout,
    pub(super) kernel: &'a Kernel,
    pub(super) bias: &'a [f32],
    pub(super) rectify: bool,
    /// `(N, H, W, kernel.to)`
    pub(super) out: *mut BFloat16,
}

impl Convolve<'_> {
    /// Convolves the images that are in the first slots of `flat`, and writes those results.
    ///
    /// # Safety
    /// `flat` must have the layout of `self` and `kernel.from` channels, and `out` have room for these images. No other thread
    /// may use these images of `out`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(super) unsafe fn images(&self, tiles: &Tiles, flat: &Flat, images: Range<usize>) {
        let to = self.kernel.to;
        let pairs = to / (2 * TILE) * (2 * TILE);
        // SAFETY: as the caller promises.
        unsafe {
            for output in (0..pairs).step_by(2 * TILE) {
                self.outputs::<2>(tiles, flat, images.clone(), output);
            }
            if pairs < to {
                self.outputs::<1>(tiles, flat, images, pairs);
            }
        }
    }

    /// Computes `16 N` outputs of all pixels, from this output on.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn outputs<const N: usize>(
        &self,
        tiles: &Tiles,
        flat: &Flat,
        images: Range<usize>,
        output: usize,
    ) where
        Factors<2, N>: Multiply,
    {
        let (from, layout) = (self.kernel.from, self.layout);
        let start = Sums::<N>::of(&self.bias[output..]);
        let mut sums = Sums::<N>::of(&[]);
        let results = Results {
            least: if self.rectify { 0.0 } else { f32::NEG_INFINITY },
            pixels: images.len() * layout.pixels(),
            to: self.kernel.to,
            // SAFETY: within the output.
            out: unsafe {
                let first = images.start * layout.pixels();
                self.out.add(first * self.kernel.to + output)
            },
        };
        let blocks = layout.blocks(images.len());
        for (block, targets) in layout.targets.chunks_exact(BLOCK).take(blocks).enumerate() {
            let factors = Factors {
                a: [0, TILE].map(|pixel| flat.at(block * BLOCK + pixel)),
                a_row: 2 * from,
                b: std::array::from_fn(|column| self.kernel.at(output + column * TILE)),
                steps: Kernel::steps(from),
                lines: 3,
                line: layout.line * 2 * from,
            };
            let (start, result) = (start.0.as_ptr().cast(), sums.0.as_mut_ptr().cast());
            // SAFETY: the neighbourhoods of all blocks lie in the buffer, and the results in the output.
            unsafe {
                factors.multiply(tiles, start, result);
                results.write(&sums, targets);
            }
        }
    }
}

/// Where results go.
struct Results {
    /// What is less becomes this.
    least: f32,
    /// Pixels of the images in the buffer, without borders.
    pixels: usize,
    /// Channels of the output.
    to: usize,
    /// The first of these outputs of the first pixel.
    out: *mut BFloat16,
}

impl Results {
    /// Writes the results of a block, whose pixels are the `targets`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn write<const N: usize>(&self, sums: &Sums<N>, targets: &[usize]) {
        let least = _mm512_set1_ps(self.least);
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
                    let to = self.out.add(target * self.to + column * TILE);
                    _mm256_storeu_si256(to.cast(), x);
                }
            }
        }
    }
}
