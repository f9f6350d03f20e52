//! Winograd's convolution F(4x4, 3x3): a quarter of the multiplications.
//!
//! The output is cut into tiles of 4x4. Each comes from a tile of 6x6 of the input, which is transformed,
//! multiplied with the transformed kernel point by point (36 products for 16 outputs of 9 weights
//! each, instead of 144), and transformed back:
//!
//! `y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A`, summed over the input's channels between the two transforms
//! (Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks", eq. 8 and section 4.3 for
//! the matrices). The gradient of the kernel is the same read backwards: with `W = A g_y Aᵀ` it is
//! `g_g = Gᵀ [Σ W ⊙ (Bᵀ d B)] G`. The gradient of the input is a convolution with the kernel turned around.
//!
//! Vectors run along the channels, so the transforms are plain sums of vectors. For a group of tiles the
//! products are 36 small matrix products, whose operands stay in the core's own cache.
//! Computed in `float32`, whatever the numbers in memory are.

use std::arch::x86_64::__m512;
use std::ops::Range;

use super::field::{Field, Padded, Sizes};
use crate::lanes::{
    Element, LANES, Line, add, all, fma, gather, lanes_apart, lines, load, max, mul, scatter,
    store, sub, zero,
};

/// Edge of a tile of outputs, and of a transformed tile.
const TILE: usize = 4;
const EDGE: usize = 6;
/// Points of a transformed tile.
const POINTS: usize = EDGE * EDGE;
/// Tiles in a group: as many rows of results as fit into the registers, two vectors each.
const GROUP: usize = 14;
/// Tiles in a group where kernels are learnt: more, as the sums are read and written once a group.
const WIDE_GROUP: usize = 28;

/// How a few images are cut into tiles.
#[derive(Clone, Copy)]
struct Tiling {
    height: usize,
    width: usize,
    across: usize,
    an_image: usize,
}

#[derive(Clone, Copy)]
struct Tile {
    slot: usize,
    y: usize,
    x: usize,
}

impl Tiling {
    fn of(sizes: &Sizes) -> Tiling {
        let across = sizes.width.div_ceil(TILE);
        Tiling {
            height: sizes.height,
            width: sizes.width,
            across,
            an_image: across * sizes.height.div_ceil(TILE),
        }
    }

    /// The fewest images whose tiles make whole groups.
    fn slots(&self) -> usize {
        let whole = (1..=GROUP).find(|images| (images * self.an_image).is_multiple_of(GROUP));
        whole.unwrap_or(GROUP)
    }

    #[inline(always)]
    fn tile(&self, at: usize) -> Tile {
        let (slot, rest) = (at / self.an_image, at % self.an_image);
        Tile {
            slot,
            y: TILE * (rest / self.across),
            x: TILE * (rest % self.across),
        }
    }
}

// ---- the transforms --------------------------------------------------------------------------------

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
fn kernel_transform(g: [__m512; 3]) -> [__m512; EDGE] {
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
fn kernel_gradient_transform(u: [__m512; EDGE]) -> [__m512; 3] {
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
unsafe fn transform_input(
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
unsafe fn transform_gradient(
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
unsafe fn transform_output<E: Element>(
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

// ---- the products ----------------------------------------------------------------------------------

/// `c = a · b` for `GROUP` rows and `16 N` columns: `a` is `(GROUP, k)`, `b` and `c` have rows of `to`.
#[inline(always)]
unsafe fn product<const N: usize>(a: *const f32, b: *const f32, c: *mut f32, k: usize, to: usize) {
    let mut sums = [[zero(); N]; GROUP];
    for at in 0..k {
        let b: [__m512; N] = std::array::from_fn(|n| unsafe { load(b.add(at * to + n * LANES)) });
        for (row, sums) in sums.iter_mut().enumerate() {
            let a = all(unsafe { *a.add(row * k + at) });
            for (sum, b) in sums.iter_mut().zip(&b) {
                *sum = fma(a, *b, *sum);
            }
        }
    }
    // By reference: an array that is consumed goes through memory first, at twice the time of all this.
    for (row, sums) in sums.iter().enumerate() {
        for (n, sum) in sums.iter().enumerate() {
            unsafe { store(c.add(row * to + n * LANES), *sum) };
        }
    }
}

/// `c += aᵀ · b` for `R` rows and `16 N` columns of `c`: `a` is `(tiles, from)`, `b` is `(tiles, to)`.
#[inline(always)]
unsafe fn outer_product<const R: usize, const N: usize>(
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    (from, to): (usize, usize),
    tiles: usize,
) {
    let mut sums: [[__m512; N]; R] = std::array::from_fn(|row| {
        std::array::from_fn(|n| unsafe { load(c.add(row * to + n * LANES)) })
    });
    for at in 0..tiles {
        let b: [__m512; N] = std::array::from_fn(|n| unsafe { load(b.add(at * to + n * LANES)) });
        for (row, sums) in sums.iter_mut().enumerate() {
            let a = all(unsafe { *a.add(at * from + row) });
            for (sum, b) in sums.iter_mut().zip(&b) {
                *sum = fma(a, *b, *sum);
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        for (n, sum) in sums.iter().enumerate() {
            unsafe { store(c.add(row * to + n * LANES), *sum) };
        }
    }
}

/// `c += aᵀ · b`, all of it.
#[inline(always)]
unsafe fn outer_products(
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    both: (usize, usize),
    tiles: usize,
) {
    let (from, to) = both;
    let wide = to / (2 * LANES) * (2 * LANES);
    unsafe {
        for row in (0..from).step_by(8) {
            for column in (0..wide).step_by(2 * LANES) {
                let c = c.add(row * to + column);
                outer_product::<8, 2>(a.add(row), b.add(column), c, both, tiles);
            }
        }
        if wide < to {
            for row in (0..from).step_by(16) {
                let c = c.add(row * to + wide);
                outer_product::<16, 1>(a.add(row), b.add(wide), c, both, tiles);
            }
        }
    }
}

// ---- the convolution -------------------------------------------------------------------------------

/// A kernel in Winograd's form: `(36, from, to)`.
pub(super) struct Kernel {
    points: Vec<Line>,
    from: usize,
    to: usize,
}

impl Kernel {
    /// Of a kernel `(to, 3, 3, from)`.
    ///
    /// # Safety
    /// The CPU must have AVX-512 F.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn new(kernel: &[f32], from: usize, to: usize) -> Kernel {
        let places = lanes_apart(9 * from);
        // SAFETY: `get` asks for numbers of the kernel.
        unsafe {
            Kernel::of(from, to, |row, column, i, o| {
                let at = ((o * 3 + row) * 3 + column) * from + i;
                gather(kernel.as_ptr().add(at), places)
            })
        }
    }

    /// The kernel that leads gradients back, of a kernel `(from, 3, 3, to)`.
    ///
    /// # Safety
    /// The CPU must have AVX-512 F.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn turned(kernel: &[f32], from: usize, to: usize) -> Kernel {
        // SAFETY: `get` asks for numbers of the kernel.
        unsafe {
            Kernel::of(from, to, |row, column, i, o| {
                load(
                    kernel
                        .as_ptr()
                        .add(((i * 3 + 2 - row) * 3 + 2 - column) * to + o),
                )
            })
        }
    }

    /// `get` gives sixteen numbers, of the outputs from `o` on.
    #[inline(always)]
    unsafe fn of(
        from: usize,
        to: usize,
        get: impl Fn(usize, usize, usize, usize) -> __m512,
    ) -> Kernel {
        let mut points = lines(POINTS * from * to);
        let out = points.as_mut_ptr().cast::<f32>();
        for o in (0..to).step_by(LANES) {
            for i in 0..from {
                both_ways!(
                    kernel_transform,
                    3,
                    EDGE,
                    |row, column| get(row, column, i, o),
                    |at, x| {
                        let point = at.0 * EDGE + at.1;
                        // SAFETY: within the points.
                        unsafe { store(out.add((point * from + i) * to + o), x) };
                    }
                );
            }
        }
        Kernel { points, from, to }
    }
}

/// Convolves some of the images: `field` has `kernel.from` channels, `out` is `(N, H, W, kernel.to)`.
///
/// # Safety
/// The CPU must have AVX-512 F, BW and VL; fields must be as large as `sizes` say, and `out` have room for as
/// much; nobody else may touch these images of `out`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn convolve<E: Element>(
    sizes: &Sizes,
    images: Range<usize>,
    field: &Field<E>,
    kernel: &Kernel,
    bias: &[f32],
    rectify: bool,
    out: *mut E,
) {
    let tiling = Tiling::of(sizes);
    let (from, to, slots) = (kernel.from, kernel.to, tiling.slots().min(images.len()));
    let mut padded = Padded::new(sizes, slots, from, TILE);
    let mut inputs = lines(POINTS * GROUP * from);
    let mut outputs = lines(POINTS * GROUP * to);
    let inputs = inputs.as_mut_ptr().cast::<f32>();
    let outputs = outputs.as_mut_ptr().cast::<f32>();
    let points = kernel.points.as_ptr().cast::<f32>();
    for start in images.clone().step_by(slots) {
        let here = slots.min(images.end - start);
        // SAFETY: everything lies within the buffers made above and the tensors that the caller vouches
        // for. A last group that is not full computes with what an earlier one left, and drops it.
        unsafe {
            (0..here).for_each(|slot| padded.read(slot, field, start + slot));
            let out = out.add(start * sizes.pixels() * to);
            let last = here * tiling.an_image;
            for first in (0..last).step_by(GROUP) {
                let tiles = GROUP.min(last - first);
                for at in 0..tiles {
                    let (tile, to) = (tiling.tile(first + at), inputs.add(at * from));
                    transform_input(&padded, from, tile, to, GROUP * from);
                }
                for point in 0..POINTS {
                    let a = inputs.add(point * GROUP * from);
                    let b = points.add(point * from * to);
                    let c = outputs.add(point * GROUP * to);
                    let wide = to / (2 * LANES) * (2 * LANES);
                    for column in (0..wide).step_by(2 * LANES) {
                        product::<2>(a, b.add(column), c.add(column), from, to);
                    }
                    if wide < to {
                        product::<1>(a, b.add(wide), c.add(wide), from, to);
                    }
                }
                for at in 0..tiles {
                    let (tile, m) = (tiling.tile(first + at), outputs.add(at * to));
                    transform_output(&tiling, tile, m, GROUP * to, bias, rectify, out);
                }
            }
        }
    }
}

/// The gradients of a kernel `(to, 3, 3, from)` and of a bias `(to)`, from some of the images.
///
/// # Safety
/// As [`convolve`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn kernel_gradient<E: Element>(
    sizes: &Sizes,
    images: Range<usize>,
    input: &Field<E>,
    gradient: &Field<E>,
) -> (Vec<f32>, Vec<f32>) {
    let tiling = Tiling::of(sizes);
    let (from, to, slots) = (
        input.channels,
        gradient.channels,
        tiling.slots().min(images.len()),
    );
    let mut padded = Padded::new(sizes, slots, from, TILE);
    let mut padded_gradient = Padded::new(sizes, slots, to, TILE);
    let mut inputs = lines(POINTS * WIDE_GROUP * from);
    let mut gradients = lines(POINTS * WIDE_GROUP * to);
    let mut sums = lines(POINTS * from * to);
    let mut bias = vec![0.0; to];
    let inputs = inputs.as_mut_ptr().cast::<f32>();
    let gradients = gradients.as_mut_ptr().cast::<f32>();
    let points = sums.as_mut_ptr().cast::<f32>();
    for start in images.clone().step_by(slots) {
        let here = slots.min(images.end - start);
        // SAFETY: as in `convolve`.
        unsafe {
            for slot in 0..here {
                padded.read(slot, input, start + slot);
                padded_gradient.read(slot, gradient, start + slot);
            }
            let last = here * tiling.an_image;
            for first in (0..last).step_by(WIDE_GROUP) {
                let tiles = WIDE_GROUP.min(last - first);
                for at in 0..tiles {
                    let tile = tiling.tile(first + at);
                    let (input, stride) = (inputs.add(at * from), WIDE_GROUP * from);
                    transform_input(&padded, from, tile, input, stride);
                    let (out, stride) = (gradients.add(at * to), WIDE_GROUP * to);
                    transform_gradient(&padded_gradient, &mut bias, tile, out, stride);
                }
                for point in 0..POINTS {
                    let a = inputs.add(point * WIDE_GROUP * from);
                    let b = gradients.add(point * WIDE_GROUP * to);
                    let c = points.add(point * from * to);
                    outer_products(a, b, c, (from, to), tiles);
                }
            }
        }
    }
    // SAFETY: as the caller promises.
    (unsafe { kernel_from_points(points, from, to) }, bias)
}

/// `Gᵀ u G`: from `(36, from, to)` to `(to, 3, 3, from)`.
#[inline(always)]
unsafe fn kernel_from_points(points: *const f32, from: usize, to: usize) -> Vec<f32> {
    let mut kernel = vec![0.0f32; 9 * from * to];
    let places = lanes_apart(9 * from);
    for o in (0..to).step_by(LANES) {
        for i in 0..from {
            both_ways!(
                kernel_gradient_transform,
                EDGE,
                3,
                |row, column| {
                    let point = row * EDGE + column;
                    // SAFETY: within the points.
                    unsafe { load(points.add((point * from + i) * to + o)) }
                },
                |at, x| {
                    let first = ((o * 3 + at.0) * 3 + at.1) * from + i;
                    // SAFETY: within the kernel.
                    unsafe { scatter(kernel.as_mut_ptr().add(first), places, x) };
                }
            );
        }
    }
    kernel
}
