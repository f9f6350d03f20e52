//! Pairs of noisy and clean images, and of images and labels: what they are made of, and that training sees them.
#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use diffusion::prelude::*;
use diffusion::train::Precision;

fn few(n: usize) -> Split {
    Mnist::load().unwrap().test.first(n).unwrap()
}

#[test]
fn noise_is_drawn_anew_in_each_epoch_or_stays_and_depends_on_the_seed_alone() {
    let split = few(20);
    let noisy = |pairs: Pairs, epoch: usize| pairs.batch(epoch, 20).unwrap().0;
    let fresh = || split.noisy(0.5).unwrap();
    assert_ne!(noisy(fresh(), 0), noisy(fresh(), 1));
    assert_eq!(noisy(fresh(), 1), noisy(fresh(), 1));
    assert_eq!(noisy(fresh().fixed(), 0), noisy(fresh().fixed(), 7));
    assert_eq!(noisy(fresh().fixed(), 7), noisy(fresh(), 0));
    // 42 is the default; the order of the two methods does not matter.
    assert_eq!(noisy(fresh().seeded(42), 3), noisy(fresh(), 3));
    for epoch in [0, 3] {
        assert_ne!(noisy(fresh().seeded(7), epoch), noisy(fresh(), epoch));
    }
    let both = fresh().seeded(7).fixed();
    assert_eq!(noisy(both, 5), noisy(fresh().fixed().seeded(7), 0));
    // The generator of the cell plays no part.
    set_seed(1);
    let first = noisy(fresh(), 0);
    set_seed(2);
    assert_eq!(noisy(fresh(), 0), first);
    let (noisy, clean) = fresh().batch(0, 20).unwrap();
    assert_eq!(clean, split.images(20).unwrap());
    assert_eq!(noisy.size(), [20, 1, 28, 28]);
    let ends = [noisy.min(), noisy.max()].map(|end| end.double_value(&[]));
    assert_eq!(ends, [0.0, 1.0]);
    let (silent, clean) = split.noisy(0.0).unwrap().batch(0, 20).unwrap();
    assert_eq!(silent, clean);
}

static SEEN: Mutex<Vec<(Tensor, Tensor)>> = Mutex::new(Vec::new());

/// Remembers what it is given.
fn remembers(prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
    let mut seen = SEEN.lock().unwrap();
    seen.push((prediction.detach().copy(), target.copy()));
    Ok((prediction - target).square().mean(Kind::Float))
}

#[test]
fn a_batch_of_pairs_is_what_training_sees() {
    const IMAGES: usize = 30;
    // A network that changes nothing: its prediction is its input.
    let mut identity = Network::new([28, 28, 1], vec![conv2d(1, 1)]).unwrap();
    tch::no_grad(|| {
        let kernel = identity.layer("conv2d").unwrap().weight("kernel");
        let _ = kernel.unwrap().fill_(1.0);
    });
    let fit = Fit {
        batch_size: IMAGES,
        validation: 0,
        threads: 1,
        precision: Precision::Float32,
        quiet: true,
        ..Fit::default()
    };
    for pairs in [
        few(IMAGES).noisy(0.5).unwrap(),
        few(IMAGES).noisy(0.5).unwrap().seeded(7).fixed(),
    ] {
        identity.compile(Adam::new(1e-30), Loss::Custom(remembers));
        for epoch in 0..3 {
            SEEN.lock().unwrap().clear();
            identity.fit(&pairs, &fit).unwrap();
            let seen = SEEN.lock().unwrap();
            // One batch; before it the loss was checked.
            let (inputs, targets) = seen.last().unwrap();
            let (noisy, clean) = pairs.batch(epoch, IMAGES).unwrap();
            let mut order = Vec::new();
            for at in 0..IMAGES as i64 {
                let found = (0..IMAGES as i64).find(|&other| clean.get(other) == targets.get(at));
                let found = found.unwrap();
                let away = (inputs.get(at) - noisy.get(found)).abs().max();
                assert!(away.double_value(&[]) < 1e-20, "epoch {epoch}");
                order.push(found);
            }
            assert!(!order.is_sorted(), "the images are shuffled");
            order.sort_unstable();
            assert_eq!(order, (0..IMAGES as i64).collect::<Vec<_>>());
        }
    }
}

#[test]
fn labelled_pairs_are_images_and_labels() {
    let split = few(50);
    let pairs = split.labelled();
    assert_eq!(pairs.len(), 50);
    let (images, labels) = pairs.batch(3, 20).unwrap();
    assert_eq!(images, split.images(20).unwrap());
    assert_eq!((labels.size(), labels.kind()), (vec![20], Kind::Int64));
    assert_eq!(
        Vec::<i64>::try_from(&labels).unwrap(),
        split.labels(20).unwrap()
    );
}

#[test]
fn a_number_of_pairs_that_there_is_not_is_named() {
    for pairs in [few(50).noisy(0.5).unwrap(), few(50).labelled()] {
        assert!(pairs.batch(0, 1).is_ok() && pairs.batch(0, 50).is_ok());
        for n in [0, 51, usize::MAX] {
            let error = pairs.batch(0, n).unwrap_err().to_string();
            assert_eq!(error, format!("asked for {n} pairs; there are 50"));
        }
    }
}

#[test]
fn pairs_of_ones_own_are_given_as_they_are() {
    let split = few(30);
    let (clean, labels) = (split.images(30).unwrap(), split.labels(30).unwrap());
    let noisy = (&clean + 0.1).clamp(0.0, 1.0);
    let pairs = Pairs::of(&noisy, &clean).unwrap();
    assert_eq!(pairs.len(), 30);
    let first = |t: &Tensor| t.narrow(0, 0, 7);
    assert_eq!(pairs.batch(3, 7).unwrap(), (first(&noisy), first(&clean)));
    let fit = Fit {
        epochs: 2,
        batch_size: 10,
        validation: 10,
        quiet: true,
        ..Fit::default()
    };
    let mut network =
        Network::new([28, 28, 1], vec![conv2d(16, 3), conv2d(1, 3).sigmoid()]).unwrap();
    network.compile(Adam::new(0.001), Loss::BinaryCrossEntropy);
    let history = network.fit(&pairs, &fit).unwrap();
    assert_eq!(history.last().unwrap().validation.unwrap().score, None);
    // Classes, and vectors in place of images.
    let classes = Pairs::of(&clean.flatten(1, -1), &Tensor::from_slice(&labels)).unwrap();
    let mut network = Network::new([784], vec![dense(10).softmax()]).unwrap();
    network.compile(Adam::new(0.001), Loss::CrossEntropy);
    let history = network.fit(&classes, &fit).unwrap();
    assert!(history.to_string().contains("% accuracy"), "{history}");
    // Numbers that are no pixels have no score.
    let codes = Pairs::of(
        &clean.flatten(1, -1),
        &(clean.flatten(1, -1).narrow(1, 0, 5) * 3.0),
    )
    .unwrap();
    let mut network = Network::new([784], vec![dense(5)]).unwrap();
    network.compile(Adam::new(0.001), Loss::MeanSquaredError);
    let history = network.fit(&codes, &fit).unwrap();
    assert_eq!(history.last().unwrap().validation.unwrap().score, None);
    let error = network.fit(&pairs, &fit).unwrap_err().to_string();
    assert!(error.contains("the network takes [784]"), "{error}");
    let error = Pairs::of(&clean, &Tensor::from_slice(&labels[..4])).unwrap_err();
    assert!(
        error.to_string().contains("for each of 30 inputs; got 4"),
        "{error}"
    );
    assert!(
        Pairs::of(&Tensor::from_slice(&labels), &clean)
            .unwrap_err()
            .to_string()
            .contains("Int64")
    );
    let error = Pairs::of(&clean, &clean.to_kind(Kind::Uint8)).unwrap_err();
    assert!(error.to_string().contains("Uint8"), "{error}");
}
