//! Tensors as slices, and work on their images divided between threads: what the kernels of [`conv`](crate::conv) and
//! [`norm`](crate::norm) need around them.

use std::ops::Range;
use std::thread::{ScopedJoinHandle, scope};

use anyhow::{Result, ensure};
use tch::{Device, Tensor};

use crate::contiguity::contiguity;
use crate::simd::element::Element;

/// Below this many operations a thread costs more than it saves.
const OPERATIONS_PER_THREAD: usize = 1 << 24;

/// The numbers of a contiguous tensor on the CPU.
///
/// # Errors
/// A tensor of another kind, on another device or not contiguous.
pub(crate) fn elements<E: Element>(tensor: &Tensor) -> Result<&[E]> {
    ensure!(
        tensor.device() == Device::Cpu && tensor.is_contiguous() && tensor.kind() == E::KIND,
        "a kernel got a tensor of {:?} numbers on {:?}, {}; expected {:?} numbers on the CPU, contiguous",
        tensor.kind(),
        tensor.device(),
        contiguity(tensor),
        E::KIND,
    );
    if tensor.numel() == 0 {
        return Ok(&[]); // a tensor without numbers may have no address
    }
    // SAFETY: the tensor holds as many numbers of this kind, and lives as long as the slice.
    Ok(unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), tensor.numel()) })
}

/// These numbers in `float32`.
pub(crate) fn to_f32<E: Element>(numbers: &[E]) -> Vec<f32> {
    numbers.iter().map(|x| x.to_f32()).collect()
}

/// The memory of an output that several threads write to, each to images of its own.
pub(crate) struct SharedOutput<E>(*mut E);

// SAFETY: the pointer alone accesses nothing. The code that writes through it makes sure that no two threads write to
// the same image.
unsafe impl<E> Sync for SharedOutput<E> {}

impl<E: Element> SharedOutput<E> {
    /// The memory of this tensor, which must be contiguous and hold numbers of this kind.
    pub(crate) fn of(tensor: &mut Tensor) -> SharedOutput<E> {
        SharedOutput(tensor.data_ptr().cast())
    }

    pub(crate) fn get(&self) -> *mut E {
        self.0
    }
}

/// A new tensor of this shape, whose images (along the first dimension) `work` computes, a range of them at a time.
/// `operations` is the work for one image. `work` must write all numbers of its images, and no others.
pub(crate) fn compute_images<E: Element>(
    shape: &[i64],
    operations: usize,
    work: impl Fn(Range<usize>, *mut E) + Sync,
) -> Tensor {
    let mut tensor = Tensor::empty(shape, (E::KIND, Device::Cpu));
    let output = SharedOutput::<E>::of(&mut tensor);
    let images = shape.first().map_or(0, |&images| images as usize);
    parallel_over_images(images, operations, |images| work(images, output.get()));
    tensor
}

/// Divides images between as many threads as libtorch would use here, and gives the outputs in order.
/// `operations` is the work for one image.
pub(crate) fn parallel_over_images<T: Send>(
    images: usize,
    operations: usize,
    work: impl Fn(Range<usize>) -> T + Sync,
) -> Vec<T> {
    let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1);
    let parts =
        (images * operations / OPERATIONS_PER_THREAD).clamp(1, threads.clamp(1, images.max(1)));
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
        let threads: Vec<_> = ranges
            .into_iter()
            .map(|range| scope.spawn(move || work(range)))
            .collect();
        let output_here = work(last);
        let join = |thread: ScopedJoinHandle<'_, T>| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).chain([output_here]).collect()
    })
}
