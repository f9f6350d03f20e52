//! What Jupyter starts: one notebook's kernel, warm and quick.
//!
//! The kernel itself is the stock evcxr_jupyter. This program prepares it a directory, becomes it, and then stands in for `cargo`,
//! the compiler's wrapper and the linker, under their names (`main.rs`). It also holds the facts about the machine that the workbench
//! (`crates/lab`), which sets all this up, needs as well.
//!
//! Data flows downwards in this list:
//!
//! | modules | what they do |
//! | --- | --- |
//! | [`start`], [`janitor`] | a kernel's directory, from its making to its end |
//! | [`cargo`] → [`recompile`], [`packages`] → [`thin`] | quick answers in cargo's place: cells compiled by the compiler alone, packages as the analyzer sees them |
//! | [`cell_linker`] | cells linked with one library |
//! | [`memory`] → [`speed`] | which answers are known, and under what circumstances they hold |
//! | [`renewal`] → [`warm`] → [`workspace`] → [`local`] | the warm build directory and its making, the workspace in it, and the local crates that it is made from |
//! | [`variables`] | every environment variable, in one table |
//! | [`machine`] | places, programs, compilers, locks, copies |

pub mod cargo;
pub mod cell_linker;
pub mod janitor;
pub mod local;
pub mod machine;
pub mod memory;
pub mod packages;
pub mod real_cargo;
pub mod recompile;
pub mod renewal;
pub mod speed;
pub mod start;
pub mod thin;
pub mod variables;
pub mod warm;
pub mod workspace;
