//! Training learns, repeats itself to the bit, and refuses settings that make no sense.
#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;

use diffusion::prelude::*;
use diffusion::train::{Keep, Observer, Plan, Precision, threads};

/// The first images of the test split: small enough to train on in a test.
fn few(n: usize) -> Split {
    Mnist::load().unwrap().test.first(n).unwrap()
}

/// Pairs of the first images.
fn pairs(n: usize) -> Pairs {
    few(n).noisy(0.5).unwrap()
}

/// The lesson's network, compiled with this step size.
fn stepping(learning_rate: f64) -> Network {
    let mut cnn = Network::new([28, 28, 1], lesson_cnn()).unwrap().seeded(26);
    cnn.compile(Adam::new(learning_rate), Loss::BinaryCrossEntropy);
    cnn
}

fn lesson() -> Network {
    stepping(0.001)
}

fn weights(cnn: &Network) -> Vec<Tensor> {
    cnn.trainable_weights()
        .iter()
        .map(|weight| weight.detach().copy())
        .collect()
}

#[test]
fn training_lowers_the_loss_and_raises_the_psnr() {
    let mut cnn = lesson();
    let split = few(1500);
    let config = Fit {
        epochs: 2,
        validation: 200,
        batch_size: 50,
        ..Default::default()
    };
    let before = Scores::of(&split, 0.5, |noisy| cnn.predict(noisy)).unwrap();
    let history = cnn.fit(&split.noisy(0.5).unwrap(), &config).unwrap();
    let after = Scores::of(&split, 0.5, |noisy| cnn.predict(noisy)).unwrap();
    assert_eq!((history.epochs.len(), history.batch_losses.len()), (2, 52));
    let first: f64 = history.batch_losses[..5].iter().sum::<f64>() / 5.0;
    let last: f64 = history.batch_losses[47..].iter().sum::<f64>() / 5.0;
    assert!(last < 0.5 * first, "the loss went from {first} to {last}");
    assert!(
        after.psnr > before.psnr + 3.0,
        "from {} to {} dB",
        before.psnr,
        after.psnr
    );
    assert_eq!(after.images, 1500);
}

#[test]
fn the_same_settings_give_the_same_weights_whatever_else_is_drawn() {
    let split = few(300);
    for precision in [Precision::Float32, Precision::Mixed] {
        let train = |disturb: bool, seed: u64| {
            let mut cnn = lesson();
            if disturb {
                diffusion::prelude::set_seed(99);
            }
            let config = Fit {
                validation: 100,
                batch_size: 64,
                precision,
                seed,
                ..Default::default()
            };
            cnn.fit(&split.noisy(0.5).unwrap(), &config).unwrap();
            weights(&cnn)
        };
        assert_eq!(train(false, 1), train(true, 1));
        assert_ne!(train(false, 1), train(false, 2));
    }
}

#[test]
fn fixed_noise_repeats_and_fresh_noise_does_not() {
    // With a learning rate of nearly nothing the loss of an epoch depends on the noise alone.
    let losses = |pairs: Pairs| {
        let mut cnn = stepping(1e-30);
        let config = Fit {
            epochs: 2,
            validation: 0,
            batch_size: 100,
            precision: Precision::Float32,
            quiet: true,
            ..Default::default()
        };
        let history = cnn.fit(&pairs, &config).unwrap();
        (history.epochs[0].loss, history.epochs[1].loss)
    };
    let (first, second) = losses(pairs(100).fixed());
    assert!((first - second).abs() < 1e-6, "{first} and {second}");
    let (first, second) = losses(pairs(100));
    assert!((first - second).abs() > 1e-6, "{first} and {second}");
}

/// Ends a training after some batches.
struct StopAfter(usize);

impl Observer for StopAfter {
    fn batch(&mut self, _: &Plan, batch: usize, _: f64) -> ControlFlow<()> {
        if batch == self.0 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

#[test]
fn the_best_or_the_last_weights_are_kept() {
    // With few images and large steps the loss on held-out images goes up and down.
    let few = few(120);
    let images = few.images(120).unwrap().flatten(1, -1);
    let labels = Tensor::from_slice(&few.labels(120).unwrap());
    let pairs = Pairs::of(&images, &labels).unwrap();
    let train = |keep: Keep, epochs: usize| {
        let layers = vec![dense(32).relu(), dense(10).softmax()];
        let mut cnn = Network::new([784], layers).unwrap();
        cnn.compile(Adam::new(0.03), Loss::CrossEntropy);
        let config = Fit {
            epochs,
            keep,
            validation: 20,
            batch_size: 25,
            quiet: true,
            ..Default::default()
        };
        let history = cnn.fit(&pairs, &config).unwrap();
        (weights(&cnn), history)
    };
    let (_, history) = train(Keep::Last, 12);
    let losses: Vec<f64> = history
        .epochs
        .iter()
        .map(|epoch| epoch.validation.unwrap().loss)
        .collect();
    // The first epoch that is worse than the one before it: with the best kept, it is as if it had not been.
    let worse = (1..12).find(|&at| losses[at] > losses[at - 1]);
    let epochs = worse.unwrap_or_else(|| panic!("no epoch is worse than another: {losses:?}"));
    let (best, last) = (
        train(Keep::Best, epochs + 1).0,
        train(Keep::Last, epochs + 1).0,
    );
    assert_eq!(best, train(Keep::Last, epochs).0, "{losses:?}");
    assert_ne!(best, last);
}

#[test]
fn an_observer_stops_a_training_after_the_current_batch() {
    let mut cnn = lesson();
    let config = Fit {
        epochs: 3,
        validation: 10,
        batch_size: 25,
        ..Default::default()
    };
    let stop = &mut StopAfter(4);
    let history = cnn.fit_with(&pairs(85), &config, stop).unwrap();
    assert!(history.stopped);
    assert_eq!((history.batch_losses.len(), history.epochs.len()), (4, 2));
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let (split, pairs) = (few(100), pairs(100));
    let error = |learning_rate: f64, config: &Fit| {
        let mut cnn = stepping(learning_rate);
        cnn.fit(&pairs, config).unwrap_err().to_string()
    };
    let base = Fit {
        validation: 10,
        batch_size: 20,
        ..Default::default()
    };
    let cases = [
        (
            Fit {
                epochs: 0,
                ..base.clone()
            },
            "number of epochs is 0; expected at least 1",
        ),
        (
            Fit {
                batch_size: 0,
                ..base.clone()
            },
            "batch size is 0",
        ),
        (
            Fit {
                batch_size: 91,
                ..base.clone()
            },
            "batch size is 91; expected at most the 90 images",
        ),
        (
            Fit {
                threads: 0,
                ..base.clone()
            },
            "number of threads is 0; expected 1 to ",
        ),
        (
            Fit {
                validation: 100,
                ..base.clone()
            },
            "cannot hold out 100 of 100",
        ),
        (
            Fit {
                validation: 0,
                keep: Keep::Best,
                ..base.clone()
            },
            "Keep::Best needs held-out images",
        ),
    ];
    for (config, words) in cases {
        let error = error(0.001, &config);
        assert!(error.contains(words), "{words:?} is not in: {error}");
    }
    let rates = [
        (0.0, "learning rate is 0;"),
        (-1.0, "learning rate is -1;"),
        (f64::NAN, "learning rate is NaN;"),
        (f64::INFINITY, "learning rate is inf;"),
        (1e30, "training has diverged"),
    ];
    for (rate, words) in rates {
        let error = error(rate, &base);
        assert!(error.contains(words), "{words:?} is not in: {error}");
    }
    for level in [-1.0, f64::NAN, f64::INFINITY] {
        let error = split.noisy(level).unwrap_err().to_string();
        assert!(
            error.contains(&format!("noise level is {level};")),
            "{error}"
        );
    }
    let cnn = lesson();
    assert!(Scores::of(&split, f64::INFINITY, |noisy| cnn.predict(noisy)).is_err());
    let mut frozen = lesson();
    frozen.freeze(..).unwrap();
    let error = frozen.fit(&pairs, &base).unwrap_err();
    assert!(error.to_string().contains("nothing to train"), "{error}");
}

#[test]
fn a_training_that_diverges_leaves_the_network_as_it_was() {
    let mut cnn = stepping(1e30);
    let before = weights(&cnn);
    let config = Fit {
        validation: 0,
        batch_size: 20,
        ..Default::default()
    };
    let error = cnn.fit(&pairs(100), &config).unwrap_err();
    assert!(error.to_string().contains("diverged"), "{error}");
    assert_eq!(weights(&cnn), before);
}

#[test]
fn the_history_reads_as_lines_with_bar_time_and_scores() {
    let mut cnn = lesson();
    let config = Fit {
        epochs: 2,
        validation: 10,
        batch_size: 25,
        precision: Precision::Float32,
        ..Default::default()
    };
    let history = cnn.fit(&pairs(85), &config).unwrap();
    let text = history.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("2 epochs over 75 images in ") && lines[0].ends_with("(float32)"),
        "{text}"
    );
    assert!(
        lines[1].starts_with("epoch 1/2 ██████████░░░░░░░░░░ "),
        "{text}"
    );
    assert!(
        lines[2].starts_with("epoch 2/2 ████████████████████ "),
        "{text}"
    );
    let validation = history.last().unwrap().validation.unwrap();
    let end = format!(
        "validation {:.4}, {:.2} dB",
        validation.loss,
        validation.score.unwrap()
    );
    assert!(
        lines[2].contains(" s  loss 0.") && lines[2].ends_with(&end),
        "{text}"
    );
    assert!(history.plot().html().is_ok());
}

#[test]
fn threads_share_a_batch_and_change_nothing_but_rounding() {
    // A last batch of one image leaves a worker without a task.
    let pairs = pairs(101);
    let train = |threads: usize| {
        let mut cnn = lesson();
        let config = Fit {
            epochs: 2,
            batch_size: 20,
            validation: 20,
            precision: Precision::Float32,
            threads,
            quiet: true,
            ..Default::default()
        };
        cnn.fit(&pairs, &config).unwrap()
    };
    let alone = train(1);
    let together = train(threads());
    for (one, many) in alone.batch_losses.iter().zip(&together.batch_losses) {
        // Adam's first steps turn a gradient's sign into a whole step, however small the gradient is.
        assert!((one - many).abs() < 1e-3, "{one} alone, {many} together");
    }
    for (one, many) in alone.epochs.iter().zip(&together.epochs) {
        let (one, many) = (one.validation.unwrap(), many.validation.unwrap());
        assert!((one.loss - many.loss).abs() < 1e-3);
        assert!((one.score.unwrap() - many.score.unwrap()).abs() < 2e-2);
    }
}
