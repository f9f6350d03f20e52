//! Sixteen numbers at once: what the kernels of [`conv`](crate::conv) and [`norm`](crate::norm) compute with.
//!
//! A kernel is written once, for any [`Lanes`], and compiled twice ([`dispatched`]): for AVX-512, where sixteen numbers are
//! one register, and for AVX2, where they are two. Everything here is inlined into functions that are compiled for the one or
//! the other, and called only where the CPU has it.

use std::arch::x86_64::*;

use tch::Kind;

/// How many numbers a vector holds.
pub(crate) const LANES: usize = 16;

/// Sixteen `float32` numbers.
pub(crate) trait Lanes: Copy {
    /// Whether the CPU has 32 registers for them, not 8.
    const MANY: bool;
    /// Sixteen places in memory.
    type Places: Copy;

    fn all(x: f32) -> Self;
    fn add(self, b: Self) -> Self;
    fn sub(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    fn div(self, b: Self) -> Self;
    /// `self · b + c`
    fn fma(self, b: Self, c: Self) -> Self;
    /// The larger of the two; `b` where either is no number.
    fn max(self, b: Self) -> Self;
    /// The smaller of the two; `b` where either is no number.
    fn min(self, b: Self) -> Self;
    /// The nearest whole numbers, ties to even.
    fn round(self) -> Self;
    /// `self · 2ⁿ` for whole numbers `n` from -127 to 127; what is below 1e-38 may become 0.
    fn scale(self, n: Self) -> Self;
    /// The sum of the sixteen.
    fn sum(self) -> f32;
    /// `self` where `mask` is above zero, else zero.
    fn where_positive(self, mask: Self) -> Self;

    /// # Safety
    /// Sixteen numbers must lie here.
    unsafe fn load(at: *const f32) -> Self;

    /// # Safety
    /// There must be room for sixteen numbers.
    unsafe fn store(self, at: *mut f32);

    /// The upper halves of sixteen numbers, as `bfloat16` is.
    ///
    /// # Safety
    /// Sixteen such halves must lie here.
    unsafe fn load_halves(at: *const u16) -> Self;

    /// Rounds to nearest, ties to even. The NaNs that arithmetic makes stay NaNs.
    ///
    /// # Safety
    /// There must be room for sixteen halves.
    unsafe fn store_halves(self, at: *mut u16);

    /// Where sixteen numbers lie that are so far apart, for [`gather`](Lanes::gather) and [`scatter`](Lanes::scatter).
    fn apart(distance: usize) -> Self::Places;

    /// # Safety
    /// Numbers must lie in all these places.
    unsafe fn gather(from: *const f32, places: Self::Places) -> Self;

    /// # Safety
    /// There must be room in all these places.
    unsafe fn scatter(self, to: *mut f32, places: Self::Places);
}

/// The places of [`LANES`] numbers that are so far apart.
#[inline(always)]
fn places(distance: usize) -> [i32; LANES] {
    std::array::from_fn(|lane| (lane * distance) as i32)
}

/// AVX-512: one register.
impl Lanes for __m512 {
    const MANY: bool = true;
    type Places = __m512i;

    #[inline(always)]
    fn all(x: f32) -> Self {
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
    unsafe fn load_halves(at: *const u16) -> Self {
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(at.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }

    #[inline(always)]
    unsafe fn store_halves(self, at: *mut u16) {
        unsafe {
            let bits = _mm512_castps_si512(self);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
            let rounded = _mm512_srli_epi32::<16>(_mm512_add_epi32(bits, half));
            _mm256_storeu_si256(at.cast(), _mm512_cvtepi32_epi16(rounded));
        }
    }

    #[inline(always)]
    fn apart(distance: usize) -> __m512i {
        unsafe { _mm512_loadu_si512(places(distance).as_ptr().cast()) }
    }

    #[inline(always)]
    unsafe fn gather(from: *const f32, places: __m512i) -> Self {
        unsafe { _mm512_i32gather_ps::<4>(places, from) }
    }

    #[inline(always)]
    unsafe fn scatter(self, to: *mut f32, places: __m512i) {
        unsafe { _mm512_i32scatter_ps::<4>(to, places, self) }
    }
}

/// AVX2 and FMA: two registers.
#[derive(Clone, Copy)]
pub(crate) struct Pair(__m256, __m256);

/// The upper halves of eight numbers, rounded, each in a word of its own.
#[inline(always)]
unsafe fn rounded(x: __m256) -> __m256i {
    unsafe {
        let bits = _mm256_castps_si256(x);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
        _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, half))
    }
}

/// Two to the power of eight whole numbers, from its bits: the exponent is 127 above them.
#[inline(always)]
unsafe fn power_of_two(n: __m256) -> __m256 {
    unsafe {
        let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
    }
}

impl Lanes for Pair {
    const MANY: bool = false;
    type Places = [i32; LANES];

    #[inline(always)]
    fn all(x: f32) -> Self {
        let x = unsafe { _mm256_set1_ps(x) };
        Pair(x, x)
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        unsafe { Pair(_mm256_add_ps(self.0, b.0), _mm256_add_ps(self.1, b.1)) }
    }

    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        unsafe { Pair(_mm256_sub_ps(self.0, b.0), _mm256_sub_ps(self.1, b.1)) }
    }

    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        unsafe { Pair(_mm256_mul_ps(self.0, b.0), _mm256_mul_ps(self.1, b.1)) }
    }

    #[inline(always)]
    fn div(self, b: Self) -> Self {
        unsafe { Pair(_mm256_div_ps(self.0, b.0), _mm256_div_ps(self.1, b.1)) }
    }

    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        unsafe {
            Pair(
                _mm256_fmadd_ps(self.0, b.0, c.0),
                _mm256_fmadd_ps(self.1, b.1, c.1),
            )
        }
    }

    #[inline(always)]
    fn max(self, b: Self) -> Self {
        unsafe { Pair(_mm256_max_ps(self.0, b.0), _mm256_max_ps(self.1, b.1)) }
    }

    #[inline(always)]
    fn min(self, b: Self) -> Self {
        unsafe { Pair(_mm256_min_ps(self.0, b.0), _mm256_min_ps(self.1, b.1)) }
    }

    #[inline(always)]
    fn round(self) -> Self {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        unsafe {
            Pair(
                _mm256_round_ps::<NEAREST>(self.0),
                _mm256_round_ps::<NEAREST>(self.1),
            )
        }
    }

    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        self.mul(unsafe { Pair(power_of_two(n.0), power_of_two(n.1)) })
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
            Pair(
                _mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(mask.0, zero), self.0),
                _mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(mask.1, zero), self.1),
            )
        }
    }

    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        unsafe { Pair(_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))) }
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        unsafe {
            _mm256_storeu_ps(at, self.0);
            _mm256_storeu_ps(at.add(8), self.1);
        }
    }

    #[inline(always)]
    unsafe fn load_halves(at: *const u16) -> Self {
        unsafe {
            let halves = _mm256_loadu_si256(at.cast());
            let (low, high) = (
                _mm256_castsi256_si128(halves),
                _mm256_extracti128_si256::<1>(halves),
            );
            let (low, high) = (_mm256_cvtepu16_epi32(low), _mm256_cvtepu16_epi32(high));
            Pair(
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
            )
        }
    }

    #[inline(always)]
    unsafe fn store_halves(self, at: *mut u16) {
        unsafe {
            let packed = _mm256_packus_epi32(rounded(self.0), rounded(self.1));
            // It packs within the halves of a register; so the two quarters in the middle change places.
            _mm256_storeu_si256(at.cast(), _mm256_permute4x64_epi64::<0b11_01_10_00>(packed));
        }
    }

    #[inline(always)]
    fn apart(distance: usize) -> [i32; LANES] {
        places(distance)
    }

    #[inline(always)]
    unsafe fn gather(from: *const f32, places: [i32; LANES]) -> Self {
        unsafe {
            let (low, high) = (places.as_ptr(), places.as_ptr().add(8));
            Pair(
                _mm256_i32gather_ps::<4>(from, _mm256_loadu_si256(low.cast())),
                _mm256_i32gather_ps::<4>(from, _mm256_loadu_si256(high.cast())),
            )
        }
    }

    #[inline(always)]
    unsafe fn scatter(self, to: *mut f32, places: [i32; LANES]) {
        let mut numbers = [0.0; LANES];
        unsafe { self.store(numbers.as_mut_ptr()) };
        for (x, place) in numbers.iter().zip(places) {
            unsafe { *to.add(place as usize) = *x };
        }
    }
}

/// `1 / (1 + exp(-x))`, to about two units in the last place.
#[inline(always)]
pub(crate) fn sigmoid<V: Lanes>(x: V) -> V {
    // exp(-x) = 2ⁿ · exp(r) with |r| <= ln(2) / 2; ln(2) in two parts keeps r exact, and seven terms of
    // Taylor's series do the rest.
    let bound = V::all(88.0); // beyond it the result is 0 or 1 to 6e-39, and 2ⁿ stays a number
    let y = V::all(0.0).sub(x);
    let y = bound.min(V::all(-88.0).max(y));
    let n = y.mul(V::all(std::f32::consts::LOG2_E)).round();
    let r = n.fma(V::all(-0.693_359_4), y);
    let r = n.fma(V::all(2.121_944_4e-4), r);
    let coefficients = [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ];
    let mut exp = V::all(coefficients[0]);
    for coefficient in &coefficients[1..] {
        exp = exp.fma(r, V::all(*coefficient));
    }
    V::all(1.0).div(exp.scale(n).add(V::all(1.0)))
}

/// A number as it lies in memory; in a register it is always `float32`.
pub(crate) trait Element: Copy + Send + Sync + 'static {
    /// What libtorch calls such numbers.
    const KIND: Kind;

    /// Sixteen numbers from here on.
    ///
    /// # Safety
    /// Sixteen must lie there.
    unsafe fn load<V: Lanes>(at: *const Self) -> V;

    /// Puts sixteen numbers here.
    ///
    /// # Safety
    /// There must be room for sixteen.
    unsafe fn store<V: Lanes>(at: *mut Self, x: V);

    fn to_f32(self) -> f32;
    fn from_f32(x: f32) -> Self;
}

impl Element for f32 {
    const KIND: Kind = Kind::Float;

    #[inline(always)]
    unsafe fn load<V: Lanes>(at: *const f32) -> V {
        unsafe { V::load(at) }
    }

    #[inline(always)]
    unsafe fn store<V: Lanes>(at: *mut f32, x: V) {
        unsafe { x.store(at) }
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
    unsafe fn load<V: Lanes>(at: *const BFloat16) -> V {
        unsafe { V::load_halves(at.cast()) }
    }

    #[inline(always)]
    unsafe fn store<V: Lanes>(at: *mut BFloat16, x: V) {
        unsafe { x.store_halves(at.cast()) }
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

/// What a CPU offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    Avx512,
    Avx2,
}

impl Width {
    /// The widest that this CPU has, if it has any.
    pub(crate) fn of_this_cpu() -> Option<Width> {
        #[cfg(test)]
        if let Some(width) = tests::ASKED.get() {
            return Some(width);
        }
        [Width::Avx512, Width::Avx2]
            .into_iter()
            .find(|width| width.is_here())
    }

    fn is_here(self) -> bool {
        match self {
            Width::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
            }
            Width::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
        }
    }
}

/// Compiles a kernel, which is generic in its vectors, for both widths. The function that comes of it is told the width
/// first.
macro_rules! dispatched {
    ($(#[$doc:meta])* $visible:vis unsafe fn $name:ident<E>(
        $($argument:ident: $type:ty),* $(,)?
    ) $(-> $result:ty)? = $kernel:ident;) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments, reason = "as the kernel takes them")]
        $visible unsafe fn $name<E: $crate::lanes::Element>(
            width: $crate::lanes::Width,
            $($argument: $type),*
        ) $(-> $result)? {
            #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
            unsafe fn wide<E: $crate::lanes::Element>($($argument: $type),*) $(-> $result)? {
                unsafe { $kernel::<std::arch::x86_64::__m512, E>($($argument),*) }
            }
            #[target_feature(enable = "avx2,fma")]
            unsafe fn pair<E: $crate::lanes::Element>($($argument: $type),*) $(-> $result)? {
                unsafe { $kernel::<$crate::lanes::Pair, E>($($argument),*) }
            }
            match width {
                $crate::lanes::Width::Avx512 => unsafe { wide::<E>($($argument),*) },
                $crate::lanes::Width::Avx2 => unsafe { pair::<E>($($argument),*) },
            }
        }
    };
}
pub(crate) use dispatched;

/// Numbers aligned as vectors like them.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Line(#[allow(dead_code, reason = "read through pointers")] [f32; LANES]);

/// Room for so many numbers, all zero.
pub(crate) fn lines(numbers: usize) -> Vec<Line> {
    vec![Line([0.0; LANES]); numbers.div_ceil(LANES)]
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        /// The width that a test wants.
        pub(super) static ASKED: Cell<Option<Width>> = const { Cell::new(None) };
    }

    /// Runs a test of kernels in each width that this CPU has.
    pub(crate) fn in_each_width(test: impl Fn()) {
        for width in [Width::Avx512, Width::Avx2] {
            if width.is_here() {
                println!("in {width:?}");
                ASKED.set(Some(width));
                test();
                ASKED.set(None);
            }
        }
    }

    dispatched! {
        unsafe fn sigmoids<E>(x: &[f32], out: &mut [f32], kind: &[E]) = sigmoids_with;
    }

    /// Through `E` and back on the way out.
    #[inline(always)]
    unsafe fn sigmoids_with<V: Lanes, E: Element>(x: &[f32], out: &mut [f32], _: &[E]) {
        for (x, out) in x.chunks(LANES).zip(out.chunks_mut(LANES)) {
            let y: V = sigmoid(unsafe { V::load(x.as_ptr()) });
            let mut stored = [E::from_f32(0.0); LANES];
            unsafe {
                E::store(stored.as_mut_ptr(), y);
                let back: V = E::load(stored.as_ptr());
                back.store(out.as_mut_ptr());
            }
        }
    }

    #[test]
    fn a_sigmoid_is_that_of_float64_and_is_stored_as_rounded() {
        in_each_width(|| {
            let x: Vec<f32> = (0..1600).map(|at| (at - 800) as f32 * 0.137).collect();
            let width = Width::of_this_cpu().unwrap();
            let (mut floats, mut halves) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            // SAFETY: the CPU has this width, and the slices are whole vectors.
            unsafe {
                sigmoids::<f32>(width, &x, &mut floats, &[]);
                sigmoids::<BFloat16>(width, &x, &mut halves, &[]);
            }
            for ((x, float), half) in x.iter().zip(&floats).zip(&halves) {
                let exact = 1.0 / (1.0 + (-f64::from(*x)).exp());
                let error = (f64::from(*float) - exact).abs();
                assert!(error <= 3e-7 * exact + 1e-38, "{x}: {float}");
                assert_eq!(*half, BFloat16::from_f32(*float).to_f32(), "{x}");
            }
        });
    }

    dispatched! {
        unsafe fn turned<E>(matrix: &[f32], out: &mut [f32], kind: &[E]) -> f32 = turned_with;
    }

    /// A matrix of 16 by 16 with rows and columns exchanged twice, by both ways; and the sum of its first row.
    #[inline(always)]
    unsafe fn turned_with<V: Lanes, E: Element>(matrix: &[f32], out: &mut [f32], _: &[E]) -> f32 {
        let places = V::apart(LANES);
        for at in 0..LANES {
            unsafe {
                let column = V::gather(matrix.as_ptr().add(at), places);
                column.scatter(out.as_mut_ptr().add(at), places);
            }
        }
        unsafe { V::load(matrix.as_ptr()) }.sum()
    }

    #[test]
    fn numbers_far_apart_are_gathered_scattered_and_summed() {
        in_each_width(|| {
            let matrix: Vec<f32> = (0..LANES * LANES).map(|at| at as f32).collect();
            let mut out = vec![0.0; matrix.len()];
            // SAFETY: the CPU has this width, and the matrices are whole.
            let sum =
                unsafe { turned::<f32>(Width::of_this_cpu().unwrap(), &matrix, &mut out, &[]) };
            assert_eq!(out, matrix);
            assert_eq!(sum, 120.0);
        });
    }
}
