//! Sixteen `float32` numbers as one value.

/// How many numbers a vector holds.
pub(crate) const LANES: usize = 16;

/// Sixteen `float32` numbers.
pub(crate) trait Lanes: Copy {
    /// Whether the CPU has 32 registers for such vectors; otherwise it has 8.
    const HAS_32_REGISTERS: bool;
    /// The offsets of sixteen numbers in memory.
    type Offsets: Copy;

    /// Sixteen times the same number.
    fn splat(x: f32) -> Self;
    fn add(self, b: Self) -> Self;
    fn sub(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    fn div(self, b: Self) -> Self;
    /// `self · b + c`
    fn fma(self, b: Self, c: Self) -> Self;
    /// The larger of the two; `b` where either is NaN.
    fn max(self, b: Self) -> Self;
    /// The smaller of the two; `b` where either is NaN.
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

    /// Sixteen `bfloat16` numbers, given by their bits.
    ///
    /// # Safety
    /// Sixteen such numbers must lie here.
    unsafe fn load_bfloat16(at: *const u16) -> Self;

    /// Rounds to the nearest `bfloat16`, ties to even. The NaNs that arithmetic makes stay NaNs.
    ///
    /// # Safety
    /// There must be room for sixteen `bfloat16` numbers.
    unsafe fn store_bfloat16(self, at: *mut u16);

    /// The offsets of sixteen numbers with this distance between neighbours, for [`gather`](Lanes::gather) and
    /// [`scatter`](Lanes::scatter).
    fn strided_offsets(stride: usize) -> Self::Offsets;

    /// # Safety
    /// There must be numbers at all these offsets.
    unsafe fn gather(from: *const f32, offsets: Self::Offsets) -> Self;

    /// # Safety
    /// There must be room at all these offsets.
    unsafe fn scatter(self, to: *mut f32, offsets: Self::Offsets);
}

/// The offsets of [`LANES`] numbers with this distance between neighbours.
#[inline(always)]
pub(super) fn offsets(stride: usize) -> [i32; LANES] {
    std::array::from_fn(|lane| (lane * stride) as i32)
}

/// `1 / (1 + exp(-x))`, to about two units in the last place.
#[inline(always)]
pub(crate) fn sigmoid<V: Lanes>(x: V) -> V {
    // exp(-x) = 2ⁿ · exp(r) with |r| <= ln(2) / 2. Subtracting ln(2) in two parts keeps r exact, and seven terms of
    // Taylor's series give exp(r).
    let bound = V::splat(88.0); // beyond it the result is 0 or 1 to 6e-39, and 2ⁿ stays finite
    let y = V::splat(0.0).sub(x);
    let y = bound.min(V::splat(-88.0).max(y));
    let n = y.mul(V::splat(std::f32::consts::LOG2_E)).round();
    let r = n.fma(V::splat(-0.693_359_4), y);
    let r = n.fma(V::splat(2.121_944_4e-4), r);
    let coefficients = [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ];
    let mut exp = V::splat(coefficients[0]);
    for coefficient in &coefficients[1..] {
        exp = exp.fma(r, V::splat(*coefficient));
    }
    V::splat(1.0).div(exp.scale(n).add(V::splat(1.0)))
}
