//! Images with their channels last, as the kernels of this folder read them.

use anyhow::Result;
use tch::Tensor;

use crate::simd::aligned::{CacheLine, aligned_zeros};
use crate::simd::element::Element;
use crate::simd::lanes::{LANES, Lanes};
use crate::slices::elements;

/// Sizes of the images of one convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) images: usize,
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Sizes {
    /// The sizes of a tensor `(N, H, W, channels)`.
    pub(super) fn of(images: &Tensor) -> Sizes {
        let size = |dim| images.size()[dim] as usize;
        Sizes {
            images: size(0),
            height: size(1),
            width: size(2),
        }
    }

    /// Pixels of an image.
    pub(super) fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// The shape of these images with this many channels.
    pub(super) fn shape(&self, channels: usize) -> [i64; 4] {
        [self.images, self.height, self.width, channels].map(|size| size as i64)
    }

    /// How many multiplications a 3x3 convolution of one image takes without any trick.
    pub(super) fn products(&self, from: usize, to: usize) -> usize {
        9 * self.pixels() * from * to
    }
}

/// Images `(N, H, W, channels)`.
#[derive(Clone, Copy)]
pub(super) struct Images<'a, E> {
    pub(super) numbers: &'a [E],
    /// The output of a rectifier, as large as `numbers`, or empty. Where it is not above zero, the numbers count as zero:
    /// so gradients flow back through the rectifier.
    pub(super) relu_output: &'a [E],
    pub(super) channels: usize,
}

/// Channels of a tensor `(N, H, W, channels)`.
pub(super) fn channels(images: &Tensor) -> usize {
    images.size()[3] as usize
}

impl<'a, E: Element> Images<'a, E> {
    /// The images of a contiguous tensor on the CPU, and the output of their rectifier if there is one.
    pub(super) fn of(images: &'a Tensor, relu_output: Option<&'a Tensor>) -> Result<Images<'a, E>> {
        Ok(Images {
            numbers: elements(images)?,
            relu_output: match relu_output {
                Some(output) => elements(output)?,
                None => &[],
            },
            channels: channels(images),
        })
    }
}

/// Adds what one thread has summed to the sum of all. An empty sum is zero.
pub(super) fn add_to(sum: &mut Vec<f32>, part: Vec<f32>) {
    match sum.is_empty() {
        true => *sum = part,
        false => sum.iter_mut().zip(part).for_each(|(sum, x)| *sum += x),
    }
}

/// A few images in `float32`, each with a border of zeros, `(slots, height, width, channels)`. A slot is the room for one
/// image.
pub(super) struct Padded {
    numbers: Vec<CacheLine>,
    sizes: Sizes,
    /// The height of a slot, the border included.
    height: usize,
    pub(super) width: usize,
    channels: usize,
}

impl Padded {
    /// Room for `slots` images. The border is one pixel wide above and to the left, and one or more below and to the right:
    /// the image is extended to a multiple of `multiple` pixels first.
    pub(super) fn new(sizes: &Sizes, slots: usize, channels: usize, multiple: usize) -> Padded {
        let height = sizes.height.next_multiple_of(multiple) + 2;
        let width = sizes.width.next_multiple_of(multiple) + 2;
        Padded {
            numbers: aligned_zeros(slots * height * width * channels),
            sizes: *sizes,
            height,
            width,
            channels,
        }
    }

    /// The address of the pixel `(y, x)` of a slot, counted from the corner of the border.
    #[inline(always)]
    pub(super) fn at(&self, slot: usize, y: usize, x: usize) -> *const f32 {
        let offset = self.offset(slot, y, x);
        self.numbers.as_ptr().cast::<f32>().wrapping_add(offset)
    }

    #[inline(always)]
    fn offset(&self, slot: usize, y: usize, x: usize) -> usize {
        ((slot * self.height + y) * self.width + x) * self.channels
    }

    /// Copies an image into a slot.
    ///
    /// # Safety
    /// The CPU must have the instructions of `V`. The images must have this image, and as many channels as `self`.
    #[inline(always)]
    pub(super) unsafe fn read<V: Lanes, E: Element>(
        &mut self,
        slot: usize,
        images: &Images<E>,
        image: usize,
    ) {
        let row = self.sizes.width * self.channels;
        for y in 0..self.sizes.height {
            let from = (image * self.sizes.height + y) * row;
            let offset = self.offset(slot, y + 1, 1);
            let to = self.numbers.as_mut_ptr().cast::<f32>().wrapping_add(offset);
            let whole = row / LANES * LANES;
            debug_assert!(
                images.relu_output.is_empty() || whole == row,
                "images with a rectifier fill whole vectors"
            );
            // SAFETY: both lie within the image and this slot.
            unsafe {
                let from = images.numbers.as_ptr().add(from);
                if images.relu_output.is_empty() {
                    for at in (0..whole).step_by(LANES) {
                        V::store(E::load(from.add(at)), to.add(at));
                    }
                } else {
                    let mask = images
                        .relu_output
                        .as_ptr()
                        .add(from.offset_from_unsigned(images.numbers.as_ptr()));
                    for at in (0..whole).step_by(LANES) {
                        let x: V = E::load(from.add(at));
                        V::store(x.where_positive(E::load(mask.add(at))), to.add(at));
                    }
                }
                for at in whole..row {
                    *to.add(at) = (*from.add(at)).to_f32();
                }
            }
        }
    }
}
