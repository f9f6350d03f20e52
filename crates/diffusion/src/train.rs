//! Training: one loop, for every network and objective.

mod background;
mod config;
mod fit;
mod history;
mod moving_average;
mod noise_prediction;
mod objective;
mod observer;
mod optimizing;
mod panel;
mod plan;
mod run;
mod state;
mod trainable;
mod worker;

pub use background::{Training, digits_drawn, fit_with_in_background};
pub use config::{Fit, Keep, LearningRateSchedule};
pub use fit::{fit_with, resume};
pub use history::{Epoch, History};
pub use noise_prediction::NoisePrediction;
pub use objective::{Measures, Objective, Supervised, Validation};
pub use observer::{Observer, PrintLines};
pub use plan::Plan;
