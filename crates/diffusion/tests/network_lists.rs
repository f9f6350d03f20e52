//! Lists of layers: what is built, what is refused and with which words, and networks that are parts of others.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use diffusion::network::{Layer, NamedLayer};
use diffusion::prelude::*;
use diffusion::rng::Rng;
use diffusion::train::Precision;

fn refusal<const N: usize>(input: [i64; N], layers: Vec<Layer>) -> String {
    let error = Network::new(input, layers).unwrap_err();
    format!("{error:#}")
}

#[test]
fn a_mistake_in_a_list_is_named_with_what_arrives_and_what_was_expected() {
    let first = || conv2d(16, 3).relu();
    let cases: Vec<(Vec<Layer>, &[&str])> = vec![
        (
            vec![conv2d(16, 4)],
            &[
                "layer 1, conv2d(16, 4)",
                "(28, 28, 1) arrives",
                "4 x 4",
                "expected an odd number",
            ],
        ),
        (
            vec![first(), conv2d_transpose(8, 0).silu()],
            &[
                "layer 2, conv2d_transpose(8, 0).silu()",
                "(28, 28, 16) arrives",
                "0 x 0",
                "expected an odd number",
            ],
        ),
        (
            vec![first(), conv2d(8, -3)],
            &[
                "layer 2, conv2d(8, -3)",
                "(28, 28, 16) arrives",
                "-3 x -3",
                "expected an odd number",
            ],
        ),
        (
            vec![first(), conv2d(0, 3).relu()],
            &[
                "layer 2, conv2d(0, 3).relu()",
                "(28, 28, 16) arrives",
                "0 filters",
                "expected 1 or more",
            ],
        ),
        (
            vec![conv2d_transpose(-1, 3)],
            &[
                "layer 1, conv2d_transpose(-1, 3)",
                "(28, 28, 1) arrives",
                "-1 filters",
                "expected 1 or more",
            ],
        ),
        (
            vec![conv2d(16, 3).strides(3).relu()],
            &[
                "layer 1, conv2d(16, 3).strides(3).relu()",
                "(28, 28, 1) arrives",
                "strides of 3",
                "expected 1",
            ],
        ),
        (
            vec![conv2d(16, 3).strides(0)],
            &[
                "layer 1, conv2d(16, 3).strides(0)",
                "(28, 28, 1) arrives",
                "strides of 0",
                "expected 1",
            ],
        ),
        (
            vec![flatten(), dense(64).strides(2)],
            &[
                "layer 2, dense(64).strides(2)",
                "784 arrives",
                "strides of 2",
                "convolution",
            ],
        ),
        (
            vec![max_pooling2d(2).strides(2)],
            &[
                "layer 1, max_pooling2d(2).strides(2)",
                "(28, 28, 1) arrives",
                "strides of 2",
                "convolution",
            ],
        ),
        (
            vec![first(), dense(64).relu()],
            &[
                "layer 2, dense(64).relu()",
                "(28, 28, 16) arrives",
                "expected a vector",
                "flatten()",
                "conv2d(64, 1)",
            ],
        ),
        (
            vec![flatten(), dense(0)],
            &[
                "layer 2, dense(0)",
                "784 arrives",
                "0 units",
                "expected 1 or more",
            ],
        ),
        (
            vec![first(), reshape([28, 28, 32])],
            &[
                "layer 2, reshape([28, 28, 32])",
                "(28, 28, 16) arrives",
                "12544",
                "expected 25088",
            ],
        ),
        (
            vec![reshape([-784])],
            &[
                "layer 1, reshape([-784])",
                "(28, 28, 1) arrives",
                "the shape -784",
                "expected [height, width, channels] or [numbers]",
            ],
        ),
        (
            vec![reshape([28, 28])],
            &[
                "layer 1, reshape([28, 28])",
                "(28, 28, 1) arrives",
                "the shape (28, 28)",
                "expected [height, width, channels] or [numbers]",
            ],
        ),
        (
            vec![flatten(), conv2d(16, 3)],
            &[
                "layer 2, conv2d(16, 3)",
                "784 arrives",
                "expected an image (height, width, channels)",
                "reshape",
            ],
        ),
        (
            vec![flatten(), max_pooling2d(2)],
            &[
                "layer 2, max_pooling2d(2)",
                "784 arrives",
                "expected an image",
            ],
        ),
        (
            vec![flatten(), up_sampling2d(2)],
            &[
                "layer 2, up_sampling2d(2)",
                "784 arrives",
                "expected an image",
            ],
        ),
        (
            vec![max_pooling2d(29)],
            &[
                "layer 1, max_pooling2d(29)",
                "(28, 28, 1) arrives",
                "expected at least 29 x 29 pixels",
            ],
        ),
        (
            vec![max_pooling2d(0)],
            &[
                "layer 1, max_pooling2d(0)",
                "(28, 28, 1) arrives",
                "blocks of 0",
                "expected 1 or more",
            ],
        ),
        (
            vec![up_sampling2d(-2)],
            &[
                "layer 1, up_sampling2d(-2)",
                "(28, 28, 1) arrives",
                "blocks of -2",
                "expected 1 or more",
            ],
        ),
        (
            vec![first(), group_norm(5).silu()],
            &[
                "layer 2, group_norm(5).silu()",
                "(28, 28, 16) arrives",
                "16 channels",
                "5 groups",
                "expected a divisor of 16",
            ],
        ),
        (
            vec![first(), group_norm(0)],
            &[
                "layer 2, group_norm(0)",
                "(28, 28, 16) arrives",
                "0 groups",
                "expected a divisor of 16",
            ],
        ),
        (
            vec![first(), flatten().relu()],
            &[
                "layer 2, flatten().relu()",
                "(28, 28, 16) arrives",
                "no activation of its own",
                "the layer before it",
            ],
        ),
        (
            vec![first(), max_pooling2d(2).sigmoid()],
            &[
                "layer 2, max_pooling2d(2).sigmoid()",
                "(28, 28, 16) arrives",
                "no activation of its own",
            ],
        ),
        (
            vec![conv2d(32, 3), flatten(), dense(1_000_000)],
            &[
                "layer 3, dense(1000000)",
                "25088 arrives",
                "more than 500,000,000 parameters",
                "expected fewer",
            ],
        ),
        (
            vec![conv2d(200_000, 3)],
            &[
                "layer 1, conv2d(200000, 3)",
                "(28, 28, 1) arrives",
                "(28, 28, 200000) comes out",
                "expected at most",
            ],
        ),
        (
            vec![conv2d(8, 3), up_sampling2d(i64::MAX)],
            &[
                "layer 2, up_sampling2d(9223372036854775807)",
                "(28, 28, 8) arrives",
                "comes out",
                "expected at most",
            ],
        ),
        (
            vec![conv2d(1, i64::MAX)],
            &[
                "layer 1, conv2d(1, 9223372036854775807)",
                "(28, 28, 1) arrives",
                "parameters; expected fewer",
            ],
        ),
    ];
    for (layers, words) in cases {
        let error = refusal([28, 28, 1], layers);
        for words in words {
            assert!(error.contains(words), "{words:?} is not in: {error}");
        }
    }
}

#[test]
fn an_empty_list_and_an_input_that_is_no_shape_are_refused() {
    let error = refusal([28, 28, 1], vec![]);
    assert!(error.contains("the list of layers is empty; expected at least one"));
    let list = || vec![conv2d(16, 3).relu()];
    for (error, words) in [
        (refusal([0, 28, 1], list()), "the shape (0, 28, 1)"),
        (refusal([28, 28, -1], list()), "the shape (28, 28, -1)"),
        (refusal([28, 28], list()), "the shape (28, 28)"),
        (refusal([1, 28, 28, 1], list()), "the shape (1, 28, 28, 1)"),
        (refusal::<0>([], list()), "the shape ()"),
    ] {
        assert!(error.contains("the input of the network"), "{error}");
        assert!(error.contains(words), "{words:?} is not in: {error}");
        let expected = "expected [height, width, channels] or [numbers], each 1 or more";
        assert!(error.contains(expected), "{error}");
    }
    let error = refusal([i64::MAX, i64::MAX, 4], list());
    assert!(error.contains("the input of the network"), "{error}");
    assert!(error.contains("expected at most 100000000"), "{error}");
}

#[test]
fn names_shapes_and_counts_are_those_of_keras() {
    let network = Network::new(
        [28, 27, 3],
        vec![
            conv2d(8, 5).strides(2).relu(),
            group_norm(4).silu(),
            max_pooling2d(2),
            conv2d(16, 3),
            group_norm(2),
            max_pooling2d(3),
            up_sampling2d(2),
            conv2d_transpose(6, 3).strides(2).relu(),
            up_sampling2d(3),
            conv2d_transpose(4, 1),
            conv2d(2, 1).softmax(),
            flatten(),
            dense(12).silu(),
            reshape([2, 2, 3]),
            flatten(),
            dense(10),
            reshape([10]),
        ],
    )
    .unwrap();
    // Keras's rules: "same" convolutions round up, pooling rounds down; a kernel of 5 x 5 from 3 to 8 channels has
    // 5·5·3·8 + 8 parameters.
    let expected: [(&str, &str, &[i64], usize); 18] = [
        ("input_layer", "InputLayer", &[28, 27, 3], 0),
        ("conv2d", "Conv2D", &[14, 14, 8], 608),
        (
            "group_normalization",
            "GroupNormalization",
            &[14, 14, 8],
            16,
        ),
        ("max_pooling2d", "MaxPooling2D", &[7, 7, 8], 0),
        ("conv2d_1", "Conv2D", &[7, 7, 16], 1_168),
        (
            "group_normalization_1",
            "GroupNormalization",
            &[7, 7, 16],
            32,
        ),
        ("max_pooling2d_1", "MaxPooling2D", &[2, 2, 16], 0),
        ("up_sampling2d", "UpSampling2D", &[4, 4, 16], 0),
        ("conv2d_transpose", "Conv2DTranspose", &[8, 8, 6], 870),
        ("up_sampling2d_1", "UpSampling2D", &[24, 24, 6], 0),
        ("conv2d_transpose_1", "Conv2DTranspose", &[24, 24, 4], 28),
        ("conv2d_2", "Conv2D", &[24, 24, 2], 10),
        ("flatten", "Flatten", &[1_152], 0),
        ("dense", "Dense", &[12], 13_836),
        ("reshape", "Reshape", &[2, 2, 3], 0),
        ("flatten_1", "Flatten", &[12], 0),
        ("dense_1", "Dense", &[10], 130),
        ("reshape_1", "Reshape", &[10], 0),
    ];
    let found: Vec<(&str, &str, &[i64], usize)> = network
        .layers()
        .iter()
        .map(|layer| {
            let shape = layer.output_shape.as_slice();
            (layer.name.as_str(), layer.kind, shape, layer.parameters())
        })
        .collect();
    assert_eq!(found, expected);
    let summary = network.summary();
    assert_eq!(
        summary.total(),
        expected.iter().map(|row| row.3).sum::<usize>()
    );
    assert_eq!(summary.rows[12].output_shape, "(None, 1,152)");
    assert_eq!(summary.rows[1].output_shape, "(None, 14, 14, 8)");
    for (at, layer) in network.layers().iter().enumerate() {
        let found = network.layer(&layer.name).unwrap();
        assert!(std::ptr::eq(found, &network.layers()[at]));
    }
    let totals = |list| Network::new([28, 28, 1], list).unwrap().summary().total();
    assert_eq!(totals(lesson_cnn()), 3_255_233);
    assert_eq!(totals(digit_classifier()), 341_930);
}

/// A random number of a list: mostly a usual one, sometimes one that makes no sense.
fn number(rng: &mut Rng, usual: &[i64]) -> i64 {
    const ODD: [i64; 10] = [
        0,
        -1,
        -3,
        4,
        29,
        1 << 31,
        1_000_000_001,
        i64::MAX,
        i64::MAX - 1,
        i64::MIN,
    ];
    match rng.below(40) {
        0 => ODD[rng.below(ODD.len())],
        _ => usual[rng.below(usual.len())],
    }
}

/// A random layer, most often one that takes an image or a vector, as asked.
fn layer(rng: &mut Rng, image: bool) -> Layer {
    let image = image != (rng.below(25) == 0);
    let kernels = [1, 3, 3, 5, 7];
    let channels = [1, 2, 3, 8, 16, 32];
    let layer = match (image, rng.below(8)) {
        (true, 0 | 1) => conv2d(number(rng, &channels), number(rng, &kernels)),
        (true, 2 | 3) => conv2d_transpose(number(rng, &channels), number(rng, &kernels)),
        (true, 4) => max_pooling2d(number(rng, &[1, 2, 2, 3])),
        (true, 5) => up_sampling2d(number(rng, &[1, 2, 3])),
        (true, 6) => flatten(),
        (_, 7) => group_norm(number(rng, &[1, 1, 2, 4])),
        (_, 0..3) => dense(number(rng, &[1, 8, 10, 36, 64])),
        (_, 3) => flatten(),
        (_, 4) => reshape([
            number(rng, &[1, 2, 3]),
            number(rng, &[2, 3]),
            number(rng, &[1, 2, 4, 6]),
        ]),
        (_, 5) => reshape([number(rng, &[8, 10, 36, 64])]),
        _ => reshape([number(rng, &[2, 6]), number(rng, &[3, 6]), 1]),
    };
    let computes = !matches!(layer.to_string().as_bytes()[0], b'f' | b'r' | b'm' | b'u');
    let layer = match rng.below(6) {
        _ if !computes && rng.below(30) > 0 => layer,
        0 => layer.relu(),
        1 => layer.silu(),
        2 => layer.sigmoid(),
        3 => layer.softmax(),
        _ => layer,
    };
    match rng.below(5) {
        0 if layer.to_string().starts_with("conv") || rng.below(10) == 0 => {
            layer.strides(number(rng, &[1, 2, 2, 2]))
        }
        _ => layer,
    }
}

/// About how many multiplications a network needs for an image.
fn multiplications(network: &Network) -> i64 {
    let work = network.layers().iter().map(|layer| {
        let kernel = layer
            .weights
            .first()
            .map_or(1, |(_, kernel)| kernel.numel() as i64);
        match *layer.output_shape {
            [height, width, _] => kernel * height * width,
            _ => kernel,
        }
    });
    work.sum()
}

/// Builds a random list and runs it on two images, forwards and backwards.
fn try_list(network: Result<Network>, list: &[String], rng: &mut Rng) -> &'static str {
    let network = match network {
        Ok(network) => network,
        Err(error) => {
            let error = format!("{error:#}");
            let sentence = error.contains("expected") || error.contains("the layer before it");
            assert!(sentence && error.len() > 40, "no sentence: {error}");
            if list.is_empty() || error.starts_with("the input of the network") {
                return "refused";
            }
            let named = (1..).zip(list);
            let mut named = named.map(|(at, layer)| format!("layer {at}, {layer}"));
            assert!(
                named.any(|name| error.contains(&name)),
                "no layer is named: {error}"
            );
            assert!(error.contains(" arrives"), "{error}");
            return "refused";
        }
    };
    if multiplications(&network) > 5_000_000 {
        return "too large to run";
    }
    let layers = network.layers();
    let [first, .., last] = layers else {
        panic!("{} layers", layers.len())
    };
    let tensor_shape = |shape: &[i64]| match *shape {
        [height, width, channels] => vec![2, channels, height, width],
        [numbers] => vec![2, numbers],
        _ => panic!("the shape {shape:?}"),
    };
    let images = rng.uniform(1.0, &tensor_shape(&first.output_shape));
    for output in [
        network.forward(&images),
        network.logits(&images),
        network.predict_in(Precision::Float32, &images),
        network.predict_in(Precision::Mixed, &images),
    ] {
        let output = output.unwrap();
        assert_eq!(output.size(), tensor_shape(&last.output_shape));
        assert_eq!(output.isfinite().all().int64_value(&[]), 1, "not finite");
    }
    for kind in [Kind::Float, Kind::BFloat16] {
        let images = images.to_kind(kind).set_requires_grad(true);
        let sum = network.forward(&images).unwrap().sum(Kind::Float);
        let mut inputs = network.trainable_weights();
        inputs.push(images);
        for gradient in Tensor::run_backward(&[sum], &inputs, false, false) {
            assert_eq!(
                gradient.isfinite().all().int64_value(&[]),
                1,
                "no finite gradient"
            );
        }
    }
    "run"
}

#[test]
fn a_thousand_random_lists_are_built_and_run_or_refused_with_a_sentence() {
    let rng = &mut Rng::new(15);
    let mut counts = std::collections::BTreeMap::new();
    for at in 0..1000 {
        let input =
            [rng.below(12) as i64 + 1, rng.below(12) as i64 + 1, 0].map(|size| match size {
                0 => number(rng, &[1, 1, 2, 3, 16]),
                size => match rng.below(60) {
                    0 => number(rng, &[1]),
                    _ => size,
                },
            });
        let vector = rng.below(6) == 0;
        let mut list: Vec<Layer> = vec![];
        for _ in 0..rng.below(7) {
            // What arrives at the next layer: an image or a vector?
            let image = match list.last().map(Layer::to_string) {
                None => !vector,
                Some(last) if last.starts_with("reshape") => last.contains(','),
                Some(last) if last.starts_with("group") => rng.below(2) == 0,
                Some(last) => !last.starts_with("dense") && !last.starts_with("flatten"),
            };
            list.push(layer(rng, image));
        }
        let written: Vec<String> = list.iter().map(Layer::to_string).collect();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let network = match vector {
                true => Network::new([input[2]], list),
                false => Network::new(input, list),
            };
            try_list(network, &written, rng)
        }));
        match outcome {
            Ok(outcome) => *counts.entry(outcome).or_insert(0) += 1,
            Err(_) => panic!("list {at}, input {input:?} (vector: {vector}), {written:?}"),
        }
    }
    println!("{counts:?}");
    assert!(
        counts["run"] >= 300 && counts["refused"] >= 300,
        "{counts:?}"
    );
}

/// Networks with every kind of layer.
fn networks() -> Vec<Network> {
    let mixed = vec![
        conv2d(32, 3).strides(2),
        group_norm(2).silu(),
        conv2d(16, 5).silu(),
        max_pooling2d(2),
        conv2d(4, 1).softmax(),
        reshape([4, 7, 7]),
        conv2d_transpose(8, 3).strides(2).sigmoid(),
        up_sampling2d(2),
        flatten(),
        dense(32).sigmoid(),
        group_norm(2).silu(),
        dense(10).softmax(),
        reshape([10]),
    ];
    [lesson_cnn(), digit_classifier(), mixed]
        .map(|list| Network::new([28, 28, 1], list).unwrap().seeded(3))
        .into()
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

#[test]
fn the_first_and_the_last_layers_together_are_the_network() {
    let x = Rng::new(5).uniform(0.5, &[5, 1, 28, 28]) + 0.5;
    for network in networks() {
        let whole = network.predict_in(Precision::Float32, &x).unwrap();
        let in_bfloat16 = network.predict_in(Precision::Mixed, &x).unwrap();
        let names: Vec<&str> = network
            .layers()
            .iter()
            .map(|layer| layer.name.as_str())
            .collect();
        let [first, middle @ .., last] = &names[..] else {
            panic!("{names:?}")
        };
        for name in middle {
            let (head, tail) = (network.up_to(name).unwrap(), network.after(name).unwrap());
            let shape = &network.layer(name).unwrap().output_shape;
            assert_eq!(&head.layers().last().unwrap().output_shape, shape);
            assert_eq!(&tail.layers()[0].output_shape, shape);
            assert_eq!(head.layers().len() + tail.layers().len(), names.len() + 1);
            let parameters = head.summary().total() + tail.summary().total();
            assert_eq!(parameters, network.summary().total(), "{name}");
            for (precision, whole, bound) in [
                (Precision::Float32, &whole, 1e-6),
                (Precision::Mixed, &in_bfloat16, 0.02),
            ] {
                let between = head.predict_in(precision, &x).unwrap();
                let parts = tail.predict_in(precision, &between).unwrap();
                let difference = largest_difference(&parts, whole);
                assert!(difference < bound, "{name} in {precision}: {difference}");
            }
        }
        let all = network.up_to(last).unwrap();
        assert_eq!(all.predict_in(Precision::Float32, &x).unwrap(), whole);
        let all = network.after(first).unwrap();
        assert_eq!(all.predict_in(Precision::Float32, &x).unwrap(), whole);
        let error = network.up_to(first).unwrap_err().to_string();
        assert!(error.contains("nothing up to input_layer"), "{error}");
        let error = network.after(last).unwrap_err().to_string();
        assert!(error.contains("expected"), "{error}");
    }
}

#[test]
fn parts_share_the_weights_and_the_freezing() {
    let mut network = Network::new([28, 28, 1], lesson_cnn()).unwrap();
    network.freeze(0..3).unwrap();
    let (head, tail) = (
        network.up_to("dense").unwrap(),
        network.after("dense").unwrap(),
    );
    let trainable = |network: &Network| -> Vec<bool> {
        network
            .layers()
            .iter()
            .map(NamedLayer::is_trainable)
            .collect()
    };
    assert_eq!(trainable(&head), [false, false, false, true, true]);
    assert_eq!(head.trainable_weights().len(), 2);
    assert_eq!(tail.trainable_weights().len(), 8);
    // The parts name their layers from the start.
    assert_eq!(tail.layers()[1].name, "dense");
    for (part, name, name_in_whole) in [
        (&head, "conv2d_1", "conv2d_1"),
        (&tail, "dense", "dense_1"),
        (&tail, "conv2d", "conv2d_2"),
    ] {
        let of =
            |network: &Network, name: &str| network.layer(name).unwrap().weight("bias").unwrap();
        let mut bias = of(&network, name_in_whole);
        let _ = tch::no_grad(|| bias.fill_(0.25));
        assert_eq!(of(part, name), bias, "{name}");
    }
}

#[test]
fn an_unknown_name_is_answered_with_the_names_there_are() {
    let network = Network::new([28, 28, 1], vec![conv2d(4, 3), flatten(), dense(2)]).unwrap();
    for error in [
        network.layer("dense_7").unwrap_err(),
        network.up_to("dense_7").unwrap_err(),
        network.after("dense_7").unwrap_err(),
    ] {
        assert_eq!(
            error.to_string(),
            "this network has no layer \"dense_7\"; expected one of input_layer, conv2d, flatten, dense"
        );
    }
    let conv2d = network.layer("conv2d").unwrap();
    let error = conv2d.weight("gamma").unwrap_err().to_string();
    assert!(
        error.contains("no weight \"gamma\"; expected kernel or bias"),
        "{error}"
    );
    let error = network
        .layer("flatten")
        .unwrap()
        .weight("kernel")
        .unwrap_err()
        .to_string();
    assert!(error.contains("holds no weights"), "{error}");
}
