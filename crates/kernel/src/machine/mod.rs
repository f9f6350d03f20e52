//! Facts about the machine, and what is done with its files and programs everywhere.

pub mod compilers;
pub mod layout;
pub mod locks;
pub mod tools;
pub mod tree;
