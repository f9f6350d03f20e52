//! Training: one loop, for every network and loss.

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

pub use background::Training;
pub use config::{Fit, Keep};
pub use history::{Epoch, History, Measures, Plan, Validation};
pub use observer::{Observer, PrintLines};
pub use ops::Precision;
pub use ops::pool::threads;
