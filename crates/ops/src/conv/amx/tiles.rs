//! The registers and instructions of AMX: tiles of 16 rows of 64 bytes, and products of such matrices.
//!
//! The instructions have no functions in stable Rust yet, so they are written in assembly.

use std::arch::asm;
use std::marker::PhantomData;

use crate::bfloat16::BFloat16;

/// Rows of a tile, and `float32` numbers in one of its rows.
pub(super) const TILE: usize = 16;
/// `bfloat16` numbers in a row of a tile: what one product sums over.
pub(super) const DEPTH: usize = 32;
/// Numbers of `float32` in a tile.
pub(super) const SUMS: usize = TILE * TILE;
/// Numbers of `bfloat16` in a tile.
pub(super) const FACTORS: usize = TILE * DEPTH;

/// The tile registers of this thread, ready for whole tiles. They are given back when this value is dropped, because other
/// libraries use them in the same threads, with sizes of their own.
pub(super) struct Tiles(PhantomData<*const ()>); // belongs to its thread

/// What `ldtilecfg` reads: the sizes of the eight tiles.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Tiles {
    /// # Safety
    /// The CPU must have AMX for `bfloat16`, and this process the right to use it. This thread must not have such a value
    /// already.
    pub(super) unsafe fn configure() -> Tiles {
        let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
        row_bytes[..8].fill(2 * DEPTH as u16);
        rows[..8].fill(TILE as u8);
        let configuration = Configuration {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes,
            rows,
        };
        // SAFETY: as the caller promises; the sizes are allowed ones.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, readonly));
        }
        Tiles(PhantomData)
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: the registers are this value's own.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// What to multiply. A factor `a` is a tile of 16 rows of 32 numbers; a factor `b` is one in which row `r` has numbers `2r`
/// and `2r + 1` of each of 16 columns. The product is their sum over the 32 numbers, `(16, 16)`.
///
/// There are `lines` times `steps` such tiles, of all of which the products are summed. From one step to the next the address
/// of `a` grows by one row of a tile, from line to line by `line` bytes, and tiles of `b` follow each other in memory.
#[derive(Clone, Copy)]
pub(super) struct Factors<const ROWS: usize, const COLUMNS: usize> {
    pub(super) a: [*const BFloat16; ROWS],
    /// Bytes from one row of `a` to the next.
    pub(super) a_row: usize,
    pub(super) b: [*const BFloat16; COLUMNS],
    pub(super) steps: usize,
    pub(super) lines: usize,
    pub(super) line: usize,
}

/// What [`Factors`] of each shape can do.
pub(super) trait Multiply {
    /// `result = start + a · b`: each of them one tile for each row and column, one after the other.
    ///
    /// # Safety
    /// `steps` and `lines` must not be zero. There must be tiles at all addresses that the factors say, and at `start` and
    /// `result` as many tiles of sums as there are rows times columns.
    unsafe fn multiply(&self, tiles: &Tiles, start: *const f32, result: *mut f32);
}

/// Products with each number of rows and columns of tiles. `$load`, `$multiply` and `$store` are the instructions, for the
/// sums in `tmm0` to `tmm3`, `a` in `tmm4` and `tmm5`, `b` in `tmm6` and `tmm7`.
macro_rules! products {
    ($rows:literal x $columns:literal, $first_row:literal, $first_column:literal,
     $load:expr, $multiply:expr, $store:expr) => {
        impl Multiply for Factors<$rows, $columns> {
            unsafe fn multiply(&self, _: &Tiles, start: *const f32, result: *mut f32) {
                let advance = self.steps * 2 * DEPTH;
                // SAFETY: the tiles are configured, and the rest is as the caller promises.
                unsafe {
                    asm!(
                        $load,
                        "2:",
                        "mov {step}, {steps}",
                        "3:",
                        $multiply,
                        "add {a0}, 64",
                        "add {a1}, 64",
                        "add {b0}, 1024",
                        "add {b1}, 1024",
                        "dec {step}",
                        "jnz 3b",
                        "add {a0}, {line}",
                        "add {a1}, {line}",
                        "dec {lines}",
                        "jnz 2b",
                        $store,
                        a0 = inout(reg) self.a[0] => _,
                        a1 = inout(reg) self.a[$first_row] => _,
                        b0 = inout(reg) self.b[0] => _,
                        b1 = inout(reg) self.b[$first_column] => _,
                        step = out(reg) _,
                        lines = inout(reg) self.lines => _,
                        steps = in(reg) self.steps,
                        line = in(reg) self.line.wrapping_sub(advance),
                        a_row = in(reg) self.a_row,
                        row = in(reg) 64usize,
                        start = in(reg) start,
                        result = in(reg) result,
                        out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                        out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                        options(nostack),
                    );
                }
            }
        }
    };
}

products!(
    2 x 2, 1, 1,
    "tileloadd tmm0, [{start} + {row}]
     tileloadd tmm1, [{start} + {row} + 1024]
     tileloadd tmm2, [{start} + {row} + 2048]
     tileloadd tmm3, [{start} + {row} + 3072]",
    "tileloadd tmm4, [{a0} + {a_row}]
     tileloadd tmm6, [{b0} + {row}]
     tdpbf16ps tmm0, tmm4, tmm6
     tileloadd tmm7, [{b1} + {row}]
     tdpbf16ps tmm1, tmm4, tmm7
     tileloadd tmm5, [{a1} + {a_row}]
     tdpbf16ps tmm2, tmm5, tmm6
     tdpbf16ps tmm3, tmm5, tmm7",
    "tilestored [{result} + {row}], tmm0
     tilestored [{result} + {row} + 1024], tmm1
     tilestored [{result} + {row} + 2048], tmm2
     tilestored [{result} + {row} + 3072], tmm3"
);
products!(
    2 x 1, 1, 0,
    "tileloadd tmm0, [{start} + {row}]
     tileloadd tmm2, [{start} + {row} + 1024]",
    "tileloadd tmm4, [{a0} + {a_row}]
     tileloadd tmm6, [{b0} + {row}]
     tdpbf16ps tmm0, tmm4, tmm6
     tileloadd tmm5, [{a1} + {a_row}]
     tdpbf16ps tmm2, tmm5, tmm6",
    "tilestored [{result} + {row}], tmm0
     tilestored [{result} + {row} + 1024], tmm2"
);
products!(
    1 x 2, 0, 1,
    "tileloadd tmm0, [{start} + {row}]
     tileloadd tmm1, [{start} + {row} + 1024]",
    "tileloadd tmm4, [{a0} + {a_row}]
     tileloadd tmm6, [{b0} + {row}]
     tdpbf16ps tmm0, tmm4, tmm6
     tileloadd tmm7, [{b1} + {row}]
     tdpbf16ps tmm1, tmm4, tmm7",
    "tilestored [{result} + {row}], tmm0
     tilestored [{result} + {row} + 1024], tmm1"
);
