//! The constants of Adam, and its step size.

/// How much of the first moment a step keeps.
pub(super) const BETA_1: f32 = 0.9;
/// How much of the second moment a step keeps.
pub(super) const BETA_2: f32 = 0.999;
/// Keras's epsilon. It is added to the root of the *uncorrected* second moment ("epsilon hat" in the last paragraph
/// of section 2 of Kingma & Ba 2015); PyTorch adds it to the corrected one.
pub(super) const EPSILON: f32 = 1e-7;

/// The step size with both bias corrections folded in (Kingma & Ba 2015, end of section 2). `step` counts from 1.
pub(super) fn step_size(learning_rate: f64, step: i32) -> f32 {
    let (beta_1, beta_2) = (f64::from(BETA_1), f64::from(BETA_2));
    let correction = (1.0 - beta_2.powi(step)).sqrt() / (1.0 - beta_1.powi(step));
    (learning_rate * correction) as f32
}
