//! Networks as lists of layers, compiled and fitted as in Keras: a small part of Keras over libtorch.
//!
//! [`network`] builds, applies, saves and loads networks. [`objective`] has optimizers and losses, [`pairs`] what is learnt
//! from. [`train`] has one training loop, for networks and for every other type that implements [`train::Model`]; it can run
//! in the background, be stopped, and be resumed. [`rng`] is the source of all randomness.
//!
//! This crate knows no data set, no noise schedule and no sampling: the crate `diffusion` says what is learnt, and re-exports
//! what a cell needs.

#![forbid(unsafe_code)]

pub mod network;
pub mod objective;
pub mod pairs;
pub mod rng;
mod store;
pub mod train;
