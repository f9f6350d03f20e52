//! The lesson's network is Keras's: the same table, the same outputs, the same loss, the same steps.
//!
//! The golden numbers come from the real Keras, by `golden/keras_golden.py`.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Mutex;

use common::{golden, hashed, images, numbers};
use diffusion::prelude::*;
use diffusion::train::{Measures, Objective, Validation, fit_with};
use serde_json::Value;

/// The network with the weights that both sides make; kernels stronger by a factor.
fn network(golden: &Value, factor: f64) -> Cnn {
    let cnn = Cnn::new(CnnConfig::default());
    for (tensor, mut weight) in golden["tensors"]
        .as_array()
        .unwrap()
        .iter()
        .zip(cnn.trainable_weights())
    {
        let shape: Vec<i64> = numbers(&tensor["shape"])
            .iter()
            .map(|&size| size as i64)
            .collect();
        let is_bias = shape.len() == 1;
        let limit = tensor["limit"].as_f64().unwrap() * if is_bias { 1.0 } else { factor };
        let p = tensor["p"].as_u64().unwrap();
        let values = Tensor::from_slice(&hashed(p, weight.numel(), limit)).view(shape.as_slice());
        tch::no_grad(|| weight.copy_(&ours(&values, is_transposed(tensor))));
    }
    cnn
}

fn is_transposed(tensor: &Value) -> bool {
    tensor["name"]
        .as_str()
        .unwrap()
        .starts_with("conv2d_transpose")
}

/// A Keras weight in our layout.
fn ours(keras: &Tensor, is_transposed: bool) -> Tensor {
    match (keras.dim(), is_transposed) {
        (4, false) => keras.permute([3, 0, 1, 2]),
        (4, true) => keras.flip([0, 1]).permute([2, 0, 1, 3]),
        (2, _) => keras.tr(),
        _ => keras.shallow_clone(),
    }
}

/// A weight of ours in Keras's layout and order.
fn theirs(ours: &Tensor, is_transposed: bool) -> Tensor {
    match (ours.dim(), is_transposed) {
        (4, false) => ours.permute([1, 2, 3, 0]),
        (4, true) => ours.permute([1, 2, 0, 3]).flip([0, 1]),
        (2, _) => ours.tr(),
        _ => ours.shallow_clone(),
    }
    .contiguous()
    .view(-1)
}

fn largest_difference(ours: &Tensor, theirs: &Value) -> f64 {
    let theirs = Tensor::from_slice(&numbers(theirs));
    (ours.to_kind(Kind::Double).view(-1) - theirs)
        .abs()
        .max()
        .double_value(&[])
}

#[test]
fn the_table_is_the_one_keras_prints() {
    let golden = golden("keras_golden");
    let summary = Cnn::new(CnnConfig::default()).summary();
    let layers = golden["layers"].as_array().unwrap();
    assert_eq!(summary.rows.len(), layers.len());
    for (row, layer) in summary.rows.iter().zip(layers) {
        assert_eq!(row.name, layer["name"]);
        assert_eq!(row.kind, layer["type"]);
        assert_eq!(row.parameters as u64, layer["params"].as_u64().unwrap());
        let shape = layer["output_shape"]
            .as_array()
            .unwrap()
            .iter()
            .skip(1)
            .map(|size| size.as_u64().unwrap());
        let ours = row.output_shape.replace(',', "");
        let ours = ours
            .trim_matches(['(', ')'])
            .split(' ')
            .skip(1)
            .map(|size| size.parse::<u64>().unwrap());
        assert!(ours.eq(shape), "{}: {}", row.name, row.output_shape);
    }
    assert_eq!(summary.total(), 3_255_233);
    assert_eq!(
        summary.total() as u64,
        golden["total_params"].as_u64().unwrap()
    );
}

#[test]
fn with_the_same_weights_outputs_and_loss_agree() {
    let golden = golden("keras_golden");
    let (clean, noisy) = images(&golden);
    for (factor, output, loss) in [
        (
            1.0,
            &golden["float64"]["output"],
            &golden["float64"]["loss"]["evaluate"],
        ),
        (
            golden["strong"]["factor"].as_f64().unwrap(),
            &golden["strong"]["output"],
            &golden["strong"]["loss"],
        ),
    ] {
        let cnn = network(&golden, factor);
        let difference =
            largest_difference(&cnn.denoise_in(Precision::Float32, &noisy).unwrap(), output);
        assert!(
            difference < 1e-5,
            "outputs differ by {difference:e} at factor {factor}"
        );
        let ours = binary_cross_entropy(&cnn.forward(&noisy), &clean)
            .unwrap()
            .double_value(&[]);
        assert!(
            (ours - loss.as_f64().unwrap()).abs() < 1e-5,
            "loss {ours} at factor {factor}"
        );
        // In double precision nothing but the formula is left to differ.
        let wide = cnn.forward(&noisy.to_kind(Kind::Double)).sigmoid();
        let difference = largest_difference(&wide, output);
        assert!(
            difference < 1e-7,
            "outputs in float64 differ by {difference:e} at factor {factor}"
        );
    }
}

#[test]
fn mixed_precision_stays_within_two_hundredths() {
    let golden = golden("keras_golden");
    let (_, noisy) = images(&golden);
    let cnn = network(&golden, golden["strong"]["factor"].as_f64().unwrap());
    let mixed = cnn.denoise_in(Precision::Mixed, &noisy).unwrap();
    let difference = largest_difference(&mixed, &golden["strong"]["output"]);
    assert!(difference < 0.02, "outputs differ by {difference}");
}

/// Always the same four images: what `train_on_batch` does.
#[derive(Debug)]
struct OneBatch(Mutex<(Tensor, Tensor)>);

impl Objective<Cnn> for OneBatch {
    fn measures(&self) -> Measures {
        Measures {
            loss: "binary cross-entropy",
            unit: "dB",
        }
    }

    fn loss(&self, model: &Cnn, _: &Split, _: &[i64], _: u64) -> Result<Tensor> {
        let images = self.0.lock().unwrap();
        let (clean, noisy) = &*images;
        binary_cross_entropy(&model.forward(noisy), clean)
    }

    fn validate(&self, _: &Cnn, _: &Split, _: &[i64]) -> Result<Validation> {
        bail!("nothing is held out here")
    }
}

#[test]
fn adam_moves_the_weights_as_keras_does() {
    let golden = golden("keras_golden");
    let (clean, noisy) = images(&golden);
    // Gradients in float64 from the same float32 weights, as in Keras's float64 run.
    let wide = |images: &Tensor| images.to_kind(Kind::Double);
    let objective = OneBatch(Mutex::new((wide(&clean), wide(&noisy))));
    // Four images in one batch: as many epochs as steps.
    let test = Mnist::load().unwrap().test.hold_out(4).unwrap().1;
    for steps in [1usize, 3] {
        let mut cnn = network(&golden, 1.0);
        let before: Vec<Tensor> = cnn
            .trainable_weights()
            .iter()
            .map(|weight| weight.detach().copy())
            .collect();
        let config = FitConfig {
            epochs: steps,
            batch_size: test.len(),
            precision: Precision::Float32,
            validation: 0,
            ..Default::default()
        };
        let history = fit_with(&mut cnn, &test, &objective, &config, &mut ()).unwrap();
        let losses = numbers(&golden["float64"]["step_losses"]);
        for (ours, theirs) in history.batch_losses.iter().zip(losses) {
            assert!(
                (ours - theirs).abs() < 1e-6,
                "loss {ours}, in Keras {theirs}"
            );
        }
        let expected = golden["float64"]["steps"][steps.to_string()]
            .as_array()
            .unwrap();
        let tensors = golden["tensors"].as_array().unwrap();
        for (((tensor, expected), before), after) in tensors
            .iter()
            .zip(expected)
            .zip(&before)
            .zip(cnn.trainable_weights())
        {
            let name = &tensor["name"];
            let movement = theirs(
                &(after.detach() - before).to_kind(Kind::Double),
                is_transposed(tensor),
            );
            let norm = movement.norm().double_value(&[]);
            let theirs = expected["norm"].as_f64().unwrap();
            assert!(
                (norm / theirs - 1.0).abs() < 1e-5,
                "{name}: moved by {norm}, in Keras {theirs}, after {steps}"
            );
            let indices: Vec<i64> = numbers(&tensor["indices"])
                .iter()
                .map(|&at| at as i64)
                .collect();
            let sampled = movement.index_select(0, &Tensor::from_slice(&indices));
            let difference = largest_difference(&sampled, &expected["at"]);
            let largest = expected["max"].as_f64().unwrap();
            // Storing a weight in float32 alone costs 8e-6 of the largest movement.
            assert!(
                difference < 2e-5 * largest,
                "{name}: {difference:e} of {largest:e} after {steps}"
            );
        }
    }
}

#[test]
fn gradients_in_either_precision_are_those_of_float64() {
    let golden = golden("keras_golden");
    let (clean, noisy) = images(&golden);
    let cnn = network(&golden, golden["strong"]["factor"].as_f64().unwrap());
    let gradients = |cnn: &Cnn, kind: Kind, wide: Kind| {
        let logits = cnn.forward(&noisy.to_kind(kind)).to_kind(wide);
        let loss = binary_cross_entropy(&logits, &clean.to_kind(wide)).unwrap();
        Tensor::run_backward(&[loss], &cnn.trainable_weights(), false, false)
    };
    let exact = gradients(&cnn, Kind::Double, Kind::Double);
    let float32 = gradients(&cnn, Kind::Float, Kind::Float);
    let mixed = gradients(&cnn.replica(Kind::BFloat16), Kind::BFloat16, Kind::Float);
    for (at, exact) in exact.iter().enumerate() {
        let exact = exact.to_kind(Kind::Double);
        let difference = |other: &Tensor| {
            let difference = (other.to_kind(Kind::Double) - &exact).norm() / exact.norm();
            difference.double_value(&[])
        };
        let (float32, mixed) = (difference(&float32[at]), difference(&mixed[at]));
        assert!(
            float32 < 1e-5,
            "weight {at}: float32 differs by {float32:e}"
        );
        // Eight bits, eight layers, and ReLUs that a rounding switches: 7 % at most were seen.
        assert!(mixed < 0.1, "weight {at}: mixed differs by {mixed:e}");
    }
}
