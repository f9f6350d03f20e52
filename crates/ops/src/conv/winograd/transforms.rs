//! The transforms between images, kernels and the points of transformed tiles.

use super::tiles::{EDGE, TILE, Tile, Tiling};
use crate::conv::images::Padded;
use crate::simd::element::Element;
use crate::simd::lanes::{LANES, Lanes};

/// `Bᵀ d`
#[inline(always)]
fn input_transform<V: Lanes>(d: [V; EDGE]) -> [V; EDGE] {
    let (four, five, two) = (V::splat(4.0), V::splat(-5.0), V::splat(2.0));
    let even = V::fma(d[2], V::splat(-4.0), d[4]);
    let odd = V::fma(d[1], V::splat(-4.0), d[3]);
    let (outer, inner) = (V::sub(d[4], d[2]), V::sub(d[3], d[1]));
    [
        V::fma(d[0], four, V::fma(d[2], five, d[4])),
        V::add(even, odd),
        V::sub(even, odd),
        V::fma(inner, two, outer),
        V::fma(inner, V::splat(-2.0), outer),
        V::fma(d[1], four, V::fma(d[3], five, d[5])),
    ]
}

/// `Aᵀ m`
#[inline(always)]
fn output_transform<V: Lanes>(m: [V; EDGE]) -> [V; TILE] {
    let (sum, difference) = (V::add(m[1], m[2]), V::sub(m[1], m[2]));
    let (sum_2, difference_2) = (V::add(m[3], m[4]), V::sub(m[3], m[4]));
    [
        V::add(V::add(m[0], sum), sum_2),
        V::fma(difference_2, V::splat(2.0), difference),
        V::fma(sum_2, V::splat(4.0), sum),
        V::add(V::fma(difference_2, V::splat(8.0), difference), m[5]),
    ]
}

/// `A y`
#[inline(always)]
fn gradient_transform<V: Lanes>(y: [V; TILE]) -> [V; EDGE] {
    let (even, odd) = (V::add(y[0], y[2]), V::add(y[1], y[3]));
    let (even_2, odd_2) = (
        V::fma(y[2], V::splat(4.0), y[0]),
        V::fma(y[3], V::splat(4.0), y[1]),
    );
    [
        y[0],
        V::add(even, odd),
        V::sub(even, odd),
        V::fma(odd_2, V::splat(2.0), even_2),
        V::fma(odd_2, V::splat(-2.0), even_2),
        y[3],
    ]
}

/// `G g`
#[inline(always)]
pub(super) fn kernel_transform<V: Lanes>(g: [V; 3]) -> [V; EDGE] {
    let (outer, outer_4) = (V::add(g[0], g[2]), V::fma(g[2], V::splat(4.0), g[0]));
    let (sixth, part) = (V::splat(-1.0 / 6.0), V::splat(1.0 / 24.0));
    [
        V::mul(g[0], V::splat(0.25)),
        V::mul(V::add(outer, g[1]), sixth),
        V::mul(V::sub(outer, g[1]), sixth),
        V::mul(V::fma(g[1], V::splat(2.0), outer_4), part),
        V::mul(V::fma(g[1], V::splat(-2.0), outer_4), part),
        g[2],
    ]
}

/// `Gᵀ u`
#[inline(always)]
pub(super) fn kernel_gradient_transform<V: Lanes>(u: [V; EDGE]) -> [V; 3] {
    let (sum, difference) = (V::add(u[1], u[2]), V::sub(u[1], u[2]));
    let (sum_2, difference_2) = (V::add(u[3], u[4]), V::sub(u[3], u[4]));
    let (sixth, twelfth, part) = (
        V::splat(1.0 / 6.0),
        V::splat(1.0 / 12.0),
        V::splat(1.0 / 24.0),
    );
    let centre = V::mul(V::sub(sum_2, sum), sixth);
    [
        V::fma(
            u[0],
            V::splat(0.25),
            V::sub(V::mul(sum_2, part), V::mul(sum, sixth)),
        ),
        V::sub(V::mul(difference_2, twelfth), V::mul(difference, sixth)),
        V::add(centre, u[5]),
    ]
}

/// Applies a transform to the columns of a tile, and then to the rows of the result.
macro_rules! transform_2d {
    ($transform:ident, $from:expr, $to:expr, |$row:ident, $column:ident| $get:expr, |$at:ident, $x:ident| $put:expr) => {{
        let mut half = [[V::splat(0.0); $from]; $to];
        for $column in 0..$from {
            let mut line = [V::splat(0.0); $from];
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

/// `Bᵀ d B` of a tile and its border, for all channels. The points of the result lie `stride` numbers apart.
#[inline(always)]
pub(super) unsafe fn transform_input<V: Lanes>(
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
        transform_2d!(
            input_transform,
            EDGE,
            EDGE,
            |row, column| unsafe { V::load(corner.add(row * line + column * channels)) },
            |at, x| unsafe { V::store(x, out.add((EDGE * at.0 + at.1) * stride)) }
        );
    }
}

/// `A g Aᵀ` of a tile, for all channels. Adds the tile to `sums`, the gradient of the bias.
#[inline(always)]
pub(super) unsafe fn transform_gradient<V: Lanes>(
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
        let mut sum = unsafe { V::load(sums) };
        transform_2d!(
            gradient_transform,
            TILE,
            EDGE,
            |row, column| {
                let x = unsafe { V::load(corner.add(row * line + column * channels)) };
                sum = V::add(sum, x);
                x
            },
            |at, x| unsafe { V::store(x, out.add((EDGE * at.0 + at.1) * stride)) }
        );
        unsafe { V::store(sum, sums) };
    }
}

/// `Aᵀ m A` for all channels, with bias and an optional rectifier, into the image.
#[inline(always)]
pub(super) unsafe fn transform_output<V: Lanes, E: Element>(
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
        let bias = unsafe { V::load(bias.as_ptr().add(channel)) };
        let least = if rectify {
            V::splat(0.0)
        } else {
            V::splat(f32::NEG_INFINITY)
        };
        transform_2d!(
            output_transform,
            EDGE,
            TILE,
            |row, column| unsafe { V::load(m.add((EDGE * row + column) * stride)) },
            |at, x| {
                if at.0 < height && at.1 < width {
                    let x = V::max(least, V::add(x, bias));
                    unsafe { E::store(out.add((at.0 * tiling.width + at.1) * channels), x) };
                }
            }
        );
    }
}

pub(super) use transform_2d;
