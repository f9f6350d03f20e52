//! Which kernel computes a convolution, on how many threads, and how its gradients flow back.

use tch::{Device, Kind, Tensor};

use super::field::{Field, Sizes};
use super::{Activation, thin, winograd};
use crate::autograd::differentiate;
use crate::lanes::{BFloat16, Element, LANES, Width};
use crate::slices::{fill, floats, in_parts, numbers};

/// [`conv3x3`](super::conv3x3) by the kernels of this folder, where they can: on a CPU with AVX-512 or AVX2, in
/// `float32` or `bfloat16`, between channels that fill vectors or are one.
pub(super) fn convolution(
    x: &Tensor,
    kernel: &Tensor,
    bias: &Tensor,
    activation: Activation,
) -> Option<Tensor> {
    let (shape, to) = (x.size(), bias.numel() as i64);
    // What the kernels rely on. Where it does not hold, libtorch is asked, and refuses in its own words.
    let width = Width::of_this_cpu()?;
    let fits = x.numel() > 0
        && shape.len() == 4
        && kernel.size() == [to, 3, 3, shape[3]]
        && bias.size() == [to]
        && [x, kernel, bias]
            .iter()
            .all(|t| t.device() == Device::Cpu && t.kind() == x.kind());
    if !fits {
        return None;
    }
    let way = Way::between(shape[3] as usize, to as usize)?;
    let rectify = activation == Activation::Relu;
    if rectify && matches!(way, Way::Collect) {
        return None;
    }
    match x.kind() {
        Kind::Float => remembered::<f32>(width, way, x, kernel, bias, rectify),
        Kind::BFloat16 => remembered::<BFloat16>(width, way, x, kernel, bias, rectify),
        _ => None,
    }
}

/// Which kernel.
#[derive(Clone, Copy)]
enum Way {
    Winograd,
    /// From a single channel.
    Spread,
    /// To a single channel.
    Collect,
}

impl Way {
    fn between(from: usize, to: usize) -> Option<Way> {
        let fills = |channels: usize| channels > 0 && channels.is_multiple_of(LANES);
        match (from, to) {
            (1, to) if fills(to) => Some(Way::Spread),
            (from, 1) if fills(from) => Some(Way::Collect),
            (from, to) if fills(from) && fills(to) => Some(Way::Winograd),
            _ => None,
        }
    }
}

/// The result, which remembers how gradients flow back.
fn remembered<E: Element>(
    width: Width,
    way: Way,
    x: &Tensor,
    kernel: &Tensor,
    bias: &Tensor,
    rectify: bool,
) -> Option<Tensor> {
    let mut call = Call {
        width,
        way,
        x: x.detach().contiguous(),
        kernel: kernel.detach().contiguous(),
        mask: None,
        wanted: [x, kernel, bias].map(Tensor::requires_grad),
    };
    let output = call.forward::<E>(&bias.detach().contiguous(), rectify);
    call.mask = rectify.then(|| output.detach());
    differentiate(output, &[x, kernel, bias], move |gradient| {
        call.backward::<E>(&gradient.contiguous())
    })
}

/// One convolution, with what its gradients need on their way back.
struct Call {
    width: Width,
    way: Way,
    x: Tensor,
    kernel: Tensor,
    /// The output, where a rectifier was at work.
    mask: Option<Tensor>,
    /// Whether `x`, `kernel` and `bias` want a gradient.
    wanted: [bool; 3],
}

impl Call {
    fn forward<E: Element>(&self, bias: &Tensor, rectify: bool) -> Tensor {
        let (sizes, to) = (sizes(&self.x), bias.numel());
        let field = field::<E>(&self.x, None);
        let (kernel, bias) = (numbers::<E>(&self.kernel), floats(numbers::<E>(bias)));
        let (shape, products) = (sizes.shape(to), sizes.products(field.channels, to));
        let width = self.width;
        match self.way {
            Way::Winograd => {
                // SAFETY: the CPU was asked for its instructions, and all sizes were checked, before this call was made;
                // here and below.
                let kernel = unsafe { winograd::kernel(width, kernel, field.channels, to) };
                fill(&self.x, &shape, products, |images, out| unsafe {
                    winograd::convolve(width, &sizes, images, &field, &kernel, &bias, rectify, out);
                })
            }
            Way::Spread => {
                let w = turned(&floats(kernel), to, 9);
                fill(&self.x, &shape, products, |images, out| unsafe {
                    thin::spread(width, &sizes, images, &field, &w, &bias, rectify, out);
                })
            }
            Way::Collect => {
                let w = floats(kernel);
                fill(&self.x, &shape, products, |images, out| unsafe {
                    thin::collect(width, &sizes, images, &field, &w, bias[0], out);
                })
            }
        }
    }

    /// The gradients of `x`, `kernel` and `bias`.
    fn backward<E: Element>(&self, gradient: &Tensor) -> Vec<Option<Tensor>> {
        let [x, kernel, bias] = self.wanted;
        let to_x = x.then(|| self.to_x::<E>(gradient));
        let (to_kernel, to_bias) = (kernel || bias)
            .then(|| self.to_weights::<E>(gradient))
            .unzip();
        vec![to_x, to_kernel, to_bias]
    }

    /// A convolution with the kernel turned around, its two ends exchanged.
    fn to_x<E: Element>(&self, gradient: &Tensor) -> Tensor {
        let (sizes, from) = (sizes(gradient), channels(&self.x));
        let field = field::<E>(gradient, self.mask.as_ref());
        let kernel = numbers::<E>(&self.kernel);
        let (width, zeros) = (self.width, vec![0.0; from]);
        let (shape, products) = (sizes.shape(from), sizes.products(field.channels, from));
        match self.way {
            Way::Winograd => {
                let kernel =
                    unsafe { winograd::kernel_backwards(width, kernel, field.channels, from) };
                fill(gradient, &shape, products, |images, out| unsafe {
                    winograd::convolve(width, &sizes, images, &field, &kernel, &zeros, false, out);
                })
            }
            Way::Spread => {
                let w = backwards(&turned(&floats(kernel), field.channels, 9));
                fill(gradient, &shape, products, |images, out| unsafe {
                    thin::collect(width, &sizes, images, &field, &w, 0.0, out);
                })
            }
            Way::Collect => {
                let w = backwards(&floats(kernel));
                fill(gradient, &shape, products, |images, out| unsafe {
                    thin::spread(width, &sizes, images, &field, &w, &zeros, false, out);
                })
            }
        }
    }

    fn to_weights<E: Element>(&self, gradient: &Tensor) -> (Tensor, Tensor) {
        let sizes = sizes(gradient);
        let (x, to) = (
            field::<E>(&self.x, None),
            field::<E>(gradient, self.mask.as_ref()),
        );
        let products = sizes.products(x.channels, to.channels);
        let (width, way) = (self.width, self.way);
        let parts = in_parts(sizes.images, products, |images| unsafe {
            match way {
                Way::Winograd => winograd::kernel_gradient(width, &sizes, images, &x, &to),
                Way::Spread => thin::correlate(width, &sizes, images, &x, &to),
                Way::Collect => thin::correlate(width, &sizes, images, &to, &x),
            }
        });
        let (mut kernel, mut bias) = (vec![], vec![]);
        for (of_kernel, of_bias) in parts {
            add_to(&mut kernel, of_kernel);
            add_to(&mut bias, of_bias);
        }
        let bias = match self.way {
            Way::Winograd | Way::Spread => Tensor::from_slice(&bias),
            Way::Collect => gradient.sum(Kind::Float).view(1),
        };
        let kernel = match self.way {
            Way::Winograd => kernel,
            Way::Spread => turned(&kernel, 9, to.channels),
            Way::Collect => backwards(&kernel),
        };
        let kernel = Tensor::from_slice(&kernel).view_(self.kernel.size());
        (
            kernel.to_kind(self.kernel.kind()),
            bias.to_kind(self.kernel.kind()),
        )
    }
}

// ---- small helpers ---------------------------------------------------------------------------------

fn sizes(images: &Tensor) -> Sizes {
    let size = |dim| images.size()[dim] as usize;
    Sizes {
        images: size(0),
        height: size(1),
        width: size(2),
    }
}

fn channels(images: &Tensor) -> usize {
    images.size()[3] as usize
}

fn field<'a, E: Element>(images: &'a Tensor, mask: Option<&'a Tensor>) -> Field<'a, E> {
    Field {
        numbers: numbers(images),
        mask: mask.map_or(&[], numbers),
        channels: channels(images),
    }
}

/// A matrix of `rows` and `columns` with the two exchanged.
fn turned(matrix: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let row = |column| (0..rows).map(move |row| matrix[row * columns + column]);
    (0..columns).flat_map(row).collect()
}

/// Nine weights of each channel, `(9, channels)`, for the nine neighbours in reverse order.
fn backwards(w: &[f32]) -> Vec<f32> {
    let rows = w.chunks(w.len() / 9).rev();
    rows.flatten().copied().collect()
}

fn add_to(sum: &mut Vec<f32>, part: Vec<f32>) {
    match sum.is_empty() {
        true => *sum = part,
        false => sum.iter_mut().zip(part).for_each(|(sum, x)| *sum += x),
    }
}
