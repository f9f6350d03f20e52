//! The operations on the sizes of the lesson, in each implementation that this CPU has, in about two minutes:
//!
//! ```text
//! cargo bench -p ops --profile dev
//! ```
//!
//! One thread, because this is what a worker of a training has. Each implementation runs in a process of its own, which
//! `OPS_IMPLEMENTATION` selects; set the variable to measure only one of them. Arguments are criterion's: a part of a name
//! selects what to measure.
//!
//! The profile `dev` is the one that kernels compile in; this crate and libtorch's bindings are optimised in it.

use std::hint::black_box;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Result;
use criterion::Criterion;
use ops::{Activation, AdamWeight, Implementation, adam_step, conv3x3, linear, norm_silu};
use tch::{Device, Kind, Tensor};

/// Images of one worker: half a batch of 128.
const IMAGES: i64 = 64;

fn main() -> Result<ExitCode> {
    if std::env::var_os("OPS_IMPLEMENTATION").is_some() {
        measure()?;
        return Ok(ExitCode::SUCCESS);
    }
    for implementation in Implementation::available() {
        let status = Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .env("OPS_IMPLEMENTATION", implementation.to_string())
            .status()?;
        if !status.success() {
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn measure() -> Result<()> {
    let implementation = Implementation::selected()?;
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1_000))
        .without_plots()
        .configure_from_args();
    tch::set_num_threads(1);
    tch::manual_seed(1);
    for kind in [Kind::Float, Kind::BFloat16] {
        // Side, channels of the input, channels of the output: of the denoiser, then of the U-Net.
        for (side, from, to) in [
            (28, 1, 16),
            (28, 16, 32),
            (28, 32, 32),
            (28, 32, 16),
            (28, 16, 1),
            (14, 64, 64),
            (14, 192, 64),
            (7, 128, 128),
        ] {
            let relu = match to {
                1 => Activation::Linear,
                _ => Activation::Relu,
            };
            forward_and_backward(
                &mut criterion,
                &format!("conv3x3 {side}x{side}, {from} to {to}, {kind:?}, {implementation}"),
                &[
                    random(&[IMAGES, side, side, from], kind),
                    random(&[to, 3, 3, from], kind) / (9.0 * from as f64).sqrt(),
                    random(&[to], kind),
                ],
                |inputs| conv3x3(&inputs[0], &inputs[1], &inputs[2], relu),
            );
        }
        for (side, channels) in [(14, 64), (7, 128)] {
            forward_and_backward(
                &mut criterion,
                &format!("norm_silu {side}x{side}, {channels}, {kind:?}, {implementation}"),
                &[
                    random(&[IMAGES, side, side, channels], kind),
                    random(&[IMAGES, channels], kind),
                    random(&[channels], kind),
                    random(&[channels], kind),
                ],
                |inputs| norm_silu(&inputs[0], &inputs[1], &inputs[2], &inputs[3], 1e-5),
            );
        }
        for (from, to) in [(25_088, 64), (64, 25_088)] {
            forward_and_backward(
                &mut criterion,
                &format!("linear {from} to {to}, {kind:?}, {implementation}"),
                &[
                    random(&[IMAGES, from], kind),
                    random(&[to, from], kind) / (from as f64).sqrt(),
                    random(&[to], kind),
                ],
                |inputs| linear(&inputs[0], &inputs[1], &inputs[2]),
            );
        }
    }
    adam(&mut criterion, &format!("adam_step, {implementation}"))?;
    criterion.final_summary();
    Ok(())
}

fn random(shape: &[i64], kind: Kind) -> Tensor {
    Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_kind(kind)
}

/// Measures an operation, once without gradients and once with the gradients of all inputs.
fn forward_and_backward(
    criterion: &mut Criterion,
    name: &str,
    inputs: &[Tensor],
    operation: impl Fn(&[Tensor]) -> Result<Tensor>,
) {
    let computed = |inputs: &[Tensor]| {
        operation(inputs).unwrap_or_else(|error| unreachable!("the sizes fit: {error:#}"))
    };
    criterion.bench_function(&format!("{name}, forward"), |b| {
        b.iter(|| computed(black_box(inputs)));
    });
    let inputs: Vec<Tensor> = inputs
        .iter()
        .map(|input| input.detach().set_requires_grad(true))
        .collect();
    let output_gradient = computed(&inputs).detach();
    criterion.bench_function(&format!("{name}, forward and backward"), |b| {
        b.iter(|| {
            let output = computed(black_box(&inputs));
            Tensor::run_backward(
                &[(&output * &output_gradient).sum(Kind::Float)],
                &inputs,
                false,
                false,
            )
        });
    });
}

/// Measures a step on the largest weight of the lesson, with a `bfloat16` copy and the gradients of two workers.
fn adam(criterion: &mut Criterion, name: &str) -> Result<()> {
    let shape = [25_088, 64];
    let weight = random(&shape, Kind::Float);
    let copy = weight.to_kind(Kind::BFloat16);
    let mut weight = AdamWeight::new(weight, Some(copy))?;
    let gradients = [
        random(&shape, Kind::BFloat16),
        random(&shape, Kind::BFloat16),
    ];
    let mut step = 0;
    criterion.bench_function(name, |b| {
        b.iter(|| {
            step += 1;
            adam_step(&mut weight, &gradients, 0.001, step, 1)
        });
    });
    Ok(())
}
