//! The number formats that tensors have in memory.

use tch::Kind;

use super::lanes::Lanes;
use crate::bfloat16::BFloat16;

/// A number as it lies in memory. In a register it is always `float32`.
pub(crate) trait Element: Copy + Send + Sync + 'static {
    /// libtorch's name for such numbers.
    const KIND: Kind;

    /// Sixteen numbers from here on.
    ///
    /// # Safety
    /// Sixteen must lie there.
    unsafe fn load<V: Lanes>(at: *const Self) -> V;

    /// Writes sixteen numbers here.
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

impl Element for BFloat16 {
    const KIND: Kind = Kind::BFloat16;

    #[inline(always)]
    unsafe fn load<V: Lanes>(at: *const BFloat16) -> V {
        unsafe { V::load_bfloat16(at.cast()) }
    }

    #[inline(always)]
    unsafe fn store<V: Lanes>(at: *mut BFloat16, x: V) {
        unsafe { x.store_bfloat16(at.cast()) }
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        BFloat16::to_f32(self)
    }

    #[inline(always)]
    fn from_f32(x: f32) -> BFloat16 {
        BFloat16::from_f32(x)
    }
}
