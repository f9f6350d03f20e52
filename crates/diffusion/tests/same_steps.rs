//! The same seeds give the same weights as before networks were lists of layers: 20 steps of training, to rounding.
//!
//! On the machine that made the golden numbers, and with its `OPS_IMPLEMENTATION`, losses and movements are equal to all
//! nine digits that are stored. The bounds are wider for other machines, where a rounding can switch a ReLU.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "shared with tests that need more of it")]
mod common;
#[path = "common/noise_loss.rs"]
mod noise_loss;

use common::{golden, numbers};
use diffusion::network::NamedLayer;
use diffusion::prelude::*;
use diffusion::train::Precision;
use noise_loss::noise_loss;
use serde_json::Value;

/// Weights, and copies of them before a training.
fn named(layers: &[NamedLayer]) -> Vec<(String, Tensor)> {
    let weights = layers.iter().flat_map(|layer| {
        let named = |(name, weight): &(&str, Tensor)| {
            let weight = weight.detach().copy();
            (format!("{}.{name}", layer.name), weight)
        };
        layer.weights.iter().map(named).collect::<Vec<_>>()
    });
    weights.collect()
}

fn compare(expected: &Value, history: &History, before: &[(String, Tensor)], after: &[NamedLayer]) {
    for (ours, theirs) in history
        .batch_losses
        .iter()
        .zip(numbers(&expected["losses"]))
    {
        assert!(
            (ours - theirs).abs() < 1e-2 * theirs,
            "loss {ours}, before {theirs}"
        );
    }
    let weights = expected["weights"].as_array().unwrap();
    let after = named(after);
    assert_eq!(weights.len(), after.len());
    for ((expected, (name, before)), (_, after)) in weights.iter().zip(before).zip(&after) {
        assert_eq!(expected["name"], name.as_str());
        let movement = (after - before).to_kind(Kind::Double).view(-1);
        let norm = expected["norm"].as_f64().unwrap();
        let ours = movement.norm().double_value(&[]);
        assert!(
            (ours - norm).abs() <= 1e-2 * norm,
            "{name} moved by {ours}, before by {norm}"
        );
        let count = movement.numel() as i64;
        let indices: Vec<i64> = (0..8).map(|at| (2 * at + 1) * count / 16).collect();
        let ours = movement.index_select(0, &Tensor::from_slice(&indices));
        let theirs = Tensor::from_slice(&numbers(&expected["at"]));
        // At most 20 steps of 0.001.
        let difference = (ours - theirs).abs().max().double_value(&[]);
        assert!(difference < 1e-3, "{name}: {difference:e}");
    }
}

fn settings() -> Fit {
    Fit {
        validation: 0,
        precision: Precision::Float32,
        threads: 2,
        quiet: true,
        ..Fit::default()
    }
}

#[test]
fn the_lessons_network_takes_the_same_steps() {
    let mut cnn = Network::new([28, 28, 1], lesson_cnn()).unwrap().seeded(26);
    let before = named(cnn.layers());
    cnn.compile(Adam::new(0.001), Loss::BinaryCrossEntropy);
    let few = Mnist::load().unwrap().train.first(2_560).unwrap();
    let history = cnn.fit(&few.noisy(0.5).unwrap(), &settings()).unwrap();
    compare(
        &golden("first_steps")["cnn"],
        &history,
        &before,
        cnn.layers(),
    );
}

#[test]
fn the_classifier_takes_the_same_steps() {
    let mut classifier = Network::new([28, 28, 1], digit_classifier()).unwrap();
    let before = named(classifier.layers());
    classifier.compile(Adam::new(0.001), Loss::CrossEntropy);
    let few = Mnist::load().unwrap().train.first(2_560).unwrap();
    let history = classifier.fit(&few.labelled(), &settings()).unwrap();
    let golden = golden("first_steps");
    compare(
        &golden["classifier"],
        &history,
        &before,
        classifier.layers(),
    );
}

#[test]
fn the_unet_takes_the_same_steps() {
    let mut unet = Unet::new(UnetConfig::default()).unwrap();
    let before = named(unet.layers());
    let few = Mnist::load().unwrap().train.first(2_560).unwrap();
    unet.compile(Adam::new(0.001), noise_loss);
    let history = unet.fit(&few, &settings()).unwrap();
    compare(
        &golden("first_steps")["unet"],
        &history,
        &before,
        unet.layers(),
    );
}
