//! Sixteen numbers with AVX-512: one register.

use std::arch::x86_64::*;

use super::lanes::{Lanes, offsets};

impl Lanes for __m512 {
    const HAS_32_REGISTERS: bool = true;
    type Offsets = __m512i;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        unsafe { _mm512_add_ps(self, b) }
    }

    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        unsafe { _mm512_sub_ps(self, b) }
    }

    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        unsafe { _mm512_mul_ps(self, b) }
    }

    #[inline(always)]
    fn div(self, b: Self) -> Self {
        unsafe { _mm512_div_ps(self, b) }
    }

    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        unsafe { _mm512_fmadd_ps(self, b, c) }
    }

    #[inline(always)]
    fn max(self, b: Self) -> Self {
        unsafe { _mm512_max_ps(self, b) }
    }

    #[inline(always)]
    fn min(self, b: Self) -> Self {
        unsafe { _mm512_min_ps(self, b) }
    }

    #[inline(always)]
    fn round(self) -> Self {
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self) }
    }

    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        unsafe { _mm512_scalef_ps(self, n) }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        unsafe { _mm512_reduce_add_ps(self) }
    }

    #[inline(always)]
    fn where_positive(self, mask: Self) -> Self {
        unsafe {
            let above = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(mask, _mm512_setzero_ps());
            _mm512_maskz_mov_ps(above, self)
        }
    }

    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        unsafe { _mm512_loadu_ps(at) }
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        unsafe { _mm512_storeu_ps(at, self) }
    }

    #[inline(always)]
    unsafe fn load_bfloat16(at: *const u16) -> Self {
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(at.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }

    #[inline(always)]
    unsafe fn store_bfloat16(self, at: *mut u16) {
        unsafe {
            let bits = _mm512_castps_si512(self);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
            let rounded = _mm512_srli_epi32::<16>(_mm512_add_epi32(bits, half));
            _mm256_storeu_si256(at.cast(), _mm512_cvtepi32_epi16(rounded));
        }
    }

    #[inline(always)]
    fn strided_offsets(stride: usize) -> __m512i {
        unsafe { _mm512_loadu_si512(offsets(stride).as_ptr().cast()) }
    }

    #[inline(always)]
    unsafe fn gather(from: *const f32, offsets: __m512i) -> Self {
        unsafe { _mm512_i32gather_ps::<4>(offsets, from) }
    }

    #[inline(always)]
    unsafe fn scatter(self, to: *mut f32, offsets: __m512i) {
        unsafe { _mm512_i32scatter_ps::<4>(to, offsets, self) }
    }
}
