//! Checkpoints: a model's weights and configuration in a safetensors file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail, ensure};
use figures::with_home;
use tch::{Kind, Tensor};

use super::layer::Layer;
use crate::store::{self, Store};

/// Metadata keys of a checkpoint.
const MODEL_KEY: &str = "model";
const CONFIG_KEY: &str = "config";

/// Writes layers and settings of this kind of model.
pub(super) fn save(
    layers: &[Layer],
    model: &str,
    settings: String,
    path: &Path,
    kind: Kind,
) -> Result<()> {
    let metadata = HashMap::from([
        (MODEL_KEY.to_owned(), model.to_owned()),
        (CONFIG_KEY.to_owned(), settings),
    ]);
    let weights: Vec<(String, Tensor)> = named_weights(layers).collect();
    store::write(path, &weights, kind, metadata)
}

/// The first of these checkpoints that exists.
pub(super) fn first_of<'a>(paths: &[&'a str]) -> Result<&'a str> {
    let found = paths
        .iter()
        .find(|path| with_home(Path::new(path)).is_ok_and(|path| path.exists()));
    match found {
        Some(path) => Ok(path),
        None => bail!("no checkpoint found; looked for {}", paths.join(", ")),
    }
}

/// A file that was read, and is of the right kind of model.
pub(super) struct Checkpoint {
    store: Store,
    path: PathBuf,
}

impl Checkpoint {
    /// Reads a checkpoint of this kind of model.
    pub(super) fn read(kind: &str, path: &Path) -> Result<Checkpoint> {
        let checkpoint = Checkpoint {
            store: store::read(path)?,
            path: path.to_owned(),
        };
        let found = checkpoint.store.metadata.get(MODEL_KEY);
        let check = || -> Result<()> {
            ensure!(
                found.is_some_and(|found| found == kind),
                "it holds a model of kind {}; expected {kind:?}",
                found.map_or("unknown".to_owned(), |found| format!("{found:?}")),
            );
            Ok(())
        };
        checkpoint.named(check())?;
        Ok(checkpoint)
    }

    /// The settings that the model was built from.
    pub(super) fn settings(&self) -> Result<&str> {
        let settings = self.store.metadata.get(CONFIG_KEY).map(String::as_str);
        self.named(settings.context("it names no configuration"))
    }

    /// The error of a model that cannot be built from this file.
    pub(super) fn refused(&self, error: Error) -> Error {
        error.context(format!(
            "{} is not a checkpoint of this model",
            self.path.display()
        ))
    }

    /// Gives layers their weights, once everything about them is right.
    pub(super) fn load_into(mut self, layers: &mut [Layer]) -> Result<()> {
        let weights = self.take_weights(layers);
        let mut weights = self.named(weights)?.into_iter();
        for layer in layers {
            let trainable = layer.is_trainable();
            for ((_, weight), loaded) in layer.weights.iter_mut().zip(&mut weights) {
                *weight = loaded.set_requires_grad(trainable);
            }
        }
        Ok(())
    }

    /// The tensors in the order of `layers`.
    fn take_weights(&mut self, layers: &[Layer]) -> Result<Vec<Tensor>> {
        let found = &mut self.store.tensors;
        let mut weights = Vec::new();
        for (name, weight) in named_weights(layers) {
            let Some(tensor) = found.remove(&name) else {
                bail!("the tensor {name} is missing")
            };
            ensure!(
                tensor.size() == weight.size(),
                "the tensor {name} has shape {:?}; expected {:?}",
                tensor.size(),
                weight.size()
            );
            ensure!(
                bool::try_from(tensor.isfinite().all())?,
                "the tensor {name} holds numbers that are not finite"
            );
            weights.push(tensor);
        }
        ensure!(
            found.is_empty(),
            "it holds tensors that this model does not know: {}",
            found.keys().cloned().collect::<Vec<_>>().join(", "),
        );
        Ok(weights)
    }

    fn named<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| self.refused(error))
    }
}

fn named_weights(layers: &[Layer]) -> impl Iterator<Item = (String, Tensor)> + '_ {
    layers.iter().flat_map(|layer| {
        layer
            .weights
            .iter()
            .map(|(name, weight)| (format!("{}.{name}", layer.name), weight.shallow_clone()))
    })
}
