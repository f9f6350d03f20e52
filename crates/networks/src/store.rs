//! Named tensors and text metadata in one safetensors file. This module knows nothing of models.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use figures::{with_home, write_whole};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use tch::{Kind, Tensor};

/// The contents of a file.
pub(crate) struct Store {
    /// All tensors, `float32`.
    pub(crate) tensors: BTreeMap<String, Tensor>,
    /// All texts.
    pub(crate) metadata: HashMap<String, String>,
}

/// Writes tensors as numbers of one kind, and texts. An older file is replaced whole or not at all.
///
/// # Errors
/// A kind that the format lacks, or a file that cannot be written.
pub(crate) fn write(
    path: &Path,
    tensors: &[(String, Tensor)],
    kind: Kind,
    metadata: HashMap<String, String>,
) -> Result<()> {
    let dtype = Dtype::try_from(kind)?;
    let mut bytes = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let shape: Vec<usize> = tensor.size().iter().map(|&size| size as usize).collect();
        let flat = tensor.detach().to_kind(kind).contiguous().view(-1);
        let mut data = vec![0u8; flat.numel() * kind.elt_size_in_bytes()];
        flat.f_copy_data_u8(&mut data, flat.numel())?;
        bytes.push((name, shape, data));
    }
    let views = bytes
        .iter()
        .map(|(name, shape, data)| Ok((name, TensorView::new(dtype, shape.clone(), data)?)))
        .collect::<Result<Vec<_>>>()?;
    write_whole(path, &serialize(views, &Some(metadata))?)
}

/// Reads a file whole.
///
/// # Errors
/// A file that cannot be read, is truncated or not safetensors, or holds other numbers than `float32` and `float16`.
pub(crate) fn read(path: &Path) -> Result<Store> {
    let path: &Path = &with_home(path)?;
    let bytes =
        fs::read(path).with_context(|| format!("cannot read the checkpoint {}", path.display()))?;
    parse(&bytes).with_context(|| format!("{} cannot be loaded", path.display()))
}

fn parse(bytes: &[u8]) -> Result<Store> {
    let damaged = "it is truncated, or not a safetensors file";
    let (_, header) = SafeTensors::read_metadata(bytes).context(damaged)?;
    let file = SafeTensors::deserialize(bytes).context(damaged)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        ensure!(
            [Dtype::F32, Dtype::F16].contains(&view.dtype()),
            "the tensor {name} holds {:?}; expected F32 or F16",
            view.dtype()
        );
        tensors.insert(name, Tensor::try_from(view)?.to_kind(Kind::Float));
    }
    Ok(Store {
        tensors,
        metadata: header.metadata().clone().unwrap_or_default(),
    })
}
