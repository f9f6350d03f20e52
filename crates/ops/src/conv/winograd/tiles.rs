//! How images are cut into tiles, and tiles into groups.

use crate::conv::images::Sizes;

/// Edge of a tile of outputs.
pub(super) const TILE: usize = 4;
/// Edge of a transformed tile.
pub(super) const EDGE: usize = 6;
/// Points of a transformed tile.
pub(super) const POINTS: usize = EDGE * EDGE;
/// Tiles in a group: as many rows of results as fit into the registers of AVX-512, two vectors each.
pub(super) const GROUP: usize = 14;
/// Tiles in a group for the gradient of a kernel: more, because each group reads and writes the sums once.
pub(super) const WIDE_GROUP: usize = 28;

/// How a few images are cut into tiles.
#[derive(Clone, Copy)]
pub(super) struct Tiling {
    pub(super) height: usize,
    pub(super) width: usize,
    across: usize,
    pub(super) tiles_per_image: usize,
}

/// One tile: its image in the buffer, and its first pixel.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub(super) slot: usize,
    pub(super) y: usize,
    pub(super) x: usize,
}

impl Tiling {
    pub(super) fn of(sizes: &Sizes) -> Tiling {
        let across = sizes.width.div_ceil(TILE);
        Tiling {
            height: sizes.height,
            width: sizes.width,
            across,
            tiles_per_image: across * sizes.height.div_ceil(TILE),
        }
    }

    /// How many images are padded at once: the fewest whose tiles make whole groups.
    pub(super) fn slots(&self) -> usize {
        let whole =
            (1..=GROUP).find(|images| (images * self.tiles_per_image).is_multiple_of(GROUP));
        whole.unwrap_or(GROUP)
    }

    #[inline(always)]
    pub(super) fn tile(&self, at: usize) -> Tile {
        let (slot, rest) = (at / self.tiles_per_image, at % self.tiles_per_image);
        Tile {
            slot,
            y: TILE * (rest / self.across),
            x: TILE * (rest % self.across),
        }
    }
}
