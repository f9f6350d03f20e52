//! One part of what a working lesson is made of.

use anyhow::Result;

use kernel::machine::layout::Layout;
use kernel::machine::tools::Running;

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

/// How a part is made.
pub enum Make {
    /// When its turn comes.
    InTurn(fn(&Layout, &Options) -> Result<()>),
    /// By a program that is busy for minutes and hardly needs the network: it begins before the downloads, and is waited for after them.
    Meanwhile {
        /// Starts the program.
        begin: fn(&Layout) -> Result<Running>,
        /// Waits for it, and does the rest.
        end: fn(&Layout, Running) -> Result<()>,
    },
}

/// One part: how to look at it, and how to make it. `make` starts from whatever an interrupted run
/// left, and nothing it makes takes its place before it is complete.
pub struct Part {
    /// Its name in what set-up and doctor print.
    pub name: &'static str,
    /// Looks; quick (no hash over hundreds of megabytes) unless `deep`.
    pub check: fn(&Layout, deep: bool) -> Result<Finding>,
    /// Makes it.
    pub make: Make,
    /// Whether it lives in the cache that other clones share, rather than in this one.
    pub shared: bool,
}
