//! The normalisation with AVX-512 or AVX2: an image's group is sixteen channels, one vector, so a group's statistics are
//! sums of vectors, and what a pass reads is still in the core's cache for the next.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::{EPSILON, GROUP};
use crate::autograd::differentiate;
use crate::lanes::{BFloat16, Element, LANES, Lanes, Width, dispatched, lines, sigmoid};
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
    let width = Width::of_this_cpu()?;
    let fits = x.numel() > 0
        && shape.len() == 4
        && shape[3] % GROUP == 0
        && shift.size() == [shape[0], shape[3]]
        && [gamma, beta].iter().all(|t| t.size() == [shape[3]])
        && all
            .iter()
            .all(|t| t.device() == Device::Cpu && t.kind() == x.kind());
    match x.kind() {
        Kind::Float if fits => remembered::<f32>(width, x, shift, gamma, beta),
        Kind::BFloat16 if fits => remembered::<BFloat16>(width, x, shift, gamma, beta),
        _ => None,
    }
}

fn remembered<E: Element>(
    width: Width,
    x: &Tensor,
    shift: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
) -> Option<Tensor> {
    let of = |tensor: &Tensor| floats(numbers::<E>(&tensor.detach().contiguous()));
    let norm = Norm {
        width,
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
    width: Width,
    shift: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    pixels: usize,
}

/// Mean and one over the deviation of a group.
struct Statistics<V> {
    mean: V,
    inverse: V,
}

impl Norm {
    fn operations(&self) -> usize {
        OPERATIONS * self.pixels * self.gamma.len()
    }

    fn forward<E: Element>(&self, x: &Tensor) -> Tensor {
        let numbers = numbers::<E>(x);
        fill(x, &x.size(), self.operations(), |images, out| {
            // SAFETY: the CPU was asked for its instructions, and both tensors are of one size.
            unsafe { normalise(self.width, self, numbers, images, out) };
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
            unsafe { differentiate_images(self.width, self, x, gradient, images, out.get()) }
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
    unsafe fn read<V: Lanes, E: Element>(
        &self,
        x: *const E,
        shift: V,
        into: *mut f32,
    ) -> Statistics<V> {
        let channels = self.gamma.len();
        let mut total = V::all(0.0);
        for pixel in 0..self.pixels {
            // SAFETY: within the image and the buffer, here and below.
            let h = unsafe { V::add(E::load(x.add(pixel * channels)), shift) };
            unsafe { V::store(h, into.add(pixel * LANES)) };
            total = V::add(total, h);
        }
        let count = (self.pixels * LANES) as f32;
        let mean = V::all(V::sum(total) / count);
        let mut squares = V::all(0.0);
        for pixel in 0..self.pixels {
            let centred = unsafe { V::sub(V::load(into.add(pixel * LANES)), mean) };
            squares = V::fma(centred, centred, squares);
        }
        let variance = V::sum(squares) / count;
        Statistics {
            mean,
            inverse: V::all(1.0 / (variance + EPSILON as f32).sqrt()),
        }
    }

    /// See [`normalise`].
    #[inline(always)]
    unsafe fn normalise_with<V: Lanes, E: Element>(
        &self,
        x: &[E],
        images: Range<usize>,
        out: *mut E,
    ) {
        let channels = self.gamma.len();
        let mut buffer = lines(self.pixels * LANES);
        let buffer = buffer.as_mut_ptr().cast::<f32>();
        for image in images {
            for channel in (0..channels).step_by(LANES) {
                let at = image * self.pixels * channels + channel;
                // SAFETY: as the caller promises.
                unsafe {
                    let shift: V = V::load(self.shift.as_ptr().add(image * channels + channel));
                    let statistics = self.read(x.as_ptr().add(at), shift, buffer);
                    let gamma = V::load(self.gamma.as_ptr().add(channel));
                    let beta = V::load(self.beta.as_ptr().add(channel));
                    // gamma · (h - mean) · inverse + beta, as one product and one sum.
                    let scale = V::mul(gamma, statistics.inverse);
                    let offset = V::sub(beta, V::mul(scale, statistics.mean));
                    for pixel in 0..self.pixels {
                        let z = V::fma(V::load(buffer.add(pixel * LANES)), scale, offset);
                        E::store(out.add(at + pixel * channels), V::mul(z, sigmoid(z)));
                    }
                }
            }
        }
    }

    /// Writes the gradient of `x`; gives those of `shift` (of these images), `gamma` and `beta`.
    ///
    /// With `ĥ = (h - mean) · inverse`, `z = gamma · ĥ + beta` and `g_z = g · silu'(z)`:
    /// `g_ĥ = gamma · g_z` and `g_h = inverse · (g_ĥ - mean(g_ĥ) - ĥ · mean(g_ĥ · ĥ))`.
    #[inline(always)]
    unsafe fn differentiate_with<V: Lanes, E: Element>(
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
                    let shift: V = V::load(self.shift.as_ptr().add(image * channels + channel));
                    let Statistics { mean, inverse } = self.read(x.as_ptr().add(at), shift, normal);
                    let gamma = V::load(self.gamma.as_ptr().add(channel));
                    let beta = V::load(self.beta.as_ptr().add(channel));
                    let (mut sum_z, mut sum_zh) = (V::all(0.0), V::all(0.0));
                    for pixel in 0..self.pixels {
                        let h = V::mul(V::sub(V::load(normal.add(pixel * LANES)), mean), inverse);
                        let z = V::fma(h, gamma, beta);
                        let s = sigmoid(z);
                        // silu'(z) = s · (1 + z · (1 - s))
                        let slope = V::mul(s, V::fma(z, V::sub(V::all(1.0), s), V::all(1.0)));
                        let g = E::load(gradient.as_ptr().add(at + pixel * channels));
                        let g = V::mul(g, slope);
                        sum_z = V::add(sum_z, g);
                        sum_zh = V::fma(g, h, sum_zh);
                        V::store(h, normal.add(pixel * LANES));
                        V::store(V::mul(g, gamma), normal_gradient.add(pixel * LANES));
                    }
                    let to_gamma = to_gamma.as_mut_ptr().add(channel);
                    V::store(V::add(V::load(to_gamma), sum_zh), to_gamma);
                    let to_beta = to_beta.as_mut_ptr().add(channel);
                    V::store(V::add(V::load(to_beta), sum_z), to_beta);
                    let count = (self.pixels * LANES) as f32;
                    let mean = V::all(V::sum(V::mul(sum_z, gamma)) / count);
                    let slope = V::all(V::sum(V::mul(sum_zh, gamma)) / count);
                    let mut total = V::all(0.0);
                    for pixel in 0..self.pixels {
                        let h = V::load(normal.add(pixel * LANES));
                        let g = V::sub(V::load(normal_gradient.add(pixel * LANES)), mean);
                        let g = V::mul(inverse, V::sub(g, V::mul(h, slope)));
                        total = V::add(total, g);
                        E::store(out.add(at + pixel * channels), g);
                    }
                    V::store(total, to_shift.as_mut_ptr().add(slot * channels + channel));
                }
            }
        }
        [to_shift, to_gamma, to_beta]
    }
}

dispatched! {
    /// # Safety
    /// The CPU must have this width; `x` must hold these images, and `out` have room for them.
    unsafe fn normalise<E>(norm: &Norm, x: &[E], images: Range<usize>, out: *mut E) = normalise_with;
}

#[inline(always)]
unsafe fn normalise_with<V: Lanes, E: Element>(
    norm: &Norm,
    x: &[E],
    images: Range<usize>,
    out: *mut E,
) {
    unsafe { norm.normalise_with::<V, E>(x, images, out) }
}

dispatched! {
    /// # Safety
    /// As [`normalise`].
    unsafe fn differentiate_images<E>(
        norm: &Norm,
        x: &[E],
        gradient: &[E],
        images: Range<usize>,
        out: *mut E,
    ) -> [Vec<f32>; 3] = differentiate_with;
}

#[inline(always)]
unsafe fn differentiate_with<V: Lanes, E: Element>(
    norm: &Norm,
    x: &[E],
    gradient: &[E],
    images: Range<usize>,
    out: *mut E,
) -> [Vec<f32>; 3] {
    unsafe { norm.differentiate_with::<V, E>(x, gradient, images, out) }
}
