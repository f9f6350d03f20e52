//! Training: one loop, for every network and loss.
//!
//! A cell calls the methods of a [`Network`](crate::network::Network); the functions here are those methods for every [`Model`].

mod background;
mod config;
mod fit;
mod history;
mod model;
mod moving_average;
mod observer;
mod optimizing;
mod panel;
mod runs;
mod state;
mod supervised;
mod trainer;
mod worker;

pub use background::{Training, fit_in_background, resume};
pub use config::{Fit, Keep};
pub use fit::{fit, fit_with};
pub use history::{Epoch, History, Measures, Plan, Validation};
pub use model::{Data, Model, Selection};
pub use observer::{Observer, PrintLines};
pub use ops::Precision;
pub use ops::pool::threads;
