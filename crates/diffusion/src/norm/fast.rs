//! The normalisation with AVX-512: an image's group is sixteen channels, one vector, so a group's statistics are
//! sums of vectors, and what a pass reads is still in the core's cache for the next.

use std::arch::x86_64::__m512;
use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::{EPSILON, GROUP};
use crate::autograd::differentiate;
use crate::lanes::{
    BFloat16, Element, LANES, add, all, fma, is_available, lines, load, mul, sigmoid, store, sub,
    sum, zero,
};
use crate::slices::{SharedOut, fill, floats, in_parts, numbers};

/// An operation on a number costs about as much as so many products.
const OPERATIONS: usize = 30;

pub(super) fn normalised(
    x: &Tensor,
    shift: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
) -> Option<Tensor> {
    let shape = x.size();
    let all = [x, shift, gamma, beta];
    // What the kernels below rely on. Where it does not hold, libtorch is asked, and refuses in its own words.
    let fits = is_available()
        && x.numel() > 0
        && shape.len() == 4
        && shape[3] % GROUP == 0
        && shift.size() == [shape[0], shape[3]]
        && [gamma, beta].iter().all(|t| t.size() == [shape[3]])
        && all
            .iter()
            .all(|t| t.device() == Device::Cpu && t.kind() == x.kind());
    match x.kind() {
        Kind::Float if fits => remembered::<f32>(x, shift, gamma, beta),
        Kind::BFloat16 if fits => remembered::<BFloat16>(x, shift, gamma, beta),
        _ => None,
    }
}

fn remembered<E: Element>(
    x: &Tensor,
    shift: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
) -> Option<Tensor> {
    let of = |tensor: &Tensor| floats(numbers::<E>(&tensor.detach().contiguous()));
    let norm = Norm {
        shift: of(shift),
        gamma: of(gamma),
        beta: of(beta),
        pixels: (x.size()[1] * x.size()[2]) as usize,
    };
    let input = x.detach().contiguous();
    let output = norm.forward::<E>(&input);
    differentiate(output, &[x, shift, gamma, beta], move |gradient| {
        norm.backward::<E>(&input, &gradient.contiguous())
    })
}

/// One normalisation's numbers, in `float32`.
struct Norm {
    shift: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    pixels: usize,
}

/// Mean and one over the deviation of a group.
struct Statistics {
    mean: __m512,
    inverse: __m512,
}

impl Norm {
    fn operations(&self) -> usize {
        OPERATIONS * self.pixels * self.gamma.len()
    }

    fn forward<E: Element>(&self, x: &Tensor) -> Tensor {
        let numbers = numbers::<E>(x);
        fill(x, &x.size(), self.operations(), |images, out| {
            // SAFETY: the CPU was asked for its instructions, and both tensors are of one size.
            unsafe { self.normalise::<E>(numbers, images, out) };
        })
    }

    /// The gradients of `x`, `shift`, `gamma` and `beta`.
    fn backward<E: Element>(&self, x: &Tensor, gradient: &Tensor) -> Vec<Option<Tensor>> {
        let channels = self.gamma.len();
        let to_x = Tensor::empty(x.size(), (x.kind(), x.device()));
        let out = SharedOut(to_x.data_ptr().cast::<E>());
        let (x, gradient) = (numbers::<E>(x), numbers::<E>(gradient));
        let images = x.len() / (self.pixels * channels);
        let parts = in_parts(images, 2 * self.operations(), |images| {
            // SAFETY: as in `forward`; each thread writes to images of its own.
            unsafe { self.differentiate(x, gradient, images, out.get()) }
        });
        let mut sums = [vec![], vec![0.0; channels], vec![0.0; channels]];
        for part in parts {
            sums[0].extend(&part[0]);
            for (sum, part) in sums[1..].iter_mut().zip(&part[1..]) {
                sum.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
            }
        }
        let tensor = |numbers: &Vec<f32>| Tensor::from_slice(numbers).to_kind(E::KIND);
        let [shift, gamma, beta] = sums.each_ref().map(tensor);
        let shift = shift.view([images as i64, channels as i64]);
        vec![Some(to_x), Some(shift), Some(gamma), Some(beta)]
    }

    /// Sixteen channels of an image with their shift, pixel after pixel, into `into`; and their statistics.
    #[inline(always)]
    unsafe fn read<E: Element>(&self, x: *const E, shift: __m512, into: *mut f32) -> Statistics {
        let channels = self.gamma.len();
        let mut total = zero();
        for pixel in 0..self.pixels {
            // SAFETY: within the image and the buffer, here and below.
            let h = unsafe { add(E::load(x.add(pixel * channels)), shift) };
            unsafe { store(into.add(pixel * LANES), h) };
            total = add(total, h);
        }
        let count = (self.pixels * LANES) as f32;
        let mean = all(sum(total) / count);
        let mut squares = zero();
        for pixel in 0..self.pixels {
            let centred = unsafe { sub(load(into.add(pixel * LANES)), mean) };
            squares = fma(centred, centred, squares);
        }
        let variance = sum(squares) / count;
        Statistics {
            mean,
            inverse: all(1.0 / (variance + EPSILON as f32).sqrt()),
        }
    }

    /// # Safety
    /// The CPU must have AVX-512 F, BW and VL; `x` must hold these images, and `out` have room for them.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn normalise<E: Element>(&self, x: &[E], images: Range<usize>, out: *mut E) {
        let channels = self.gamma.len();
        let mut buffer = lines(self.pixels * LANES);
        let buffer = buffer.as_mut_ptr().cast::<f32>();
        for image in images {
            for channel in (0..channels).step_by(LANES) {
                let at = image * self.pixels * channels + channel;
                // SAFETY: as the caller promises.
                unsafe {
                    let shift = load(self.shift.as_ptr().add(image * channels + channel));
                    let statistics = self.read(x.as_ptr().add(at), shift, buffer);
                    let gamma = load(self.gamma.as_ptr().add(channel));
                    let beta = load(self.beta.as_ptr().add(channel));
                    // gamma · (h - mean) · inverse + beta, as one product and one sum.
                    let scale = mul(gamma, statistics.inverse);
                    let offset = sub(beta, mul(scale, statistics.mean));
                    for pixel in 0..self.pixels {
                        let z = fma(load(buffer.add(pixel * LANES)), scale, offset);
                        E::store(out.add(at + pixel * channels), mul(z, sigmoid(z)));
                    }
                }
            }
        }
    }

    /// Writes the gradient of `x`; gives those of `shift` (of these images), `gamma` and `beta`.
    ///
    /// With `ĥ = (h - mean) · inverse`, `z = gamma · ĥ + beta` and `g_z = g · silu'(z)`:
    /// `g_ĥ = gamma · g_z` and `g_h = inverse · (g_ĥ - mean(g_ĥ) - ĥ · mean(g_ĥ · ĥ))`.
    ///
    /// # Safety
    /// As [`normalise`](Norm::normalise).
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn differentiate<E: Element>(
        &self,
        x: &[E],
        gradient: &[E],
        images: Range<usize>,
        out: *mut E,
    ) -> [Vec<f32>; 3] {
        let channels = self.gamma.len();
        let mut buffers = lines(2 * self.pixels * LANES);
        let normal = buffers.as_mut_ptr().cast::<f32>();
        let normal_gradient = normal.wrapping_add(self.pixels * LANES);
        let mut to_shift = vec![0.0; images.len() * channels];
        let (mut to_gamma, mut to_beta) = (vec![0.0; channels], vec![0.0; channels]);
        for (slot, image) in images.enumerate() {
            for channel in (0..channels).step_by(LANES) {
                let at = image * self.pixels * channels + channel;
                // SAFETY: as the caller promises.
                unsafe {
                    let shift = load(self.shift.as_ptr().add(image * channels + channel));
                    let Statistics { mean, inverse } = self.read(x.as_ptr().add(at), shift, normal);
                    let gamma = load(self.gamma.as_ptr().add(channel));
                    let beta = load(self.beta.as_ptr().add(channel));
                    let (mut sum_z, mut sum_zh) = (zero(), zero());
                    for pixel in 0..self.pixels {
                        let h = mul(sub(load(normal.add(pixel * LANES)), mean), inverse);
                        let z = fma(h, gamma, beta);
                        let s = sigmoid(z);
                        // silu'(z) = s · (1 + z · (1 - s))
                        let slope = mul(s, fma(z, sub(all(1.0), s), all(1.0)));
                        let g = E::load(gradient.as_ptr().add(at + pixel * channels));
                        let g = mul(g, slope);
                        sum_z = add(sum_z, g);
                        sum_zh = fma(g, h, sum_zh);
                        store(normal.add(pixel * LANES), h);
                        store(normal_gradient.add(pixel * LANES), mul(g, gamma));
                    }
                    let to_gamma = to_gamma.as_mut_ptr().add(channel);
                    store(to_gamma, add(load(to_gamma), sum_zh));
                    let to_beta = to_beta.as_mut_ptr().add(channel);
                    store(to_beta, add(load(to_beta), sum_z));
                    let count = (self.pixels * LANES) as f32;
                    let mean = all(sum(mul(sum_z, gamma)) / count);
                    let slope = all(sum(mul(sum_zh, gamma)) / count);
                    let mut total = zero();
                    for pixel in 0..self.pixels {
                        let h = load(normal.add(pixel * LANES));
                        let g = sub(load(normal_gradient.add(pixel * LANES)), mean);
                        let g = mul(inverse, sub(g, mul(h, slope)));
                        total = add(total, g);
                        E::store(out.add(at + pixel * channels), g);
                    }
                    store(to_shift.as_mut_ptr().add(slot * channels + channel), total);
                }
            }
        }
        [to_shift, to_gamma, to_beta]
    }
}
