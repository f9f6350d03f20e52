//! Networks in files: they come back whole, or are refused with what is wrong.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

use diffusion::network::NamedLayer;
use diffusion::prelude::*;
use safetensors::tensor::{Dtype, TensorView};

fn cnn(seed: u64) -> Network {
    let network = Network::new([28, 28, 1], lesson_cnn()).unwrap();
    network.seeded(seed)
}

/// A small network with every kind of layer.
fn small() -> Network {
    let list = vec![
        conv2d(4, 3).strides(2).relu(),
        group_norm(2).silu(),
        max_pooling2d(2),
        up_sampling2d(2),
        flatten(),
        dense(10).silu(),
        dense(7 * 7).relu(),
        reshape([7, 7, 1]),
        conv2d_transpose(2, 5).strides(2).softmax(),
        conv2d(1, 1).sigmoid(),
    ];
    Network::new([14, 14, 1], list).unwrap()
}

fn weights(network: &Network) -> Vec<Tensor> {
    let weights = network.layers().iter().flat_map(|layer| &layer.weights);
    weights.map(|(_, weight)| weight.detach().copy()).collect()
}

fn trainable(network: &Network) -> Vec<bool> {
    let layers = network.layers().iter();
    layers.map(NamedLayer::is_trainable).collect()
}

/// The metadata of a file.
fn config(path: &Path) -> String {
    let bytes = fs::read(path).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    header.metadata().as_ref().unwrap()["config"].clone()
}

#[test]
fn a_file_brings_list_weights_and_frozen_layers_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er/network.safetensors");
    let mut frozen = small().seeded(4);
    frozen.freeze(0..3).unwrap();
    frozen.freeze(6..7).unwrap();
    let mut all_frozen = cnn(5);
    all_frozen.freeze(..).unwrap();
    let classifier = Network::new([28, 28, 1], digit_classifier()).unwrap();
    for saved in [frozen, all_frozen, classifier] {
        saved.save(&path).unwrap();
        let loaded = Network::load(&path).unwrap();
        assert_eq!(weights(&loaded), weights(&saved));
        assert_eq!(loaded.summary(), saved.summary());
        assert_eq!(trainable(&loaded), trainable(&saved));
        for layer in loaded.layers() {
            let grad =
                |(_, weight): &(&str, Tensor)| weight.requires_grad() == layer.is_trainable();
            assert!(layer.weights.iter().all(grad), "{}", layer.name);
        }
        let input = &saved.layers()[0].output_shape;
        let x = Tensor::rand(
            [2, input[2], input[0], input[1]],
            (Kind::Float, Device::Cpu),
        );
        assert_eq!(loaded.predict(&x).unwrap(), saved.predict(&x).unwrap());
        // Nothing half-written lies around.
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}

#[test]
fn a_loaded_network_is_not_compiled() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cnn.safetensors");
    let mut saved = cnn(5);
    saved.compile(Adam::new(0.001), Loss::BinaryCrossEntropy);
    saved.save(&path).unwrap();
    let pairs = Mnist::load().unwrap().test.first(10).unwrap().noisy(0.5);
    let error = Network::load(&path)
        .unwrap()
        .fit(&pairs.unwrap(), &Fit::default())
        .unwrap_err();
    assert!(error.to_string().contains("not compiled"), "{error}");
}

#[test]
fn a_file_keeps_the_seed_and_the_initialisation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cnn.safetensors");
    let calibrated = |seed| cnn(seed).initialised(Initialisation::Calibrated);
    for (saved, keras) in [(cnn(3), true), (calibrated(3), false)] {
        saved.save(&path).unwrap();
        let loaded = Network::load(&path).unwrap();
        // With the same initialisation, or the same seed, chosen again nothing changes.
        let initialisation = match keras {
            true => Initialisation::Keras,
            false => Initialisation::Calibrated,
        };
        assert_eq!(
            weights(&loaded.clone().initialised(initialisation)),
            weights(&saved)
        );
        assert_eq!(weights(&loaded.clone().seeded(3)), weights(&saved));
        assert_ne!(weights(&loaded.seeded(4)), weights(&saved));
    }
    assert_ne!(weights(&cnn(3)), weights(&calibrated(3)));
}

#[test]
fn half_precision_is_half_the_size_and_rounds_to_eleven_bits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cnn.safetensors");
    let mut saved = cnn(5);
    saved.freeze(0..4).unwrap();
    saved.save_half(&path).unwrap();
    assert!(fs::metadata(&path).unwrap().len() < 6_600_000);
    let loaded = Network::load(&path).unwrap();
    for (half, full) in weights(&loaded).iter().zip(weights(&saved)) {
        assert_eq!(half.kind(), Kind::Float);
        let largest = full.abs().max().double_value(&[]);
        assert!((half - full).abs().max().double_value(&[]) <= largest * 2f64.powi(-11));
    }
    assert_eq!(trainable(&loaded), trainable(&saved));
}

/// A safetensors file with these tensors, all zero, and this metadata.
fn file(metadata: &[(&str, &str)], tensors: &[(String, Vec<usize>)]) -> Vec<u8> {
    let numbers = |shape: &[usize]| shape.iter().product::<usize>();
    let most = tensors.iter().map(|(_, shape)| numbers(shape)).max();
    let zeros = vec![0u8; 4 * most.unwrap_or(0)];
    let views = tensors.iter().map(|(name, shape)| {
        let bytes = &zeros[..4 * numbers(shape)];
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap();
        (name.clone(), view)
    });
    let texts = metadata
        .iter()
        .map(|(key, text)| (key.to_string(), text.to_string()));
    let metadata = Some(texts.collect()).filter(|_| !metadata.is_empty());
    safetensors::serialize(views, &metadata).unwrap()
}

/// The names and shapes of a network's weights, as a file names them.
fn shapes(network: &Network) -> Vec<(String, Vec<usize>)> {
    let layers = network.layers().iter();
    let of_layer = |layer: &NamedLayer| -> Vec<(String, Vec<usize>)> {
        let named = |(name, weight): &(&str, Tensor)| {
            let shape = weight.size().iter().map(|&size| size as usize).collect();
            (format!("{}.{name}", layer.name), shape)
        };
        layer.weights.iter().map(named).collect()
    };
    layers.flat_map(of_layer).collect()
}

#[test]
fn a_file_that_does_not_fit_is_refused_with_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cnn.safetensors");
    let network = cnn(5);
    network.save(&path).unwrap();
    let good = fs::read(&path).unwrap();
    let config = config(&path);
    let ours = [("model", "network"), ("config", config.as_str())];
    let shapes = shapes(&network);
    let with_extra = [shapes.clone(), vec![("attention.kernel".into(), vec![2])]].concat();
    let mut reshaped = shapes.clone();
    reshaped[2].1 = vec![32, 5, 5, 16];
    let changed = |from: &str, to: &str| {
        assert!(config.contains(from), "{from:?} is not in {config}");
        config.replacen(from, to, 1)
    };
    let configured = |config: &str| file(&[("model", "network"), ("config", config)], &shapes);
    let cases: [(Vec<u8>, &str); 17] = [
        (good[..good.len() - 10].to_vec(), "truncated"),
        (good[..100].to_vec(), "truncated"),
        (
            b"not a checkpoint at all, just text".to_vec(),
            "not a safetensors file",
        ),
        (vec![], "not a safetensors file"),
        (
            file(&[("model", "unet"), ours[1]], &shapes),
            "kind \"unet\"; expected \"network\"",
        ),
        (
            file(&[], &shapes),
            "does not say what kind of network it holds",
        ),
        (
            file(&ours, &shapes[1..]),
            "the tensor conv2d.kernel is missing",
        ),
        (file(&ours, &with_extra), "does not have: attention.kernel"),
        (
            file(&ours, &reshaped),
            "conv2d_1.kernel has shape [32, 5, 5, 16]; expected [32, 3, 3, 16]",
        ),
        (file(&ours[..1], &shapes), "names no configuration"),
        (
            configured("{\"depth\": 3}"),
            "list of layers cannot be read",
        ),
        (configured("not JSON"), "list of layers cannot be read"),
        (
            configured(&changed("\"seed\":", "\"start\":\"calibrated\",\"seed\":")),
            "list of layers cannot be read",
        ),
        (
            configured(&changed("\"keras\"", "\"kera\"")),
            "list of layers cannot be read",
        ),
        (
            configured(&changed("\"filters\":16", "\"filters\":0")),
            "layer 1, conv2d(0, 3).relu()",
        ),
        (
            configured(&changed("\"frozen\":[]", "\"frozen\":[\"dense_7\"]")),
            "no layer \"dense_7\"",
        ),
        (
            configured(&changed("{\"units\":64}", "{\"units\":65}")),
            "dense.kernel has shape [64, 25088]; expected [65, 25088]",
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
    cnn(5).save(&path).unwrap();
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
fn an_older_file_survives_a_failed_save() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cnn.safetensors");
    let network = small();
    network.save(&path).unwrap();
    // A folder in the way of the temporary file's final rename.
    let blocked = folder.path().join("blocked");
    fs::create_dir(&blocked).unwrap();
    let error = format!("{:?}", network.save(&blocked).unwrap_err());
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

/// A file as the version before lists of layers wrote it.
fn of_the_earlier_version(model: &str) -> Vec<u8> {
    let metadata = [("model", model), ("config", "{\"seed\":26}")];
    file(&metadata, &shapes(&cnn(26)))
}

#[test]
fn a_file_of_the_earlier_version_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.safetensors");
    for model in ["cnn", "classifier"] {
        fs::write(&path, of_the_earlier_version(model)).unwrap();
        let error = format!("{:#}", Network::load(&path).unwrap_err());
        let words = format!(
            "it is a {model} of an earlier version of this lesson: delete the file, or train the network anew"
        );
        assert!(error.contains(&words), "{error}");
        assert!(error.contains("old.safetensors"), "{error}");
    }
}

#[test]
fn the_lessons_own_weights_are_networks_of_the_lessons_lists() {
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/../../notebooks/weights");
    for (name, list, seed) in [
        ("cnn", lesson_cnn(), 26),
        ("classifier", digit_classifier(), 1),
    ] {
        let loaded = Network::load(format!("{ours}/{name}.safetensors")).unwrap();
        let built = Network::new([28, 28, 1], list).unwrap().seeded(seed);
        assert_eq!(loaded.summary(), built.summary());
        let initialisation = Initialisation::Keras;
        let anew = loaded.clone().initialised(initialisation);
        assert_eq!(weights(&anew), weights(&built), "{name}: another seed");
    }
}

/// The variable that tells this program that it runs again, for one test alone, with a folder of its own.
const AGAIN: &str = "DIFFUSION_TEST_HOME";

/// Runs a test of this program once more, in this folder, and gives what it prints.
fn again(test: &str, home: &Path, folder: &Path) -> String {
    let again = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("HOME", home)
        .env(AGAIN, home)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(again.status.success(), "{again:?}");
    String::from_utf8(again.stdout).unwrap()
}

#[test]
fn a_trained_network_is_the_saved_one_or_the_lessons_own() {
    if std::env::var_os(AGAIN).is_some() {
        match Network::trained("cnn") {
            Ok(network) => println!("It has {} layers.", network.layers().len()),
            Err(error) => println!("Refused: {error:#}"),
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let try_it = || {
        let test = "a_trained_network_is_the_saved_one_or_the_lessons_own";
        again(test, folder.path(), folder.path())
    };
    let printed = try_it();
    assert!(
        printed.contains("Refused: there is no trained network \"cnn\""),
        "{printed}"
    );
    assert!(
        printed.contains("saved/cnn.safetensors and weights/cnn.safetensors"),
        "{printed}"
    );

    cnn(1)
        .save(folder.path().join("weights/cnn.safetensors"))
        .unwrap();
    let printed = try_it();
    assert!(
        printed.contains("Weights from weights/cnn.safetensors."),
        "{printed}"
    );
    assert!(printed.contains("It has 10 layers."), "{printed}");

    let saved = folder.path().join("saved/cnn.safetensors");
    small().save(&saved).unwrap();
    let printed = try_it();
    assert!(
        printed.contains("Weights from saved/cnn.safetensors."),
        "{printed}"
    );
    assert!(printed.contains("It has 11 layers."), "{printed}");

    // A file of the earlier version, and one that is no network at all, are skipped.
    for (bytes, words) in [
        (
            of_the_earlier_version("cnn"),
            "an earlier version of this lesson",
        ),
        (b"half a file".to_vec(), "truncated"),
    ] {
        fs::write(&saved, bytes).unwrap();
        let printed = try_it();
        let skipped =
            |line: &str| line.contains("saved/cnn.safetensors is skipped") && line.contains(words);
        assert_eq!(
            printed.lines().filter(|line| skipped(line)).count(),
            1,
            "{printed}"
        );
        assert!(
            printed.contains("Weights from weights/cnn.safetensors."),
            "{printed}"
        );
        assert!(printed.contains("It has 10 layers."), "{printed}");
    }
}

#[test]
fn a_tilde_is_the_home_folder() {
    if let Some(home) = std::env::var_os(AGAIN) {
        let home = Path::new(&home);
        cnn(1).save("~/nets/cnn.safetensors").unwrap();
        assert!(home.join("nets/cnn.safetensors").is_file());
        let loaded = Network::load("~/nets/cnn.safetensors").unwrap();
        assert_eq!(weights(&loaded), weights(&cnn(1)));
        let few = Mnist::load_from("~/data")
            .unwrap()
            .train
            .noisy(0.5)
            .unwrap();
        let fit = Fit {
            batch_size: 10,
            validation: 2,
            ..Fit::default()
        };
        let mut network = cnn(1);
        network.compile(Adam::new(0.001), Loss::BinaryCrossEntropy);
        let training = network.fit_in_background(&few, &fit, "~/run").unwrap();
        training.wait().unwrap();
        assert!(home.join("run/1/checkpoint.safetensors").is_file());
        let loss = Loss::BinaryCrossEntropy;
        Network::resume("~/run", loss, &few)
            .unwrap()
            .wait()
            .unwrap();
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
    again("a_tilde_is_the_home_folder", home.path(), elsewhere.path());
    let left = fs::read_dir(&elsewhere).unwrap().count();
    assert_eq!(left, 0, "a folder named ~ was made");
}
