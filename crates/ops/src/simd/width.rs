//! The vector instructions of this CPU, and kernels compiled for each of them.

use crate::implementation::Implementation;

/// Vector instructions that this CPU has: a value of this type exists only where the CPU has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    Avx512,
    Avx2,
}

impl Width {
    /// The vector instructions that an implementation uses. `None` for libtorch's own operations, and where this CPU lacks the
    /// instructions.
    pub(crate) fn of(implementation: Implementation) -> Option<Width> {
        match implementation {
            _ if !implementation.is_available() => None,
            Implementation::Amx | Implementation::Avx512 => Some(Width::Avx512),
            Implementation::Avx2 => Some(Width::Avx2),
            Implementation::Libtorch => None,
        }
    }
}

/// Compiles a kernel, which is generic in its vectors, for both widths. The resulting function takes the width as its first
/// argument.
macro_rules! for_each_width {
    ($(#[$doc:meta])* $visible:vis unsafe fn $name:ident<E>(
        $($argument:ident: $type:ty),* $(,)?
    ) $(-> $result:ty)? = $kernel:ident;) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments, reason = "as the kernel takes them")]
        $visible unsafe fn $name<E: $crate::simd::element::Element>(
            width: $crate::simd::width::Width,
            $($argument: $type),*
        ) $(-> $result)? {
            #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
            unsafe fn avx512<E: $crate::simd::element::Element>($($argument: $type),*) $(-> $result)? {
                unsafe { $kernel::<std::arch::x86_64::__m512, E>($($argument),*) }
            }
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2<E: $crate::simd::element::Element>($($argument: $type),*) $(-> $result)? {
                unsafe { $kernel::<$crate::simd::avx2::Avx2, E>($($argument),*) }
            }
            match width {
                $crate::simd::width::Width::Avx512 => unsafe { avx512::<E>($($argument),*) },
                $crate::simd::width::Width::Avx2 => unsafe { avx2::<E>($($argument),*) },
            }
        }
    };
}
pub(crate) use for_each_width;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bfloat16::BFloat16;
    use crate::simd::element::Element;
    use crate::simd::lanes::{LANES, Lanes, sigmoid};

    /// Runs a test with all vector instructions that this CPU has.
    fn in_each_width(test: impl Fn(Width)) {
        for width in Implementation::available()
            .into_iter()
            .filter_map(Width::of)
        {
            println!("with {width:?}");
            test(width);
        }
    }

    for_each_width! {
        unsafe fn sigmoids<E>(x: &[f32], out: &mut [f32], kind: &[E]) = sigmoids_with;
    }

    /// The sigmoids, rounded to `E`.
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
        in_each_width(|width| {
            let x: Vec<f32> = (0..1600).map(|at| (at - 800) as f32 * 0.137).collect();
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

    for_each_width! {
        unsafe fn transposed_twice<E>(matrix: &[f32], out: &mut [f32], kind: &[E]) -> f32 = transposed_twice_with;
    }

    /// A matrix of 16 by 16 transposed twice, once by a gather and once by a scatter; and the sum of its first row.
    #[inline(always)]
    unsafe fn transposed_twice_with<V: Lanes, E: Element>(
        matrix: &[f32],
        out: &mut [f32],
        _: &[E],
    ) -> f32 {
        let offsets = V::strided_offsets(LANES);
        for at in 0..LANES {
            unsafe {
                let column = V::gather(matrix.as_ptr().add(at), offsets);
                column.scatter(out.as_mut_ptr().add(at), offsets);
            }
        }
        unsafe { V::load(matrix.as_ptr()) }.sum()
    }

    #[test]
    fn numbers_far_apart_are_gathered_scattered_and_summed() {
        in_each_width(|width| {
            let matrix: Vec<f32> = (0..LANES * LANES).map(|at| at as f32).collect();
            let mut out = vec![0.0; matrix.len()];
            // SAFETY: the CPU has this width, and the matrices are whole.
            let sum = unsafe { transposed_twice::<f32>(width, &matrix, &mut out, &[]) };
            assert_eq!(out, matrix);
            assert_eq!(sum, 120.0);
        });
    }
}
