//! The workbench of the lesson: set-up, notebook runner, pages, class, measurements. One binary, a few verbs; `main.rs`
//! only reads the command line.
//!
//! | folder | verbs | what it uses |
//! | --- | --- | --- |
//! | [`setup`] | `setup`; [`doctor`] looks at the same parts | |
//! | [`notebooks`] | `run`, `browser`, `jupyter`, `test` | `setup` |
//! | [`publish`] | `site`, `slides` | `notebooks` |
//! | [`class`] | `class` | `notebooks`, `setup` |
//! | [`mod@bench`] | `bench` | `setup` |
//!
//! Below all of them stands `crates/kernel`: the program that Jupyter starts, and the facts about the machine that both need.

pub mod bench;
pub mod class;
pub mod doctor;
pub mod notebooks;
pub mod publish;
pub mod setup;
