//! The U-Net and the classifier: what they are, what they learn, and that a training can be interrupted.
#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;

use diffusion::prelude::*;
use diffusion::train::{Epoch, Observer, Plan, Supervised};
use tch::Device;

fn few(n: usize) -> Split {
    Mnist::load().unwrap().train.first(n).unwrap()
}

fn small() -> Unet {
    Unet::new(UnetConfig {
        width: 16,
        ..UnetConfig::default()
    })
    .unwrap()
}

fn weights(layers: &[NamedLayer]) -> Vec<Tensor> {
    let weights = layers.iter().flat_map(|layer| &layer.weights);
    weights.map(|(_, weight)| weight.copy()).collect()
}

#[test]
fn the_unet_has_the_parameters_and_the_shapes_it_says() {
    let unet = Unet::new(UnetConfig::default()).unwrap();
    assert_eq!(unet.summary().total(), 1_050_948);
    let x = Tensor::randn([3, 1, 28, 28], (Kind::Float, Device::Cpu));
    let whole = |values: &[i64]| Tensor::from_slice(values);
    let noise = unet.forward(&x, &whole(&[0, 500, 999]), &whole(&[3, 10, 0]));
    assert_eq!(noise.size(), [3, 1, 28, 28]);
    // The last layer is zero at first.
    assert_eq!(noise.abs().max().double_value(&[]), 0.0);
    for width in [0, 8, 24, 1024] {
        let error = Unet::new(UnetConfig {
            width,
            ..UnetConfig::default()
        })
        .unwrap_err();
        assert!(
            error.to_string().contains(&format!("the width is {width}")),
            "{error}"
        );
    }
}

fn learning(unet: &mut Unet, precision: Precision) -> History {
    let schedule = Schedule::cosine(1000).unwrap();
    let config = Fit {
        epochs: 3,
        batch_size: 64,
        validation: 200,
        moving_average: Some(0.9),
        precision,
        quiet: true,
        ..Fit::default()
    };
    let objective = NoisePrediction::of(&config, &schedule, 0.1).unwrap();
    fit_with(unet, &few(2_000), &objective, &config, &mut ()).unwrap()
}

#[test]
fn the_unet_learns_to_find_noise_in_either_precision() {
    for precision in [Precision::Float32, Precision::Mixed] {
        let mut unet = small();
        let history = learning(&mut unet, precision);
        // A prediction of "no noise" has an error of 1 on average.
        let last = history.last().unwrap().validation.unwrap();
        assert!(last.loss < 0.35, "{precision}: {}", last.loss);
        assert_eq!(last.score, None);
    }
}

#[test]
fn time_and_class_reach_the_trained_unet() {
    let mut unet = small();
    learning(&mut unet, Precision::Float32);
    let x = Tensor::randn([1, 1, 28, 28], (Kind::Float, Device::Cpu));
    let noise = |t: i64, class: i64| {
        unet.forward(&x, &Tensor::from_slice(&[t]), &Tensor::from_slice(&[class]))
    };
    let moved = |other: Tensor| (other - noise(500, 3)).abs().max().double_value(&[]);
    assert_eq!(moved(noise(500, 3)), 0.0);
    assert!(moved(noise(100, 3)) > 1e-3);
    assert!(moved(noise(500, 4)) > 1e-4);
}

/// Ends a training after this many epochs.
struct StopAfter(usize);

impl<M> Observer<M> for StopAfter {
    fn epoch(&mut self, _: &Plan, _: &M, epoch: &Epoch) -> ControlFlow<()> {
        match epoch.number >= self.0 {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

#[test]
fn a_training_that_was_interrupted_ends_as_an_unbroken_one() {
    let split = few(300);
    let folder = tempfile::tempdir().unwrap();
    let schedule = Schedule::cosine(100).unwrap();
    for (name, precision, keep) in [
        ("float32", Precision::Float32, Keep::Last),
        ("mixed", Precision::Mixed, Keep::Best),
    ] {
        let config = |checkpoint: bool| Fit {
            epochs: 3,
            batch_size: 50,
            validation: 60,
            moving_average: Some(0.9),
            learning_rate_schedule: LearningRateSchedule::Cosine,
            keep,
            precision,
            checkpoint: checkpoint.then(|| folder.path().join(name)),
            quiet: true,
            ..Fit::default()
        };
        let objective = NoisePrediction::of(&config(false), &schedule, 0.1).unwrap();
        let mut unbroken = small();
        let whole = fit_with(&mut unbroken, &split, &objective, &config(false), &mut ()).unwrap();
        let mut broken = small();
        let part = fit_with(
            &mut broken,
            &split,
            &objective,
            &config(true),
            &mut StopAfter(1),
        )
        .unwrap();
        assert!(part.stopped && part.epochs.len() == 1);
        let mut resumed = small();
        let history = resume(&mut resumed, &split, &objective, &config(true), &mut ()).unwrap();
        assert_eq!(
            weights(resumed.layers()),
            weights(unbroken.layers()),
            "{name}"
        );
        assert_eq!(history.batch_losses, whole.batch_losses);
        assert_eq!(history.epochs.len(), 3);
        assert!(!history.stopped);
        // Once more, when all is done: nothing is left to do, and the result is the same.
        let mut again = small();
        resume(&mut again, &split, &objective, &config(true), &mut ()).unwrap();
        assert_eq!(
            weights(again.layers()),
            weights(unbroken.layers()),
            "{name}"
        );
    }
}

/// Ends a training after this many batches.
struct StopAtBatch(usize);

impl<M> Observer<M> for StopAtBatch {
    fn batch(&mut self, _: &Plan, _: &M, batch: usize, _: f64) -> ControlFlow<()> {
        match batch >= self.0 {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

#[test]
fn a_training_that_ended_within_its_first_epoch_can_be_gone_on_with_but_not_be_lost() {
    let split = few(200);
    let folder = tempfile::tempdir().unwrap();
    let schedule = Schedule::cosine(100).unwrap();
    let config = |checkpoint: bool| Fit {
        epochs: 2,
        batch_size: 50,
        validation: 50,
        checkpoint: checkpoint.then(|| folder.path().join("run")),
        quiet: true,
        ..Fit::default()
    };
    let objective = NoisePrediction::of(&config(false), &schedule, 0.1).unwrap();
    let mut unbroken = small();
    fit_with(&mut unbroken, &split, &objective, &config(false), &mut ()).unwrap();
    let stop = &mut StopAtBatch(2);
    let part = fit_with(&mut small(), &split, &objective, &config(true), stop).unwrap();
    assert_eq!((part.batch_losses.len(), part.stopped), (2, true));
    let error = fit_with(&mut small(), &split, &objective, &config(true), &mut ()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("holds a training already: continue it with `resume`"),
        "{error}"
    );
    let mut resumed = small();
    resume(&mut resumed, &split, &objective, &config(true), &mut ()).unwrap();
    assert_eq!(weights(resumed.layers()), weights(unbroken.layers()));
}

#[test]
fn the_unet_learns_to_denoise_in_one_step_as_the_cnn_does() {
    let mut unet = UnetDenoiser::new(UnetConfig {
        width: 16,
        ..UnetConfig::default()
    })
    .unwrap();
    let config = Fit {
        epochs: 2,
        batch_size: 32,
        validation: 0,
        quiet: true,
        ..Fit::default()
    };
    let split = few(3_000);
    let pairs = split.noisy(0.5).unwrap();
    let (adam, precision) = (Adam::new(0.001), config.precision);
    let objective = Supervised::of(&pairs, adam, Loss::BinaryCrossEntropy, precision).unwrap();
    fit_with(&mut unet, &split, &objective, &config, &mut ()).unwrap();
    let test = Mnist::load().unwrap().test.first(500).unwrap();
    let noisy = score(&test, 0.5, |noisy| Ok(noisy.shallow_clone())).unwrap();
    let denoised = score(&test, 0.5, |noisy| unet.predict(noisy)).unwrap();
    assert!(denoised.psnr > noisy.psnr + 6.0, "{denoised:?}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("denoiser.safetensors");
    unet.save(&path).unwrap();
    let loaded = UnetDenoiser::load(&path).unwrap();
    assert_eq!(weights(loaded.layers()), weights(unet.layers()));
    // The same layers, but another task.
    let error = format!("{:#}", Unet::load(&path).unwrap_err());
    assert!(error.contains("expected \"unet\""), "{error}");
}

#[test]
#[should_panic(expected = "a timestep and a class for each of 3 images; got [1] and [3]")]
fn a_missing_timestep_is_refused() {
    let x = Tensor::zeros([3, 1, 28, 28], (Kind::Float, Device::Cpu));
    let (one, three) = (
        Tensor::from_slice(&[5i64]),
        Tensor::from_slice(&[1i64, 2, 3]),
    );
    let _ = small().forward(&x, &one, &three);
}

#[test]
fn a_checkpoint_that_is_not_this_trainings_is_refused() {
    let split = few(200);
    let folder = tempfile::tempdir().unwrap();
    let schedule = Schedule::cosine(100).unwrap();
    let path = folder.path().join("run.safetensors");
    let config = Fit {
        epochs: 1,
        batch_size: 50,
        validation: 50,
        checkpoint: Some(path.clone()),
        quiet: true,
        ..Fit::default()
    };
    let objective = NoisePrediction::of(&config, &schedule, 0.1).unwrap();
    let go_on_with = |objective: &NoisePrediction, config: &Fit| {
        let mut unet = small();
        let before = weights(unet.layers());
        let error = resume(&mut unet, &split, objective, config, &mut ()).unwrap_err();
        assert_eq!(weights(unet.layers()), before);
        format!("{error:#}")
    };
    let go_on = |config: &Fit| go_on_with(&objective, config);
    assert!(go_on(&config).contains("cannot read the checkpoint"));
    let without = Fit {
        checkpoint: None,
        ..config.clone()
    };
    assert!(go_on(&without).contains("name no `checkpoint`"));
    fit_with(&mut small(), &split, &objective, &config, &mut ()).unwrap();
    let error = go_on_with(&objective.clone().with(Adam::new(0.5)), &config);
    assert!(
        error.contains("another training") && error.contains("learning_rate: 0.5"),
        "{error}"
    );
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(go_on(&config).contains("truncated"));
    small().save(&path).unwrap();
    assert!(go_on(&config).contains("holds no training's state"));
}

#[test]
fn weights_of_another_architecture_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cnn.safetensors");
    let cnn = Network::new([28, 28, 1], lesson_cnn()).unwrap();
    cnn.save(&path).unwrap();
    let error = format!("{:#}", Unet::load(&path).unwrap_err());
    assert!(
        error.contains("holds a network of kind \"network\"; expected \"unet\""),
        "{error}"
    );
    let path = folder.path().join("unet.safetensors");
    small().save(&path).unwrap();
    assert_eq!(
        weights(Unet::load(&path).unwrap().layers()),
        weights(small().layers())
    );
    // The same weights in a file that promises another width.
    let mut bytes = std::fs::read(&path).unwrap();
    let (narrow, wide) = (br#"\"width\":16"#, br#"\"width\":32"#);
    let at = bytes.windows(narrow.len()).position(|part| part == narrow);
    bytes[at.unwrap()..][..wide.len()].copy_from_slice(wide);
    std::fs::write(&path, bytes).unwrap();
    let error = format!("{:#}", Unet::load(&path).unwrap_err());
    assert!(error.contains("has shape"), "{error}");
}

#[test]
fn the_classifier_learns_to_read() {
    let mnist = Mnist::load().unwrap();
    let mut classifier = Network::new([28, 28, 1], digit_classifier()).unwrap();
    classifier.compile(Adam::new(0.001), Loss::CrossEntropy);
    let config = Fit {
        validation: 500,
        quiet: true,
        ..Fit::default()
    };
    let history = classifier.fit(&few(6_500).labelled(), &config).unwrap();
    let images = mnist.test.images(2_000).unwrap();
    let labels = mnist.test.labels(2_000).unwrap();
    let accuracy = class_accuracy(&classifier, &images, &labels).unwrap();
    assert!(accuracy > 0.85, "{accuracy}");
    assert!(history.to_string().contains("% accuracy"), "{history}");
    assert_eq!(features(&classifier, &images).unwrap().dim(), (2_000, 128));
    let certainty = classifier
        .predict(&images)
        .unwrap()
        .sum_dim_intlist(1i64, false, Kind::Float);
    assert!((certainty - 1.0).abs().max().double_value(&[]) < 1e-5);
    assert!(
        classifier
            .predict(&Tensor::zeros([1, 28, 28], (Kind::Float, Device::Cpu)))
            .is_err()
    );
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let split = few(100);
    let schedule = Schedule::cosine(10).unwrap();
    let config = Fit {
        validation: 10,
        quiet: true,
        ..Fit::default()
    };
    for dropout in [-0.1, 1.5, f64::NAN] {
        let error = NoisePrediction::of(&config, &schedule, dropout).unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&format!("label dropout is {dropout}")),
            "{error}"
        );
    }
    let objective = NoisePrediction::of(&config, &schedule, 0.1).unwrap();
    for average in [1.0, -0.5, f64::NAN] {
        let config = Fit {
            moving_average: Some(average),
            ..config.clone()
        };
        let error = fit_with(&mut small(), &split, &objective, &config, &mut ()).unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&format!("decay of the moving average is {average}")),
            "{error}"
        );
    }
}
