//! Images with borders as one sequence of pixels, in which a neighbour always lies at the same distance.

use std::arch::x86_64::*;

use crate::bfloat16::BFloat16;
use crate::conv::images::{Images, Sizes};
use crate::simd::aligned::{CacheLine, aligned_zeros};
use crate::simd::lanes::LANES;

/// Pixels of outputs that are computed at once: two tiles.
pub(super) const BLOCK: usize = 32;
/// About how many pixels are in a buffer: so many that whole blocks fit well, so few that they stay in the core's own cache.
const PIXELS: usize = 1024;
/// Numbers of `bfloat16` in a cache line.
const CACHE_LINE: usize = 32;

/// Where the pixels of a few images lie in the sequence. A slot is the room for one image.
///
/// A pixel of zeros ends each line, and a line of zeros each image. The neighbours on the left of a line are the pixel that
/// ends the line before, so one border serves two lines. Outputs are computed for all positions of the sequence, those of
/// borders included, because this is what tiles do best; nothing uses these.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    sizes: Sizes,
    /// Pixels from line to line.
    pub(super) line: usize,
    /// Pixels from image to image.
    image: usize,
    /// How many images are in the buffer at once.
    pub(super) slots: usize,
}

impl Layout {
    /// The layout for as many images as fit well, at most `images`.
    pub(super) fn of(sizes: &Sizes, images: usize) -> Layout {
        let line = sizes.width + 1;
        let image = line * (sizes.height + 1);
        Layout {
            sizes: *sizes,
            line,
            image,
            slots: (PIXELS / image).min(images).max(1),
        }
    }

    /// Blocks of outputs that contain this many images.
    pub(super) fn blocks(&self, images: usize) -> usize {
        (images * self.image).div_ceil(BLOCK)
    }

    /// Pixels of the buffer: those that the neighbourhoods of all blocks reach, rounded up to a multiple of four.
    pub(super) fn reach(&self) -> usize {
        (self.blocks(self.slots) * BLOCK + 2 * self.line + 2).next_multiple_of(4)
    }

    /// For each output of all blocks the pixel of the images, which follow each other without borders; `usize::MAX` at
    /// borders.
    pub(super) fn targets(&self) -> Vec<usize> {
        let target = |at: usize| {
            let (slot, rest) = (at / self.image, at % self.image);
            let (y, x) = (rest / self.line, rest % self.line);
            let inside = slot < self.slots && y < self.sizes.height && x < self.sizes.width;
            match inside {
                true => slot * self.sizes.pixels() + y * self.sizes.width + x,
                false => usize::MAX,
            }
        };
        (0..self.blocks(self.slots) * BLOCK).map(target).collect()
    }
}

/// A few images with borders of zeros.
///
/// Position 0 is the upper left neighbour of the first pixel. So the neighbour `(dy, dx)`, each of them 0 to 2, of the output
/// `p` is at `p + dy · line + dx`.
pub(super) struct Flat {
    numbers: Vec<CacheLine>,
    layout: Layout,
    channels: usize,
}

impl Flat {
    pub(super) fn new(layout: &Layout, channels: usize) -> Flat {
        let numbers = layout.reach() * channels + CACHE_LINE; // the last row of a tile may end behind the last pixel
        Flat {
            numbers: aligned_zeros(numbers.div_ceil(2)), // two in the room of a `float32`
            layout: *layout,
            channels,
        }
    }

    /// The pixel at a position, and those that follow.
    #[inline]
    pub(super) fn at(&self, position: usize) -> *const BFloat16 {
        let numbers = self.numbers.as_ptr().cast::<BFloat16>();
        numbers.wrapping_add(position * self.channels)
    }

    /// Empties all slots.
    pub(super) fn clear(&mut self) {
        let zeros = aligned_zeros(LANES)[0];
        self.numbers.fill(zeros);
    }

    /// Copies an image into a slot, with zeros where a rectifier's output is not above zero.
    ///
    /// # Safety
    /// The images must have this image, be as large as the layout says, and have as many channels as `self`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) unsafe fn read(&mut self, slot: usize, images: &Images<BFloat16>, image: usize) {
        let (layout, sizes) = (self.layout, self.layout.sizes);
        let row = sizes.width * self.channels;
        for y in 0..sizes.height {
            let position = slot * layout.image + (y + 1) * layout.line + 1;
            let to = self.at(position).cast_mut();
            let first = (image * sizes.height + y) * row;
            // SAFETY: both lie within the image and this slot, and rows are multiples of sixteen numbers.
            unsafe {
                let from = images.numbers.as_ptr().add(first);
                if images.relu_output.is_empty() {
                    to.copy_from_nonoverlapping(from, row);
                    continue;
                }
                let mask = images.relu_output.as_ptr().add(first);
                for at in (0..row).step_by(LANES) {
                    let x = _mm256_loadu_si256(from.add(at).cast());
                    // The bits of a `bfloat16` above zero are a whole number above zero.
                    let output = _mm256_loadu_si256(mask.add(at).cast());
                    let above = _mm256_cmpgt_epi16_mask(output, _mm256_setzero_si256());
                    let x = _mm256_maskz_mov_epi16(above, x);
                    _mm256_storeu_si256(to.add(at).cast(), x);
                }
            }
        }
    }
}
