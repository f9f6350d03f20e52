//! A network in a file: its list of layers, its weights, and which layers are frozen.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::Network;
use super::blueprint::{Blueprint, Initialisation};
use super::checkpoint::{Checkpoint, save_layers, trained};
use super::layer::Layer;

/// What files of a [`Network`] call it.
const KIND: &str = "network";

/// What a file says about a network besides its weights: the fields of its [`Blueprint`] (written out, because serde accepts
/// unknown fields beside flattened ones), and which layers are frozen.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    input: Vec<i64>,
    layers: Vec<Layer>,
    seed: u64,
    initialisation: Initialisation,
    frozen: Vec<String>,
}

impl Network {
    /// Saves the list of layers, the weights, and which layers are frozen, to a safetensors file.
    ///
    /// The file is written beside its final place and then renamed, so that a full disk or an
    /// interrupt leaves an older file as it was.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.save_in(path.as_ref(), Kind::Float)
    }

    /// Saves as [`save`](Network::save) does, at half the size: weights are rounded to `float16`
    /// (11 significant bits; enough for every figure this lesson shows).
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save_half(&self, path: impl AsRef<Path>) -> Result<()> {
        self.save_in(path.as_ref(), Kind::Half)
    }

    fn save_in(&self, path: &Path, kind: Kind) -> Result<()> {
        save_layers(&self.layers, KIND, self.description()?, path, kind)
    }

    /// The list of layers, and which of them are frozen, as JSON.
    pub(crate) fn description(&self) -> Result<String> {
        let frozen = self.layers.iter().filter(|layer| !layer.is_trainable());
        let blueprint = self.blueprint.clone();
        Ok(serde_json::to_string(&Description {
            input: blueprint.input,
            layers: blueprint.layers,
            seed: blueprint.seed,
            initialisation: blueprint.initialisation,
            frozen: frozen.map(|layer| layer.name.clone()).collect(),
        })?)
    }

    /// The network of a file that [`save`](Network::save) wrote. It is not compiled.
    ///
    /// # Errors
    /// A file that cannot be read, is truncated or not safetensors, holds no network's list of layers, or whose tensors are
    /// missing, extra or of another shape.
    pub fn load(path: impl AsRef<Path>) -> Result<Network> {
        let file = Checkpoint::read(KIND, path.as_ref())?;
        let built = || -> Result<Network> {
            let description: Description = serde_json::from_str(file.settings()?)
                .context("its list of layers cannot be read")?;
            let blueprint = Blueprint {
                input: description.input,
                layers: description.layers,
                seed: description.seed,
                initialisation: description.initialisation,
            };
            // Nothing is drawn: the weights come from the file.
            let zeros = &mut |shape: &[i64], _| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
            let mut network = Network {
                layers: blueprint.named_layers(zeros)?,
                blueprint,
                compiled: None,
            };
            for name in &description.frozen {
                let at = network.position(name)?;
                network.layers[at].set_trainable(false);
            }
            Ok(network)
        };
        let mut network = built().map_err(|error| file.refused(error))?;
        file.load_into(&mut network.layers)?;
        Ok(network)
    }

    /// The trained network of this name, `"cnn"` or `"classifier"`: what an earlier notebook saved in `saved/`, else the
    /// weights that come with the lesson, in `weights/`, both beside the notebook. Says which one it was; a saved file that
    /// cannot be loaded is skipped with a line that says why.
    ///
    /// # Errors
    /// When there is neither, or the lesson's own cannot be loaded.
    pub fn trained(name: &str) -> Result<Network> {
        trained(name, &|path| Network::load(path))
    }
}
