//! The parts that a working lesson is made of, in the order in which they need each other.

use anyhow::Result;

use crate::layout::Layout;
use crate::{
    analyzer, cell_library, evcxr, libtorch, mnist, python, rehearsal, seed, spec, toolchain,
};

/// What a look at a part finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Finding {
    /// It is there and right; the text says which one, and where.
    Found(String),
    /// It is not there.
    Missing(String),
    /// Something is there, but not what is needed.
    Wrong(String),
}

/// What the person who runs set-up may choose.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A folder with the four MNIST files, raw or `.gz`.
    pub mnist: Option<std::path::PathBuf>,
}

/// One part: how to look at it, and how to make it. `make` starts from whatever an interrupted run
/// left, and nothing it makes takes its place before it is complete.
pub struct Part {
    /// Its name in what set-up and doctor print.
    pub name: &'static str,
    /// Looks; quick (no hash over hundreds of megabytes) unless `deep`.
    pub check: fn(&Layout, deep: bool) -> Result<Finding>,
    /// Makes it.
    pub make: fn(&Layout, &Options) -> Result<()>,
    /// Whether it lives in the cache that other clones share, rather than in this one.
    pub shared: bool,
}

/// All of them.
pub const PARTS: &[Part] = &[
    // The error of this check names the fix: the machine's own tools are not ours to install.
    Part {
        name: "tools",
        check: |_, _| toolchain::check().map(Finding::Found),
        make: |_, _| toolchain::check().map(drop),
        shared: false,
    },
    Part {
        name: "python",
        check: python::check,
        make: python::make,
        shared: false,
    },
    Part {
        name: "libtorch",
        check: libtorch::check,
        make: libtorch::make,
        shared: true,
    },
    Part {
        name: "evcxr",
        check: evcxr::check,
        make: evcxr::make,
        shared: true,
    },
    Part {
        name: "mnist",
        check: mnist::check,
        make: mnist::make,
        shared: true,
    },
    Part {
        name: "kernel",
        check: spec::check,
        make: spec::make,
        shared: false,
    },
    Part {
        name: "cells",
        check: cell_library::check,
        make: cell_library::make,
        shared: false,
    },
    Part {
        name: "analyzer",
        check: analyzer::check,
        make: analyzer::make,
        shared: false,
    },
    Part {
        name: "seed",
        check: seed::check,
        make: seed::make,
        shared: false,
    },
    Part {
        name: "rehearsal",
        check: rehearsal::check,
        make: rehearsal::make,
        shared: false,
    },
];
