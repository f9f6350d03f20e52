//! Vectors of sixteen numbers, which the kernels of [`conv`](crate::conv) and [`norm`](crate::norm) compute with.
//!
//! A kernel is written once, for any [`Lanes`](lanes::Lanes), and [`for_each_width`](width::for_each_width) compiles it
//! twice: for AVX-512, where sixteen numbers are one register, and for AVX2, where they are two. Everything here is
//! inlined into functions that are compiled for one of the two, and called only where the CPU has it.

pub(crate) mod aligned;
pub(crate) mod avx2;
mod avx512;
pub(crate) mod element;
pub(crate) mod lanes;
pub(crate) mod width;
