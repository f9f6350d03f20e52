//! The products between the transforms: small matrix products, whose sums stay in registers.

use super::tiles::GROUP;
use crate::simd::lanes::{LANES, Lanes};

/// `c = a · b` for `R` rows and `16 N` columns: `a` has rows of `k`, `b` and `c` have rows of `to`.
#[inline(always)]
unsafe fn block<V: Lanes, const R: usize, const N: usize>(
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    k: usize,
    to: usize,
) {
    let mut sums = [[V::splat(0.0); N]; R];
    for at in 0..k {
        let b: [V; N] = std::array::from_fn(|n| unsafe { V::load(b.add(at * to + n * LANES)) });
        for (row, sums) in sums.iter_mut().enumerate() {
            let a = V::splat(unsafe { *a.add(row * k + at) });
            for (sum, b) in sums.iter_mut().zip(&b) {
                *sum = V::fma(a, *b, *sum);
            }
        }
    }
    // By reference, because an array that is moved goes through memory first, which doubles the time of this function.
    for (row, sums) in sums.iter().enumerate() {
        for (n, sum) in sums.iter().enumerate() {
            unsafe { V::store(*sum, c.add(row * to + n * LANES)) };
        }
    }
}

/// `c = a · b` for `GROUP` rows: `a` is `(GROUP, k)`, `b` and `c` have rows of `to`.
#[inline(always)]
pub(super) unsafe fn product<V: Lanes>(
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    k: usize,
    to: usize,
) {
    unsafe {
        if V::HAS_32_REGISTERS {
            let wide = to / (2 * LANES) * (2 * LANES);
            for column in (0..wide).step_by(2 * LANES) {
                block::<V, GROUP, 2>(a, b.add(column), c.add(column), k, to);
            }
            if wide < to {
                block::<V, GROUP, 1>(a, b.add(wide), c.add(wide), k, to);
            }
        } else {
            // Five rows take ten of the sixteen registers for sums, two for `b` and one for `a`.
            for column in (0..to).step_by(LANES) {
                let (b, c) = (b.add(column), c.add(column));
                block::<V, 5, 1>(a, b, c, k, to);
                block::<V, 5, 1>(a.add(5 * k), b, c.add(5 * to), k, to);
                block::<V, 4, 1>(a.add(10 * k), b, c.add(10 * to), k, to);
            }
        }
    }
}

/// `c += aᵀ · b` for `R` rows and `16 N` columns of `c`: `a` is `(tiles, from)`, `b` is `(tiles, to)`.
#[inline(always)]
unsafe fn outer_product<V: Lanes, const R: usize, const N: usize>(
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    (from, to): (usize, usize),
    tiles: usize,
) {
    let mut sums: [[V; N]; R] = std::array::from_fn(|row| {
        std::array::from_fn(|n| unsafe { V::load(c.add(row * to + n * LANES)) })
    });
    for at in 0..tiles {
        let b: [V; N] = std::array::from_fn(|n| unsafe { V::load(b.add(at * to + n * LANES)) });
        for (row, sums) in sums.iter_mut().enumerate() {
            let a = V::splat(unsafe { *a.add(at * from + row) });
            for (sum, b) in sums.iter_mut().zip(&b) {
                *sum = V::fma(a, *b, *sum);
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        for (n, sum) in sums.iter().enumerate() {
            unsafe { V::store(*sum, c.add(row * to + n * LANES)) };
        }
    }
}

/// `c += aᵀ · b`, all of it.
#[inline(always)]
pub(super) unsafe fn outer_products<V: Lanes>(
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    both: (usize, usize),
    tiles: usize,
) {
    let (from, to) = both;
    let wide = match V::HAS_32_REGISTERS {
        true => to / (2 * LANES) * (2 * LANES),
        false => 0,
    };
    unsafe {
        for row in (0..from).step_by(8) {
            for column in (0..wide).step_by(2 * LANES) {
                let c = c.add(row * to + column);
                outer_product::<V, 8, 2>(a.add(row), b.add(column), c, both, tiles);
            }
        }
        if !V::HAS_32_REGISTERS {
            for row in (0..from).step_by(4) {
                for column in (0..to).step_by(LANES) {
                    let c = c.add(row * to + column);
                    outer_product::<V, 4, 1>(a.add(row), b.add(column), c, both, tiles);
                }
            }
        } else if wide < to {
            for row in (0..from).step_by(16) {
                let c = c.add(row * to + wide);
                outer_product::<V, 16, 1>(a.add(row), b.add(wide), c, both, tiles);
            }
        }
    }
}
