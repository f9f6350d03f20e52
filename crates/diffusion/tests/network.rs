//! A network's first weights, layers that freeze, and what a network makes of images.
#![allow(clippy::unwrap_used)]

use diffusion::network::NamedLayer;
use diffusion::prelude::*;
use diffusion::rng::Rng;
use diffusion::train::Precision;

fn cnn(seed: u64) -> Network {
    let network = Network::new([28, 28, 1], lesson_cnn()).unwrap();
    network.seeded(seed)
}

fn calibrated(seed: u64) -> Network {
    cnn(seed).initialised(Initialisation::Calibrated)
}

fn weights(network: &Network) -> Vec<Tensor> {
    let weights = network.layers().iter().flat_map(|layer| &layer.weights);
    weights.map(|(_, weight)| weight.detach().copy()).collect()
}

/// Random images for the lesson's networks.
fn images(count: i64) -> Tensor {
    Rng::new(5).uniform(0.5, &[count, 1, 28, 28]) + 0.5
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

#[test]
fn new_weights_are_glorot_uniform_and_biases_zero() {
    let cnn = cnn(1);
    for layer in cnn
        .layers()
        .iter()
        .filter(|layer| !layer.weights.is_empty())
    {
        let [(_, kernel), (_, bias)] = &layer.weights[..] else {
            panic!("{} has no two weights", layer.name)
        };
        let size = kernel.size();
        let (fan_in, fan_out) = match size[..] {
            [out, height, width, from] => (height * width * from, height * width * out),
            _ => (size[1], size[0]),
        };
        let limit = (6.0 / (fan_in + fan_out) as f64).sqrt();
        let largest = kernel.abs().max().double_value(&[]);
        assert!(
            largest <= limit && largest > 0.9 * limit,
            "{}: {largest} of {limit}",
            layer.name
        );
        // A uniform distribution's deviation is its limit over √3.
        if kernel.numel() > 4000 {
            let deviation = kernel.std(true).double_value(&[]);
            assert!(
                (deviation / (limit / 3f64.sqrt()) - 1.0).abs() < 0.03,
                "{}",
                layer.name
            );
        }
        assert_eq!(bias.abs().max().double_value(&[]), 0.0);
    }
    assert_eq!(weights(&cnn), weights(&self::cnn(1)));
    assert_ne!(weights(&cnn)[0], weights(&self::cnn(2))[0]);
}

#[test]
fn a_normalisation_begins_with_gamma_one_and_beta_zero() {
    let network = Network::new([4, 4, 6], vec![group_norm(3)]).unwrap();
    let layer = network.layer("group_normalization").unwrap();
    let float = (Kind::Float, Device::Cpu);
    assert_eq!(layer.weight("gamma").unwrap(), Tensor::ones([6], float));
    assert_eq!(layer.weight("beta").unwrap(), Tensor::zeros([6], float));
}

/// All weights in one number (FNV-1a over their 32 bits each): another bit anywhere is another number.
fn fingerprint(network: &Network) -> u64 {
    weights(network)
        .iter()
        .flat_map(|weight| Vec::<f32>::try_from(weight.view(-1)).unwrap())
        .fold(0xcbf2_9ce4_8422_2325, |hash, number| {
            (hash ^ u64::from(number.to_bits())).wrapping_mul(0x0100_0000_01b3)
        })
}

#[test]
fn the_lessons_weights_are_those_of_the_first_version() {
    // Printed by the version before initialisations could be chosen, with the lesson's seed and with seed 1.
    assert_eq!(fingerprint(&cnn(26)), 0x8e15_408b_0a31_5f98);
    assert_eq!(fingerprint(&cnn(1)), 0xa88f_476e_ca31_3c9e);
    let default = Network::new([28, 28, 1], lesson_cnn()).unwrap();
    assert_eq!(fingerprint(&default), fingerprint(&cnn(1)));
    let keras = cnn(1).initialised(Initialisation::Keras);
    assert_eq!(fingerprint(&keras), fingerprint(&cnn(1)));
    assert_eq!(Initialisation::default(), Initialisation::Keras);
}

#[test]
fn the_calibrated_initialisation_differs_in_one_kernel_and_one_bias() {
    let pairs = weights(&cnn(1)).into_iter().zip(weights(&calibrated(1)));
    let changed: Vec<usize> = pairs
        .enumerate()
        .filter(|(_, (keras, calibrated))| keras != calibrated)
        .map(|(at, _)| at)
        .collect();
    assert_eq!(
        changed,
        [4, 13],
        "the kernel of dense, the bias of conv2d_2"
    );
    assert!(
        calibrated(1)
            .trainable_weights()
            .iter()
            .all(Tensor::requires_grad)
    );
}

#[test]
fn the_calibrated_initialisation_has_the_mean_brightness_and_keeps_its_units_alive() {
    let mnist = Mnist::load().unwrap();
    let (_, few) = mnist.train.hold_out(5_120).unwrap();
    let few = few.noisy(0.5).unwrap();
    set_seed(1);
    let noisy = add_noise(&mnist.test.images(1000).unwrap(), 0.5).unwrap();
    let mean = |images: &Tensor| images.mean(Kind::Double).double_value(&[]);
    let brightness = mean(&mnist.train.images(60_000).unwrap());
    let fit = Fit {
        validation: 0,
        quiet: true,
        ..Fit::default()
    };
    for seed in 1..=3 {
        let mut cnn = calibrated(seed);
        let output = mean(&cnn.predict(&noisy).unwrap());
        assert!(
            (output - brightness).abs() < 0.005,
            "seed {seed}: {output}; the digits' brightness is {brightness}"
        );
        cnn.compile(Adam::new(0.001), Loss::BinaryCrossEntropy);
        cnn.fit(&few, &fit).unwrap();
        let numbers = cnn.up_to("dense").unwrap().predict(&noisy).unwrap();
        let alive = numbers.gt(0.0).any_dim(0, false);
        let alive = alive.sum(Kind::Int64).int64_value(&[]);
        assert!(alive >= 60, "seed {seed}: {alive} of 64 units are alive");
    }
}

#[test]
fn the_last_four_layers_are_those_keras_means() {
    let mut cnn = cnn(1);
    cnn.freeze(..).unwrap();
    assert_eq!(
        (cnn.summary().trainable(), cnn.trainable_weights().len()),
        (0, 0)
    );
    cnn.unfreeze_last(4).unwrap();
    let trainable: Vec<&str> = cnn
        .layers()
        .iter()
        .filter(|layer| layer.is_trainable())
        .map(|layer| layer.name.as_str())
        .collect();
    assert_eq!(
        trainable,
        [
            "reshape",
            "conv2d_transpose",
            "conv2d_transpose_1",
            "conv2d_2"
        ]
    );
    assert_eq!(cnn.summary().trainable(), 9_248 + 4_624 + 145);
    cnn.unfreeze(1..=2).unwrap();
    assert_eq!(cnn.summary().trainable(), 9_248 + 4_624 + 145 + 160 + 4_640);
}

#[test]
fn layers_out_of_range_are_named() {
    let mut cnn = cnn(1);
    for (error, words) in [
        (
            cnn.freeze(0..12).unwrap_err(),
            "layers 0..12 are out of range: this network has 10 layers, 0 to 9",
        ),
        (
            cnn.unfreeze(12..).unwrap_err(),
            "layers 12..10 are out of range",
        ),
        (cnn.freeze(..=10).unwrap_err(), "layers 0..11"),
        (
            cnn.unfreeze_last(11).unwrap_err(),
            "the last 11 layers: this network has 10",
        ),
    ] {
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(
        cnn.summary().trainable(),
        3_255_233,
        "an error changes nothing"
    );
}

#[test]
fn frozen_layers_do_not_change_by_a_single_bit() {
    let mnist = Mnist::load().unwrap();
    let (_, few) = mnist.test.hold_out(300).unwrap();
    let mut cnn = cnn(1);
    cnn.freeze(..).unwrap();
    cnn.unfreeze_last(4).unwrap();
    cnn.compile(Adam::new(0.001), Loss::BinaryCrossEntropy);
    let before = weights(&cnn);
    let fit = Fit {
        batch_size: 100,
        validation: 0,
        ..Fit::default()
    };
    cnn.fit(&few.noisy(0.5).unwrap(), &fit).unwrap();
    let changed: Vec<bool> = before
        .iter()
        .zip(weights(&cnn))
        .map(|(before, after)| *before != after)
        .collect();
    // Four layers with two weights each are frozen; of the last four, reshape has none.
    assert_eq!(changed, [[false; 8].as_slice(), &[true; 6]].concat());
}

/// Whether each layer may be trained.
fn trainable(network: &Network) -> Vec<bool> {
    let layers = network.layers().iter();
    layers.map(NamedLayer::is_trainable).collect()
}

#[test]
fn new_first_weights_leave_frozen_layers_frozen() {
    let mut network = cnn(1);
    network.freeze(1..=4).unwrap();
    let frozen = trainable(&network);
    let anew = network.seeded(2).initialised(Initialisation::Calibrated);
    assert_eq!(trainable(&anew), frozen);
    assert_eq!(anew.trainable_weights().len(), 8);
    for layer in anew.layers() {
        let grad = |(_, weight): &(&str, Tensor)| weight.requires_grad() == layer.is_trainable();
        assert!(layer.weights.iter().all(grad), "{}", layer.name);
    }
    assert_eq!(weights(&anew), weights(&calibrated(2)));
}

#[test]
fn a_clone_has_weights_and_an_optimizer_of_its_own() {
    let mnist = Mnist::load().unwrap();
    let few = mnist.test.first(64).unwrap().noisy(0.5).unwrap();
    let fit = Fit {
        batch_size: 32,
        validation: 0,
        quiet: true,
        ..Fit::default()
    };
    let mut network = cnn(1);
    network.freeze(0..3).unwrap();
    network.compile(Adam::new(0.001), Loss::BinaryCrossEntropy);
    network.fit(&few, &fit).unwrap();
    let before = weights(&network);
    let mut copy = network.clone();
    assert_eq!(weights(&copy), before);
    assert_eq!(trainable(&copy), trainable(&network));
    // The clone is compiled, and goes on as the network itself would, which does not notice.
    copy.fit(&few, &fit).unwrap();
    assert_eq!(weights(&network), before);
    assert_ne!(weights(&copy), before);
    network.fit(&few, &fit).unwrap();
    assert_eq!(weights(&copy), weights(&network));
    copy.unfreeze(..).unwrap();
    assert!(!network.layers()[1].is_trainable());
    let mut bias = copy.layer("dense").unwrap().weight("bias").unwrap();
    let _ = tch::no_grad(|| bias.fill_(3.0));
    assert_ne!(weights(&copy), weights(&network));
    let bias = network.layer("dense").unwrap().weight("bias").unwrap();
    assert!(bias.abs().max().double_value(&[]) < 1.0);
}

#[test]
fn images_of_another_shape_are_refused() {
    let cnn = cnn(1);
    let numbers = cnn.after("dense").unwrap();
    for shape in [
        &[2, 28, 28][..],
        &[2, 28, 28, 1],
        &[2, 1, 28, 27],
        &[2, 3, 28, 28],
        &[0, 1, 28, 28],
        &[784],
        &[],
    ] {
        let images = Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        for result in [
            cnn.predict(&images),
            cnn.predict_in(Precision::Float32, &images),
            cnn.forward(&images),
            cnn.logits(&images),
        ] {
            let error = result.unwrap_err().to_string();
            let words = "the network takes (28, 28, 1) for each image, a tensor (N, 1, 28, 28)";
            assert!(error.contains(words), "{error}");
            assert!(error.contains(&format!("{shape:?}")), "{error}");
        }
        let error = numbers.predict(&images).unwrap_err().to_string();
        let words = "the network takes 64 for each image, a tensor (N, 64)";
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn whole_numbers_and_other_shapes_are_no_images() {
    let cnn = cnn(1);
    let bytes = Tensor::zeros([1, 1, 28, 28], (Kind::Uint8, Device::Cpu));
    let flat = Tensor::zeros([784], (Kind::Float, Device::Cpu));
    let up_to = cnn.up_to("dense").unwrap();
    for (error, words) in [
        (
            cnn.predict(&bytes).unwrap_err(),
            "takes fractions; this tensor holds Uint8 numbers",
        ),
        (
            cnn.forward(&bytes).unwrap_err(),
            "this tensor holds Uint8 numbers",
        ),
        (
            cnn.logits(&bytes.to_kind(Kind::Int64)).unwrap_err(),
            "this tensor holds Int64 numbers",
        ),
        (up_to.predict(&flat).unwrap_err(), "this one has [784]"),
        (
            add_noise(&bytes, 0.5).unwrap_err(),
            "this tensor holds Uint8 numbers",
        ),
        (
            binary_cross_entropy(&flat, &bytes).unwrap_err(),
            "[784] and [1, 1, 28, 28]",
        ),
        (median_filter(&bytes).unwrap_err(), "of Uint8"),
    ] {
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn results_have_the_kind_of_the_images_and_only_forward_has_gradients() {
    let cnn = cnn(1);
    for kind in [Kind::Float, Kind::Double, Kind::BFloat16] {
        let images = images(2).to_kind(kind);
        let (predicted, forward) = (cnn.predict(&images).unwrap(), cnn.forward(&images).unwrap());
        assert_eq!((predicted.kind(), forward.kind()), (kind, kind));
        assert_eq!(forward.size(), [2, 1, 28, 28]);
        assert!(!predicted.requires_grad() && forward.requires_grad());
        // 8 significant bits in the worst case: `predict` says how far that is.
        assert!(largest_difference(&predicted, &forward) < 0.02, "{kind:?}");
        let logits = cnn.logits(&images).unwrap();
        assert_eq!(logits.sigmoid(), forward);
    }
}

#[test]
fn an_image_has_the_same_result_alone_and_among_three_hundred() {
    let pooled = Network::new([28, 28, 1], digit_classifier()).unwrap();
    let normed = Network::new(
        [28, 28, 1],
        vec![
            conv2d(32, 5).strides(2),
            group_norm(2).silu(),
            up_sampling2d(2),
            conv2d(1, 3).sigmoid(),
        ],
    );
    let all = images(300);
    // The same first half, and another second half.
    let others = Tensor::cat(&[all.narrow(0, 0, 150), all.narrow(0, 0, 150)], 0);
    for network in [cnn(1), pooled, normed.unwrap()] {
        // Another number of images is summed in another order, so the bits may differ, but no more.
        for (precision, bound) in [(Precision::Float32, 1e-6), (Precision::Mixed, 0.01)] {
            let together = network.predict_in(precision, &all).unwrap();
            assert_eq!(together.size()[0], 300);
            let among_others = network.predict_in(precision, &others).unwrap();
            assert_eq!(among_others.narrow(0, 0, 150), together.narrow(0, 0, 150));
            for at in [0, 1, 127, 149, 150, 255, 256, 299] {
                let alone = all.narrow(0, at, 1);
                let alone = network.predict_in(precision, &alone).unwrap();
                let difference = largest_difference(&alone, &together.narrow(0, at, 1));
                assert!(
                    difference < bound,
                    "image {at} in {precision}: {difference}"
                );
            }
        }
    }
}

#[test]
fn an_evaluation_in_mixed_precision_equals_one_in_float32() {
    let weights = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../notebooks/weights/cnn.safetensors"
    );
    let cnn = Network::load(weights).unwrap();
    let test = Mnist::load().unwrap().test;
    let [exact, mixed] = [Precision::Float32, Precision::Mixed]
        .map(|precision| Scores::of(&test, 0.5, |noisy| cnn.predict_in(precision, noisy)).unwrap());
    assert_eq!(mixed.images, 10_000);
    let (psnr, ssim) = (mixed.psnr - exact.psnr, mixed.ssim - exact.ssim);
    assert!(psnr.abs() < 0.01, "PSNR differs by {psnr} dB");
    assert!(ssim.abs() < 0.001, "SSIM differs by {ssim}");
}
