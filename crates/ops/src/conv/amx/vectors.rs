//! Numbers put in the order in which tiles take them, with AVX-512.

use std::arch::x86_64::*;

use super::tiles::TILE;
use crate::bfloat16::BFloat16;

/// A row of a second factor: sixteen numbers of two rows in turn, as `a0 b0 a1 b1 …`.
///
/// # Safety
/// Sixteen numbers must lie at both addresses.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn in_turn(a: *const BFloat16, b: *const BFloat16) -> __m512i {
    // SAFETY: as the caller promises.
    let [a, b] = [a, b].map(|at| unsafe { _mm256_loadu_si256(at.cast()) });
    let b = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(b));
    _mm512_or_si512(_mm512_cvtepu16_epi32(a), b)
}

/// The transpose of 16 by 16 words of 32 bits.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transposed(rows: [__m512i; TILE]) -> [__m512i; TILE] {
    // Four rows at a time, so that the four quarters of `fours[4 i + j]` are columns j, 4 + j, 8 + j and 12 + j of rows 4 i to
    // 4 i + 3.
    let mut fours = rows;
    for four in fours.as_chunks_mut::<4>().0 {
        let [a, b, c, d] = *four;
        let [ab, cd] = [(a, b), (c, d)].map(|(a, b)| {
            let [low, high] = [_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b)];
            [low, high]
        });
        *four = [
            _mm512_unpacklo_epi64(ab[0], cd[0]),
            _mm512_unpackhi_epi64(ab[0], cd[0]),
            _mm512_unpacklo_epi64(ab[1], cd[1]),
            _mm512_unpackhi_epi64(ab[1], cd[1]),
        ];
    }
    let mut columns = rows;
    for j in 0..4 {
        let [a, b, c, d] = std::array::from_fn(|i| fours[4 * i + j]);
        const EVEN: i32 = 0b10_00_10_00;
        const ODD: i32 = 0b11_01_11_01;
        let (ab, cd) = (
            _mm512_shuffle_i32x4::<EVEN>(a, b),
            _mm512_shuffle_i32x4::<EVEN>(c, d),
        );
        columns[j] = _mm512_shuffle_i32x4::<EVEN>(ab, cd);
        columns[8 + j] = _mm512_shuffle_i32x4::<ODD>(ab, cd);
        let (ab, cd) = (
            _mm512_shuffle_i32x4::<ODD>(a, b),
            _mm512_shuffle_i32x4::<ODD>(c, d),
        );
        columns[4 + j] = _mm512_shuffle_i32x4::<EVEN>(ab, cd);
        columns[12 + j] = _mm512_shuffle_i32x4::<ODD>(ab, cd);
    }
    columns
}

/// The sums of the numbers of two rows [in turn](in_turn).
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn sums_of_pairs(pairs: __m512i) -> __m512 {
    let high = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32));
    let low = _mm512_slli_epi32::<16>(pairs);
    _mm512_add_ps(_mm512_castsi512_ps(low), _mm512_castsi512_ps(high))
}
