//! Training: one loop, for any model and any objective.

mod adam;
mod background;
mod config;
mod fit;
mod history;
mod moving_average;
mod noise_prediction;
mod objective;
mod observer;
mod panel;
mod plan;
mod run;
mod state;
mod worker;

pub use background::{Training, digits_drawn, fit_in_background, fit_with_in_background};
pub use config::{FitConfig, Keep, LearningRateSchedule, Noise};
pub use fit::{fit, fit_with, resume};
pub use history::{Epoch, History};
pub use noise_prediction::NoisePrediction;
pub use objective::{Classification, Denoising, Measures, Objective, Validation};
pub use observer::{Observer, PrintLines};
pub use plan::Plan;
