//! Images with borders as one sequence of pixels, in which a neighbour always lies at the same distance.

use std::arch::x86_64::*;
use std::ops::Range;

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
pub(super) struct Layout {
    sizes: Sizes,
    /// Pixels from line to line.
    pub(super) line: usize,
    /// Pixels from image to image.
    image: usize,
    /// How many images are in the buffer at once.
    slots: usize,
    /// For each output of all blocks the pixel of the images, which follow each other without borders; `usize::MAX` at
    /// borders.
    pub(super) targets: Vec<usize>,
}

impl Layout {
    /// The layout for as many images as fit well, at most `images`.
    pub(super) fn of(sizes: &Sizes, images: usize) -> Layout {
        let line = sizes.width + 1;
        let image = line * (sizes.height + 1);
        let mut layout = Layout {
            sizes: *sizes,
            line,
            image,
            slots: (PIXELS / image).min(images).max(1),
            targets: vec![],
        };
        let outputs = 0..layout.blocks(layout.slots) * BLOCK;
        layout.targets = outputs.map(|at| layout.target(at)).collect();
        layout
    }

    /// The pixel of the images that is this output.
    fn target(&self, at: usize) -> usize {
        let (slot, rest) = (at / self.image, at % self.image);
        let (y, x) = (rest / self.line, rest % self.line);
        let inside = slot < self.slots && y < self.sizes.height && x < self.sizes.width;
        match inside {
            true => slot * self.sizes.pixels() + y * self.sizes.width + x,
            false => usize::MAX,
        }
    }

    /// Cuts a range of images into groups that are in the buffer at once.
    pub(super) fn groups(&self, images: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let starts = images.clone().step_by(self.slots);
        starts.map(move |start| start..images.end.min(start + self.slots))
    }

    /// Pixels of an image, without borders.
    pub(super) fn pixels(&self) -> usize {
        self.sizes.pixels()
    }

    /// Blocks of outputs that contain this many images.
    pub(super) fn blocks(&self, images: usize) -> usize {
        (images * self.image).div_ceil(BLOCK)
    }

    /// Pixels of the buffer, an even number: those that the neighbourhoods of all blocks reach, and two more.
    pub(super) fn reach(&self) -> usize {
        self.blocks(self.slots) * BLOCK + 2 * self.line + 4
    }
}

/// A few images with borders of zeros.
///
/// Position 0 is the upper left neighbour of the first pixel. So the neighbour `(dy, dx)`, each of them 0 to 2, of the output
/// `p` is at `p + dy · line + dx`.
pub(super) struct Flat<'a> {
    numbers: Vec<CacheLine>,
    layout: &'a Layout,
    channels: usize,
}

impl<'a> Flat<'a> {
    pub(super) fn new(layout: &'a Layout, channels: usize) -> Flat<'a> {
        let numbers = layout.reach() * channels + CACHE_LINE; // the last row of a tile may end behind the last pixel
        Flat {
            numbers: aligned_zeros(numbers.div_ceil(2)), // two in the room of a `float32`
            layout,
            channels,
        }
    }

    /// The pixel at a position, and those that follow.
    pub(super) fn at(&self, position: usize) -> *const BFloat16 {
        let numbers = self.numbers.as_ptr().cast::<BFloat16>();
        numbers.wrapping_add(position * self.channels)
    }

    /// Copies images into the first slots, with zeros where a rectifier's output is not above zero, and empties the others.
    ///
    /// # Safety
    /// There must be these images, as large as the layout says, with as many channels as `self`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) unsafe fn read(&mut self, images: &Images<BFloat16>, range: Range<usize>) {
        if range.len() < self.layout.slots {
            self.numbers.fill(aligned_zeros(LANES)[0]);
        }
        for (slot, image) in range.enumerate() {
            // SAFETY: as the caller promises.
            unsafe { self.read_image(slot, images, image) };
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn read_image(&mut self, slot: usize, images: &Images<BFloat16>, image: usize) {
        let Layout { sizes, line, .. } = *self.layout;
        let row = sizes.width * self.channels;
        for y in 0..sizes.height {
            let position = slot * self.layout.image + (y + 1) * line + 1;
            let numbers = self.numbers.as_mut_ptr().cast::<BFloat16>();
            let to = numbers.wrapping_add(position * self.channels);
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
