//! An evaluation in one pass gives what the scores give one by one.
#![allow(clippy::unwrap_used)]

use diffusion::prelude::*;
use diffusion::scores::{copies, copy_limit, diversity, evenly_chosen, features, kernel_distance};

const COUNT: usize = 100;

fn classifier() -> Network {
    let weights = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../notebooks/weights/classifier.safetensors"
    );
    Network::load(weights).unwrap()
}

#[test]
fn a_reference_gives_the_scores_that_single_functions_give() {
    let classifier = classifier();
    let mnist = Mnist::load().unwrap();
    let (train, unseen) = (mnist.train.first(2_000).unwrap(), mnist.test);
    let (images, labels) = (
        mnist.train.images(COUNT).unwrap() * 0.9,
        mnist.train.labels(COUNT).unwrap(),
    );
    let reference = Reference::new(&classifier, &train, &unseen, COUNT).unwrap();
    let scores = reference.evaluate(&images, &labels).unwrap();

    let real = evenly_chosen(&unseen, 2_500, 0).unwrap();
    let seen = |images: &Tensor| features(&classifier, images).unwrap();
    let real = seen(&real.images(2_500).unwrap());
    let scale = real.mapv(|x| x * x).mean().unwrap().sqrt();
    let distance = kernel_distance(&(seen(&images) / scale), &(real / scale)).unwrap();
    assert_eq!(scores.images, COUNT);
    assert_eq!(
        scores.accuracy,
        class_accuracy(&classifier, &images, &labels).unwrap()
    );
    assert!((scores.distance / distance - 1.0).abs() < 1e-9);
    let diversity = diversity(&classifier, &images, &labels, &unseen).unwrap();
    assert!((scores.diversity / diversity - 1.0).abs() < 1e-9);
    let limit = copy_limit(&train, &unseen).unwrap();
    assert_eq!(scores.copies, copies(&images, &train, limit).unwrap());
    // Training images themselves, a little darker, are copies.
    assert!(scores.copies > 0.9, "{}", scores.copies);
    let table = GenerationScores::table(&[("darker", scores)]).to_string();
    assert!(table.contains("diversity") && table.contains("100 images each"));
}

#[test]
fn another_number_of_images_than_the_reference_compares_is_named() {
    let mnist = Mnist::load().unwrap();
    let reference = Reference::new(&classifier(), &mnist.train, &mnist.test, COUNT).unwrap();
    let images = mnist.test.images(10).unwrap();
    let labels = mnist.test.labels(10).unwrap();
    let error = reference.evaluate(&images, &labels).unwrap_err();
    assert!(error.to_string().contains("got 10 images"), "{error}");
    let error = reference.evaluate(&images, &labels[1..]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("a label for each of 10 images; got 9"),
        "{error}"
    );
    let few = mnist.test.first(10).unwrap();
    let error = Reference::new(&classifier(), &mnist.train, &few, COUNT).unwrap_err();
    assert!(error.to_string().contains("100 images"), "{error}");
}
