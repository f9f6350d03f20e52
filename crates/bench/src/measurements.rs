//! What is measured: one entry in a table for each.
//!
//! To add a measurement:
//! 1. an entry in [`MEASUREMENTS`]: its name, what it is, the contenders with the targets, and the request;
//! 2. an arm for that request in our worker ([`crate::ours`]);
//! 3. for a peer, an arm in its worker (`crates/bench/python`).
//!
//! The rest follows: rounds, statistics, table, plot, `report.json`, `--only`. The entry `unet_train` shows how
//! little another network's training takes; its arm in our worker is three lines.

use serde_json::{Value, json};

use crate::programs::{
    Contender, KERAS_FLOAT32, KERAS_MIXED, KERAS_TO_19DB, KERAS_TO_19DB_CALIBRATED, KERNEL,
    OURS_FLOAT32, OURS_MIXED, OURS_TO_19DB, OURS_TO_19DB_AS_KERAS, PYTHON_KERNEL, Program,
    TORCH_COMPILE, TORCH_FLOAT32, TORCH_MIXED,
};

/// Which of two values is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// A rate.
    Higher,
    /// A time, or a size.
    Lower,
}

/// How a value comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Workers that live through all rounds get a request in turn.
    Ask,
    /// Each round asks a worker that has done nothing before.
    AskAnew,
    /// Each round is a new process that trains until it is good enough ([`crate::race`]); its seed is the
    /// number of the round, from 1.
    Race,
}

/// One thing that is measured.
#[derive(Clone, Copy, Debug)]
pub struct Measurement {
    /// Its name, in reports and for `--only`.
    pub name: &'static str,
    /// What it is, in words.
    pub what: &'static str,
    /// The unit of its values.
    pub unit: &'static str,
    /// Which values are better.
    pub better: Better,
    /// How a value comes about.
    pub way: Way,
    /// Who stands for us.
    pub ours: Contender,
    /// The peers, and for some how many times better than they we want to be.
    pub peers: &'static [(Contender, Option<f64>)],
    /// The worst that we want to see, in the measurement's unit.
    pub limit: Option<f64>,
    /// How many rounds, and how many with `--quick`.
    pub rounds: (usize, usize),
    /// The request to a worker; the argument says whether it is to be quick. Threads are added to it.
    pub request: fn(bool) -> Value,
}

impl Measurement {
    /// Whether a round gives the same value again: then one is enough.
    pub fn repeats_itself(&self) -> bool {
        self.rounds.0 == 1
    }

    /// Whether ours is a kernel.
    pub fn needs_kernel(&self) -> bool {
        matches!(self.ours.program, Program::Jupyter(_))
    }
}

const TRAIN: Measurement = Measurement {
    name: "",
    what: "",
    unit: "images/s",
    better: Better::Higher,
    way: Way::Ask,
    ours: OURS_MIXED,
    peers: &[],
    limit: None,
    rounds: (11, 2),
    request: |quick| train("cnn_train", quick),
};

const INFER: Measurement = Measurement {
    request: |quick| json!({"run": "cnn_infer", "images": if quick { 1_000 } else { 10_000 }}),
    ..TRAIN
};

/// Drawn once: a seed gives the same digits again.
const DRAWN: Measurement = Measurement {
    rounds: (1, 1),
    ..TRAIN
};

/// The strength of guidance at which the Fréchet distance is lowest, of 0, 0.25 and 0.5.
const BEST: f64 = 0.25;

const KERNEL_TIME: Measurement = Measurement {
    unit: "s",
    better: Better::Lower,
    ours: KERNEL,
    peers: &[(PYTHON_KERNEL, None)],
    rounds: (20, 1),
    ..TRAIN
};

/// Everything that is measured, in this order.
pub const MEASUREMENTS: &[Measurement] = &[
    Measurement {
        name: "cnn_train_mixed",
        what: "training the lesson's network, batch 128, mixed precision",
        peers: &[
            (KERAS_FLOAT32, Some(2.0)),
            (KERAS_MIXED, Some(1.35)),
            (TORCH_FLOAT32, None),
            (TORCH_MIXED, None),
            (TORCH_COMPILE, None),
        ],
        ..TRAIN
    },
    Measurement {
        name: "cnn_train_float32",
        what: "training the lesson's network, batch 128, float32",
        ours: OURS_FLOAT32,
        peers: &[(KERAS_FLOAT32, Some(1.1)), (TORCH_FLOAT32, None)],
        ..TRAIN
    },
    Measurement {
        name: "deeper_train_mixed",
        what: "training a deeper network, three more convolutions of 32 channels, mixed precision",
        peers: &[(KERAS_FLOAT32, None), (KERAS_MIXED, None)],
        request: |quick| train("deeper_train", quick),
        ..TRAIN
    },
    Measurement {
        name: "cnn_infer_mixed",
        what: "denoising the 10,000 test images, mixed precision",
        peers: &[
            (KERAS_FLOAT32, Some(2.0)),
            (KERAS_MIXED, None),
            (TORCH_MIXED, None),
            (TORCH_COMPILE, None),
        ],
        ..INFER
    },
    Measurement {
        name: "cnn_infer_float32",
        what: "denoising the 10,000 test images, float32",
        ours: OURS_FLOAT32,
        peers: &[(KERAS_FLOAT32, None), (TORCH_FLOAT32, None)],
        ..INFER
    },
    Measurement {
        name: "mnist_load",
        what: "reading, checking and scaling all 70,000 images",
        unit: "s",
        better: Better::Lower,
        peers: &[(KERAS_FLOAT32, None)],
        limit: Some(0.25),
        rounds: (15, 2), // short, so one is easily disturbed
        request: |_| json!({"run": "mnist_load"}),
        ..TRAIN
    },
    Measurement {
        name: "evaluate_memory",
        what: "memory above the loaded data while the 10,000 test images are denoised and scored",
        unit: "MB",
        better: Better::Lower,
        way: Way::AskAnew,
        limit: Some(300.0),
        rounds: (3, 1),
        request: |_| json!({"run": "evaluate_memory"}),
        ..TRAIN
    },
    Measurement {
        name: "time_to_19db",
        what: "from the start of a process until the test images score 19 dB, a seed for each round; \
            ours starts from the calibrated first weights, keras-float32 from Keras's own, keras-calibrated from \
            Keras's own calibrated as ours; time_to_19db_same_start compares like with like",
        unit: "s",
        better: Better::Lower,
        way: Way::Race,
        ours: OURS_TO_19DB,
        peers: &[(KERAS_TO_19DB, Some(3.0)), (KERAS_TO_19DB_CALIBRATED, None)],
        rounds: (3, 1), // without `--rounds` the seeds 1, 2 and 3, because they come first
        ..TRAIN
    },
    Measurement {
        name: "time_to_19db_same_start",
        what: "from the start of a process until the test images score 19 dB, a seed for each round; \
            ours and Keras both from first weights chosen as Keras does (Keras's runs are those of time_to_19db, \
            where that is measured too)",
        unit: "s",
        better: Better::Lower,
        way: Way::Race,
        ours: OURS_TO_19DB_AS_KERAS,
        peers: &[(KERAS_TO_19DB, None)],
        rounds: (3, 1),
        ..TRAIN
    },
    Measurement {
        name: "unet_train",
        what: "training the U-Net of notebook 6, batch 128, mixed precision; the peers the same network",
        peers: &[(TORCH_FLOAT32, Some(2.0)), (TORCH_MIXED, None)],
        rounds: (7, 1),
        request: |quick| {
            let (warmup, steps) = if quick { (2, 2) } else { (4, 12) };
            json!({"run": "unet_train", "batch": 128, "warmup": warmup, "steps": steps})
        },
        ..TRAIN
    },
    Measurement {
        name: "ddim25_64_seconds",
        what: "drawing 64 digits by DDIM in 25 steps",
        unit: "s",
        better: Better::Lower,
        limit: Some(4.0),
        request: |_| json!({"run": "draw_seconds", "images": 64, "steps": 25}),
        ..TRAIN
    },
    Measurement {
        name: "class_accuracy",
        what: "1,000 digits by DDIM in 50 steps at guidance 1, assigned to the requested class by the classifier",
        unit: "%",
        limit: Some(99.0),
        request: |quick| draw("class_accuracy", quick, 1_000, 50, 1.0),
        ..DRAWN
    },
    Measurement {
        name: "frechet_over_floor",
        what: "the Fréchet distance of 5,000 digits by DDIM in 50 steps at guidance 0.25 from real ones, as a multiple \
            of the distance between two samples of real ones",
        unit: "times",
        better: Better::Lower,
        limit: Some(3.0),
        request: |quick| draw("frechet_over_floor", quick, 5_000, 50, BEST),
        ..DRAWN
    },
    Measurement {
        name: "class_accuracy_at_best_frechet",
        what: "the same 5,000 digits, assigned to the requested class by the classifier",
        unit: "%",
        limit: Some(97.0),
        request: |quick| draw("class_accuracy", quick, 5_000, 50, BEST),
        ..DRAWN
    },
    Measurement {
        name: "ddim25_loss",
        what: "how much larger the Fréchet distance of 1,000 digits is in 25 steps of DDIM than in 250, at guidance 0",
        unit: "%",
        better: Better::Lower,
        limit: Some(20.0),
        request: |quick| draw("ddim25_loss", quick, 1_000, 25, 0.0),
        ..DRAWN
    },
    Measurement {
        name: "denoise_gain_db",
        what: "PSNR of the 10,000 test images at noise 0.5, denoised by the U-Net in one step, over the CNN's",
        unit: "dB",
        limit: Some(2.0),
        request: |quick| json!({"run": "denoise_gain_db", "images": if quick { 100 } else { 10_000 }}),
        ..DRAWN
    },
    Measurement {
        name: "kernel_start",
        what: "from the start of a kernel until it is ready",
        request: |_| json!({"run": "kernel_start"}),
        ..KERNEL_TIME
    },
    Measurement {
        name: "first_picture",
        what: "from the start of a kernel to notebook 1's first picture, all its cells run at once",
        limit: Some(9.0),
        request: |_| json!({"run": "first_picture"}),
        ..KERNEL_TIME
    },
    Measurement {
        name: "first_cell_after_reading",
        what: "the first cell of notebook 1, when it has been open for 20 s",
        limit: Some(0.6),
        request: |quick| json!({"run": "first_cell_after_reading", "seconds": if quick { 1 } else { 20 }}),
        ..KERNEL_TIME
    },
    Measurement {
        name: "edit_to_picture",
        what: "from another noise level in notebook 4 to its picture",
        limit: Some(0.45),
        rounds: (20, 3),
        request: |_| json!({"run": "edit_to_picture"}),
        ..KERNEL_TIME
    },
    Measurement {
        name: "compile_error",
        what: "from running a cell with a mistake to the words about it",
        limit: Some(0.5),
        rounds: (20, 3),
        request: |_| json!({"run": "compile_error"}),
        ..KERNEL_TIME
    },
    Measurement {
        name: "explorer",
        what: "from running the cell of the noise explorer to its page",
        limit: Some(1.5),
        peers: &[],
        rounds: (20, 3),
        request: |_| json!({"run": "explorer"}),
        ..KERNEL_TIME
    },
    Measurement {
        name: "kernel_memory",
        what: "memory of an idle kernel after notebook 1's first picture, all its processes",
        unit: "MB",
        limit: Some(850.0),
        rounds: (5, 1),
        request: |_| json!({"run": "kernel_memory"}),
        ..KERNEL_TIME
    },
    Measurement {
        name: "kernel_disk",
        what: "what a kernel has on disk after notebook 1's first picture and shares with nobody",
        unit: "MB",
        limit: Some(60.0),
        peers: &[],
        rounds: (5, 1),
        request: |_| json!({"run": "kernel_disk"}),
        ..KERNEL_TIME
    },
];

/// Beside the measurements, numbers that make a table of their own ([`crate::tables`]).
pub const TABLES: &[(&str, &str)] = &[
    (
        "throughput",
        "training images/s for each batch size, number of threads and precision",
    ),
    (
        "trainings_at_once",
        "memory and images/s of one, two and four trainings at once",
    ),
];

/// The request for a training of a model: from the first weights, some steps that are not timed and some that are.
fn train(run: &str, quick: bool) -> Value {
    let (warmup, steps) = if quick { (3, 5) } else { (10, 40) };
    json!({"run": run, "batch": 128, "warmup": warmup, "steps": steps})
}

/// The request for a score of drawn digits.
fn draw(run: &str, quick: bool, images: usize, steps: usize, guidance: f64) -> Value {
    let images = if quick { 100 } else { images };
    json!({"run": run, "images": images, "steps": steps, "guidance": guidance})
}

/// All names that `--only` knows, in order.
pub fn names() -> Vec<&'static str> {
    let measurements = MEASUREMENTS.iter().map(|measurement| measurement.name);
    measurements
        .chain(TABLES.iter().map(|(name, _)| *name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_entry_is_complete() {
        let mut names = names();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), MEASUREMENTS.len() + TABLES.len());
        for measurement in MEASUREMENTS {
            assert!(!measurement.name.is_empty() && !measurement.what.is_empty());
            assert!(measurement.rounds.0 >= measurement.rounds.1 && measurement.rounds.1 >= 1);
            assert!((measurement.request)(true)["run"].is_string());
        }
    }

    #[test]
    fn contenders_of_one_name_in_long_lived_rounds_are_one_process() {
        let all: Vec<Contender> = MEASUREMENTS
            .iter()
            .filter(|measurement| measurement.way == Way::Ask)
            .flat_map(|measurement| {
                let peers = measurement.peers.iter().map(|(peer, _)| *peer);
                peers.chain([measurement.ours])
            })
            .collect();
        for a in &all {
            assert!(all.iter().all(|b| a.name != b.name || a == b));
        }
    }
}
