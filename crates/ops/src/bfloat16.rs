//! The number format `bfloat16`.

/// A `bfloat16`: the upper half of the bits of a `float32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct BFloat16(u16);

impl BFloat16 {
    /// The same number as a `float32`; exact.
    #[inline(always)]
    pub(crate) fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    /// The nearest `bfloat16`, ties to even. The NaNs that arithmetic makes stay NaNs.
    ///
    /// The addition wraps: a check for overflow would keep the compiler from vectorising a loop over this function,
    /// which would then take twenty times as long.
    #[inline(always)]
    pub(crate) fn from_f32(x: f32) -> BFloat16 {
        let bits = x.to_bits();
        BFloat16((bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, Tensor};

    #[test]
    fn numbers_are_rounded_to_bfloat16_as_libtorch_rounds_them() {
        let mut numbers: Vec<f32> = (-40_000..40_000).map(|n| n as f32 * 1.000_37e-3).collect();
        numbers.extend([f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -0.0]);
        let rounded = Tensor::from_slice(&numbers).to_kind(Kind::BFloat16);
        let expected = Vec::<f32>::try_from(&rounded.to_kind(Kind::Float)).unwrap();
        for (x, expected) in numbers.iter().zip(expected) {
            let found = BFloat16::from_f32(*x).to_f32();
            assert_eq!(found.to_bits(), expected.to_bits(), "{x}");
        }
        assert_eq!(BFloat16::from_f32(f32::NAN), BFloat16(0x7fc0));
    }
}
