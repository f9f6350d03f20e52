//! Convolutions between a single channel and many, as at the two ends of a network.
//!
//! A *map* has one channel, a *field* has many. Three sums are all that both directions and their
//! gradients need, with `q` a pixel, `d` one of the nine neighbours and `c` a channel:
//!
//! - [`spread`]: `field[q, c] = Σ_d map[q + d] · w[d, c]`
//! - [`collect`]: `map[q] = Σ_d Σ_c field[q + d, c] · w[d, c]`
//! - [`correlate`]: `w[d, c] = Σ_q map[q + d] · field[q, c]`

use std::ops::Range;

use super::field::{Field, Padded, Sizes};
use crate::lanes::{Element, LANES, Lanes, dispatched};

/// Pixels in a neighbourhood.
const NINE: usize = 9;

/// A pixel's neighbourhood in a map.
#[inline(always)]
unsafe fn around(map: &Padded, y: usize, x: usize) -> [f32; NINE] {
    let corner = map.at(0, y, x);
    std::array::from_fn(|d| unsafe { *corner.add(d / 3 * map.width + d % 3) })
}

/// Sixteen channels of all nine weights, as [`spread`] and [`collect`] take them.
#[inline(always)]
unsafe fn weights<V: Lanes>(w: &[f32], channel: usize, channels: usize) -> [V; NINE] {
    std::array::from_fn(|d| unsafe { V::load(w.as_ptr().add(d * channels + channel)) })
}

dispatched! {
    /// From a map to a field, with bias and, if wanted, rectifier.
    ///
    /// # Safety
    /// The CPU must have this width; `w` is `(9, channels)`, `bias` is `(channels)`; pointers
    /// must point to as many numbers as `sizes` say.
    pub(super) unsafe fn spread<E>(
        sizes: &Sizes,
        images: Range<usize>,
        map: &Field<E>,
        w: &[f32],
        bias: &[f32],
        rectify: bool,
        field: *mut E,
    ) = spread_with;
}

#[inline(always)]
unsafe fn spread_with<V: Lanes, E: Element>(
    sizes: &Sizes,
    images: Range<usize>,
    map: &Field<E>,
    w: &[f32],
    bias: &[f32],
    rectify: bool,
    field: *mut E,
) {
    let (pixels, channels) = (sizes.pixels(), bias.len());
    let least = if rectify {
        V::all(0.0)
    } else {
        V::all(f32::NEG_INFINITY)
    };
    let mut padded = Padded::new(sizes, 1, 1, 1);
    for image in images {
        // SAFETY: as the caller promises.
        unsafe { padded.read::<V, E>(0, map, image) };
        for channel in (0..channels).step_by(LANES) {
            // SAFETY: within the tensors that the caller vouches for.
            let (w, bias) = unsafe {
                let bias = V::load(bias.as_ptr().add(channel));
                (weights(w, channel, channels), bias)
            };
            for y in 0..sizes.height {
                for x in 0..sizes.width {
                    let mut sum = bias;
                    // SAFETY: as above.
                    for (pixel, w) in unsafe { around(&padded, y, x) }.iter().zip(&w) {
                        sum = V::fma(V::all(*pixel), *w, sum);
                    }
                    let at = (image * pixels + y * sizes.width + x) * channels + channel;
                    // SAFETY: as above.
                    unsafe { E::store(field.add(at), V::max(least, sum)) };
                }
            }
        }
    }
}

dispatched! {
    /// From a field to a map, with bias.
    ///
    /// # Safety
    /// As [`spread`].
    pub(super) unsafe fn collect<E>(
        sizes: &Sizes,
        images: Range<usize>,
        field: &Field<E>,
        w: &[f32],
        bias: f32,
        map: *mut E,
    ) = collect_with;
}

#[inline(always)]
unsafe fn collect_with<V: Lanes, E: Element>(
    sizes: &Sizes,
    images: Range<usize>,
    field: &Field<E>,
    w: &[f32],
    bias: f32,
    map: *mut E,
) {
    let channels = field.channels;
    let mut padded = Padded::new(sizes, 1, channels, 1);
    for image in images {
        // SAFETY: as the caller promises.
        unsafe { padded.read::<V, E>(0, field, image) };
        for y in 0..sizes.height {
            for x in 0..sizes.width {
                let mut sums = [V::all(0.0); 3];
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
                unsafe { *map.add(at) = E::from_f32(total) };
            }
        }
    }
}

dispatched! {
    /// The weights' gradient `(9, channels)`, and the sum of the field over all pixels `(channels)`.
    ///
    /// # Safety
    /// As [`spread`].
    pub(super) unsafe fn correlate<E>(
        sizes: &Sizes,
        images: Range<usize>,
        map: &Field<E>,
        field: &Field<E>,
    ) -> (Vec<f32>, Vec<f32>) = correlate_with;
}

#[inline(always)]
unsafe fn correlate_with<V: Lanes, E: Element>(
    sizes: &Sizes,
    images: Range<usize>,
    map: &Field<E>,
    field: &Field<E>,
) -> (Vec<f32>, Vec<f32>) {
    let (pixels, channels) = (sizes.pixels(), field.channels);
    let mut gradient = vec![0.0; NINE * channels];
    let mut bias = vec![0.0; channels];
    let mut padded = Padded::new(sizes, 1, 1, 1);
    for image in images {
        // SAFETY: as the caller promises.
        unsafe { padded.read::<V, E>(0, map, image) };
        for channel in (0..channels).step_by(LANES) {
            // SAFETY: within the fields that the caller vouches for, here and below.
            let mut sums = unsafe { weights(&gradient, channel, channels) };
            let mut total = unsafe { V::load(bias.as_ptr().add(channel)) };
            for y in 0..sizes.height {
                for x in 0..sizes.width {
                    let at = (image * pixels + y * sizes.width + x) * channels + channel;
                    let (field, around) = unsafe {
                        let numbers: V = E::load(field.numbers.as_ptr().add(at));
                        let field = match field.mask.is_empty() {
                            true => numbers,
                            false => {
                                V::where_positive(numbers, E::load(field.mask.as_ptr().add(at)))
                            }
                        };
                        (field, around(&padded, y, x))
                    };
                    total = V::add(total, field);
                    for (pixel, sum) in around.iter().zip(&mut sums) {
                        *sum = V::fma(V::all(*pixel), field, *sum);
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
