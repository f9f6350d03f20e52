//! The normalisation with AVX-512 or AVX2. A group is sixteen channels, which are one vector, so the statistics of a group
//! are sums of vectors. Each pass over a group reads numbers that the previous pass left in the core's cache.

use std::ops::Range;

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use crate::autograd::{Gradients, record_backward};
use crate::bfloat16::BFloat16;
use crate::simd::aligned::aligned_zeros;
use crate::simd::element::Element;
use crate::simd::lanes::{LANES, Lanes, sigmoid};
use crate::simd::width::{Width, for_each_width};
use crate::slices::{SharedOutput, compute_images, elements, parallel_over_images, to_f32};

/// An operation on one number takes about as long as this many multiplications.
const OPERATIONS: usize = 30;

/// The normalisation of tensors that fit each other, with groups of [`LANES`] channels. `None` where the kernels cannot
/// compute it: they take `float32` or `bfloat16` on the CPU.
pub(super) fn norm_silu(
    width: Width,
    inputs: [&Tensor; 4],
    epsilon: f64,
) -> Result<Option<Tensor>> {
    if inputs.iter().any(|t| t.device() != Device::Cpu) {
        return Ok(None);
    }
    match inputs[0].kind() {
        Kind::Float => recorded::<f32>(width, inputs, epsilon),
        Kind::BFloat16 => recorded::<BFloat16>(width, inputs, epsilon),
        _ => Ok(None),
    }
}

/// The output, recorded in libtorch's graph. `None` where libtorch refuses to record.
fn recorded<E: Element>(
    width: Width,
    inputs: [&Tensor; 4],
    epsilon: f64,
) -> Result<Option<Tensor>> {
    let contiguous = inputs.map(|input| input.detach().contiguous());
    let [x, shift, gamma, beta] = &contiguous;
    let vector = |tensor: &Tensor| Ok::<_, anyhow::Error>(to_f32(elements::<E>(tensor)?));
    let norm = Norm {
        width,
        shift: vector(shift)?,
        gamma: vector(gamma)?,
        beta: vector(beta)?,
        pixels: (x.size()[1] * x.size()[2]) as usize,
        epsilon: epsilon as f32,
    };
    let output = norm.forward::<E>(x)?;
    let [x, ..] = contiguous;
    Ok(record_backward(output, &inputs, move |gradient| {
        norm.backward::<E>(&x, &gradient.contiguous())
    }))
}

/// One normalisation, with what its gradients need in `float32`.
struct Norm {
    width: Width,
    shift: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    pixels: usize,
    epsilon: f32,
}

/// The mean of a group, and one over its standard deviation.
struct Statistics<V> {
    mean: V,
    inverse: V,
}

impl Norm {
    fn operations(&self) -> usize {
        OPERATIONS * self.pixels * self.gamma.len()
    }

    fn forward<E: Element>(&self, x: &Tensor) -> Result<Tensor> {
        let numbers = elements::<E>(x)?;
        Ok(compute_images(
            &x.size(),
            self.operations(),
            |images, out| {
                // SAFETY: both tensors are of one size, and each thread writes to images of its own.
                unsafe { normalise(self.width, self, numbers, images, out) };
            },
        ))
    }

    /// The gradients of `x`, `shift`, `gamma` and `beta`.
    fn backward<E: Element>(&self, x: &Tensor, gradient: &Tensor) -> Result<Gradients> {
        let channels = self.gamma.len();
        let mut x_gradient = Tensor::empty(x.size(), (E::KIND, Device::Cpu));
        let out = SharedOutput::<E>::of(&mut x_gradient);
        let (x, gradient) = (elements::<E>(x)?, elements::<E>(gradient)?);
        let images = x.len() / (self.pixels * channels);
        let parts = parallel_over_images(images, 2 * self.operations(), |images| {
            // SAFETY: as in `forward`; libtorch gives gradients of the output's shape.
            unsafe { gradients(self.width, self, x, gradient, images, out.get()) }
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
        Ok(vec![Some(x_gradient), Some(shift), Some(gamma), Some(beta)])
    }

    /// Copies sixteen channels of an image plus their shift, pixel after pixel, to `into`; gives their statistics.
    #[inline(always)]
    unsafe fn read<V: Lanes, E: Element>(
        &self,
        x: *const E,
        shift: V,
        into: *mut f32,
    ) -> Statistics<V> {
        let channels = self.gamma.len();
        let mut total = V::splat(0.0);
        for pixel in 0..self.pixels {
            // SAFETY: within the image and the buffer, here and below.
            let h = unsafe { V::add(E::load(x.add(pixel * channels)), shift) };
            unsafe { V::store(h, into.add(pixel * LANES)) };
            total = V::add(total, h);
        }
        let count = (self.pixels * LANES) as f32;
        let mean = V::splat(V::sum(total) / count);
        let mut squares = V::splat(0.0);
        for pixel in 0..self.pixels {
            let centred = unsafe { V::sub(V::load(into.add(pixel * LANES)), mean) };
            squares = V::fma(centred, centred, squares);
        }
        let variance = V::sum(squares) / count;
        Statistics {
            mean,
            inverse: V::splat(1.0 / (variance + self.epsilon).sqrt()),
        }
    }

    /// The kernel of [`normalise`].
    #[inline(always)]
    unsafe fn normalise_with<V: Lanes, E: Element>(
        &self,
        x: &[E],
        images: Range<usize>,
        out: *mut E,
    ) {
        let channels = self.gamma.len();
        let mut buffer = aligned_zeros(self.pixels * LANES);
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

    /// Writes the gradient of `x`, and gives those of `shift` (of these images), `gamma` and `beta` (summed over these
    /// images).
    ///
    /// With `ĥ = (h - mean) · inverse`, `z = gamma · ĥ + beta` and `g_z = g · silu'(z)`:
    /// `g_ĥ = gamma · g_z` and `g_h = inverse · (g_ĥ - mean(g_ĥ) - ĥ · mean(g_ĥ · ĥ))`.
    #[inline(always)]
    unsafe fn gradients_with<V: Lanes, E: Element>(
        &self,
        x: &[E],
        gradient: &[E],
        images: Range<usize>,
        out: *mut E,
    ) -> [Vec<f32>; 3] {
        let channels = self.gamma.len();
        let mut buffers = aligned_zeros(2 * self.pixels * LANES);
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
                    let (mut sum_z, mut sum_zh) = (V::splat(0.0), V::splat(0.0));
                    for pixel in 0..self.pixels {
                        let h = V::mul(V::sub(V::load(normal.add(pixel * LANES)), mean), inverse);
                        let z = V::fma(h, gamma, beta);
                        let s = sigmoid(z);
                        // silu'(z) = s · (1 + z · (1 - s))
                        let slope = V::mul(s, V::fma(z, V::sub(V::splat(1.0), s), V::splat(1.0)));
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
                    let mean = V::splat(V::sum(V::mul(sum_z, gamma)) / count);
                    let slope = V::splat(V::sum(V::mul(sum_zh, gamma)) / count);
                    let mut total = V::splat(0.0);
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

for_each_width! {
    /// Computes the output of some of the images.
    ///
    /// # Safety
    /// `x` must hold these images, and `out` have room for them. No other thread may use these images of `out`.
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

for_each_width! {
    /// Computes the gradients of some of the images, see [`Norm::gradients_with`].
    ///
    /// # Safety
    /// As [`normalise`]; `gradient` must hold these images, too.
    unsafe fn gradients<E>(
        norm: &Norm,
        x: &[E],
        gradient: &[E],
        images: Range<usize>,
        out: *mut E,
    ) -> [Vec<f32>; 3] = gradients_with;
}

#[inline(always)]
unsafe fn gradients_with<V: Lanes, E: Element>(
    norm: &Norm,
    x: &[E],
    gradient: &[E],
    images: Range<usize>,
    out: *mut E,
) -> [Vec<f32>; 3] {
    unsafe { norm.gradients_with::<V, E>(x, gradient, images, out) }
}
