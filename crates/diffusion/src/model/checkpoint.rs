//! Checkpoints: a model's weights and configuration in a safetensors file.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Error, Result, bail, ensure};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use tch::{Kind, Tensor};

use super::Layer;

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
    let dtype = if kind == Kind::Half {
        Dtype::F16
    } else {
        Dtype::F32
    };
    let mut tensors = Vec::new();
    for (name, weight) in named_weights(layers) {
        let shape: Vec<usize> = weight.size().iter().map(|&size| size as usize).collect();
        tensors.push((name, shape, bytes_of(&weight, kind)?));
    }
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((name, TensorView::new(dtype, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>>>()?;
    let metadata = [
        (MODEL_KEY.to_owned(), model.to_owned()),
        (CONFIG_KEY.to_owned(), settings),
    ];
    let bytes = safetensors::serialize(views, &Some(metadata.into()))?;
    write_whole(path, &bytes)
}

/// Gives layers the weights of a checkpoint of this kind of model.
pub(super) fn load(layers: &mut [Layer], model: &str, path: &Path) -> Result<()> {
    let bytes = read(path)?;
    let weights =
        read_weights(&bytes, model, layers).map_err(|error| not_of_this_model(error, path))?;
    let targets = layers.iter_mut().flat_map(|layer| {
        let trainable = layer.trainable;
        layer
            .weights
            .iter_mut()
            .map(move |(_, weight)| (weight, trainable))
    });
    for ((target, trainable), weight) in targets.zip(weights) {
        *target = weight.set_requires_grad(trainable);
    }
    Ok(())
}

/// The first of these checkpoints that exists.
pub(super) fn first_of<'a>(paths: &[&'a str]) -> Result<&'a str> {
    let found = paths.iter().find(|path| Path::new(path).exists());
    match found {
        Some(path) => Ok(path),
        None => bail!("no checkpoint found; looked for {}", paths.join(", ")),
    }
}

/// The settings that stand in a checkpoint of this kind of model.
pub(super) fn saved_settings(model: &str, path: &Path) -> Result<String> {
    let bytes = read(path)?;
    let settings = metadata(&bytes, model).and_then(|mut metadata| {
        metadata
            .remove(CONFIG_KEY)
            .context("it names no configuration")
    });
    settings.map_err(|error| not_of_this_model(error, path))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read the checkpoint {}", path.display()))
}

pub(super) fn not_of_this_model(error: Error, path: &Path) -> Error {
    error.context(format!(
        "{} is not a checkpoint of this model",
        path.display()
    ))
}

/// What a checkpoint says about itself, once it is known to be of this kind of model.
fn metadata(bytes: &[u8], kind: &str) -> Result<HashMap<String, String>> {
    let (_, header) =
        SafeTensors::read_metadata(bytes).context("it is truncated, or not a safetensors file")?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let found = metadata.get(MODEL_KEY);
    ensure!(
        found.is_some_and(|found| found == kind),
        "it holds a model of kind {}; expected {kind:?}",
        found.map_or("unknown".to_owned(), |found| format!("{found:?}")),
    );
    Ok(metadata)
}

/// The tensors of a checkpoint, in the order of `layers`, once everything about it is right.
fn read_weights(bytes: &[u8], kind: &str, layers: &[Layer]) -> Result<Vec<Tensor>> {
    metadata(bytes, kind)?;
    let file =
        SafeTensors::deserialize(bytes).context("it is truncated, or not a safetensors file")?;
    let mut found: BTreeMap<String, TensorView> = file.tensors().into_iter().collect();
    let mut weights = Vec::new();
    for (name, weight) in named_weights(layers) {
        let Some(view) = found.remove(&name) else {
            bail!("the tensor {name} is missing")
        };
        let shape: Vec<i64> = view.shape().iter().map(|&size| size as i64).collect();
        ensure!(
            shape == weight.size(),
            "the tensor {name} has shape {shape:?}; expected {:?}",
            weight.size()
        );
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            other => bail!("the tensor {name} holds {other:?}; expected F32 or F16"),
        };
        let tensor = Tensor::f_from_data_size(view.data(), &shape, kind)?.to_kind(Kind::Float);
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

fn named_weights(layers: &[Layer]) -> impl Iterator<Item = (String, Tensor)> + '_ {
    layers.iter().flat_map(|layer| {
        layer
            .weights
            .iter()
            .map(|(name, weight)| (format!("{}.{name}", layer.name), weight.shallow_clone()))
    })
}

fn bytes_of(weight: &Tensor, kind: Kind) -> Result<Vec<u8>> {
    let flat = weight.detach().to_kind(kind).contiguous().view(-1);
    let mut bytes = vec![0u8; flat.numel() * kind.elt_size_in_bytes()];
    flat.f_copy_data_u8(&mut bytes, flat.numel())?;
    Ok(bytes)
}

/// Writes a file so that it is there whole or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let write = || -> Result<()> {
        fs::create_dir_all(folder)?;
        let mut name = path.file_name().context("it names no file")?.to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let temporary = folder.join(name);
        let written = fs::File::create(&temporary)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary); // what is half-written helps nobody
        }
        Ok(written?)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
