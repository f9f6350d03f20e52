//! Operations that libtorch lacks or computes slowly on a CPU.
//!
//! - [`conv3x3`]: the 3x3 convolution with bias and activation;
//! - [`norm_silu`]: group normalisation followed by SiLU;
//! - [`linear`]: a dense layer through oneDNN;
//! - [`adam_step`]: one step of Adam, as Keras computes it;
//! - [`pool`]: worker threads that compute a part of a batch each;
//! - [`check_stop`]: the Stop button of a notebook;
//! - [`Precision`] and [`check_memory`]: the number format of a training, and whether a batch fits into memory.
//!
//! Everything in the project that depends on the processor, all `unsafe` code and the C++ bridge to libtorch's
//! differentiation are in this crate. Each operation has a fallback made of libtorch's own operations.
//! [`Implementation::selected`] chooses between the two, once in a process; the environment variable
//! `OPS_IMPLEMENTATION` overrides the choice. The tests compare all implementations with libtorch in `float64`.
//!
//! The README of the crate says how much each operation gains, on which machine.

mod adam;
#[cfg(target_arch = "x86_64")]
mod autograd;
#[cfg(any(target_arch = "x86_64", test))]
mod bfloat16;
mod cell;
mod contiguity;
mod conv;
mod implementation;
mod linear;
mod memory;
mod norm;
pub mod pool;
mod precision;
#[cfg(target_arch = "x86_64")]
mod simd;
#[cfg(target_arch = "x86_64")]
mod slices;

pub use adam::{AdamWeight, adam_step};
pub use cell::{Stopped, check_stop, is_stop_asked};
pub use conv::{Activation, conv3x3};
pub use implementation::Implementation;
pub use linear::linear;
pub use memory::check_memory;
pub use norm::norm_silu;
pub use precision::Precision;
