//! `bench worker`: our side of the protocol, by the public API of the support crate alone.

use std::io::{BufRead, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use diffusion::prelude::*;
use diffusion::train::{Observer, Plan, Precision};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::drawn;
use crate::memory;
use crate::race::NOISE;

/// The loss that is reported is the mean over so many last steps.
const LAST_STEPS: usize = 20;
/// The weights that the peers' trainings start from: those of [`lesson`].
pub const FIRST_WEIGHTS: &str = "first_weights.safetensors";

/// What `bench worker` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// In which precision to compute: mixed or float32
    #[arg(long)]
    precision: Precision,
    /// As every contender; the first weights are made here
    #[arg(long, value_name = "FOLDER")]
    #[allow(dead_code)]
    data: PathBuf,
    /// The folder with the four raw MNIST files
    #[arg(long, value_name = "FOLDER")]
    mnist: PathBuf,
    /// How many threads to compute on
    #[arg(long)]
    threads: usize,
}

/// A request to a worker. Each kind of request reads the fields that it needs.
#[derive(Debug, Deserialize)]
struct Request {
    run: String,
    #[serde(default)]
    batch: usize,
    #[serde(default)]
    warmup: usize,
    #[serde(default)]
    steps: usize,
    #[serde(default)]
    images: usize,
    #[serde(default)]
    guidance: f64,
}

/// Answers requests until `exit`, or until there are no more.
pub fn serve(arguments: Arguments) -> Result<()> {
    let worker = Worker {
        mnist: Mnist::load_from(&arguments.mnist)?,
        generator: drawn::Generator::default(),
        arguments,
    };
    say(&json!({"ready": {
        "name": format!("ours-{}", short(worker.arguments.precision)),
        "versions": {"diffusion": env!("CARGO_PKG_VERSION"), "libtorch": libtorch_version()},
        "settings": format!("{}, {} threads", worker.arguments.precision, worker.arguments.threads),
    }}))?;
    for line in std::io::stdin().lock().lines() {
        let request: Request =
            serde_json::from_str(&line?).context("expected a request as JSON")?;
        if request.run == "exit" {
            break;
        }
        say(&match worker.answer(&request) {
            Ok(answer) => answer,
            Err(error) => json!({"error": format!("{error:#}")}),
        })?;
    }
    Ok(())
}

fn say(line: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

fn short(precision: Precision) -> &'static str {
    match precision {
        Precision::Mixed => "mixed",
        Precision::Float32 => "float32",
    }
}

/// As libtorch's own folder tells.
fn libtorch_version() -> String {
    let folder = std::env::var_os("LIBTORCH").map(PathBuf::from);
    let file = folder.map(|folder| folder.join("build-version"));
    file.and_then(|file| std::fs::read_to_string(file).ok())
        .map_or("unknown".to_owned(), |text| text.trim().to_owned())
}

impl Request {
    fn settings(&self) -> drawn::Settings {
        let &Request {
            images,
            steps,
            guidance,
            ..
        } = self;
        drawn::Settings {
            images,
            steps,
            guidance,
        }
    }
}

/// The lesson's network, untrained.
pub fn lesson() -> Result<Network> {
    Ok(Network::new([28, 28, 1], lesson_cnn())?.seeded(26))
}

/// A learner's: the lesson's with three more convolutions after the second one.
fn deeper() -> Result<Network> {
    let mut layers = lesson_cnn();
    layers.splice(2..2, vec![conv2d(32, 3).relu(); 3]);
    Network::new([28, 28, 1], layers)
}

/// The loss of notebook 6 (Ho et al. 2020, eq. 14).
fn noise_loss(unet: &Unet, batch: &Batch) -> Result<Tensor> {
    let x0 = centred(&batch.images);
    let t = batch.timesteps(unet.schedule());
    let eps = batch.noise();
    let x_t = unet.schedule().q_sample(&x0, &t, &eps)?;
    mean_squared_error(&unet.predict(&x_t, &t, &batch.labels_dropped(0.1)?)?, &eps)
}

struct Worker {
    arguments: Arguments,
    generator: drawn::Generator,
    mnist: Mnist,
}

impl Worker {
    /// One arm for each kind of request.
    fn answer(&self, request: &Request) -> Result<Value> {
        match request.run.as_str() {
            "cnn_train" => self.train_network(lesson()?, request),
            "deeper_train" => self.train_network(deeper()?, request),
            "unet_train" => {
                let mut unet = Unet::new(UnetConfig::default())?;
                unet.compile(Adam::new(0.001), noise_loss);
                self.train(request, |some, fit, watch| unet.fit_with(some, fit, watch))
            }
            "draw_seconds" => drawn::seconds(request.images, request.steps),
            "class_accuracy" => self
                .generator
                .class_accuracy(&self.mnist, request.settings()),
            "frechet_over_floor" => self
                .generator
                .frechet_over_floor(&self.mnist, request.settings()),
            "ddim25_loss" => self
                .generator
                .loss_of_few_steps(&self.mnist, request.settings()),
            "denoise_gain_db" => drawn::denoise_gain(&self.mnist, request.images),
            "cnn_infer" => self.infer(request),
            "mnist_load" => self.load(),
            "evaluate_memory" => self.evaluate(),
            other => bail!("unknown request {other:?}"),
        }
    }

    /// The training of a network as in the lesson.
    fn train_network(&self, mut network: Network, request: &Request) -> Result<Value> {
        network.compile(Adam::new(0.001), Loss::BinaryCrossEntropy);
        self.train(request, |some, fit, watch| {
            network.fit_with(&some.noisy(NOISE)?, fit, watch)
        })
    }

    /// Images a second over the timed steps, and the loss at their end.
    fn train(
        &self,
        request: &Request,
        train: impl FnOnce(&Split, &Fit, &mut Stopwatch) -> Result<History>,
    ) -> Result<Value> {
        let &Request {
            batch,
            warmup,
            steps,
            ..
        } = request;
        ensure!(
            batch >= 1 && steps >= 1,
            "expected a batch and steps of 1 or more, got {batch} and {steps}"
        );
        // As many images as are needed, in whole batches; from the beginning again where they run out.
        let all = &self.mnist.train;
        let images = (batch * (warmup + steps)).min(all.len()) / batch * batch;
        let fit = Fit {
            epochs: (batch * (warmup + steps)).div_ceil(images),
            batch_size: batch,
            validation: 0,
            precision: self.arguments.precision,
            threads: self.arguments.threads,
            quiet: true,
            ..Default::default()
        };
        let mut watch = Stopwatch {
            warmup,
            last: warmup + steps,
            started: Instant::now(),
            seconds: None,
        };
        let history = train(&all.first(images)?, &fit, &mut watch)?;
        let seconds = watch
            .seconds
            .context("the training ended before its last step")?;
        let losses = &history.batch_losses;
        let last = &losses[losses.len().saturating_sub(LAST_STEPS.min(steps))..];
        let loss = last.iter().sum::<f64>() / last.len() as f64;
        Ok(json!({"value": (batch * steps) as f64 / seconds, "loss": loss}))
    }

    /// Images a second through the network, and the cross-entropy of what came out.
    fn infer(&self, request: &Request) -> Result<Value> {
        set_seed(1);
        let cnn = lesson()?;
        let clean = self.mnist.test.images(request.images)?;
        let noisy = add_noise(&clean, NOISE)?;
        let denoise = || cnn.predict_in(self.arguments.precision, &noisy);
        // Once untimed: libtorch prepares its kernels, and the system the memory.
        let _ = denoise()?;
        let started = Instant::now();
        let denoised = denoise()?;
        let seconds = started.elapsed().as_secs_f64();
        ensure!(
            denoised.size() == clean.size(),
            "the network gave {:?}",
            denoised.size()
        );
        let loss = binary_cross_entropy(&denoised.logit(1e-7), &clean)?.double_value(&[]);
        Ok(json!({"value": request.images as f64 / seconds, "loss": loss}))
    }

    /// Seconds to read, check and scale all images.
    fn load(&self) -> Result<Value> {
        let started = Instant::now();
        let mnist = Mnist::load_from(&self.arguments.mnist)?;
        ensure!(mnist.is_standard, "expected the standard MNIST files");
        let scaled = [&mnist.train, &mnist.test].map(|split| split.images(split.len()));
        let seconds = started.elapsed().as_secs_f64();
        scaled.into_iter().try_for_each(|images| images.map(drop))?;
        Ok(json!({ "value": seconds }))
    }

    /// Megabytes above the loaded data and network while the whole test split is scored.
    fn evaluate(&self) -> Result<Value> {
        let cnn = lesson()?;
        let (scores, megabytes) =
            memory::peak(|| Scores::of(&self.mnist.test, NOISE, |noisy| cnn.predict(noisy)))?;
        ensure!(
            scores?.images == self.mnist.test.len(),
            "expected that all images are scored"
        );
        Ok(json!({ "value": megabytes }))
    }
}

/// Takes the time of the steps after the first few, and ends the training after the last of them.
struct Stopwatch {
    warmup: usize,
    last: usize,
    started: Instant,
    seconds: Option<f64>,
}

impl Observer for Stopwatch {
    fn start(&mut self, _plan: &Plan) {
        self.started = Instant::now();
    }

    fn batch(&mut self, _plan: &Plan, batch: usize, _loss: f64) -> ControlFlow<()> {
        if batch == self.warmup {
            self.started = Instant::now();
        }
        if batch < self.last {
            return ControlFlow::Continue(());
        }
        self.seconds = Some(self.started.elapsed().as_secs_f64());
        ControlFlow::Break(())
    }
}
