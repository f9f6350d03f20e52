//! A compiled network: the optimizer's steps, a second fit that goes on where the first one ended, and frozen layers.
#![allow(clippy::unwrap_used)]

use diffusion::objective::Optimizer;
use diffusion::prelude::*;
use diffusion::train::{Precision, threads};

fn few(n: usize) -> Split {
    Mnist::load().unwrap().test.first(n).unwrap()
}

fn pairs(n: usize) -> Pairs {
    few(n).noisy(0.5).unwrap()
}

/// Settings of a quick training in `float32`, with a last batch that is smaller than the others.
fn quick(epochs: usize) -> Fit {
    Fit {
        epochs,
        batch_size: 32,
        validation: 20,
        precision: Precision::Float32,
        quiet: true,
        ..Fit::default()
    }
}

/// A small autoencoder, not compiled.
fn small() -> Network {
    let layers = vec![
        conv2d(16, 3).relu(),
        max_pooling2d(2),
        conv2d(16, 3).relu(),
        up_sampling2d(2),
        conv2d(1, 3).sigmoid(),
    ];
    Network::new([28, 28, 1], layers).unwrap()
}

fn compiled(optimizer: impl Into<Optimizer>) -> Network {
    let mut network = small();
    network.compile(optimizer, Loss::BinaryCrossEntropy);
    network
}

fn optimizers() -> [Optimizer; 2] {
    [Adam::new(0.003).into(), Sgd::new(0.1).momentum(0.9).into()]
}

/// All weights, also of frozen layers.
fn weights(network: &Network) -> Vec<Tensor> {
    let weights = network.layers().iter().flat_map(|layer| &layer.weights);
    weights.map(|(_, weight)| weight.copy()).collect()
}

fn error_of(network: &mut Network, pairs: &Pairs, fit: &Fit) -> String {
    format!("{:#}", network.fit(pairs, fit).unwrap_err())
}

#[test]
fn a_network_that_is_not_compiled_says_so() {
    let pairs = pairs(60);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("network.safetensors");
    compiled(Adam::new(0.001)).save(&path).unwrap();
    // Neither a loaded network is compiled, nor one with other first weights, nor a part.
    for mut network in [
        small(),
        Network::load(&path).unwrap(),
        compiled(Adam::new(0.001)).seeded(7),
        compiled(Adam::new(0.001)).initialised(Initialisation::Calibrated),
        compiled(Adam::new(0.001)).up_to("conv2d_2").unwrap(),
    ] {
        let before = weights(&network);
        let error = error_of(&mut network, &pairs, &quick(1));
        assert!(
            error.contains("is not compiled")
                && error.contains("compile(Adam::new(0.001), Loss::BinaryCrossEntropy)"),
            "{error}"
        );
        assert_eq!(weights(&network), before);
    }
    let run = folder.path().join("run");
    let error = small().fit_in_background(&pairs, &quick(1), &run);
    assert!(error.unwrap_err().to_string().contains("is not compiled"));
    assert!(!run.exists(), "nothing is left behind");
}

#[test]
fn one_epoch_twice_is_two_epochs() {
    let pairs = pairs(101);
    for optimizer in optimizers() {
        for precision in [Precision::Float32, Precision::Mixed] {
            for threads in 1..=threads().min(2) {
                let fit = |epochs| Fit {
                    precision,
                    threads,
                    ..quick(epochs)
                };
                let case = format!("{optimizer:?}, {precision}, {threads} threads");
                let mut once = compiled(optimizer);
                let whole = once.fit(&pairs, &fit(2)).unwrap();
                let mut twice = compiled(optimizer);
                let mut losses = Vec::new();
                for _ in 0..2 {
                    losses.extend(twice.fit(&pairs, &fit(1)).unwrap().batch_losses);
                }
                assert_eq!(weights(&twice), weights(&once), "{case}");
                assert_eq!(losses, whole.batch_losses, "{case}");
                let mut anew = compiled(optimizer);
                anew.fit(&pairs, &fit(1)).unwrap();
                anew.compile(optimizer, Loss::BinaryCrossEntropy);
                anew.fit(&pairs, &fit(1)).unwrap();
                assert_ne!(weights(&anew), weights(&once), "{case}");
            }
        }
    }
}

#[test]
fn compile_keeps_the_weights_and_forgets_everything_else() {
    let pairs = pairs(101);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("network.safetensors");
    for optimizer in optimizers() {
        let mut trained = compiled(Adam::new(0.01));
        trained.fit(&pairs, &quick(2)).unwrap();
        trained.save(&path).unwrap();
        let before = weights(&trained);
        trained.compile(optimizer, Loss::MeanSquaredError);
        assert_eq!(weights(&trained), before);
        let mut loaded = Network::load(&path).unwrap();
        loaded.compile(optimizer, Loss::MeanSquaredError);
        trained.fit(&pairs, &quick(1)).unwrap();
        loaded.fit(&pairs, &quick(1)).unwrap();
        assert_eq!(weights(&trained), weights(&loaded), "{optimizer:?}");
        assert_ne!(weights(&trained), before);
    }
}

#[test]
fn a_clone_goes_on_where_its_original_was_and_leaves_that_alone() {
    let pairs = pairs(101);
    for optimizer in optimizers() {
        let mut original = compiled(optimizer);
        original.fit(&pairs, &quick(1)).unwrap();
        let before = weights(&original);
        let mut clone = original.clone();
        clone.fit(&pairs, &quick(2)).unwrap();
        assert_eq!(weights(&original), before);
        original.fit(&pairs, &quick(2)).unwrap();
        assert_eq!(weights(&original), weights(&clone), "{optimizer:?}");
    }
}

/// A layer of weights for each pixel: `sigmoid(W x + b)`, or `W x + b`.
fn one_layer(sigmoid: bool) -> Network {
    let layer = match sigmoid {
        true => dense(784).sigmoid(),
        false => dense(784),
    };
    let layers = vec![flatten(), layer, reshape([28, 28, 1])];
    Network::new([28, 28, 1], layers).unwrap()
}

#[test]
fn gradient_descent_takes_the_steps_of_its_formula() {
    const IMAGES: usize = 60;
    const EPOCHS: usize = 12;
    let pairs = pairs(IMAGES);
    let double = |tensor: Tensor| tensor.detach().to_kind(Kind::Double);
    for (loss, sigmoid, momentum, rate) in [
        (Loss::MeanSquaredError, false, 0.0, 2.0),
        (Loss::MeanSquaredError, false, 0.9, 2.0),
        (Loss::MeanSquaredError, true, 0.9, 5.0),
        (Loss::BinaryCrossEntropy, true, 0.9, 5.0),
    ] {
        let mut network = one_layer(sigmoid);
        let weight = |network: &Network, name: &str| {
            double(network.layer("dense").unwrap().weight(name).unwrap())
        };
        let (mut kernel, mut bias) = (weight(&network, "kernel"), weight(&network, "bias"));
        let (mut v_kernel, mut v_bias) = (kernel.zeros_like(), bias.zeros_like());
        let mut losses = Vec::new();
        for epoch in 0..EPOCHS {
            // One batch of all images: their order changes nothing but rounding.
            let (x, target) = pairs.batch(epoch, IMAGES).unwrap();
            let (x, target) = (double(x).view([-1, 784]), double(target).view([-1, 784]));
            let z = x.matmul(&kernel.tr()) + &bias;
            let numbers = (IMAGES * 784) as f64;
            // The mean loss, and its gradient in z.
            let p = if sigmoid { z.sigmoid() } else { z };
            let error = &p - &target;
            let (mean_loss, slope) = if matches!(loss, Loss::BinaryCrossEntropy) {
                let entropy = p.binary_cross_entropy::<Tensor>(&target, None, tch::Reduction::Mean);
                (entropy, error / numbers)
            } else {
                let slope = &error * (2.0 / numbers);
                let slope = match sigmoid {
                    true => slope * &p * (1.0 - &p),
                    false => slope,
                };
                (error.square().mean(Kind::Double), slope)
            };
            losses.push(mean_loss.double_value(&[]));
            let sum: &[i64] = &[0];
            v_kernel = v_kernel * momentum - slope.tr().matmul(&x) * rate;
            v_bias = v_bias * momentum - slope.sum_dim_intlist(sum, false, Kind::Double) * rate;
            kernel += &v_kernel;
            bias += &v_bias;
        }
        network.compile(Sgd::new(rate).momentum(momentum), loss);
        let fit = Fit {
            batch_size: IMAGES,
            validation: 0,
            ..quick(EPOCHS)
        };
        let history = network.fit(&pairs, &fit).unwrap();
        let case = format!("{loss:?}, sigmoid {sigmoid}, momentum {momentum}");
        for (ours, expected) in history.batch_losses.iter().zip(&losses) {
            assert!((ours - expected).abs() < 1e-6, "{case}: {ours}, {expected}");
        }
        assert!(losses[EPOCHS - 1] < 0.9 * losses[0], "{case}: {losses:?}");
        for (name, expected) in [("kernel", kernel), ("bias", bias)] {
            let away = (weight(&network, name) - expected).abs().max();
            let away = away.double_value(&[]);
            assert!(away < 1e-6, "{case}, {name}: {away:e}");
        }
    }
}

#[test]
fn an_optimizer_that_makes_no_sense_is_named() {
    let pairs = pairs(60);
    let cases: [(Optimizer, &str); 9] = [
        (Adam::new(0.0).into(), "the learning rate is 0;"),
        (Adam::new(-1.0).into(), "the learning rate is -1;"),
        (Adam::new(f64::NAN).into(), "the learning rate is NaN;"),
        (Sgd::new(0.0).into(), "the learning rate is 0;"),
        (Sgd::new(f64::INFINITY).into(), "the learning rate is inf;"),
        (Sgd::new(0.1).momentum(1.0).into(), "the momentum is 1;"),
        (Sgd::new(0.1).momentum(-0.5).into(), "the momentum is -0.5;"),
        (Sgd::new(0.1).momentum(7.0).into(), "the momentum is 7;"),
        (
            Sgd::new(0.1).momentum(f64::NAN).into(),
            "the momentum is NaN;",
        ),
    ];
    for (optimizer, words) in cases {
        let mut network = compiled(optimizer);
        let before = weights(&network);
        let error = error_of(&mut network, &pairs, &quick(1));
        assert!(
            error.contains(words) && error.contains("expected a number"),
            "{words:?} is not in: {error}"
        );
        assert_eq!(weights(&network), before);
    }
}

#[test]
fn frozen_layers_stay_as_they_are_to_the_bit() {
    let pairs = pairs(101);
    for optimizer in optimizers() {
        for precision in [Precision::Float32, Precision::Mixed] {
            let mut network = compiled(optimizer);
            network.freeze(..4).unwrap();
            let before = weights(&network);
            let fit = Fit {
                precision,
                ..quick(2)
            };
            network.fit(&pairs, &fit).unwrap();
            let after = weights(&network);
            // Kernels and biases of conv2d, conv2d_1 and conv2d_2.
            assert_eq!(after[..4], before[..4], "{optimizer:?}, {precision}");
            for (after, before) in after[4..].iter().zip(&before[4..]) {
                assert_ne!(after, before, "{optimizer:?}, {precision}");
            }
        }
    }
}

#[test]
fn after_freezing_a_network_is_compiled_again() {
    let pairs = pairs(101);
    for optimizer in optimizers() {
        for change in [
            |network: &mut Network| network.freeze(..4),
            |network: &mut Network| network.unfreeze(..),
        ] {
            let mut network = small();
            network.freeze(1..2).unwrap();
            network.compile(optimizer, Loss::BinaryCrossEntropy);
            network.fit(&pairs, &quick(1)).unwrap();
            change(&mut network).unwrap();
            let before = weights(&network);
            let error = error_of(&mut network, &pairs, &quick(1));
            assert!(
                error.contains("has trained other layers") && error.contains("compile again"),
                "{error}"
            );
            assert_eq!(weights(&network), before);
            network.compile(optimizer, Loss::BinaryCrossEntropy);
            network.fit(&pairs, &quick(1)).unwrap();
            assert_ne!(weights(&network), before);
        }
        // Before the first step there is nothing that freezing could spoil.
        let mut network = compiled(optimizer);
        network.freeze(..4).unwrap();
        network.fit(&pairs, &quick(1)).unwrap();
    }
}

#[test]
fn every_kind_of_layer_learns_in_mixed_precision() {
    let layers = vec![
        conv2d(16, 5).relu(),
        group_norm(1).silu(),
        conv2d(32, 3).strides(2).silu(),
        group_norm(2).silu(),
        max_pooling2d(2),
        group_norm(8),
        flatten(),
        dense(7 * 7 * 16).relu(),
        reshape([7, 7, 16]),
        conv2d_transpose(32, 3).strides(2).silu(),
        group_norm(2).silu(),
        up_sampling2d(2),
        conv2d(16, 1).relu(),
        conv2d(1, 3).sigmoid(),
    ];
    let pairs = pairs(1_000);
    let learn = |precision: Precision| {
        let mut network = Network::new([28, 28, 1], layers.clone()).unwrap();
        network.compile(Adam::new(0.002), Loss::BinaryCrossEntropy);
        let fit = Fit {
            precision,
            validation: 100,
            ..quick(3)
        };
        let before = weights(&network);
        let history = network.fit(&pairs, &fit).unwrap();
        for (before, after) in before.iter().zip(weights(&network)) {
            assert_ne!(*before, after, "a weight of shape {:?}", after.size());
            assert_eq!(after.kind(), Kind::Float);
        }
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        let losses = &history.batch_losses;
        let (first, last) = (mean(&losses[..3]), mean(&losses[losses.len() - 5..]));
        assert!(last < 0.5 * first, "{precision}: from {first} to {last}");
        let validation = history.last().unwrap().validation.unwrap();
        assert!(validation.score.unwrap() > 12.0, "{validation:?}");
        last
    };
    let (whole, mixed) = (learn(Precision::Float32), learn(Precision::Mixed));
    assert!((mixed / whole - 1.0).abs() < 0.1, "{whole} and {mixed}");
}
