//! Sixteen numbers with AVX2 and FMA: two registers.

use std::arch::x86_64::*;

use super::lanes::{LANES, Lanes, offsets};

/// Two registers of eight numbers.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256, __m256);

/// The `bfloat16` bits of eight numbers, rounded, each in a 32-bit word.
#[inline(always)]
unsafe fn rounded(x: __m256) -> __m256i {
    unsafe {
        let bits = _mm256_castps_si256(x);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
        _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, half))
    }
}

/// Two to the power of eight whole numbers, made from its bits: the stored exponent is `n + 127`.
#[inline(always)]
unsafe fn power_of_two(n: __m256) -> __m256 {
    unsafe {
        let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
    }
}

impl Lanes for Avx2 {
    const HAS_32_REGISTERS: bool = false;
    type Offsets = [i32; LANES];

    #[inline(always)]
    fn splat(x: f32) -> Self {
        let x = unsafe { _mm256_set1_ps(x) };
        Avx2(x, x)
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        unsafe { Avx2(_mm256_add_ps(self.0, b.0), _mm256_add_ps(self.1, b.1)) }
    }

    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        unsafe { Avx2(_mm256_sub_ps(self.0, b.0), _mm256_sub_ps(self.1, b.1)) }
    }

    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        unsafe { Avx2(_mm256_mul_ps(self.0, b.0), _mm256_mul_ps(self.1, b.1)) }
    }

    #[inline(always)]
    fn div(self, b: Self) -> Self {
        unsafe { Avx2(_mm256_div_ps(self.0, b.0), _mm256_div_ps(self.1, b.1)) }
    }

    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        unsafe {
            Avx2(
                _mm256_fmadd_ps(self.0, b.0, c.0),
                _mm256_fmadd_ps(self.1, b.1, c.1),
            )
        }
    }

    #[inline(always)]
    fn max(self, b: Self) -> Self {
        unsafe { Avx2(_mm256_max_ps(self.0, b.0), _mm256_max_ps(self.1, b.1)) }
    }

    #[inline(always)]
    fn min(self, b: Self) -> Self {
        unsafe { Avx2(_mm256_min_ps(self.0, b.0), _mm256_min_ps(self.1, b.1)) }
    }

    #[inline(always)]
    fn round(self) -> Self {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        unsafe {
            Avx2(
                _mm256_round_ps::<NEAREST>(self.0),
                _mm256_round_ps::<NEAREST>(self.1),
            )
        }
    }

    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        self.mul(unsafe { Avx2(power_of_two(n.0), power_of_two(n.1)) })
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        unsafe {
            let eight = _mm256_add_ps(self.0, self.1);
            let (low, high) = (
                _mm256_castps256_ps128(eight),
                _mm256_extractf128_ps::<1>(eight),
            );
            let four = _mm_add_ps(low, high);
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn where_positive(self, mask: Self) -> Self {
        unsafe {
            let zero = _mm256_setzero_ps();
            Avx2(
                _mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(mask.0, zero), self.0),
                _mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(mask.1, zero), self.1),
            )
        }
    }

    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        unsafe { Avx2(_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))) }
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        unsafe {
            _mm256_storeu_ps(at, self.0);
            _mm256_storeu_ps(at.add(8), self.1);
        }
    }

    #[inline(always)]
    unsafe fn load_bfloat16(at: *const u16) -> Self {
        unsafe {
            let halves = _mm256_loadu_si256(at.cast());
            let (low, high) = (
                _mm256_castsi256_si128(halves),
                _mm256_extracti128_si256::<1>(halves),
            );
            let (low, high) = (_mm256_cvtepu16_epi32(low), _mm256_cvtepu16_epi32(high));
            Avx2(
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
            )
        }
    }

    #[inline(always)]
    unsafe fn store_bfloat16(self, at: *mut u16) {
        unsafe {
            let packed = _mm256_packus_epi32(rounded(self.0), rounded(self.1));
            // The instruction packs within each half of a register, so the two quarters in the middle must be swapped.
            _mm256_storeu_si256(at.cast(), _mm256_permute4x64_epi64::<0b11_01_10_00>(packed));
        }
    }

    #[inline(always)]
    fn strided_offsets(stride: usize) -> [i32; LANES] {
        offsets(stride)
    }

    #[inline(always)]
    unsafe fn gather(from: *const f32, offsets: [i32; LANES]) -> Self {
        unsafe {
            let (low, high) = (offsets.as_ptr(), offsets.as_ptr().add(8));
            Avx2(
                _mm256_i32gather_ps::<4>(from, _mm256_loadu_si256(low.cast())),
                _mm256_i32gather_ps::<4>(from, _mm256_loadu_si256(high.cast())),
            )
        }
    }

    #[inline(always)]
    unsafe fn scatter(self, to: *mut f32, offsets: [i32; LANES]) {
        let mut numbers = [0.0; LANES];
        unsafe { self.store(numbers.as_mut_ptr()) };
        for (x, offset) in numbers.iter().zip(offsets) {
            unsafe { *to.add(offset as usize) = *x };
        }
    }
}
