//! The gradients of every kind of layer, against finite differences in `float64` and against `float32`.
#![allow(clippy::unwrap_used)]

use diffusion::network::Layer;
use diffusion::prelude::*;
use diffusion::rng::Rng;

/// How many numbers of a tensor are changed to see what happens.
const PROBES: usize = 24;

/// A network of these layers with random weights, biases too, and images for it in `float64`.
struct Case {
    name: String,
    network: Network,
    images: Tensor,
    /// How much each number of the output counts in the sum whose gradient is taken.
    shares: Tensor,
}

/// The results of a network in one kind: its output, and the gradients of the images and of all weights.
struct Results {
    output: Tensor,
    gradients: Vec<(String, Tensor)>,
}

impl Case {
    fn new<const N: usize>(input: [i64; N], layers: Vec<Layer>) -> Case {
        let list: Vec<String> = layers.iter().map(Layer::to_string).collect();
        let name = format!("{input:?}, {}", list.join(", "));
        let network = Network::new(input, layers).unwrap();
        // A seed with which no number is so close to a rectifier's kink that a step crosses it.
        let rng = &mut Rng::new(8);
        for (name, weight) in network.layers().iter().flat_map(|layer| &layer.weights) {
            let mut weight = weight.shallow_clone();
            let random = match *name {
                "kernel" => continue,
                "gamma" => rng.uniform(0.5, &weight.size()) + 1.0,
                _ => rng.uniform(0.5, &weight.size()),
            };
            tch::no_grad(|| weight.copy_(&random));
        }
        let last = network.layers().last().unwrap();
        let of = |shape: &[i64], rng: &mut Rng| {
            let shape = match *shape {
                [height, width, channels] => vec![3, channels, height, width],
                _ => vec![3, shape[0]],
            };
            rng.uniform(1.0, &shape).to_kind(Kind::Double)
        };
        Case {
            images: of(&input, rng),
            shares: of(&last.output_shape, rng),
            name,
            network,
        }
    }

    fn sum(&self, output: &Tensor) -> Tensor {
        (output * self.shares.to_kind(output.kind())).sum(output.kind())
    }

    /// The sum in `float64`, without gradients.
    fn value(&self, images: &Tensor) -> f64 {
        let output = tch::no_grad(|| self.network.forward(images).unwrap());
        self.sum(&output).double_value(&[])
    }

    fn results(&self, kind: Kind) -> Results {
        let images = self.images.to_kind(kind).copy().set_requires_grad(true);
        let output = self.network.forward(&images).unwrap();
        let mut names = vec!["images".to_owned()];
        let mut inputs = vec![images];
        for layer in self.network.layers() {
            for (name, weight) in &layer.weights {
                names.push(format!("{}.{name}", layer.name));
                inputs.push(weight.shallow_clone());
            }
        }
        let gradients = Tensor::run_backward(&[self.sum(&output)], &inputs, false, false);
        Results {
            output: output.detach(),
            gradients: names.into_iter().zip(gradients).collect(),
        }
    }

    /// Compares the gradients with what changes when a single number changes.
    fn check_differences(&self) {
        let rng = &mut Rng::new(11);
        let gradients = self.results(Kind::Double).gradients;
        let weights = self
            .network
            .layers()
            .iter()
            .flat_map(|layer| &layer.weights);
        let images = self.images.copy();
        let tensors = std::iter::once(&images).chain(weights.map(|(_, weight)| weight));
        for ((name, gradient), tensor) in gradients.iter().zip(tensors) {
            let largest = gradient.abs().max().double_value(&[]);
            assert!(largest > 1e-6, "{}: no gradient of {name}", self.name);
            let (flat, gradient) = (tensor.detach().view(-1), gradient.reshape([-1]));
            let all = rng.permutation(flat.numel());
            for &at in all.iter().take(PROBES) {
                let before = flat.double_value(&[at]);
                // A weight is `float32`: the step that it really takes is what is left after rounding.
                let at_step = |step: f64| {
                    let _ = flat.get(at).fill_(before + step);
                    (flat.double_value(&[at]), self.value(&images))
                };
                let step = 2f64.powi(-20);
                let (above, higher) = at_step(step);
                let (below, lower) = at_step(-step);
                assert_eq!(at_step(0.0).0, before);
                let difference = (higher - lower) / (above - below);
                let found = gradient.double_value(&[at]);
                assert!(
                    (difference - found).abs() < 1e-6 * largest.max(0.01),
                    "{}: the gradient of {name} at {at} is {found}, the difference {difference}",
                    self.name
                );
            }
        }
    }

    /// The largest difference of `float32` from `float64`, in parts of the largest number: output or a gradient.
    fn check_float32(&self) {
        let [single, double] = [Kind::Float, Kind::Double].map(|kind| self.results(kind));
        let pair = |results: Results| {
            let output = ("output".to_owned(), results.output);
            std::iter::once(output).chain(results.gradients)
        };
        for ((name, single), (_, double)) in pair(single).zip(pair(double)) {
            let largest = double.abs().max().double_value(&[]);
            let difference = (single.to_kind(Kind::Double) - &double).abs().max();
            let difference = difference.double_value(&[]) / largest;
            assert!(
                difference < 2e-5,
                "{}: {name} differs by {difference}",
                self.name
            );
        }
    }

    fn check(&self) {
        self.check_differences();
        self.check_float32();
    }
}

/// Even and odd sizes, and one that a large kernel reaches across.
const SIZES: [[i64; 2]; 4] = [[6, 6], [7, 5], [6, 7], [2, 3]];

#[test]
fn convolutions_have_the_gradients_of_their_outputs() {
    for [height, width] in SIZES {
        for size in [1, 3, 5] {
            for strides in [1, 2] {
                Case::new([height, width, 2], vec![conv2d(3, size).strides(strides)]).check();
            }
        }
    }
}

#[test]
fn transposed_convolutions_have_the_gradients_of_their_outputs() {
    for [height, width] in SIZES {
        for size in [1, 3, 5] {
            for strides in [1, 2] {
                let layer = conv2d_transpose(3, size).strides(strides);
                Case::new([height, width, 2], vec![layer]).check();
            }
        }
    }
}

#[test]
fn convolutions_of_channels_that_fill_vectors_have_the_same_gradients() {
    for [height, width] in SIZES {
        for (from, to) in [(1, 16), (16, 1), (16, 32), (32, 16), (32, 48)] {
            for layer in [conv2d(to, 3), conv2d_transpose(to, 3)] {
                Case::new([height, width, from], vec![layer.clone()]).check();
                Case::new([height, width, from], vec![layer.relu()]).check();
            }
        }
    }
    for size in [1, 3, 5] {
        Case::new([8, 7, 16], vec![conv2d(32, size).strides(2).relu()]).check();
        Case::new(
            [8, 7, 16],
            vec![conv2d_transpose(32, size).strides(2).relu()],
        )
        .check();
    }
}

#[test]
fn every_activation_has_its_gradient() {
    let activated = |layer: &Layer| {
        let layer = || layer.clone();
        [
            layer(),
            layer().relu(),
            layer().silu(),
            layer().sigmoid(),
            layer().softmax(),
        ]
    };
    for layers in [
        activated(&conv2d(3, 3)),
        activated(&conv2d(16, 3)),
        activated(&conv2d(3, 3).strides(2)),
        activated(&conv2d_transpose(3, 3)),
        activated(&conv2d_transpose(3, 5).strides(2)),
        activated(&group_norm(1)),
        activated(&group_norm(2)),
    ] {
        for layer in layers {
            Case::new([6, 5, 4], vec![layer]).check();
        }
    }
    for layer in activated(&dense(6)) {
        Case::new([9], vec![layer]).check();
    }
    for layer in activated(&dense(64)) {
        Case::new([32], vec![layer]).check();
    }
    for layer in activated(&group_norm(3)) {
        Case::new([12], vec![layer]).check();
    }
}

#[test]
fn normalisations_have_the_gradients_of_their_outputs() {
    for [height, width] in SIZES {
        // One, two and three groups of sixteen channels, which with SiLU are computed in one pass, and other groups.
        for (channels, groups) in [(16, 1), (32, 2), (48, 3), (32, 1), (32, 4), (6, 3), (5, 1)] {
            for layer in [
                group_norm(groups),
                group_norm(groups).silu(),
                group_norm(groups).relu(),
            ] {
                Case::new([height, width, channels], vec![layer]).check();
            }
        }
    }
    Case::new([32], vec![group_norm(2).silu()]).check();
}

#[test]
fn layers_without_weights_have_the_gradients_of_their_outputs() {
    for [height, width] in SIZES {
        for layer in [
            max_pooling2d(1),
            max_pooling2d(2),
            up_sampling2d(1),
            up_sampling2d(2),
            up_sampling2d(3),
            flatten(),
            reshape([width, 3, height]),
        ] {
            Case::new([height, width, 3], vec![layer]).check();
        }
    }
    Case::new([7, 6, 3], vec![max_pooling2d(3)]).check();
    Case::new([24], vec![reshape([2, 3, 4])]).check();
}

#[test]
fn a_network_of_all_kinds_has_the_gradients_of_its_output() {
    let all = vec![
        conv2d(16, 3).relu(),
        conv2d(32, 5).strides(2),
        group_norm(2).silu(),
        up_sampling2d(2),
        conv2d_transpose(4, 3).silu(),
        max_pooling2d(2),
        group_norm(2).relu(),
        flatten(),
        dense(32).silu(),
        dense(36).relu(),
        reshape([3, 3, 4]),
        conv2d_transpose(3, 3).strides(2).sigmoid(),
        conv2d(2, 1).softmax(),
    ];
    Case::new([8, 9, 1], all).check();
}
