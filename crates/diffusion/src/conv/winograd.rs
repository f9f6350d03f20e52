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

mod products;
mod transforms;

use std::ops::Range;

use super::field::{Field, Padded, Sizes};
use crate::lanes::{Element, LANES, Lanes, Line, dispatched, lines};
use crate::slices::floats;
use products::{outer_products, product};
use transforms::{
    Tiling, both_ways, kernel_gradient_transform, kernel_transform, transform_gradient,
    transform_input, transform_output,
};

/// Edge of a tile of outputs, and of a transformed tile.
const TILE: usize = 4;
const EDGE: usize = 6;
/// Points of a transformed tile.
const POINTS: usize = EDGE * EDGE;
/// Tiles in a group: as many rows of results as fit into the registers of AVX-512, two vectors each.
const GROUP: usize = 14;
/// Tiles in a group where kernels are learnt: more, as the sums are read and written once a group.
const WIDE_GROUP: usize = 28;

/// A kernel in Winograd's form: `(36, from, to)`.
pub(super) struct Kernel {
    points: Vec<Line>,
    from: usize,
    to: usize,
}

dispatched! {
    /// Winograd's form of a kernel `(to, 3, 3, from)`.
    ///
    /// # Safety
    /// The CPU must have this width.
    pub(super) unsafe fn kernel<E>(kernel: &[E], from: usize, to: usize) -> Kernel = kernel_with;
}

#[inline(always)]
unsafe fn kernel_with<V: Lanes, E: Element>(kernel: &[E], from: usize, to: usize) -> Kernel {
    let (kernel, places) = (floats(kernel), V::apart(9 * from));
    // SAFETY: `get` asks for numbers of the kernel.
    unsafe {
        Kernel::of(from, to, |row, column, i, o| {
            let at = ((o * 3 + row) * 3 + column) * from + i;
            V::gather(kernel.as_ptr().add(at), places)
        })
    }
}

dispatched! {
    /// The kernel that leads gradients back, of a kernel `(from, 3, 3, to)`.
    ///
    /// # Safety
    /// The CPU must have this width.
    pub(super) unsafe fn kernel_backwards<E>(kernel: &[E], from: usize, to: usize) -> Kernel = kernel_backwards_with;
}

#[inline(always)]
unsafe fn kernel_backwards_with<V: Lanes, E: Element>(
    kernel: &[E],
    from: usize,
    to: usize,
) -> Kernel {
    let kernel = floats(kernel);
    // SAFETY: `get` asks for numbers of the kernel.
    unsafe {
        Kernel::of(from, to, |row, column, i, o| {
            let at = ((i * 3 + 2 - row) * 3 + 2 - column) * to + o;
            V::load(kernel.as_ptr().add(at))
        })
    }
}

impl Kernel {
    /// `get` gives sixteen numbers, of the outputs from `o` on.
    #[inline(always)]
    unsafe fn of<V: Lanes>(
        from: usize,
        to: usize,
        get: impl Fn(usize, usize, usize, usize) -> V,
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
                        unsafe { V::store(x, out.add((point * from + i) * to + o)) };
                    }
                );
            }
        }
        Kernel { points, from, to }
    }
}

dispatched! {
    /// Convolves some of the images: `field` has `kernel.from` channels, `out` is `(N, H, W, kernel.to)`.
    ///
    /// # Safety
    /// The CPU must have this width; fields must be as large as `sizes` say, and `out` have room for as much; nobody
    /// else may touch these images of `out`.
    pub(super) unsafe fn convolve<E>(
        sizes: &Sizes,
        images: Range<usize>,
        field: &Field<E>,
        kernel: &Kernel,
        bias: &[f32],
        rectify: bool,
        out: *mut E,
    ) = convolve_with;
}

#[inline(always)]
unsafe fn convolve_with<V: Lanes, E: Element>(
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
            (0..here).for_each(|slot| padded.read::<V, E>(slot, field, start + slot));
            let out = out.add(start * sizes.pixels() * to);
            let last = here * tiling.an_image;
            for first in (0..last).step_by(GROUP) {
                let tiles = GROUP.min(last - first);
                for at in 0..tiles {
                    let (tile, to) = (tiling.tile(first + at), inputs.add(at * from));
                    transform_input::<V>(&padded, from, tile, to, GROUP * from);
                }
                for point in 0..POINTS {
                    let a = inputs.add(point * GROUP * from);
                    let b = points.add(point * from * to);
                    let c = outputs.add(point * GROUP * to);
                    product::<V>(a, b, c, from, to);
                }
                for at in 0..tiles {
                    let (tile, m) = (tiling.tile(first + at), outputs.add(at * to));
                    transform_output::<V, E>(&tiling, tile, m, GROUP * to, bias, rectify, out);
                }
            }
        }
    }
}

dispatched! {
    /// The gradients of a kernel `(to, 3, 3, from)` and of a bias `(to)`, from some of the images.
    ///
    /// # Safety
    /// As [`convolve`].
    pub(super) unsafe fn kernel_gradient<E>(
        sizes: &Sizes,
        images: Range<usize>,
        input: &Field<E>,
        gradient: &Field<E>,
    ) -> (Vec<f32>, Vec<f32>) = kernel_gradient_with;
}

#[inline(always)]
unsafe fn kernel_gradient_with<V: Lanes, E: Element>(
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
                padded.read::<V, E>(slot, input, start + slot);
                padded_gradient.read::<V, E>(slot, gradient, start + slot);
            }
            let last = here * tiling.an_image;
            for first in (0..last).step_by(WIDE_GROUP) {
                let tiles = WIDE_GROUP.min(last - first);
                for at in 0..tiles {
                    let tile = tiling.tile(first + at);
                    let (input, stride) = (inputs.add(at * from), WIDE_GROUP * from);
                    transform_input::<V>(&padded, from, tile, input, stride);
                    let (out, stride) = (gradients.add(at * to), WIDE_GROUP * to);
                    transform_gradient::<V>(&padded_gradient, &mut bias, tile, out, stride);
                }
                for point in 0..POINTS {
                    let a = inputs.add(point * WIDE_GROUP * from);
                    let b = gradients.add(point * WIDE_GROUP * to);
                    let c = points.add(point * from * to);
                    outer_products::<V>(a, b, c, (from, to), tiles);
                }
            }
        }
    }
    // SAFETY: as the caller promises.
    (unsafe { kernel_from_points::<V>(points, from, to) }, bias)
}

/// `Gᵀ u G`: from `(36, from, to)` to `(to, 3, 3, from)`.
#[inline(always)]
unsafe fn kernel_from_points<V: Lanes>(points: *const f32, from: usize, to: usize) -> Vec<f32> {
    let mut kernel = vec![0.0f32; 9 * from * to];
    let places = V::apart(9 * from);
    for o in (0..to).step_by(LANES) {
        for i in 0..from {
            both_ways!(
                kernel_gradient_transform,
                EDGE,
                3,
                |row, column| {
                    let point = row * EDGE + column;
                    // SAFETY: within the points.
                    unsafe { V::load(points.add((point * from + i) * to + o)) }
                },
                |at, x| {
                    let first = ((o * 3 + at.0) * 3 + at.1) * from + i;
                    // SAFETY: within the kernel.
                    unsafe { V::scatter(x, kernel.as_mut_ptr().add(first), places) };
                }
            );
        }
    }
    kernel
}
