//! A training's state in a file, to go on from.

use std::collections::HashMap;
use std::fmt::Debug;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::config::FitConfig;
use super::history::Epoch;
use super::{Plan, State};
use crate::model::{Layer, write_whole};

/// The key of what is not a tensor.
const KEY: &str = "training";

/// All of it that is not a tensor.
#[derive(Serialize, Deserialize)]
struct Notes {
    settings: String,
    steps: i32,
    epochs: Vec<Epoch>,
    batch_losses: Vec<f64>,
    best_loss: Option<f64>,
}

/// What was read from a file.
pub(super) struct Checkpoint {
    notes: Notes,
    tensors: HashMap<String, Tensor>,
    from: String,
}

/// What must be equal for a training to be the same one.
pub(super) fn settings(
    model: &str,
    layers: &[Layer],
    config: &FitConfig,
    objective: &dyn Debug,
    plan: &Plan,
) -> String {
    let layers = layers.iter().filter(|layer| layer.is_trainable());
    let layers: Vec<&str> = layers.map(|layer| layer.name.as_str()).collect();
    let config = FitConfig {
        quiet: false,
        checkpoint: None,
        ..config.clone()
    };
    format!("{model} {layers:?} {config:?} {objective:?} {plan:?}")
}

impl State {
    /// Writes all that [`restore`](State::restore) needs; an older file is replaced whole or not at all.
    pub(super) fn save(&self, path: &Path, settings: &str) -> Result<()> {
        let mut tensors: Vec<(String, Tensor)> = Vec::new();
        let mut add = |name: &str, all: &[Tensor]| {
            let named = |(at, tensor): (usize, &Tensor)| (format!("{name}.{at}"), tensor.detach());
            tensors.extend(all.iter().enumerate().map(named));
        };
        let (moments, steps) = self.adam.state();
        let (first, second): (Vec<Tensor>, Vec<Tensor>) = moments.into_iter().unzip();
        add("weight", self.adam.weights());
        add("first_moment", &first);
        add("second_moment", &second);
        if let Some(average) = &self.average {
            add("average", &average.weights);
        }
        if let Some((_, weights)) = &self.best {
            add("best", weights);
        }
        let notes = Notes {
            settings: settings.to_owned(),
            steps,
            epochs: self.history.epochs.clone(),
            batch_losses: self.history.batch_losses.clone(),
            best_loss: self.best.as_ref().map(|(loss, _)| *loss),
        };
        let mut bytes = Vec::with_capacity(tensors.len());
        for (name, tensor) in &tensors {
            let flat = tensor.to_kind(Kind::Float).contiguous().view(-1);
            let mut data = vec![0u8; 4 * flat.numel()];
            flat.f_copy_data_u8(&mut data, flat.numel())?;
            let shape: Vec<usize> = tensor.size().iter().map(|&size| size as usize).collect();
            bytes.push((name, shape, data));
        }
        let views = bytes
            .iter()
            .map(|(name, shape, data)| {
                Ok((name, TensorView::new(Dtype::F32, shape.clone(), data)?))
            })
            .collect::<Result<Vec<_>>>()?;
        let metadata = HashMap::from([(KEY.to_owned(), serde_json::to_string(&notes)?)]);
        write_whole(path, &safetensors::serialize(views, &Some(metadata))?)
    }

    /// Goes on where a checkpoint was written.
    pub(super) fn restore(&mut self, checkpoint: Checkpoint, settings: &str) -> Result<()> {
        let from = checkpoint.from.clone();
        let restored = || -> Result<()> {
            let Checkpoint { notes, tensors, .. } = checkpoint;
            ensure!(
                notes.settings == settings,
                "it is of another training; expected\n  {settings}\ngot\n  {}",
                notes.settings
            );
            let all = |name: &str| -> Result<Vec<Tensor>> {
                let weights = self.adam.weights().iter().enumerate();
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
                weights.map(same).collect()
            };
            let weights = all("weight")?;
            let moments = all("first_moment")?.into_iter().zip(all("second_moment")?);
            let moments: Vec<(Tensor, Tensor)> = moments.collect();
            if let Some(average) = &mut self.average {
                average.weights = all("average")?;
            }
            if let Some(loss) = notes.best_loss {
                self.best = Some((loss, all("best")?));
            }
            self.adam.restore_state(&moments, notes.steps)?;
            self.adam.restore_weights(&weights);
            self.history.epochs = notes.epochs;
            self.history.batch_losses = notes.batch_losses;
            Ok(())
        };
        restored().with_context(|| cannot_go_on(&from))
    }
}

impl Checkpoint {
    /// The epochs and the losses until then.
    pub(super) fn course(&self) -> (Vec<Epoch>, Vec<f64>) {
        (self.notes.epochs.clone(), self.notes.batch_losses.clone())
    }

    pub(super) fn read(path: &Path) -> Result<Checkpoint> {
        let from = path.display().to_string();
        let bytes = fs::read(path)
            .with_context(|| format!("cannot read the checkpoint {from} to go on from"))?;
        let read = || -> Result<Checkpoint> {
            let damaged = "it is truncated, or not a safetensors file";
            let (_, header) = SafeTensors::read_metadata(&bytes).context(damaged)?;
            let metadata = header.metadata().clone().unwrap_or_default();
            let notes = metadata.get(KEY).context("it holds no training's state")?;
            let file = SafeTensors::deserialize(&bytes).context(damaged)?;
            let mut tensors = HashMap::new();
            for (name, view) in file.tensors() {
                let shape: Vec<i64> = view.shape().iter().map(|&size| size as i64).collect();
                ensure!(
                    view.dtype() == Dtype::F32,
                    "the tensor {name} holds {:?}; expected F32",
                    view.dtype()
                );
                let tensor = Tensor::f_from_data_size(view.data(), &shape, Kind::Float)?;
                tensors.insert(name, tensor);
            }
            Ok(Checkpoint {
                notes: serde_json::from_str(notes).context("its notes cannot be read")?,
                tensors,
                from: from.clone(),
            })
        };
        read().with_context(|| cannot_go_on(&from))
    }
}

fn cannot_go_on(from: &str) -> String {
    format!("cannot go on from {from}")
}
