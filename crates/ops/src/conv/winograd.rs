//! Winograd's convolution F(4x4, 3x3): a quarter of the multiplications.
//!
//! The output is cut into tiles of 4x4. Each of them is computed from a tile of 6x6 of the input. That tile is transformed,
//! multiplied with the transformed kernel point by point (36 products for 16 outputs of 9 weights each, instead of 144),
//! and transformed back:
//!
//! `y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A`, summed over the channels of the input between the two transforms
//! (Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks", eq. 8, and section 4.3 for the matrices). The
//! gradient of the kernel is the transpose of this: with `W = A g_y Aᵀ` it is `g_g = Gᵀ [Σ W ⊙ (Bᵀ d B)] G`. The gradient
//! of the input is a convolution with the kernel rotated by 180 degrees.
//!
//! Vectors run along the channels, so the transforms are sums of vectors. For a group of tiles the products are 36 small
//! matrix products, whose operands stay in the core's own cache. All sums are in `float32`, whatever the numbers in memory
//! are.

mod products;
mod tiles;
mod transforms;

use std::ops::Range;

use super::images::{Images, Padded, Sizes};
use crate::simd::aligned::{CacheLine, aligned_zeros};
use crate::simd::element::Element;
use crate::simd::lanes::{LANES, Lanes};
use crate::simd::width::for_each_width;
use crate::slices::to_f32;
use products::{outer_products, product};
use tiles::{EDGE, GROUP, POINTS, TILE, Tiling, WIDE_GROUP};
use transforms::{
    kernel_gradient_transform, kernel_transform, transform_2d, transform_gradient, transform_input,
    transform_output,
};

/// A kernel in Winograd's form: `(36, from, to)`.
pub(super) struct Kernel {
    points: Vec<CacheLine>,
    from: usize,
    to: usize,
}

for_each_width! {
    /// Winograd's form of a kernel `(to, 3, 3, from)`.
    ///
    /// # Safety
    /// The kernel must have this shape.
    pub(super) unsafe fn kernel<E>(kernel: &[E], from: usize, to: usize) -> Kernel = kernel_with;
}

#[inline(always)]
unsafe fn kernel_with<V: Lanes, E: Element>(kernel: &[E], from: usize, to: usize) -> Kernel {
    let (kernel, offsets) = (to_f32(kernel), V::strided_offsets(9 * from));
    // SAFETY: `get` reads numbers of the kernel.
    unsafe {
        Kernel::of(from, to, |row, column, i, o| {
            let at = ((o * 3 + row) * 3 + column) * from + i;
            V::gather(kernel.as_ptr().add(at), offsets)
        })
    }
}

for_each_width! {
    /// Winograd's form of a kernel `(from, 3, 3, to)` rotated by 180 degrees, with inputs and outputs swapped: the
    /// convolution with it is the gradient of the input.
    ///
    /// # Safety
    /// The kernel must have this shape.
    pub(super) unsafe fn rotated_kernel<E>(kernel: &[E], from: usize, to: usize) -> Kernel = rotated_kernel_with;
}

#[inline(always)]
unsafe fn rotated_kernel_with<V: Lanes, E: Element>(
    kernel: &[E],
    from: usize,
    to: usize,
) -> Kernel {
    let kernel = to_f32(kernel);
    // SAFETY: `get` reads numbers of the kernel.
    unsafe {
        Kernel::of(from, to, |row, column, i, o| {
            let at = ((i * 3 + 2 - row) * 3 + 2 - column) * to + o;
            V::load(kernel.as_ptr().add(at))
        })
    }
}

impl Kernel {
    /// Transforms a kernel. `get` gives its weights at a row, a column and an input `i`, for sixteen outputs from `o` on.
    #[inline(always)]
    unsafe fn of<V: Lanes>(
        from: usize,
        to: usize,
        get: impl Fn(usize, usize, usize, usize) -> V,
    ) -> Kernel {
        let mut points = aligned_zeros(POINTS * from * to);
        let out = points.as_mut_ptr().cast::<f32>();
        for o in (0..to).step_by(LANES) {
            for i in 0..from {
                transform_2d!(
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

for_each_width! {
    /// Convolves some of the images `x`, which have `kernel.from` channels. `out` is `(N, H, W, kernel.to)`.
    ///
    /// # Safety
    /// The images must be as large as `sizes` say, and `out` have room for as much. No other thread may use these images of
    /// `out`.
    pub(super) unsafe fn convolve<E>(
        sizes: &Sizes,
        images: Range<usize>,
        x: &Images<E>,
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
    x: &Images<E>,
    kernel: &Kernel,
    bias: &[f32],
    rectify: bool,
    out: *mut E,
) {
    let tiling = Tiling::of(sizes);
    let (from, to, slots) = (kernel.from, kernel.to, tiling.slots().min(images.len()));
    let mut padded = Padded::new(sizes, slots, from, TILE);
    let mut inputs = aligned_zeros(POINTS * GROUP * from);
    let mut outputs = aligned_zeros(POINTS * GROUP * to);
    let inputs = inputs.as_mut_ptr().cast::<f32>();
    let outputs = outputs.as_mut_ptr().cast::<f32>();
    let points = kernel.points.as_ptr().cast::<f32>();
    for start in images.clone().step_by(slots) {
        let here = slots.min(images.end - start);
        // SAFETY: everything lies within the buffers made above and the tensors, whose sizes the caller promises. A last
        // group that is not full computes with old numbers in its remaining rows, and does not use the results.
        unsafe {
            (0..here).for_each(|slot| padded.read::<V, E>(slot, x, start + slot));
            let out = out.add(start * sizes.pixels() * to);
            let last = here * tiling.tiles_per_image;
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

for_each_width! {
    /// The gradients of a kernel `(to, 3, 3, from)` and of a bias `(to)`, summed over some of the images.
    ///
    /// # Safety
    /// As [`convolve`].
    pub(super) unsafe fn kernel_gradient<E>(
        sizes: &Sizes,
        images: Range<usize>,
        input: &Images<E>,
        gradient: &Images<E>,
    ) -> (Vec<f32>, Vec<f32>) = kernel_gradient_with;
}

#[inline(always)]
unsafe fn kernel_gradient_with<V: Lanes, E: Element>(
    sizes: &Sizes,
    images: Range<usize>,
    input: &Images<E>,
    gradient: &Images<E>,
) -> (Vec<f32>, Vec<f32>) {
    let tiling = Tiling::of(sizes);
    let (from, to, slots) = (
        input.channels,
        gradient.channels,
        tiling.slots().min(images.len()),
    );
    let mut padded = Padded::new(sizes, slots, from, TILE);
    let mut padded_gradient = Padded::new(sizes, slots, to, TILE);
    let mut inputs = aligned_zeros(POINTS * WIDE_GROUP * from);
    let mut gradients = aligned_zeros(POINTS * WIDE_GROUP * to);
    let mut sums = aligned_zeros(POINTS * from * to);
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
            let last = here * tiling.tiles_per_image;
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
    let offsets = V::strided_offsets(9 * from);
    for o in (0..to).step_by(LANES) {
        for i in 0..from {
            transform_2d!(
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
                    unsafe { V::scatter(x, kernel.as_mut_ptr().add(first), offsets) };
                }
            );
        }
    }
    kernel
}
