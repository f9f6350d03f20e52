//! Sixteen numbers at once: what the kernels of [`conv`](crate::conv) and [`norm`](crate::norm) compute with.
//!
//! Everything here is inlined into functions that are compiled for AVX-512 and called only where the CPU
//! has it, so a vector lives in one register.

use std::arch::x86_64::{
    __m512, __m512i, _CMP_GT_OQ, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _mm256_loadu_si256,
    _mm256_storeu_si256, _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512, _mm512_castps_si512,
    _mm512_castsi512_ps, _mm512_cmp_ps_mask, _mm512_cvtepi32_epi16, _mm512_cvtepu16_epi32,
    _mm512_div_ps, _mm512_fmadd_ps, _mm512_i32gather_ps, _mm512_i32scatter_ps, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_maskz_mov_ps, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps,
    _mm512_reduce_add_ps, _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_slli_epi32, _mm512_srli_epi32, _mm512_storeu_ps,
    _mm512_sub_ps,
};

use tch::Kind;

/// How many numbers a vector holds.
pub(crate) const LANES: usize = 16;

/// A number as it lies in memory; in a register it is always `float32`.
pub(crate) trait Element: Copy + Send + Sync + 'static {
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
pub(crate) struct BFloat16(u16);

impl Element for BFloat16 {
    const KIND: Kind = Kind::BFloat16;

    #[inline(always)]
    unsafe fn load(at: *const BFloat16) -> __m512 {
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(at.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }

    /// Rounds to nearest, ties to even. The NaNs that arithmetic makes stay NaNs.
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
pub(crate) fn zero() -> __m512 {
    unsafe { _mm512_setzero_ps() }
}

#[inline(always)]
pub(crate) fn all(x: f32) -> __m512 {
    unsafe { _mm512_set1_ps(x) }
}

#[inline(always)]
pub(crate) fn add(a: __m512, b: __m512) -> __m512 {
    unsafe { _mm512_add_ps(a, b) }
}

#[inline(always)]
pub(crate) fn sub(a: __m512, b: __m512) -> __m512 {
    unsafe { _mm512_sub_ps(a, b) }
}

/// `a · b + c`
#[inline(always)]
pub(crate) fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
    unsafe { _mm512_fmadd_ps(a, b, c) }
}

/// The larger of the two; `b` where either is no number.
#[inline(always)]
pub(crate) fn max(a: __m512, b: __m512) -> __m512 {
    unsafe { _mm512_max_ps(a, b) }
}

#[inline(always)]
pub(crate) fn mul(a: __m512, b: __m512) -> __m512 {
    unsafe { _mm512_mul_ps(a, b) }
}

/// `1 / (1 + exp(-x))`, to about two units in the last place.
#[inline(always)]
pub(crate) fn sigmoid(x: __m512) -> __m512 {
    // exp(-x) = 2ⁿ · exp(r) with |r| <= ln(2) / 2; ln(2) in two parts keeps r exact, and seven terms of
    // Taylor's series do the rest.
    unsafe {
        let bound = all(88.0); // beyond it the result is 0 or 1 to 6e-39, and 2ⁿ stays a number
        let y = sub(zero(), x);
        let y = _mm512_min_ps(bound, _mm512_max_ps(sub(zero(), bound), y));
        let n = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(mul(
            y,
            all(std::f32::consts::LOG2_E),
        ));
        let r = fma(n, all(-0.693_359_4), y);
        let r = fma(n, all(2.121_944_4e-4), r);
        let coefficients = [
            1.0 / 720.0,
            1.0 / 120.0,
            1.0 / 24.0,
            1.0 / 6.0,
            0.5,
            1.0,
            1.0,
        ];
        let mut exp = all(coefficients[0]);
        for coefficient in &coefficients[1..] {
            exp = fma(exp, r, all(*coefficient));
        }
        let exp = _mm512_scalef_ps(exp, n);
        _mm512_div_ps(all(1.0), add(exp, all(1.0)))
    }
}

/// Does this CPU have what the kernels are compiled for?
pub(crate) fn is_available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
}

/// The sum of the sixteen.
#[inline(always)]
pub(crate) fn sum(x: __m512) -> f32 {
    unsafe { _mm512_reduce_add_ps(x) }
}

/// # Safety
/// Sixteen numbers must lie here.
#[inline(always)]
pub(crate) unsafe fn load(at: *const f32) -> __m512 {
    unsafe { _mm512_loadu_ps(at) }
}

/// # Safety
/// There must be room for sixteen numbers.
#[inline(always)]
pub(crate) unsafe fn store(at: *mut f32, x: __m512) {
    unsafe { _mm512_storeu_ps(at, x) }
}

/// Where sixteen numbers lie that are so far apart, for [`gather`] and [`scatter`].
#[inline(always)]
pub(crate) fn lanes_apart(distance: usize) -> __m512i {
    let places: [i32; LANES] = std::array::from_fn(|lane| (lane * distance) as i32);
    unsafe { _mm512_loadu_si512(places.as_ptr().cast()) }
}

/// # Safety
/// Numbers must lie in all these places.
#[inline(always)]
pub(crate) unsafe fn gather(from: *const f32, places: __m512i) -> __m512 {
    unsafe { _mm512_i32gather_ps::<4>(places, from) }
}

/// # Safety
/// There must be room in all these places.
#[inline(always)]
pub(crate) unsafe fn scatter(to: *mut f32, places: __m512i, x: __m512) {
    unsafe { _mm512_i32scatter_ps::<4>(to, places, x) }
}

/// `x` where `mask` is above zero, else zero.
#[inline(always)]
pub(crate) fn positive(mask: __m512, x: __m512) -> __m512 {
    unsafe {
        let above = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(mask, _mm512_setzero_ps());
        _mm512_maskz_mov_ps(above, x)
    }
}

/// Numbers aligned as vectors like them.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Line(#[allow(dead_code, reason = "read through pointers")] [f32; LANES]);

/// Room for so many numbers, all zero.
pub(crate) fn lines(numbers: usize) -> Vec<Line> {
    vec![Line([0.0; LANES]); numbers.div_ceil(LANES)]
}
