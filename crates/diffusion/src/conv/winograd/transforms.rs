//! Tiles, and the transforms between images, kernels and their points.

use std::arch::x86_64::__m512;

use super::{EDGE, GROUP, TILE};
use crate::conv::field::{Padded, Sizes};
use crate::lanes::{Element, LANES, add, all, fma, load, max, mul, store, sub, zero};

/// How a few images are cut into tiles.
#[derive(Clone, Copy)]
pub(super) struct Tiling {
    height: usize,
    width: usize,
    across: usize,
    pub(super) an_image: usize,
}

#[derive(Clone, Copy)]
pub(super) struct Tile {
    slot: usize,
    y: usize,
    x: usize,
}

impl Tiling {
    pub(super) fn of(sizes: &Sizes) -> Tiling {
        let across = sizes.width.div_ceil(TILE);
        Tiling {
            height: sizes.height,
            width: sizes.width,
            across,
            an_image: across * sizes.height.div_ceil(TILE),
        }
    }

    /// The fewest images whose tiles make whole groups.
    pub(super) fn slots(&self) -> usize {
        let whole = (1..=GROUP).find(|images| (images * self.an_image).is_multiple_of(GROUP));
        whole.unwrap_or(GROUP)
    }

    #[inline(always)]
    pub(super) fn tile(&self, at: usize) -> Tile {
        let (slot, rest) = (at / self.an_image, at % self.an_image);
        Tile {
            slot,
            y: TILE * (rest / self.across),
            x: TILE * (rest % self.across),
        }
    }
}

/// `Bᵀ d`
#[inline(always)]
fn input_transform(d: [__m512; EDGE]) -> [__m512; EDGE] {
    let (four, five, two) = (all(4.0), all(-5.0), all(2.0));
    let even = fma(d[2], all(-4.0), d[4]);
    let odd = fma(d[1], all(-4.0), d[3]);
    let (outer, inner) = (sub(d[4], d[2]), sub(d[3], d[1]));
    [
        fma(d[0], four, fma(d[2], five, d[4])),
        add(even, odd),
        sub(even, odd),
        fma(inner, two, outer),
        fma(inner, all(-2.0), outer),
        fma(d[1], four, fma(d[3], five, d[5])),
    ]
}

/// `Aᵀ m`
#[inline(always)]
fn output_transform(m: [__m512; EDGE]) -> [__m512; TILE] {
    let (sum, difference) = (add(m[1], m[2]), sub(m[1], m[2]));
    let (sum_2, difference_2) = (add(m[3], m[4]), sub(m[3], m[4]));
    [
        add(add(m[0], sum), sum_2),
        fma(difference_2, all(2.0), difference),
        fma(sum_2, all(4.0), sum),
        add(fma(difference_2, all(8.0), difference), m[5]),
    ]
}

/// `A y`
#[inline(always)]
fn gradient_transform(y: [__m512; TILE]) -> [__m512; EDGE] {
    let (even, odd) = (add(y[0], y[2]), add(y[1], y[3]));
    let (even_2, odd_2) = (fma(y[2], all(4.0), y[0]), fma(y[3], all(4.0), y[1]));
    [
        y[0],
        add(even, odd),
        sub(even, odd),
        fma(odd_2, all(2.0), even_2),
        fma(odd_2, all(-2.0), even_2),
        y[3],
    ]
}

/// `G g`
#[inline(always)]
pub(super) fn kernel_transform(g: [__m512; 3]) -> [__m512; EDGE] {
    let (outer, outer_4) = (add(g[0], g[2]), fma(g[2], all(4.0), g[0]));
    let (sixth, part) = (all(-1.0 / 6.0), all(1.0 / 24.0));
    [
        mul(g[0], all(0.25)),
        mul(add(outer, g[1]), sixth),
        mul(sub(outer, g[1]), sixth),
        mul(fma(g[1], all(2.0), outer_4), part),
        mul(fma(g[1], all(-2.0), outer_4), part),
        g[2],
    ]
}

/// `Gᵀ u`
#[inline(always)]
pub(super) fn kernel_gradient_transform(u: [__m512; EDGE]) -> [__m512; 3] {
    let (sum, difference) = (add(u[1], u[2]), sub(u[1], u[2]));
    let (sum_2, difference_2) = (add(u[3], u[4]), sub(u[3], u[4]));
    let (sixth, twelfth, part) = (all(1.0 / 6.0), all(1.0 / 12.0), all(1.0 / 24.0));
    let centre = mul(sub(sum_2, sum), sixth);
    [
        fma(u[0], all(0.25), sub(mul(sum_2, part), mul(sum, sixth))),
        sub(mul(difference_2, twelfth), mul(difference, sixth)),
        add(centre, u[5]),
    ]
}

/// Applies a transform to the columns of a tile, then to the rows of what came out.
macro_rules! both_ways {
    ($transform:ident, $from:expr, $to:expr, |$row:ident, $column:ident| $get:expr, |$at:ident, $x:ident| $put:expr) => {{
        let mut half = [[zero(); $from]; $to];
        for $column in 0..$from {
            let mut line = [zero(); $from];
            for ($row, x) in line.iter_mut().enumerate() {
                *x = $get;
            }
            for (row, x) in $transform(line).iter().enumerate() {
                half[row][$column] = *x;
            }
        }
        for (row, line) in half.iter().enumerate() {
            for (column, x) in $transform(*line).iter().enumerate() {
                let ($at, $x) = ((row, column), *x);
                $put;
            }
        }
    }};
}

/// `Bᵀ d B` of a tile's surroundings, for all channels: a point every `stride` numbers.
#[inline(always)]
pub(super) unsafe fn transform_input(
    images: &Padded,
    channels: usize,
    tile: Tile,
    out: *mut f32,
    stride: usize,
) {
    let corner = images.at(tile.slot, tile.y, tile.x);
    let line = images.width * channels;
    for channel in (0..channels).step_by(LANES) {
        let corner = corner.wrapping_add(channel);
        let out = out.wrapping_add(channel);
        both_ways!(
            input_transform,
            EDGE,
            EDGE,
            |row, column| unsafe { load(corner.add(row * line + column * channels)) },
            |at, x| unsafe { store(out.add((EDGE * at.0 + at.1) * stride), x) }
        );
    }
}

/// `A g Aᵀ` of a tile, for all channels, and its sum for the bias.
#[inline(always)]
pub(super) unsafe fn transform_gradient(
    images: &Padded,
    sums: &mut [f32],
    tile: Tile,
    out: *mut f32,
    stride: usize,
) {
    let channels = sums.len();
    let corner = images.at(tile.slot, tile.y + 1, tile.x + 1);
    let line = images.width * channels;
    for channel in (0..channels).step_by(LANES) {
        let corner = corner.wrapping_add(channel);
        let out = out.wrapping_add(channel);
        let sums = sums.as_mut_ptr().wrapping_add(channel);
        let mut sum = unsafe { load(sums) };
        both_ways!(
            gradient_transform,
            TILE,
            EDGE,
            |row, column| {
                let x = unsafe { load(corner.add(row * line + column * channels)) };
                sum = add(sum, x);
                x
            },
            |at, x| unsafe { store(out.add((EDGE * at.0 + at.1) * stride), x) }
        );
        unsafe { store(sums, sum) };
    }
}

/// `Aᵀ m A` for all channels, with bias and, if wanted, rectifier, into the image.
#[inline(always)]
pub(super) unsafe fn transform_output<E: Element>(
    tiling: &Tiling,
    tile: Tile,
    m: *const f32,
    stride: usize,
    bias: &[f32],
    rectify: bool,
    out: *mut E,
) {
    let channels = bias.len();
    let corner = (tile.slot * tiling.height + tile.y) * tiling.width + tile.x;
    let (height, width) = (tiling.height - tile.y, tiling.width - tile.x);
    for channel in (0..channels).step_by(LANES) {
        let m = m.wrapping_add(channel);
        let out = out.wrapping_add(corner * channels + channel);
        let bias = unsafe { load(bias.as_ptr().add(channel)) };
        let least = if rectify {
            zero()
        } else {
            all(f32::NEG_INFINITY)
        };
        both_ways!(
            output_transform,
            EDGE,
            TILE,
            |row, column| unsafe { load(m.add((EDGE * row + column) * stride)) },
            |at, x| {
                if at.0 < height && at.1 < width {
                    let x = max(least, add(x, bias));
                    unsafe { E::store(out.add((at.0 * tiling.width + at.1) * channels), x) };
                }
            }
        );
    }
}

pub(super) use both_ways;
