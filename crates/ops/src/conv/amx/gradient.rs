//! The gradient of a kernel: `w[to, d, from] = Σ_p g[p, to] · x[p + d, from]`, over all pixels `p`.
//!
//! Tiles sum along their rows, which are pixels here. So `g` is transposed, and `x` has pairs of pixels in turn, in two
//! versions: pairs that begin with even positions, and with odd ones. Then the neighbours `d` of a block of pixels begin with
//! a whole row of one of the two.

use std::arch::x86_64::*;
use std::ops::Range;

use super::flat::{BLOCK, Flat, Layout};
use super::tiles::{DEPTH, Factors, Multiply, SUMS, TILE, Tiles};
use super::vectors::{in_turn, sums_of_pairs, transposed};
use crate::bfloat16::BFloat16;
use crate::conv::images::Images;
use crate::simd::aligned::{CacheLine, aligned_zeros};
use crate::simd::lanes::LANES;

/// Blocks of pixels that are summed over at once, as many as stay in the first cache.
const BLOCKS: usize = 16;

/// The gradients of a kernel `(to, 3, 3, from)` and of a bias `(to)` while they are summed.
pub(super) struct KernelGradient<'a> {
    layout: &'a Layout,
    input: Flat<'a>,
    pairs: Pairs,
    transposed: Transposed,
    sums: Sums,
    bias: Vec<f32>,
}

impl<'a> KernelGradient<'a> {
    pub(super) fn new(layout: &'a Layout, from: usize, to: usize) -> KernelGradient<'a> {
        KernelGradient {
            layout,
            input: Flat::new(layout, from),
            pairs: Pairs::new(layout, from),
            transposed: Transposed::new(layout, to),
            sums: Sums::new(from, to, layout),
            bias: vec![0.0; to],
        }
    }

    /// Adds some images, whose gradients are in the first slots of `gradient`.
    ///
    /// # Safety
    /// The images must have the layout and the channels of `self`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) unsafe fn add(
        &mut self,
        tiles: &Tiles,
        input: &Images<BFloat16>,
        gradient: &Flat,
        images: Range<usize>,
    ) {
        let blocks = self.layout.blocks(images.len());
        // SAFETY: as the caller promises.
        unsafe {
            self.input.read(input, images);
            self.pairs.read(&self.input);
            self.transposed
                .read(gradient, self.layout.line + 1, &mut self.bias);
            self.sums.add(tiles, &self.transposed, &self.pairs, blocks);
        }
    }

    /// The gradients of the kernel and the bias.
    pub(super) fn result(self) -> (Vec<f32>, Vec<f32>) {
        let (from, to) = (self.pairs.channels, self.transposed.channels);
        (self.sums.kernel(from, to), self.bias)
    }
}

/// Images in which two pixels each are in turn: for each sixteen channels first the pairs that begin with even positions, then
/// those that begin with odd ones.
struct Pairs {
    numbers: Vec<CacheLine>,
    channels: usize,
    /// Positions of the sequence, an even number.
    positions: usize,
}

impl Pairs {
    fn new(layout: &Layout, channels: usize) -> Pairs {
        let positions = layout.reach();
        Pairs {
            numbers: aligned_zeros(positions * channels),
            channels,
            positions,
        }
    }

    /// Numbers from the start to the pairs for sixteen channels, from a position on.
    fn offset(&self, channel: usize, position: usize) -> usize {
        let odd = position % 2;
        let row = (channel / TILE * 2 + odd) * self.positions / 2 + position / 2;
        row * DEPTH
    }

    /// # Safety
    /// The images must have the layout and the channels of `self`.
    #[target_feature(enable = "avx512f")]
    unsafe fn read(&mut self, flat: &Flat) {
        let numbers = self.numbers.as_mut_ptr().cast::<BFloat16>();
        for channel in (0..self.channels).step_by(TILE) {
            let [even, odd] = [0, 1].map(|first| numbers.wrapping_add(self.offset(channel, first)));
            for (row, position) in (0..self.positions - 2).step_by(2).enumerate() {
                // SAFETY: the pixels lie in the buffer, and the pairs in the room for them.
                unsafe {
                    let [a, b, c] = [0, 1, 2].map(|next| flat.at(position + next).add(channel));
                    _mm512_storeu_si512(even.add(row * DEPTH).cast(), in_turn(a, b));
                    _mm512_storeu_si512(odd.add(row * DEPTH).cast(), in_turn(b, c));
                }
            }
        }
    }
}

/// Images with their pixels last: `(channels, pitch)`, in the order of the sequence.
struct Transposed {
    numbers: Vec<CacheLine>,
    channels: usize,
    blocks: usize,
    /// Pixels from one channel to the next: an odd number of cache lines, so that those of a tile do not compete for the same
    /// places in the cache.
    pitch: usize,
}

impl Transposed {
    fn new(layout: &Layout, channels: usize) -> Transposed {
        let blocks = layout.targets.len() / BLOCK;
        let pitch = (blocks | 1) * BLOCK;
        Transposed {
            numbers: aligned_zeros(pitch * channels / 2),
            channels,
            blocks,
            pitch,
        }
    }

    /// Transposes images from the position `first` on, and adds all their pixels to `total`, `(channels)`.
    ///
    /// # Safety
    /// The images must have the layout and the channels of `self`.
    #[target_feature(enable = "avx512f")]
    unsafe fn read(&mut self, flat: &Flat, first: usize, total: &mut [f32]) {
        let numbers = self.numbers.as_mut_ptr().cast::<BFloat16>();
        for (channel, total) in (0..self.channels)
            .step_by(TILE)
            .zip(total.chunks_exact_mut(TILE))
        {
            // SAFETY: all blocks lie in the buffers.
            unsafe {
                let mut sum = _mm512_loadu_ps(total.as_ptr());
                for block in 0..self.blocks {
                    let rows: [__m512i; TILE] = std::array::from_fn(|row| {
                        let position = first + block * BLOCK + 2 * row;
                        let [a, b] = [0, 1].map(|next| flat.at(position + next).add(channel));
                        in_turn(a, b)
                    });
                    for pairs in &rows {
                        sum = _mm512_add_ps(sum, sums_of_pairs(*pairs));
                    }
                    for (row, pixels) in transposed(rows).into_iter().enumerate() {
                        let to = numbers.add((channel + row) * self.pitch + block * BLOCK);
                        _mm512_storeu_si512(to.cast(), pixels);
                    }
                }
                _mm512_storeu_ps(total.as_mut_ptr(), sum);
            }
        }
    }
}

/// Sixteen columns of the gradient of a kernel: a neighbour, and sixteen channels of the input.
#[derive(Clone, Copy)]
struct Column {
    neighbour: usize,
    /// How far this neighbour is away, in positions of the sequence.
    distance: usize,
    channel: usize,
}

/// The gradient of a kernel while it is summed, in pairs of rows and columns of tiles. A pair without a second row has room
/// for one nevertheless.
struct Sums {
    numbers: Vec<CacheLine>,
    /// In pairs. If their number is odd, the last one is there twice.
    columns: Vec<[Column; 2]>,
}

/// Numbers of sums in a pair of rows and a pair of columns.
const PAIR: usize = 4 * SUMS;

impl Sums {
    fn new(from: usize, to: usize, layout: &Layout) -> Sums {
        let mut columns = vec![];
        for neighbour in 0..9 {
            for channel in (0..from).step_by(TILE) {
                columns.push(Column {
                    neighbour,
                    distance: neighbour / 3 * layout.line + neighbour % 3,
                    channel,
                });
            }
        }
        columns.sort_by_key(|column| column.distance % 2); // what reads the same memory follows each other
        let pair = |pair: &[Column]| [pair[0], pair[pair.len() - 1]];
        let columns: Vec<_> = columns.chunks(2).map(pair).collect();
        Sums {
            numbers: aligned_zeros(to.div_ceil(2 * TILE) * columns.len() * PAIR),
            columns,
        }
    }

    /// Adds the products of these blocks of pixels.
    ///
    /// # Safety
    /// All must have the layout and the channels of `self`, and at least so many blocks.
    unsafe fn add(&mut self, tiles: &Tiles, g: &Transposed, x: &Pairs, blocks: usize) {
        let all = self.numbers.as_mut_ptr().cast::<f32>();
        let (g_numbers, x_numbers) = (
            g.numbers.as_ptr().cast::<BFloat16>(),
            x.numbers.as_ptr().cast::<BFloat16>(),
        );
        for first in (0..blocks).step_by(BLOCKS) {
            for row in (0..g.channels).step_by(2 * TILE) {
                let pairs = row / (2 * TILE) * self.columns.len();
                for (pair, columns) in self.columns.iter().enumerate() {
                    // SAFETY: within the buffers.
                    unsafe {
                        let sums = all.add((pairs + pair) * PAIR);
                        let a = |row: usize| g_numbers.add(row * g.pitch + first * BLOCK);
                        let b = columns.map(|column| {
                            let position = first * BLOCK + column.distance;
                            x_numbers.add(x.offset(column.channel, position))
                        });
                        let (a_row, steps) = (2 * g.pitch, BLOCKS.min(blocks - first));
                        let (lines, line) = (1, 0);
                        if row + TILE < g.channels {
                            let a = [a(row), a(row + TILE)];
                            let factors = Factors {
                                a,
                                a_row,
                                b,
                                steps,
                                lines,
                                line,
                            };
                            factors.multiply(tiles, sums, sums);
                        } else {
                            let a = [a(row)];
                            let factors = Factors {
                                a,
                                a_row,
                                b,
                                steps,
                                lines,
                                line,
                            };
                            factors.multiply(tiles, sums, sums);
                        }
                    }
                }
            }
        }
    }

    /// The gradient as `(to, 3, 3, from)`.
    fn kernel(&self, from: usize, to: usize) -> Vec<f32> {
        let mut kernel = vec![0.0; 9 * from * to];
        // SAFETY: the vector owns these numbers.
        let sums = unsafe {
            let numbers = self.numbers.as_ptr().cast::<f32>();
            std::slice::from_raw_parts(numbers, self.numbers.len() * LANES)
        };
        for output in 0..to {
            let pairs = output / (2 * TILE) * self.columns.len();
            let (row, in_tile) = (output / TILE % 2, output % TILE);
            for (pair, columns) in self.columns.iter().enumerate() {
                for (second, column) in columns.iter().enumerate() {
                    let tile = (pairs + pair) * 4 + row * 2 + second;
                    let sums = &sums[tile * SUMS + in_tile * TILE..][..TILE];
                    let at = (output * 9 + column.neighbour) * from + column.channel;
                    kernel[at..at + TILE].copy_from_slice(sums);
                }
            }
        }
        kernel
    }
}
