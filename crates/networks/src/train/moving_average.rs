//! A moving average of a network's weights.

use tch::Tensor;

/// The exponential moving average of the weights during training (Polyak & Juditsky 1992; for diffusion Ho et al. 2020,
/// section 4): steps in opposite directions cancel, and the average is better than any of the weights.
///
/// At step `n` it keeps `min(decay, (1 + n) / (10 + n))` of itself, so the first, untrained weights soon lose their
/// influence.
pub(super) struct MovingAverage {
    decay: f64,
    pub(super) weights: Vec<Tensor>,
}

impl MovingAverage {
    pub(super) fn new(decay: f64, weights: Vec<Tensor>) -> MovingAverage {
        MovingAverage { decay, weights }
    }

    /// Takes the weights after this many steps into account.
    pub(super) fn update(&mut self, weights: &[Tensor], steps: usize) {
        let warm = (1.0 + steps as f64) / (10.0 + steps as f64);
        let share = 1.0 - self.decay.min(warm);
        tch::no_grad(|| {
            for (average, weight) in self.weights.iter_mut().zip(weights) {
                let _ = average.lerp_(&weight.detach(), share);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn the_average_equals_its_closed_form() {
        let at = |value: f64| vec![Tensor::full([2], value, (Kind::Float, Device::Cpu))];
        let mut average = MovingAverage::new(0.5, at(1.0));
        // Keeps 2/11 of itself after the first step, 3/12 after the second, at most a half.
        average.update(&at(3.0), 1);
        let first = 1.0 * 2.0 / 11.0 + 3.0 * 9.0 / 11.0;
        assert!((average.weights[0].double_value(&[0]) - first).abs() < 1e-6);
        average.update(&at(5.0), 100);
        assert!((average.weights[0].double_value(&[1]) - (first + 5.0) / 2.0).abs() < 1e-6);
    }
}
