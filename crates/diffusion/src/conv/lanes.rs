//! Sixteen numbers at once: what the kernels of this folder compute with.
//!
//! Everything here is inlined into functions that are compiled for AVX-512 and called only where the CPU
//! has it, so a vector lives in one register.

use std::arch::x86_64::{
    __m512, _CMP_GT_OQ, _mm256_loadu_si256, _mm256_storeu_si256, _mm512_add_epi32, _mm512_add_ps,
    _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cmp_ps_mask,
    _mm512_cvtepi32_epi16, _mm512_cvtepu16_epi32, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_maskz_mov_ps, _mm512_max_ps, _mm512_reduce_add_ps, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_slli_epi32, _mm512_srli_epi32, _mm512_storeu_ps, _mm512_sub_ps,
};

use tch::Kind;

/// How many numbers a vector holds.
pub(super) const LANES: usize = 16;

/// A number as it lies in memory; in a register it is always `float32`.
pub(super) trait Element: Copy + Send + Sync + 'static {
    /// What libtorch calls such numbers.
    const KIND: Kind;

    /// Sixteen numbers from here on.
    ///
    /// # Safety
    /// Sixteen must lie there.
    unsafe fn load(at: *const Self) -> __m512;

    /// Puts sixteen numbers here.
    ///
    /// # Safety
    /// There must be room for sixteen.
    unsafe fn store(at: *mut Self, x: __m512);

    fn to_f32(self) -> f32;
    fn from_f32(x: f32) -> Self;
}

impl Element for f32 {
    const KIND: Kind = Kind::Float;

    #[inline(always)]
    unsafe fn load(at: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(at) }
    }

    #[inline(always)]
    unsafe fn store(at: *mut f32, x: __m512) {
        unsafe { _mm512_storeu_ps(at, x) }
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn from_f32(x: f32) -> f32 {
        x
    }
}

/// A `bfloat16`: the upper half of a `float32`'s bits.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct BFloat16(u16);

impl Element for BFloat16 {
    const KIND: Kind = Kind::BFloat16;

    #[inline(always)]
    unsafe fn load(at: *const BFloat16) -> __m512 {
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(at.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }

    /// Rounds to nearest, ties to even.
    #[inline(always)]
    unsafe fn store(at: *mut BFloat16, x: __m512) {
        unsafe {
            let bits = _mm512_castps_si512(x);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
            let rounded = _mm512_srli_epi32::<16>(_mm512_add_epi32(bits, half));
            _mm256_storeu_si256(at.cast(), _mm512_cvtepi32_epi16(rounded));
        }
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    #[inline(always)]
    fn from_f32(x: f32) -> BFloat16 {
        let bits = x.to_bits();
        BFloat16((bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16)
    }
}

#[inline(always)]
pub(super) fn zero() -> __m512 {
    unsafe { _mm512_setzero_ps() }
}

#[inline(always)]
pub(super) fn all(x: f32) -> __m512 {
    unsafe { _mm512_set1_ps(x) }
}

#[inline(always)]
pub(super) fn add(a: __m512, b: __m512) -> __m512 {
    unsafe { _mm512_add_ps(a, b) }
}

#[inline(always)]
pub(super) fn sub(a: __m512, b: __m512) -> __m512 {
    unsafe { _mm512_sub_ps(a, b) }
}

/// `a · b + c`
#[inline(always)]
pub(super) fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
    unsafe { _mm512_fmadd_ps(a, b, c) }
}

/// The larger of the two; `b` where either is no number.
#[inline(always)]
pub(super) fn max(a: __m512, b: __m512) -> __m512 {
    unsafe { _mm512_max_ps(a, b) }
}

/// The sum of the sixteen.
#[inline(always)]
pub(super) fn sum(x: __m512) -> f32 {
    unsafe { _mm512_reduce_add_ps(x) }
}

/// # Safety
/// Sixteen numbers must lie here.
#[inline(always)]
pub(super) unsafe fn load(at: *const f32) -> __m512 {
    unsafe { _mm512_loadu_ps(at) }
}

/// # Safety
/// There must be room for sixteen numbers.
#[inline(always)]
pub(super) unsafe fn store(at: *mut f32, x: __m512) {
    unsafe { _mm512_storeu_ps(at, x) }
}

/// `x` where `mask` is above zero, else zero.
#[inline(always)]
pub(super) fn positive(mask: __m512, x: __m512) -> __m512 {
    unsafe {
        let above = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(mask, _mm512_setzero_ps());
        _mm512_maskz_mov_ps(above, x)
    }
}

/// Numbers aligned as vectors like them.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Line(#[allow(dead_code, reason = "read through pointers")] [f32; LANES]);

/// Room for so many numbers, all zero.
pub(super) fn lines(numbers: usize) -> Vec<Line> {
    vec![Line([0.0; LANES]); numbers.div_ceil(LANES)]
}
