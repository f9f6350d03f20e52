//! What a notebook's cell shows: rows of images, plots, tables, sliders, and panels that follow work in the background.
//!
//! Every function that makes something to show returns an [`Output`]. An output as the last expression of
//! a cell is shown; anywhere else it can be shown with [`Output::evcxr_display`], saved with
//! [`Output::save`], or read as text.
//!
//! The crate works on tensors and numbers; it has no notion of a model or a data set. Images are tensors
//! of shape `(N, 1, H, W)` with any H and W and values in `[0, 1]`.
//!
//! ```
//! use figures::{Output, Series, curve};
//!
//! let steps = (0..50).map(f64::from);
//! let plot: Output = curve("Loss while training", ("step", "loss"), &[
//!     Series::of("training", steps, |step| (-step / 20.0).exp()),
//! ]);
//! assert!(plot.html().is_ok());
//! assert!(plot.alt_text().contains("training goes from 1.00 to 0.09"));
//! ```

mod file;
mod font;
mod images;
mod notebook;
mod output;
mod pad;
mod page;
pub mod panel;
mod picture;
mod plot;
mod sliders;
mod table;
mod text;
mod wipe;

pub use file::{with_home, write_whole};
pub use images::{animation, grid, rows, rows_with_captions};
pub use notebook::{in_notebook, is_unattended};
pub use output::Output;
pub use pad::Pad;
pub use plot::{
    Block, Role, Series, Step, blocks, curve, histogram, levels, scatter, scatter_animation,
};
pub use sliders::{Row, Slider, Sliders};
pub use table::{table, table_with_bold};
pub use text::thousands;
pub use wipe::compare;
