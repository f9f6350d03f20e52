//! Images with their channels last, as the kernels of this folder read them.

use crate::lanes::{Element, LANES, Lanes, Line, lines};

/// Sizes of the images of one convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) images: usize,
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Sizes {
    /// Pixels of an image.
    pub(super) fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// The shape of these images with so many channels.
    pub(super) fn shape(&self, channels: usize) -> [i64; 4] {
        [self.images, self.height, self.width, channels].map(|size| size as i64)
    }

    /// How many products a 3x3 convolution of an image is, done the plain way.
    pub(super) fn products(&self, from: usize, to: usize) -> usize {
        9 * self.pixels() * from * to
    }
}

/// Images `(N, H, W, channels)`.
#[derive(Clone, Copy)]
pub(super) struct Field<'a, E> {
    pub(super) numbers: &'a [E],
    /// Where this is not above zero, the field counts as zero: so gradients flow back through a
    /// rectifier whose output this is. Or empty, and the field counts as it is.
    pub(super) mask: &'a [E],
    pub(super) channels: usize,
}

/// A few images of a field in `float32`, each with a border of zeros, `(slots, height, width, channels)`.
pub(super) struct Padded {
    numbers: Vec<Line>,
    sizes: Sizes,
    /// Of a slot, the border included.
    height: usize,
    pub(super) width: usize,
    channels: usize,
}

impl Padded {
    /// Room for so many images: one pixel of border above and to the left, one or more (`multiple` tells) below and to the
    /// right.
    pub(super) fn new(sizes: &Sizes, slots: usize, channels: usize, multiple: usize) -> Padded {
        let height = sizes.height.next_multiple_of(multiple) + 2;
        let width = sizes.width.next_multiple_of(multiple) + 2;
        Padded {
            numbers: lines(slots * height * width * channels),
            sizes: *sizes,
            height,
            width,
            channels,
        }
    }

    /// From here on: the pixel at `(y, x)` of a slot, counted from the border's corner.
    #[inline(always)]
    pub(super) fn at(&self, slot: usize, y: usize, x: usize) -> *const f32 {
        let offset = self.offset(slot, y, x);
        self.numbers.as_ptr().cast::<f32>().wrapping_add(offset)
    }

    #[inline(always)]
    fn offset(&self, slot: usize, y: usize, x: usize) -> usize {
        ((slot * self.height + y) * self.width + x) * self.channels
    }

    /// Reads an image of the field into a slot.
    ///
    /// # Safety
    /// The CPU must have the instructions of `V`, and the field this image, of as many channels.
    #[inline(always)]
    pub(super) unsafe fn read<V: Lanes, E: Element>(
        &mut self,
        slot: usize,
        field: &Field<E>,
        image: usize,
    ) {
        let row = self.sizes.width * self.channels;
        for y in 0..self.sizes.height {
            let from = (image * self.sizes.height + y) * row;
            let offset = self.offset(slot, y + 1, 1);
            let to = self.numbers.as_mut_ptr().cast::<f32>().wrapping_add(offset);
            let whole = row / LANES * LANES;
            debug_assert!(
                field.mask.is_empty() || whole == row,
                "a mask comes with whole vectors"
            );
            // SAFETY: both lie within the field and this slot.
            unsafe {
                let from = field.numbers.as_ptr().add(from);
                if field.mask.is_empty() {
                    for at in (0..whole).step_by(LANES) {
                        V::store(E::load(from.add(at)), to.add(at));
                    }
                } else {
                    let mask = field
                        .mask
                        .as_ptr()
                        .add(from.offset_from_unsigned(field.numbers.as_ptr()));
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
