//! What training needs of a network. A cell that trains names no trait: it calls a network's own methods.

use std::path::Path;

use anyhow::Result;
use tch::Kind;

use crate::denoiser::UnetDenoiser;
use crate::network::{NamedLayer, Network};
use crate::unet::Unet;

/// A network that a training can change, save and load.
pub trait Trainable: Send + Sized {
    /// What its files call it.
    const KIND: &'static str;
    /// The layers, from input to output.
    fn layers(&self) -> &[NamedLayer];
    /// The layers, to freeze them.
    fn layers_mut(&mut self) -> &mut [NamedLayer];
    /// The same network with weights in another kind, to compute in it; in the same kind the two share memory.
    fn replica(&self, kind: Kind) -> Self;
    /// What it was built from, as JSON.
    fn description(&self) -> Result<String>;
    /// Saves it to a file.
    fn save(&self, path: &Path) -> Result<()>;
    /// Loads it from a file.
    fn load(path: &Path) -> Result<Self>;
}

/// The trait's methods are the network's own.
macro_rules! trainable {
    ($network:ty, $kind:literal) => {
        impl Trainable for $network {
            const KIND: &'static str = $kind;

            fn layers(&self) -> &[NamedLayer] {
                self.layers()
            }

            fn layers_mut(&mut self) -> &mut [NamedLayer] {
                self.layers_mut()
            }

            fn replica(&self, kind: Kind) -> Self {
                self.replica(kind)
            }

            fn description(&self) -> Result<String> {
                self.description()
            }

            fn save(&self, path: &Path) -> Result<()> {
                self.save(path)
            }

            fn load(path: &Path) -> Result<Self> {
                <$network>::load(path)
            }
        }
    };
}

trainable!(Network, "network");
trainable!(Unet, "unet");
trainable!(UnetDenoiser, "unet_denoiser");
