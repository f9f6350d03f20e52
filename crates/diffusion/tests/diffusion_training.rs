//! The U-Net and the classifier: what they are, and what they learn with a loss of a cell.
#![allow(clippy::unwrap_used)]

#[path = "common/noise_loss.rs"]
mod noise_loss;

use diffusion::network::NamedLayer;
use diffusion::prelude::*;
use diffusion::scores::features;
use diffusion::train::Precision;
use diffusion::unet::Predicts;
use noise_loss::noise_loss;
use tch::Device;

fn few(n: usize) -> Split {
    Mnist::load().unwrap().train.first(n).unwrap()
}

fn small() -> Unet {
    let mut unet = Unet::new(UnetConfig {
        width: 16,
        ..UnetConfig::default()
    })
    .unwrap();
    unet.compile(Adam::new(0.001), noise_loss);
    unet
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
    let noise = unet
        .forward(&x, &whole(&[0, 500, 999]), &whole(&[3, 10, 0]))
        .unwrap();
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
    let config = Fit {
        epochs: 3,
        batch_size: 64,
        validation: 200,
        moving_average: Some(0.9),
        precision,
        quiet: true,
        ..Fit::default()
    };
    unet.fit(&few(2_000), &config).unwrap()
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
    let noise = |t: usize, class: i64| unet.predict(&x, &[t], &[Some(class)]).unwrap();
    let moved = |other: Tensor| (other - noise(500, 3)).abs().max().double_value(&[]);
    assert_eq!(moved(noise(500, 3)), 0.0);
    assert!(moved(noise(100, 3)) > 1e-3);
    assert!(moved(noise(500, 4)) > 1e-4);
}

#[test]
fn a_prediction_takes_a_timestep_and_a_label_for_each_image_or_for_all() {
    let mut unet = small();
    learning(&mut unet, Precision::Float32);
    let x = Tensor::randn([3, 1, 28, 28], (Kind::Float, Device::Cpu));
    let one = unet.predict(&x, &[5], &[Some(7)]).unwrap();
    let each = unet.predict(&x, &[5; 3], &[Some(7); 3]).unwrap();
    assert_eq!(one, each);
    assert!(!one.requires_grad());
    let error =
        |t: &[usize], labels: &[Option<i64>]| unet.predict(&x, t, labels).unwrap_err().to_string();
    assert!(
        error(&[5; 2], &[None]).contains("a timestep for each of 3 images, or one for all; got 2")
    );
    assert!(error(&[5], &[]).contains("a label for each of 3 images, or one for all; got 0"));
    assert!(error(&[1000], &[None]).contains("no step 1000; this schedule has the steps 0 to 999"));
    assert!(error(&[5], &[Some(10)]).contains("no class 10"));
    let flat = Tensor::zeros([3, 784], (Kind::Float, Device::Cpu));
    let error = unet.predict(&flat, &[5], &[None]).unwrap_err();
    assert!(error.to_string().contains("[3, 784]"), "{error}");
    let (one, three) = (
        Tensor::from_slice(&[5i64]),
        Tensor::from_slice(&[1i64, 2, 3]),
    );
    let error = unet.forward(&x, &one, &three).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("for each of 3 images; got [1] and [3]"),
        "{error}"
    );
}

#[test]
fn what_a_batch_draws_is_the_same_each_time_and_in_parts() {
    let schedule = Schedule::cosine(1000).unwrap();
    let split = few(600);
    let batch = Batch::first(&split, 600).unwrap();
    assert_eq!(batch.images, split.images(600).unwrap());
    let labels: Vec<Option<i64>> = with_labels(&split.labels(600).unwrap());
    assert_eq!(batch.labels, labels);
    assert_eq!(batch.noise(), batch.noise());
    assert_eq!(batch.timesteps(&schedule), batch.timesteps(&schedule));
    let fewer = Batch::first(&split, 7).unwrap();
    assert_eq!(fewer.noise(), batch.noise().narrow(0, 0, 7));
    assert_eq!(fewer.timesteps(&schedule), batch.timesteps(&schedule)[..7]);
    // All timesteps are as likely: a mean of 499.5, with a standard error of 12.
    let steps = batch.timesteps(&schedule);
    let mean = steps.iter().sum::<usize>() as f64 / 600.0;
    assert!(
        (mean - 499.5).abs() < 50.0 && steps.iter().all(|&t| t < 1000),
        "{mean}"
    );
    let noise = batch.noise().to_kind(Kind::Double);
    assert!(noise.mean(Kind::Double).double_value(&[]).abs() < 0.01);
    assert!((noise.std(true).double_value(&[]) - 1.0).abs() < 0.01);
    // A tenth of the labels: 60, with a standard error of 7.
    let dropped = batch.labels_dropped(0.1).unwrap();
    let count = dropped.iter().filter(|label| label.is_none()).count();
    assert!((30..90).contains(&count), "{count}");
    assert!(
        dropped
            .iter()
            .zip(&labels)
            .all(|(some, all)| some.is_none() || some == all)
    );
    assert_eq!(batch.labels_dropped(0.0).unwrap(), labels);
    assert_eq!(batch.labels_dropped(1.0).unwrap(), [None; 600]);
    for wrong in [-0.1, 1.5, f64::NAN] {
        let error = batch.labels_dropped(wrong).unwrap_err().to_string();
        assert!(
            error.contains(&format!("drop a label is {wrong}")),
            "{error}"
        );
    }
    assert!(Batch::first(&split, 601).is_err() && Batch::first(&split, 0).is_err());
}

fn sum(unet: &Unet, batch: &Batch) -> Result<Tensor> {
    Ok(noise_loss(unet, batch)? * batch.images.size()[0])
}

fn own_noise(unet: &Unet, batch: &Batch) -> Result<Tensor> {
    let eps = batch.images.randn_like();
    let t = batch.timesteps(unet.schedule());
    let x_t = unet
        .schedule()
        .q_sample(&centred(&batch.images), &t, &eps)?;
    mean_squared_error(&unet.predict(&x_t, &t, &batch.labels)?, &eps)
}

/// The target is the batch's noise, and the timesteps are not.
fn own_timesteps(unet: &Unet, batch: &Batch) -> Result<Tensor> {
    let random = Tensor::randint(1000, [batch.images.size()[0]], (Kind::Int64, Device::Cpu));
    let t: Vec<i64> = Vec::try_from(random)?;
    let t: Vec<usize> = t.into_iter().map(|t| t as usize).collect();
    let x_t = unet
        .schedule()
        .q_sample(&centred(&batch.images), &t, &batch.noise())?;
    mean_squared_error(&unet.predict(&x_t, &t, &batch.labels)?, &batch.noise())
}

fn a_number_for_each_image(unet: &Unet, batch: &Batch) -> Result<Tensor> {
    let eps = unet.predict(&centred(&batch.images), &[3], &[None])?;
    Ok(eps.flatten(1, -1).mean_dim(1i64, false, Kind::Float))
}

fn without_gradient(unet: &Unet, batch: &Batch) -> Result<Tensor> {
    Ok(noise_loss(unet, batch)?.detach())
}

fn of_one_layer(unet: &Unet, _: &Batch) -> Result<Tensor> {
    Ok(unet.layers()[1]
        .weight("kernel")?
        .square()
        .mean(Kind::Float))
}

fn fails(_: &Unet, batch: &Batch) -> Result<Tensor> {
    bail!("no loss for {} images", batch.images.size()[0])
}

fn of_another_schedule(unet: &Unet, batch: &Batch) -> Result<Tensor> {
    let t = batch.timesteps(&Schedule::cosine(2000)?);
    mean_squared_error(
        &unet.predict(&centred(&batch.images), &t, &[None])?,
        &batch.noise(),
    )
}

#[test]
fn a_loss_that_cannot_be_trained_with_is_named_with_the_line_to_change() {
    type Case = (diffusion::unet::UnetLoss, &'static str, &'static str);
    let cases: [Case; 8] = [
        (sum, "is not a mean over the images", "not sum(Kind::Float)"),
        (
            own_noise,
            "draws random numbers of its own",
            "batch.noise() in place of randn_like()",
        ),
        (
            own_timesteps,
            "draws random numbers of its own",
            "batch.timesteps(…) for timesteps",
        ),
        (
            a_number_for_each_image,
            "shape [50]",
            "end it with mean(Kind::Float)",
        ),
        (without_gradient, "has no gradient", "without detach()"),
        (
            of_one_layer,
            "does not depend on a weight of shape",
            "freeze the others",
        ),
        (fails, "no loss for 50 images", ""),
        (
            of_another_schedule,
            "there is no step",
            "has the steps 0 to 999",
        ),
    ];
    for precision in [Precision::Float32, Precision::Mixed] {
        let fit = Fit {
            batch_size: 50,
            validation: 20,
            precision,
            quiet: true,
            ..Fit::default()
        };
        for (loss, what, fix) in cases {
            let mut unet = small();
            unet.compile(Adam::new(0.001), loss);
            let before = weights(unet.layers());
            let error = format!("{:#}", unet.fit(&few(200), &fit).unwrap_err());
            assert!(error.contains(what) && error.contains(fix), "{error}");
            assert_eq!(weights(unet.layers()), before);
        }
        // A mean passes, also of a batch that cannot be cut into halves.
        for batch_size in [1, 3] {
            let fit = Fit {
                batch_size,
                validation: 57,
                ..fit.clone()
            };
            small().fit(&few(60), &fit).unwrap();
        }
    }
    let mut unet = Unet::new(UnetConfig {
        width: 16,
        ..UnetConfig::default()
    })
    .unwrap();
    let error = unet
        .fit(&few(200), &Fit::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("not compiled") && error.contains("noise_loss"),
        "{error}"
    );
}

#[test]
fn a_second_fit_goes_on_and_a_copy_is_a_copy() {
    let fit = |epochs| Fit {
        epochs,
        batch_size: 50,
        validation: 0,
        quiet: true,
        ..Fit::default()
    };
    let (split, mut twice, mut once) = (few(150), small(), small());
    twice.fit(&split, &fit(1)).unwrap();
    let mut copy = twice.clone();
    twice.fit(&split, &fit(1)).unwrap();
    once.fit(&split, &fit(2)).unwrap();
    assert_eq!(weights(twice.layers()), weights(once.layers()));
    assert_ne!(weights(copy.layers()), weights(once.layers()));
    copy.fit(&split, &fit(1)).unwrap();
    assert_eq!(weights(copy.layers()), weights(once.layers()));
}

/// The U-Net as a denoiser in one step: it is always told step 0.
fn clean_loss(unet: &Unet, batch: &Batch) -> Result<Tensor> {
    let noisy = (&batch.images + batch.noise() * 0.5).clamp(0.0, 1.0);
    binary_cross_entropy(
        &unet.predict(&centred(&noisy), &[0], &[None])?,
        &batch.images,
    )
}

#[test]
fn another_loss_makes_a_denoiser_of_one_step_of_it() {
    let mut unet = Unet::new(UnetConfig {
        width: 16,
        predicts: Predicts::CleanImage,
        ..UnetConfig::default()
    })
    .unwrap();
    unet.compile(Adam::new(0.001), clean_loss);
    let config = Fit {
        epochs: 2,
        batch_size: 32,
        validation: 0,
        quiet: true,
        ..Fit::default()
    };
    unet.fit(&few(3_000), &config).unwrap();
    let test = Mnist::load().unwrap().test.first(500).unwrap();
    let noisy = Scores::of(&test, 0.5, |noisy| Ok(noisy.shallow_clone())).unwrap();
    let denoised = Scores::of(&test, 0.5, |noisy| {
        Ok(unet.predict(&centred(noisy), &[0], &[None])?.sigmoid())
    });
    let denoised = denoised.unwrap();
    assert!(denoised.psnr > noisy.psnr + 6.0, "{denoised:?}");
    let error = sample(&unet, &[None], &Sampler::ddim(5))
        .unwrap_err()
        .to_string();
    assert!(error.contains("predicts clean images"), "{error}");
}

#[test]
fn a_file_holds_schedule_and_target() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("unet.safetensors");
    let config = UnetConfig {
        width: 16,
        seed: 3,
        schedule: Schedule::linear(300).unwrap(),
        predicts: Predicts::CleanImage,
    };
    let unet = Unet::new(config.clone()).unwrap();
    unet.save(&path).unwrap();
    let loaded = Unet::load(&path).unwrap();
    assert_eq!(*loaded.config(), config);
    assert_eq!(weights(loaded.layers()), weights(unet.layers()));
    // A file of the earlier version says neither.
    let bytes = std::fs::read(&path).unwrap();
    let schedule = br#",\"schedule\":{\"linear\":300},\"predicts\":\"CleanImage\""#;
    let at = bytes
        .windows(schedule.len())
        .position(|part| part == schedule)
        .unwrap();
    let size = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header = [&bytes[8..at], &bytes[at + schedule.len()..8 + size]].concat();
    header.resize(size, b' ');
    let old = [&bytes[..8], &header, &bytes[8 + size..]].concat();
    std::fs::write(&path, old).unwrap();
    let error = format!("{:#}", Unet::load(&path).unwrap_err());
    assert!(
        error.contains("earlier version") && error.contains("does not say its schedule"),
        "{error}"
    );
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
    for average in [1.0, -0.5, f64::NAN] {
        let config = Fit {
            validation: 10,
            moving_average: Some(average),
            ..Fit::default()
        };
        let error = small().fit(&few(100), &config).unwrap_err().to_string();
        assert!(
            error.contains(&format!("decay of the moving average is {average}")),
            "{error}"
        );
    }
}
