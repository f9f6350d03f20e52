//! Which kernel computes a convolution, on how many threads, and how its gradients flow back.

use std::ops::Range;
use std::thread::scope;

use tch::{Device, Kind, Tensor};

use super::field::{Field, Sizes};
use super::lanes::{BFloat16, Element, LANES};
use super::winograd::{self, Kernel};
use super::{Activation, thin};
use crate::autograd::differentiate;

/// Below this many products a thread costs more than it saves.
const PRODUCTS_A_THREAD: usize = 1 << 24;

/// [`conv3x3`](super::conv3x3) by the kernels of this folder, where they can: on a CPU with AVX-512, in
/// `float32` or `bfloat16`, between channels that fill vectors or are one.
pub(super) fn convolution(
    x: &Tensor,
    kernel: &Tensor,
    bias: &Tensor,
    activation: Activation,
) -> Option<Tensor> {
    let fits = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && x.device() == Device::Cpu
        && x.numel() > 0;
    let way = Way::between(x.size()[3] as usize, bias.numel()).filter(|_| fits)?;
    let rectify = activation == Activation::Relu;
    if rectify && matches!(way, Way::Collect) {
        return None;
    }
    match x.kind() {
        Kind::Float => Some(remembered::<f32>(way, x, kernel, bias, rectify)),
        Kind::BFloat16 => Some(remembered::<BFloat16>(way, x, kernel, bias, rectify)),
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
        let fills = |channels: usize| channels.is_multiple_of(LANES);
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
    way: Way,
    x: &Tensor,
    kernel: &Tensor,
    bias: &Tensor,
    rectify: bool,
) -> Tensor {
    let mut call = Call {
        way,
        x: x.detach().contiguous(),
        kernel: kernel.detach().contiguous(),
        mask: None,
        wanted: [x, kernel, bias].map(Tensor::requires_grad),
    };
    let output = call.forward::<E>(&bias.detach(), rectify);
    call.mask = rectify.then(|| output.detach());
    differentiate(output, &[x, kernel, bias], move |gradient| {
        call.backward::<E>(&gradient.contiguous())
    })
}

/// One convolution, with what its gradients need on their way back.
struct Call {
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
        match self.way {
            Way::Winograd => {
                let kernel = Kernel::new(kernel, field.channels, to);
                fill(&self.x, to, |images, out| unsafe {
                    winograd::convolve(&sizes, images, &field, &kernel, &bias, rectify, out);
                })
            }
            Way::Spread => {
                let w = turned(&floats(kernel), to, 9);
                fill(&self.x, to, |images, out| unsafe {
                    thin::spread(&sizes, images, &field, &w, &bias, rectify, out);
                })
            }
            Way::Collect => {
                let w = floats(kernel);
                fill(&self.x, to, |images, out| unsafe {
                    thin::collect(&sizes, images, &field, &w, bias[0], out);
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
        let zeros = vec![0.0; from];
        match self.way {
            Way::Winograd => {
                let kernel = Kernel::turned(kernel, field.channels, from);
                fill(gradient, from, |images, out| unsafe {
                    winograd::convolve(&sizes, images, &field, &kernel, &zeros, false, out);
                })
            }
            Way::Spread => {
                let w = backwards(&turned(&floats(kernel), field.channels, 9));
                fill(gradient, from, |images, out| unsafe {
                    thin::collect(&sizes, images, &field, &w, 0.0, out);
                })
            }
            Way::Collect => {
                let w = backwards(&floats(kernel));
                fill(gradient, from, |images, out| unsafe {
                    thin::spread(&sizes, images, &field, &w, &zeros, false, out);
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
        let products = sizes.pixels() * 9 * x.channels * to.channels;
        let way = self.way;
        let parts = in_parts(sizes.images, products, |images| unsafe {
            match way {
                Way::Winograd => winograd::kernel_gradient(&sizes, images, &x, &to),
                Way::Spread => thin::correlate(&sizes, images, &x, &to),
                Way::Collect => thin::correlate(&sizes, images, &to, &x),
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

/// The numbers of a contiguous tensor.
fn numbers<E: Element>(tensor: &Tensor) -> &[E] {
    assert!(
        tensor.is_contiguous() && tensor.kind() == E::KIND,
        "a tensor of another form"
    );
    // SAFETY: the tensor holds as many numbers of this kind, and lives as long as the slice.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), tensor.numel()) }
}

fn floats<E: Element>(numbers: &[E]) -> Vec<f32> {
    numbers.iter().map(|x| x.to_f32()).collect()
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

/// A tensor of images like `like` with so many channels, which `work` fills, a few images at a time.
fn fill<E: Element>(
    like: &Tensor,
    channels: usize,
    work: impl Fn(Range<usize>, *mut E) + Sync,
) -> Tensor {
    struct Out<E>(*mut E);
    // SAFETY: each thread writes to images of its own.
    unsafe impl<E> Sync for Out<E> {}
    impl<E> Out<E> {
        fn get(&self) -> *mut E {
            self.0
        }
    }
    let sizes = sizes(like);
    let shape = [sizes.images, sizes.height, sizes.width, channels].map(|size| size as i64);
    let tensor = Tensor::empty(shape, (like.kind(), like.device()));
    let out = Out(tensor.data_ptr().cast::<E>());
    let products = sizes.pixels() * 9 * channels * self::channels(like);
    in_parts(sizes.images, products, |images| work(images, out.get()));
    tensor
}

/// Shares images between as many threads as libtorch would use here. An image takes so many products.
fn in_parts<T: Send>(
    images: usize,
    products: usize,
    work: impl Fn(Range<usize>) -> T + Sync,
) -> Vec<T> {
    let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1);
    let parts = (images * products / PRODUCTS_A_THREAD).clamp(1, threads.clamp(1, images));
    let size = images.div_ceil(parts);
    let ranges = (0..images)
        .step_by(size)
        .map(|at| at..images.min(at + size));
    let mut ranges: Vec<Range<usize>> = ranges.collect();
    let Some(last) = ranges.pop() else {
        return vec![];
    };
    scope(|scope| {
        let work = &work;
        let others: Vec<_> = ranges
            .into_iter()
            .map(|range| scope.spawn(move || work(range)))
            .collect();
        let mine = work(last);
        let join = |other: std::thread::ScopedJoinHandle<'_, T>| {
            other
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        others.into_iter().map(join).chain([mine]).collect()
    })
}
