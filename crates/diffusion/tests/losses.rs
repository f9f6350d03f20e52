//! Each loss trains, a learner's own is checked, and what does not fit a network is named.
#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use diffusion::network::Layer;
use diffusion::prelude::*;
use diffusion::train::{Observer, Plan, Precision};

fn few(n: usize) -> Split {
    Mnist::load().unwrap().test.first(n).unwrap()
}

fn pairs(n: usize) -> Pairs {
    few(n).noisy(0.5).unwrap()
}

/// Settings of a quick training in `float32`.
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

fn network(layers: Vec<Layer>) -> Network {
    Network::new([28, 28, 1], layers).unwrap()
}

/// A small denoiser whose last layer is linear, or a sigmoid.
fn denoiser(sigmoid: bool) -> Network {
    let last = match sigmoid {
        true => conv2d(1, 3).sigmoid(),
        false => conv2d(1, 3),
    };
    network(vec![conv2d(16, 3).relu(), conv2d(16, 3).relu(), last])
}

/// A small classifier.
fn classifier() -> Network {
    network(vec![
        conv2d(16, 3).strides(2).relu(),
        conv2d(32, 3).strides(2).relu(),
        flatten(),
        dense(10).softmax(),
    ])
}

fn weights(network: &Network) -> Vec<Tensor> {
    let weights = network.layers().iter().flat_map(|layer| &layer.weights);
    weights.map(|(_, weight)| weight.copy()).collect()
}

fn largest_difference(one: &Network, other: &Network) -> f64 {
    let (one, other) = (weights(one), weights(other));
    let differences = one.iter().zip(&other);
    let largest = |(one, other): (&Tensor, &Tensor)| (one - other).abs().max().double_value(&[]);
    differences.map(largest).fold(0.0, f64::max)
}

// ---- losses --------------------------------------------------------------------------------------

#[test]
fn each_loss_of_images_falls_and_psnr_is_the_score() {
    for (loss, sigmoid, least_psnr) in [
        (Loss::BinaryCrossEntropy, true, 13.0),
        // A sigmoid that is near 0 everywhere has hardly a gradient under the squared error: black images, 10.1 dB.
        (Loss::MeanSquaredError, true, 10.0),
        (Loss::MeanSquaredError, false, 13.0),
        (Loss::Custom(squared_error), false, 13.0),
    ] {
        let mut network = denoiser(sigmoid);
        network.compile(Adam::new(0.01), loss);
        let split = few(1_000);
        let fit = Fit {
            validation: 200,
            ..quick(2)
        };
        let history = network.fit(&split.noisy(0.5).unwrap(), &fit).unwrap();
        let losses = &history.batch_losses;
        assert!(losses[losses.len() - 1] < 0.7 * losses[0], "{loss:?}");
        assert_eq!(history.plan.measures.loss, loss.name());
        assert_eq!(history.plan.measures.unit, "dB");
        // The mean PSNR of the held-out images: the last of the split, always with the same noise.
        let validation = history.last().unwrap().validation.unwrap();
        let held_out = split.hold_out(200).unwrap().1;
        let scores = Scores::of(&held_out, 0.5, |noisy| {
            let prediction = network.predict_in(Precision::Float32, noisy)?;
            Ok(prediction.clamp(0.0, 1.0))
        })
        .unwrap();
        let away = validation.score.unwrap() - scores.psnr;
        assert!(away.abs() < 1e-3, "{loss:?}: {validation:?}, {scores:?}");
        assert!(scores.psnr > least_psnr, "{loss:?}: {scores:?}");
    }
}

#[test]
fn a_linear_last_layer_may_leave_the_range_of_pixels() {
    let mut network = denoiser(false);
    tch::no_grad(|| {
        let bias = network.layer("conv2d_2").unwrap().weight("bias");
        let _ = bias.unwrap().fill_(3.0);
    });
    network.compile(Sgd::new(1e-6), Loss::MeanSquaredError);
    let history = network.fit(&pairs(60), &quick(1)).unwrap();
    let (noisy, _) = pairs(60).batch(0, 60).unwrap();
    assert!(network.predict(&noisy).unwrap().min().double_value(&[]) > 1.0);
    // What is too bright counts as white: most pixels of a digit are black, so the score is low.
    let score = history.last().unwrap().validation.unwrap().score.unwrap();
    assert!((0.0..2.0).contains(&score), "{score}");
    // The panel of a training in the background draws such a network, too.
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let training = network.fit_in_background(&pairs(60), &quick(1), &run);
    assert!(training.unwrap().wait().is_ok());
}

#[test]
fn cross_entropy_learns_classes_and_accuracy_in_percent_is_the_score() {
    let split = few(2_000);
    for loss in [Loss::CrossEntropy, Loss::Custom(own_cross_entropy)] {
        let mut classifier = classifier();
        classifier.compile(Adam::new(0.003), loss);
        let fit = Fit {
            validation: 500,
            ..quick(2)
        };
        let history = classifier.fit(&split.labelled(), &fit).unwrap();
        // Untrained, each of ten classes is about as probable.
        let first = history.batch_losses[0];
        assert!((first - 10f64.ln()).abs() < 0.2, "{loss:?}: {first}");
        let held_out = split.hold_out(500).unwrap().1;
        let (images, labels) = (held_out.images(500).unwrap(), held_out.labels(500).unwrap());
        let accuracy = class_accuracy(&classifier, &images, &labels).unwrap();
        let score = history.last().unwrap().validation.unwrap().score.unwrap();
        assert!(
            (score - 100.0 * accuracy).abs() < 1e-9,
            "{score}, {accuracy}"
        );
        assert!(score > 70.0, "{loss:?}: {score}");
        assert_eq!(history.plan.measures.unit, "% accuracy");
        assert!(history.to_string().contains("% accuracy"), "{history}");
    }
}

#[test]
fn a_sigmoid_before_a_last_reshape_ends_the_network_just_as_well() {
    let mut network = network(vec![flatten(), dense(784).sigmoid(), reshape([28, 28, 1])]);
    let pairs = pairs(64);
    tch::no_grad(|| {
        // Large logits, of which the sigmoid is 0 or 1: from its output the loss would be infinite.
        let kernel = network.layer("dense").unwrap().weight("kernel");
        let _ = kernel.unwrap().g_mul_scalar_(200.0);
    });
    let (noisy, clean) = pairs.batch(0, 64).unwrap();
    let logits = network.logits(&noisy).unwrap();
    assert_eq!(logits.size(), [64, 1, 28, 28]);
    assert!(logits.abs().max().double_value(&[]) > 100.0);
    assert_eq!(logits.sigmoid(), network.forward(&noisy).unwrap());
    let expected = binary_cross_entropy(&logits, &clean).unwrap();
    let expected = expected.double_value(&[]);
    network.compile(Adam::new(0.001), Loss::BinaryCrossEntropy);
    let fit = Fit {
        batch_size: 64,
        validation: 0,
        ..quick(1)
    };
    let history = network.fit(&pairs, &fit).unwrap();
    let loss = history.batch_losses[0];
    assert!((loss / expected - 1.0).abs() < 1e-6, "{loss}, {expected}");
}

// ---- a learner's own loss ------------------------------------------------------------------------

fn squared_error(prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
    Ok((prediction - target).square().mean(Kind::Float))
}

/// From the probabilities, as it stands in books.
fn own_cross_entropy(prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
    let of_class = prediction.gather(1, &target.unsqueeze(1), false);
    Ok(-of_class.log().mean(Kind::Float))
}

#[test]
fn a_loss_of_ones_own_equals_the_built_in_one() {
    let images = pairs(101);
    let labels = few(101).labelled();
    type Case<'a> = (fn() -> Network, &'a Pairs, Loss, Loss);
    let kinds: [Case; 3] = [
        (
            || denoiser(false),
            &images,
            Loss::MeanSquaredError,
            Loss::Custom(squared_error),
        ),
        // The prediction comes after the last activation.
        (
            || denoiser(true),
            &images,
            Loss::MeanSquaredError,
            Loss::Custom(squared_error),
        ),
        (
            classifier,
            &labels,
            Loss::CrossEntropy,
            Loss::Custom(own_cross_entropy),
        ),
    ];
    for (make, pairs, built_in, own) in kinds {
        let train = |loss: Loss| {
            let mut network = make();
            network.compile(Sgd::new(0.1).momentum(0.9), loss);
            let history = network.fit(pairs, &quick(3)).unwrap();
            (network, history)
        };
        let ((theirs, expected), (ours, got)) = (train(built_in), train(own));
        for (got, expected) in got.batch_losses.iter().zip(&expected.batch_losses) {
            assert!((got - expected).abs() < 1e-5, "{got}, {expected}");
        }
        let away = largest_difference(&ours, &theirs);
        assert!(away < 1e-5, "{built_in:?}: {away:e}");
        assert!(largest_difference(&ours, &make()) > 1e-2);
    }
}

fn whole_image(prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
    Ok((prediction - target).square())
}

fn refuses(_: &Tensor, _: &Tensor) -> Result<Tensor> {
    bail!("no loss on Sundays")
}

fn not_a_number(prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
    // The root of a negative number.
    Ok((-(prediction - target).square().mean(Kind::Float)).sqrt())
}

fn without_gradient(prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
    squared_error(&prediction.detach(), target)
}

#[test]
fn a_loss_of_ones_own_that_cannot_be_trained_with_says_what_to_do() {
    type Case<'a> = (fn(&Tensor, &Tensor) -> Result<Tensor>, &'a [&'a str]);
    let cases: [Case; 4] = [
        (
            whole_image,
            &[
                "the loss is a tensor of shape [",
                "1, 28, 28]; expected one number: end it with mean(Kind::Float)",
            ],
        ),
        (refuses, &["no loss on Sundays"]),
        (
            not_a_number,
            &["the loss is NaN", "try a learning rate below 0.001"],
        ),
        (
            without_gradient,
            &["the loss has no gradient", "without detach()"],
        ),
    ];
    for (loss, words) in cases {
        for precision in [Precision::Float32, Precision::Mixed] {
            let mut network = denoiser(true);
            network.compile(Adam::new(0.001), Loss::Custom(loss));
            let before = weights(&network);
            let fit = Fit {
                precision,
                ..quick(1)
            };
            let error = format!("{:#}", network.fit(&pairs(60), &fit).unwrap_err());
            for words in words {
                assert!(error.contains(words), "{words:?} is not in: {error}");
            }
            assert_eq!(weights(&network), before);
        }
    }
}

static CALLS: AtomicUsize = AtomicUsize::new(0);

/// The first four calls are those that check whether it is a mean.
fn fails_at_the_third_batch(prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
    ensure!(CALLS.fetch_add(1, Ordering::Relaxed) < 4 + 2, "enough");
    squared_error(prediction, target)
}

/// Ends a training after two batches.
struct TwoBatches;

impl Observer for TwoBatches {
    fn batch(&mut self, _: &Plan, batch: usize, _: f64) -> ControlFlow<()> {
        match batch {
            2 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

#[test]
fn after_an_error_of_the_loss_the_network_keeps_its_weights_of_that_moment() {
    let pairs = pairs(101);
    let fit = Fit {
        threads: 1,
        validation: 0,
        ..quick(1)
    };
    let mut network = denoiser(true);
    network.compile(Sgd::new(0.1), Loss::Custom(fails_at_the_third_batch));
    let error = network.fit(&pairs, &fit).unwrap_err();
    assert!(format!("{error:#}").contains("enough"), "{error:#}");
    let mut stopped = denoiser(true);
    stopped.compile(Sgd::new(0.1), Loss::Custom(squared_error));
    stopped.fit_with(&pairs, &fit, &mut TwoBatches).unwrap();
    assert_eq!(weights(&network), weights(&stopped));
}

#[test]
fn a_step_that_is_much_too_large_is_a_divergence_whatever_the_last_layer() {
    // One batch only: the loss is still finite, and what the held-out images become is not.
    let fit = Fit {
        batch_size: 40,
        ..quick(1)
    };
    for (sigmoid, loss) in [
        (false, Loss::MeanSquaredError),
        (true, Loss::MeanSquaredError),
        (true, Loss::BinaryCrossEntropy),
    ] {
        let mut network = denoiser(sigmoid);
        network.compile(Adam::new(1e30), loss);
        let before = weights(&network);
        let error = format!("{:#}", network.fit(&pairs(60), &fit).unwrap_err());
        assert!(error.contains("training has diverged"), "{loss:?}: {error}");
        assert_eq!(weights(&network), before);
    }
}

// ---- what does not fit ---------------------------------------------------------------------------

#[test]
fn what_does_not_fit_is_named_in_a_sentence() {
    let images = pairs(60);
    let labels = few(60).labelled();
    let small = |input: [i64; 3], layers| Network::new(input, layers).unwrap();
    let cases: Vec<(Network, Loss, &Pairs, &[&str])> = vec![
        (
            denoiser(false),
            Loss::BinaryCrossEntropy,
            &images,
            &[
                "binary cross-entropy needs numbers from 0 to 1",
                ".sigmoid()",
            ],
        ),
        (
            network(vec![conv2d(1, 3).softmax()]),
            Loss::BinaryCrossEntropy,
            &images,
            &[".sigmoid()"],
        ),
        (
            network(vec![flatten(), dense(10)]),
            Loss::CrossEntropy,
            &labels,
            &["cross-entropy needs probabilities", ".softmax()"],
        ),
        (
            network(vec![flatten(), dense(10).sigmoid()]),
            Loss::CrossEntropy,
            &labels,
            &[".softmax()"],
        ),
        (
            classifier(),
            Loss::CrossEntropy,
            &images,
            &["these pairs are images", "labelled() pairs"],
        ),
        (
            denoiser(true),
            Loss::CrossEntropy,
            &images,
            &["these pairs are images", "Loss::BinaryCrossEntropy"],
        ),
        (
            denoiser(true),
            Loss::BinaryCrossEntropy,
            &labels,
            &["these pairs have labels", "noisy(…) pairs"],
        ),
        (
            classifier(),
            Loss::BinaryCrossEntropy,
            &labels,
            &["these pairs have labels", "Loss::CrossEntropy"],
        ),
        (
            classifier(),
            Loss::MeanSquaredError,
            &labels,
            &["mean squared error compares images", "Loss::CrossEntropy"],
        ),
        (
            network(vec![conv2d(1, 3).strides(2).sigmoid()]),
            Loss::BinaryCrossEntropy,
            &images,
            &["puts out [14, 14, 1]", "expected [28, 28, 1]"],
        ),
        (
            network(vec![conv2d(3, 3).sigmoid()]),
            Loss::MeanSquaredError,
            &images,
            &["puts out [28, 28, 3]", "expected [28, 28, 1]"],
        ),
        (
            classifier(),
            Loss::Custom(squared_error),
            &images,
            &["puts out [10]", "expected [28, 28, 1]"],
        ),
        (
            network(vec![flatten(), dense(9).softmax()]),
            Loss::CrossEntropy,
            &labels,
            &["puts out [9]", "expected [10]", "dense(10).softmax()"],
        ),
        (
            denoiser(true),
            Loss::Custom(own_cross_entropy),
            &labels,
            &["puts out [28, 28, 1]", "expected [10]"],
        ),
        (
            small([14, 14, 1], vec![up_sampling2d(2), conv2d(1, 3).sigmoid()]),
            Loss::BinaryCrossEntropy,
            &images,
            &["takes [14, 14, 1]", "expected [28, 28, 1]"],
        ),
        (
            small([28, 28, 3], vec![conv2d(1, 3).sigmoid()]),
            Loss::BinaryCrossEntropy,
            &images,
            &["takes [28, 28, 3]", "expected [28, 28, 1]"],
        ),
        (
            Network::new([784], vec![dense(10).softmax()]).unwrap(),
            Loss::CrossEntropy,
            &labels,
            &["takes [784]", "expected [28, 28, 1]"],
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (mut network, loss, pairs, words) in cases {
        network.compile(Adam::new(0.001), loss);
        let before = weights(&network);
        let run = folder.path().join("run");
        let errors = [
            network.fit(pairs, &quick(1)).unwrap_err(),
            network
                .fit_in_background(pairs, &quick(1), &run)
                .unwrap_err(),
        ];
        for error in errors {
            let error = format!("{error:#}");
            for words in words {
                assert!(error.contains(words), "{words:?} is not in: {error}");
            }
            assert!(!error.contains('\n') && error.len() < 200, "{error}");
        }
        assert_eq!(weights(&network), before);
        assert!(!run.exists(), "nothing is left behind");
    }
}
