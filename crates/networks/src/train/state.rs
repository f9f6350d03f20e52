//! The state of a training: what changes while it runs, and how it is kept in a file to go on from.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::config::Fit;
use super::history::{Epoch, History, Plan};
use super::moving_average::MovingAverage;
use super::optimizing::Optimizing;
use crate::objective::OptimizerState;
use crate::store;

/// The metadata key of everything that is not a tensor.
const KEY: &str = "training";

/// What changes while a training runs.
pub(super) struct State {
    pub(super) optimizing: Optimizing,
    pub(super) average: Option<MovingAverage>,
    pub(super) history: History,
    /// How many epochs earlier trainings of the same compiled network had.
    pub(super) first_epoch: usize,
    /// The lowest validation loss and its weights.
    pub(super) best: Option<(f64, Vec<Tensor>)>,
}

impl State {
    pub(super) fn new(
        optimizing: Optimizing,
        config: &Fit,
        plan: Plan,
        first_epoch: usize,
    ) -> State {
        let average = |decay| MovingAverage::new(decay, optimizing.copy_weights());
        State {
            average: config.moving_average.map(average),
            history: History::new(plan),
            first_epoch,
            best: None,
            optimizing,
        }
    }

    /// Swaps the weights and their moving average, if there is one.
    pub(super) fn swap_average(&mut self) -> Result<()> {
        if let Some(average) = &mut self.average {
            let weights = self.optimizing.copy_weights();
            self.optimizing.restore_weights(&average.weights)?;
            average.weights = weights;
        }
        Ok(())
    }

    /// Writes everything that [`restore`](State::restore) needs; an older file is replaced whole or not at all.
    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let mut tensors: Vec<(String, Tensor)> = Vec::new();
        let mut add = |name: &str, all: &[Tensor]| {
            let named = |(at, tensor): (usize, &Tensor)| (format!("{name}.{at}"), tensor.detach());
            tensors.extend(all.iter().enumerate().map(named));
        };
        let state = self.optimizing.state();
        add("weight", &self.optimizing.weights());
        for (at, name) in self.optimizing.moment_names().iter().enumerate() {
            let moments = state.moments.iter().filter_map(|moments| moments.get(at));
            add(
                name,
                &moments.map(Tensor::shallow_clone).collect::<Vec<_>>(),
            );
        }
        if let Some(average) = &self.average {
            add("average", &average.weights);
        }
        if let Some((_, weights)) = &self.best {
            add("best", weights);
        }
        let notes = Notes {
            steps: self.optimizing.steps(),
            first_epoch: self.first_epoch,
            epochs: self.history.epochs.clone(),
            batch_losses: self.history.batch_losses.clone(),
            best_loss: self.best.as_ref().map(|(loss, _)| *loss),
        };
        let metadata = HashMap::from([(KEY.to_owned(), serde_json::to_string(&notes)?)]);
        store::write(path, &tensors, Kind::Float, metadata)
    }

    /// Restores the state of a checkpoint.
    pub(super) fn restore(&mut self, checkpoint: Checkpoint) -> Result<()> {
        let from = checkpoint.from.clone();
        self.restore_all(checkpoint)
            .with_context(|| cannot_resume(&from))
    }

    fn restore_all(&mut self, checkpoint: Checkpoint) -> Result<()> {
        let Checkpoint { notes, tensors, .. } = checkpoint;
        let targets = self.optimizing.weights();
        let all = |name: &str| -> Result<Vec<Tensor>> {
            let same = |(at, weight): (usize, &Tensor)| {
                let tensor = tensors
                    .get(&format!("{name}.{at}"))
                    .with_context(|| format!("the tensor {name}.{at} is missing"))?;
                ensure!(
                    tensor.numel() == weight.numel(),
                    "the tensor {name}.{at} has shape {:?}; expected {:?}",
                    tensor.size(),
                    weight.size()
                );
                Ok(tensor.view_as(weight))
            };
            targets.iter().enumerate().map(same).collect()
        };
        let weights = all("weight")?;
        let mut moments: Vec<Vec<Tensor>> = targets.iter().map(|_| Vec::new()).collect();
        for name in self.optimizing.moment_names() {
            for (of_weight, moment) in moments.iter_mut().zip(all(name)?) {
                of_weight.push(moment);
            }
        }
        let state = OptimizerState {
            weights: self.optimizing.names().to_vec(),
            moments,
            steps: notes.steps,
        };
        if let Some(average) = &mut self.average {
            average.weights = all("average")?;
        }
        if let Some(loss) = notes.best_loss {
            self.best = Some((loss, all("best")?));
        }
        self.optimizing.restore_state(&state)?;
        self.optimizing.restore_weights(&weights)?;
        self.first_epoch = notes.first_epoch;
        self.history.epochs = notes.epochs;
        self.history.batch_losses = notes.batch_losses;
        Ok(())
    }
}

/// Everything about a training's state that is not a tensor.
#[derive(Serialize, Deserialize)]
struct Notes {
    steps: i32,
    first_epoch: usize,
    epochs: Vec<Epoch>,
    batch_losses: Vec<f64>,
    best_loss: Option<f64>,
}

/// A state that was read from a file.
pub(super) struct Checkpoint {
    notes: Notes,
    tensors: BTreeMap<String, Tensor>,
    from: String,
}

impl Checkpoint {
    pub(super) fn read(path: &Path) -> Result<Checkpoint> {
        let from = path.display().to_string();
        let read = || -> Result<Checkpoint> {
            let file = store::read(path)?;
            let notes = file.metadata.get(KEY);
            let notes = notes.context("it holds no training's state")?;
            Ok(Checkpoint {
                notes: serde_json::from_str(notes).context("its notes cannot be read")?,
                tensors: file.tensors,
                from: from.clone(),
            })
        };
        read().with_context(|| cannot_resume(&from))
    }
}

fn cannot_resume(from: &str) -> String {
    format!("cannot resume from {from}")
}
