//! Tensors as slices, and work on their images shared between threads: what the kernels of
//! [`conv`](crate::conv) and [`norm`](crate::norm) have around them.

use std::ops::Range;
use std::thread::scope;

use tch::{Device, Tensor};

use crate::lanes::Element;

/// Below this many operations a thread costs more than it saves.
const OPERATIONS_A_THREAD: usize = 1 << 24;

/// The numbers of a contiguous tensor.
pub(crate) fn numbers<E: Element>(tensor: &Tensor) -> &[E] {
    assert!(
        tensor.device() == Device::Cpu && tensor.is_contiguous() && tensor.kind() == E::KIND,
        "a tensor of another form"
    );
    // SAFETY: the tensor holds as many numbers of this kind, and lives as long as the slice.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), tensor.numel()) }
}

pub(crate) fn floats<E: Element>(numbers: &[E]) -> Vec<f32> {
    numbers.iter().map(|x| x.to_f32()).collect()
}

/// Where several threads write, each to images of its own.
pub(crate) struct SharedOut<E>(pub(crate) *mut E);

// SAFETY: a pointer alone touches nothing; who writes through it vouches for that.
unsafe impl<E> Sync for SharedOut<E> {}

impl<E> SharedOut<E> {
    pub(crate) fn get(&self) -> *mut E {
        self.0
    }
}

/// A tensor of this shape like `like`, which `work` fills, a few images (of its first dimension) at a time. An
/// image takes so many operations.
pub(crate) fn fill<E: Element>(
    like: &Tensor,
    shape: &[i64],
    operations: usize,
    work: impl Fn(Range<usize>, *mut E) + Sync,
) -> Tensor {
    let tensor = Tensor::empty(shape, (E::KIND, like.device()));
    let out = SharedOut(tensor.data_ptr().cast::<E>());
    let images = shape.first().map_or(0, |&images| images as usize);
    in_parts(images, operations, |images| work(images, out.get()));
    tensor
}

/// Shares images between as many threads as libtorch would use here. An image takes so many
/// operations.
pub(crate) fn in_parts<T: Send>(
    images: usize,
    operations: usize,
    work: impl Fn(Range<usize>) -> T + Sync,
) -> Vec<T> {
    let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1);
    let parts =
        (images * operations / OPERATIONS_A_THREAD).clamp(1, threads.clamp(1, images.max(1)));
    let size = images.div_ceil(parts).max(1);
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
