//! The lesson's pieces, one by one, in about a minute:
//!
//! ```text
//! cargo bench -p diffusion --profile dev
//! ```
//!
//! Use it to see what a change did to one of them: criterion compares with its last run. What a learner
//! waits for as a whole, and ours beside other libraries, is what `make bench` measures.
//!
//! In the profile `dev`, in which kernels compile, this crate, the two below it and libtorch's bindings are optimised.
//! Without it cargo compiles everything once more, for minutes.

use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::Result;
use criterion::{BatchSize, Criterion};
use diffusion::metrics::ssim;
use diffusion::prelude::*;
use diffusion::train::{Observer, Plan, Precision};

/// Batch size of the training step, as in the lesson.
const BATCH: usize = 128;
/// Steps before the timed ones: libtorch prepares its kernels, and the system the memory.
const WARM_UP: usize = 3;

fn main() -> Result<()> {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    let mnist = Mnist::load()?;
    set_seed(1);
    let clean = mnist.test.images(1_000)?;
    let noisy = add_noise(&clean, 0.5)?;
    let ten = clean.narrow(0, 0, 10);
    let few = noisy.narrow(0, 0, 256);
    let cnn = Network::new([28, 28, 1], lesson_cnn())?.seeded(26);

    criterion.bench_function("load MNIST", |b| b.iter(Mnist::load));
    criterion.bench_function("noise on 1,000 images", |b| {
        b.iter(|| add_noise(black_box(&clean), 0.5));
    });
    criterion.bench_function("picture of 3 x 10 digits", |b| {
        b.iter(|| rows(&[("original", &ten), ("noisy", &ten), ("denoised", &ten)]).html());
    });
    criterion.bench_function("PSNR of 1,000 images", |b| {
        b.iter(|| psnr(black_box(&clean), &noisy));
    });
    criterion.bench_function("SSIM of 1,000 images", |b| {
        b.iter(|| ssim(black_box(&clean), &noisy));
    });
    criterion.bench_function("denoise 256 images", |b| {
        b.iter_batched(
            || few.copy(),
            |few| cnn.predict(&few),
            BatchSize::LargeInput,
        );
    });
    for precision in [Precision::Float32, Precision::Mixed] {
        let name = format!("training step of {BATCH} images, {precision}");
        criterion.bench_function(&name, |b| {
            b.iter_custom(|steps| {
                steps_of_training(&mnist.train, precision, steps as usize)
                    .unwrap_or_else(|error| unreachable!("training does not fail: {error:#}"))
            });
        });
    }
    criterion.final_summary();
    Ok(())
}

/// How long this many steps of `fit` take, Adam and noise included.
fn steps_of_training(images: &Split, precision: Precision, steps: usize) -> Result<Duration> {
    let fit = Fit {
        epochs: 1 + (WARM_UP + steps) * BATCH / images.len(),
        batch_size: BATCH,
        validation: 0,
        precision,
        quiet: true,
        ..Default::default()
    };
    let mut watch = Stopwatch {
        last: WARM_UP + steps,
        started: Instant::now(),
        time: Duration::ZERO,
    };
    let mut cnn = Network::new([28, 28, 1], lesson_cnn())?.seeded(26);
    cnn.compile(Adam::new(0.001), Loss::BinaryCrossEntropy);
    cnn.fit_with(&images.noisy(0.5)?, &fit, &mut watch)?;
    Ok(watch.time)
}

/// Takes the time of the steps after the first few, and ends the training after the last of them.
struct Stopwatch {
    last: usize,
    started: Instant,
    time: Duration,
}

impl Observer for Stopwatch {
    fn batch(&mut self, _plan: &Plan, batch: usize, _loss: f64) -> ControlFlow<()> {
        if batch == WARM_UP {
            self.started = Instant::now();
        }
        if batch < self.last {
            return ControlFlow::Continue(());
        }
        self.time = self.started.elapsed();
        ControlFlow::Break(())
    }
}
