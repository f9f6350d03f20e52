//! Convolutions between one channel and many, as at the two ends of a network.
//!
//! Three sums are enough for both directions and their gradients. `one` are images with one channel, `many` are images
//! with many; `q` is a pixel, `d` one of the nine pixels of its neighbourhood, and `c` a channel:
//!
//! - [`from_one_channel`]: `many[q, c] = Σ_d one[q + d] · w[d, c]`
//! - [`to_one_channel`]: `one[q] = Σ_d Σ_c many[q + d, c] · w[d, c]`
//! - [`one_channel_gradient`]: `w[d, c] = Σ_q one[q + d] · many[q, c]`

use std::ops::Range;

use super::images::{Images, Padded, Sizes};
use crate::simd::element::Element;
use crate::simd::lanes::{LANES, Lanes};
use crate::simd::width::for_each_width;

/// Pixels in a neighbourhood.
const NEIGHBOURS: usize = 9;

/// The neighbourhood of a pixel.
#[inline(always)]
unsafe fn neighbours(one: &Padded, y: usize, x: usize) -> [f32; NEIGHBOURS] {
    let corner = one.at(0, y, x);
    std::array::from_fn(|d| unsafe { *corner.add(d / 3 * one.width + d % 3) })
}

/// Sixteen channels of all nine weights, as [`from_one_channel`] and [`to_one_channel`] take them.
#[inline(always)]
unsafe fn weights<V: Lanes>(w: &[f32], channel: usize, channels: usize) -> [V; NEIGHBOURS] {
    std::array::from_fn(|d| unsafe { V::load(w.as_ptr().add(d * channels + channel)) })
}

for_each_width! {
    /// From one channel to many, with bias and an optional rectifier. `w` is `(9, channels)`, `bias` is `(channels)`.
    ///
    /// # Safety
    /// Images must be as large as `sizes` say, and the output have room for as much. No other thread may use these images of
    /// the output.
    pub(super) unsafe fn from_one_channel<E>(
        sizes: &Sizes,
        images: Range<usize>,
        one: &Images<E>,
        w: &[f32],
        bias: &[f32],
        rectify: bool,
        many: *mut E,
    ) = from_one_channel_with;
}

#[inline(always)]
unsafe fn from_one_channel_with<V: Lanes, E: Element>(
    sizes: &Sizes,
    images: Range<usize>,
    one: &Images<E>,
    w: &[f32],
    bias: &[f32],
    rectify: bool,
    many: *mut E,
) {
    let (pixels, channels) = (sizes.pixels(), bias.len());
    let least = if rectify {
        V::splat(0.0)
    } else {
        V::splat(f32::NEG_INFINITY)
    };
    let mut padded = Padded::new(sizes, 1, 1, 1);
    for image in images {
        // SAFETY: as the caller promises.
        unsafe { padded.read::<V, E>(0, one, image) };
        for channel in (0..channels).step_by(LANES) {
            // SAFETY: within the tensors, whose sizes the caller promises.
            let (w, bias) = unsafe {
                let bias = V::load(bias.as_ptr().add(channel));
                (weights(w, channel, channels), bias)
            };
            for y in 0..sizes.height {
                for x in 0..sizes.width {
                    let mut sum = bias;
                    // SAFETY: as above.
                    for (pixel, w) in unsafe { neighbours(&padded, y, x) }.iter().zip(&w) {
                        sum = V::fma(V::splat(*pixel), *w, sum);
                    }
                    let at = (image * pixels + y * sizes.width + x) * channels + channel;
                    // SAFETY: as above.
                    unsafe { E::store(many.add(at), V::max(least, sum)) };
                }
            }
        }
    }
}

for_each_width! {
    /// From many channels to one, with bias. `w` is `(9, channels)`.
    ///
    /// # Safety
    /// As [`from_one_channel`].
    pub(super) unsafe fn to_one_channel<E>(
        sizes: &Sizes,
        images: Range<usize>,
        many: &Images<E>,
        w: &[f32],
        bias: f32,
        one: *mut E,
    ) = to_one_channel_with;
}

#[inline(always)]
unsafe fn to_one_channel_with<V: Lanes, E: Element>(
    sizes: &Sizes,
    images: Range<usize>,
    many: &Images<E>,
    w: &[f32],
    bias: f32,
    one: *mut E,
) {
    let channels = many.channels;
    let mut padded = Padded::new(sizes, 1, channels, 1);
    for image in images {
        // SAFETY: as the caller promises.
        unsafe { padded.read::<V, E>(0, many, image) };
        for y in 0..sizes.height {
            for x in 0..sizes.width {
                let mut sums = [V::splat(0.0); 3];
                for (d, w) in w.chunks_exact(channels).enumerate() {
                    let pixel = padded.at(0, y + d / 3, x + d % 3);
                    for channel in (0..channels).step_by(LANES) {
                        // SAFETY: within the image and the weights.
                        let (pixel, w) = unsafe {
                            (
                                V::load(pixel.add(channel)),
                                V::load(w.as_ptr().add(channel)),
                            )
                        };
                        sums[d / 3] = V::fma(pixel, w, sums[d / 3]);
                    }
                }
                let total = bias + V::sum(V::add(V::add(sums[0], sums[1]), sums[2]));
                let at = image * sizes.pixels() + y * sizes.width + x;
                // SAFETY: as the caller promises.
                unsafe { *one.add(at) = E::from_f32(total) };
            }
        }
    }
}

for_each_width! {
    /// The gradient `(9, channels)` of the weights, and the sum of `many` over all pixels, `(channels)`.
    ///
    /// # Safety
    /// As [`from_one_channel`].
    pub(super) unsafe fn one_channel_gradient<E>(
        sizes: &Sizes,
        images: Range<usize>,
        one: &Images<E>,
        many: &Images<E>,
    ) -> (Vec<f32>, Vec<f32>) = one_channel_gradient_with;
}

#[inline(always)]
unsafe fn one_channel_gradient_with<V: Lanes, E: Element>(
    sizes: &Sizes,
    images: Range<usize>,
    one: &Images<E>,
    many: &Images<E>,
) -> (Vec<f32>, Vec<f32>) {
    let (pixels, channels) = (sizes.pixels(), many.channels);
    let mut gradient = vec![0.0; NEIGHBOURS * channels];
    let mut bias = vec![0.0; channels];
    let mut padded = Padded::new(sizes, 1, 1, 1);
    for image in images {
        // SAFETY: as the caller promises.
        unsafe { padded.read::<V, E>(0, one, image) };
        for channel in (0..channels).step_by(LANES) {
            // SAFETY: within the images, whose sizes the caller promises; here and below.
            let mut sums = unsafe { weights(&gradient, channel, channels) };
            let mut total = unsafe { V::load(bias.as_ptr().add(channel)) };
            for y in 0..sizes.height {
                for x in 0..sizes.width {
                    let at = (image * pixels + y * sizes.width + x) * channels + channel;
                    let (many, neighbours) = unsafe {
                        let numbers: V = E::load(many.numbers.as_ptr().add(at));
                        let many = match many.relu_output.is_empty() {
                            true => numbers,
                            false => V::where_positive(
                                numbers,
                                E::load(many.relu_output.as_ptr().add(at)),
                            ),
                        };
                        (many, neighbours(&padded, y, x))
                    };
                    total = V::add(total, many);
                    for (pixel, sum) in neighbours.iter().zip(&mut sums) {
                        *sum = V::fma(V::splat(*pixel), many, *sum);
                    }
                }
            }
            unsafe {
                V::store(total, bias.as_mut_ptr().add(channel));
                for (d, sum) in sums.iter().enumerate() {
                    V::store(*sum, gradient.as_mut_ptr().add(d * channels + channel));
                }
            }
        }
    }
    (gradient, bias)
}
