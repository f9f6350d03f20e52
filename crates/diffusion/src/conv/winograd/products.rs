//! The products between the transforms: small matrix products, whose sums stay in registers.

use std::arch::x86_64::__m512;

use super::GROUP;
use crate::lanes::{LANES, all, fma, load, store, zero};

/// `c = a · b` for `GROUP` rows and `16 N` columns: `a` is `(GROUP, k)`, `b` and `c` have rows of `to`.
#[inline(always)]
pub(super) unsafe fn product<const N: usize>(
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    k: usize,
    to: usize,
) {
    let mut sums = [[zero(); N]; GROUP];
    for at in 0..k {
        let b: [__m512; N] = std::array::from_fn(|n| unsafe { load(b.add(at * to + n * LANES)) });
        for (row, sums) in sums.iter_mut().enumerate() {
            let a = all(unsafe { *a.add(row * k + at) });
            for (sum, b) in sums.iter_mut().zip(&b) {
                *sum = fma(a, *b, *sum);
            }
        }
    }
    // By reference: an array that is consumed goes through memory first, at twice the time of all this.
    for (row, sums) in sums.iter().enumerate() {
        for (n, sum) in sums.iter().enumerate() {
            unsafe { store(c.add(row * to + n * LANES), *sum) };
        }
    }
}

/// `c += aᵀ · b` for `R` rows and `16 N` columns of `c`: `a` is `(tiles, from)`, `b` is `(tiles, to)`.
#[inline(always)]
unsafe fn outer_product<const R: usize, const N: usize>(
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    (from, to): (usize, usize),
    tiles: usize,
) {
    let mut sums: [[__m512; N]; R] = std::array::from_fn(|row| {
        std::array::from_fn(|n| unsafe { load(c.add(row * to + n * LANES)) })
    });
    for at in 0..tiles {
        let b: [__m512; N] = std::array::from_fn(|n| unsafe { load(b.add(at * to + n * LANES)) });
        for (row, sums) in sums.iter_mut().enumerate() {
            let a = all(unsafe { *a.add(at * from + row) });
            for (sum, b) in sums.iter_mut().zip(&b) {
                *sum = fma(a, *b, *sum);
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        for (n, sum) in sums.iter().enumerate() {
            unsafe { store(c.add(row * to + n * LANES), *sum) };
        }
    }
}

/// `c += aᵀ · b`, all of it.
#[inline(always)]
pub(super) unsafe fn outer_products(
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    both: (usize, usize),
    tiles: usize,
) {
    let (from, to) = both;
    let wide = to / (2 * LANES) * (2 * LANES);
    unsafe {
        for row in (0..from).step_by(8) {
            for column in (0..wide).step_by(2 * LANES) {
                let c = c.add(row * to + column);
                outer_product::<8, 2>(a.add(row), b.add(column), c, both, tiles);
            }
        }
        if wide < to {
            for row in (0..from).step_by(16) {
                let c = c.add(row * to + wide);
                outer_product::<16, 1>(a.add(row), b.add(wide), c, both, tiles);
            }
        }
    }
}
