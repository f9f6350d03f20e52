//! The lesson's network: its first weights, layers that freeze, files that are whole or refused.
#![allow(clippy::unwrap_used)]

use diffusion::prelude::*;
use std::collections::HashMap;
use std::fs;

fn cnn(seed: u64) -> Network {
    Network::new([28, 28, 1], lesson_cnn())
        .unwrap()
        .seeded(seed)
}

/// A network that is compiled as in the lesson.
fn compiled(mut network: Network) -> Network {
    network.compile(Adam::new(0.001), Loss::BinaryCrossEntropy);
    network
}

fn weights(cnn: &Network) -> Vec<Tensor> {
    cnn.layers()
        .iter()
        .flat_map(|layer| {
            layer
                .weights
                .iter()
                .map(|(_, weight)| weight.detach().copy())
        })
        .collect()
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

/// All weights in one number (FNV-1a over their 32 bits each): another bit anywhere is another number.
fn fingerprint(cnn: &Network) -> u64 {
    weights(cnn)
        .iter()
        .flat_map(|weight| Vec::<f32>::try_from(weight.view(-1)).unwrap())
        .fold(0xcbf2_9ce4_8422_2325, |hash, number| {
            (hash ^ u64::from(number.to_bits())).wrapping_mul(0x0100_0000_01b3)
        })
}

#[test]
fn the_default_weights_are_those_of_the_first_version() {
    // Printed by the first version, whose default seed was 26.
    assert_eq!(fingerprint(&cnn(26)), 0x8e15_408b_0a31_5f98);
    assert_eq!(fingerprint(&cnn(1)), 0xa88f_476e_ca31_3c9e);
    let default = Network::new([28, 28, 1], lesson_cnn()).unwrap();
    assert_eq!(fingerprint(&default), fingerprint(&cnn(1)));
}

fn calibrated(seed: u64) -> Network {
    cnn(seed).initialised(Initialisation::Calibrated)
}

#[test]
fn a_file_keeps_the_seed_and_the_initialisation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cnn.safetensors");
    for (seed, cnn) in [(3, cnn(3)), (4, calibrated(4))] {
        cnn.save(&path).unwrap();
        // Drawn anew, the weights depend on what the file says besides the weights.
        let again = Network::load(&path).unwrap().seeded(seed);
        assert_eq!(fingerprint(&again), fingerprint(&cnn));
    }
    assert_ne!(fingerprint(&cnn(4)), fingerprint(&calibrated(4)));
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
    seed(1);
    let noisy = add_noise(&mnist.test.images(1000).unwrap(), 0.5).unwrap();
    let mean = |images: &Tensor| images.mean(Kind::Double).double_value(&[]);
    let brightness = mean(&mnist.train.images(60_000).unwrap());
    let fit = Fit {
        validation: 0,
        quiet: true,
        ..Fit::default()
    };
    for seed in 1..=3 {
        let mut cnn = compiled(calibrated(seed));
        let output = mean(&cnn.predict(&noisy).unwrap());
        assert!(
            (output - brightness).abs() < 0.005,
            "seed {seed}: {output}; the digits' brightness is {brightness}"
        );
        cnn.fit(&few.noisy(0.5).unwrap(), &fit).unwrap();
        let units = cnn.up_to("dense").unwrap().predict(&noisy).unwrap();
        let alive = units.gt(0.0).any_dim(0, false);
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
    let before = weights(&cnn);
    let mut cnn = compiled(cnn);
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

#[test]
fn a_checkpoint_brings_the_weights_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er/cnn.safetensors");
    let saved = cnn(5);
    saved.save(&path).unwrap();
    assert_eq!(weights(&Network::load(&path).unwrap()), weights(&saved));
    saved.save_half(&path).unwrap();
    assert!(fs::metadata(&path).unwrap().len() < 6_600_000);
    for (half, full) in weights(&Network::load(&path).unwrap())
        .iter()
        .zip(weights(&saved))
    {
        let largest = full.abs().max().double_value(&[]);
        assert!((half - full).abs().max().double_value(&[]) <= largest * 2f64.powi(-11));
    }
    // Nothing half-written lies around.
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn a_file_keeps_what_is_frozen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cnn.safetensors");
    let mut tuned = cnn(6);
    tuned.freeze(..).unwrap();
    tuned.unfreeze_last(4).unwrap();
    tuned.save(&path).unwrap();
    let loaded = Network::load(&path).unwrap();
    for (loaded, saved) in loaded.layers().iter().zip(tuned.layers()) {
        assert_eq!(
            loaded.is_trainable(),
            saved.is_trainable(),
            "{}",
            saved.name
        );
        let mut weights = loaded.weights.iter();
        assert!(weights.all(|(_, weight)| weight.requires_grad() == saved.is_trainable()));
    }
    assert_eq!(loaded.summary(), tuned.summary());
}

/// The metadata of a network's file.
fn metadata(file: &[u8]) -> HashMap<String, String> {
    let (_, header) = safetensors::SafeTensors::read_metadata(file).unwrap();
    header.metadata().clone().unwrap()
}

/// A safetensors file with these tensors and these texts.
fn checkpoint(texts: &HashMap<String, String>, tensors: &[(String, Vec<usize>)]) -> Vec<u8> {
    let zeros = vec![
        0u8;
        4 * tensors
            .iter()
            .map(|(_, shape)| shape.iter().product::<usize>())
            .max()
            .unwrap_or(0)
    ];
    let views = tensors.iter().map(|(name, shape)| {
        let bytes = &zeros[..4 * shape.iter().product::<usize>()];
        (
            name.clone(),
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes)
                .unwrap(),
        )
    });
    safetensors::serialize(views, &Some(texts.clone())).unwrap()
}

#[test]
fn a_file_that_does_not_fit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cnn.safetensors");
    let model = cnn(5);
    model.save(&path).unwrap();
    let good = fs::read(&path).unwrap();
    let texts = metadata(&good);
    let of_kind = |kind: &str| {
        let mut texts = texts.clone();
        texts.insert("model".to_owned(), kind.to_owned());
        texts
    };
    let shapes: Vec<(String, Vec<usize>)> = model
        .layers()
        .iter()
        .flat_map(|layer| {
            layer.weights.iter().map(|(name, weight)| {
                (
                    format!("{}.{name}", layer.name),
                    weight.size().iter().map(|&size| size as usize).collect(),
                )
            })
        })
        .collect();
    let without_first = checkpoint(&texts, &shapes[1..]);
    let with_extra = checkpoint(
        &texts,
        &[shapes.clone(), vec![("attention.kernel".into(), vec![2])]].concat(),
    );
    let mut reshaped = shapes.clone();
    reshaped[2].1 = vec![32, 5, 5, 16];
    let cases: [(Vec<u8>, &str); 9] = [
        (good[..good.len() - 10].to_vec(), "truncated"),
        (good[..100].to_vec(), "truncated"),
        (
            b"not a checkpoint at all, just text".to_vec(),
            "not a safetensors file",
        ),
        (
            checkpoint(&of_kind("unet"), &shapes),
            "kind \"unet\"; expected \"network\"",
        ),
        (
            checkpoint(&of_kind("cnn"), &shapes),
            "a cnn of an earlier version of this lesson, without its list of layers: delete the file",
        ),
        (
            checkpoint(&HashMap::new(), &shapes),
            "does not say what kind of network it holds",
        ),
        (without_first, "the tensor conv2d.kernel is missing"),
        (with_extra, "does not have: attention.kernel"),
        (
            checkpoint(&texts, &reshaped),
            "conv2d_1.kernel has shape [32, 5, 5, 16]; expected [32, 3, 3, 16]",
        ),
    ];
    for (bytes, words) in cases {
        fs::write(&path, bytes).unwrap();
        let error = format!("{:?}", Network::load(&path).unwrap_err());
        assert!(error.contains(words), "{words:?} is not in: {error}");
        assert!(error.contains("cnn.safetensors"), "{error}");
    }
    let error = format!(
        "{:?}",
        Network::load(folder.path().join("none")).unwrap_err()
    );
    assert!(error.contains("cannot read the checkpoint"), "{error}");
}

#[test]
fn weights_of_another_type_or_not_finite_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cnn.safetensors");
    let model = cnn(5);
    model.save(&path).unwrap();
    let good = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let mut holes = good.clone();
    holes[header..header + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let text = String::from_utf8(good[8..header].to_vec())
        .unwrap()
        .replace("\"F32\"", "\"I32\"");
    let integers = [&good[..8], text.as_bytes(), &good[header..]].concat();
    for (bytes, words) in [
        (holes, "numbers that are not finite"),
        (integers, "holds I32; expected F32 or F16"),
    ] {
        fs::write(&path, bytes).unwrap();
        let error = format!("{:?}", Network::load(&path).unwrap_err());
        assert!(error.contains(words), "{words:?} is not in: {error}");
    }
}

#[test]
fn an_older_checkpoint_survives_a_failed_save() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cnn.safetensors");
    let model = cnn(5);
    model.save(&path).unwrap();
    // A folder in the way of the temporary file's final rename.
    let blocked = folder.path().join("blocked");
    fs::create_dir(&blocked).unwrap();
    let error = format!("{:?}", model.save(&blocked).unwrap_err());
    assert!(
        error.contains("cannot write") && error.contains("blocked"),
        "{error}"
    );
    let mut names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["blocked", "cnn.safetensors"]);
    assert!(Network::load(&path).is_ok());
}

#[test]
fn images_of_another_shape_are_refused() {
    let error = cnn(1)
        .predict(&Tensor::zeros([2, 28, 28], (Kind::Float, tch::Device::Cpu)))
        .unwrap_err();
    assert!(
        error.to_string().contains(
            "takes (28, 28, 1) for each image, a tensor (N, 1, 28, 28); this one has [2, 28, 28]"
        ),
        "{error}"
    );
}

#[test]
fn a_file_with_another_list_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cnn.safetensors");
    cnn(5).save(&path).unwrap();
    let texts = metadata(&fs::read(&path).unwrap());
    let with_list = |list: Option<&str>| {
        let mut texts = texts.clone();
        texts.remove("config");
        texts.extend(list.map(|list| ("config".to_owned(), list.to_owned())));
        texts
    };
    let even = texts["config"].replacen("\"size\":3", "\"size\":4", 1);
    let unknown = texts["config"].replacen("\"frozen\":[]", "\"frozen\":[\"attention\"]", 1);
    for (list, words) in [
        (None, "names no configuration"),
        (Some("{\"depth\": 3}"), "list of layers cannot be read"),
        (Some(even.as_str()), "layer 1, conv2d(16, 4).relu()"),
        (Some(unknown.as_str()), "no layer \"attention\""),
    ] {
        fs::write(
            &path,
            checkpoint(&with_list(list), &[("x".into(), vec![1])]),
        )
        .unwrap();
        let error = format!("{:?}", Network::load(&path).unwrap_err());
        assert!(error.contains(words), "{words:?} is not in: {error}");
    }
}

#[test]
fn whole_numbers_and_other_shapes_are_no_images() {
    let cnn = cnn(1);
    let bytes = Tensor::zeros([1, 1, 28, 28], (Kind::Uint8, Device::Cpu));
    let flat = Tensor::zeros([784], (Kind::Float, Device::Cpu));
    for (error, words) in [
        (
            cnn.predict(&bytes).unwrap_err(),
            "this tensor holds Uint8 numbers",
        ),
        (
            cnn.up_to("dense").unwrap().forward(&flat).unwrap_err(),
            "this one has [784]",
        ),
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
fn an_evaluation_in_mixed_precision_equals_one_in_float32() {
    let weights = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../notebooks/weights/cnn.safetensors"
    );
    let cnn = Network::load(weights).unwrap();
    let test = Mnist::load().unwrap().test;
    let [exact, mixed] = [Precision::Float32, Precision::Mixed]
        .map(|precision| score(&test, 0.5, |noisy| cnn.predict_in(precision, noisy)).unwrap());
    assert_eq!(mixed.images, 10_000);
    let (psnr, ssim) = (mixed.psnr - exact.psnr, mixed.ssim - exact.ssim);
    assert!(psnr.abs() < 0.01, "PSNR differs by {psnr} dB");
    assert!(ssim.abs() < 0.001, "SSIM differs by {ssim}");
}

/// Runs this very test again as a process with another home folder, where it takes the first branch.
#[test]
fn a_tilde_is_the_home_folder() {
    if let Some(home) = std::env::var_os("DIFFUSION_TEST_HOME") {
        let home = std::path::Path::new(&home);
        cnn(1).save("~/nets/cnn.safetensors").unwrap();
        assert!(home.join("nets/cnn.safetensors").is_file());
        assert_eq!(
            weights(&Network::load("~/nets/cnn.safetensors").unwrap()),
            weights(&cnn(1))
        );
        let few = Mnist::load_from("~/data").unwrap().train;
        let pairs = few.noisy(0.5).unwrap();
        let fit = Fit {
            batch_size: 10,
            validation: 2,
            ..Fit::default()
        };
        let mut cnn = compiled(cnn(1));
        let training = cnn.fit_in_background(&pairs, &fit, "~/run").unwrap();
        training.wait().unwrap();
        assert!(home.join("run/checkpoint.safetensors").is_file());
        // What is there already is not overwritten.
        let again = Fit {
            checkpoint: Some("~/run/checkpoint.safetensors".into()),
            ..fit
        };
        let error = cnn.fit(&pairs, &again).unwrap_err().to_string();
        assert!(error.contains("holds a training already"), "{error}");
        return;
    }
    let (home, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let data = home.path().join("data");
    fs::create_dir(&data).unwrap();
    for (name, header) in [
        ("images-idx3-ubyte", vec![0x803u32, 12, 28, 28]),
        ("labels-idx1-ubyte", vec![0x801, 12]),
    ] {
        let numbers = header[1..].iter().product::<u32>() as usize;
        let header: Vec<u8> = header.iter().flat_map(|word| word.to_be_bytes()).collect();
        let file = [header, vec![1u8; numbers]].concat();
        for split in ["train", "t10k"] {
            fs::write(data.join(format!("{split}-{name}")), &file).unwrap();
        }
    }
    let again = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_tilde_is_the_home_folder"])
        .env("HOME", home.path())
        .env("DIFFUSION_TEST_HOME", home.path())
        .current_dir(&elsewhere)
        .output()
        .unwrap();
    assert!(again.status.success(), "{again:?}");
    let left = fs::read_dir(&elsewhere).unwrap().count();
    assert_eq!(left, 0, "a folder named ~ was made");
}
