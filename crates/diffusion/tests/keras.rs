//! Networks are Keras's: the same table, the same outputs, the same loss, the same steps; for the lesson's network and
//! for others with pooling, up-sampling, strides, group normalisation and softmax.
//!
//! The golden numbers come from the real Keras, by `golden/keras_golden.py` and `golden/keras_networks.py`.
#![allow(clippy::unwrap_used)]

mod common;

use common::{golden, hashed, images, numbers};
use diffusion::network::Layer;
use diffusion::objective::Optimizer;
use diffusion::prelude::*;
use diffusion::train::Precision;
use serde_json::Value;

/// The list that stands in notebook 2.
fn lesson() -> Network {
    Network::new(
        [28, 28, 1],
        vec![
            conv2d(16, 3).relu(),
            conv2d(32, 3).relu(),
            flatten(),
            dense(64).relu(),
            dense(28 * 28 * 32).relu(),
            reshape([28, 28, 32]),
            conv2d_transpose(32, 3).relu(),
            conv2d_transpose(16, 3).relu(),
            conv2d(1, 3).sigmoid(),
        ],
    )
    .unwrap()
}

/// The other networks of `golden/keras_networks.json`, by name, with their loss.
fn others() -> [(&'static str, Vec<Layer>, Loss); 3] {
    let pooling = vec![
        conv2d(8, 3).relu(),
        max_pooling2d(2),
        conv2d(16, 5).relu(),
        max_pooling2d(2),
        up_sampling2d(2),
        conv2d(8, 3).relu(),
        up_sampling2d(2),
        conv2d(1, 3).sigmoid(),
    ];
    let normalised = vec![
        conv2d(32, 3).strides(2),
        group_norm(2).silu(),
        conv2d(32, 3),
        group_norm(4).silu(),
        conv2d_transpose(16, 3).strides(2).silu(),
        conv2d_transpose(8, 5).strides(2).relu(),
        conv2d(8, 5).strides(2).relu(),
        conv2d(1, 1).sigmoid(),
    ];
    let classes = vec![
        conv2d(8, 3).strides(2).relu(),
        flatten(),
        dense(10).softmax(),
    ];
    [
        ("pooling", pooling, Loss::BinaryCrossEntropy),
        ("normalised", normalised, Loss::MeanSquaredError),
        ("classes", classes, Loss::CrossEntropy),
    ]
}

/// A network with the weights that both sides make; kernels stronger by a factor.
fn with_golden_weights(network: Network, golden: &Value, factor: f64) -> Network {
    let tensors = golden["tensors"].as_array().unwrap();
    assert_eq!(tensors.len(), network.trainable_weights().len());
    for (tensor, mut weight) in tensors.iter().zip(network.trainable_weights()) {
        let shape: Vec<i64> = numbers(&tensor["shape"])
            .iter()
            .map(|&size| size as i64)
            .collect();
        let is_kernel = shape.len() > 1;
        let limit = tensor["limit"].as_f64().unwrap() * if is_kernel { factor } else { 1.0 };
        let p = tensor["p"].as_u64().unwrap();
        let offset = tensor["offset"].as_f64().unwrap_or_default();
        let values = Tensor::from_slice(&hashed(p, weight.numel(), limit)).view(shape.as_slice());
        tch::no_grad(|| weight.copy_(&ours(&(values + offset), is_transposed(tensor))));
    }
    network
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

fn assert_the_table_is_keras(network: &Network, golden: &Value) {
    let summary = network.summary();
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
    assert_eq!(
        summary.total() as u64,
        golden["total_params"].as_u64().unwrap()
    );
}

#[test]
fn the_tables_are_those_keras_prints() {
    let golden_lesson = golden("keras_golden");
    assert_the_table_is_keras(&lesson(), &golden_lesson);
    assert_eq!(lesson().summary().total(), 3_255_233);
    let golden = golden("keras_networks");
    for (name, layers, _) in others() {
        let network = Network::new([28, 28, 1], layers).unwrap();
        assert_the_table_is_keras(&network, &golden["networks"][name]);
    }
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
        let cnn = with_golden_weights(lesson(), &golden, factor);
        let difference =
            largest_difference(&cnn.predict_in(Precision::Float32, &noisy).unwrap(), output);
        assert!(
            difference < 1e-5,
            "outputs differ by {difference:e} at factor {factor}"
        );
        let ours = binary_cross_entropy(&cnn.logits(&noisy).unwrap(), &clean)
            .unwrap()
            .double_value(&[]);
        assert!(
            (ours - loss.as_f64().unwrap()).abs() < 1e-5,
            "loss {ours} at factor {factor}"
        );
        // In double precision nothing but the formula is left to differ.
        let wide = cnn.forward(&noisy.to_kind(Kind::Double)).unwrap();
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
    let cnn = with_golden_weights(
        lesson(),
        &golden,
        golden["strong"]["factor"].as_f64().unwrap(),
    );
    let mixed = cnn.predict_in(Precision::Mixed, &noisy).unwrap();
    let difference = largest_difference(&mixed, &golden["strong"]["output"]);
    assert!(difference < 0.02, "outputs differ by {difference}");
}

/// Compares the losses and the movement of the weights after one step and after three.
fn assert_steps_are_keras(
    build: &dyn Fn() -> Network,
    optimizer: impl Into<Optimizer> + Copy,
    loss: Loss,
    (input, target): &(Tensor, Tensor),
    tensors: &Value,
    golden: &Value,
) {
    // Four images in one batch: as many epochs as steps.
    let pairs = Pairs::of(input, target).unwrap();
    for steps in [1usize, 3] {
        let mut network = build();
        network.compile(optimizer, loss);
        let before: Vec<Tensor> = network
            .trainable_weights()
            .iter()
            .map(|weight| weight.detach().copy())
            .collect();
        let fit = Fit {
            epochs: steps,
            batch_size: pairs.len(),
            threads: 1,
            precision: Precision::Float32,
            validation: 0,
            ..Default::default()
        };
        let history = network.fit(&pairs, &fit).unwrap();
        let losses = numbers(&golden["step_losses"]);
        for (ours, theirs) in history.batch_losses.iter().zip(losses) {
            assert!(
                (ours - theirs).abs() < 1e-6 * theirs.max(1.0),
                "loss {ours}, in Keras {theirs}"
            );
        }
        let expected = golden["steps"][steps.to_string()].as_array().unwrap();
        let tensors = tensors.as_array().unwrap();
        for (((tensor, expected), before), after) in tensors
            .iter()
            .zip(expected)
            .zip(&before)
            .zip(network.trainable_weights())
        {
            let name = &tensor["name"];
            // A gamma is near 1, where neighbouring float32 numbers lie a thousand times as far apart as in a kernel.
            let is_gamma = name.as_str().unwrap().ends_with("gamma");
            let of_norm = if is_gamma { 2e-5 } else { 1e-5 };
            let movement = theirs(
                &(after.detach() - before).to_kind(Kind::Double),
                is_transposed(tensor),
            );
            let norm = movement.norm().double_value(&[]);
            let theirs = expected["norm"].as_f64().unwrap();
            assert!(
                (norm / theirs - 1.0).abs() < of_norm,
                "{name}: moved by {norm}, in Keras {theirs}, after {steps}"
            );
            let indices: Vec<i64> = numbers(&tensor["indices"])
                .iter()
                .map(|&at| at as i64)
                .collect();
            let sampled = movement.index_select(0, &Tensor::from_slice(&indices));
            let difference = largest_difference(&sampled, &expected["at"]);
            let largest = expected["max"].as_f64().unwrap();
            // A rounded gamma shifts the next gradients; where one is near 0, Adam makes it as large as the others.
            let normalises = tensors.iter().any(|tensor| tensor["offset"] == 1.0);
            let of_samples = if normalises && steps > 1 { 1e-4 } else { 1e-5 };
            // What storing the weight in float32 costs: half the distance of two neighbours at each step.
            let weight =
                tensor["limit"].as_f64().unwrap() + tensor["offset"].as_f64().unwrap_or_default();
            let storing = steps as f64 * weight * f64::from(f32::EPSILON) / 2.0;
            let most = match tensor["offset"].is_null() {
                true => 2e-5 * largest, // the lesson's network
                false => of_samples * largest + storing,
            };
            assert!(
                difference < most,
                "{name}: {difference:e} of {largest:e} after {steps}"
            );
        }
    }
}

/// Images in `float64`: with them gradients are computed in `float64` from the same `float32` weights.
fn wide(images: &Tensor) -> Tensor {
    images.to_kind(Kind::Double)
}

#[test]
fn adam_moves_the_weights_as_keras_does() {
    let golden = golden("keras_golden");
    let (clean, noisy) = images(&golden);
    assert_steps_are_keras(
        &|| with_golden_weights(lesson(), &golden, 1.0),
        Adam::new(0.001),
        Loss::BinaryCrossEntropy,
        &(wide(&noisy), wide(&clean)),
        &golden["tensors"],
        &golden["float64"],
    );
}

#[test]
fn other_networks_are_those_of_keras() {
    let (clean, noisy) = images(&golden("keras_golden"));
    let golden = golden("keras_networks");
    let labels: Vec<i64> = numbers(&golden["images"]["labels"])
        .iter()
        .map(|&label| label as i64)
        .collect();
    for (name, layers, loss) in others() {
        let golden = &golden["networks"][name];
        let (input, target) = match loss {
            Loss::CrossEntropy => (clean.shallow_clone(), Tensor::from_slice(&labels)),
            _ => (noisy.shallow_clone(), wide(&clean)),
        };
        let build = || {
            let network = Network::new([28, 28, 1], layers.clone()).unwrap();
            with_golden_weights(network, golden, 1.0)
        };
        let network = build();
        let indices = Tensor::from_slice(&numbers(&golden["output_indices"])).to_kind(Kind::Int64);
        for (output, most) in [
            (
                network.predict_in(Precision::Float32, &input).unwrap(),
                1e-5,
            ),
            (network.forward(&wide(&input)).unwrap(), 1e-7),
        ] {
            // One channel, or a vector: the order is the same with channels first and last.
            let sampled = output.contiguous().view(-1).index_select(0, &indices);
            let difference = largest_difference(&sampled, &golden["float64"]["output"]);
            assert!(
                difference < most,
                "{name}: outputs differ by {difference:e}"
            );
            let sum = output.sum(Kind::Double).double_value(&[]);
            let theirs = golden["float64"]["output_sum"].as_f64().unwrap();
            assert!(
                (sum / theirs - 1.0).abs() < most,
                "{name}: sum {sum}, in Keras {theirs}"
            );
        }
        let pair = (wide(&input), target);
        assert_steps_are_keras(
            &build,
            Adam::new(0.001),
            loss,
            &pair,
            &golden["tensors"],
            &golden["float64"],
        );
        if !golden["float64"]["sgd"].is_null() {
            assert_steps_are_keras(
                &build,
                Sgd::new(0.05).momentum(0.9),
                loss,
                &pair,
                &golden["tensors"],
                &golden["float64"]["sgd"],
            );
        }
    }
}

#[test]
fn gradients_in_either_precision_are_those_of_float64() {
    let golden = golden("keras_golden");
    let (clean, noisy) = images(&golden);
    let cnn = with_golden_weights(
        lesson(),
        &golden,
        golden["strong"]["factor"].as_f64().unwrap(),
    );
    let gradients = |kind: Kind, wide: Kind| {
        let logits = cnn.logits(&noisy.to_kind(kind)).unwrap().to_kind(wide);
        let loss = binary_cross_entropy(&logits, &clean.to_kind(wide)).unwrap();
        Tensor::run_backward(&[loss], &cnn.trainable_weights(), false, false)
    };
    let exact = gradients(Kind::Double, Kind::Double);
    let float32 = gradients(Kind::Float, Kind::Float);
    let mixed = gradients(Kind::BFloat16, Kind::Float);
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
