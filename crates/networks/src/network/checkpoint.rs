//! Checkpoints: a network's weights, and what it was built from, in a safetensors file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail, ensure};
use tch::{Kind, Tensor};

use super::named_layer::NamedLayer;
use crate::store::{self, Store};

/// Metadata keys of a checkpoint.
const MODEL_KEY: &str = "model";
const CONFIG_KEY: &str = "config";

/// Writes layers and settings of this kind of network.
pub fn save_layers(
    layers: &[NamedLayer],
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

/// The trained network of this name: what an earlier notebook saved in `saved/`, else the weights that come with the
/// lesson, in `weights/`. Says which one it was; a saved file that cannot be loaded is skipped with a line.
pub fn trained<T>(name: &str, load: &dyn Fn(&Path) -> Result<T>) -> Result<T> {
    let [saved, ours] =
        ["saved", "weights"].map(|folder| PathBuf::from(format!("{folder}/{name}.safetensors")));
    if saved.exists() {
        match load(&saved) {
            Ok(network) => {
                println!("Weights from {}.", saved.display());
                return Ok(network);
            }
            Err(error) => println!("{} is skipped: {error:#}", saved.display()),
        }
    }
    ensure!(
        ours.exists(),
        "there is no trained network {name:?}; looked for {} and {}",
        saved.display(),
        ours.display()
    );
    let network = load(&ours)?;
    println!("Weights from {}.", ours.display());
    Ok(network)
}

/// A file that was read, and is of the right kind of network.
pub struct Checkpoint {
    store: Store,
    path: PathBuf,
}

impl Checkpoint {
    /// Reads a checkpoint of this kind of network.
    pub fn read(kind: &str, path: &Path) -> Result<Checkpoint> {
        let checkpoint = Checkpoint {
            store: store::read(path)?,
            path: path.to_owned(),
        };
        let found = checkpoint.store.metadata.get(MODEL_KEY);
        let check = || -> Result<()> {
            match found.map(String::as_str) {
                Some(found) if found == kind => Ok(()),
                Some(found @ ("cnn" | "classifier" | "unet_denoiser")) => bail!(
                    "it is a {found} of an earlier version of this lesson: delete the file, or train the network anew"
                ),
                Some(found) => bail!("it holds a network of kind {found:?}; expected {kind:?}"),
                None => bail!("it does not say what kind of network it holds; expected {kind:?}"),
            }
        };
        checkpoint.named(check())?;
        Ok(checkpoint)
    }

    /// What the network was built from.
    pub fn settings(&self) -> Result<&str> {
        let settings = self.store.metadata.get(CONFIG_KEY).map(String::as_str);
        self.named(settings.context("it names no configuration"))
    }

    /// The error of a network that cannot be built from this file.
    pub fn refused(&self, error: Error) -> Error {
        error.context(format!("{} cannot be loaded", self.path.display()))
    }

    /// Gives layers their weights, once everything about them is right.
    pub fn load_into(mut self, layers: &mut [NamedLayer]) -> Result<()> {
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
    fn take_weights(&mut self, layers: &[NamedLayer]) -> Result<Vec<Tensor>> {
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
            "it holds tensors that this network does not have: {}",
            found.keys().cloned().collect::<Vec<_>>().join(", "),
        );
        Ok(weights)
    }

    fn named<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| self.refused(error))
    }
}

fn named_weights(layers: &[NamedLayer]) -> impl Iterator<Item = (String, Tensor)> + '_ {
    layers.iter().flat_map(|layer| {
        layer
            .weights
            .iter()
            .map(|(name, weight)| (format!("{}.{name}", layer.name), weight.shallow_clone()))
    })
}
