//! Every kernel against libtorch in `float64`.

use super::*;
use crate::lanes::tests::in_each_width;
use tch::{Device, Kind};

/// Images, height, width and channels in and out: each kernel, sizes that tiles do not divide, more images
/// than a group of tiles takes, channels that fill one vector, two, and three.
const CASES: [[i64; 5]; 9] = [
    [3, 28, 28, 16, 32],
    [1, 28, 28, 32, 16],
    [9, 7, 7, 48, 64],
    [8, 14, 14, 64, 48],
    [2, 5, 9, 16, 16],
    [1, 1, 1, 32, 32],
    [3, 28, 28, 1, 16],
    [2, 6, 5, 1, 48],
    [3, 28, 28, 16, 1],
];

fn random(shape: &[i64], kind: Kind) -> Tensor {
    Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_kind(kind)
}

/// The result of a convolution and the gradients of its three inputs, in `float64`.
fn results(
    convolution: impl Fn(&Tensor, &Tensor, &Tensor, Activation) -> Tensor,
    inputs: &[Tensor; 3],
    towards: &Tensor,
    kind: Kind,
    activation: Activation,
) -> [Tensor; 4] {
    let [x, kernel, bias] = inputs.each_ref().map(|input| {
        let leaf = input.detach().to_kind(kind);
        leaf.set_requires_grad(true)
    });
    let y = convolution(&x, &kernel, &bias, activation);
    let towards = towards.to_kind(kind);
    let loss = (&y * towards).sum(Kind::Float);
    loss.backward();
    [y.detach(), x.grad(), kernel.grad(), bias.grad()].map(|found| found.to_kind(Kind::Double))
}

fn difference(ours: &Tensor, theirs: &Tensor) -> f64 {
    let largest = theirs.abs().max().double_value(&[]);
    (ours - theirs).abs().max().double_value(&[]) / largest
}

/// The largest difference of any result in any case, with which it is.
fn worst(kind: Kind, cases: &[[i64; 5]]) -> (f64, String) {
    let mut worst = (0.0, String::new());
    for &[images, height, width, from, to] in cases {
        for activation in [Activation::Linear, Activation::Relu] {
            tch::manual_seed(1);
            let inputs = [
                random(&[images, height, width, from], kind),
                random(&[to, 3, 3, from], kind) / (9.0 * from as f64).sqrt(),
                random(&[to], kind),
            ];
            let towards = random(&[images, height, width, to], kind);
            let ours = results(convolution, &inputs, &towards, kind, activation);
            let theirs = results(by_libtorch, &inputs, &towards, Kind::Double, activation);
            let names = ["result", "to the images", "to the kernel", "to the bias"];
            for ((name, ours), theirs) in names.iter().zip(&ours).zip(&theirs) {
                assert_eq!(ours.size(), theirs.size());
                let found = difference(ours, theirs);
                if found > worst.0 {
                    let of = format!("{images} x {height} x {width}, {from} to {to}");
                    worst = (found, format!("{name} of {of}, {activation:?}: {found:e}"));
                }
            }
        }
    }
    worst
}

#[test]
fn results_and_gradients_are_those_of_float64() {
    in_each_width(compare_with_float64);
}

fn compare_with_float64() {
    let (float32, of) = worst(Kind::Float, &CASES);
    assert!(float32 < 2e-5, "{of}");
    // `bfloat16` keeps eight bits of what goes in and out; the rest is exact to float32.
    let (mixed, of) = worst(Kind::BFloat16, &CASES);
    assert!(mixed < 0.02, "{of}");
}

#[test]
fn threads_share_images_and_change_nothing_in_the_result() {
    let before = tch::get_num_threads();
    let inputs = [[20, 28, 28, 16], [32, 3, 3, 16]].map(|shape| random(&shape, Kind::Float));
    let bias = random(&[32], Kind::Float);
    let [one, two] = [1, 2].map(|threads| {
        tch::set_num_threads(threads);
        convolution(&inputs[0], &inputs[1], &bias, Activation::Relu)
    });
    tch::set_num_threads(before);
    assert_eq!(one, two);
}

#[test]
fn other_channels_and_kinds_are_libtorchs() {
    let (double, of) = worst(Kind::Double, &CASES[..1]);
    assert!(double < 1e-12, "{of}");
    let (odd, of) = worst(Kind::Float, &[[2, 6, 6, 3, 16], [2, 6, 6, 16, 10]]);
    assert!(odd < 2e-5, "{of}");
}

#[test]
fn no_number_stays_no_number() {
    let nan = Tensor::full([1, 8, 8, 16], f64::NAN, (Kind::Float, Device::Cpu));
    let (kernel, bias) = (
        random(&[16, 3, 3, 16], Kind::Float),
        random(&[16], Kind::Float),
    );
    for activation in [Activation::Linear, Activation::Relu] {
        let y = convolution(&nan, &kernel, &bias, activation);
        assert!(y.isnan().all().double_value(&[]) == 1.0, "{activation:?}");
    }
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let zeros = |shape: &[i64], kind| Tensor::zeros(shape, (kind, Device::Cpu));
    let error = |x: Tensor, kernel: Tensor, bias: Tensor| {
        let result = conv3x3(&x, &kernel, &bias, Activation::Linear);
        result.unwrap_err().to_string()
    };
    let float = Kind::Float;
    let text = error(
        zeros(&[1, 4, 4, 16], float),
        zeros(&[32, 3, 3, 8], float),
        zeros(&[32], float),
    );
    assert!(text.contains("[32, 3, 3, 8]"), "{text}");
    let text = error(
        zeros(&[1, 4, 4, 16], Kind::BFloat16),
        zeros(&[32, 3, 3, 16], float),
        zeros(&[32], float),
    );
    assert!(text.contains("of one kind"), "{text}");
}
