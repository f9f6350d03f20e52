//! The workbench of the lesson: set-up, kernel, notebook runner. One binary, a few verbs; `main.rs`
//! only reads the command line.
//!
//! Data flows downwards in this list: [`setup`] and [`doctor`] walk the parts of the house
//! ([`parts`]); each part is one module that can say whether it is there and can make it so;
//! how a kernel ([`kernel`]) waits less stands in [`cargo`] (answers from [`memory`], [`recompile`]), [`cell_linker`],
//! [`analyzer`], [`packages`] and [`thin`] (what is analyzed), [`rehearsal`] (the first one, on trial);
//! what a kernel compiles is read from the manifests ([`local`]);
//! below them stand [`fetch`] (downloads), [`tools`] (running other programs), [`tree`] (copies of
//! directories) and [`layout`] (where everything is).

pub mod against;
pub mod analyzer;
pub mod bench;
pub mod cargo;
pub mod cell_library;
pub mod cell_linker;
pub mod cells;
pub mod class;
pub mod doctor;
pub mod evcxr;
pub mod fetch;
pub mod index;
pub mod jupyter;
pub mod kernel;
pub mod layout;
pub mod libtorch;
pub mod local;
pub mod memory;
pub mod mnist;
pub mod net;
pub mod packages;
pub mod parts;
pub mod python;
pub mod real_cargo;
pub mod recompile;
pub mod rehearsal;
pub mod run;
pub mod seed;
pub mod setup;
pub mod spec;
pub mod suite;
pub mod thin;
pub mod toolchain;
pub mod tools;
pub mod tree;
